// Where each entry of the Raft log lies on disk, and the terms of the entries, in memory.
//
// 12 bytes for each entry plus one TermRun for each change of term, so its size is bounded by the
// driver's compaction and, if that fails, by SegmentedLog's Options::entries_max.
// Threads: none of its own; the owner locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "storage/log_store.h"

namespace holdfast::storage {

// One entry's record.
struct LogSlot {
  uint32_t segment = 0;  // segment number
  uint32_t offset = 0;   // of the record in the segment's file
  uint32_t bytes = 0;    // of the whole record
};

class LogIndex {
 public:
  // Empty, waiting for index 1.
  LogIndex() = default;

  // The first index held; last() + 1 when none is.
  Index first() const { return first_; }
  Index last() const { return first_ + slots_.size() - 1; }
  size_t size() const { return slots_.size(); }

  // Drops everything; the next index expected is `next`. REQUIRES: next >= 1.
  void Reset(Index next);
  // Replaces the suffix from `index` on by this one entry. An index below first() drops all.
  // REQUIRES: 1 <= index <= last() + 1, and terms never fall.
  void Append(Index index, Term term, LogSlot slot);
  // Drops the entries that lie in segments below `segment`: always a prefix, because an entry that
  // is written again takes everything behind it along.
  void DropSegmentsBelow(uint32_t segment);

  // REQUIRES: first() <= index <= last().
  const LogSlot& At(Index index) const;
  Term TermAt(Index index) const;
  // The runs of the entries from `from` on, ascending.
  std::vector<TermRun> RunsFrom(Index from) const;

 private:
  void DropFirst(size_t count);

  Index first_ = Index(1);
  // Invariant: segments never fall along the indexes.
  std::deque<LogSlot> slots_;
  // Invariant: empty exactly if slots_ is; else runs_.front().first == first_; both fields ascend.
  std::deque<TermRun> runs_;
};

}  // namespace holdfast::storage
