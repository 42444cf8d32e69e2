// Puts a received snapshot together on disk, trusting nothing that the sender says.
//
// Checked: names (no way out of the directory), numbers and sizes against limits and free space,
// order and offsets of chunks, CRC32C of each, completeness. Every file is synced, then the
// directory, then its parent. Until Finish the directory is ours and is removed with the object,
// unless it is to be left for a later process.
//
// A transfer that broke goes on. Beside the directory `name` lies the record `name`.partial: the
// meta data, and how many bytes are synced with the CRC32C of all of them. It is written after the
// sync, so it never promises what a power cut could take; Resume reads everything again and
// compares, so that neither a torn record nor a disk that lies becomes part of a snapshot.
//
// Data is synced every kSnapshotSyncBytes: the log may lie on the same disk, and its small writes
// must not wait behind gigabytes that the kernel has saved up.
// Threads: one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "holdfast/raft.pb.h"
#include "storage/file.h"

namespace holdfast::server {

// RocksDB's files are some 64 MiB: this is 4 TiB, and a checkpoint has few small ones.
inline constexpr int kMaxSnapshotFiles = 65536;
inline constexpr uint64_t kMaxSnapshotBytes = uint64_t{16} << 40;
inline constexpr size_t kMaxSnapshotNameBytes = 255;
inline constexpr size_t kMaxSnapshotMembershipBytes = size_t{1} << 20;
inline constexpr uint64_t kSnapshotSyncBytes = uint64_t{4} << 20;
// A snapshot must leave so much of the disk free: the log lies there too.
inline constexpr uint64_t kSnapshotSpaceReserve = uint64_t{16} << 20;
inline constexpr char kPartialSuffix[] = ".partial";

// InvalidArgument if `meta` breaks a limit or has a name that could leave the directory.
absl::Status CheckSnapshotMeta(const raft::v1::SnapshotMeta& meta);
// Of all files. REQUIRES: CheckSnapshotMeta is OK.
uint64_t SnapshotBytes(const raft::v1::SnapshotMeta& meta);

class SnapshotAssembler {
 public:
  // Creates `parent`/`name`, which must not exist. InvalidArgument: a bad meta; ResourceExhausted:
  // not enough free space.
  static absl::StatusOr<std::unique_ptr<SnapshotAssembler>> Create(
      storage::FileSystem* fs, const raft::v1::SnapshotMeta& meta, const std::string& parent,
      const std::string& name);
  // What an earlier process left as `parent`/`name` and its record. Reads it all.
  // NotFound or DataLoss: of no use, the caller removes it (RemovePartial).
  static absl::StatusOr<std::unique_ptr<SnapshotAssembler>> Resume(storage::FileSystem* fs,
                                                                   const std::string& parent,
                                                                   const std::string& name);
  // The meta data in a record. NotFound or DataLoss as above.
  static absl::StatusOr<raft::v1::SnapshotMeta> ReadRecord(storage::FileSystem* fs,
                                                           const std::string& parent,
                                                           const std::string& name);
  static void RemovePartial(const std::string& parent, const std::string& name);
  ~SnapshotAssembler();

  const raft::v1::SnapshotMeta& meta() const { return meta_; }
  const std::string& name() const { return name_; }
  // Taken so far, of all files together: where the sender goes on.
  uint64_t have_bytes() const { return have_bytes_; }

  // DataLoss: the checksum is wrong; InvalidArgument: not the chunk that is due. Nothing of it was
  // taken. Any other error comes from the disk, and is final.
  absl::Status Take(const raft::v1::SnapshotChunk& chunk);
  // Syncs and records what was taken, and closes the file; Take may go on.
  absl::Status Pause();
  // From here the files outlive the object, for Resume.
  void LeaveOnDisk() { ours_ = false; }
  // Aborted: something is missing, and may still come. On OK everything is durable, the record is
  // gone, and the directory, whose path is returned, belongs to the caller.
  absl::StatusOr<std::string> Finish();

 private:
  struct Progress {
    uint64_t bytes = 0;
    uint32_t crc32c = 0;  // of them
  };

  SnapshotAssembler(storage::FileSystem* fs, raft::v1::SnapshotMeta meta, std::string parent,
                    std::string name);
  static absl::StatusOr<Progress> ReadProgress(storage::FileSystem* fs, const std::string& parent,
                                               const std::string& name,
                                               raft::v1::SnapshotMeta* meta);
  absl::Status WriteRecord();
  absl::Status RecordProgress();
  absl::Status Sync();
  // Opens file `current_`, if it is not; creates it where it is missing.
  absl::Status OpenDue();
  // Closes the current file and every empty one after it, then opens the next to be filled.
  absl::Status NextFile();
  // Moves over `synced` bytes on the disk, which must have that checksum.
  absl::Status Verify(const Progress& synced);

  storage::FileSystem* const fs_;
  const raft::v1::SnapshotMeta meta_;
  const std::string parent_;
  const std::string name_;
  const std::string dir_;
  bool ours_ = true;
  // Invariant: files before `current_` are complete and synced; if file_ is not null it is file
  // `current_`, filled up to offset_ < its size. At the end current_ is the number of files.
  int current_ = 0;
  uint64_t offset_ = 0;
  std::unique_ptr<storage::File> file_;
  uint64_t have_bytes_ = 0;
  uint32_t crc32c_ = 0;  // of all bytes taken
  uint64_t unsynced_bytes_ = 0;
  bool created_ = false;  // a file, since the directory was synced
  std::unique_ptr<storage::File> record_;
  uint64_t records_written_ = 0;
};

}  // namespace holdfast::server
