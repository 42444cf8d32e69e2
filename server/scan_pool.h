// The threads on which long reads run: ranges, and what looks at many records. Short ones are
// answered where they come up, so that a range over millions of keys holds up nobody but other long
// reads.
//
// Limits: `max_waiting` jobs.
// Threads: all methods from any thread.
#pragma once

#include <cstddef>
#include <deque>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace holdfast::server {

class ScanPool {
 public:
  using Job = absl::AnyInvocable<void() &&>;

  ScanPool(int threads, size_t max_waiting);
  ~ScanPool() { Stop(); }

  // Not OK, and the job does not run: ErrTooManyRequests, or ErrStopped after Stop.
  absl::Status Post(Job job);
  // Runs what waits, then ends the threads. Idempotent. Not from a job.
  void Stop();

 private:
  void Loop();

  const size_t max_waiting_;
  absl::Mutex mutex_;
  absl::CondVar ready_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Mutex stop_mutex_;  // joins once
  std::vector<std::thread> threads_;
};

}  // namespace holdfast::server
