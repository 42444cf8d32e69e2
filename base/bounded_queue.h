// A queue bounded in bytes with one consumer that takes everything at once.
//
// Natural batching: whoever is free takes all that is queued; no timer waits for a batch to fill.
// No queue of this kind can grow past `max_bytes` plus one item: a producer that is refused must
// answer its caller RESOURCE_EXHAUSTED.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace holdfast::base {

// Threads: any number of producers, one consumer.
template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t max_bytes) : max_bytes_(max_bytes) {}

  // False if the queue is full or closed; the item is then untouched.
  [[nodiscard]] bool TryPush(T&& item, size_t bytes) {
    absl::MutexLock lock(&mutex_);
    if (closed_ || (bytes_ + bytes > max_bytes_ && !items_.empty())) return false;
    Add(std::move(item), bytes);
    return true;
  }

  // For items that are bounded elsewhere (acknowledgements, ticks): never refused unless closed.
  void Push(T&& item, size_t bytes = 0) {
    absl::MutexLock lock(&mutex_);
    if (closed_) return;
    Add(std::move(item), bytes);
  }

  // Waits for at least one item or Close(), then takes everything. Empty means closed.
  std::vector<T> DrainAll() {
    absl::MutexLock lock(&mutex_);
    waiting_ = true;
    while (items_.empty() && !closed_) ready_.Wait(&mutex_);
    waiting_ = false;
    return TakeLocked();
  }

  // As DrainAll, but gives up after `timeout` and returns empty. May wake early.
  std::vector<T> DrainFor(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    waiting_ = true;
    if (items_.empty() && !closed_) ready_.WaitWithTimeout(&mutex_, timeout);
    waiting_ = false;
    return TakeLocked();
  }

  // What is queued now, perhaps nothing.
  std::vector<T> TakeNow() {
    absl::MutexLock lock(&mutex_);
    return TakeLocked();
  }

  bool empty() const {
    absl::MutexLock lock(&mutex_);
    return items_.empty();
  }

  // Wakes the consumer; further pushes are refused. What is queued can still be drained.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    ready_.SignalAll();
  }

  bool closed() const {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }

  size_t bytes() const {
    absl::MutexLock lock(&mutex_);
    return bytes_;
  }

 private:
  void Add(T&& item, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    items_.push_back(std::move(item));
    bytes_ += bytes;
    // A futex wake is the dearest part of a push: only the first item of a batch pays it.
    if (waiting_ && items_.size() == 1) ready_.Signal();
  }
  std::vector<T> TakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    bytes_ = 0;
    return std::exchange(items_, {});
  }

  const size_t max_bytes_;
  mutable absl::Mutex mutex_;
  absl::CondVar ready_;
  std::vector<T> items_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::base
