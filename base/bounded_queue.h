// A queue bounded in bytes with one consumer that takes everything at once.
//
// Natural batching: whoever is free takes all that is queued; no timer waits for a batch to fill.
// No queue of this kind can grow past `max_bytes` plus one item: a producer that is refused must
// answer its caller RESOURCE_EXHAUSTED.
//
// The consumer's place can be lent: a producer that finds the consumer asleep in DrainFor and the
// queue empty may do the work itself (TryBorrow), and saves the wake of a thread, which is
// the dearest part of a lone item. While the place is lent the consumer does not return from
// DrainFor, so consumer and borrower are never at work together, and what either wrote the next
// one sees.
#pragma once

#include <atomic>
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

  // True if the consumer sleeps in DrainFor and nothing is queued: its place is the caller's, who
  // does one piece of the consumer's work and calls GiveBack(). Without a lock while it is awake.
  [[nodiscard]] bool TryBorrow() {
    if (!lendable_.load(std::memory_order_relaxed)) return false;
    absl::MutexLock lock(&mutex_);
    // Overdue: the consumer has work of its own, and is not to be kept from it by one borrower
    // after the other.
    if (!lendable_.load(std::memory_order_relaxed) || lent_ || overdue_ || closed_ ||
        !items_.empty()) {
      return false;
    }
    lent_ = true;
    return true;
  }
  // By the borrower, once. What was pushed meanwhile is the consumer's, who is woken for it.
  void GiveBack() {
    absl::MutexLock lock(&mutex_);
    lent_ = false;
    if (!items_.empty() || closed_ || overdue_) ready_.Signal();
  }

  // Waits for at least one item or Close(), then takes everything. Empty means closed.
  std::vector<T> DrainAll() {
    absl::MutexLock lock(&mutex_);
    waiting_ = true;
    while (items_.empty() && !closed_) ready_.Wait(&mutex_);
    waiting_ = false;
    return TakeLocked();
  }

  // As DrainAll, but gives up after `timeout` and returns empty. May wake early. Lends the
  // consumer's place meanwhile; later than `timeout` only while it is lent.
  std::vector<T> DrainFor(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    waiting_ = true;
    lendable_.store(true, std::memory_order_relaxed);
    if (items_.empty() && !closed_) ready_.WaitWithTimeout(&mutex_, timeout);
    overdue_ = true;
    while (lent_) ready_.Wait(&mutex_);
    lendable_.store(false, std::memory_order_relaxed);
    waiting_ = overdue_ = false;
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
    // While the place is lent, GiveBack pays it.
    if (waiting_ && !lent_ && items_.size() == 1) ready_.Signal();
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
  std::atomic<bool> lendable_{false};  // written under mutex_
  bool lent_ ABSL_GUARDED_BY(mutex_) = false;
  bool overdue_ ABSL_GUARDED_BY(mutex_) = false;  // the consumer is awake, or waits for GiveBack
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::base
