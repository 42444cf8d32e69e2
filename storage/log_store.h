// The Raft log on disk: the one source of truth of a member.
//
// Purpose: durable hard state (term, vote, commit hint), the log entries behind a mark, and the
// mark itself (everything at or below it is covered by the state machine).
// Threads: Append and Compact from one thread (the log thread); Read from any thread, also while
// an Append runs, for entries whose Append has returned.
// Errors: a failed write or fsync is final. The store refuses every later call with DataLoss and
// the node must stop: after a failed fsync the kernel may have dropped the dirty pages, so a retry
// that "succeeds" proves nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/ids.h"

namespace holdfast::storage {

enum class EntryType : uint8_t {
  kNormal = 0,  // payload: an opaque command for the state machine
  kEmpty = 1,   // a new leader's first entry
  kConfig = 2,  // payload: an encoded membership; it counts from the moment it is appended
};

// Immutable and shared: one encoded entry travels through log, wire and apply.
struct Entry {
  Term term;
  Index index;
  EntryType type = EntryType::kNormal;
  std::string payload;

  size_t bytes() const { return sizeof(Entry) + payload.size(); }
};
using EntryRef = std::shared_ptr<const Entry>;

// Raft paper figure 2, persistent state. `commit` is only a hint for a faster restart: a member
// alone may replay up to it, and it may be behind the truth.
struct HardState {
  Term term;
  NodeId vote;
  Index commit;
  friend bool operator==(const HardState&, const HardState&) = default;
};

// Everything up to and including `index` is covered by the state machine; `membership` is the
// encoded membership as of `index`, opaque here.
struct LogMark {
  Index index;
  Term term;
  std::string membership;
};

// One atomic step. Parts take effect in this order: reset, entries, hard state.
struct LogBatch {
  // Drops every entry and starts the log anew behind this mark (a snapshot was installed).
  std::optional<LogMark> reset;
  // Contiguous. The first may be at or below the last index: then the suffix from there on is
  // replaced. REQUIRES: first index in (mark index, last index + 1].
  std::vector<EntryRef> entries;
  std::optional<HardState> hard_state;
  // False only for a batch that carries nothing but a commit hint: it need not reach the disk.
  bool must_sync = true;
};

// One run of equal terms: `term` from index `first` up to the next run.
struct TermRun {
  Index first;
  Term term;
};

// What Open found.
struct RecoveredLog {
  HardState hard_state;
  LogMark mark;
  Index last;                            // == mark.index when no entries
  std::vector<TermRun> term_runs;        // of all entries behind the mark, ascending
  std::vector<EntryRef> config_entries;  // every kConfig entry behind the mark, ascending
  uint64_t torn_bytes = 0;               // cut from the tail: a write that never was acknowledged
};

class LogStore {
 public:
  virtual ~LogStore() = default;

  // What was on disk at Open. Valid until the first Append.
  virtual const RecoveredLog& recovered() const = 0;

  // Writes all batches in order with one write and at most one fdatasync; on return everything is
  // durable (if any batch must_sync).
  virtual absl::Status Append(absl::Span<const LogBatch> batches) = 0;

  // Moves the mark forward and frees space behind it. REQUIRES: mark.index <= last index, and not
  // below the present mark. Space is freed in whole segments, so Read may still serve below the
  // mark's own index, never above `last`.
  virtual absl::Status Compact(const LogMark& mark) = 0;

  // Entries [first, last], as many as fit into max_bytes but at least one.
  // OutOfRange: `first` is compacted away (or above the last index).
  virtual absl::StatusOr<std::vector<EntryRef>> Read(Index first, Index last,
                                                     size_t max_bytes) const = 0;

  // Bytes on disk, for status and for the driver's compaction decision. Any thread.
  virtual uint64_t disk_bytes() const = 0;
};

}  // namespace holdfast::storage
