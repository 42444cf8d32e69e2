// Where the mirrors of one or many clients run: one thread, tasks in order, timers.
//
// Everything that feeds a mirror happens here; reads never come here. A client has one of its own;
// a program that holds thousands of clients may give them one (MirrorRuntime).
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace holdfast::internal {

using Task = absl::AnyInvocable<void() &&>;

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // Steady, from any origin; for waits only, never for ages.
  virtual absl::Duration Now() const = 0;
  // Any thread. Tasks run one at a time, in the order in which they were posted. False: it has been
  // stopped, and the task is dropped.
  virtual bool Post(Task task) = 0;
  // Any thread. Not before `when`; cannot be taken back, so the task looks whether it still counts.
  virtual void At(absl::Duration when, Task task) = 0;
  virtual bool OnThread() const = 0;

  void After(absl::Duration delay, Task task) { At(Now() + delay, std::move(task)); }
};

class ThreadScheduler : public Scheduler {
 public:
  ThreadScheduler();
  // REQUIRES: Stop() was called. May happen on any thread: the last RPC that knows of it lets go.
  ~ThreadScheduler() override = default;

  // Ends the thread; what is queued is dropped, and whatever is posted later. REQUIRES: not on its
  // thread.
  void Stop();

  absl::Duration Now() const override;
  bool Post(Task task) override;
  void At(absl::Duration when, Task task) override;
  bool OnThread() const override { return std::this_thread::get_id() == thread_.get_id(); }

 private:
  struct Timer {
    absl::Duration when;
    uint64_t order = 0;  // of two for the same instant, the older first
    mutable Task task;   // a priority_queue hands out const
    bool operator<(const Timer& other) const {
      return when != other.when ? when > other.when : order > other.order;
    }
  };
  void Loop();

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::deque<Task> tasks_;
  std::priority_queue<Timer> timers_;
  uint64_t last_order_ = 0;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace holdfast::internal
