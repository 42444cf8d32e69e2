// A file system in memory that loses what was not synced and fails on command.
//
// Model: the page cache (what a running process reads) and the disk are kept apart. Data reaches
// the disk by SyncData, or sector by sector in any order at a power cut. Directory changes reach
// it by SyncDir, or any of them, in any order, at a power cut; each is atomic. After a failed
// SyncData the pages count as clean and are never written again, as on Linux.
// Threads: one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "storage/file.h"

namespace holdfast::storage {

class FaultFileSystem : public FileSystem {
 public:
  enum class Fault {
    kIoError,   // this operation fails, the machine goes on
    kDiskFull,  // the same with ResourceExhausted, for Allocate and WriteAt
    kPowerCut,  // this operation and all later ones fail, until PowerCut()
  };
  static constexpr size_t kSectorBytes = 512;

  explicit FaultFileSystem(uint64_t seed) : rng_(seed) {}

  // The `nth` changing operation from now on (1 is the next) fails.
  void FailAt(uint64_t nth, Fault fault);
  // From now on every Allocate fails; for a disk that stays full.
  void SetFull(bool full) { full_ = full; }
  // Runs `action` once, in the middle of the next ReadAt.
  void OnNextRead(std::function<void()> action) { on_next_read_ = std::move(action); }
  // From now on every ReadAt that touches these bytes of `path` fails: a bad sector.
  void FailReads(const std::string& path, uint64_t first_byte, uint64_t last_byte);
  bool fault_hit() const { return fault_hit_; }
  bool stopped() const { return stopped_; }
  uint64_t operations() const { return operations_; }

  // From here on every changing operation fails: the moment of the crash. What the process still
  // tries (destructors) does not reach the disk. PowerCut() or KillProcess() starts anew.
  void Stop() { stopped_ = true; }
  // The machine loses power: handles and locks die, unsynced changes partly vanish.
  void PowerCut();
  // The process dies: handles and locks die, the page cache stays.
  void KillProcess();

  // For tests that damage a disk. What is written here is on the disk.
  std::vector<std::string> Paths() const;
  const std::string& Bytes(const std::string& path) const;
  void SetBytes(const std::string& path, std::string bytes);
  // The same in place: open handles see it.
  void Overwrite(const std::string& path, const std::string& bytes);
  // A copy of the disk as the page cache shows it, without handles, locks and faults.
  std::unique_ptr<FaultFileSystem> Clone() const;

  absl::Status CreateDir(const std::string& dir) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& dir) override;
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDir(const std::string& dir) override;
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override;

 private:
  friend class FaultFile;
  friend class FaultLock;

  struct Inode {
    std::string cached;  // what processes read
    std::string disk;
    std::set<size_t> dirty;  // sectors of `cached` that may still reach the disk
    // Bytes that cannot be read.
    std::optional<std::pair<uint64_t, uint64_t>> bad;
  };
  using Directory = std::map<std::string, std::shared_ptr<Inode>>;
  struct DirectoryChange {
    std::string from;  // empty: `to` is created
    std::string to;    // empty: `from` is removed
    std::shared_ptr<Inode> inode;
  };
  enum class Loss { kAll, kNothing, kRandom };

  // Counts a changing operation; the status it must fail with, if any.
  absl::Status Step();
  static void Apply(const DirectoryChange& change, Directory& directory);
  void SettleInode(Inode& inode, Loss loss);

  base::Rng rng_;
  Directory cached_;
  Directory disk_;
  std::vector<DirectoryChange> changes_;  // in cached_, not certainly in disk_
  std::set<std::string> locked_;
  uint64_t generation_ = 0;  // handles of an older one are dead
  uint64_t operations_ = 0;
  uint64_t fail_at_ = 0;  // 0: never
  Fault fault_ = Fault::kIoError;
  bool fault_hit_ = false;
  bool stopped_ = false;
  bool full_ = false;
  std::function<void()> on_next_read_;
};

}  // namespace holdfast::storage
