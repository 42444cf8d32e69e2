// The thread that keeps the last-known-good copies of one client's mirrors on disk, and looks for
// operators' files. Slow or broken disks hold up nobody else
// (the few bytes of a trial are written by the feed itself: client/last_good.h).
//
// Threads: the methods from the scheduler's thread. What is asked for is kept as "the newest of
// each kind" per prefix, so nothing can queue up.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "client/last_good.h"
#include "client/scheduler.h"
#include "holdfast/snapshot.h"

namespace holdfast::internal {

class DiskKeeper {
 public:
  // A generation is written at most so often, and its writing takes at most a twentieth of the
  // time.
  static constexpr absl::Duration kWriteEvery = absl::Seconds(1);
  static constexpr int kWriteShare = 20;
  static constexpr absl::Duration kPollOverrideEvery = absl::Milliseconds(500);

  // Told on the scheduler's thread. `written` with ALREADY_EXISTS: another process is the writer.
  struct Events {
    absl::AnyInvocable<void(uint64_t build, uint64_t revision, const absl::Status&)> written;
    absl::AnyInvocable<void(absl::StatusOr<LastGood::Override>)> override_changed;
  };

  explicit DiskKeeper(std::shared_ptr<Scheduler> scheduler);
  // Writes what is still to be written (with as much patience as the disk needs), then ends.
  ~DiskKeeper();

  // Before Start. Returns the slot's number.
  size_t Add(LastGood* files, Events events);
  void Start();

  struct Generation {
    uint64_t build = 0;  // the mirror's own name for the data
    MirrorSnapshot records;
    GenerationInfo info;
    bool on_trial = false;
  };
  void Write(size_t slot, Generation generation);
  void NoteClaim(size_t slot, GenerationInfo info);
  void MarkGood(size_t slot, uint64_t revision);
  void ForgetSuspects(size_t slot);

 private:
  struct Slot {
    LastGood* files = nullptr;
    std::shared_ptr<Events> events;
    std::optional<Generation> generation;
    std::optional<GenerationInfo> claim;
    std::optional<uint64_t> good;
    bool forget_suspects = false;
    // The thread's own.
    absl::Duration next_write;
  };
  void Loop();
  // What is due of a slot; `all`: whether it is due or not.
  void Serve(Slot& slot, std::unique_lock<std::mutex>& lock, bool all);
  void PollOverride(Slot& slot);

  const std::shared_ptr<Scheduler> scheduler_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  bool work_ = false;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::thread thread_;
};

}  // namespace holdfast::internal
