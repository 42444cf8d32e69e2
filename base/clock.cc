#include "base/clock.h"

#include <time.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace holdfast::base {
namespace {

int64_t ReadNs(clockid_t id) {
  timespec ts;
  CHECK(clock_gettime(id, &ts) == 0);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

}  // namespace

absl::Duration Elapsed(const ClockSample& from, const ClockSample& to, double rho) {
  const int64_t boot = to.boot_ns - from.boot_ns;
  const int64_t mono = to.mono_ns - from.mono_ns;
  const int64_t raw = to.raw_ns - from.raw_ns;
  // RAW is not slewed but stands still in suspend; dBOOT - dMONO is the time suspended.
  const int64_t longest = std::max({boot, raw + std::max<int64_t>(0, boot - mono), int64_t{0}});
  return absl::Nanoseconds(std::ceil((1.0 + rho) * static_cast<double>(longest))) +
         absl::Milliseconds(1);
}

ClockSample RealClock::Sample() const {
  // BOOT is read first: a stall between the reads then makes no clock look shorter than it is
  // when this sample is the start, and the others cover it when it is the end.
  ClockSample s;
  s.boot_ns = ReadNs(CLOCK_BOOTTIME);
  s.mono_ns = ReadNs(CLOCK_MONOTONIC);
  s.raw_ns = ReadNs(CLOCK_MONOTONIC_RAW);
  return s;
}

RealClock* RealClock::Get() {
  static auto* clock = new RealClock;
  return clock;
}

ClockSample FakeClock::Sample() const {
  const int64_t now = now_ns_.load();
  return {now, now, now};
}

void FakeClock::Advance(absl::Duration d) { now_ns_ += absl::ToInt64Nanoseconds(d); }

}  // namespace holdfast::base
