// A thread that does one thing again and again, and can be stopped at once.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/time/time.h"

namespace holdfast::server {

// Threads: Stop from any thread but its own.
class Ticker {
 public:
  // Calls `tick` at once and then `interval` after each of its ends, by the monotonic clock.
  Ticker(absl::Duration interval, std::function<void()> tick)
      : interval_(interval), tick_(std::move(tick)) {
    thread_ = std::thread([this] { Loop(); });
  }
  ~Ticker() { Stop(); }
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;

  // Returns when the tick under way is over. Idempotent.
  void Stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    std::lock_guard join(join_mutex_);
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Loop() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      lock.unlock();
      tick_();
      lock.lock();
      changed_.wait_for(lock, absl::ToChronoMilliseconds(interval_), [this] { return stopping_; });
    }
  }

  const absl::Duration interval_;
  const std::function<void()> tick_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;  // under mutex_
  std::mutex join_mutex_;
  std::thread thread_;
};

}  // namespace holdfast::server
