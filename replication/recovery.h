// What a member starts from: its log and its state machine, made to fit each other.
//
// The two are written apart (a snapshot is installed in the data first, then the log is reset), so
// a crash can leave either half done. Facts about writing that the table rests on:
//   S1  the log has a membership in its mark before the node starts for the first time, and
//       nothing is applied or installed before that;
//   S2  an install is one atomic step of the data, which keeps the snapshot's mark; the log is
//   reset
//       behind it in one frame with the term; nothing is applied until that frame is durable;
//   S3  the log is compacted only up to what the data has flushed; an entry is applied only when it
//       is durable in the log (C4);
//   S4  a term is durable no later than the first entry of that term, a commit hint no sooner than
//       the entry it names.
//
// Decision table. "Installed" counts only above the log's mark (below it the log has moved on). The
// rows are tried in order, so that every input matches exactly one.
//
//   kFirstStart       log: no membership, no entries; data: at 0,
//                     nothing installed                             -> the bootstrap membership
//   kNoMembership     log: no membership, but entries (S1)          -> DataLoss
//   kLogLost          log: no membership; data: any (S1)            -> DataLoss: the vote is
//   forgotten kTermLost         an entry or the mark has a higher term than
//                     the hard state (S4)                           -> DataLoss: the vote is
//                     forgotten
//   kFinishInstall    installed; the log has not that entry (S2)    -> the log is reset to the mark
//   then, of the log as it is or as it is about to be:
//   kDataLost         applied < mark (S3)                           -> DataLoss: entries not
//   applied
//                                                                      and compacted away
//   kLogBehindData    applied > last (S3)                           -> DataLoss: entries forgotten
//   kCommittedLost    the commit hint > last (S4)                   -> DataLoss: entries forgotten
//   kFits             everything else                               -> as it is
//
// Every DataLoss carries a storage::Damage. What a member does about it: docs/recovery.md.
// Threads: one, before the node's own start.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/membership.h"
#include "replication/raft_core.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"

namespace holdfast::raft {

enum class StartRow {
  kFirstStart,
  kNoMembership,
  kLogLost,
  kTermLost,
  kFinishInstall,
  kDataLost,
  kLogBehindData,
  kCommittedLost,
  kFits,
};
std::string_view StartRowName(StartRow row);

struct StartPlan {
  StartRow row = StartRow::kFits;
  absl::Status status;            // not ok: the member must not start; the rest means nothing
  RaftCore::Recovered recovered;  // what the core starts from
  // To be appended to the log before that.
  std::optional<storage::LogBatch> fix;
};

// Pure. `bootstrap`: the first membership, used in kFirstStart only. `installed`: see
// StateMachine::installed_mark.
StartPlan PlanStart(const Membership& bootstrap, const storage::RecoveredLog& log, Index applied,
                    const std::optional<storage::LogMark>& installed);

// Carries the plan out on `log`. Errors: the plan's, or the log's.
absl::StatusOr<RaftCore::Recovered> Recover(const Membership& bootstrap, storage::LogStore* log,
                                            const StateMachine& machine);

// The membership in force at the end of the log. DataLoss: it does not decode.
absl::StatusOr<Membership> MembershipAtEnd(const RaftCore::Recovered& recovered);

// The last resort when a majority is lost for good: what to append so that `self` goes on alone
// with everything in its log. One batch, so one atomic frame: the next term; a membership of `self`
// alone, everybody else removed for good; then `payload`, a command that gives the state machine
// its new incarnation. Everything counts as committed, what the old cluster had not committed
// included: nobody is left who could tell the difference, and an entry that was acknowledged must
// not go. FailedPrecondition: `self` was removed from the cluster, or is alone in it already.
absl::StatusOr<storage::LogBatch> GoOnAlone(const RaftCore::Recovered& recovered, NodeId self,
                                            const std::vector<std::string>& peer_urls,
                                            std::string payload);

}  // namespace holdfast::raft
