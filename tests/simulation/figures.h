// What happened in a batch of runs, so that one that tested nothing shows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::sim {

// Only counters, so that they can be added, and handed from process to process, as plain bytes.
// The last is a maximum, all others are sums.
struct Figures {
  uint64_t runs = 0, replayed = 0, events = 0;
  uint64_t simulated_ns = 0, member_ns = 0;  // of clusters; of members that were up
  // Raft.
  uint64_t elections = 0, leader_commits = 0, commits = 0, truncations = 0, applied = 0;
  uint64_t turns = 0, messages = 0, packets = 0, fetches = 0, compactions = 0, flushes = 0;
  // Clients.
  uint64_t operations = 0, writes_ok = 0, refused = 0, unknown = 0;
  uint64_t linearizable_reads = 0, follower_reads = 0, refused_reads = 0;
  uint64_t serializable_reads = 0, fresh_reads = 0, stale_answers = 0, failed_cas = 0;
  uint64_t claims = 0, claims_checked = 0, claims_restored = 0, leader_claims = 0;
  uint64_t histories = 0, histories_undecided = 0, unknown_seen = 0;
  // Membership.
  uint64_t changes_ok = 0, changes_refused = 0, changes_unknown = 0;
  uint64_t adds = 0, learner_adds = 0, removes = 0, promotes = 0, demotes = 0, updates = 0;
  uint64_t replaces = 0, configs = 0, joint_configs = 0, promotions = 0, joiners = 0, stopped = 0;
  uint64_t removed_still_running = 0, joiner_crashes = 0, deaths = 0;
  uint64_t transfers_ok = 0, transfers_failed = 0;
  // Snapshots.
  uint64_t snapshots_sent = 0, snapshots_installed = 0, snapshots_failed = 0, snapshots_late = 0;
  uint64_t half_installed = 0;
  // Faults.
  uint64_t crashes = 0, power_cuts = 0, restarts = 0, graceful_stops = 0, pauses = 0, suspends = 0;
  uint64_t cuts = 0, one_way_cuts = 0, flaps = 0, slow_links = 0;
  uint64_t lost = 0, duplicated = 0, reordered = 0, peer_lost = 0;
  uint64_t torn_writes = 0, disk_errors = 0, disk_stalls = 0, apply_stalls = 0, rotten = 0;
  uint64_t lost_hints = 0, lost_compactions = 0, drift_changes = 0, slow_tickers = 0;
  // The slowest; not a sum.
  uint64_t recovery_ms_max = 0;

  void Add(const Figures& other);
  std::string ToString(double real_seconds, double processor_seconds) const;
  // Names of those that are zero and must not be, after a batch of some hundred seeds.
  std::vector<std::string> Missing() const;
};

}  // namespace holdfast::sim
