#include "storage/memory_log.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::storage {

void MemoryLog::Reopen() {
  absl::MutexLock lock(&mutex_);
  recovered_ = RecoveredLog();
  recovered_.hard_state = hard_state_;
  recovered_.mark = mark_;
  recovered_.last = LastIndex();
  for (const EntryRef& entry : entries_) {
    std::vector<TermRun>& runs = recovered_.term_runs;
    if (runs.empty() || runs.back().term != entry->term) {
      runs.push_back({.first = entry->index, .term = entry->term});
    }
    if (entry->type == EntryType::kConfig) recovered_.config_entries.push_back(entry);
  }
}

absl::Status MemoryLog::Append(absl::Span<const LogBatch> batches) {
  absl::MutexLock lock(&mutex_);
  for (const LogBatch& batch : batches) ApplyBatch(batch);
  return absl::OkStatus();
}

void MemoryLog::ApplyBatch(const LogBatch& batch) {
  if (batch.reset.has_value()) {
    mark_ = *batch.reset;
    entries_.clear();
  }
  if (!batch.entries.empty()) {
    const Index first = batch.entries.front()->index;
    CHECK_MSG(first > mark_.index, "an append at or below the mark");
    CHECK_MSG(first <= LastIndex() + 1, "an append with a gap");
    entries_.resize(first.value - mark_.index.value - 1);
  }
  for (const EntryRef& entry : batch.entries) {
    CHECK_MSG(entry->index == LastIndex() + 1, "entries of a batch must be contiguous");
    CHECK(entries_.empty() || entries_.back()->term <= entry->term);
    entries_.push_back(entry);
  }
  if (batch.hard_state.has_value()) {
    CHECK_MSG(batch.hard_state->term >= hard_state_.term, "the term went back");
    hard_state_ = *batch.hard_state;
  }
}

absl::Status MemoryLog::Compact(const LogMark& mark) {
  absl::MutexLock lock(&mutex_);
  CHECK_MSG(mark.index >= mark_.index, "the mark went back");
  CHECK_MSG(mark.index <= LastIndex(), "a mark above the last index");
  if (mark.index == mark_.index) return absl::OkStatus();
  const auto count = static_cast<ptrdiff_t>(mark.index.value - mark_.index.value);
  CHECK_MSG(entries_[static_cast<size_t>(count) - 1]->term == mark.term,
            "a mark with another term than its entry");
  entries_.erase(entries_.begin(), entries_.begin() + count);
  mark_ = mark;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<EntryRef>> MemoryLog::Read(Index first, Index last,
                                                      size_t max_bytes) const {
  CHECK(first <= last);
  absl::MutexLock lock(&mutex_);
  if (first <= mark_.index || first > LastIndex()) {
    return absl::OutOfRangeError(base::ToAbsl(
        fmt::format("raft log: entry {} is compacted away or not there yet", first.value)));
  }
  std::vector<EntryRef> out;
  size_t bytes = 0;
  for (Index i = first; i <= std::min(last, LastIndex()); ++i) {
    const EntryRef& entry = entries_[i.value - mark_.index.value - 1];
    bytes += entry->bytes();
    if (!out.empty() && bytes > max_bytes) break;
    out.push_back(entry);
  }
  return out;
}

uint64_t MemoryLog::disk_bytes() const {
  absl::MutexLock lock(&mutex_);
  uint64_t bytes = 0;
  for (const EntryRef& entry : entries_) bytes += entry->bytes();
  return bytes;
}

}  // namespace holdfast::storage
