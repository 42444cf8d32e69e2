#include "bench/time_series.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace holdfast::bench {

size_t TimeSeries::BucketOf(int64_t latency_ns) {
  const uint64_t value =
      uint64_t(std::clamp<int64_t>(latency_ns, 0, (int64_t{1} << kMaxPower) - 1));
  const int shift = std::max(0, int(std::bit_width(value)) - 1 - kSubBits);
  return (size_t(shift) << kSubBits) + (value >> shift);
}

double TimeSeries::MillisecondsOf(size_t bucket) {
  const size_t exact = size_t{2} << kSubBits;
  if (bucket < exact) return double(bucket) * 1e-6;
  const int shift = int(bucket >> kSubBits) - 1;
  const uint64_t low = uint64_t(bucket - (size_t(shift) << kSubBits)) << shift;
  return (double(low) + double(uint64_t{1} << shift) / 2) * 1e-6;
}

double TimeSeries::QuantileMs(const Cell& cell, double q) {
  if (cell.ok == 0) return 0;
  const uint64_t rank = std::max<uint64_t>(1, uint64_t(std::ceil(q * double(cell.ok))));
  uint64_t seen = 0;
  for (size_t i = 0; i < cell.buckets.size(); ++i) {
    seen += cell.buckets[i];
    if (seen >= rank) return std::min(MillisecondsOf(i), double(cell.max_ns) * 1e-6);
  }
  return double(cell.max_ns) * 1e-6;
}

void TimeSeries::Add(const Cell& from, Cell& to) {
  to.ok += from.ok;
  to.failed += from.failed;
  to.max_ns = std::max(to.max_ns, from.max_ns);
  if (from.buckets.empty()) return;
  to.buckets.resize(kBuckets);
  for (size_t i = 0; i < kBuckets; ++i) to.buckets[i] += from.buckets[i];
}

void TimeSeries::Halve() {
  for (size_t i = 0; i < cells_.size(); ++i) {
    Cell cell = std::move(cells_[i]);
    cells_[i] = Cell();
    if (i % 2 == 0) {
      cells_[i / 2] = std::move(cell);
    } else {
      Add(cell, cells_[i / 2]);
    }
  }
  cells_.resize((cells_.size() + 1) / 2);
  width_ns_ *= 2;
}

TimeSeries::Cell& TimeSeries::CellAt(int64_t offset_ns) {
  while (offset_ns / width_ns_ >= int64_t(kMaxPoints)) Halve();
  const size_t index = size_t(offset_ns / width_ns_);
  if (index >= cells_.size()) cells_.resize(index + 1);
  return cells_[index];
}

void TimeSeries::Record(int64_t ended_ns, int64_t latency_ns, bool ok) {
  if (ended_ns < begin_ns_) return;
  Cell& cell = CellAt(ended_ns - begin_ns_);
  if (!ok) {
    ++cell.failed;
    return;
  }
  ++cell.ok;
  cell.max_ns = std::max(cell.max_ns, latency_ns);
  if (cell.buckets.empty()) cell.buckets.resize(kBuckets);
  ++cell.buckets[BucketOf(latency_ns)];
}

void TimeSeries::Merge(const TimeSeries& other) {
  CHECK(begin_ns_ == other.begin_ns_);
  while (width_ns_ < other.width_ns_) Halve();
  for (size_t i = 0; i < other.cells_.size(); ++i) {
    Add(other.cells_[i], CellAt(int64_t(i) * other.width_ns_));
  }
}

std::vector<TimeSeries::Point> TimeSeries::Points() const {
  std::vector<Point> points;
  const double seconds = double(width_ns_) * 1e-9;
  for (size_t i = 0; i < cells_.size(); ++i) {
    const Cell& cell = cells_[i];
    points.push_back({.at_seconds = double(i) * seconds,
                      .seconds = seconds,
                      .ok = cell.ok,
                      .failed = cell.failed,
                      .p50_ms = QuantileMs(cell, 0.5),
                      .p99_ms = QuantileMs(cell, 0.99),
                      .max_ms = double(cell.max_ns) * 1e-6});
  }
  return points;
}

}  // namespace holdfast::bench
