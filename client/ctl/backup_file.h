// Backup files on disk (api/holdfast/backup.proto over base/frames.h), read, verified and written.
//
//   FILE: frames, padded to a multiple of 512 bytes; SHA-256 of those (32 bytes, raw)
//
// That is also what `etcdctl snapshot save` makes of Maintenance.Snapshot. A file without the hash,
// as other tools may leave it, is accepted too: every frame has a CRC, and the end tells the
// counts.
//
// holdfastd reads backups by a reader of its own (server/backup_reader.h): client/ and server/ do
// not know each other, base/ knows no messages and api/ holds no code. What must not differ, the
// rules of a sound backup, is in base/backup_rules.h, under both.
//
// Threads: one at a time. Memory: one frame. Errors: DataLoss: not a sound backup;
// FailedPrecondition: of a newer format, or of another program; NotFound, ResourceExhausted (disk
// full), Internal: the file system.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/backup_rules.h"
#include "base/frames.h"
#include "holdfast/backup.pb.h"

namespace holdfast::ctl {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void Add(std::string_view bytes);
  std::string Finish();  // 32 bytes; nothing may be added any more

 private:
  void* context_;
};

// A file that is there whole and synced under its name, or not at all: written as NAME.part.
class DurableFile {
 public:
  // Replaces a NAME.part that is left of an earlier run.
  static absl::StatusOr<std::unique_ptr<DurableFile>> Create(const std::string& path);
  ~DurableFile();  // without Commit: removes NAME.part
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  absl::Status Write(std::string_view bytes);
  // What was written so far, to be read; it has no other name yet.
  const std::string& part_path() const { return part_; }
  absl::Status Sync();
  // Sync, rename, sync of the directory. `path`: where to, in the same directory; the one given to
  // Create if empty. Replaces what is there.
  absl::Status Commit(const std::string& path = {});

 private:
  DurableFile(int fd, std::string path) : fd_(fd), path_(std::move(path)), part_(path_ + ".part") {}
  int fd_;
  const std::string path_;
  const std::string part_;
};
absl::Status SyncDirectory(const std::string& path);
std::string DirectoryOf(const std::string& path);

// What a backup says, once all of it was found sound.
struct BackupInfo {
  backup::v1::Header header;
  base::BackupRules::Counts counts;
  uint64_t frame_bytes = 0;  // without the hash
  uint64_t file_bytes = 0;
  std::string sha256;     // of the frames, 32 bytes
  bool had_hash = false;  // and it was right
};

// Reads all of it. `visit`, if given, gets every frame but the padding, before it is known whether
// the rest is sound; its error ends the reading.
absl::StatusOr<BackupInfo> ReadBackup(
    const std::string& path,
    const std::function<absl::Status(const backup::v1::Frame&)>& visit = {});
// Only the header, of a file that was verified when it was made.
absl::StatusOr<backup::v1::Header> ReadBackupHeader(const std::string& path);

// Writes a backup by the same rules.
class BackupWriter {
 public:
  BackupWriter(DurableFile* file, const backup::v1::Header& header);
  // Records, leases or revisions.
  absl::Status Write(const backup::v1::Frame& frame);
  // End, padding, hash. The file is not committed.
  absl::Status Finish();

 private:
  absl::Status Put(const backup::v1::Frame& frame);

  DurableFile& file_;
  Sha256 hash_;
  base::FrameWriter frames_;
  base::BackupRules rules_;
  backup::v1::Header header_;
  bool begun_ = false;
};

}  // namespace holdfast::ctl
