// Puts a received snapshot together on disk, trusting nothing that the sender says.
//
// Checked: names (no way out of the directory), numbers and sizes against limits and free space,
// order and offsets of chunks, CRC32C of each, completeness. Every file is synced, then the
// directory, then its parent. Until Finish the directory is ours and is removed with the object.
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

// InvalidArgument if `meta` breaks a limit or has a name that could leave the directory.
absl::Status CheckSnapshotMeta(const raft::v1::SnapshotMeta& meta);

class SnapshotAssembler {
 public:
  // Creates `parent`/`name`, which must not exist. InvalidArgument: a bad meta; ResourceExhausted:
  // not enough free space.
  static absl::StatusOr<std::unique_ptr<SnapshotAssembler>> Create(
      storage::FileSystem* fs, const raft::v1::SnapshotMeta& meta, const std::string& parent,
      const std::string& name);
  ~SnapshotAssembler();

  // DataLoss: the checksum is wrong; InvalidArgument: not the chunk that is due. Either is final.
  absl::Status Take(const raft::v1::SnapshotChunk& chunk);
  // InvalidArgument: something is missing. On OK everything is durable and the directory, whose
  // path is returned, belongs to the caller.
  absl::StatusOr<std::string> Finish();

 private:
  struct FileToCome {
    std::string name;
    uint64_t size;
  };
  SnapshotAssembler(storage::FileSystem* fs, std::string parent, std::string dir)
      : fs_(fs), parent_(std::move(parent)), dir_(std::move(dir)) {}
  // Closes the current file and every empty one after it, then opens the next to be filled.
  absl::Status NextFile();

  storage::FileSystem* const fs_;
  const std::string parent_;
  const std::string dir_;
  bool ours_ = true;
  std::vector<FileToCome> files_;
  // Invariant: files before `current_` are complete and synced; file_ is files_[current_], filled
  // up to offset_ < its size. At the end current_ == files_.size() and file_ is null.
  size_t current_ = 0;
  uint64_t offset_ = 0;
  std::unique_ptr<storage::File> file_;
};

}  // namespace holdfast::server
