// The one who sees everything: holds the cluster's whole history against Raft's promises.
//
// Nothing here asks a core whether it is right; every rule is recomputed from what was written to
// disks, sent, committed and applied. The first broken rule is kept as text.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "fake_disk.h"
#include "replication/membership.h"
#include "replication/messages.h"

namespace holdfast::raft::test {

// The state that the log replicates: a chain of hashes of everything applied, in order.
struct AppliedState {
  Index applied;
  Term term;  // of the entry at `applied`
  uint64_t digest = 0;
};

class Witness {
 public:
  explicit Witness(const Membership& membership) : membership_(membership) {}

  bool ok() const { return failure_.empty(); }
  const std::string& failure() const { return failure_; }
  void Fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }

  using Disks = std::map<NodeId, const FakeDisk*>;

  // Log matching (paper 5.3), by induction: an (index, term) has one content and one predecessor.
  void SawEntries(Term prev_term, const std::vector<EntryRef>& entries);
  // Every vote that reached a disk: one a term (5.2).
  void SawDurableVote(NodeId voter, Term term, NodeId candidate);
  // Election safety (5.2), a majority of durable votes behind it, and leader completeness (5.4):
  // `holds(index, term)` asks the new leader's log.
  template <class Holds>
  void SawLeader(NodeId leader, Term term, Holds holds);
  // `leader` moved its commit index: a majority of voters has it on disk, and it is the instant of
  // acknowledgement of freshness section 1.
  void SawLeaderCommit(Term leader_term, Index commit, Term entry_term, const Disks& disks,
                       int64_t now_ns);
  // Anybody says that (index, term) is committed. State machine safety (5.4.3).
  void SawCommitted(Index index, Term term);
  void SawApplied(AppliedState& state, const Entry& entry);
  void SawSnapshot(const AppliedState& state);
  // "Certainly not proposed": the payload must never be committed.
  void SawRefusal(const std::string& payload);

  // The largest index acknowledged so far, and before an instant.
  Index acked() const { return acked_.empty() ? Index(0) : acked_.back().second; }
  Index AckedBefore(int64_t true_ns) const;

  size_t elections() const { return leaders_.size(); }
  size_t commits() const { return committed_.size(); }
  bool Applied(const std::string& payload) const { return applied_payloads_.contains(payload); }

 private:
  // Counted here by hand, beside the code under test.
  template <class Has>
  bool Majority(Has has) const {
    for (const std::set<NodeId>* half : {&membership_.voters, &membership_.voters_outgoing}) {
      size_t count = 0;
      for (const NodeId id : *half) count += has(id) ? 1 : 0;
      if (!half->empty() && 2 * count <= half->size()) return false;
    }
    return true;
  }

  struct Known {
    Term term;
    Term prev_term;
    EntryRef entry;
  };
  const Membership membership_;
  std::string failure_;
  std::vector<std::vector<Known>> entries_;  // by index
  std::map<std::pair<Term, NodeId>, NodeId> votes_;
  std::map<Term, NodeId> leaders_;
  std::map<Term, Index> commit_of_term_;  // the furthest that a leader of this term committed
  std::vector<Term> committed_;           // by index - 1
  std::vector<uint64_t> digests_;         // by index - 1
  std::unordered_map<std::string, Index> applied_payloads_;
  std::set<std::string> refused_;
  std::vector<std::pair<int64_t, Index>> acked_;  // ascending in both
};

template <class Holds>
void Witness::SawLeader(NodeId leader, Term term, Holds holds) {
  const auto [it, first_time] = leaders_.try_emplace(term, leader);
  if (it->second != leader) {
    return Fail("election safety: term " + std::to_string(term.value) + " has two leaders, " +
                std::to_string(it->second.value) + " and " + std::to_string(leader.value));
  }
  if (!first_time) return;
  const bool elected = Majority([&](NodeId id) {
    const auto vote = votes_.find({term, id});
    return vote != votes_.end() && vote->second == leader;
  });
  if (!elected) {
    return Fail("leader " + std::to_string(leader.value) + " of term " +
                std::to_string(term.value) + " has no majority of durable votes");
  }
  Index must_have;
  for (const auto& [earlier, index] : commit_of_term_) {
    if (earlier < term) must_have = std::max(must_have, index);
  }
  if (must_have && !holds(must_have, committed_[must_have.value - 1])) {
    Fail("leader completeness: leader " + std::to_string(leader.value) + " of term " +
         std::to_string(term.value) + " lacks committed entry " + std::to_string(must_have.value));
  }
}

}  // namespace holdfast::raft::test
