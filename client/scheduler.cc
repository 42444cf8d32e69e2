#include "client/scheduler.h"

#include <chrono>
#include <utility>

namespace holdfast::internal {

ThreadScheduler::ThreadScheduler() : thread_([this] { Loop(); }) {}

void ThreadScheduler::Stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    wake_.notify_one();
  }
  thread_.join();
  // Outside the lock: what a task holds may post in its destructor.
  std::deque<Task> tasks;
  std::priority_queue<Timer> timers;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
    timers.swap(timers_);
  }
}

absl::Duration ThreadScheduler::Now() const {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

bool ThreadScheduler::Post(Task task) {
  std::lock_guard lock(mutex_);
  if (stop_) return false;
  tasks_.push_back(std::move(task));
  if (tasks_.size() == 1) wake_.notify_one();
  return true;
}

void ThreadScheduler::At(absl::Duration when, Task task) {
  std::lock_guard lock(mutex_);
  if (stop_) return;
  const bool earliest = timers_.empty() || when < timers_.top().when;
  timers_.push({when, ++last_order_, std::move(task)});
  if (earliest) wake_.notify_one();
}

void ThreadScheduler::Loop() {
  std::unique_lock lock(mutex_);
  std::deque<Task> ready;
  while (!stop_) {
    const absl::Duration now = Now();
    while (!timers_.empty() && timers_.top().when <= now) {
      tasks_.push_back(std::move(timers_.top().task));
      timers_.pop();
    }
    if (tasks_.empty()) {
      if (timers_.empty()) {
        wake_.wait(lock);
      } else {
        wake_.wait_for(lock, absl::ToChronoNanoseconds(timers_.top().when - now));
      }
      continue;
    }
    ready.swap(tasks_);
    lock.unlock();
    // What one task posts runs behind all that were there: it sees everything that came with it.
    for (Task& task : ready) std::move(task)();
    ready.clear();
    lock.lock();
  }
}

}  // namespace holdfast::internal
