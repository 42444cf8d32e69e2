#include "holdfast/freshness.h"

#include <utility>

#include "base/check.h"
#include "client/claim.h"

namespace holdfast {

std::string_view ToString(Proof proof) {
  switch (proof) {
    case Proof::kProven:
      return "proven";
    case Proof::kEstimated:
      return "estimated";
    case Proof::kUnknown:
      break;
  }
  return "unknown";
}

std::string_view ToString(Source source) {
  switch (source) {
    case Source::kLeader:
      return "leader";
    case Source::kFollower:
      return "follower";
    case Source::kMirror:
      return "mirror";
    case Source::kDisk:
      return "disk";
    case Source::kDefault:
      return "default";
    case Source::kOverride:
      return "override";
    case Source::kUnknown:
      break;
  }
  return "unknown";
}

std::string_view ToString(Grade grade) {
  switch (grade) {
    case Grade::kFresh:
      return "fresh";
    case Grade::kStaleAllowed:
      return "stale-allowed";
    case Grade::kReduced:
      break;
  }
  return "reduced";
}

absl::Duration Freshness::MaxAge() const {
  if (clock_ == nullptr || extra_ == absl::InfiniteDuration()) return absl::InfiniteDuration();
  const base::ClockSample from{at_.boot_ns, at_.mono_ns, at_.raw_ns};
  return extra_ + base::Elapsed(from, clock_->Sample(), max_clock_slow_);
}

Grade Freshness::grade() const {
  const absl::Duration age = MaxAge();
  const bool proven = proof_ == Proof::kProven;
  if (reduced_after_ != absl::InfiniteDuration() && (!proven || age > reduced_after_)) {
    return Grade::kReduced;
  }
  return proven && age <= kFreshWithin ? Grade::kFresh : Grade::kStaleAllowed;
}

bool Freshness::Within(absl::Duration max_age, Proof at_least) const {
  if (max_age == absl::InfiniteDuration()) return true;
  return proof_ <= at_least && MaxAge() <= max_age;
}

namespace internal {

std::shared_ptr<const base::Clock> RealClockPtr() {
  return {std::shared_ptr<void>(), base::RealClock::Get()};
}

Freshness FreshnessAccess::Make(const Claim& claim, std::shared_ptr<const base::Clock> clock,
                                double max_clock_slow) {
  CHECK(clock != nullptr);
  // An age is what a proof proves: neither stands without the other.
  CHECK((claim.proof != Proof::kUnknown) == (claim.extra != absl::InfiniteDuration()));
  CHECK(claim.extra >= absl::ZeroDuration());
  Freshness fresh;
  fresh.at_ = {claim.at.boot_ns, claim.at.mono_ns, claim.at.raw_ns};
  fresh.extra_ = claim.extra;
  fresh.max_clock_slow_ = max_clock_slow;
  fresh.clock_ = std::move(clock);
  fresh.proof_ = claim.proof;
  fresh.source_ = claim.source;
  fresh.revision_ = claim.revision;
  fresh.reduced_after_ = claim.reduced_after;
  fresh.superseded_ = claim.superseded;
  return fresh;
}

Claim FreshnessAccess::ToClaim(const Freshness& fresh) {
  return {{fresh.at_.boot_ns, fresh.at_.mono_ns, fresh.at_.raw_ns},
          fresh.extra_,
          fresh.proof_,
          fresh.source_,
          fresh.revision_,
          fresh.reduced_after_,
          fresh.superseded_};
}

const std::shared_ptr<const base::Clock>& FreshnessAccess::Clock(const Freshness& fresh) {
  return fresh.clock_;
}

double FreshnessAccess::MaxClockSlow(const Freshness& fresh) { return fresh.max_clock_slow_; }

}  // namespace internal
}  // namespace holdfast
