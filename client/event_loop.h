// The client's own thread: a gRPC completion queue, and everything that happens after a call was
// started.
#pragma once

#include <memory>
#include <thread>
#include <vector>

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

// Work that an event has left for its end: what several callbacks in a row ask for is done at once.
class Deferred {
 public:
  virtual ~Deferred() = default;
  virtual void RunDeferred() = 0;
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

  // `deferred` runs after the event that runs now, once however often it is asked for there; it
  // lives until then. REQUIRES: on the loop's thread.
  void Defer(Deferred* deferred);

  // Runs what is queued and joins the thread. REQUIRES: not on the loop's thread; every RPC and
  // timer has completed, and none is started any more.
  void Stop();

 private:
  void Loop();

  grpc::CompletionQueue queue_;
  std::vector<Deferred*> deferred_;  // the loop's thread only
  std::thread thread_;
};

}  // namespace holdfast::internal
