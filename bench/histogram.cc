#include "bench/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"

namespace holdfast::bench {
namespace {

constexpr int kSubBucketBits = 7;  // 128 buckets for each power of two
constexpr int kMaxShift = 63 - 1 - kSubBucketBits;
constexpr size_t kBuckets = (size_t{kMaxShift} << kSubBucketBits) + (size_t{2} << kSubBucketBits);

// How many low bits the bucket of `value` ignores.
int ShiftOf(uint64_t value) { return std::max(0, int(std::bit_width(value)) - 1 - kSubBucketBits); }

// value >> shift lies in [128, 255] for every shift > 0, so the ranges of two shifts never overlap.
size_t BucketOf(uint64_t value) {
  const int shift = ShiftOf(value);
  return (size_t(shift) << kSubBucketBits) + (value >> shift);
}

int64_t MiddleOf(size_t bucket) {
  const size_t two_powers = size_t{2} << kSubBucketBits;
  if (bucket < two_powers) return int64_t(bucket);
  const int shift = int(bucket >> kSubBucketBits) - 1;
  const uint64_t low = uint64_t(bucket - (size_t(shift) << kSubBucketBits)) << shift;
  return int64_t(low + (uint64_t{1} << shift) / 2);
}

}  // namespace

LatencyHistogram::LatencyHistogram() : buckets_(kBuckets) {}

void LatencyHistogram::Record(int64_t value_ns) {
  value_ns = std::max<int64_t>(0, value_ns);
  ++buckets_[BucketOf(uint64_t(value_ns))];
  ++count_;
  min_ns_ = std::min(min_ns_, value_ns);
  max_ns_ = std::max(max_ns_, value_ns);
  sum_ns_ += double(value_ns);
}

void LatencyHistogram::Merge(const LatencyHistogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ns_ = std::min(min_ns_, other.min_ns_);
  max_ns_ = std::max(max_ns_, other.max_ns_);
  sum_ns_ += other.sum_ns_;
}

double LatencyHistogram::mean_ns() const { return count_ == 0 ? 0 : sum_ns_ / double(count_); }

int64_t LatencyHistogram::QuantileNs(double q) const {
  CHECK(q >= 0);
  CHECK(q <= 1);
  if (count_ == 0) return 0;
  const uint64_t rank = std::max<uint64_t>(1, uint64_t(std::ceil(q * double(count_))));
  if (rank >= count_) return max_ns_;
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i];
    // A bucket's middle may lie outside of what was recorded, the extremes are known exactly.
    if (seen >= rank) return std::clamp(MiddleOf(i), min_ns_, max_ns_);
  }
  return max_ns_;
}

}  // namespace holdfast::bench
