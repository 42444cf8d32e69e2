#include "client/disk_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::internal {
namespace {

constexpr size_t kBufferBytes = size_t{256} << 10;

std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

absl::Status DiskError(std::string_view what, const std::string& path, int error) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  std::string_view hint = "look at the kernel's log for the disk";
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      code = absl::StatusCode::kResourceExhausted;
      hint = "make room on that disk, or raise the quota or file size limit";
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = absl::StatusCode::kPermissionDenied;
      hint = "give this process's user the directory, or name another one";
      break;
    case ENOENT:
    case ENOTDIR:
      code = absl::StatusCode::kNotFound;
      hint = "check the path";
      break;
    case EMFILE:
    case ENFILE:
      hint = "raise the limit of open files";
      break;
    default:
      break;
  }
  return absl::Status(code, base::ToAbsl(fmt::format("cannot {} {}: {}; {}", what, path,
                                                     std::strerror(error), hint)));
}

Fd::~Fd() {
  if (fd_ >= 0) close(fd_);
}

Fd::Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

Fd& Fd::operator=(Fd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

absl::Status MakeDirectories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    // One that is there may be on a disk that cannot be written: that is no error here.
    struct stat there;
    if (stat(part.c_str(), &there) != 0) {
      if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
        return DiskError("make directory", part, errno);
      }
    } else if (!S_ISDIR(there.st_mode)) {
      return DiskError("make directory", part, ENOTDIR);
    }
    if (end == std::string::npos) return absl::OkStatus();
  }
}

absl::Status SyncDirectory(const std::string& path) {
  const Fd dir(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir.valid()) return DiskError("open", path, errno);
  return fsync(dir.get()) == 0 ? absl::OkStatus() : DiskError("sync", path, errno);
}

absl::StatusOr<std::string> ReadFd(int fd, const std::string& path, size_t max) {
  std::string bytes;
  char piece[16 << 10];
  for (;;) {
    const ssize_t n = read(fd, piece, sizeof(piece));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return DiskError("read", path, errno);
    if (n == 0) return bytes;
    bytes.append(piece, static_cast<size_t>(n));
    if (bytes.size() > max) {
      return absl::InvalidArgumentError(
          base::ToAbsl(fmt::format("{} is larger than {} bytes", path, max)));
    }
  }
}

absl::StatusOr<Fd> OpenFile(const std::string& path, int flags) {
  Fd fd(open(path.c_str(), flags | O_CLOEXEC, 0600));
  if (!fd.valid()) return DiskError("open", path, errno);
  return fd;
}

PartFile::PartFile(std::string part, Fd fd, DiskStep step)
    : part_(std::move(part)), fd_(std::move(fd)), step_(std::move(step)) {}

absl::StatusOr<std::unique_ptr<PartFile>> PartFile::Create(std::string part, DiskStep step) {
  if (step) {
    if (const int error = step("create"); error != 0) return DiskError("create", part, error);
  }
  auto fd = OpenFile(part, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW);
  if (!fd.ok()) return fd.status();
  return std::unique_ptr<PartFile>(new PartFile(std::move(part), *std::move(fd), std::move(step)));
}

PartFile::~PartFile() {
  if (!committed_) unlink(part_.c_str());
}

absl::Status PartFile::Append(std::string_view bytes) {
  buffer_ += bytes;
  bytes_ += bytes.size();
  return buffer_.size() >= kBufferBytes ? Flush() : absl::OkStatus();
}

absl::Status PartFile::Flush() {
  std::string_view left = buffer_;
  while (!left.empty()) {
    if (const int error = Step("write"); error != 0) return DiskError("write", part_, error);
    const ssize_t n = write(fd_.get(), left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return DiskError("write", part_, errno);
    left.remove_prefix(static_cast<size_t>(n));
  }
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status PartFile::Sync() {
  if (absl::Status status = Flush(); !status.ok()) return status;
  if (const int error = Step("sync"); error != 0) return DiskError("sync", part_, error);
  // After a failed fsync the kernel may have dropped the pages: the file is thrown away, never
  // synced again.
  return fsync(fd_.get()) == 0 ? absl::OkStatus() : DiskError("sync", part_, errno);
}

absl::Status PartFile::Commit(const std::string& path) {
  if (const int error = Step("rename"); error != 0) return DiskError("rename", part_, error);
  if (rename(part_.c_str(), path.c_str()) != 0) return DiskError("rename", part_, errno);
  committed_ = true;
  if (const int error = Step("sync directory"); error != 0) return DiskError("sync", path, error);
  return SyncDirectory(DirectoryOf(path));
}

}  // namespace holdfast::internal
