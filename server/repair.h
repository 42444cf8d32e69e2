// A member whose log or data is damaged, or gone, is replaced by itself under a new id.
//
// It may have promised what it does not remember: a vote, an acknowledgement. So it never votes or
// acknowledges under its old id again. The others put a new id in its place (as `holdfastctl member
// replace` does); under that one it begins as a learner without a past, gets a copy of the leader's
// data, and is promoted by itself. Why so, and what it costs:
// docs/decisions/006-repair-by-replacement.md.
//
//   DIR/damage         what is damaged; written by whoever noticed it, also by a dying process, so
//                      that no later start can overlook it because the disk reads once more
//   DIR/repair.json    how far the repair has come
//   DIR/damaged-TIME/  what was moved aside; the newest kAsideKept stay, older ones are removed
//
// Each step is durable before the next begins, and every start goes on where the last one stopped:
//   1 planned   a new id is drawn: repair.json
//   2 asked     the leader puts the new id in the old one's place. So long as it has not agreed,
//               nothing is moved: without a quorum of the others everything stays as it was
//   3 accepted  repair.json holds the membership agreed on and the name of the directory aside
//   4 aside     everything but LOCK and repair.json goes there, one rename after the other
//   5 born      member.json of the new id, in an empty directory; repair.json goes
//
// Threads: one, at start, before anything is opened.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/member_change.h"
#include "server/config.h"
#include "server/identity.h"
#include "server/join.h"
#include "storage/damage.h"

namespace holdfast::server {

inline constexpr size_t kAsideKept = 3;
// More than this within kRepairWindow, and the disk or the program is at fault, not a single bit:
// the member stays down for somebody to look at it.
inline constexpr size_t kRepairsMax = 3;
inline constexpr absl::Duration kRepairWindow = absl::Hours(1);

// --- the marker ---

// Best effort: the process may be dying of the same disk.
absl::Status WriteDamageMarker(const std::string& data_dir, const storage::Damage& damage);
// What the marker says; a marker that cannot be read is damage of an unknown place.
std::optional<storage::Damage> ReadDamageMarker(const std::string& data_dir);

// --- the plan ---

struct RepairPlan {
  uint64_t cluster_id = 0;
  NodeId old_id;
  NodeId new_id;
  // What the new id is to be; known once the cluster has told what the old one was.
  std::optional<raft::MemberChange::Kind> kind;
  NodeId replaces;
  bool accepted = false;
  std::string membership;  // Encode()d, once accepted
  std::string aside;       // name below the data directory, once accepted

  friend bool operator==(const RepairPlan&, const RepairPlan&) = default;
};

// nullopt: no repair is under way. DataLoss: repair.json cannot be read.
absl::StatusOr<std::optional<RepairPlan>> ReadRepairPlan(const std::string& data_dir);

// What a plan and an up-to-date view of the cluster lead to. Pure.
struct RepairStep {
  RepairPlan plan;                           // to be made durable before `change` is asked for
  std::optional<raft::MemberChange> change;  // nullopt: the new id is in, go on with step 3
};
// `urls`: where the new id will be. FailedPrecondition: it cannot be done, the text says why and
// what else to do. Unavailable: not now.
absl::StatusOr<RepairStep> NextStep(const RepairPlan& plan, const ClusterView& view,
                                    const std::vector<std::string>& urls);

// --- the repair ---

struct RepairTimes {
  absl::Duration ask = absl::Seconds(2);           // for one answer
  absl::Duration change = absl::Seconds(7);        // for one change
  absl::Duration retry = absl::Milliseconds(500);  // between rounds
  // The others may be starting too, after a power cut.
  absl::Duration give_up = absl::Seconds(60);
};

// Who a member without data was: the one that has started before at our URLs, say the members named
// in --initial-cluster. FailedPrecondition: they know none. Unavailable: none of them answers.
absl::StatusOr<Identity> FormerIdentity(const Config& config, const RepairTimes& times = {});

// Repairs the member `self`, or goes on repairing it; on OK the data directory is that of a new
// member. REQUIRES: no process has the data directory open; `self` is what it says, or would.
// With config.repair == kManual nothing is asked for; but if an operator has put a new member at
// our URLs in the old one's place, it is taken up. Errors: FailedPrecondition and Unavailable with
// a text for the operator (nothing was moved, the next start goes on), and those of the file
// system.
absl::Status RepairMember(const Config& config, const Identity& self,
                          const std::optional<storage::Damage>& damage,
                          const RepairTimes& times = {});

}  // namespace holdfast::server
