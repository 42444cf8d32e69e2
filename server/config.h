// What one member is told: etcd's flags, and a few of our own.
//
// A plain value. ParseCommandLine (server/flags.h) fills it from flags, environment and file, and
// has it completed and validated; everything below main takes the struct.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/compaction_policy.h"
#include "server/url.h"

namespace holdfast::server {

// One name of --initial-cluster with all its URLs.
struct ClusterMember {
  std::string name;
  std::vector<Url> peer_urls;
};

enum class ClusterState { kNew, kExisting };

// What a member does that finds its log or data damaged, or gone (server/repair.h).
enum class RepairMode {
  kAuto,    // has itself replaced under a new id, and copies the others' data
  kManual,  // says what to do, and stops
};

struct Config {
  // Limits. A request travels as one log entry, one message to each peer and one write: far larger
  // ones would hold up everybody else's.
  static constexpr uint64_t kRequestBytesMin = 1024;
  static constexpr uint64_t kRequestBytesMax = uint64_t{8} << 20;
  static constexpr uint64_t kTxnOpsMax = 100'000;
  static constexpr uint64_t kSnapshotCountMax = 100'000'000;
  static constexpr uint64_t kLogBytesMin = uint64_t{1} << 20;
  static constexpr uint64_t kLogBytesMax = uint64_t{1} << 40;
  // Slower than this no transfer would ever catch up with the log behind it.
  static constexpr uint64_t kSnapshotRateMin = uint64_t{64} << 10;
  static constexpr uint64_t kSnapshotRateMax = uint64_t{1} << 40;
  static constexpr uint64_t kMirrorRateMin = uint64_t{64} << 10;
  static constexpr uint64_t kMirrorRateMax = uint64_t{1} << 40;
  static constexpr uint64_t kMirrorLoadsMin = 4;  // so that each class has one
  static constexpr uint64_t kMirrorLoadsMax = 4096;
  static constexpr uint64_t kCacheBytesMin = uint64_t{1} << 20;
  static constexpr uint64_t kCacheBytesMax = uint64_t{1} << 42;
  // Every voter more makes each write wait for more of them; learners only cost the leader's
  // network.
  static constexpr size_t kVotersMax = 9;
  static constexpr size_t kMembersMax = 64;
  static constexpr size_t kNameBytesMax = 128;
  static constexpr size_t kTokenBytesMax = 128;
  static constexpr absl::Duration kHeartbeatMin = absl::Milliseconds(10);
  static constexpr absl::Duration kElectionMax = absl::Seconds(50);
  // etcd's.
  static constexpr absl::Duration kWatchProgressMin = absl::Milliseconds(100);
  // Shorter than a client's retries a session would not outlive what it is for; longer, the memory
  // of clients that are gone adds up.
  static constexpr absl::Duration kSessionTtlMin = absl::Minutes(1);
  static constexpr absl::Duration kSessionTtlMax = absl::Hours(24 * 30);
  // Below this, one lost heartbeat and a slow disk write start an election.
  static constexpr int kElectionHeartbeatsMin = 5;

  std::string name = "default";
  std::string data_dir;  // empty: NAME.holdfast

  // Empty lists are filled by Complete().
  std::vector<Url> listen_client_urls;
  std::vector<Url> advertise_client_urls;
  std::vector<Url> listen_metrics_urls;  // may stay empty
  std::vector<Url> listen_peer_urls;
  std::vector<Url> initial_advertise_peer_urls;
  std::vector<ClusterMember> initial_cluster;
  ClusterState initial_cluster_state = ClusterState::kNew;
  std::string initial_cluster_token = "etcd-cluster";

  absl::Duration heartbeat_interval = absl::Milliseconds(100);
  absl::Duration election_timeout = absl::Seconds(1);
  uint64_t snapshot_count = 100'000;
  uint64_t log_bytes = uint64_t{256} << 20;
  uint64_t cache_bytes = uint64_t{64} << 20;
  uint64_t snapshot_rate_bytes = uint64_t{64} << 20;  // a second; 0: no limit
  uint64_t mirror_rate_bytes = uint64_t{128} << 20;   // a second, of whole copies; 0: no limit
  uint64_t mirror_loads = 32;                         // whole copies at once
  uint64_t max_request_bytes = 1536 * 1024;
  uint64_t max_txn_ops = 128;
  int64_t quota_backend_bytes = 0;            // what the store may take; <= 0: no quota
  std::optional<int64_t> disk_reserve_bytes;  // what must stay free; none: space_guard.h; <= 0: off
  // As given; Complete() makes a policy of the two.
  std::string auto_compaction_mode;
  std::string auto_compaction_retention;
  CompactionPolicy compaction;
  absl::Duration watch_progress_interval = absl::Minutes(10);
  absl::Duration session_ttl = absl::Hours(1);
  std::string log_level = "info";
  RepairMode repair = RepairMode::kAuto;
  bool batch_scheduling = true;  // while many writes are under way (server/thread_policy.h)
  // The last resort when a majority is lost for good: start from this member's data alone.
  bool force_new_cluster = false;

  // Derives what was not given: URLs from each other, the cluster from name and peer URLs, the data
  // directory from the name. InvalidArgument: something can not be derived.
  absl::Status Complete();
  // REQUIRES: Complete() succeeded. InvalidArgument, with a text that says what to do.
  absl::Status Validate() const;
};

// --initial-cluster: NAME=URL, comma-separated; a name that stands several times has several URLs.
absl::StatusOr<std::vector<ClusterMember>> ParseInitialCluster(std::string_view text);

}  // namespace holdfast::server
