// One thread that does jobs one after the other: for what takes long and must hold up nobody else,
// a scan of all data, a rewrite of the files.
//
// Threads: all methods from any thread, but Stop not from a job.
// Limits: `max_waiting` jobs behind the one that runs; beyond it a job is refused.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/functional/any_invocable.h"

namespace holdfast::server {

class WorkThread {
 public:
  // `stop` becomes true when the thread is to end: a job that takes long looks at it.
  using Job = absl::AnyInvocable<void(std::atomic<bool>* stop) &&>;

  explicit WorkThread(size_t max_waiting) : max_waiting_(max_waiting) {
    thread_ = std::thread([this] { Loop(); });
  }
  ~WorkThread() { Stop(); }
  WorkThread(const WorkThread&) = delete;
  WorkThread& operator=(const WorkThread&) = delete;

  // False: too many wait, or it was stopped. The job is then not run, and untouched. A job that was
  // taken is run exactly once, with *stop true if Stop came first.
  [[nodiscard]] bool TryPost(Job&& job) {
    std::lock_guard lock(mutex_);
    if (stop_.load() || jobs_.size() + (busy_ ? 1 : 0) > max_waiting_) return false;
    jobs_.push_back(std::move(job));
    ready_.notify_one();
    return true;
  }
  bool stopped() const { return stop_.load(); }

  // Returns when the last job is done. Idempotent.
  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stop_.store(true);
      ready_.notify_all();
    }
    std::lock_guard join(join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      ready_.wait(lock, [this] { return !jobs_.empty() || stop_.load(); });
      if (jobs_.empty()) return;
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      busy_ = true;
      lock.unlock();
      std::move(job)(&stop_);
      job = nullptr;
      lock.lock();
      busy_ = false;
    }
  }

  const size_t max_waiting_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::deque<Job> jobs_;  // under mutex_; at most max_waiting_ + 1
  bool busy_ = false;     // under mutex_
  std::atomic<bool> stop_ = false;
  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace holdfast::server
