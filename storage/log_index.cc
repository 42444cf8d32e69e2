#include "storage/log_index.h"

#include <algorithm>

#include "base/check.h"

namespace holdfast::storage {

void LogIndex::Reset(Index next) {
  CHECK(next >= Index(1));
  first_ = next;
  slots_.clear();
  runs_.clear();
}

void LogIndex::Append(Index index, Term term, LogSlot slot) {
  CHECK(index >= Index(1));
  CHECK(index <= last() + 1);
  if (index < first_) Reset(index);
  slots_.resize(index.value - first_.value);
  while (!runs_.empty() && runs_.back().first >= index) runs_.pop_back();
  CHECK(runs_.empty() || runs_.back().term <= term);
  CHECK(slots_.empty() || slots_.back().segment <= slot.segment);
  slots_.push_back(slot);
  if (runs_.empty() || runs_.back().term != term) runs_.push_back({.first = index, .term = term});
}

void LogIndex::DropSegmentsBelow(uint32_t segment) {
  const auto keep = std::partition_point(
      slots_.begin(), slots_.end(), [&](const LogSlot& slot) { return slot.segment < segment; });
  DropFirst(static_cast<size_t>(keep - slots_.begin()));
}

void LogIndex::DropFirst(size_t count) {
  slots_.erase(slots_.begin(), slots_.begin() + static_cast<ptrdiff_t>(count));
  first_ = first_ + count;
  if (slots_.empty()) {
    runs_.clear();
    return;
  }
  while (runs_.size() > 1 && runs_[1].first <= first_) runs_.pop_front();
  runs_.front().first = first_;
}

const LogSlot& LogIndex::At(Index index) const {
  CHECK(index >= first_);
  CHECK(index <= last());
  return slots_[index.value - first_.value];
}

Term LogIndex::TermAt(Index index) const {
  CHECK(index >= first_);
  CHECK(index <= last());
  const auto after = std::partition_point(runs_.begin(), runs_.end(),
                                          [&](const TermRun& run) { return run.first <= index; });
  return std::prev(after)->term;
}

std::vector<TermRun> LogIndex::RunsFrom(Index from) const {
  std::vector<TermRun> runs;
  for (const TermRun& run : runs_) {
    if (run.first <= from && !runs.empty()) runs.clear();
    runs.push_back({.first = std::max(run.first, from), .term = run.term});
  }
  if (from > last()) runs.clear();
  return runs;
}

}  // namespace holdfast::storage
