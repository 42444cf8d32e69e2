#include "witness.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "sim_disk.h"
#include "sim_machine.h"

namespace holdfast::sim {

using raft::Membership;
using storage::EntryRef;
using storage::EntryType;

template <class Has>
bool Witness::Majority(const Membership& membership, Has has) {
  for (const std::set<NodeId>* half : {&membership.voters, &membership.voters_outgoing}) {
    size_t count = 0;
    for (const NodeId id : *half) count += has(id) ? 1 : 0;
    if (!half->empty() && 2 * count <= half->size()) return false;
  }
  return true;
}

Witness::Witness(const Membership& first) {
  configs_.push_back({Index(0), Term(0), first});
  committed_configs_.push_back(&configs_.front());
  entries_.resize(1);
  entries_[0].push_back({Term(0), Term(0), nullptr, &configs_.front()});
}

void Witness::AddDisk(NodeId member, const SimDisk* disk, const Membership& bootstrap) {
  if (disks_.size() <= member.value) disks_.resize(member.value + 1);
  disks_[member.value] = disk;
  const Config& now = committed_config();
  if (now.index.value > 0) bootstraps_[member] = {now.index, now.term, bootstrap};
}

const Witness::Known* Witness::Find(Index index, Term term) const {
  if (index.value >= entries_.size()) return nullptr;
  for (const Known& known : entries_[index.value]) {
    if (known.term == term) return &known;
  }
  return nullptr;
}

// ---------------------------------------------------------------- logs

void Witness::SawEntries(Term prev_term, const std::vector<EntryRef>& entries) {
  for (const EntryRef& entry : entries) {
    const Known* known = Find(entry->index, entry->term);
    if (known == nullptr) {
      const Known* before = Find(entry->index - 1, prev_term);
      if (before == nullptr) {
        return Fail(
            fmt::format("log matching: entry ({}, term {}) follows one of term {} that "
                        "nobody has seen",
                        entry->index.value, entry->term.value, prev_term.value));
      }
      const Config* config = before->config;
      if (entry->type == EntryType::kConfig) config = NewConfig(*config, *entry);
      if (entries_.size() <= entry->index.value) entries_.resize(entry->index.value + 1);
      entries_[entry->index.value].push_back({entry->term, prev_term, entry, config});
    } else if (known->prev_term != prev_term) {
      return Fail(fmt::format("log matching: entry ({}, term {}) follows term {} and term {}",
                              entry->index.value, entry->term.value, known->prev_term.value,
                              prev_term.value));
    } else if (known->entry != entry &&
               (known->entry->payload != entry->payload || known->entry->type != entry->type)) {
      return Fail(fmt::format("log matching: entry ({}, term {}) has two contents",
                              entry->index.value, entry->term.value));
    }
    prev_term = entry->term;
  }
}

void Witness::SawTruncation(NodeId member, Index first, Term term) {
  if (!IsCommitted(first, term)) return;
  Fail(fmt::format("member {} cut its log from {} (term {}) on, which is committed", member.value,
                   first.value, term.value));
}

void Witness::SawMark(NodeId member, const storage::LogMark& mark) {
  if (!IsCommitted(mark.index, mark.term)) {
    return Fail(fmt::format("member {}: a mark at ({}, term {}), which is not committed",
                            member.value, mark.index.value, mark.term.value));
  }
  auto membership = Membership::Decode(mark.membership);
  if (!membership.ok()) return Fail("the membership of a mark does not decode");
  SawMembership(member, mark.index, mark.term, *membership);
}

const Witness::Config* Witness::ConfigAt(Index last, Term term) const {
  const Known* known = Find(last, term);
  return known == nullptr ? nullptr : known->config;
}

void Witness::SawMembership(NodeId member, Index last, Term term, const Membership& membership) {
  const Config* config = ConfigAt(last, term);
  if (config == nullptr) return Fail("a log ends with an entry that nobody has seen");
  if (config->membership == membership) return;
  const auto joined = bootstraps_.find(member);
  const bool not_there_yet = joined != bootstraps_.end() && config->index < joined->second.index;
  if (not_there_yet && joined->second.membership == membership) return;
  Fail(
      fmt::format("C8: member {} takes another membership to be in force at ({}, term {}) than "
                  "the one appended at {}",
                  member.value, last.value, term.value, config->index.value));
}

// ---------------------------------------------------------------- membership

const Witness::Config* Witness::NewConfig(const Config& before, const storage::Entry& entry) {
  auto membership = Membership::Decode(entry.payload);
  if (!membership.ok()) {
    Fail("a config entry does not decode");
    return &before;
  }
  configs_.push_back({entry.index, entry.term, *std::move(membership)});
  const Config& config = configs_.back();
  CheckStep(before, config);
  if (config.membership.joint()) ++joint_configs_;
  for (const auto& [learner, replaces] : before.membership.promotions) {
    promotions_ += config.membership.voters.contains(learner) ? 1 : 0;
  }
  return &config;
}

// Thesis 4: one voter at a time, or through a joint configuration; whoever is to vote has learned
// before; whoever left is remembered and never comes back.
void Witness::CheckStep(const Config& before, const Config& after) {
  const Membership& a = before.membership;
  const Membership& b = after.membership;
  const auto broken = [&](const char* what) {
    Fail(fmt::format("membership: the change at ({}, term {}), after that at {}, {}",
                     after.index.value, after.term.value, before.index.value, what));
  };
  if (b.voters.empty()) broken("leaves no voter");
  if (a.joint()) {
    if (b.joint() || b.voters != a.voters) broken("is no end of the joint configuration before");
  } else if (b.joint()) {
    if (b.voters_outgoing != a.voters) broken("has another outgoing half than who voted before");
  } else {
    std::vector<NodeId> changed;
    std::set_symmetric_difference(a.voters.begin(), a.voters.end(), b.voters.begin(),
                                  b.voters.end(), std::back_inserter(changed));
    if (changed.size() > 1) broken("moves more than one voter without a joint configuration");
  }
  for (const NodeId id : b.voters) {
    if (!a.IsVoter(id) && !a.learners.contains(id)) broken("lets someone vote who never learned");
    if (b.learners.contains(id)) broken("has a voter that is a learner too");
  }
  for (const NodeId id : b.All()) {
    if (a.Removed(id) || b.Removed(id)) broken("brings back an id that left");
    if (!b.peer_urls.contains(id)) broken("has a member without an address");
    if (refused_members_.contains(id)) broken("adds a member that was certainly refused");
  }
  for (const NodeId id : a.All()) {
    if (!b.Contains(id) && !b.Removed(id)) broken("forgets a member that left");
  }
  for (const auto& [learner, replaces] : b.promotions) {
    if (!b.learners.contains(learner)) broken("is to promote someone who is no learner");
  }
}

void Witness::SawAppendOfLeader(Term term, Term prev_term, const std::vector<EntryRef>& entries) {
  Reign& reign = leaders_.at(term);
  for (const EntryRef& entry : entries) {
    if (entry->term != term) Fail("a leader appended an entry of another term");
    if (entry->type == EntryType::kConfig && Find(entry->index, entry->term) == nullptr) {
      const Config& before = *reign.config;
      const bool settled = before.index.value == 0 || IsCommitted(before.index, before.term);
      if (!settled) {
        Fail(
            fmt::format("membership: the leader of term {} appended a change at {} while that "
                        "at {} was not committed",
                        term.value, entry->index.value, before.index.value));
      }
      if (!reign.furthest_commit) {
        Fail(
            fmt::format("thesis 4.1: the leader of term {} changed the membership at {} before "
                        "an entry of its own term was committed",
                        term.value, entry->index.value));
      }
    }
    SawEntries(prev_term, {entry});
    if (!ok()) return;
    reign.config = Find(entry->index, entry->term)->config;
    prev_term = entry->term;
  }
}

bool Witness::NoChangeInTheAir() const {
  const Config& newest = configs_.back();
  return &newest == committed_configs_.back();
}

bool Witness::WasCommitted(const Membership& membership) const {
  return std::any_of(committed_configs_.rbegin(), committed_configs_.rend(),
                     [&](const Config* c) { return c->membership == membership; });
}

void Witness::SawRefusedMember(NodeId id) {
  refused_members_.insert(id);
  for (const Config& config : configs_) {
    if (config.membership.Contains(id)) Fail("a member was refused that had been added");
  }
}

// ---------------------------------------------------------------- votes and leaders

void Witness::SawDurableVote(NodeId voter, Term term, NodeId candidate) {
  const auto [it, inserted] = votes_.try_emplace({term, voter}, candidate);
  if (it->second == candidate) return;
  Fail(fmt::format("member {} voted for {} and for {} in term {}", voter.value, it->second.value,
                   candidate.value, term.value));
}

void Witness::SawLeader(NodeId leader, Term term) {
  const SimDisk& log = disk(leader);
  const Config* config = ConfigAt(log.last(), log.last_term());
  CHECK(config != nullptr);
  const auto [it, first_time] = leaders_.try_emplace(term, Reign{leader, config, Index(0)});
  if (it->second.leader != leader) {
    return Fail(fmt::format("election safety: term {} has two leaders, {} and {}", term.value,
                            it->second.leader.value, leader.value));
  }
  if (!first_time)
    return Fail(fmt::format("member {} leads term {} twice", leader.value, term.value));
  const bool elected = Majority(config->membership, [&](NodeId id) {
    const auto vote = votes_.find({term, id});
    return vote != votes_.end() && vote->second == leader;
  });
  if (!elected) {
    return Fail(fmt::format("leader {} of term {} has no majority of durable votes", leader.value,
                            term.value));
  }
  Index must_have;
  for (const auto& [earlier, reign] : leaders_) {
    if (earlier < term) must_have = std::max(must_have, reign.furthest_commit);
  }
  if (must_have && !log.Holds(must_have, committed_[must_have.value - 1])) {
    Fail(fmt::format("leader completeness: leader {} of term {} lacks committed entry {}",
                     leader.value, term.value, must_have.value));
  }
}

// ---------------------------------------------------------------- commits

bool Witness::OnMajorityOfDisks(const Membership& membership, Index index, Term term) const {
  return Majority(membership, [&](NodeId id) {
    return id.value < disks_.size() && disks_[id.value] != nullptr &&
           disks_[id.value]->Holds(index, term);
  });
}

void Witness::SawLeaderCommit(NodeId leader, Term leader_term, Index commit, Term entry_term,
                              const std::vector<EntryRef>& may_be_new, int64_t now_ns) {
  if (entry_term != leader_term) {
    Fail(fmt::format("thesis 3.6.2: the leader of term {} committed up to {}, an entry of term {}",
                     leader_term.value, commit.value, entry_term.value));
  }
  const auto it = leaders_.find(leader_term);
  if (it == leaders_.end() || it->second.leader != leader) {
    return Fail(fmt::format("member {} commits as leader of term {}, which it never was",
                            leader.value, leader_term.value));
  }
  Reign& reign = it->second;
  bool backed = OnMajorityOfDisks(reign.config->membership, commit, entry_term);
  for (const EntryRef& entry : may_be_new) {
    if (backed || entry->type != EntryType::kConfig) continue;
    const auto membership = Membership::Decode(entry->payload);
    backed = membership.ok() && OnMajorityOfDisks(*membership, commit, entry_term);
  }
  if (!backed) {
    Fail(fmt::format("entry ({}, term {}) was committed without a majority of disks", commit.value,
                     entry_term.value));
  }
  reign.furthest_commit = std::max(reign.furthest_commit, commit);
  if (commit > acked()) acked_.emplace_back(now_ns, commit);
}

void Witness::SawCommitted(NodeId member, Index index, Term term) {
  if (committed_.size() < index.value) {
    if (committed_.size() + 1 != index.value) {
      return Fail(fmt::format("member {} commits {} before what is in front of it", member.value,
                              index.value));
    }
    committed_.push_back(term);
    const Config* config = ConfigAt(index, term);
    if (config != nullptr && config->index == index) committed_configs_.push_back(config);
    return;
  }
  const Term known = committed_[index.value - 1];
  if (known == term) return;
  Fail(fmt::format("state machine safety: member {} commits index {} with term {}, others with {}",
                   member.value, index.value, term.value, known.value));
}

void Witness::SawApplied(NodeId member, const storage::Entry& entry) {
  if (!IsCommitted(entry.index, entry.term)) {
    return Fail(fmt::format("member {} applies ({}, term {}), which is not committed", member.value,
                            entry.index.value, entry.term.value));
  }
  if (!disk(member).Holds(entry.index, entry.term)) {
    Fail(fmt::format("C4: member {} applies {} before its disk has it", member.value,
                     entry.index.value));
  }
}

void Witness::SawState(NodeId member, Index applied, uint64_t history) {
  if (states_.size() < applied.value) {
    if (states_.size() + 1 != applied.value) return Fail("an entry was skipped by everybody");
    states_.push_back(history);
    const Known* known = Find(applied, committed_[applied.value - 1]);
    CHECK(known != nullptr);
    if (known->entry->type == EntryType::kNormal) {
      const uint32_t op = Command::Decode(known->entry->payload).op;
      if (!applied_ops_.emplace(op, applied).second) {
        Fail(fmt::format("operation {} was committed twice", op));
      }
      if (refused_ops_.contains(op)) {
        Fail(fmt::format("operation {} was certainly refused, and got committed", op));
      }
    }
  }
  if (states_[applied.value - 1] == history) return;
  Fail(fmt::format("member {} has another state at index {} than others", member.value,
                   applied.value));
}

void Witness::SawInstall(NodeId member, const MachineState& state) {
  if (state.applied.value > states_.size() || states_[state.applied.value - 1] != state.history) {
    Fail(fmt::format("member {} installs a snapshot at {} with another state", member.value,
                     state.applied.value));
  }
}

void Witness::SawRefusal(uint32_t op) {
  refused_ops_.insert(op);
  if (applied_ops_.contains(op)) {
    Fail(fmt::format("operation {} was refused after it was committed", op));
  }
}

Index Witness::AckedBefore(int64_t true_ns) const {
  const auto it = std::lower_bound(
      acked_.begin(), acked_.end(), true_ns,
      [](const std::pair<int64_t, Index>& ack, int64_t t) { return ack.first < t; });
  return it == acked_.begin() ? Index(0) : std::prev(it)->second;
}

}  // namespace holdfast::sim
