#include "server/peer_disks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

constexpr mode_t kFileMode = 0600;

absl::Status SystemError(const std::string& what) {
  return absl::UnavailableError(base::ToAbsl(fmt::format("{}: {}", what, std::strerror(errno))));
}

absl::Status Sync(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return SystemError("cannot open " + path);
  const bool synced = fsync(fd) == 0;
  const absl::Status status = synced ? absl::OkStatus() : SystemError("cannot sync " + path);
  close(fd);
  return status;
}

absl::Status Replace(const std::string& path, std::string_view text) {
  const std::string fresh = path + ".new";
  const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, kFileMode);
  if (fd < 0) return SystemError("cannot create " + fresh);
  const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
  if (written != static_cast<ssize_t>(text.size())) return SystemError("cannot write " + fresh);
  if (absl::Status status = Sync(fresh, O_RDONLY); !status.ok()) return status;
  if (rename(fresh.c_str(), path.c_str()) != 0) return SystemError("cannot rename " + fresh);
  return Sync(std::filesystem::path(path).parent_path().string(), O_RDONLY | O_DIRECTORY);
}

}  // namespace

PeerDisks::PeerDisks(std::string path) : path_(std::move(path)) {
  if (path_.empty()) return;
  std::ifstream in(path_);
  std::map<NodeId, uint64_t> read;
  uint64_t id = 0, disk = 0;
  in >> std::hex;
  while (read.size() < kNotedMax && in >> id >> disk) read[NodeId(id)] = disk;
  if (in.is_open() && !in.eof()) {
    LOG_WARN("{} cannot be read and begins anew", path_);
    return;
  }
  absl::MutexLock lock(&mutex_);
  disks_ = std::move(read);
}

uint64_t PeerDisks::Of(NodeId id) const {
  absl::MutexLock lock(&mutex_);
  const auto it = disks_.find(id);
  return it == disks_.end() ? 0 : it->second;
}

absl::Status PeerDisks::Note(NodeId id, uint64_t disk) {
  absl::MutexLock lock(&mutex_);
  const auto [it, is_new] = disks_.try_emplace(id, 0);
  if (it->second == disk) return absl::OkStatus();
  if (is_new && disks_.size() > kNotedMax) {
    disks_.erase(it);
    return absl::OkStatus();
  }
  const uint64_t before = std::exchange(it->second, disk);
  if (path_.empty()) return absl::OkStatus();
  std::string text;
  for (const auto& [peer, noted] : disks_) text += fmt::format("{:x} {:x}\n", peer.value, noted);
  absl::Status status = Replace(path_, text);
  // What is not on disk must not count: the next greeting tries again.
  if (!status.ok()) it->second = before;
  return status;
}

void PeerDisks::Forget(const std::vector<NodeId>& ids) {
  absl::MutexLock lock(&mutex_);
  for (const NodeId id : ids) disks_.erase(id);
}

}  // namespace holdfast::server
