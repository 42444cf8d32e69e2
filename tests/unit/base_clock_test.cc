#include "base/clock.h"

#include <gtest/gtest.h>

namespace holdfast::base {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;

ClockSample Sample(int64_t boot_ms, int64_t mono_ms, int64_t raw_ms) {
  return {boot_ms * 1'000'000, mono_ms * 1'000'000, raw_ms * 1'000'000};
}

// Freshness 2 with rho = 0, so that only the choice of clocks is left: milliseconds, without the
// constant one.
int64_t Longest(const ClockSample& from, const ClockSample& to) {
  return absl::ToInt64Milliseconds(Elapsed(from, to, /*rho=*/0) - absl::Milliseconds(1));
}

TEST(Elapsed, AddsRhoAndAMillisecond) {
  const ClockSample from = Sample(0, 0, 0);
  EXPECT_EQ(Elapsed(from, from), absl::Milliseconds(1));
  const ClockSample to = Sample(10'000, 10'000, 10'000);
  EXPECT_EQ(Elapsed(from, to), absl::Milliseconds(10'021));
  EXPECT_EQ(Elapsed(from, to, 0.01), absl::Milliseconds(10'101));
}

TEST(Elapsed, IsNotFooledByOneSlowClock) {
  const ClockSample from = Sample(5000, 4000, 3000);
  EXPECT_EQ(Longest(from, Sample(6000, 5000, 4000)), 1000);
  EXPECT_EQ(Longest(from, Sample(5900, 4900, 4000)), 1000);  // BOOT and MONO slewed slow
  EXPECT_EQ(Longest(from, Sample(6000, 5000, 3900)), 1000);  // RAW runs slow
}

TEST(Elapsed, CountsTimeInSuspend) {
  const ClockSample from = Sample(0, 0, 0);
  // An hour asleep, one second awake; the slewed clocks lost a tenth of that second.
  EXPECT_EQ(Longest(from, Sample(3'600'900, 900, 1000)), 3'601'000);
}

TEST(Elapsed, IsNeverNegative) {
  EXPECT_EQ(Elapsed(Sample(9000, 9000, 9000), Sample(0, 0, 0)), absl::Milliseconds(1));
  // MONO ahead of BOOT, which no kernel does, shortens nothing.
  EXPECT_EQ(Longest(Sample(0, 0, 0), Sample(1000, 2000, 1000)), 1000);
}

TEST(Elapsed, RoundsUp) {
  const ClockSample from{0, 0, 0}, to{1, 1, 1};
  EXPECT_EQ(Elapsed(from, to), absl::Nanoseconds(2) + absl::Milliseconds(1));
}

TEST(FakeClock, MovesOnlyWhenTold) {
  FakeClock clock;
  const ClockSample before = clock.Sample();
  EXPECT_EQ(clock.Sample().boot_ns, before.boot_ns);
  clock.Advance(absl::Seconds(3));
  const ClockSample after = clock.Sample();
  EXPECT_EQ(after.boot_ns - before.boot_ns, 3 * kSecondNs);
  EXPECT_EQ(after.mono_ns - before.mono_ns, 3 * kSecondNs);
  EXPECT_EQ(after.raw_ns - before.raw_ns, 3 * kSecondNs);
}

TEST(RealClock, NeverGoesBack) {
  ClockSample last = RealClock::Get()->Sample();
  for (int i = 0; i < 1000; ++i) {
    const ClockSample now = RealClock::Get()->Sample();
    EXPECT_GE(now.boot_ns, last.boot_ns);
    EXPECT_GE(now.mono_ns, last.mono_ns);
    EXPECT_GE(now.raw_ns, last.raw_ns);
    EXPECT_GE(Elapsed(last, now), absl::Milliseconds(1));
    last = now;
  }
}

}  // namespace
}  // namespace holdfast::base
