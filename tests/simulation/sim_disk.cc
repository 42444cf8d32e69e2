#include "sim_disk.h"

#include <fmt/format.h>

#include "base/check.h"
#include "witness.h"

namespace holdfast::sim {

using storage::EntryRef;
using storage::EntryType;

SimDisk::SimDisk(NodeId member, uint64_t segment_entries, base::Rng* rng, Witness* witness)
    : member_(member), segment_entries_(segment_entries), rng_(rng), witness_(witness) {}

std::optional<Term> SimDisk::TermAt(Index index) const {
  if (index == mark_.index) return mark_.term;
  if (index < mark_.index || index > last()) return std::nullopt;
  return At(index)->term;
}

void SimDisk::Open() {
  CHECK(!rotten_);
  trouble_ = Trouble::kNone;
  read_fails_ = broken_ = false;
  recovered_ = {};
  recovered_.hard_state = hard_state_;
  recovered_.mark = mark_;
  recovered_.last = last();
  for (Index i = mark_.index + 1; i <= last(); ++i) {
    const EntryRef& entry = At(i);
    std::vector<storage::TermRun>& runs = recovered_.term_runs;
    if (runs.empty() || runs.back().term != entry->term) runs.push_back({i, entry->term});
    if (entry->type == EntryType::kConfig) recovered_.config_entries.push_back(entry);
  }
}

SimDisk::Lost SimDisk::Crash(bool power) {
  Lost lost;
  if (!power) return lost;
  if (hard_state_.commit != synced_commit_ && rng_->OneIn(2)) {
    hard_state_.commit = synced_commit_;
    lost.hint = true;
  }
  const bool can_go_back =
      synced_mark_.index < mark_.index && first_kept_ <= synced_mark_.index + 1;
  if (can_go_back && rng_->OneIn(2)) {
    mark_ = synced_mark_;
    lost.compaction = true;
  }
  // What is left after a power cut is on the disk.
  synced_commit_ = hard_state_.commit;
  synced_mark_ = mark_;
  return lost;
}

absl::Status SimDisk::Append(absl::Span<const storage::LogBatch> batches) {
  if (broken_) {
    witness_->Fail(fmt::format("member {} writes on after a failed write", member_.value));
    return absl::DataLossError("the disk has failed");
  }
  size_t written = batches.size();
  if (trouble_ != Trouble::kNone) written = rng_->Below(batches.size() + 1);
  bool synced = false;
  for (size_t i = 0; i < written; ++i) {
    const std::string rule = Write(batches[i]);
    if (!rule.empty()) witness_->Fail(fmt::format("member {}: disk: {}", member_.value, rule));
    synced = synced || batches[i].must_sync;
  }
  if (synced) synced_commit_ = hard_state_.commit;
  // What a compaction did to other files need not be covered by this sync.
  if (synced && rng_->OneIn(64)) synced_mark_ = mark_;
  if (trouble_ == Trouble::kNone) return absl::OkStatus();
  broken_ = true;
  return absl::DataLossError("simulated: the write or its fsync failed");
}

std::string SimDisk::Write(const storage::LogBatch& batch) {
  const bool only_a_hint = !batch.reset && batch.entries.empty();
  if (!batch.must_sync && !only_a_hint) return "entries were written without a sync";
  if (batch.reset) {
    if (batch.reset->index < mark_.index) return "the log was reset to an older mark";
    entries_.clear();
    bytes_ = 0;
    mark_ = synced_mark_ = *batch.reset;
    first_kept_ = mark_.index + 1;
  }
  if (std::string rule = WriteEntries(batch); !rule.empty()) return rule;
  return WriteHardState(batch);
}

std::string SimDisk::WriteEntries(const storage::LogBatch& batch) {
  if (batch.entries.empty()) return {};
  const Index first = batch.entries.front()->index;
  if (first <= mark_.index || first > last() + 1) {
    return fmt::format("a batch starts at {}, the log is ({}, {}]", first.value, mark_.index.value,
                       last().value);
  }
  witness_->SawEntries(*TermAt(first - 1), batch.entries);
  CutFrom(first);
  for (const EntryRef& entry : batch.entries) {
    if (entry->index != last() + 1) return "a batch has a gap";
    if (entry->term < last_term()) return "terms fall along the log";
    entries_.push_back(entry);
    bytes_ += entry->bytes();
  }
  return {};
}

void SimDisk::CutFrom(Index index) {
  if (index > last()) return;
  ++truncations_;
  witness_->SawTruncation(member_, index, *TermAt(index));
  while (last() >= index) {
    bytes_ -= entries_.back()->bytes();
    entries_.pop_back();
  }
}

std::string SimDisk::WriteHardState(const storage::LogBatch& batch) {
  if (!batch.hard_state) return {};
  const storage::HardState& next = *batch.hard_state;
  if (next.term < hard_state_.term) return "the term fell";
  if (next.term == hard_state_.term && hard_state_.vote && next.vote != hard_state_.vote) {
    return "the vote changed within a term";
  }
  if (next.commit < synced_commit_) return "the commit hint fell";
  const bool same = next.term == hard_state_.term && next.vote == hard_state_.vote;
  if (!batch.must_sync && !same) return "a term or a vote was written without a sync";
  hard_state_ = next;
  if (next.vote) witness_->SawDurableVote(member_, next.term, next.vote);
  return {};
}

absl::Status SimDisk::Compact(const storage::LogMark& mark) {
  if (broken_) {
    witness_->Fail(fmt::format("member {} compacts after a failed write", member_.value));
    return absl::DataLossError("the disk has failed");
  }
  const auto rule = [&](const char* what) {
    witness_->Fail(fmt::format("member {}: compaction {}", member_.value, what));
  };
  if (mark.index < mark_.index) rule("moves the mark back");
  if (mark.index > last()) rule("goes beyond the end of the log");
  if (mark.index >= mark_.index && TermAt(mark.index) != mark.term) rule("names a wrong term");
  witness_->SawMark(member_, mark);
  if (!witness_->ok()) return absl::DataLossError("a rule was broken");
  ++compactions_;
  mark_ = mark;
  // Whole segments go, and only behind a mark that is on disk.
  const uint64_t keep_from = mark.index.value + 1 - (mark.index.value + 1) % segment_entries_;
  while (first_kept_.value < keep_from) {
    bytes_ -= entries_.front()->bytes();
    entries_.pop_front();
    ++first_kept_;
  }
  if (synced_mark_.index + 1 < first_kept_) synced_mark_ = mark_;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<EntryRef>> SimDisk::Read(Index first, Index last_wanted,
                                                    size_t max_bytes) const {
  CHECK(first <= last_wanted);
  if (read_fails_) {
    broken_ = true;
    return absl::DataLossError("simulated: EIO of a read");
  }
  if (first < first_kept_ || first > last()) {
    return absl::OutOfRangeError("the entry is compacted away, or not there yet");
  }
  std::vector<EntryRef> out;
  size_t bytes = 0;
  for (Index i = first; i <= last_wanted && i <= last(); ++i) {
    bytes += At(i)->bytes();
    if (!out.empty() && bytes > max_bytes) break;
    out.push_back(At(i));
  }
  return out;
}

}  // namespace holdfast::sim
