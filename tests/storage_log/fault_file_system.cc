#include "tests/storage_log/fault_file_system.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace holdfast::storage {

class FaultFile : public File {
 public:
  FaultFile(FaultFileSystem* fs, std::shared_ptr<FaultFileSystem::Inode> inode)
      : fs_(fs), inode_(std::move(inode)), generation_(fs->generation_) {}

  absl::Status WriteAt(uint64_t offset, std::string_view bytes) override {
    if (absl::Status s = Alive(); !s.ok()) return s;
    if (fs_->stopped_) return fs_->Step();
    absl::Status s = fs_->Step();
    // A failing write leaves any part of itself; a power cut decides by sector later.
    if (!s.ok() && !fs_->stopped_) bytes = bytes.substr(0, fs_->rng_.Below(bytes.size() + 1));
    if (bytes.empty()) return s;
    std::string& cached = inode_->cached;
    if (cached.size() < offset + bytes.size()) cached.resize(offset + bytes.size());
    cached.replace(offset, bytes.size(), bytes);
    constexpr size_t kSector = FaultFileSystem::kSectorBytes;
    for (size_t i = offset / kSector; i <= (offset + bytes.size() - 1) / kSector; ++i) {
      inode_->dirty.insert(i);
    }
    return s;
  }

  absl::StatusOr<std::string> ReadAt(uint64_t offset, size_t n) const override {
    if (absl::Status s = Alive(); !s.ok()) return s;
    if (auto action = std::exchange(fs_->on_next_read_, nullptr)) action();
    if (inode_->bad.has_value() && offset <= inode_->bad->second &&
        offset + n > inode_->bad->first) {
      return absl::InternalError("read: input/output error (injected)");
    }
    if (offset >= inode_->cached.size()) return std::string();
    return inode_->cached.substr(offset, n);
  }

  absl::Status SyncData() override {
    if (absl::Status s = Alive(); !s.ok()) return s;
    if (absl::Status s = fs_->Step(); !s.ok()) {
      if (!fs_->stopped_) inode_->dirty.clear();
      return s;
    }
    fs_->SettleInode(*inode_, FaultFileSystem::Loss::kNothing);
    return absl::OkStatus();
  }

  absl::Status Allocate(uint64_t bytes) override {
    if (absl::Status s = Alive(); !s.ok()) return s;
    if (fs_->full_) return absl::ResourceExhaustedError("allocate: no space (injected)");
    if (absl::Status s = fs_->Step(); !s.ok()) return s;
    if (inode_->cached.size() < bytes) inode_->cached.resize(bytes);
    return absl::OkStatus();
  }

  absl::StatusOr<uint64_t> Size() const override {
    if (absl::Status s = Alive(); !s.ok()) return s;
    return inode_->cached.size();
  }

 private:
  absl::Status Alive() const {
    if (generation_ == fs_->generation_) return absl::OkStatus();
    return absl::InternalError("a handle from before the crash");
  }

  FaultFileSystem* const fs_;
  const std::shared_ptr<FaultFileSystem::Inode> inode_;
  const uint64_t generation_;
};

