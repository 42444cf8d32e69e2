// The leader's half of membership changes (thesis 4) and of leadership transfer (thesis 3.10).
#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/strings.h"
#include "replication/member_change.h"
#include "replication/raft_core.h"

namespace holdfast::raft {

Index RaftCore::newest_config() const {
  return config_entries_.empty() ? log_.mark_index() : config_entries_.rbegin()->first;
}

bool RaftCore::membership_settled() const {
  return !membership_.joint() && newest_config() <= commit_;
}

Membership RaftCore::Reachable() const {
  Membership all = membership_;
  const auto add = [&all](const Membership& m) {
    for (const NodeId id : m.All()) {
      if (all.Contains(id)) continue;
      all.learners.insert(id);
      if (const auto urls = m.peer_urls.find(id); urls != m.peer_urls.end()) {
        all.peer_urls[id] = urls->second;
      }
    }
  };
  const Membership& committed = MembershipAt(commit_);
  add(committed);
  for (auto it = config_entries_.upper_bound(commit_); it != config_entries_.end(); ++it) {
    add(it->second);
  }
  all.removed = committed.removed;
  return all;
}

absl::StatusOr<Index> RaftCore::ProposeMembers(const Membership& target) {
  CHECK(!target.joint() && !target.voters.empty());
  if (role_ != Role::kLeader) return absl::UnavailableError("this member does not lead");
  if (transfer_to_) return absl::UnavailableError("leadership is being handed over");
  // Without this, two leaders that each change one voter could commit with majorities that do not
  // meet (the correction to thesis 4.1).
  if (!own_term_committed()) {
    return absl::UnavailableError("the leader has not committed anything of its term yet");
  }
  if (!membership_settled()) {
    return absl::FailedPreconditionError("another membership change is under way");
  }
  AppendMembership(FirstStep(membership_, target));
  return log_.last();
}

void RaftCore::AppendMembership(const Membership& next) {
  auto entry = std::make_shared<storage::Entry>();
  entry->term = hard_state_.term;
  entry->index = log_.last() + 1;
  entry->type = EntryType::kConfig;
  entry->payload = next.Encode();
  AppendAsLeader({std::move(entry)});
}

// After every step of the commit index: what the membership in force still asks of its leader.
void RaftCore::AdvanceMembership() {
  if (!own_term_committed() || newest_config() > commit_) return;
  // Thesis 4.3: once the joint configuration is committed its leader, whoever that is, ends it.
  if (membership_.joint()) return AppendMembership(LeaveJoint(membership_));
  if (!membership_.IsVoter(options_.id)) StepDownAsRemoved();
}

// Thesis 4.2.2: we led, uncounted, until the configuration without us was committed. Whoever has
// all of it takes over at once instead of after an election timeout.
void RaftCore::StepDownAsRemoved() {
  NodeId best;
  Index best_match;
  for (const auto& [peer, p] : progress_) {
    if (!membership_.IsVoter(peer) || p.match_index < best_match) continue;
    best = peer;
    best_match = p.match_index;
  }
  // Whom the operator named goes before whoever has a little more.
  const auto wished = progress_.find(transfer_to_);
  if (wished != progress_.end() && wished->second.match_index >= newest_config())
    best = transfer_to_;
  if (best) Send(Make(MessageType::kTimeoutNow, best));
  BecomeFollower(hard_state_.term, NodeId(0));
}

bool RaftCore::KeepsUp(NodeId learner) const {
  const auto it = progress_.find(learner);
  if (it == progress_.end()) return false;
  const Progress& p = it->second;
  return p.keeps_up && p.state == ProgressState::kReplicate &&
         p.silent_ticks < options_.election_ticks;
}

// Once a heartbeat. Thesis 4.2.1: a round lasts until the learner has what was the end of the log
// when the round began; one shorter than an election timeout says that it will not hold up commits.
void RaftCore::TickLearners() {
  for (const NodeId learner : membership_.learners) {
    const auto it = progress_.find(learner);
    if (it == progress_.end()) continue;
    Progress& p = it->second;
    p.catch_up_ticks += options_.heartbeat_ticks;
    const bool behind = p.match_index < p.catch_up_target;
    if (behind || p.state != ProgressState::kReplicate) {
      if (p.catch_up_ticks >= options_.election_ticks) p.keeps_up = false;
      if (p.catch_up_target) continue;
    } else {
      p.keeps_up = p.catch_up_target && p.catch_up_ticks < options_.election_ticks;
    }
    p.catch_up_target = log_.last();
    p.catch_up_ticks = 0;
  }
  PromoteLearners();
}

void RaftCore::PromoteLearners() {
  if (membership_.promotions.empty() || transfer_to_ || !own_term_committed() ||
      !membership_settled()) {
    return;
  }
  std::vector<NodeId> ready;
  for (const auto& [learner, replaces] : membership_.promotions) {
    if (membership_.learners.contains(learner) && KeepsUp(learner)) ready.push_back(learner);
  }
  if (!ready.empty()) AppendMembership(FirstStep(membership_, Promoted(membership_, ready)));
}

// ---------------------------------------------------------------- transfer

absl::Status RaftCore::TransferLeadership(NodeId to) {
  if (role_ != Role::kLeader) return absl::UnavailableError("this member does not lead");
  if (to == options_.id || (transfer_to_ && transfer_to_ == to)) return absl::OkStatus();
  if (transfer_to_) {
    return absl::FailedPreconditionError("leadership is being handed to another member");
  }
  if (!membership_.voters.contains(to)) {
    return absl::NotFoundError(base::ToAbsl(fmt::format("member {:x} is no voter", to.value)));
  }
  if (progress_.at(to).silent_ticks >= options_.election_ticks) {
    return absl::UnavailableError(
        base::ToAbsl(fmt::format("member {:x} is not heard from", to.value)));
  }
  transfer_to_ = to;
  transfer_elapsed_ = 0;
  MaybeSendTimeoutNow();
  return absl::OkStatus();
}

// The target must have everything, or it could not win; and no step of a membership change may be
// about to make it miss something.
void RaftCore::MaybeSendTimeoutNow() {
  if (!transfer_to_ || !membership_settled()) return;
  if (progress_.at(transfer_to_).match_index < log_.last()) return;
  Send(Make(MessageType::kTimeoutNow, transfer_to_));
}

void RaftCore::TickTransfer() {
  if (!transfer_to_) return;
  if (++transfer_elapsed_ >= options_.election_ticks) {
    transfer_to_ = NodeId(0);  // it did not take over: we go on
    return;
  }
  // The word may have been lost.
  if (transfer_elapsed_ % options_.heartbeat_ticks == 0) MaybeSendTimeoutNow();
}

void RaftCore::StepTimeoutNow(const Message& m) {
  // From the leader we follow, in its term; anything else is late.
  if (role_ != Role::kFollower || m.from != leader_ || !Promotable()) return;
  BecomeCandidate(/*forced=*/true);
}

}  // namespace holdfast::raft
