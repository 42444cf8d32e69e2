// The first start of a member from a backup that `holdfastctl snapshot restore` has laid down.
//
//   DIR/restore/plan.json   what is to become of it; written last, by rename
//   DIR/restore/NAME        the backup files it names: a full one, and increments in order
//   plan.json: {format: 1, name, initial_cluster, initial_cluster_token,
//               initial_advertise_peer_urls, revision, bump_revision,
//               files: [{name, bytes, sha256}]}   (bytes: of the frames; sha256: of those, hex)
//
// While plan.json is there, nothing else in DIR counts: a start wipes what an earlier one left of
// db/ and log/, imports from the beginning, syncs, and removes plan.json last. So a crash at any
// point means: import again. What it makes is a function of the plan and the files alone, so that
// all members that restore the same come to the same state.
//
// The state is that of a snapshot at index 1, term 1, and the log begins behind it: whoever joins
// later, or has nothing, gets it as a snapshot and never replays a log over an empty store. The
// cluster id depends on the plan's files and revisions, besides the members: members that restored
// different backups, or none, refuse each other instead of differing in silence. The incarnation is
// left out: the first leader gives a new one, as in every new cluster.
//
// Revisions: the store begins at revision + bump_revision, and with a bump everything before is
// compacted; without one, everything before `revision` is. Leases begin with all of their time. A
// lease that a record has and the backup does not know (an increment lists the leases a moment
// after its events) gets kUnknownLeaseTtlSeconds, so that no key outlives its owner for good.
//
// Threads: one, at start, before the node's. Memory: 16 bytes a lease, one frame, the store's.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config.h"
#include "server/data_dir.h"
#include "server/identity.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

inline constexpr int64_t kUnknownLeaseTtlSeconds = 60;
inline constexpr int64_t kBumpRevisionMax = int64_t{1} << 50;

struct RestorePlan {
  struct File {
    std::string name;
    uint64_t bytes = 0;
    std::string sha256;  // 64 hex digits
  };
  std::string name;
  std::string initial_cluster;
  std::string initial_cluster_token;
  std::string initial_advertise_peer_urls;
  int64_t revision = 0;
  int64_t bump_revision = 0;
  std::vector<File> files;
};

// nullopt: nothing is to be restored. DataLoss: plan.json cannot be read. FailedPrecondition: of a
// newer format; or there are files and no plan, and no member either: `snapshot restore` was cut
// short, and a member that started now would start empty.
absl::StatusOr<std::optional<RestorePlan>> ReadRestorePlan(const std::string& data_dir);

// `config` with the plan's cluster. FailedPrecondition: the plan is another member's.
// InvalidArgument: its cluster is none.
absl::StatusOr<Config> ConfigFor(const RestorePlan& plan, Config config);

// What a crash behind the last step leaves: space and nothing else. REQUIRES: `data_dir` holds a
// member, and no plan.
void RemoveRestoreLeftovers(const std::string& data_dir);

// REQUIRES: config is of ConfigFor.
absl::StatusOr<Identity> RestoredIdentity(const Config& config, const RestorePlan& plan);

// After each of its steps, with its name: where tests cut it short.
using RestoreStep = std::function<void(const char* step)>;

// Carries the plan out. `dir` is open, of `identity`. DataLoss: a file is not what the plan says
// (no storage::Damage: it is not the member's own data); the text says to restore again.
absl::Status ImportRestore(const RestorePlan& plan, const std::string& data_dir, const DataDir& dir,
                           const Identity& identity, storage::MvccStore::Options store,
                           const RestoreStep& step = {});

}  // namespace holdfast::server
