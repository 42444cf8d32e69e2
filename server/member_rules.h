// What may be done to the members, in etcd's words: the leader's checks before it changes anything.
//
// Pure functions. raft::TargetOf checks what must hold for the log's sake; here is what etcd
// answers, and what keeps an operator from cutting off the branch he sits on (etcd:
// --strict-reconfig-check). Adding a voter is never refused for the health of the cluster, as etcd
// does it: here it begins as a learner and gets the vote only once it keeps up, so it always adds
// to the active quorum.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/member_change.h"
#include "replication/membership.h"

namespace holdfast::server {

// Limits: Config::kVotersMax of those that vote or will, Config::kMembersMax of all together.
// `active`: who answers the leader, itself included.
//   ErrMemberNotFound, ErrMemberExist, ErrPeerUrlExist, ErrMemberNotLearner, ErrTooManyLearners;
//   ErrMemberNotEnoughStarted   the last voter would go
//   ErrUnhealthy                the voters left over would have no active majority
//   FailedPrecondition with an own text for what etcd does not have
absl::Status CheckChange(const raft::Membership& now, const raft::MemberChange& change,
                         const std::set<NodeId>& active);

// The peer URLs of a request, as etcd keeps them: sorted. ErrMemberBadUrls.
absl::StatusOr<std::vector<std::string>> CheckedPeerUrls(const std::vector<std::string>& urls);

// True once `membership` shows what `change` asked for.
bool Shows(const raft::Membership& membership, const raft::MemberChange& change);

}  // namespace holdfast::server
