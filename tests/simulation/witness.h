// The one who sees everything: holds a cluster's whole history against Raft's promises.
//
// Nothing here asks a core whether it is right. Every rule is recomputed from what was written to
// disks, sent, committed, applied and answered; who counts at which place of the log is derived
// from the config entries seen, and majorities are counted here by hand. The first broken rule is
// kept as text, and ends the run.
// Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "replication/membership.h"
#include "replication/messages.h"
#include "storage/log_store.h"

namespace holdfast::sim {

class SimDisk;
struct MachineState;

class Witness {
 public:
  // A place in the log where the membership changed; index 0: how the cluster began.
  struct Config {
    Index index;
    Term term;
    raft::Membership membership;
  };

  explicit Witness(const raft::Membership& first);

  bool ok() const { return failure_.empty(); }
  const std::string& failure() const { return failure_; }
  void Fail(std::string text) {
    if (failure_.empty()) failure_ = std::move(text);
  }
  // `bootstrap`: what a joiner takes for the membership until the log tells it more.
  void AddDisk(NodeId member, const SimDisk* disk, const raft::Membership& bootstrap);
  const SimDisk& disk(NodeId member) const { return *disks_[member.value]; }

  // --- logs ---
  // Log matching (paper 5.3), by induction: an (index, term) has one content and one predecessor.
  void SawEntries(Term prev_term, const std::vector<storage::EntryRef>& entries);
  // A member cut its log on disk from here on: nothing of that may be committed.
  void SawTruncation(NodeId member, Index first, Term term);
  // A mark's term and membership are those of the log at its index (C8).
  void SawMark(NodeId member, const storage::LogMark& mark);
  // C8: `membership` is what a member takes to be in force with a log that ends at (last, term).
  void SawMembership(NodeId member, Index last, Term term, const raft::Membership& membership);
  // The change in force in a log that ends with (last, term); null if nobody has seen such a log.
  const Config* ConfigAt(Index last, Term term) const;

  // --- votes and leaders ---
  // Every vote that reached a disk: one a term (5.2).
  void SawDurableVote(NodeId voter, Term term, NodeId candidate);
  // Election safety (5.2), a majority of durable votes behind it, and leader completeness (5.4).
  void SawLeader(NodeId leader, Term term);
  // New entries of a leader's own making: a membership change must follow the rules of thesis 4.
  // REQUIRES: the commit index of that moment was shown before.
  void SawAppendOfLeader(Term term, Term prev_term, const std::vector<storage::EntryRef>& entries);

  // --- commits ---
  // `leader` moved its commit index: a majority has it on disk, and this is the instant of
  // acknowledgement of freshness section 1. `may_be_new`: config entries of the same turn.
  void SawLeaderCommit(NodeId leader, Term leader_term, Index commit, Term entry_term,
                       const std::vector<storage::EntryRef>& may_be_new, int64_t now_ns);
  // Anybody says that (index, term) is committed. State machine safety (5.4.3).
  void SawCommitted(NodeId member, Index index, Term term);
  bool IsCommitted(Index index, Term term) const {
    return index.value <= committed_.size() && committed_[index.value - 1] == term;
  }
  void SawApplied(NodeId member, const storage::Entry& entry);
  void SawState(NodeId member, Index applied, uint64_t history);
  void SawInstall(NodeId member, const MachineState& state);

  // --- proposals and members ---
  // "Certainly not proposed": must never be applied.
  void SawRefusal(uint32_t op);
  // "Certainly not done": this id must never be in any configuration.
  void SawRefusedMember(NodeId id);

  // --- freshness ---
  // The largest index acknowledged so far, and before an instant.
  Index acked() const { return acked_.empty() ? Index(0) : acked_.back().second; }
  Index AckedBefore(int64_t true_ns) const;

  // --- what is known ---
  // The newest committed configuration.
  const Config& committed_config() const { return *committed_configs_.back(); }
  bool WasCommitted(const raft::Membership& membership) const;
  // No configuration that anybody has seen is newer than the committed one.
  bool NoChangeInTheAir() const;
  bool WasApplied(uint32_t op) const { return applied_ops_.contains(op); }
  size_t elections() const { return leaders_.size(); }
  size_t commits() const { return committed_.size(); }
  uint64_t configs() const { return configs_.size() - 1; }
  uint64_t joint_configs() const { return joint_configs_; }
  uint64_t promotions() const { return promotions_; }

 private:
  struct Known {
    Term term;
    Term prev_term;
    storage::EntryRef entry;
    const Config* config;  // in force once this entry is in a log
  };
  struct Reign {
    NodeId leader;
    const Config* config;
    Index furthest_commit;
  };

  template <class Has>
  static bool Majority(const raft::Membership& membership, Has has);
  const Known* Find(Index index, Term term) const;
  const Config* NewConfig(const Config& before, const storage::Entry& entry);
  void CheckStep(const Config& before, const Config& after);
  bool OnMajorityOfDisks(const raft::Membership& membership, Index index, Term term) const;

  std::string failure_;
  std::vector<const SimDisk*> disks_;        // by id
  std::map<NodeId, Config> bootstraps_;      // of joiners
  std::vector<std::vector<Known>> entries_;  // by index
  std::deque<Config> configs_;               // stays where it is
  std::vector<const Config*> committed_configs_;
  std::map<std::pair<Term, NodeId>, NodeId> votes_;
  std::map<Term, Reign> leaders_;
  std::vector<Term> committed_;   // by index - 1
  std::vector<uint64_t> states_;  // by index - 1
  std::unordered_map<uint32_t, Index> applied_ops_;
  std::set<uint32_t> refused_ops_;
  std::set<NodeId> refused_members_;
  std::vector<std::pair<int64_t, Index>> acked_;  // ascending in both
  uint64_t joint_configs_ = 0;
  uint64_t promotions_ = 0;
};

}  // namespace holdfast::sim
