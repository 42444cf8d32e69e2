// holdfast-bench watch: how soon, and at what cost, do many watchers hear of puts?
//
// First the puts alone, for what they cost by themselves; then the same with the watchers. Puts
// come in an open loop and carry their number and the moment at which they were due, so that an
// event's latency counts from there, and every single delivery is accounted for.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// Pure: which watchers a put is for.
//   ranges  the key space is divided into equal ranges, of which each is watched by fan_out
//           watchers on different streams as far as possible; puts go to random keys.
//   prefix  one watcher on each stream, on the whole prefix: every put is for all of them.
class WatchLayout {
 public:
  // REQUIRES: options.watch is valid.
  explicit WatchLayout(const Options& options);

  uint64_t watchers() const { return watchers_; }
  uint64_t fan_out() const { return watchers_ / ranges_; }
  uint64_t keys() const { return ranges_ * keys_per_range_; }
  uint64_t KeyOf(uint64_t put) const;
  bool IsFor(uint64_t watcher, uint64_t put) const {
    return KeyOf(put) / keys_per_range_ == RangeOf(watcher);
  }
  // The first key of the watcher's range, and the one behind its last.
  uint64_t FirstKey(uint64_t watcher) const { return RangeOf(watcher) * keys_per_range_; }
  uint64_t EndKey(uint64_t watcher) const { return FirstKey(watcher) + keys_per_range_; }

 private:
  // Watchers of one range are as far apart as can be, for streams hold consecutive ones.
  uint64_t RangeOf(uint64_t watcher) const { return watcher % ranges_; }

  uint64_t watchers_;
  uint64_t ranges_;
  uint64_t keys_per_range_;
  uint64_t seed_;
};

// Not passed if an event was missing, doubled or out of order, or a watcher was lost. Progress goes
// to stderr.
absl::StatusOr<BenchReport> WatchBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
