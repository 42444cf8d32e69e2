#include "server/data_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/rng.h"
#include "base/strings.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLockFile = "LOCK";
constexpr std::string_view kMemberFile = "member.json";
constexpr std::string_view kMemberFileNew = "member.json.new";
constexpr mode_t kDirMode = 0700;
constexpr mode_t kFileMode = 0600;

absl::Status SystemError(int error, const std::string& what) {
  const std::string text = fmt::format("{}: {}", what, std::strerror(error));
  switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(
          text + ": give the user that runs holdfastd the right to write there");
    case ENOENT:
      return absl::NotFoundError(text);
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(text + ": free some space on that disk and start again");
    default:
      return absl::InternalError(text);
  }
}

// Not there, as far as this process may see; what it may not see fails at the first write.
bool Exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool IsDirectory(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

// A directory's entries survive a power cut only once the directory itself is synced.
absl::Status SyncDir(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError(errno, "cannot open the directory " + path);
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : SystemError(error, "cannot sync the directory " + path);
}

absl::Status MakeDir(const std::string& path) {
  if (mkdir(path.c_str(), kDirMode) == 0) return SyncDir(fs::path(path).parent_path().string());
  const int error = errno;
  if (error == EEXIST) {
    if (IsDirectory(path)) return absl::OkStatus();
    return absl::FailedPreconditionError(fmt::format(
        "{} exists and is not a directory: move it away, or choose another --data-dir", path));
  }
  if (error == ENOENT) {
    return absl::NotFoundError(fmt::format(
        "cannot create {}: the directory above it does not exist; create it first", path));
  }
  return SystemError(error, "cannot create the directory " + path);
}

absl::Status WriteSynced(const std::string& path, std::string_view text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode);
  if (fd < 0) return SystemError(errno, "cannot create " + path);
  int error = 0;
  while (!text.empty() && error == 0) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n >= 0) {
      text.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EINTR) {
      error = errno;
    }
  }
  if (error == 0 && fsync(fd) != 0) error = errno;
  close(fd);
  return error == 0 ? absl::OkStatus() : SystemError(error, "cannot write " + path);
}

absl::StatusOr<std::set<std::string>> EntriesOf(const std::string& path) {
  std::error_code error;
  std::set<std::string> names;
  for (fs::directory_iterator it(path, error), end; !error && it != end; it.increment(error)) {
    names.insert(it->path().filename().string());
  }
  if (error) return SystemError(error.value(), "cannot list " + path);
  return names;
}

std::string ProcessIn(int lock_fd) {
  char text[32];
  const ssize_t n = pread(lock_fd, text, sizeof(text), 0);
  const std::string_view pid(text, n > 0 ? static_cast<size_t>(n) : 0);
  return pid.empty() ? "unknown" : std::string(pid.substr(0, pid.find('\n')));
}

absl::StatusOr<int> Lock(const std::string& path) {
  const std::string file = fmt::format("{}/{}", path, kLockFile);
  const int fd = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, kFileMode);
  if (fd < 0) return SystemError(errno, "cannot open " + file);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const std::string pid = ProcessIn(fd);
    close(fd);
    if (error != EWOULDBLOCK) return SystemError(error, "cannot lock " + file);
    return absl::FailedPreconditionError(fmt::format(
        "{} is in use by another process (pid {}): stop it first, or give this member a --data-dir "
        "of its own",
        path, pid));
  }
  const std::string pid = fmt::format("{}\n", getpid());
  // Only for the message above, so no sync; but a disk that refuses this refuses all the rest.
  if (ftruncate(fd, 0) != 0 ||
      pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    const int error = errno;
    close(fd);
    return SystemError(error, "cannot write " + file);
  }
  return fd;
}

std::string Hex(uint64_t id) { return fmt::format("{:016x}", id); }

bool ParseHex(const nlohmann::json& json, const char* key, uint64_t* id) {
  const auto it = json.find(key);
  if (it == json.end() || !it->is_string()) return false;
  const std::string text = it->get<std::string>();
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *id, 16);
  return error == std::errc() && end == text.data() + text.size();
}

