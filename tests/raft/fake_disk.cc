#include "fake_disk.h"

#include <fmt/format.h>

namespace holdfast::raft::test {

FakeDisk::FakeDisk(const Membership& membership) { mark_.membership = membership.Encode(); }

std::optional<Term> FakeDisk::TermAt(Index index) const {
  if (index == mark_.index) return mark_.term;
  if (index < mark_.index || index > last()) return std::nullopt;
  return entries_[index.value - mark_.index.value - 1]->term;
}

bool FakeDisk::Holds(Index index, Term term) const {
  return index <= mark_.index || TermAt(index) == term;
}

std::string FakeDisk::Write(const storage::LogBatch& batch) {
  if (batch.reset) {
    if (batch.reset->index < mark_.index) return "the log was reset to an older mark";
    mark_ = *batch.reset;
    entries_.clear();
  }
  if (!batch.entries.empty()) {
    const Index first = batch.entries.front()->index;
    if (first <= mark_.index || first > last() + 1) {
      return fmt::format("a batch starts at {}, the log is ({}, {}]", first.value,
                         mark_.index.value, last().value);
    }
    if (first <= last()) ++truncations_;
    entries_.resize(first.value - mark_.index.value - 1);
    for (const EntryRef& entry : batch.entries) {
      if (entry->index != last() + 1) return "a batch has a gap";
      if (entry->term < *TermAt(last())) return "terms fall along the log";
      entries_.push_back(entry);
    }
  }
  if (batch.hard_state) {
    const storage::HardState& next = *batch.hard_state;
    if (next.term < hard_state_.term) return "the term fell on disk";
    if (next.term == hard_state_.term && hard_state_.vote && next.vote != hard_state_.vote) {
      return "the vote changed within a term on disk";
    }
    if (next.commit < synced_commit_) return "the commit hint fell on disk";
    if (!batch.must_sync && (next.term != hard_state_.term || next.vote != hard_state_.vote)) {
      return "a term or a vote was written without a sync";
    }
    hard_state_ = next;
  }
  if (!batch.must_sync && (batch.reset || !batch.entries.empty())) {
    return "entries were written without a sync";
  }
  if (batch.must_sync) synced_commit_ = hard_state_.commit;
  return {};
}

std::string FakeDisk::Compact(const storage::LogMark& mark) {
  if (mark.index < mark_.index) return "compaction moved the mark back";
  if (mark.index > last()) return "compaction behind the end of the log";
  if (TermAt(mark.index) != mark.term) return "compaction names a wrong term";
  entries_.erase(entries_.begin(),
                 entries_.begin() + static_cast<ptrdiff_t>(mark.index.value - mark_.index.value));
  mark_ = mark;
  return {};
}

std::vector<EntryRef> FakeDisk::Read(Index first, Index last_wanted, size_t max_bytes) const {
  std::vector<EntryRef> out;
  if (first <= mark_.index) return out;
  size_t bytes = 0;
  for (Index i = first; i <= last_wanted && i <= last(); ++i) {
    const EntryRef& entry = entries_[i.value - mark_.index.value - 1];
    bytes += entry->bytes();
    if (!out.empty() && bytes > max_bytes) break;
    out.push_back(entry);
  }
  return out;
}

RaftCore::Recovered FakeDisk::Recover(Index applied) const {
  RaftCore::Recovered out;
  out.hard_state = hard_state_;
  out.mark = mark_;
  out.last = last();
  for (const EntryRef& entry : entries_) {
    if (out.term_runs.empty() || out.term_runs.back().term != entry->term) {
      out.term_runs.push_back({entry->index, entry->term});
    }
    if (entry->type == EntryType::kConfig) out.config_entries.push_back(entry);
  }
  out.applied = applied;
  return out;
}

}  // namespace holdfast::raft::test
