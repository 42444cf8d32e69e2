// How a member without data finds out who it is.
//
// --initial-cluster-state=existing: somebody has said `member add` (or `member replace`), so the
// cluster knows a learner at our peer URLs that has never started. The members named in
// --initial-cluster are asked, and we are that one; its id is written to our data directory, and
// counts from then on.
// --initial-cluster-state=new: the ids come from the flags. But a member that lost its disk looks
// just like one that never started, and must not come back under its old id: it may have voted, and
// acknowledged. So the others are asked here too, once; whoever is not up yet does not matter, for
// they compare the disk id (peer_transport.h) when they meet us.
//
// Threads: one, at start; asks each peer on a thread of its own.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/membership.h"
#include "server/config.h"
#include "server/identity.h"
#include "server/state_machine.h"

namespace holdfast::server {

// What one member says of the cluster.
struct ClusterView {
  uint64_t cluster_id = 0;
  NodeId teller;
  uint64_t incarnation = 0;  // 0: not known there
  raft::Membership membership;
  std::map<NodeId, MemberAttributes> published;
  bool linearizable = false;  // else that member's own view, which may be old
};

struct JoinTimes {
  absl::Duration ask = absl::Seconds(2);           // for one answer
  absl::Duration retry = absl::Milliseconds(500);  // between rounds
  absl::Duration give_up = absl::Seconds(30);      // of joining
};

// Asks the member at `url` about the cluster, and about `about` in particular (0: nobody).
// Unavailable: no answer in time.
absl::StatusOr<ClusterView> AskPeer(const std::string& url, NodeId about, absl::Duration timeout);

// REQUIRES: config is valid, its state is existing, and there is no data directory. Blocks until
// the others have answered, at most times.give_up. FailedPrecondition: they do not know us, or not
// as one that may start here; the text says what to do. Unavailable: nobody answers.
absl::StatusOr<Identity> Join(const Config& config, const JoinTimes& times = {});

// REQUIRES: config is valid, its state is new, there is no data directory, `identity` is ours.
// FailedPrecondition: the cluster runs already, and this member was part of it, or is not any more;
// or the others are a different cluster.
absl::Status CheckNeverStarted(const Config& config, const Identity& identity,
                               const JoinTimes& times = {});

// The decisions of the two, for tests. Pure.
//   NotFound: the view has no member at our URLs; if it is old, a newer one may have
absl::StatusOr<Identity> IdentityIn(const ClusterView& view, const Config& config);
absl::Status CheckNeverStartedIn(const ClusterView& view, const Config& config,
                                 const Identity& identity);

}  // namespace holdfast::server
