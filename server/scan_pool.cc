#include "server/scan_pool.h"

#include <sys/prctl.h>

#include <utility>

#include "base/check.h"
#include "server/etcd_errors.h"

namespace holdfast::server {

ScanPool::ScanPool(int threads, size_t max_waiting) : max_waiting_(max_waiting) {
  CHECK(threads > 0);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

absl::Status ScanPool::Post(Job job) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) return ErrStopped();
  if (jobs_.size() >= max_waiting_) return ErrTooManyRequests();
  jobs_.push_back(std::move(job));
  ready_.Signal();
  return absl::OkStatus();
}

void ScanPool::Loop() {
  prctl(PR_SET_NAME, "hf-scan");
  for (;;) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      while (jobs_.empty() && !stopped_) ready_.Wait(&mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    std::move(job)();
  }
}

void ScanPool::Stop() {
  absl::MutexLock stopping(&stop_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    ready_.SignalAll();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace holdfast::server
