// The clock of the age protocol (docs/freshness.md section 2), and nothing else measures age.
//
// Only durations between two samples of ONE process's clock mean anything; a sample never leaves
// the machine that took it. absl::Now() is wall time and is never used for age.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace holdfast::base {

// Freshness 2: three kernel clocks read at one instant, nanoseconds.
struct ClockSample {
  int64_t boot_ns = 0;  // CLOCK_BOOTTIME: counts suspend, slewed by NTP
  int64_t mono_ns = 0;  // CLOCK_MONOTONIC: leaves suspend out, slewed by NTP
  int64_t raw_ns = 0;   // CLOCK_MONOTONIC_RAW: leaves suspend out, not slewed
};

// Freshness A1: by how much a process's own elapsed time may run slow.
inline constexpr double kDefaultMaxClockSlow = 0.002;

// An upper bound on the true time from `from` to `to`, both samples of this process:
// (1 + rho) * max(dBOOT, dRAW + max(0, dBOOT - dMONO)) + 1 ms. Never negative.
absl::Duration Elapsed(const ClockSample& from, const ClockSample& to,
                       double rho = kDefaultMaxClockSlow);

// Threads: all. Implementations must never go back.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual ClockSample Sample() const = 0;
};

// The kernel's clocks.
class RealClock : public Clock {
 public:
  ClockSample Sample() const override;
  static RealClock* Get();  // lives for ever
};

// Moves only when told to; for tests.
class FakeClock : public Clock {
 public:
  ClockSample Sample() const override;
  void Advance(absl::Duration d);

 private:
  std::atomic<int64_t> now_ns_{1'000'000'000};
};

}  // namespace holdfast::base
