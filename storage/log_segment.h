// The files of a segmented Raft log: their names, their birth and their end.
//
//   00000000000000000007.log     segment 7
//   spare-00000000000000000003   a retired segment, to be renamed into a later one
//   next.tmp                     a new segment that has no header yet
//   LOCK                         locked by the process that has the log open
//
// A segment gets its final name only after its header and its first frame are durable. So a file
// with that name never is half-born: a damaged header is damage, not a crash.
// Retirement syncs the directory after every single file, oldest first: a crash cannot leave a
// hole in the sequence, in whatever order the disk writes its metadata.
//
// Threads: one (the log thread), except disk_bytes(), any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/file.h"

namespace holdfast::storage {

// Spares make the next segments cheap (no block allocation, no size change in fdatasync). Two are
// enough: a roll takes one, and a compaction gives some back.
inline constexpr size_t kSpareSegmentsMax = 2;

struct Segment {
  uint32_t number = 0;
  std::string path;
  uint64_t size_bytes = 0;
  // Shared with reads in flight; a segment that is still being read is removed, not recycled.
  std::shared_ptr<File> file = nullptr;
};

class SegmentDir {
 public:
  // Does nothing on disk. `segment_bytes`: size of a normal segment.
  SegmentDir(FileSystem* fs, std::string dir, uint64_t segment_bytes);

  struct Found {
    std::vector<Segment> segments;  // ascending by number, opened
    size_t spares = 0;
  };
  // Opens what is there. Removes leftovers: next.tmp, spares of another size or too many.
  absl::StatusOr<Found> Scan();

  // Makes segment `number` out of a spare or a new file: `opening` (header and first frame) goes
  // in at offset 0, durably. Room for at least `bytes_min` in all.
  absl::StatusOr<Segment> Create(uint32_t number, std::string_view opening, uint64_t bytes_min);

  // Ends a segment's life, durably: it becomes a spare or is removed.
  absl::Status Retire(Segment segment);

  uint64_t disk_bytes() const { return disk_bytes_.load(std::memory_order_relaxed); }
  const std::string& dir() const { return dir_; }

 private:
  std::string SegmentPath(uint32_t number) const;
  std::string SparePath(uint32_t number) const;
  absl::StatusOr<Segment> OpenSegment(uint32_t number);
  absl::StatusOr<std::vector<uint32_t>> ScanSpares(const std::vector<uint32_t>& numbers);

  FileSystem* const fs_;
  const std::string dir_;
  const uint64_t segment_bytes_;
  std::vector<uint32_t> spares_;  // numbers from a former life; at most kSpareSegmentsMax
  std::atomic<uint64_t> disk_bytes_{0};
};

}  // namespace holdfast::storage
