#include "server/db_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDbPrefix = "db-";
constexpr std::string_view kCheckpointPrefix = "ckpt-";
constexpr std::string_view kCurrentName = "current";
constexpr std::string_view kTemporaryName = "current.tmp";

absl::Status FileError(std::string_view what, const std::string& path, int error) {
  return absl::UnavailableError(fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
}

absl::Status SyncPath(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return FileError("open", path, errno);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : FileError("sync", path, error);
}

absl::Status WriteAndSync(const std::string& path, std::string_view bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return FileError("create", path, errno);
  const ssize_t written = write(fd, bytes.data(), bytes.size());
  const bool ok = written == static_cast<ssize_t>(bytes.size()) && fsync(fd) == 0;
  const int error = errno;
  close(fd);
  return ok ? absl::OkStatus() : FileError("write", path, error);
}

std::optional<uint64_t> ParseNumber(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// The N of a db-N; nullopt for any other text.
std::optional<uint64_t> DbNumber(std::string_view name) {
  if (!name.starts_with(kDbPrefix)) return std::nullopt;
  const auto number = ParseNumber(name.substr(kDbPrefix.size()));
  return number == 0 ? std::nullopt : number;
}

// What the file `current` says.
struct CurrentFile {
  uint64_t number = 0;
  std::optional<storage::LogMark> installed;
};

std::string EncodeCurrent(const CurrentFile& file) {
  std::string text = fmt::format("{}{}", kDbPrefix, file.number);
  if (!file.installed.has_value()) return text;
  const storage::LogMark& mark = *file.installed;
  return fmt::format("{} {} {} x{}", text, mark.index.value, mark.term.value,
                     base::ToStd(absl::BytesToHexString(base::ToAbsl(mark.membership))));
}

std::optional<CurrentFile> DecodeCurrent(std::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(base::ToAbsl(text), ' ');
  CurrentFile file;
  const auto number = DbNumber(parts[0]);
  if (!number.has_value()) return std::nullopt;
  file.number = *number;
  if (parts.size() == 1) return file;
  if (parts.size() != 4) return std::nullopt;
  const auto index = ParseNumber(parts[1]);
  const auto term = ParseNumber(parts[2]);
  std::string_view hex = parts[3];
  if (!index.has_value() || !term.has_value() || !hex.starts_with('x')) return std::nullopt;
  hex.remove_prefix(1);
  std::string membership = absl::HexStringToBytes(base::ToAbsl(hex));
  if (base::ToStd(absl::BytesToHexString(membership)) != hex) return std::nullopt;
  file.installed = storage::LogMark{Index(*index), Term(*term), std::move(membership)};
  return file;
}

absl::StatusOr<std::vector<std::string>> ListNames(const std::string& dir) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename());
  }
  if (error) return FileError("list", dir, error.value());
  return names;
}

absl::StatusOr<std::optional<std::string>> ReadCurrent(const std::string& path) {
  std::error_code error;
  const bool there = fs::exists(path, error);
  if (error) return FileError("look for", path, error.value());
  if (!there) return std::optional<std::string>();
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in.good() && !in.eof()) return FileError("read", path, EIO);
  return std::optional<std::string>(std::move(text));
}

absl::Status Lost(const std::string& dir, const std::string& what) {
  return storage::DamageError({.part = storage::Damage::Part::kData, .file = dir, .what = what});
}

}  // namespace

absl::StatusOr<DbDirectory> DbDirectory::Open(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return FileError("create", dir, error.value());
  const auto names = ListNames(dir);
  if (!names.ok()) return names.status();
  std::vector<uint64_t> found;
  for (const std::string& name : *names) {
    if (const auto number = DbNumber(name)) found.push_back(*number);
  }
  const auto text = ReadCurrent(fmt::format("{}/{}", dir, kCurrentName));
  if (!text.ok()) return text.status();

  if (!text->has_value()) {
    if (!found.empty()) return Lost(dir, "there is a database but no file 'current' that names it");
    DbDirectory directory(dir, 1, std::nullopt);
    if (absl::Status status = directory.WriteCurrent(EncodeCurrent({1, std::nullopt}));
        !status.ok()) {
      return status;
    }
    return directory;
  }
  std::optional<CurrentFile> file = DecodeCurrent(**text);
  if (!file.has_value()) {
    return Lost(dir, fmt::format("'current' holds '{}', no database", base::Printable(**text)));
  }
  const bool there = std::find(found.begin(), found.end(), file->number) != found.end();
  const bool first_start = file->number == 1 && found.empty();
  if (!there && !first_start) {
    return Lost(dir, fmt::format("'current' names db-{}, which is not there", file->number));
  }
  DbDirectory directory(dir, file->number, std::move(file->installed));
  if (absl::Status status = directory.RemoveLeftovers(); !status.ok()) return status;
  return directory;
}

absl::StatusOr<std::string> DbDirectory::Adopt(const std::string& from) {
  adopted_ = std::max(adopted_, current_) + 1;
  const std::string to = PathOf(adopted_);
  std::error_code error;
  fs::rename(from, to, error);
  if (error) return FileError("move " + from + " to", to, error.value());
  if (absl::Status status = SyncPath(dir_); !status.ok()) return status;
  return to;
}

absl::Status DbDirectory::Use(const std::string& path, const storage::LogMark& mark) {
  CHECK(path == PathOf(adopted_));
  if (absl::Status status = WriteCurrent(EncodeCurrent({adopted_, mark})); !status.ok()) {
    return status;
  }
  current_ = adopted_;
  installed_ = mark;
  return absl::OkStatus();
}

std::string DbDirectory::CheckpointPath(uint64_t number) const {
  return fmt::format("{}/{}{}", dir_, kCheckpointPrefix, number);
}

std::string DbDirectory::PathOf(uint64_t number) const {
  return fmt::format("{}/{}{}", dir_, kDbPrefix, number);
}

absl::Status DbDirectory::WriteCurrent(std::string_view text) const {
  const std::string temporary = fmt::format("{}/{}", dir_, kTemporaryName);
  const std::string target = fmt::format("{}/{}", dir_, kCurrentName);
  if (absl::Status status = WriteAndSync(temporary, text); !status.ok()) return status;
  std::error_code error;
  fs::rename(temporary, target, error);
  if (error) return FileError("rename to", target, error.value());
  return SyncPath(dir_);
}

absl::Status DbDirectory::RemoveLeftovers() const {
  const auto names = ListNames(dir_);
  if (!names.ok()) return names.status();
  for (const std::string& name : *names) {
    const auto number = DbNumber(name);
    const bool other_db = number.has_value() && *number != current_;
    if (!other_db && !name.starts_with(kCheckpointPrefix) && name != kTemporaryName) continue;
    LOG_INFO("removing {} from {}: left behind by an unfinished step", name, dir_);
    std::error_code error;
    fs::remove_all(fmt::format("{}/{}", dir_, name), error);
    if (error) return FileError("remove", dir_ + "/" + name, error.value());
  }
  return absl::OkStatus();
}

}  // namespace holdfast::server
