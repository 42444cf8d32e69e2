// A Raft log on a simulated disk: what it holds survives a crash, and nothing else does.
//
// Threads: one. Entries are shared with the core, as in production.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "replication/raft_core.h"
#include "storage/log_store.h"

namespace holdfast::raft::test {

class FakeDisk {
 public:
  // `membership`: of the first mark, at index 0.
  explicit FakeDisk(const Membership& membership);

  // One atomic step, in the order that storage::LogBatch documents. An empty text, or what the
  // batch broke: a gap, a term that falls, a vote changed within its term, a hint that asks for
  // more.
  std::string Write(const storage::LogBatch& batch);
  // As LogStore::Compact; a mark below the present one is an error text.
  std::string Compact(const storage::LogMark& mark);
  // The power goes: a commit hint that was written without a sync may be gone.
  void LoseUnsynced() { hard_state_.commit = synced_commit_; }

  const storage::HardState& hard_state() const { return hard_state_; }
  const storage::LogMark& mark() const { return mark_; }
  Index last() const { return mark_.index + entries_.size(); }
  // nullopt: below the mark or above last.
  std::optional<Term> TermAt(Index index) const;
  // True if an entry (index, term) is here, or the mark covers the index.
  bool Holds(Index index, Term term) const;
  // [first, last] within max_bytes, at least one; empty if compacted away or not there.
  std::vector<EntryRef> Read(Index first, Index last, size_t max_bytes) const;
  uint64_t truncations() const { return truncations_; }

  RaftCore::Recovered Recover(Index applied) const;

 private:
  storage::HardState hard_state_;
  Index synced_commit_;
  storage::LogMark mark_;
  std::deque<EntryRef> entries_;  // the first is mark_.index + 1
  uint64_t truncations_ = 0;
};

}  // namespace holdfast::raft::test
