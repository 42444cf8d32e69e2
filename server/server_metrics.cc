#include "server/server_metrics.h"

#include <fmt/format.h>

#include <string>

#include "server/version.h"

namespace holdfast::server {
namespace {

double Number(uint64_t value) { return static_cast<double>(value); }
double YesNo(bool yes) { return yes ? 1 : 0; }

}  // namespace

ServerMetrics::ServerMetrics(const MemberView& member, const storage::LogStore* log,
                             const StorageMetrics* storage, const AppliedMetrics* applied,
                             const RpcMetrics* rpcs, const MetricsProviders& providers)
    : member_(member),
      log_(log),
      storage_(storage),
      applied_(applied),
      rpcs_(rpcs),
      providers_(providers) {}

double ServerMetrics::LeaderChanges() {
  const raft::NodeStatus status = member_.node->status();
  std::lock_guard lock(mutex_);
  if (status.leader && status.term.value != led_term_) {
    led_term_ = status.term.value;
    ++leader_changes_;
  }
  return Number(leader_changes_);
}

void ServerMetrics::RegisterRaft(MetricsRegistry* registry) {
  raft::RaftNode* node = member_.node;
  registry->AddGauge("etcd_server_has_leader",
                     "Whether or not a leader exists. 1 is existence, 0 is not.",
                     [node] { return YesNo(static_cast<bool>(node->status().leader)); });
  registry->AddGauge("etcd_server_is_leader",
                     "Whether or not this member is a leader. 1 if is, 0 otherwise.",
                     [node] { return YesNo(node->status().role == raft::Role::kLeader); });
  registry->AddGauge("etcd_server_is_learner",
                     "Whether or not this member is a learner. 1 if is, 0 otherwise.",
                     [node] { return YesNo(node->status().is_learner); });
  registry->AddCounterOf("etcd_server_leader_changes_seen_total",
                         "The number of leader changes seen.", [this] { return LeaderChanges(); });
  registry->AddGauge("etcd_server_proposals_committed_total",
                     "The total number of consensus proposals committed.",
                     [node] { return Number(node->status().commit.value); });
  registry->AddGauge("etcd_server_proposals_applied_total",
                     "The total number of consensus proposals applied.",
                     [node] { return Number(node->status().applied.value); });
  registry->AddGauge("etcd_server_proposals_pending",
                     "The current number of pending proposals to commit.", [node] {
                       const raft::NodeStatus status = node->status();
                       return Number(status.last.value - status.commit.value);
                     });
  registry->AddGauge("holdfast_raft_term", "The term of this member.",
                     [node] { return Number(node->status().term.value); });
  registry->AddGauge("holdfast_applied_index", "The last log entry that is in this member's data.",
                     [node] { return Number(node->status().applied.value); });
  registry->AddGauge("holdfast_leaderless_seconds",
                     "How long this member has known no leader; 0 while it knows one.",
                     [node] { return absl::ToDoubleSeconds(node->status().leaderless); });
  registry->AddSamples("holdfast_peer_match_index",
                       "Of the leader: up to where each other member has the log.",
                       MetricKind::kGauge, [node] {
                         std::vector<MetricSample> samples;
                         for (const raft::RaftNode::PeerStatus& peer : node->peers()) {
                           samples.push_back({{{"peer", fmt::format("{:x}", peer.id.value)}},
                                              Number(peer.match.value)});
                         }
                         return samples;
                       });
  registry->AddSamples(
      "holdfast_peer_active", "Of the leader: 1 if the member answered within an election timeout.",
      MetricKind::kGauge, [node] {
        std::vector<MetricSample> samples;
        for (const raft::RaftNode::PeerStatus& peer : node->peers()) {
          samples.push_back({{{"peer", fmt::format("{:x}", peer.id.value)}}, YesNo(peer.active)});
        }
        return samples;
      });
}

void ServerMetrics::RegisterStore(MetricsRegistry* registry) {
  KvStateMachine* machine = member_.machine;
  registry->AddHistogram("etcd_disk_wal_fsync_duration_seconds",
                         "The latency distributions of fsync called by WAL.",
                         &storage_->log_append);
  registry->AddHistogram("etcd_disk_backend_commit_duration_seconds",
                         "The latency distributions of commit called by backend.",
                         &storage_->apply);
  registry->AddCounter("holdfast_store_flushes_total",
                       "Flushes of the store that were begun to cut the log.", &storage_->flushes);
  registry->AddGauge("holdfast_log_bytes", "Bytes of the Raft log on disk.",
                     [log = log_] { return Number(log->disk_bytes()); });
  for (const char* name :
       {"etcd_mvcc_db_total_size_in_bytes", "etcd_debugging_mvcc_db_total_size_in_bytes"}) {
    registry->AddGauge(name, "Total size of the underlying database physically allocated in bytes.",
                       [machine] { return Number(machine->store()->disk_bytes()); });
  }
  registry->AddGauge("etcd_mvcc_db_total_size_in_use_in_bytes",
                     "Total size of the underlying database logically in use in bytes.",
                     [machine] { return Number(machine->store()->in_use_bytes()); });
  registry->AddGauge("etcd_debugging_mvcc_current_revision", "The current revision of store.",
                     [machine] { return static_cast<double>(machine->applied_state().revision); });
  registry->AddGauge(
      "etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.",
      [machine] { return static_cast<double>(machine->applied_state().compact_revision); });
  registry->AddSamples(
      "holdfast_alarm", "Alarms in force, by member.", MetricKind::kGauge, [machine] {
        std::vector<MetricSample> samples;
        const AlarmSet alarms = machine->alarms();
        for (const AlarmSet::Alarm& alarm : alarms.alarms()) {
          samples.push_back(
              {{{"member", fmt::format("{:x}", alarm.first)},
                {"type", alarm.second == AlarmType::kNoSpace ? "NOSPACE" : "CORRUPT"}},
               1});
        }
        return samples;
      });
  const auto answered = [registry, rpcs = rpcs_](const char* name, const char* help,
                                                 const char* method) {
    registry->AddCounterOf(name, help, [rpcs, method] { return Number(rpcs->Succeeded(method)); });
  };
  registry->AddCounter("etcd_mvcc_put_total", "Total number of puts seen by this member.",
                       &applied_->puts);
  registry->AddCounter("etcd_mvcc_delete_total", "Total number of deletes seen by this member.",
                       &applied_->deletes);
  answered("etcd_mvcc_range_total", "Total number of ranges seen by this member.",
           "/etcdserverpb.KV/Range");
  answered("etcd_mvcc_txn_total", "Total number of txns seen by this member.",
           "/etcdserverpb.KV/Txn");
}

void ServerMetrics::RegisterParts(MetricsRegistry* registry) {
  const auto gauge = [registry](const char* name, const char* help,
                                const std::function<uint64_t()>& provider) {
    if (provider) registry->AddGauge(name, help, [provider] { return Number(provider()); });
  };
  gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers.", providers_.watchers);
  gauge("etcd_debugging_mvcc_slow_watcher_total", "Total number of unsynced slow watchers.",
        providers_.slow_watchers);
  gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams.",
        providers_.watch_streams);
  gauge("holdfast_leases",
        "Leases that this member keeps time for: all of them on the leader, elsewhere 0.",
        providers_.leases);
  gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.",
        providers_.quota_bytes);
}

