// The Raft log on disk: preallocated, recycled segments; one write and one fdatasync per Append.
//
// The bytes are told in log_record.h, the files in log_segment.h, recovery and its admitted limit
// in log_recovery.h. Why our own and not RocksDB: docs/decisions/001-own-raft-log.md.
//
// How the order of effects keeps every crash harmless:
//   Append   one frame = one atomic write, then fdatasync, then the index in memory changes.
//   roll     the next segment is born with the hard state, the mark and the last index in its
//            first frame, durable before it gets its name; the name is durable before the first
//            write into it. So a segment depends on none before it.
//   Compact  the mark is durable in the last segment before any older segment goes.
//   hint     a batch that must not sync is not written at all: the next frame takes it along. So
//            every frame on disk was synced before the next one began, which recovery relies on.
//
// Threads: as LogStore says. The lock guards the tables in memory only, never I/O, so that no read
// waits for a write or for a disk.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "storage/file.h"
#include "storage/log_index.h"
#include "storage/log_record.h"
#include "storage/log_segment.h"
#include "storage/log_store.h"

namespace holdfast::storage {

class SegmentedLog : public LogStore {
 public:
  struct Options {
    // Created if it is not there; its parent must exist. Nothing else may live in it.
    std::string dir;
    // 64 MiB: a roll costs three syncs, so it should be rare; space comes back in such pieces.
    uint64_t segment_bytes = uint64_t{64} << 20;
    // Entries held in all, compacted or not: the index in memory takes 12 bytes for each. Beyond,
    // Append answers ResourceExhausted and changes nothing.
    size_t entries_max = size_t{1} << 27;
    FileSystem* fs = PosixFileSystem();
    // Names a new log (see the salt in log_record.h). 0: drawn at random, as it should be.
    uint64_t new_log_id = 0;

    absl::Status Validate() const;
  };

  // Recovers what is there and appends one empty frame.
  // FailedPrecondition: in use by another process, or written by another format version.
  // DataLoss with a storage::Damage: damaged; the text names file, bytes, entries and what to do.
  // InvalidArgument: options.
  static absl::StatusOr<std::unique_ptr<LogStore>> Open(Options options);

  // Appends one empty frame, so that damage to the last one with content would be noticed.
  ~SegmentedLog() override;

  const RecoveredLog& recovered() const override { return recovered_; }

  // ResourceExhausted before anything was written: more than entries_max entries, or more than
  // kFrameBytesMax in one call. "disk full" or DataLoss: the store is of no use any more.
  absl::Status Append(absl::Span<const LogBatch> batches) override;
  absl::Status Compact(const LogMark& mark) override;
  // Also serves entries at or below the mark while their segment is there. `last` may be above the
  // last index. DataLoss with a storage::Damage: the disk gave back something else than was
  // written, or nothing.
  absl::StatusOr<std::vector<EntryRef>> Read(Index first, Index last,
                                             size_t max_bytes) const override;
  uint64_t disk_bytes() const override { return segment_dir_.disk_bytes(); }

 private:
  // What an Append will do, from looking at its batches alone.
  struct Plan {
    size_t body_bytes = 0;
    size_t entries = 0;
    bool must_write = false;
    const HardState* hard_state = nullptr;  // the last one of all batches
  };
  // Entries in one segment that one ReadAt fetches.
  struct ReadSpan;

  SegmentedLog(Options options, std::unique_ptr<FileLock> lock);
  absl::Status Recover();
  absl::Status StartNewLog();

  Plan MakePlan(absl::Span<const LogBatch> batches) const;
  void ApplyToIndex(absl::Span<const LogBatch> batches, const std::vector<LogSlot>& slots);

  // Writes one frame durably, rolling before it if it does not fit. `add_records` adds exactly
  // `body_bytes`; the hint not yet written, if any, is added here.
  absl::Status WriteFrame(size_t body_bytes, const std::function<void(FrameBuilder&)>& add_records);
  absl::Status Roll(size_t frame_bytes);
  std::string OpeningBytes(uint32_t number, uint64_t previous_end) const;
  absl::Status RetireSegmentsBehindMark();

  // Poisons the store with this error and returns what the caller hears.
  absl::Status Fail(const absl::Status& error);

  std::vector<ReadSpan> PlanRead(Index first, Index last, size_t max_bytes) const;
  absl::Status ReadSpanInto(const ReadSpan& span, std::vector<EntryRef>& out) const;

  const Options options_;
  const std::unique_ptr<FileLock> lock_;
  SegmentDir segment_dir_;

  // Of the log thread alone.
  RecoveredLog recovered_;
  absl::Status failure_;  // once set, for good: every later write answers it
  uint64_t log_id_ = 0;
  uint64_t next_write_number_ = 1;
  uint64_t last_frame_offset_ = 0;  // of the frame written last, in the last segment
  uint64_t end_offset_ = 0;         // where the next one goes
  HardState hard_state_;            // the newest, its commit hint written or not
  bool hint_unwritten_ = false;
  LogMark mark_;

  // Written by the log thread, read by all. Invariant: segments are contiguous by number, and each
  // slot of the index lies in one of them.
  mutable absl::Mutex tables_mutex_;
  LogIndex index_ ABSL_GUARDED_BY(tables_mutex_);
  std::deque<Segment> segments_ ABSL_GUARDED_BY(tables_mutex_);
};

}  // namespace holdfast::storage
