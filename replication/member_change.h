// What may be asked of a membership, one change at a time, and what it leads to (thesis 4).
//
// A value in, a value out: the leader computes the target from the membership in force, and the
// core takes the log there, through a joint configuration where more than one voter changes.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "replication/membership.h"

namespace holdfast::raft {

struct MemberChange {
  enum class Kind : uint8_t {
    kAdd,         // id, peer_urls: a learner, promoted by itself once it keeps up
    kAddLearner,  // id, peer_urls: a learner that stays one (a non-voting standby)
    kRemove,      // id: voter or learner
    kPromote,     // id: a learner that keeps up becomes a voter (else it is not ready)
    kDemote,      // id: a voter becomes a learner
    kUpdate,      // id, peer_urls
    kReplace,     // id, peer_urls, replaces: as kAdd, and the voter `replaces` leaves in the same
                  // step in which `id` begins to vote. The URLs may be those of `replaces`
  };
  Kind kind = Kind::kAdd;
  NodeId id;
  std::vector<std::string> peer_urls;
  NodeId replaces;
};

// The membership to reach; not joint. REQUIRES: !now.joint().
// Errors, each for one of etcd's:
//   AlreadyExists       id is a member, or was one
//   InvalidArgument     a peer URL is another member's, or there is none
//   NotFound            id (or `replaces`) is no member
//   FailedPrecondition  kPromote of a voter; kReplace or kDemote of a learner; the last voter would
//                       go
absl::StatusOr<Membership> TargetOf(const Membership& now, const MemberChange& change);

// What follows when the learners `ready` begin to vote, as `now.promotions` asks. Not joint.
Membership Promoted(const Membership& now, const std::vector<NodeId>& ready);

// The first step from `now` to `target` (both not joint): the joint configuration, or `target`
// itself where at most one voter comes or goes.
Membership FirstStep(const Membership& now, const Membership& target);
// The step that ends a joint configuration.
Membership LeaveJoint(const Membership& joint);

}  // namespace holdfast::raft
