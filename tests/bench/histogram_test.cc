#include "bench/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace holdfast::bench {
namespace {

constexpr double kQuantiles[] = {0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
constexpr double kAllowedError = 0.01;

int64_t SortedQuantile(const std::vector<int64_t>& sorted, double q) {
  const size_t rank = std::max<size_t>(1, size_t(std::ceil(q * double(sorted.size()))));
  return sorted[rank - 1];
}

// Spread evenly over the orders of magnitude from 1 ns to an hour.
int64_t LogUniform(base::Rng& rng) {
  const double exponent = double(rng.Below(1'000'000)) / 1e6 * std::log(3.6e12);
  return int64_t(std::exp(exponent));
}

void ExpectSameAs(const LatencyHistogram& histogram, std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  ASSERT_EQ(histogram.count(), values.size());
  EXPECT_EQ(histogram.min_ns(), values.front());
  EXPECT_EQ(histogram.max_ns(), values.back());
  double sum = 0;
  for (const int64_t value : values) sum += double(value);
  EXPECT_NEAR(histogram.mean_ns(), sum / double(values.size()), sum * 1e-12);
  for (const double q : kQuantiles) {
    const double expected = double(SortedQuantile(values, q));
    EXPECT_NEAR(double(histogram.QuantileNs(q)), expected, expected * kAllowedError) << "q=" << q;
  }
}

TEST(LatencyHistogramTest, QuantilesAgreeWithASortedList) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    base::Rng rng(seed);
    LatencyHistogram histogram;
    std::vector<int64_t> values;
    for (int i = 0; i < 20'000; ++i) {
      values.push_back(LogUniform(rng));
      histogram.Record(values.back());
    }
    ExpectSameAs(histogram, values);
  }
}

TEST(LatencyHistogramTest, EverySingleValueIsWithinOnePercent) {
  for (uint64_t value = 1; value < (uint64_t{1} << 62); value += 1 + value / 37) {
    LatencyHistogram histogram;
    // Two values beside it, so that the exact extremes do not help.
    histogram.Record(0);
    histogram.Record(int64_t(value));
    histogram.Record(INT64_MAX);
    ASSERT_NEAR(double(histogram.QuantileNs(0.5)), double(value), double(value) * kAllowedError);
  }
}

TEST(LatencyHistogramTest, SmallValuesAreExact) {
  LatencyHistogram histogram;
  for (int64_t value = 0; value < 256; ++value) histogram.Record(value);
  for (int64_t value = 0; value < 256; ++value) {
    EXPECT_EQ(histogram.QuantileNs(double(value + 1) / 256), value);
  }
}

TEST(LatencyHistogramTest, MergedPartsEqualTheWhole) {
  base::Rng rng(7);
  LatencyHistogram parts[3];
  LatencyHistogram whole;
  std::vector<int64_t> values;
  for (int i = 0; i < 9'000; ++i) {
    values.push_back(LogUniform(rng));
    parts[i % 3].Record(values.back());
    whole.Record(values.back());
  }
  LatencyHistogram merged;
  for (const LatencyHistogram& part : parts) merged.Merge(part);
  ExpectSameAs(merged, values);
  for (const double q : kQuantiles) EXPECT_EQ(merged.QuantileNs(q), whole.QuantileNs(q));
}

// The average of the workers' percentiles would be 50.5 ms here; merged counts know better.
TEST(LatencyHistogramTest, MergingIsNotAveraging) {
  LatencyHistogram fast;
  LatencyHistogram slow;
  for (int i = 0; i < 9'900; ++i) fast.Record(1'000'000);
  for (int i = 0; i < 100; ++i) slow.Record(100'000'000);
  fast.Merge(slow);
  EXPECT_NEAR(double(fast.QuantileNs(0.99)), 1e6, 1e4);
  EXPECT_NEAR(double(fast.QuantileNs(0.991)), 1e8, 1e6);
}

TEST(LatencyHistogramTest, EmptyIsZeroAndMergesAsNothing) {
  LatencyHistogram empty;
  EXPECT_EQ(empty.count(), 0u);
  EXPECT_EQ(empty.min_ns(), 0);
  EXPECT_EQ(empty.max_ns(), 0);
  EXPECT_EQ(empty.mean_ns(), 0);
  EXPECT_EQ(empty.QuantileNs(0.99), 0);
  LatencyHistogram one;
  one.Record(42);
  one.Merge(empty);
  EXPECT_EQ(one.min_ns(), 42);
  EXPECT_EQ(one.count(), 1u);
}

TEST(LatencyHistogramTest, NegativeCountsAsZero) {
  LatencyHistogram histogram;
  histogram.Record(-5);
  EXPECT_EQ(histogram.count(), 1u);
  EXPECT_EQ(histogram.max_ns(), 0);
}

}  // namespace
}  // namespace holdfast::bench
