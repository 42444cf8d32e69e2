// Reads a segmented Raft log back: which bytes count, which are cut, and when to refuse.
//
// Facts about writing that the table rests on:
//   F1  every write is one frame, numbered without gaps, and follows the one before directly;
//   F2  write n+1 is issued only after fdatasync of write n returned OK (a failure ends the
//       process's writing for good), so at most one write is in flight in a crash;
//   F3  a segment has its final name only once its header and first frame are durable;
//   F4  the next segment is born only after every frame of the one before is durable, and its
//       header says where they end.
// So: a damaged frame with any later frame behind it was acknowledged (F2), whatever the order in
// which a disk writes the pages of one write.
//
// Decision table. The rows are tried in order, so that every input matches exactly one; the row
// that was taken is RecoveryRow, in every error text and in the tests.
//
//   directory
//   kNewLog           no segment, no spare                        -> a new log
//   kNoSegments       no segment, but spares: there was a log     -> DataLoss
//   kMissingSegment   numbers not contiguous                      -> DataLoss
//   every segment's header
//   kOtherVersion     written by another format version           -> FailedPrecondition
//   kUnreadable       here or in any later step: the disk fails   -> DataLoss
//   kBadHeader        damaged or too short (F3)                   -> DataLoss
//   kForeignSegment   number is not the name's, other log id      -> DataLoss
//   every segment's frames, up to the first that is not valid or not the next in number
//   kBadOpening       already the first one (F3)                  -> DataLoss
//   kBadOlderSegment  a segment before the last whose frames do not end where the next one's
//                     header says (F4)                            -> DataLoss
//   kBadRecord        valid crc, senseless content                -> DataLoss (a bug, not a disk)
//   last segment, at the first frame that is not valid or not the next
//   kHole             a valid frame with a higher number follows  -> DataLoss
//   kTornTail         a frame of this segment began here          -> cut, counted in torn_bytes
//   kCleanEnd         none did                                    -> end
//   at the end
//   kNoHardState      no frame holds a term and a vote            -> DataLoss
//   kMissingEntries   the first entry held is above mark + 1      -> DataLoss
//
// Every DataLoss carries a storage::Damage: file, bytes, and the entries that go with them as far
// as the sound segments around can tell. What a member does about it: docs/recovery.md.
//
// Admitted limit: damage in the very last frame looks the same as a torn tail, and that frame may
// have been acknowledged. Open and the destructor each append an empty frame that vouches for
// everything before it, so the limit covers only the last write before a CRASH (not before a
// clean stop), damaged by something else than the crash. It cannot be told apart without a second
// synced write for each write. And damage that hits a frame's 4-byte tag AND the only later
// frame's is two faults.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "storage/log_index.h"
#include "storage/log_segment.h"
#include "storage/log_store.h"

namespace holdfast::storage {

enum class RecoveryRow {
  kNewLog,
  kNoSegments,
  kMissingSegment,
  kOtherVersion,
  kUnreadable,
  kBadHeader,
  kForeignSegment,
  kBadOpening,
  kBadOlderSegment,
  kBadRecord,
  kHole,
  kTornTail,
  kCleanEnd,
  kNoHardState,
  kMissingEntries,
};
std::string_view RecoveryRowName(RecoveryRow row);

struct LogRecovery {
  RecoveryRow row = RecoveryRow::kNewLog;
  RecoveredLog log;
  LogIndex index;
  uint64_t log_id = 0;             // nothing but zero in a new log
  uint64_t next_write_number = 1;  // the number of the next frame
  uint64_t end_offset = 0;         // where it goes, in the last segment
  // The last valid frame, as read, and where. It is written again: after a failed fsync the page
  // cache may hold it while the disk does not, and pages once marked clean are never written.
  uint64_t last_frame_offset = 0;
  std::string last_frame;
};

// REQUIRES: `found` is what SegmentDir::Scan returned.
// Errors: as in the table, naming file, bytes, entries, row and what to do.
absl::StatusOr<LogRecovery> RecoverLog(const std::string& dir, const SegmentDir::Found& found);

}  // namespace holdfast::storage
