#include "witness.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace holdfast::raft::test {
namespace {

uint64_t Chain(uint64_t digest, const Entry& entry) {
  uint64_t h = digest * 0x9E3779B97F4A7C15u + entry.index.value;
  h = (h ^ (h >> 29)) * 0xBF58476D1CE4E5B9u + entry.term.value;
  h = (h ^ (h >> 32)) * 0x94D049BB133111EBu + static_cast<uint64_t>(entry.type);
  return h ^ std::hash<std::string>()(entry.payload);
}

}  // namespace

void Witness::SawEntries(Term prev_term, const std::vector<EntryRef>& entries) {
  for (const EntryRef& entry : entries) {
    if (entries_.size() <= entry->index.value) entries_.resize(entry->index.value + 1);
    std::vector<Known>& known = entries_[entry->index.value];
    const auto it = std::find_if(known.begin(), known.end(),
                                 [&](const Known& k) { return k.term == entry->term; });
    if (it == known.end()) {
      known.push_back({entry->term, prev_term, entry});
    } else if (it->prev_term != prev_term) {
      return Fail(fmt::format("log matching: entry ({}, term {}) follows term {} and term {}",
                              entry->index.value, entry->term.value, it->prev_term.value,
                              prev_term.value));
    } else if (it->entry != entry &&
               (it->entry->payload != entry->payload || it->entry->type != entry->type)) {
      return Fail(fmt::format("log matching: entry ({}, term {}) has two contents",
                              entry->index.value, entry->term.value));
    }
    prev_term = entry->term;
  }
}

void Witness::SawDurableVote(NodeId voter, Term term, NodeId candidate) {
  const auto [it, inserted] = votes_.try_emplace({term, voter}, candidate);
  if (it->second != candidate) {
    Fail(fmt::format("node {} voted for {} and for {} in term {}", voter.value, it->second.value,
                     candidate.value, term.value));
  }
}

void Witness::SawLeaderCommit(Term leader_term, Index commit, Term entry_term, const Disks& disks,
                              int64_t now_ns) {
  if (entry_term != leader_term) {
    Fail(fmt::format("thesis 3.6.2: the leader of term {} committed up to {}, an entry of term {}",
                     leader_term.value, commit.value, entry_term.value));
  }
  if (!Majority([&](NodeId id) { return disks.at(id)->Holds(commit, entry_term); })) {
    Fail(fmt::format("entry ({}, term {}) was committed without a majority of disks", commit.value,
                     entry_term.value));
  }
  Index& furthest = commit_of_term_[leader_term];
  furthest = std::max(furthest, commit);
  if (commit > acked()) acked_.emplace_back(now_ns, commit);
}

void Witness::SawCommitted(Index index, Term term) {
  if (committed_.size() < index.value) committed_.resize(index.value);
  Term& known = committed_[index.value - 1];
  if (!known) known = term;
  if (known != term) {
    Fail(fmt::format("state machine safety: index {} is committed with terms {} and {}",
                     index.value, known.value, term.value));
  }
}

void Witness::SawApplied(AppliedState& state, const Entry& entry) {
  if (entry.index != state.applied + 1) {
    return Fail(
        fmt::format("entry {} was applied after {}", entry.index.value, state.applied.value));
  }
  state.applied = entry.index;
  state.term = entry.term;
  state.digest = Chain(state.digest, entry);
  SawCommitted(entry.index, entry.term);
  if (digests_.size() < entry.index.value) {
    if (digests_.size() + 1 != entry.index.value) return Fail("an unseen entry was skipped");
    digests_.push_back(state.digest);
    if (entry.type == EntryType::kNormal) {
      if (!applied_payloads_.emplace(entry.payload, entry.index).second) {
        Fail("a proposal was committed twice: " + entry.payload);
      }
      if (refused_.contains(entry.payload)) {
        Fail("a proposal that was certainly refused got committed: " + entry.payload);
      }
    }
  }
  if (digests_[entry.index.value - 1] != state.digest) {
    Fail(fmt::format("states differ at index {}", entry.index.value));
  }
}

void Witness::SawSnapshot(const AppliedState& state) {
  if (state.applied.value > digests_.size() || digests_[state.applied.value - 1] != state.digest) {
    Fail(fmt::format("a snapshot at index {} holds another state", state.applied.value));
  }
}

void Witness::SawRefusal(const std::string& payload) {
  refused_.insert(payload);
  if (applied_payloads_.contains(payload)) {
    Fail("a committed proposal was refused afterwards: " + payload);
  }
}

Index Witness::AckedBefore(int64_t true_ns) const {
  const auto it = std::lower_bound(
      acked_.begin(), acked_.end(), true_ns,
      [](const std::pair<int64_t, Index>& ack, int64_t t) { return ack.first < t; });
  return it == acked_.begin() ? Index(0) : std::prev(it)->second;
}

}  // namespace holdfast::raft::test
