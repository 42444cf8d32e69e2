#include "bench/time_series.h"

#include <gtest/gtest.h>

namespace holdfast::bench {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1000 * kMs;

TEST(TimeSeriesTest, CountsEachSecondAndItsLatencies) {
  TimeSeries series(5 * kSecond);
  series.Record(4 * kSecond, kMs, true);  // before its begin
  for (int i = 1; i <= 100; ++i) series.Record(5 * kSecond + i, i * kMs, true);
  series.Record(7 * kSecond, 0, false);
  const auto points = series.Points();
  ASSERT_EQ(points.size(), 3u);
  EXPECT_EQ(points[0].ok, 100u);
  EXPECT_NEAR(points[0].p50_ms, 50, 50 * 0.04);
  EXPECT_NEAR(points[0].p99_ms, 99, 99 * 0.04);
  EXPECT_EQ(points[0].max_ms, 100);
  EXPECT_EQ(points[1].ok, 0u);  // nothing ended: a stall is seen, not skipped
  EXPECT_EQ(points[2].failed, 1u);
  EXPECT_EQ(points[2].at_seconds, 2);
}

TEST(TimeSeriesTest, ALongRunKeepsItsCountsInBoundedMemory) {
  TimeSeries series(0);
  constexpr int kSeconds = 10 * int(TimeSeries::kMaxPoints);
  for (int second = 0; second < kSeconds; ++second) {
    series.Record(second * kSecond, (second % 7 + 1) * kMs, true);
  }
  const auto points = series.Points();
  EXPECT_LE(points.size(), TimeSeries::kMaxPoints);
  uint64_t ok = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    ok += points[i].ok;
    EXPECT_EQ(points[i].at_seconds, double(i) * points[0].seconds);
  }
  EXPECT_EQ(ok, uint64_t(kSeconds));
  EXPECT_EQ(points[0].seconds, 16);
  EXPECT_EQ(points[0].max_ms, 7);
}

TEST(TimeSeriesTest, SeriesOfDifferentWidthJoin) {
  TimeSeries narrow(0);
  TimeSeries wide(0);
  narrow.Record(kSecond, kMs, true);
  wide.Record(kSecond, 3 * kMs, true);
  wide.Record(2 * int64_t(TimeSeries::kMaxPoints) * kSecond - 1, kMs, true);
  narrow.Merge(wide);
  const auto points = narrow.Points();
  ASSERT_FALSE(points.empty());
  EXPECT_EQ(points[0].seconds, 2);
  EXPECT_EQ(points[0].ok, 2u);
  EXPECT_EQ(points[0].max_ms, 3);
  EXPECT_EQ(points.back().ok, 1u);
}

}  // namespace
}  // namespace holdfast::bench
