// The little of a file system that the Raft log needs, injectable so that tests can crash it.
//
// Threads: a File may be read by many threads beside one writer; FileSystem calls come from one
// thread. Ownership: callers own what Open and Lock return; the FileSystem must outlive them.
// Errors: ResourceExhausted = no space left, NotFound = no such file, FailedPrecondition = locked
// by somebody else, Internal = everything else. Texts name operation, path and the system's reason.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace holdfast::storage {

class File {
 public:
  virtual ~File() = default;
  // Writes all bytes or fails; after a failure any part of them may be there.
  virtual absl::Status WriteAt(uint64_t offset, std::string_view bytes) = 0;
  // Up to `n` bytes from `offset`; fewer only at the end of the file.
  virtual absl::StatusOr<std::string> ReadAt(uint64_t offset, size_t n) const = 0;
  // fdatasync: on OK every byte written before, and the size, survive a power cut.
  virtual absl::Status SyncData() = 0;
  // Reserves blocks, so that later writes below `bytes` need no space and no size change.
  virtual absl::Status Allocate(uint64_t bytes) = 0;
  virtual absl::StatusOr<uint64_t> Size() const = 0;
};

// Held as long as the object lives, and released by the kernel when the process dies.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

enum class OpenMode {
  kExisting,  // NotFound when it is not there
  kCreate,    // must not be there yet
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  // Creates one directory, durably; its parent must exist. OK when it is there already.
  virtual absl::Status CreateDir(const std::string& dir) = 0;
  // Names (without the directory) of the regular files in `dir`, in no order.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& dir) = 0;
  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;
  // Atomic. Durable only after SyncDir, as are Remove and the creation of a file.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  virtual absl::Status SyncDir(const std::string& dir) = 0;
  // Creates the file if needed and locks it for this process alone, without waiting.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) = 0;
};

// The kernel's file system; lives for ever.
FileSystem* PosixFileSystem();

}  // namespace holdfast::storage
