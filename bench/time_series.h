// Throughput and latency over the time of a run, in bounded memory.
//
// A point is one second at first. When a run outgrows kMaxPoints, two neighbours become one of
// twice the width, as often as needed. Latencies of a point are kept in buckets 1/16 of their power
// of two wide: a quantile is within 4 % of the exact one. A point costs 2.3 KiB once it is used.
//
// Threads: one at a time; every worker has its own and Merge() joins them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace holdfast::bench {

class TimeSeries {
 public:
  static constexpr size_t kMaxPoints = 600;

  // Of calls that end at begin_ns or later.
  explicit TimeSeries(int64_t begin_ns) : begin_ns_(begin_ns) {}

  // A success has a latency, an error does not. What ended before begin_ns is left out.
  void Record(int64_t ended_ns, int64_t latency_ns, bool ok);
  // REQUIRES: the same begin.
  void Merge(const TimeSeries& other);

  struct Point {
    double at_seconds = 0;  // its begin, from begin_ns on
    double seconds = 1;     // its width
    uint64_t ok = 0;
    uint64_t failed = 0;
    double p50_ms = 0;
    double p99_ms = 0;
    double max_ms = 0;
  };
  // From the begin to the last in which something ended, those in which nothing did included.
  std::vector<Point> Points() const;

 private:
  static constexpr int kSubBits = 4;
  static constexpr int kMaxPower = 36;  // 69 s; longer ones count as that
  static constexpr size_t kBuckets = size_t(kMaxPower - kSubBits + 2) << kSubBits;

  struct Cell {
    uint64_t ok = 0;
    uint64_t failed = 0;
    int64_t max_ns = 0;
    std::vector<uint32_t> buckets;  // empty, or kBuckets
  };

  static size_t BucketOf(int64_t latency_ns);
  static double MillisecondsOf(size_t bucket);
  static double QuantileMs(const Cell& cell, double q);
  static void Add(const Cell& from, Cell& to);
  Cell& CellAt(int64_t offset_ns);
  void Halve();

  int64_t begin_ns_;
  int64_t width_ns_ = 1'000'000'000;
  std::vector<Cell> cells_;  // Invariant: at most kMaxPoints.
};

}  // namespace holdfast::bench
