// Runs steps one at a time, in the order in which they were posted, on whatever thread posts.
//
// A state machine whose callbacks come from several gRPC threads posts each as a step, and is then
// written as if it had one thread. No lock is held while a step runs, so a step may start calls
// whose callbacks come at once.
//
// The queue cannot grow: every step is the callback of a call that an earlier step started, or one
// of the few that the caller of the state machine makes.
#pragma once

#include <deque>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace holdfast::server {

class Strand {
 public:
  using Step = absl::AnyInvocable<void()>;

  // Runs `step` before it returns, or leaves it to the thread that is running one. The caller keeps
  // the strand alive during the call. Steps must not block.
  void Post(Step step);

 private:
  absl::Mutex mutex_;
  std::deque<Step> steps_ ABSL_GUARDED_BY(mutex_);
  bool running_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::server
