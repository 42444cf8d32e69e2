// The rules about one node: what may change, what may leave, what it may claim.
#include <fmt/format.h>

#include <cstdio>

#include "cluster.h"

namespace holdfast::raft::test {

void Cluster::Trace(const Node& node, const std::string& what) {
  if (!trace_) return;
  fmt::print(stderr, "{:>9.3f} ms node {}", static_cast<double>(now_ns_) / 1e6, node.id.value);
  if (node.core) {
    const RaftCore& core = *node.core;
    fmt::print(stderr, " [{} t{} lead {} last {} dur {} commit {} applied {}]",
               RoleName(core.role()), core.term().value, core.leader().value,
               core.log().last().value, core.durable().value, core.commit().value,
               core.applied().value);
  }
  fmt::print(stderr, " {}\n", what);
}

void Cluster::Observe(Node& node) {
  const RaftCore& core = *node.core;
  const Term term = core.term();
  if (term < node.seen_term) witness_.Fail(fmt::format("node {}: term fell", node.id.value));
  if (term == node.seen_term && node.seen_vote && core.vote() != node.seen_vote) {
    witness_.Fail(fmt::format("node {}: vote changed in term {}", node.id.value, term.value));
  }
  if (core.applied() < node.seen_applied) {
    witness_.Fail(fmt::format("node {}: applied fell", node.id.value));
  }
  if (core.applied() > core.commit()) {
    witness_.Fail(fmt::format("node {}: applied beyond commit", node.id.value));
  }
  const bool same_reign =
      node.seen_role == Role::kLeader && core.role() == Role::kLeader && node.seen_term == term;
  if (same_reign && core.log().last() < node.seen_last) {
    witness_.Fail(fmt::format("node {}: a leader cut its own log", node.id.value));
  }
  if (core.role() == Role::kLeader && !same_reign) {
    Trace(node, "leads");
    witness_.SawLeader(node.id, term, [&](Index index, Term entry_term) {
      return index <= core.log().mark_index() || core.log().Matches(index, entry_term);
    });
  }
  ObserveCommit(node);
  node.seen_term = term;
  node.seen_vote = core.vote();
  node.seen_applied = core.applied();
  node.seen_role = core.role();
  node.seen_last = core.log().last();
}

void Cluster::ObserveCommit(Node& node) {
  const RaftCore& core = *node.core;
  const Index commit = core.commit();
  if (commit < node.seen_commit) {
    return witness_.Fail(fmt::format("node {}: commit fell", node.id.value));
  }
  if (commit == node.seen_commit) return;
  if (commit > core.log().last()) {
    return witness_.Fail(fmt::format("node {}: commit beyond its log", node.id.value));
  }
  for (Index i = std::max(node.seen_commit, core.log().mark_index()) + 1; i <= commit; ++i) {
    witness_.SawCommitted(i, *core.log().TermAt(i));
  }
  node.seen_commit = commit;
  if (core.role() == Role::kLeader) {
    const auto term = core.log().TermAt(commit);
    if (!term) return witness_.Fail("a leader committed what its log does not have");
    witness_.SawLeaderCommit(core.term(), commit, *term, disks_, Instant());
  }
}

void Cluster::CheckReady(Node& node, const Ready& ready) {
  const RaftCore& core = *node.core;
  Index expected = node.handed_to_apply;
  for (const EntryRef& entry : ready.apply) {
    expected = expected + 1;
    if (entry->index != expected) {
      return witness_.Fail(fmt::format("node {}: apply got {} instead of {}", node.id.value,
                                       entry->index.value, expected.value));
    }
    if (entry->index > core.commit()) {
      return witness_.Fail(fmt::format("C4: node {} applies {} beyond its commit {}", node.id.value,
                                       entry->index.value, core.commit().value));
    }
    if (!node.disk->Holds(entry->index, entry->term)) {
      return witness_.Fail(fmt::format("C4: node {} applies {} before its disk has it",
                                       node.id.value, entry->index.value));
    }
  }
  node.handed_to_apply = expected;
  const AppendBatch& append = ready.append;
  if (append.log.reset) {
    if (append.log.reset->index <= expected) {
      return witness_.Fail("a snapshot was installed that is behind what was applied");
    }
    if (append.snapshot_dir.empty()) return witness_.Fail("a reset without its snapshot");
    node.handed_to_apply = append.log.reset->index;
  }
  if (append.empty()) return;
  if (append.seq <= node.last_seq) witness_.Fail("C3: batch numbers must rise");
  node.last_seq = append.seq;
}

// C1: what a message reveals must be on the disk of its sender.
void Cluster::CheckMayLeave(const Node& node, const Message& m) {
  const storage::HardState& disk = node.disk->hard_state();
  const auto broken = [&](const char* what) {
    witness_.Fail(fmt::format("C1: node {} sent {} of term {} with term {} vote {} last {} on disk",
                              node.id.value, what, m.term.value, disk.term.value, disk.vote.value,
                              node.disk->last().value));
  };
  const auto voted = [&](NodeId candidate) {
    return disk.term > m.term || (disk.term == m.term && disk.vote == candidate);
  };
  switch (m.type) {
    case MessageType::kVote:
      if (!m.pre_vote && !voted(node.id)) broken("a vote request");
      break;
    case MessageType::kVoteReply:
      if (m.pre_vote || m.reject) break;
      if (!voted(m.to)) return broken("a vote");
      // A later term on disk keeps the vote as well as the vote itself would.
      witness_.SawDurableVote(node.id, m.term, m.to);
      break;
    case MessageType::kAppend:
    case MessageType::kHeartbeat:
      if (disk.term < m.term) broken("an append or a heartbeat");
      break;
    case MessageType::kAppendReply: {
      if (m.reject || disk.term > m.term) break;
      if (disk.term < m.term || node.disk->last() < m.match_index) return broken("an append reply");
      // The leader it goes to has the entry that is acknowledged, if it still leads.
      const Node& leader = nodes_.at(m.to);
      if (!leader.up || leader.core->role() != Role::kLeader || leader.core->term() != m.term)
        break;
      const auto term = leader.core->log().TermAt(m.match_index);
      if (term && !node.disk->Holds(m.match_index, *term)) broken("a wrong append reply");
      break;
    }
    default:
      break;
  }
}

void Cluster::CheckClaim(Node& node) {
  const auto& claim = node.tracker->claim();
  if (!claim) return;
  ++figures_.claims_checked;
  const bool fresh = !node.seen_claim || node.seen_claim->at.boot_ns != claim->at.boot_ns;
  if (fresh) ++figures_.claims;
  if (fresh && node.seen_claim && claim->at.boot_ns < node.seen_claim->at.boot_ns) {
    witness_.Fail(fmt::format("node {}: a claim was replaced by an older one", node.id.value));
  }
  node.seen_claim = claim;
  if (claim->index > node.machine.applied) {
    return witness_.Fail("a claim stands on what is not applied");
  }
  CheckClaimCovers(node, *claim, claim->index);
  // F3, for a stream that is behind.
  const Index delivered(rng_.Below(node.machine.applied.value + 1));
  if (const auto pair = node.tracker->ClaimFor(delivered)) {
    if (pair->index > delivered) return witness_.Fail("F3: a pair beyond what was delivered");
    CheckClaimCovers(node, *pair, delivered);
  }
}

// Freshness 1: `held` is at or beyond every write acknowledged before the claim's instant, and
// before now minus its age.
void Cluster::CheckClaimCovers(Node& node, const Claim& claim, Index held) {
  const int64_t instant = node.clock->TrueTime(claim.at) - absl::ToInt64Nanoseconds(claim.extra);
  const base::ClockSample now = Sample(node);
  const int64_t by_age = now_ns_ - absl::ToInt64Nanoseconds(claim.AgeAt(now));
  if (by_age > instant) {
    witness_.Fail(
        fmt::format("node {}: an age is {} ns too small", node.id.value, by_age - instant));
  }
  const Index needed = witness_.AckedBefore(std::max(instant, by_age));
  if (needed > held) {
    witness_.Fail(
        fmt::format("freshness: node {} claims {:.3f} ms with index {}, but {} was "
                    "acknowledged before it",
                    node.id.value, static_cast<double>(instant) / 1e6, held.value, needed.value));
  }
}

}  // namespace holdfast::raft::test
