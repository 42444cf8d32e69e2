// Those who change the cluster: members come, go, change sides and are replaced; leadership is
// handed over. One change at a time, as one careful person would.
//
// The janitor starts the processes of new members and stops those of removed ones, late.
// Threads: one.
#pragma once

#include <cstdint>
#include <set>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "replication/member_change.h"
#include "replication/membership.h"

namespace holdfast::sim {

class World;
class Member;

class Operators {
 public:
  explicit Operators(World* world) : world_(*world) {}

  void Begin();
  // Everything has healed: only what is needed is done from now on.
  void Calm();
  void Change();
  void ChangeDeadline(uint32_t number);
  void Transfer();
  void CleanUp();

  // A member may lose its disk for good only if nothing else could cost the majority.
  bool MayKill() const;
  void Killed(NodeId id) { dead_ = id; }
  // Somebody is dead and not yet replaced.
  bool has_dead() const;

 private:
  // An id of 0: nothing to do this time.
  raft::MemberChange Plan(const raft::Membership& now);
  raft::MemberChange PlanNonsense(const raft::Membership& now, NodeId voter, NodeId learner);
  raft::MemberChange PlanForDead(const raft::Membership& now);
  // No id is asked for twice: one that was refused must never appear.
  raft::MemberChange WithNewId(raft::MemberChange change);
  bool ReplacementUnderWay() const;
  bool MayShrink(const raft::Membership& now) const;
  void OnDone(uint32_t number, const raft::MemberChange& change,
              const absl::StatusOr<raft::Membership>& result);
  void CheckDone(const raft::MemberChange& change, const raft::Membership& now);
  void CountDone(const raft::MemberChange& change);

  World& world_;
  bool calm_ = false;
  uint64_t next_id_ = 0;
  uint64_t url_version_ = 0;
  uint32_t number_ = 0;    // of the last change
  uint32_t nonsense_ = 0;  // of the last that must be refused
  bool in_flight_ = false;
  // The last change may or may not be done yet; cleared by the next that certainly is.
  bool uncertain_ = false;
  std::set<uint32_t> told_;
  NodeId dead_;
};

}  // namespace holdfast::sim