// Before anything is written there: is it sound to make this directory a member's?
absl::Status CheckVirgin(const std::string& path) {
  if (Exists(path + "/member/wal") || Exists(path + "/member/snap")) {
    return absl::FailedPreconditionError(fmt::format(
        "{} holds the data of an etcd member, which Holdfast cannot read: choose another "
        "--data-dir "
        "and copy the keys over while etcd runs (docs/operations.md, \"Coming from etcd\")",
        path));
  }
  absl::StatusOr<std::set<std::string>> entries = EntriesOf(path);
  if (!entries.ok()) return entries.status();
  for (const std::string& name : *entries) {
    // What a creation cut short leaves, and what a fresh file system has.
    static const std::set<std::string, std::less<>> kExpected = {std::string(kLockFile),
                                                                 std::string(kMemberFileNew),
                                                                 "log",
                                                                 "db",
                                                                 "snap",
                                                                 "lost+found",
                                                                 "restore"};
    if (!kExpected.contains(name) && !DataDir::StaysInPlace(name)) {
      return absl::FailedPreconditionError(fmt::format(
          "{} is not empty and is no Holdfast data directory (it holds '{}'): choose an empty "
          "--data-dir",
          path, base::Printable(name)));
    }
  }
  for (const std::string_view part : {"log", "db"}) {
    const std::string dir = fmt::format("{}/{}", path, part);
    if (!Exists(dir)) continue;
    std::error_code ignored;
    if (!IsDirectory(dir) || !fs::is_empty(dir, ignored)) {
      return absl::DataLossError(fmt::format(
          "{} has no {} but {} holds data: bring {} back from a backup. Without it nobody knows "
          "which member this was",
          path, kMemberFile, dir, kMemberFile));
    }
  }
  return absl::OkStatus();
}

// Absolute, without a slash at the end.
absl::StatusOr<std::string> CleanPath(const std::string& path) {
  std::error_code error;
  std::string clean = fs::absolute(path, error).lexically_normal().string();
  if (error) return SystemError(error.value(), "cannot find " + path);
  while (clean.size() > 1 && clean.ends_with('/')) clean.pop_back();
  return clean;
}

uint64_t NewDiskId() {
  uint64_t id = 0;
  while (id == 0) id = base::RandomSeed();
  return id;
}

struct MemberFile {
  DataDir::Owner owner;
  uint64_t disk_id = 0;  // 0: format 1
  std::string created;
};

