// holdfastctl snapshot save | status | restore.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/ctl/backup_file.h"
#include "client/ctl/commands.h"
#include "client/ctl/remote.h"

namespace holdfast::ctl {

// As etcd recommends for --bump-revision: raises the revision so far that no client of the old
// cluster can have seen more.
inline constexpr int64_t kDefaultBumpRevision = 1'000'000'000;

struct RestoreArgs {
  std::string source;  // a file, or a directory of `holdfastctl backup`
  std::string data_dir;
  std::string name = "default";
  std::string initial_cluster = "default=http://localhost:2380";
  std::string initial_cluster_token = "etcd-cluster";
  std::string initial_advertise_peer_urls = "http://localhost:2380";
  int64_t revision = 0;  // 0: the newest there is
  int64_t bump_revision = kDefaultBumpRevision;
  bool mark_compacted = true;  // always done: a backup has no history
};

enum class TableStyle { kSimple, kTable };

// Streams a whole backup from one endpoint into `file`, and verifies it there; the caller commits.
// Tries the endpoints in turn. `file` is begun anew for each, hence the path.
struct SavedBackup {
  std::unique_ptr<DurableFile> file;
  BackupInfo info;
};
absl::StatusOr<SavedBackup> SaveBackup(const Remote& remote, const std::string& path);

ExitCode SnapshotSave(const Common& common, const std::string& path, Io io);
ExitCode SnapshotStatus(const Common& common, const std::string& path, TableStyle style, Io io);
ExitCode SnapshotRestore(const Common& common, const RestoreArgs& args, Io io);

// Rows of equally many cells, the first the heading, with lines around them as etcdctl draws them.
std::string FramedTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace holdfast::ctl
