// A LogStore in memory, for Raft tests and the simulator: every call is durable at once.
//
// Threads: all calls from any thread, as LogStore says; one lock.
#pragma once

#include <deque>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/log_store.h"

namespace holdfast::storage {

class MemoryLog : public LogStore {
 public:
  MemoryLog() = default;

  // What a restart of the member does: recovered() tells what is there now. REQUIRES: no other
  // call runs.
  void Reopen();

  const RecoveredLog& recovered() const override { return recovered_; }
  absl::Status Append(absl::Span<const LogBatch> batches) override;
  // Entries at and below the mark go at once.
  absl::Status Compact(const LogMark& mark) override;
  absl::StatusOr<std::vector<EntryRef>> Read(Index first, Index last,
                                             size_t max_bytes) const override;
  // The memory that the entries take.
  uint64_t disk_bytes() const override;

 private:
  void ApplyBatch(const LogBatch& batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Index LastIndex() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return mark_.index + entries_.size();
  }

  RecoveredLog recovered_;
  mutable absl::Mutex mutex_;
  HardState hard_state_ ABSL_GUARDED_BY(mutex_);
  LogMark mark_ ABSL_GUARDED_BY(mutex_);
  // Invariant: entries_[i]->index == mark_.index + 1 + i.
  std::deque<EntryRef> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::storage
