// The few file operations of a cache directory.
//
// Errors: ResourceExhausted: the disk or a quota is full; PermissionDenied: the directory is not
// ours to write, or read-only; NotFound: no such file; Internal: anything else. Texts name the path
// and say what to do.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace holdfast::internal {

// Called before each step that changes the disk, with its name; another value than 0 is the errno
// with which it then fails. Tests end the process here, or have the disk fail. Null: no steps.
using DiskStep = std::function<int(std::string_view step)>;

absl::Status DiskError(std::string_view what, const std::string& path, int error);

// A file descriptor, closed at the end of its life.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd();
  Fd(Fd&& other) noexcept;
  Fd& operator=(Fd&& other) noexcept;
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_;
};

// With all above it; those made get mode 0700.
absl::Status MakeDirectories(const std::string& path);
absl::Status SyncDirectory(const std::string& path);
// InvalidArgument: larger than `max`.
absl::StatusOr<std::string> ReadFd(int fd, const std::string& path, size_t max);
// Mode 0600, close on exec.
absl::StatusOr<Fd> OpenFile(const std::string& path, int flags);

// A file that appears under its name whole, and on the disk, or not at all.
class PartFile {
 public:
  // `part` is written, and is of the same directory as the name that Commit gives it. One that an
  // earlier process left there is overwritten.
  static absl::StatusOr<std::unique_ptr<PartFile>> Create(std::string part, DiskStep step);
  // Removes what was not committed.
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  absl::Status Append(std::string_view bytes);  // buffered
  // Everything is on the disk, under the name `part`.
  absl::Status Sync();
  // After Sync: gives it its name, and syncs the directory.
  absl::Status Commit(const std::string& path);
  int fd() const { return fd_.get(); }
  uint64_t bytes() const { return bytes_; }

 private:
  PartFile(std::string part, Fd fd, DiskStep step);
  absl::Status Flush();
  int Step(std::string_view name) const { return step_ ? step_(name) : 0; }

  const std::string part_;
  Fd fd_;
  const DiskStep step_;
  std::string buffer_;
  uint64_t bytes_ = 0;
  bool committed_ = false;
};

}  // namespace holdfast::internal
