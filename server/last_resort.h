// --force-new-cluster: a majority is lost for good, and this member goes on alone with what it has.
//
// One frame is appended to its log (raft::GoOnAlone): the next term, a membership of itself alone,
// and a ClusterBirth that replaces the incarnation. So a crash leaves the old cluster or the new
// one, and nothing between. The cluster id and the member's own id stay; the others' ids are
// removed for good, and members of the old incarnation are refused when they come back
// (peer_transport.h).
//
// DIR/forced-new-cluster says that it was done: the flag may stay on by mistake, it is carried out
// once. A start without the flag removes the file, so that it can be used again another day.
// It is refused while another member answers: then the majority is not known to be lost, or there
// is more than one survivor, which must not both go on. etcd does not look; but the check costs two
// seconds, and there is no need for a way around it: stop the one that answers.
//
// Threads: one, at start, before the node's.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config.h"
#include "server/identity.h"
#include "server/state_machine.h"
#include "storage/log_store.h"

namespace holdfast::server {

// REQUIRES: config.force_new_cluster; nothing was appended to `log` since it was opened. True:
// `log` was appended to and must be opened again. False: it was done before, or there is nothing to
// do. FailedPrecondition: another member answers, or this one was removed from the cluster.
// DataLoss: log and data do not fit each other.
absl::StatusOr<bool> ForceNewCluster(const Config& config, const Identity& self,
                                     storage::LogStore* log, const KvStateMachine& machine);

// Of a start without the flag.
void ForgetForcedNewCluster(const std::string& data_dir);

// The incarnation that `machine` will have once it has applied all of `log`: births may lie in the
// part that it has not applied yet.
absl::StatusOr<uint64_t> IncarnationAtEnd(const storage::LogStore& log,
                                          const KvStateMachine& machine);

}  // namespace holdfast::server
