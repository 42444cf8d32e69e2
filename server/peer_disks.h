// Which data directory each peer had when this member first met it.
//
// A member that lost its data has another disk id, and must not take part under its old id. The
// store knows the disk ids that members have published, but a member that restarts knows what is in
// its store only once its log is replayed, and that may take a leader, elected with the very vote
// that must not count. So they are kept in a file of their own, written before a peer's first
// stream opens.
//
// The file: a line "ID DISK" in hexadecimal for each peer, replaced as a whole. Damaged or missing,
// it protects nobody and harms nobody: it begins anew.
// Threads: all.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/ids.h"

namespace holdfast::server {

class PeerDisks {
 public:
  // Above any real cluster, with all members that it ever had within a generation of them.
  static constexpr size_t kNotedMax = 1024;

  // `path` empty: only in memory.
  explicit PeerDisks(std::string path);

  // 0: not known.
  uint64_t Of(NodeId id) const;
  // Durable when it returns OK; at once if it is noted so already. Beyond kNotedMax: not noted.
  absl::Status Note(NodeId id, uint64_t disk);
  // They never come back. From memory only; the next Note takes them from the file.
  void Forget(const std::vector<NodeId>& ids);

 private:
  const std::string path_;
  mutable absl::Mutex mutex_;
  std::map<NodeId, uint64_t> disks_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::server
