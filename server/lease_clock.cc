#include "server/lease_clock.h"

#include <algorithm>

namespace holdfast::server {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

void LeaseClock::Advance(const base::ClockSample& now, bool alive) {
  if (alive) now_ns_ += StepTo(now);
  last_ = now;
}

int64_t LeaseClock::now_ms() const { return now_ns_ / kNsPerMs; }

int64_t LeaseClock::UpperMs(const base::ClockSample& now) const {
  return (now_ns_ + StepTo(now) + kNsPerMs - 1) / kNsPerMs;
}

int64_t LeaseClock::StepTo(const base::ClockSample& now) const {
  if (!last_.has_value()) return 0;
  const int64_t least = std::min(
      {now.boot_ns - last_->boot_ns, now.mono_ns - last_->mono_ns, now.raw_ns - last_->raw_ns});
  const auto sure = static_cast<int64_t>(static_cast<double>(std::max<int64_t>(least, 0)) *
                                         (1 - base::kDefaultMaxClockSlow));
  return std::min(sure, absl::ToInt64Nanoseconds(kStepMax));
}

}  // namespace holdfast::server
