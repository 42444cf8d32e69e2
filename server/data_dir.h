// The directory that is a member: its lock, its identity, and where the others put their files.
//
//   DIR/LOCK         flock()ed by the running member; holds its process id
//   DIR/member.json  {format, cluster_id, member_id, disk_id, name, created, bootstrap}: whose
//                    directory this is, and the membership it began with
//   DIR/log/         the Raft log          (storage/segmented_log)
//   DIR/db/          the state machine     (server/state_machine)
//   DIR/snap/        snapshots on their way in
//   DIR/peer_disks   whom this member has met (server/peer_disks)
//
// member.json is written last, by rename, and synced with everything before it: a directory that
// has it is complete, one that lacks it has never been a member, and Open() makes it anew. So a
// crash at any point of the creation is repaired by starting again; a directory that lost a part
// later is refused, because a member that forgot its vote or its log can break the whole cluster.
//
// Threads: Open and the destructor from one thread; the rest is immutable.
// Errors, all with a text that says what to do: FailedPrecondition (in use; of another member; not
// ours), DataLoss (a part is missing, with a storage::Damage; or unreadable), PermissionDenied,
// NotFound (the parent), ResourceExhausted (disk full), Internal (other errors of the file system).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "base/ids.h"

namespace holdfast::server {

class DataDir {
 public:
  // 1, of release 0.1, had neither disk_id nor bootstrap; it is taken up, and written anew as 2.
  static constexpr int kFormat = 2;
  // With less, RocksDB may fail while it opens, in ways that end the process without a word.
  static constexpr uint64_t kFreeBytesMin = uint64_t{16} << 20;

  struct Owner {
    uint64_t cluster_id = 0;
    NodeId member_id;
    std::string name;  // for people; a member may change it
    // raft::Membership::Encode of the first membership, which is needed until the log has one of
    // its own. Empty: not known (format 1).
    std::string bootstrap = {};
    friend bool operator==(const Owner&, const Owner&) = default;
  };
  // What member.json in `path` says; nullopt: there is no member. Changes nothing, takes no lock.
  static absl::StatusOr<std::optional<Owner>> ReadOwner(const std::string& path);

  // Creates the directory (not its parents) for `owner`, or takes up an existing one, which must be
  // the same member's; and holds its lock until destroyed. The lock also ends with the process,
  // however it ends.
  static absl::StatusOr<std::unique_ptr<DataDir>> Open(const std::string& path, const Owner& owner);
  // Only locks the directory (which is created if need be), for one who repairs it; nothing but the
  // destructor may be called. Same errors.
  static absl::StatusOr<std::unique_ptr<DataDir>> Hold(const std::string& path);
  ~DataDir();
  // ResourceExhausted: the file system of `path` has less left.
  static absl::Status CheckFreeSpace(const std::string& path, uint64_t bytes_min);

  // For repair.h, which keeps these beside the member's own. Open leaves them alone.
  static constexpr std::string_view kRepairFile = "repair.json";
  static constexpr std::string_view kAsidePrefix = "damaged-";
  // What is not to be moved aside with a damaged member's data.
  static bool StaysInPlace(std::string_view name);
  // Replaces `name` in `path` atomically and durably.
  static absl::Status WriteFile(const std::string& path, std::string_view name,
                                std::string_view text);
  static absl::Status SyncDirectory(const std::string& path);

  std::string log_dir() const { return path_ + "/log"; }
  std::string db_dir() const { return path_ + "/db"; }
  std::string snapshot_dir() const { return path_ + "/snap"; }
  std::string freshness_record_path() const { return path_ + "/freshness"; }
  std::string peer_disks_path() const { return path_ + "/peer_disks"; }
  // Drawn when the directory was made, and never changed: tells a member that comes back from one
  // that comes back without its data.
  uint64_t disk_id() const { return disk_id_; }
  // True if this Open made the member.
  bool created() const { return created_; }

 private:
  DataDir(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}
  absl::Status TakeUp(const Owner& owner);
  absl::Status Create(const Owner& owner);
  absl::Status WriteMember(const Owner& owner, const std::string& created) const;

  const std::string path_;
  const int lock_fd_;
  uint64_t disk_id_ = 0;
  bool created_ = false;
};

}  // namespace holdfast::server
