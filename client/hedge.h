// When a read gets a second try beside the first, and how many may.
//
// A hedge goes out when a read has taken longer than most of the recent ones (a quantile of their
// times), and is paid for when it is sent: at most a share of the reads, whatever happens. So it
// shortens the tail of a healthy store, and adds next to nothing to the load of one that is slow as
// a whole: there the quantile rises, and the budget is spent.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "holdfast/options.h"

namespace holdfast::internal {

// A quantile of recent durations, within 5 %, in constant memory: buckets on a logarithmic scale
// whose counts are halved again and again, so that old times fade. Pure. Threads: one.
class RecentQuantile {
 public:
  // Half of the weight is of the last so many.
  static constexpr uint64_t kHalfLife = 1000;

  void Add(absl::Duration time);
  // The time that the share `q` of the recent ones does not exceed; the upper edge of its bucket.
  // REQUIRES: weight() > 0.
  absl::Duration At(double q) const;
  uint64_t weight() const { return weight_; }

 private:
  // From 50 us, each a tenth longer than the one before: the last holds what exceeds a minute.
  static constexpr size_t kBuckets = 150;
  static size_t BucketOf(absl::Duration time);
  static absl::Duration UpperEdge(size_t bucket);

  std::array<uint32_t, kBuckets> counts_{};
  uint64_t weight_ = 0;
  uint64_t since_halved_ = 0;
};

// Pure. Threads: one.
class Hedger {
 public:
  // Before so many reads were timed nobody knows what is slow: no hedge.
  static constexpr uint64_t kReadsMin = 20;
  // What reads without a hedge can save up.
  static constexpr double kSavedMax = 5.0;

  explicit Hedger(const HedgePolicy& policy) : policy_(policy) {}

  // A read begins that may be hedged: after how long; nullopt: not this one.
  std::optional<absl::Duration> OnRead();
  // A hedge is about to be sent; false: it must not be.
  bool Take();
  // How long a read's first try took; of one that was beaten by its hedge, how long it had been
  // under way by then.
  void OnTime(absl::Duration time);

 private:
  const HedgePolicy policy_;
  RecentQuantile times_;
  double tokens_ = 0;
  // The quantile, computed anew now and then.
  absl::Duration delay_ = absl::InfiniteDuration();
  uint64_t timed_ = 0;
};

}  // namespace holdfast::internal
