// The client's own thread: a gRPC completion queue, and everything that happens after a call was
// started.
#pragma once

#include <memory>
#include <thread>

#include <grpcpp/completion_queue.h>

#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace holdfast::internal {

// What a completion queue tag points to.
class Event {
 public:
  virtual ~Event() = default;
  virtual void Run(bool ok) = 0;  // on the loop's thread
};

class EventLoop {
 public:
  // A function that runs once on the loop's thread, after a delay or when cancelled.
  class Timer {
   public:
    virtual ~Timer() = default;
    virtual void Cancel() = 0;  // runs the function soon; any thread, any number of times
  };

  EventLoop();
  // REQUIRES: Stop() was called.
  ~EventLoop();

  grpc::CompletionQueue* queue() { return &queue_; }
  bool OnLoopThread() const { return std::this_thread::get_id() == thread_.get_id(); }

  // Threads: any. The timer may be dropped; it runs all the same.
  std::shared_ptr<Timer> After(absl::Duration delay, absl::AnyInvocable<void() &&> function);

  // Runs what is queued and joins the thread. REQUIRES: not on the loop's thread; every RPC and
  // timer has completed, and none is started any more.
  void Stop();

 private:
  grpc::CompletionQueue queue_;
  std::thread thread_;
};

}  // namespace holdfast::internal
