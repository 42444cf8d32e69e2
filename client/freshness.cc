#include "holdfast/freshness.h"

#include <utility>

#include "base/check.h"
#include "client/claim.h"

namespace holdfast {

std::string_view ToString(Proof proof) {
  switch (proof) {
    case Proof::kProven:
      return "proven";
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
    case Source::kUnknown:
      break;
  }
  return "unknown";
}

absl::Duration Freshness::MaxAge() const {
  if (clock_ == nullptr || extra_ == absl::InfiniteDuration()) return absl::InfiniteDuration();
  const base::ClockSample from{at_.boot_ns, at_.mono_ns, at_.raw_ns};
  return extra_ + base::Elapsed(from, clock_->Sample(), max_clock_slow_);
}

bool Freshness::Within(absl::Duration max_age) const {
  if (max_age == absl::InfiniteDuration()) return true;
  return proof_ == Proof::kProven && MaxAge() <= max_age;
}

namespace internal {

Freshness FreshnessAccess::Make(const Claim& claim, std::shared_ptr<const base::Clock> clock,
                                double max_clock_slow) {
  CHECK(clock != nullptr);
  // An age is what a proof proves: neither stands without the other.
  CHECK((claim.proof == Proof::kProven) == (claim.extra != absl::InfiniteDuration()));
  CHECK(claim.extra >= absl::ZeroDuration());
  Freshness fresh;
  fresh.at_ = {claim.at.boot_ns, claim.at.mono_ns, claim.at.raw_ns};
  fresh.extra_ = claim.extra;
  fresh.max_clock_slow_ = max_clock_slow;
  fresh.clock_ = std::move(clock);
  fresh.proof_ = claim.proof;
  fresh.source_ = claim.source;
  fresh.revision_ = claim.revision;
  return fresh;
}

Claim FreshnessAccess::ToClaim(const Freshness& fresh) {
  return {{fresh.at_.boot_ns, fresh.at_.mono_ns, fresh.at_.raw_ns},
          fresh.extra_,
          fresh.proof_,
          fresh.source_,
          fresh.revision_};
}

const std::shared_ptr<const base::Clock>& FreshnessAccess::Clock(const Freshness& fresh) {
  return fresh.clock_;
}

double FreshnessAccess::MaxClockSlow(const Freshness& fresh) { return fresh.max_clock_slow_; }

}  // namespace internal
}  // namespace holdfast
