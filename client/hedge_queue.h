// When the reads of one client that are under way are to be hedged: one timer for all of them,
// since nearly every read is answered long before its time comes.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/event_loop.h"

namespace holdfast::internal {

class Call;

// Threads: all methods from any thread.
class HedgeQueue {
 public:
  // Reads that wait for their time at once; one beyond is not hedged.
  static constexpr size_t kWaitingMax = 4096;
  // Times are kept to within this.
  static constexpr absl::Duration kGrain = absl::Milliseconds(1);

  // `loop` outlives this.
  explicit HedgeQueue(EventLoop* loop) : loop_(*loop) {}

  // Calls call->OnHedgeTime() on the loop's thread after `delay`, if the call is still there.
  void Add(absl::Duration delay, std::weak_ptr<Call> call);
  // Nothing is called any more. Before the loop is stopped.
  void Close();

 private:
  using Steady = std::chrono::steady_clock;

  void OnTimer();
  void Arm(Steady::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  EventLoop& loop_;
  absl::Mutex mutex_;
  std::multimap<Steady::time_point, std::weak_ptr<Call>> waiting_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<EventLoop::Timer> timer_ ABSL_GUARDED_BY(mutex_);  // null: none is set
  Steady::time_point timer_at_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::internal
