// The directory that is a member: its lock, its identity, and where the others put their files.
//
//   DIR/LOCK         flock()ed by the running member; holds its process id
//   DIR/member.json  {format, cluster_id, member_id, name, created}: whose directory this is
//   DIR/log/         the Raft log          (storage/segmented_log)
//   DIR/db/          the state machine     (server/state_machine)
//   DIR/snap/        snapshots on their way in
//
// member.json is written last, by rename, and synced with everything before it: a directory that
// has it is complete, one that lacks it has never been a member, and Open() makes it anew. So a
// crash at any point of the creation is repaired by starting again; a directory that lost a part
// later is refused, because a member that forgot its vote or its log can break the whole cluster.
//
// Threads: Open and the destructor from one thread; the rest is immutable.
// Errors, all with a text that says what to do: FailedPrecondition (in use; of another member; not
// ours), DataLoss (a part is missing or unreadable), PermissionDenied, NotFound (the parent),
// ResourceExhausted (disk full), Internal (other errors of the file system).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/ids.h"

namespace holdfast::server {

class DataDir {
 public:
  static constexpr int kFormat = 1;
  // With less, RocksDB may fail while it opens, in ways that end the process without a word.
  static constexpr uint64_t kFreeBytesMin = uint64_t{16} << 20;

  struct Owner {
    uint64_t cluster_id = 0;
    NodeId member_id;
    std::string name;  // for people; a member may change it
    bool may_create = true;
  };
  // Creates the directory (not its parents) or takes up an existing one, and holds its lock until
  // destroyed. The lock also ends with the process, however it ends.
  static absl::StatusOr<std::unique_ptr<DataDir>> Open(const std::string& path, const Owner& owner);
  ~DataDir();
  // ResourceExhausted: the file system of `path` has less left.
  static absl::Status CheckFreeSpace(const std::string& path, uint64_t bytes_min);

  std::string log_dir() const { return path_ + "/log"; }
  std::string db_dir() const { return path_ + "/db"; }
  std::string snapshot_dir() const { return path_ + "/snap"; }
  std::string freshness_record_path() const { return path_ + "/freshness"; }
  // True if this Open made the member.
  bool created() const { return created_; }

 private:
  DataDir(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}
  absl::Status TakeUp(const Owner& owner);
  absl::Status Create(const Owner& owner);
  absl::Status CheckOwner(const Owner& owner) const;

  const std::string path_;
  const int lock_fd_;
  bool created_ = false;
};

}  // namespace holdfast::server
