#include "replication/member_queue.h"

#include <fmt/format.h>

#include <utility>

#include "base/strings.h"

namespace holdfast::raft {
namespace {

absl::Status Precondition(std::string_view begins, std::string_view goes_on) {
  return absl::FailedPreconditionError(base::ToAbsl(fmt::format("{}{}", begins, goes_on)));
}

absl::Status NotLeader(const RaftCore& core) {
  return Precondition(RaftNode::kNotLeaderText,
                      core.leader() ? fmt::format("; member {:x} does", core.leader().value)
                                    : std::string("; nobody does at the moment"));
}

absl::Status Unknown(std::string_view why) {
  return absl::DeadlineExceededError(base::ToAbsl(
      fmt::format("{}: whether the membership was changed is unknown; list the members", why)));
}

// The voter that would take over with the least delay; 0: nobody is there to do it.
NodeId BestSuccessor(const RaftCore& core) {
  NodeId best;
  Index best_match;
  uint32_t best_silence = 0;
  for (const auto& [peer, p] : core.progress()) {
    if (!core.membership().voters.contains(peer) || p.state != ProgressState::kReplicate ||
        p.silent_ticks >= core.options().election_ticks) {
      continue;
    }
    const bool better = !best || p.match_index > best_match ||
                        (p.match_index == best_match && p.silent_ticks < best_silence);
    if (!better) continue;
    best = peer;
    best_match = p.match_index;
    best_silence = p.silent_ticks;
  }
  return best;
}

// The change could never be committed, and nobody be elected, if most of those that are left were
// silent: `target` counts from the moment it is appended (etcd's --strict-reconfig-check).
absl::Status CheckQuorumOf(const Membership& target, const RaftCore& core) {
  std::map<NodeId, bool> active{{core.id(), true}};
  for (const auto& [peer, p] : core.progress()) {
    active[peer] = p.silent_ticks < core.options().election_ticks;
  }
  if (CountVotes(target, active) == VoteOutcome::kWon) return absl::OkStatus();
  return Precondition(RaftNode::kUnhealthyText,
                      ": most of the voters that would be left do not answer; bring them back, or "
                      "replace or remove the silent ones first");
}

}  // namespace

void MemberQueue::Change(RaftCore& core, const MemberChange& change, int64_t deadline_ns,
                         RaftNode::ChangeDone done) {
  const auto refuse = [&done](const absl::Status& why) { std::move(done)(why); };
  if (core.role() != Role::kLeader) return refuse(NotLeader(core));
  if (changing_.size() >= kMaxWaiters) {
    return refuse(absl::ResourceExhaustedError("too many membership changes wait"));
  }
  if (!core.membership_settled()) return refuse(Precondition(RaftNode::kChangePendingText, ""));
  const auto target = TargetOf(core.membership(), change);
  if (!target.ok()) return refuse(target.status());
  if (change.kind == MemberChange::Kind::kPromote && !core.KeepsUp(change.id)) {
    return refuse(Precondition(RaftNode::kNotReadyText, "; let it catch up, and try again"));
  }
  if (change.kind == MemberChange::Kind::kRemove || change.kind == MemberChange::Kind::kDemote) {
    const absl::Status enough = CheckQuorumOf(*target, core);
    if (!enough.ok()) return refuse(enough);
  }
  const auto index = core.ProposeMembers(*target);
  if (!index.ok()) return refuse(index.status());
  changing_.push_back({core.term(), *index, deadline_ns, false, std::move(done)});
}

void MemberQueue::Transfer(RaftCore& core, NodeId to, int64_t deadline_ns,
                           RaftNode::TransferDone done) {
  if (core.role() != Role::kLeader) return std::move(done)(NotLeader(core));
  if (transferring_.size() >= kMaxWaiters) {
    return std::move(done)(absl::ResourceExhaustedError("too many transfers wait"));
  }
  if (!to) to = BestSuccessor(core);
  if (!to) return std::move(done)(absl::UnavailableError("no other voter is up to date"));
  const absl::Status begun = core.TransferLeadership(to);
  if (!begun.ok()) return std::move(done)(begun);
  transferring_.push_back({core.term(), to, deadline_ns, std::move(done)});
}

bool MemberQueue::Tell(const RaftCore& core, int64_t now_ns, Changing& waiter) {
  // Seen before the log can be cut behind it: a snapshot from another leader moves the mark too,
  // and says nothing about our entry.
  const bool ours = core.log().TermAt(waiter.index) == waiter.term;
  waiter.committed = waiter.committed || (ours && waiter.index <= core.commit());
  if (waiter.committed && core.membership_settled()) {
    std::move(waiter.done)(core.membership());
  } else if (!waiter.committed && !ours) {
    // Another leader's entry took its place here; a third leader might still have it.
    std::move(waiter.done)(Unknown("leadership was lost"));
  } else if (now_ns >= waiter.deadline_ns) {
    std::move(waiter.done)(Unknown("the change took too long"));
  } else {
    return false;
  }
  return true;
}

bool MemberQueue::Tell(const RaftCore& core, int64_t now_ns, Transferring& waiter) {
  const bool given_up = core.term() == waiter.term && core.role() == Role::kLeader &&
                        core.transferring_to() != waiter.to && core.id() != waiter.to;
  if (core.leader() == waiter.to) {
    std::move(waiter.done)(absl::OkStatus());
  } else if (given_up || now_ns >= waiter.deadline_ns) {
    std::move(waiter.done)(absl::DeadlineExceededError(
        base::ToAbsl(fmt::format("member {:x} did not take over in time; member {:x} leads",
                                 waiter.to.value, core.leader().value))));
  } else if (core.leader() && core.term() > waiter.term) {
    std::move(waiter.done)(absl::DeadlineExceededError(
        base::ToAbsl(fmt::format("member {:x} took over instead", core.leader().value))));
  } else {
    return false;
  }
  return true;
}

void MemberQueue::Offer(const RaftCore& core, int64_t now_ns) {
  std::erase_if(changing_, [&](Changing& waiter) { return Tell(core, now_ns, waiter); });
  std::erase_if(transferring_, [&](Transferring& waiter) { return Tell(core, now_ns, waiter); });
}

void MemberQueue::RefuseAll() {
  for (Changing& waiter : std::exchange(changing_, {})) {
    std::move(waiter.done)(Unknown("this member is stopping"));
  }
  for (Transferring& waiter : std::exchange(transferring_, {})) {
    std::move(waiter.done)(absl::DeadlineExceededError("this member is stopping"));
  }
}

}  // namespace holdfast::raft
