#include "holdfast/error.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/base/thread_annotations.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "client/claim.h"

namespace holdfast {
namespace {

constexpr char kMaybeCommittedUrl[] = "holdfast/maybe-committed";
constexpr char kWriteTicketUrl[] = "holdfast/write-ticket";
constexpr char kRetryAfterUrl[] = "holdfast/retry-after-ns";
constexpr char kBestAvailableUrl[] = "holdfast/best-available";

// A payload is bytes, and a clock is not: this gives clocks names. It holds one weak pointer per
// clock that was ever in an error: one in a service, a few in a test.
class ClockNames {
 public:
  static ClockNames& Get() {
    static auto* names = new ClockNames;
    return *names;
  }

  // Freshness 1: clock readings never leave the process that took them, and a status may.
  const uint64_t process = base::RandomSeed();

  uint64_t NameOf(const std::shared_ptr<const base::Clock>& clock) {
    if (clock.get() == base::RealClock::Get()) return kRealClock;
    absl::MutexLock lock(&mutex_);
    for (const auto& [name, known] : clocks_) {
      if (known.lock() == clock) return name;
    }
    std::erase_if(clocks_, [](const auto& item) { return item.second.expired(); });
    clocks_[++last_name_] = clock;
    return last_name_;
  }

  std::shared_ptr<const base::Clock> Find(uint64_t name) {
    if (name == kRealClock) return internal::RealClockPtr();
    absl::MutexLock lock(&mutex_);
    const auto it = clocks_.find(name);
    return it == clocks_.end() ? nullptr : it->second.lock();
  }

 private:
  static constexpr uint64_t kRealClock = 0;
  absl::Mutex mutex_;
  uint64_t last_name_ ABSL_GUARDED_BY(mutex_) = kRealClock;
  std::map<uint64_t, std::weak_ptr<const base::Clock>> clocks_ ABSL_GUARDED_BY(mutex_);
};

std::optional<std::string> Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  if (!payload.has_value()) return std::nullopt;
  return std::string(*payload);
}

template <class T>
bool ParseAll(const std::vector<std::string>& fields, std::vector<T>& out) {
  for (const std::string& field : fields) {
    T value;
    if (!absl::SimpleAtoi(field, &value)) return false;
    out.push_back(value);
  }
  return true;
}

}  // namespace

bool MaybeCommitted(const absl::Status& status) {
  return Payload(status, kMaybeCommittedUrl).has_value();
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const auto payload = Payload(status, kRetryAfterUrl);
  int64_t ns = 0;
  if (!payload || !absl::SimpleAtoi(*payload, &ns)) return std::nullopt;
  return absl::Nanoseconds(ns);
}

std::optional<Freshness> BestAvailable(const absl::Status& status) {
  const auto payload = Payload(status, kBestAvailableUrl);
  if (!payload) return std::nullopt;
  // process, clock, boot, mono, raw, extra (ns, -1: unknown), source, revision, 1e9 * rho; then
  // proof, reduced after (ns, -1: never), superseded.
  std::vector<uint64_t> f;
  if (!ParseAll(absl::StrSplit(*payload, ' '), f) || f.size() != 12) return std::nullopt;
  if (f[0] != ClockNames::Get().process) return std::nullopt;
  const auto clock = ClockNames::Get().Find(f[1]);
  if (clock == nullptr) return std::nullopt;
  internal::Claim claim;
  claim.at = {static_cast<int64_t>(f[2]), static_cast<int64_t>(f[3]), static_cast<int64_t>(f[4])};
  if (const auto extra_ns = static_cast<int64_t>(f[5]); extra_ns >= 0) {
    claim.extra = absl::Nanoseconds(extra_ns);
    claim.proof = static_cast<Proof>(f[9]);
  }
  claim.source = static_cast<Source>(f[6]);
  claim.revision = f[7];
  if (const auto ns = static_cast<int64_t>(f[10]); ns >= 0) {
    claim.reduced_after = absl::Nanoseconds(ns);
  }
  claim.superseded = f[11] != 0;
  return internal::FreshnessAccess::Make(claim, clock, static_cast<double>(f[8]) / 1e9);
}

namespace internal {

void SetMaybeCommitted(absl::Status& status) {
  CHECK(status.code() == absl::StatusCode::kUnknown);
  status.SetPayload(kMaybeCommittedUrl, absl::Cord("1"));
}

void SetWriteTicket(absl::Status& status, uint64_t ticket) {
  status.SetPayload(kWriteTicketUrl,
                    absl::Cord(fmt::format("{} {}", ClockNames::Get().process, ticket)));
}

uint64_t WriteTicket(const absl::Status& status) {
  const auto payload = Payload(status, kWriteTicketUrl);
  std::vector<uint64_t> f;
  if (!payload || !ParseAll(absl::StrSplit(*payload, ' '), f) || f.size() != 2) return 0;
  return f[0] == ClockNames::Get().process ? f[1] : 0;
}

void SetRetryAfter(absl::Status& status, absl::Duration delay) {
  status.SetPayload(kRetryAfterUrl, absl::Cord(std::to_string(absl::ToInt64Nanoseconds(delay))));
}

void SetBestAvailable(absl::Status& status, const Freshness& fresh) {
  const Claim claim = FreshnessAccess::ToClaim(fresh);
  ClockNames& names = ClockNames::Get();
  const bool known = claim.proof != Proof::kUnknown;
  status.SetPayload(
      kBestAvailableUrl,
      absl::Cord(fmt::format(
          "{} {} {} {} {} {} {} {} {} {} {} {}", names.process,
          names.NameOf(FreshnessAccess::Clock(fresh)), static_cast<uint64_t>(claim.at.boot_ns),
          static_cast<uint64_t>(claim.at.mono_ns), static_cast<uint64_t>(claim.at.raw_ns),
          static_cast<uint64_t>(known ? absl::ToInt64Nanoseconds(claim.extra) : -1),
          static_cast<uint64_t>(claim.source), claim.revision,
          static_cast<uint64_t>(FreshnessAccess::MaxClockSlow(fresh) * 1e9 + 0.5),
          static_cast<uint64_t>(claim.proof),
          static_cast<uint64_t>(claim.reduced_after == absl::InfiniteDuration()
                                    ? -1
                                    : absl::ToInt64Nanoseconds(claim.reduced_after)),
          claim.superseded ? 1 : 0)));
}

}  // namespace internal
}  // namespace holdfast