std::string TextOf(const nlohmann::json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

absl::StatusOr<MemberFile> ReadMember(const std::string& path) {
  const std::string file = fmt::format("{}/{}", path, kMemberFile);
  std::ifstream in(file);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  storage::Damage damage;
  damage.file = file;
  damage.what = "it cannot be read";
  const absl::Status unreadable = storage::WithDamage(
      absl::DataLossError(fmt::format("{} cannot be read: bring it back from a backup", file)),
      damage);
  MemberFile member;
  if (!in.is_open() || !json.is_object() || !json.contains("format") ||
      !json["format"].is_number_integer() ||
      !ParseHex(json, "cluster_id", &member.owner.cluster_id) ||
      !ParseHex(json, "member_id", &member.owner.member_id.value)) {
    return unreadable;
  }
  const int format = json["format"].get<int>();
  if (format < 1 || format > DataDir::kFormat) {
    return absl::FailedPreconditionError(fmt::format(
        "{} has format {}, this holdfastd reads formats up to {}: start the release that wrote it",
        path, format, DataDir::kFormat));
  }
  member.owner.name = TextOf(json, "name");
  member.created = TextOf(json, "created");
  if (format == 1) return member;
  const std::string bootstrap = TextOf(json, "bootstrap");
  const bool whole = bootstrap.size() % 2 == 0 &&
                     std::ranges::all_of(bootstrap, [](unsigned char c) { return isxdigit(c); });
  if (!whole || !ParseHex(json, "disk_id", &member.disk_id) || member.disk_id == 0) {
    return unreadable;
  }
  member.owner.bootstrap = absl::HexStringToBytes(base::ToAbsl(bootstrap));
  return member;
}

absl::Status CheckSame(const std::string& path, const DataDir::Owner& found,
                       const DataDir::Owner& owner) {
  if (found.cluster_id != owner.cluster_id) {
    return absl::FailedPreconditionError(
        fmt::format("{} belongs to cluster {}, and not to cluster {}: choose another --data-dir",
                    path, Hex(found.cluster_id), Hex(owner.cluster_id)));
  }
  if (found.member_id != owner.member_id) {
    return absl::FailedPreconditionError(
        fmt::format("{} belongs to member {}, and not to member {}: every member needs a "
                    "--data-dir of its own",
                    path, Hex(found.member_id.value), Hex(owner.member_id.value)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DataDir>> DataDir::Open(const std::string& path,
                                                       const Owner& owner) {
  absl::StatusOr<std::string> found = CleanPath(path);
  if (!found.ok()) return found.status();
  const std::string& clean = *found;
  if (absl::Status status = MakeDir(clean); !status.ok()) return status;
  // Refuse before the LOCK file is made: somebody else's directory stays as it was.
  const bool complete = Exists(fmt::format("{}/{}", clean, kMemberFile));
  if (!complete) {
    if (absl::Status status = CheckVirgin(clean); !status.ok()) return status;
  }
  absl::StatusOr<int> lock = Lock(clean);
  if (!lock.ok()) return lock.status();
  std::unique_ptr<DataDir> dir(new DataDir(clean, *lock));
  if (absl::Status status = CheckFreeSpace(clean, kFreeBytesMin); !status.ok()) return status;
  if (absl::Status status = dir->TakeUp(owner); !status.ok()) return status;
  return dir;
}

absl::Status DataDir::CheckFreeSpace(const std::string& path, uint64_t bytes_min) {
  std::error_code error;
  const fs::space_info space = fs::space(path, error);
  if (error) return SystemError(error.value(), "cannot read the free space at " + path);
  if (space.available >= bytes_min) return absl::OkStatus();
  return absl::ResourceExhaustedError(fmt::format(
      "the disk of {} is full: {} bytes are free, {} are needed to start; free some space outside "
      "this directory (nothing inside may be deleted by hand) and start again",
      path, space.available, bytes_min));
}

DataDir::~DataDir() { close(lock_fd_); }

absl::StatusOr<std::unique_ptr<DataDir>> DataDir::Hold(const std::string& path) {
  absl::StatusOr<std::string> clean = CleanPath(path);
  if (!clean.ok()) return clean.status();
  if (absl::Status status = MakeDir(*clean); !status.ok()) return status;
  absl::StatusOr<int> lock = Lock(*clean);
  if (!lock.ok()) return lock.status();
  return std::unique_ptr<DataDir>(new DataDir(*clean, *lock));
}

bool DataDir::StaysInPlace(std::string_view name) {
  return name == kLockFile || name == kRepairFile || name.starts_with(kAsidePrefix) ||
         name == "lost+found";
}

absl::Status DataDir::WriteFile(const std::string& path, std::string_view name,
                                std::string_view text) {
  const std::string fresh = fmt::format("{}/{}.new", path, name);
  const std::string final_name = fmt::format("{}/{}", path, name);
  if (absl::Status status = WriteSynced(fresh, text); !status.ok()) return status;
  if (rename(fresh.c_str(), final_name.c_str()) != 0) {
    return SystemError(errno, "cannot rename " + fresh);
  }
  return SyncDir(path);
}

absl::Status DataDir::SyncDirectory(const std::string& path) { return SyncDir(path); }

absl::StatusOr<std::optional<DataDir::Owner>> DataDir::ReadOwner(const std::string& path) {
  absl::StatusOr<std::string> clean = CleanPath(path);
  if (!clean.ok()) return clean.status();
  if (!Exists(fmt::format("{}/{}", *clean, kMemberFile))) return std::nullopt;
  absl::StatusOr<MemberFile> member = ReadMember(*clean);
  if (!member.ok()) return member.status();
  return std::move(member->owner);
}

absl::Status DataDir::TakeUp(const Owner& owner) {
  // Looked at again under the lock: two processes may have come at once.
  if (!Exists(fmt::format("{}/{}", path_, kMemberFile))) {
    created_ = true;
    return Create(owner);
  }
  absl::StatusOr<MemberFile> member = ReadMember(path_);
  if (!member.ok()) return member.status();
  if (absl::Status status = CheckSame(path_, member->owner, owner); !status.ok()) return status;
  for (const std::string& part : {log_dir(), db_dir()}) {
    if (IsDirectory(part)) continue;
    const bool log = part == log_dir();
    return storage::DamageError(
        {.part = log ? storage::Damage::Part::kLog : storage::Damage::Part::kData,
         .file = part,
         .what = "it is missing, so this member's data is not complete"},
        "bring the whole data directory back from where it went, if it only went astray; a member "
        "must not start without a part of it (docs/recovery.md)");
  }
  if (absl::Status status = MakeDir(snapshot_dir()); !status.ok()) return status;
  disk_id_ = member->disk_id;
  if (disk_id_ != 0) return absl::OkStatus();
  disk_id_ = NewDiskId();
  return WriteMember(owner, member->created);
}

absl::Status DataDir::Create(const Owner& owner) {
  for (const std::string& part : {log_dir(), db_dir(), snapshot_dir()}) {
    if (absl::Status status = MakeDir(part); !status.ok()) return status;
  }
  disk_id_ = NewDiskId();
  return WriteMember(owner, absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone()));
}

absl::Status DataDir::WriteMember(const Owner& owner, const std::string& created) const {
  const nlohmann::ordered_json member = {
      {"format", kFormat},
      {"cluster_id", Hex(owner.cluster_id)},
      {"member_id", Hex(owner.member_id.value)},
      {"disk_id", Hex(disk_id_)},
      {"name", owner.name},
      {"created", created},
      {"bootstrap", absl::BytesToHexString(base::ToAbsl(owner.bootstrap))}};
  const std::string fresh = fmt::format("{}/{}", path_, kMemberFileNew);
  const std::string final_name = fmt::format("{}/{}", path_, kMemberFile);
  if (absl::Status status = WriteSynced(fresh, member.dump(2) + "\n"); !status.ok()) return status;
  // The three directories must be on disk before the file that vouches for them.
  if (absl::Status status = SyncDir(path_); !status.ok()) return status;
  if (rename(fresh.c_str(), final_name.c_str()) != 0) {
    return SystemError(errno, "cannot rename " + fresh);
  }
  return SyncDir(path_);
}

}  // namespace holdfast::server
