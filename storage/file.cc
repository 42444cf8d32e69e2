#include "storage/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/strings.h"

namespace holdfast::storage {
namespace {

absl::Status ErrnoStatus(std::string_view operation, const std::string& path, int error) {
  const std::string text = fmt::format("{} {}: {}", operation, path, std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(base::ToAbsl(text));
    case ENOENT:
      return absl::NotFoundError(base::ToAbsl(text));
    default:
      return absl::InternalError(base::ToAbsl(text));
  }
}

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

class PosixFile : public File {
 public:
  PosixFile(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  absl::Status WriteAt(uint64_t offset, std::string_view bytes) override {
    while (!bytes.empty()) {
      const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoStatus("write", path_, errno);
      bytes.remove_prefix(static_cast<size_t>(n));
      offset += static_cast<uint64_t>(n);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadAt(uint64_t offset, size_t n) const override {
    std::string out(n, '\0');
    size_t have = 0;
    while (have < n) {
      const ssize_t got =
          ::pread(fd_.get(), out.data() + have, n - have, static_cast<off_t>(offset + have));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ErrnoStatus("read", path_, errno);
      if (got == 0) break;
      have += static_cast<size_t>(got);
    }
    out.resize(have);
    return out;
  }

  absl::Status SyncData() override {
    // Never retried, not even after EINTR: a second fdatasync may succeed without the data.
    if (::fdatasync(fd_.get()) != 0) return ErrnoStatus("fdatasync", path_, errno);
    return absl::OkStatus();
  }

  absl::Status Allocate(uint64_t bytes) override {
    // posix_fallocate falls back to writing where the file system has no fallocate.
    int error = EINTR;
    while (error == EINTR) error = ::posix_fallocate(fd_.get(), 0, static_cast<off_t>(bytes));
    if (error != 0) return ErrnoStatus("allocate", path_, error);
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Size() const override {
    struct stat st = {};
    if (::fstat(fd_.get(), &st) != 0) return ErrnoStatus("stat", path_, errno);
    return static_cast<uint64_t>(st.st_size);
  }

 private:
  const Fd fd_;
  const std::string path_;
};

class PosixLock : public FileLock {
 public:
  explicit PosixLock(Fd fd) : fd_(std::move(fd)) {}

 private:
  const Fd fd_;
};

std::string ParentOf(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  if (end == std::string::npos) return "/";
  const size_t slash = path.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

class PosixFs : public FileSystem {
 public:
  absl::Status CreateDir(const std::string& dir) override {
    if (::mkdir(dir.c_str(), 0700) != 0) {
      if (errno == EEXIST) return absl::OkStatus();
      return ErrnoStatus("create directory", dir, errno);
    }
    return SyncDir(ParentOf(dir));
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& dir) override {
    std::unique_ptr<DIR, int (*)(DIR*)> handle(::opendir(dir.c_str()), &::closedir);
    if (handle == nullptr) return ErrnoStatus("list", dir, errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(handle.get())) {
      struct stat st = {};
      const std::string path = dir + "/" + entry->d_name;
      if (::stat(path.c_str(), &st) != 0) return ErrnoStatus("stat", path, errno);
      if (S_ISREG(st.st_mode)) names.emplace_back(entry->d_name);
      errno = 0;
    }
    if (errno != 0) return ErrnoStatus("list", dir, errno);
    return names;
  }

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    const int flags = O_RDWR | O_CLOEXEC | (mode == OpenMode::kCreate ? O_CREAT | O_EXCL : 0);
    Fd fd(::open(path.c_str(), flags, 0600));
    if (fd.get() < 0) return ErrnoStatus("open", path, errno);
    return std::make_unique<PosixFile>(std::move(fd), path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return ErrnoStatus("rename", from, errno);
    return absl::OkStatus();
  }

  absl::Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return ErrnoStatus("remove", path, errno);
    return absl::OkStatus();
  }

  absl::Status SyncDir(const std::string& dir) override {
    Fd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.get() < 0) return ErrnoStatus("open", dir, errno);
    if (::fsync(fd.get()) != 0) return ErrnoStatus("fsync", dir, errno);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (fd.get() < 0) return ErrnoStatus("open", path, errno);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return ErrnoStatus("lock", path, errno);
      return absl::FailedPreconditionError(base::ToAbsl(path + " is in use by another process"));
    }
    return std::make_unique<PosixLock>(std::move(fd));
  }
};

}  // namespace

FileSystem* PosixFileSystem() {
  static auto* const fs = new PosixFs();
  return fs;
}

}  // namespace holdfast::storage
