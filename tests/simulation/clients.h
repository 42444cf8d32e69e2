// Clients: writes with deadlines and unknown outcomes, and all three kinds of reads.
//
// Each client does one operation at a time at a member that it picks, and keeps no promise that
// the members do not: what it was told goes into the history, which is judged at the end.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "history_types.h"
#include "replication/raft_node.h"
#include "sim_machine.h"

namespace holdfast::sim {

class World;
class Member;

class Clients {
 public:
  explicit Clients(World* world) : world_(*world) {}

  void Begin();
  // The liveness phase: no new operations but those asked for.
  void Rest() { resting_ = true; }
  void Next(uint32_t client);
  void Deadline(uint32_t op);
  // The call reached its member.
  void Arrive(Member& member, uint32_t op);
  // A write was applied at this member.
  void OnApplied(const Member& member, const Command& command, const OpResult& result);
  // The process is gone: its clients see their connections break.
  void OnMemberDown(const Member& member);
  // After a stop in good order: everybody must have been told something.
  void CheckAllAnswered(const Member& member);

  // An operation outside the clients' own round, at this member: its number.
  uint32_t Ask(Member& member, OpKind kind);
  const ClientOp& op(uint32_t op) const { return ops_[op]; }
  // Holds the whole history against linearizability.
  void CheckHistory();

 private:
  struct Client {
    NodeId member;
    uint32_t op = kNone;
  };
  static constexpr uint32_t kNone = UINT32_MAX;

  Member* PickMember(Client& client);
  ClientOp DrawOp(uint16_t client);
  uint32_t Start(ClientOp op, Member& member);
  void ProposeWrite(Member& member, uint32_t op);
  void ReadLinearizable(Member& member, uint32_t op);
  void OnReadIndex(Member& member, uint32_t op, const absl::StatusOr<Index>& index);
  void ReadWithClaim(Member& member, uint32_t op);
  void ReadFresh(Member& member, uint32_t op);
  void Finish(uint32_t op, Outcome outcome);
  void CountOutcome(const ClientOp& op);

  World& world_;
  bool resting_ = false;
  std::vector<Client> clients_;
  std::vector<ClientOp> ops_;
  std::vector<uint64_t> last_seen_rev_;  // by key, of anybody: what compare-and-sets expect
};

}  // namespace holdfast::sim
