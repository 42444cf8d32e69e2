// The threads on which answers are given: a pool with a queue for each thread.
//
// Why not one queue: its lock would be the one place where the apply thread and every responder
// meet. Why no bound here: what is posted is bounded where it waits (request_pipeline.h).
#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace holdfast::server {

// Threads: all methods from any thread.
class Responders {
 public:
  using Job = absl::AnyInvocable<void() &&>;

  explicit Responders(int threads);
  ~Responders() { Stop(); }

  // Runs `job` exactly once: on the thread that `lane` selects, after all posted to that lane
  // before; or here, if Stop was called.
  void Post(uint64_t lane, Job job);
  // As Post for each; jobs[i] belongs to lane i % threads(). Takes each lane's lock once.
  void PostAll(std::vector<std::vector<Job>> jobs);
  size_t threads() const { return lanes_.size(); }

  // Runs what is queued, then ends the threads. Idempotent. Not from a job.
  void Stop();

 private:
  struct Lane {
    absl::Mutex mutex;
    absl::CondVar ready;
    std::vector<Job> jobs ABSL_GUARDED_BY(mutex);
    bool stopped ABSL_GUARDED_BY(mutex) = false;
    std::thread thread;
  };
  static void Loop(Lane* lane);

  std::vector<std::unique_ptr<Lane>> lanes_;
  absl::Mutex stop_mutex_;  // joins once
};

}  // namespace holdfast::server
