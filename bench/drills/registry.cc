// The list of all drills; each is in a file of its own.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "bench/drills/all.h"
#include "bench/drills/drill_run.h"

namespace holdfast::bench {

const std::vector<DrillEntry>& AllDrills() {
  static const auto& drills = *new std::vector<DrillEntry>{
      {1, "leader-killed", "the leader is killed under load", LeaderKilled},
      {2, "quorum-lost", "two of three members are killed", QuorumLost},
      {3, "all-gone", "every server is gone", AllGone},
      {4, "cold-start", "the service restarts while every server is gone", ColdStart},
      {5, "reboot", "the copy on disk is from before a reboot", Reboot},
      {6, "deposed-leader", "a reader is left with a deposed leader while others write on",
       DeposedLeader},
      {7, "paused", "follower, leader and client are stopped and go on", Paused},
      {8, "bad-config", "bad values: unparsable, grown, emptied, and one that crashes the service",
       BadConfig},
      {9, "revoked", "a user is revoked, and the network is cut before the news arrives", Revoked},
      {10, "herd", "many clients come back at once", Herd},
      {11, "half-open", "connections that stand and carry nothing", HalfOpen},
      {12, "unavailable", "servers answer UNAVAILABLE to everything", AlwaysUnavailable},
      {13, "restore", "the store is restored from a backup: revisions go back", Restore},
      {14, "disk-damage", "the copy on disk is damaged in every way", DiskDamage},
      {15, "fork", "a cloned process writes on under its twin's session", Fork},
      {0, "june-12", "12 June 2025: the store is away for 2 h 36 min", June12},
      {0, "november-18", "18 November 2025: a poisoned file every five minutes", November18},
  };
  return drills;
}

absl::StatusOr<std::vector<const DrillEntry*>> DrillsNamed(const std::vector<std::string>& names) {
  std::set<const DrillEntry*> wanted;
  for (const std::string& name : names) {
    bool found = false;
    for (const DrillEntry& entry : AllDrills()) {
      if (name != "all" && name != entry.name &&
          (entry.number == 0 || name != fmt::to_string(entry.number))) {
        continue;
      }
      wanted.insert(&entry);
      found = true;
    }
    if (!found) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is no drill; 'holdfast-bench drill list' tells them", name));
    }
  }
  std::vector<const DrillEntry*> in_order(wanted.begin(), wanted.end());
  std::ranges::sort(in_order);  // they lie in one array
  return in_order;
}

}  // namespace holdfast::bench
