// The core's picture of its log: every term, the newest entries, and what the disk has.
//
// Terms of the whole log are kept as runs (a handful of numbers), so that log matching and conflict
// hints never need the disk; entries themselves are cached from `cache_first` on.
// Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "storage/log_store.h"

namespace holdfast::raft {

class CoreLog {
 public:
  CoreLog(Index mark_index, Term mark_term, Index last, std::vector<storage::TermRun> runs);

  // Invariant: mark_index <= last; durable <= last; cache_first <= last + 1.
  Index mark_index() const { return mark_index_; }
  Index last() const { return last_; }
  Term last_term() const { return *TermAt(last_); }
  Index durable() const { return durable_; }
  Index cache_first() const { return cache_first_; }
  size_t cached_bytes() const { return cached_bytes_; }

  // nullopt: below the mark or above last.
  std::optional<Term> TermAt(Index index) const;
  bool Matches(Index index, Term term) const { return TermAt(index) == term; }
  // Paper 5.4.1: at least as up to date as ours.
  bool IsUpToDate(Index last_index, Term last_term) const;
  // The largest index <= `from` whose term is <= `term`, or the mark: a conflict hint skips a whole
  // term per probe. Returns it with its term.
  std::pair<Index, Term> FindConflictByTerm(Index from, Term term) const;

  // REQUIRES: contiguous; first index in (mark, last + 1]. Replaces a conflicting suffix; the
  // replaced part stops counting as durable, in flight or not (contract C3).
  void Append(std::vector<storage::EntryRef> entries);
  // Everything not yet handed to the disk, for the next batch; then it counts as in flight.
  std::vector<storage::EntryRef> TakeUnwritten();
  bool has_unwritten() const { return unwritten_from_ <= last_; }
  // A batch with this seq was handed out; OnDurable(seq) makes what it held count.
  void NoteBatch(uint64_t seq);
  void OnDurable(uint64_t seq);
  bool writing() const { return !in_flight_.empty(); }

  // Entries [first, ...] while they fit into max_bytes (at least one) up to `last`. Empty if
  // `first` is not cached.
  std::vector<storage::EntryRef> Cached(Index first, Index last, size_t max_bytes) const;
  // Drops cached entries up to `up_to` while more than `keep_bytes` are cached; never unwritten.
  void EvictTo(Index up_to, size_t keep_bytes);
  // REQUIRES: mark <= index <= last.
  void CompactTo(Index index);
  // A snapshot replaced everything.
  void Reset(Index mark_index, Term mark_term);

 private:
  struct InFlight {
    uint64_t seq;
    Index last;  // 0: nothing of it counts
  };
  Index mark_index_;
  Term mark_term_;
  Index last_;
  std::deque<storage::TermRun> runs_;  // first indexes ascending, all > mark_index_
  std::deque<storage::EntryRef> cache_;
  Index cache_first_;
  size_t cached_bytes_ = 0;
  Index durable_;
  Index unwritten_from_;
  std::deque<InFlight> in_flight_;
};

}  // namespace holdfast::raft
