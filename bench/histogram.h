// Latencies of a whole run in bounded memory: log-linear buckets, as in an HDR histogram.
//
// Values below 256 ns are exact; above, a bucket is 1/128 of its power of two wide and a quantile
// is told as the bucket's middle, so it is within 0.4 % of the value a sorted list would give.
// min, max, mean and count are exact. One histogram is 57 KiB whatever it holds.
//
// Threads: one at a time; every worker has its own and Merge() joins them at the end.
#pragma once

#include <cstdint>
#include <vector>

namespace holdfast::bench {

class LatencyHistogram {
 public:
  LatencyHistogram();

  // Negative values count as 0.
  void Record(int64_t value_ns);
  void Merge(const LatencyHistogram& other);

  uint64_t count() const { return count_; }
  // All zero while count() is 0.
  int64_t min_ns() const { return count_ == 0 ? 0 : min_ns_; }
  int64_t max_ns() const { return max_ns_; }
  double mean_ns() const;
  // The smallest value such that at least q of all values are not greater. REQUIRES: 0 <= q <= 1.
  int64_t QuantileNs(double q) const;

 private:
  std::vector<uint64_t> buckets_;
  uint64_t count_ = 0;
  int64_t min_ns_ = INT64_MAX;
  int64_t max_ns_ = 0;
  double sum_ns_ = 0;
};

}  // namespace holdfast::bench
