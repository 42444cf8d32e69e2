// The directory where snapshots arrive: what stays there of a transfer that broke, and what goes.
//
// kMaxPartialSnapshots (one) is kept, so at most one snapshot's bytes: a snapshot that begins ends
// the usefulness of every other, for there is one leader, which sends a member one at a time. It
// goes, too, when nobody asked for it during `keep_for`: then the sender has given it up.
// Files: recv-FROM-INDEX-N, a directory, and recv-FROM-INDEX-N.partial, its record.
// Threads: all.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "holdfast/raft.pb.h"
#include "server/peer_channel.h"
#include "server/peer_snapshot_assembler.h"
#include "storage/file.h"

namespace holdfast::server {

inline constexpr size_t kMaxPartialSnapshots = 1;

class SnapshotPartials {
 public:
  explicit SnapshotPartials(storage::FileSystem* fs, std::string dir, absl::Duration keep_for)
      : fs_(fs), dir_(std::move(dir)), keep_for_(keep_for) {}
  // Leaves what is parked on the disk, for the next process.
  ~SnapshotPartials();

  // Once, before all else: creates the directory, keeps the newest usable partial snapshot in it,
  // and removes everything else there.
  absl::Status Open(SteadyTime now);
  // To go on with, if it is what is parked; else a new one, and what was parked is removed.
  absl::StatusOr<std::unique_ptr<SnapshotAssembler>> Claim(const raft::v1::SnapshotMeta& meta);
  // Keeps it for the next Claim, unless a newer leader's snapshot has been claimed meanwhile or its
  // data cannot be synced.
  void Park(std::unique_ptr<SnapshotAssembler> assembler, SteadyTime now);
  void Expire(SteadyTime now);

 private:
  struct Parked {
    std::string name;  // empty: there is none
    raft::v1::SnapshotMeta meta;
    std::unique_ptr<SnapshotAssembler> assembler;  // null: of an earlier process
    SteadyTime since;
  };
  absl::StatusOr<std::unique_ptr<SnapshotAssembler>> GoOn(Parked parked) const;
  void Drop(Parked parked, std::string_view why) const;

  storage::FileSystem* const fs_;
  const std::string dir_;
  const absl::Duration keep_for_;

  std::mutex mutex_;
  Parked parked_;             // guarded by mutex_
  uint64_t newest_term_ = 0;  // guarded by mutex_; of a leader whose snapshot was claimed
  uint64_t next_ = 1;         // guarded by mutex_; the N of the next name
};

}  // namespace holdfast::server