class FaultLock : public FileLock {
 public:
  FaultLock(FaultFileSystem* fs, std::string path)
      : fs_(fs), path_(std::move(path)), generation_(fs->generation_) {}
  ~FaultLock() override {
    if (generation_ == fs_->generation_) fs_->locked_.erase(path_);
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
  const uint64_t generation_;
};

void FaultFileSystem::FailAt(uint64_t nth, Fault fault) {
  CHECK(nth > 0);
  fail_at_ = operations_ + nth;
  fault_ = fault;
  fault_hit_ = false;
}

void FaultFileSystem::FailReads(const std::string& path, uint64_t first_byte, uint64_t last_byte) {
  const auto it = cached_.find(path);
  CHECK(it != cached_.end());
  it->second->bad = {first_byte, last_byte};
}

absl::Status FaultFileSystem::Step() {
  if (stopped_) return absl::InternalError("the power is gone (injected)");
  ++operations_;
  if (operations_ != fail_at_) return absl::OkStatus();
  fault_hit_ = true;
  if (fault_ == Fault::kDiskFull) return absl::ResourceExhaustedError("no space (injected)");
  stopped_ = fault_ == Fault::kPowerCut;
  return absl::InternalError("input/output error (injected)");
}

void FaultFileSystem::Apply(const DirectoryChange& change, Directory& directory) {
  if (!change.from.empty()) {
    // A change whose forerunner did not reach the disk has nothing to work on.
    const auto it = directory.find(change.from);
    if (it == directory.end() || it->second != change.inode) return;
    directory.erase(it);
  }
  if (!change.to.empty()) directory[change.to] = change.inode;
}

void FaultFileSystem::SettleInode(Inode& inode, Loss loss) {
  if (loss == Loss::kAll || (loss == Loss::kRandom && rng_.OneIn(2))) {
    // The size is lost, and with it every sector beyond the old one.
    while (!inode.dirty.empty() && *inode.dirty.rbegin() * kSectorBytes >= inode.disk.size()) {
      inode.dirty.erase(std::prev(inode.dirty.end()));
    }
  } else {
    inode.disk.resize(inode.cached.size());
  }
  for (const size_t sector : inode.dirty) {
    if (loss == Loss::kAll || (loss == Loss::kRandom && rng_.OneIn(2))) continue;
    const size_t begin = sector * kSectorBytes;
    const size_t n =
        std::min({kSectorBytes, inode.cached.size() - begin, inode.disk.size() - begin});
    inode.disk.replace(begin, n, inode.cached, begin, n);
  }
  inode.dirty.clear();
}

void FaultFileSystem::PowerCut() {
  const auto loss = static_cast<Loss>(rng_.Below(3));
  std::set<Inode*> inodes;
  for (const auto& [path, inode] : cached_) inodes.insert(inode.get());
  for (const DirectoryChange& change : changes_) inodes.insert(change.inode.get());
  for (const auto& [path, inode] : disk_) inodes.insert(inode.get());
  for (Inode* inode : inodes) {
    SettleInode(*inode, loss);
    inode->cached = inode->disk;
  }
  for (const DirectoryChange& change : changes_) {
    if (loss == Loss::kAll || (loss == Loss::kRandom && rng_.OneIn(2))) continue;
    Apply(change, disk_);
  }
  changes_.clear();
  cached_ = disk_;
  KillProcess();
}

void FaultFileSystem::KillProcess() {
  stopped_ = false;
  ++generation_;
  locked_.clear();
  fail_at_ = 0;
  fault_hit_ = false;
}

std::vector<std::string> FaultFileSystem::Paths() const {
  std::vector<std::string> paths;
  for (const auto& [path, inode] : cached_) paths.push_back(path);
  return paths;
}

const std::string& FaultFileSystem::Bytes(const std::string& path) const {
  return cached_.at(path)->cached;
}

void FaultFileSystem::SetBytes(const std::string& path, std::string bytes) {
  auto inode = std::make_shared<Inode>();
  inode->disk = bytes;
  inode->cached = std::move(bytes);
  cached_[path] = disk_[path] = std::move(inode);
}

void FaultFileSystem::Overwrite(const std::string& path, const std::string& bytes) {
  cached_.at(path)->cached = cached_.at(path)->disk = bytes;
}

std::unique_ptr<FaultFileSystem> FaultFileSystem::Clone() const {
  auto clone = std::make_unique<FaultFileSystem>(operations_);
  for (const auto& [path, inode] : cached_) clone->SetBytes(path, inode->cached);
  return clone;
}

absl::Status FaultFileSystem::CreateDir(const std::string&) { return absl::OkStatus(); }

absl::StatusOr<std::vector<std::string>> FaultFileSystem::List(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& [path, inode] : cached_) {
    if (path.starts_with(dir + "/")) names.push_back(path.substr(dir.size() + 1));
  }
  return names;
}

absl::StatusOr<std::unique_ptr<File>> FaultFileSystem::Open(const std::string& path,
                                                            OpenMode mode) {
  const bool exists = cached_.contains(path);
  if (mode == OpenMode::kExisting) {
    if (!exists) return absl::NotFoundError("no such file: " + path);
  } else {
    if (exists) return absl::InternalError("file exists: " + path);
    if (absl::Status s = Step(); !s.ok()) return s;
    changes_.push_back({.from = "", .to = path, .inode = std::make_shared<Inode>()});
    Apply(changes_.back(), cached_);
  }
  return std::make_unique<FaultFile>(this, cached_.at(path));
}

absl::Status FaultFileSystem::Rename(const std::string& from, const std::string& to) {
  if (!cached_.contains(from)) return absl::NotFoundError("no such file: " + from);
  CHECK(!cached_.contains(to));
  if (stopped_) return Step();
  absl::Status s = Step();
  if (!s.ok() && !stopped_) return s;
  changes_.push_back({.from = from, .to = to, .inode = cached_.at(from)});
  Apply(changes_.back(), cached_);
  return s;
}

absl::Status FaultFileSystem::Remove(const std::string& path) {
  if (!cached_.contains(path)) return absl::NotFoundError("no such file: " + path);
  if (stopped_) return Step();
  absl::Status s = Step();
  if (!s.ok() && !stopped_) return s;
  changes_.push_back({.from = path, .to = "", .inode = cached_.at(path)});
  Apply(changes_.back(), cached_);
  return s;
}

absl::Status FaultFileSystem::SyncDir(const std::string&) {
  if (absl::Status s = Step(); !s.ok()) return s;
  for (const DirectoryChange& change : changes_) Apply(change, disk_);
  changes_.clear();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<FileLock>> FaultFileSystem::Lock(const std::string& path) {
  if (!locked_.insert(path).second) {
    return absl::FailedPreconditionError(path + " is in use by another process");
  }
  return std::make_unique<FaultLock>(this, path);
}

}  // namespace holdfast::storage
