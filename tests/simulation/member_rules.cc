// The rules about one member: what may change in it, what it may send, what it may claim.
#include <fmt/format.h>

#include "member.h"
#include "world.h"

namespace holdfast::sim {

using raft::Role;

void Member::Observe() {
  if (!up()) return;
  ObserveTerm();
  const Term reign = ObserveReign();
  const std::vector<storage::EntryRef> appended = NewEntriesOfReign(reign);
  ObserveCommit(reign, appended);
  if (!appended.empty() && world_.witness.ok()) {
    world_.witness.SawAppendOfLeader(reign, *core().log().TermAt(seen_last_), appended);
    seen_last_ = appended.back()->index;
  }
  ObserveDurable();
  ObserveMembership();
  seen_role_ = core().role();
  seen_term_ = core().term();
}

void Member::ObserveTerm() {
  const Term term = core().term();
  const auto broken = [&](const char* what) {
    world_.witness.Fail(fmt::format("member {}: {}", id_.value, what));
  };
  if (term < seen_term_) broken("its term fell");
  if (term == seen_term_ && seen_vote_ && core().vote() != seen_vote_) {
    broken("its vote changed within a term");
  }
  if (core().applied() < seen_applied_) broken("its applied index fell");
  if (core().applied() > core().commit()) broken("it applied beyond its commit index");
  if (core().applied() > machine_.applied()) broken("it takes for applied what is not");
  seen_vote_ = core().vote();
  seen_applied_ = core().applied();
}

// The term that it leads, or led in this turn: it may have been elected, have appended, committed
// and stepped down again, all in one.
Term Member::ObserveReign() {
  const bool leads_now = core().role() == Role::kLeader;
  if (seen_role_ == Role::kLeader) {
    if (leads_now && core().term() == seen_term_ && core().log().last() < seen_last_) {
      world_.witness.Fail("a leader cut its own log");
    }
    if (!leads_now || core().term() == seen_term_) return seen_term_;
  }
  const raft::CoreLog& log = core().log();
  const bool led_for_a_moment =
      !leads_now && world_.witness.ConfigAt(log.last(), log.last_term()) == nullptr;
  if (!leads_now && !led_for_a_moment) return Term(0);
  const Term reign = leads_now ? core().term() : log.last_term();
  world_.Trace(this, fmt::format("leads term {}", reign.value));
  // A vote request leaves only when everything before it is on disk, and a candidate's log does
  // not change: what the disk has not, the leader appended by itself.
  seen_last_ = disk_.last();
  world_.witness.SawLeader(id_, reign);
  return reign;
}

std::vector<storage::EntryRef> Member::NewEntriesOfReign(Term reign) const {
  const raft::CoreLog& log = core().log();
  if (!reign || log.last() <= seen_last_ || seen_last_ < log.mark_index()) return {};
  std::vector<storage::EntryRef> entries = log.Cached(seen_last_ + 1, log.last(), SIZE_MAX);
  std::erase_if(entries, [&](const storage::EntryRef& entry) { return entry->term != reign; });
  return entries;
}

void Member::ObserveCommit(Term reign, const std::vector<storage::EntryRef>& may_be_new) {
  const Index commit = core().commit();
  if (commit == seen_commit_) return;
  Witness& witness = world_.witness;
  if (commit < seen_commit_) {
    return witness.Fail(fmt::format("member {}: its commit index fell", id_.value));
  }
  const raft::CoreLog& log = core().log();
  if (commit > log.last()) {
    return witness.Fail(fmt::format("member {}: commits beyond its log", id_.value));
  }
  for (Index i = std::max(seen_commit_, log.mark_index()) + 1; i <= commit; ++i) {
    witness.SawCommitted(id_, i, *log.TermAt(i));
  }
  const bool by_leader = core().role() == Role::kLeader || (reign && commit > witness.acked());
  if (by_leader) {
    const auto term = log.TermAt(commit);
    if (!term) return witness.Fail("a leader committed what its log does not have");
    ++world_.figures.leader_commits;
    witness.SawLeaderCommit(id_, reign, commit, *term, may_be_new, world_.Instant());
  } else if (commit > log.mark_index() && commit > witness.acked()) {
    witness.Fail(fmt::format("member {} takes {} for committed before any leader did", id_.value,
                             commit.value));
  }
  seen_commit_ = commit;
}

void Member::ObserveDurable() {
  const raft::CoreLog& log = core().log();
  const Index durable = log.durable();
  if (durable == seen_durable_) return;
  seen_durable_ = durable;
  // The mark of a snapshot on its way to the log counts by itself: it was committed.
  if (durable <= log.mark_index()) return;
  if (disk_.Holds(durable, *log.TermAt(durable))) return;
  world_.witness.Fail(fmt::format("C3: member {} counts entry {} as durable, the disk has another",
                                  id_.value, durable.value));
}

// C8: whoever counts is told by the log alone.
void Member::ObserveMembership() {
  const raft::CoreLog& log = core().log();
  const Witness::Config* config = world_.witness.ConfigAt(log.last(), log.last_term());
  if (config != nullptr && config == seen_config_) return;
  seen_config_ = config;
  world_.witness.SawMembership(id_, log.last(), log.last_term(), core().membership());
}

// What others are shown is what the node knows, right after its turn.
void Member::CheckPublished() {
  const auto broken = [&](const char* what) {
    world_.witness.Fail(fmt::format("member {}: its status shows another {}", id_.value, what));
  };
  const raft::NodeStatus status = node_->status();
  if (status.id != id_) broken("member");
  if (status.role != core().role()) broken("role");
  if (status.term != core().term()) broken("term");
  if (status.leader != core().leader()) broken("leader");
  if (status.commit != core().commit()) broken("commit index");
  if (status.applied != core().applied()) broken("applied index");
  if (status.last != core().log().last()) broken("last index");
  if (!(*status.membership == core().membership())) broken("membership");
  if (status.is_learner != core().membership().learners.contains(id_)) broken("side");
  for (const raft::RaftNode::PeerStatus& peer : node_->peers()) {
    if (core().role() != Role::kLeader) return broken("role: it shows peers");
    if (!world_.Exists(peer.id) || peer.match <= core().log().mark_index()) continue;
    // Whoever has heard a later leader may have lost it again.
    const SimDisk& theirs = world_.member(peer.id).disk();
    if (theirs.hard_state().term > core().term()) continue;
    const auto term = core().log().TermAt(peer.match);
    if (!term) return broken("end of its log: a peer is said to match beyond it");
    if (!theirs.Holds(peer.match, *term)) {
      world_.witness.Fail(
          fmt::format("member {} takes {} for durable at member {}, whose disk "
                      "does not have it",
                      id_.value, peer.match.value, peer.id.value));
    }
  }
}

// ---------------------------------------------------------------- freshness

void Member::ObserveClaim() {
  if (!up()) return;
  const std::optional<raft::Claim> claim = node_->claim();
  if (!claim || claim->at.boot_ns == seen_claim_boot_ns_) return;
  ++world_.figures.claims;
  if (core().role() == Role::kLeader) ++world_.figures.leader_claims;
  if (claim->at.boot_ns < seen_claim_boot_ns_) {
    world_.witness.Fail(fmt::format("member {}: an older claim replaced a newer one", id_.value));
  }
  seen_claim_boot_ns_ = claim->at.boot_ns;
  if (claim->index > machine_.applied()) {
    world_.witness.Fail(
        fmt::format("freshness: member {} claims what it has not applied", id_.value));
  }
  CheckClaim(*claim, claim->index);
}

void Member::CheckClaim(const raft::Claim& claim, Index held) {
  ++world_.figures.claims_checked;
  const int64_t instant_ns =
      clock_->TrueTimeOf(claim.at.boot_ns) - absl::ToInt64Nanoseconds(claim.extra);
  const base::ClockSample now = clock_->Sample();
  const int64_t by_age_ns = world_.now_ns - absl::ToInt64Nanoseconds(claim.AgeAt(now));
  if (by_age_ns > instant_ns + SimClock::kInverseErrorNs) {
    world_.witness.Fail(fmt::format("freshness: at member {} an age is {} ns too small", id_.value,
                                    by_age_ns - instant_ns));
  }
  const Index needed =
      world_.witness.AckedBefore(std::max(instant_ns - SimClock::kInverseErrorNs, by_age_ns));
  if (needed <= held) return;
  world_.witness.Fail(
      fmt::format("freshness: member {} claims the state of {:.3f} ms with index {}, but {} was "
                  "acknowledged before",
                  id_.value, static_cast<double>(instant_ns) / 1e6, held.value, needed.value));
}

absl::Status Member::Write(const raft::Claim& claim) {
  // An installed snapshot is durable by itself, before the log follows.
  if (claim.index > std::max(disk_.last(), machine_.durable())) {
    world_.witness.Fail(
        fmt::format("Freshness F4: member {} keeps a claim about {}, which its "
                    "disk does not have",
                    id_.value, claim.index.value));
  }
  record_ = claim;
  return absl::OkStatus();
}

std::optional<raft::Claim> Member::Read() {
  if (record_) ++world_.figures.claims_restored;
  return record_;
}

// ---------------------------------------------------------------- what leaves

void Member::Send(std::vector<raft::Message> messages) {
  if (failed_) {
    return world_.witness.Fail(fmt::format("member {} sends after its disk failed", id_.value));
  }
  // What it says must be judged by what it knew when it said it.
  Observe();
  world_.network.Send(*this, std::move(messages));
}

void Member::SendSnapshot(SnapshotToSend snapshot, absl::AnyInvocable<void(absl::Status) &&> done) {
  ++world_.figures.snapshots_sent;
  world_.witness.SawMark(id_, snapshot.mark);
  world_.network.SendSnapshot(*this, std::move(snapshot), std::move(done));
}

}  // namespace holdfast::sim
