#include "replication/core_log.h"

#include <algorithm>

#include "base/check.h"

namespace holdfast::raft {

using storage::EntryRef;
using storage::TermRun;

CoreLog::CoreLog(Index mark_index, Term mark_term, Index last, std::vector<TermRun> runs)
    : mark_index_(mark_index),
      mark_term_(mark_term),
      last_(last),
      runs_(runs.begin(), runs.end()),
      cache_first_(last + 1),
      durable_(last),
      unwritten_from_(last + 1) {
  CHECK(mark_index_ <= last_);
  CHECK(runs_.empty() == (mark_index_ == last_));
}

std::optional<Term> CoreLog::TermAt(Index index) const {
  if (index == mark_index_) return mark_term_;
  if (index < mark_index_ || index > last_) return std::nullopt;
  // Nearly every question is about the newest run.
  for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
    if (run->first <= index) return run->term;
  }
  return std::nullopt;
}

bool CoreLog::IsUpToDate(Index last_index, Term last_term) const {
  const Term ours = this->last_term();
  return last_term > ours || (last_term == ours && last_index >= last_);
}

std::pair<Index, Term> CoreLog::FindConflictByTerm(Index from, Term term) const {
  Index run_end = std::min(from, last_);
  for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
    if (run->first > run_end) continue;
    if (run->term <= term) return {run_end, run->term};
    run_end = run->first - 1;
  }
  return {mark_index_, mark_term_};
}

void CoreLog::Append(std::vector<EntryRef> entries) {
  if (entries.empty()) return;
  const Index first = entries.front()->index;
  CHECK(first > mark_index_);
  CHECK(first <= last_ + 1);
  if (first <= last_) {
    // The suffix from `first` on is replaced: it stops counting, on disk or on its way there (C3).
    while (!runs_.empty() && runs_.back().first >= first) runs_.pop_back();
    while (!cache_.empty() && cache_.back()->index >= first) {
      cached_bytes_ -= cache_.back()->bytes();
      cache_.pop_back();
    }
    cache_first_ = std::min(cache_first_, first);
    const Index kept = first - 1;
    durable_ = std::min(durable_, kept);
    unwritten_from_ = std::min(unwritten_from_, first);
    for (InFlight& batch : in_flight_) batch.last = std::min(batch.last, kept);
    last_ = kept;
  }
  Term newest = last_term();
  for (EntryRef& entry : entries) {
    CHECK(entry->index == last_ + 1);
    CHECK(entry->term >= newest);
    if (runs_.empty() || entry->term != newest) runs_.push_back({entry->index, entry->term});
    newest = entry->term;
    last_ = entry->index;
    cached_bytes_ += entry->bytes();
    cache_.push_back(std::move(entry));
  }
}

std::vector<EntryRef> CoreLog::TakeUnwritten() {
  if (!has_unwritten()) return {};
  CHECK(unwritten_from_ >= cache_first_);
  const auto skip = static_cast<ptrdiff_t>(unwritten_from_.value - cache_first_.value);
  std::vector<EntryRef> out(cache_.begin() + skip, cache_.end());
  unwritten_from_ = last_ + 1;
  return out;
}

void CoreLog::NoteBatch(uint64_t seq) {
  CHECK(in_flight_.empty() || in_flight_.back().seq < seq);
  in_flight_.push_back({seq, unwritten_from_ - 1});
}

void CoreLog::OnDurable(uint64_t seq) {
  while (!in_flight_.empty() && in_flight_.front().seq <= seq) {
    durable_ = std::max(durable_, in_flight_.front().last);
    in_flight_.pop_front();
  }
  CHECK(durable_ <= last_);
}

std::vector<EntryRef> CoreLog::Cached(Index first, Index last, size_t max_bytes) const {
  std::vector<EntryRef> out;
  if (first < cache_first_ || first > last_) return out;
  size_t bytes = 0;
  for (size_t i = first.value - cache_first_.value; i < cache_.size(); ++i) {
    const EntryRef& entry = cache_[i];
    if (entry->index > last) break;
    bytes += entry->bytes();
    if (bytes > max_bytes && !out.empty()) break;
    out.push_back(entry);
  }
  return out;
}

void CoreLog::EvictTo(Index up_to, size_t keep_bytes) {
  while (!cache_.empty() && cached_bytes_ > keep_bytes && cache_.front()->index <= up_to &&
         cache_.front()->index < unwritten_from_) {
    cached_bytes_ -= cache_.front()->bytes();
    cache_.pop_front();
    ++cache_first_;
  }
}

void CoreLog::CompactTo(Index index) {
  CHECK(index >= mark_index_);
  CHECK(index <= last_);
  mark_term_ = *TermAt(index);
  mark_index_ = index;
  while (runs_.size() > 1 && runs_[1].first <= index + 1) runs_.pop_front();
  if (index == last_) {
    runs_.clear();
  } else if (runs_.front().first <= index) {
    runs_.front().first = index + 1;
  }
  EvictTo(index, 0);
}

void CoreLog::Reset(Index mark_index, Term mark_term) {
  mark_index_ = last_ = durable_ = mark_index;
  mark_term_ = mark_term;
  runs_.clear();
  cache_.clear();
  cached_bytes_ = 0;
  cache_first_ = unwritten_from_ = mark_index + 1;
  for (InFlight& batch : in_flight_) batch.last = Index(0);
}

}  // namespace holdfast::raft
