// How fast snapshots leave this member, all together: one bucket that the senders share.
//
// Every chunk is given its moment: the one before it plus its size over the rate. So bytes leave
// evenly instead of in a burst a second, and what was not used for kSnapshotBurst is lost.
// Threads: all. Time is the caller's, so tests need none.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>

#include "server/peer_channel.h"

namespace holdfast::server {

// What a sender that was held up may catch up on.
inline constexpr std::chrono::milliseconds kSnapshotBurst(20);

class SnapshotRate {
 public:
  // 0: as fast as it goes.
  explicit SnapshotRate(uint64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  // When `bytes` more may leave; not after `now`: at once.
  SteadyTime Reserve(uint64_t bytes, SteadyTime now) {
    if (bytes_per_second_ == 0) return now;
    std::lock_guard lock(mutex_);
    const SteadyTime moment = std::max(next_, now - kSnapshotBurst);
    const std::chrono::duration<double> takes(double(bytes) / double(bytes_per_second_));
    next_ = moment + std::chrono::duration_cast<SteadyTime::duration>(takes);
    return moment;
  }

  // A chunk's size such that a low rate does not leave in lumps of seconds.
  size_t ChunkBytes(size_t most) const {
    if (bytes_per_second_ == 0) return most;
    return std::clamp<uint64_t>(bytes_per_second_ / kChunksPerSecond, 1, most);
  }

 private:
  static constexpr uint64_t kChunksPerSecond = 20;

  const uint64_t bytes_per_second_;
  std::mutex mutex_;
  SteadyTime next_;  // guarded by mutex_; when the next chunk is due
};

}  // namespace holdfast::server