void ServerMetrics::RegisterIdentity(MetricsRegistry* registry) {
  const auto constant = [registry](const char* name, const char* help, MetricLabels labels) {
    registry->AddSamples(name, help, MetricKind::kGauge, [labels = std::move(labels)] {
      return std::vector<MetricSample>{{labels, 1}};
    });
  };
  constant("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label.",
           {{"server_id", fmt::format("{:x}", member_.self.value)}});
  constant("etcd_server_version",
           "Which version is running. 1 for 'server_version' label with current version.",
           {{"server_version", std::string(kEtcdApiVersion)}});
  constant("etcd_cluster_version",
           "Which version is running. 1 for 'cluster_version' label with current cluster version.",
           {{"cluster_version", std::string(kEtcdClusterVersion)}});
  constant("holdfast_build_info", "1, with the version of this program.",
           {{"version", std::string(kVersion)}});
}

void ServerMetrics::RegisterFreshness(MetricsRegistry* registry) {
  registry->AddGauge("holdfast_age_seconds",
                     "How old this member's data can be at most; left out while that is not known.",
                     [member = member_]() -> std::optional<double> {
                       const std::optional<raft::Claim> claim = member.node->claim();
                       if (!claim.has_value()) return std::nullopt;
                       return absl::ToDoubleSeconds(claim->AgeAt(member.clock->Sample()));
                     });
}

void ServerMetrics::Register(MetricsRegistry* registry) {
  RegisterIdentity(registry);
  RegisterRaft(registry);
  RegisterFreshness(registry);
  RegisterStore(registry);
  RegisterParts(registry);
}

}  // namespace holdfast::server
