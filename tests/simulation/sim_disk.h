// A Raft log on a simulated disk: what was synced survives a crash, what was not may be gone.
//
// A batch is there as a whole or not at all, and never without those before it: that is what the
// real log's recovery leaves of a torn write. Every write is held against Raft's rules and shown to
// the witness.
// Threads: one.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/rng.h"
#include "storage/log_store.h"

namespace holdfast::sim {

class Witness;

class SimDisk final : public storage::LogStore {
 public:
  // What is to go wrong with the next Append.
  enum class Trouble : uint8_t {
    kNone,
    kTorn,   // the power goes in the middle of it
    kError,  // EIO of the fsync, or ENOSPC: how much got there nobody knows
  };

  // `segment_entries`: compaction frees that many entries at a time.
  SimDisk(NodeId member, uint64_t segment_entries, base::Rng* rng, Witness* witness);

  // What a start of the member finds.
  void Open();
  // After a crash. `power`: what was not synced may be lost.
  struct Lost {
    bool hint = false;
    bool compaction = false;
  };
  Lost Crash(bool power);
  void FailNextAppend(Trouble trouble) { trouble_ = trouble; }
  void FailNextRead() { read_fails_ = true; }
  // An Append or Read failed: the member must stop.
  bool broken() const { return broken_; }
  // A record that was acknowledged is damaged: Open would refuse.
  bool rotten() const { return rotten_; }
  void Rot() { rotten_ = true; }

  const storage::RecoveredLog& recovered() const override { return recovered_; }
  absl::Status Append(absl::Span<const storage::LogBatch> batches) override;
  absl::Status Compact(const storage::LogMark& mark) override;
  absl::StatusOr<std::vector<storage::EntryRef>> Read(Index first, Index last,
                                                      size_t max_bytes) const override;
  uint64_t disk_bytes() const override { return bytes_; }

  // For the witness.
  const storage::HardState& hard_state() const { return hard_state_; }
  const storage::LogMark& mark() const { return mark_; }
  Index last() const { return first_kept_ + entries_.size() - 1; }
  Term last_term() const { return *TermAt(last()); }
  // nullopt: below the mark or above last.
  std::optional<Term> TermAt(Index index) const;
  // True if an entry (index, term) is here, or the mark covers the index.
  bool Holds(Index index, Term term) const { return index <= mark_.index || TermAt(index) == term; }
  uint64_t truncations() const { return truncations_; }
  uint64_t compactions() const { return compactions_; }

 private:
  std::string Write(const storage::LogBatch& batch);
  std::string WriteEntries(const storage::LogBatch& batch);
  std::string WriteHardState(const storage::LogBatch& batch);
  void CutFrom(Index index);
  const storage::EntryRef& At(Index index) const {
    return entries_[index.value - first_kept_.value];
  }

  const NodeId member_;
  const uint64_t segment_entries_;
  base::Rng* const rng_;
  Witness* const witness_;
  storage::RecoveredLog recovered_;
  storage::HardState hard_state_;
  Index synced_commit_;
  storage::LogMark mark_;
  storage::LogMark synced_mark_;  // what a power cut may take us back to
  Index first_kept_{1};           // of entries_; <= mark_.index + 1
  std::deque<storage::EntryRef> entries_;
  uint64_t bytes_ = 0;
  Trouble trouble_ = Trouble::kNone;
  bool read_fails_ = false;
  mutable bool broken_ = false;
  bool rotten_ = false;
  uint64_t truncations_ = 0;
  uint64_t compactions_ = 0;
};

}  // namespace holdfast::sim
