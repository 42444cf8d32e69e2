// A whole cluster with its network, disks, clocks, clients and operators, in virtual time on one
// thread, from one seed. Same seed, same run: Digest() proves it.
//
// The world owns the parts and the queue of events, and hands each event to its part. First comes
// the safety phase with its faults; then everything heals, and the cluster must recover in time.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/rng.h"
#include "clients.h"
#include "event_queue.h"
#include "faults.h"
#include "figures.h"
#include "member.h"
#include "network.h"
#include "operators.h"
#include "sim_machine.h"
#include "sim_options.h"
#include "witness.h"

namespace holdfast::sim {

inline constexpr int64_t kMicrosecond = 1000;
inline constexpr int64_t kMillisecond = 1000 * kMicrosecond;
inline constexpr int64_t kSecond = 1000 * kMillisecond;

class World {
 public:
  World(const SimOptions& options, bool trace);
  ~World();

  // Both phases, and the check of the whole history. False: failure() tells which rule was broken.
  bool Run();
  const std::string& failure() const { return witness.failure(); }
  uint64_t Digest();

  // --- shared by the parts ---
  SimOptions options;  // as asked; calmed when everything heals
  base::Rng rng;
  int64_t now_ns = kSecond;
  EventQueue events;
  Witness witness;
  Figures figures;
  Checkpoints checkpoints;
  Network network;
  Clients clients;
  Operators operators;
  Faults faults;

  bool Chance(uint64_t thousandths) { return thousandths > 0 && rng.Below(1000) < thousandths; }
  int64_t Uniform(int64_t below) {
    return below <= 0 ? 0 : static_cast<int64_t>(rng.Below(static_cast<uint64_t>(below)));
  }
  // The next of a kind of event that comes every `mean_ms`.
  int64_t NextAfterMs(int64_t mean_ms) { return now_ns + 1 + Uniform(2 * mean_ms * kMillisecond); }
  // No two instants of two effects are the same.
  int64_t Instant() { return ++now_ns; }
  void At(int64_t at_ns, EventKind kind, uint32_t argument = 0) {
    events.Add({at_ns, 0, kind, 0, 0, argument});
  }
  void AtMember(int64_t at_ns, EventKind kind, const Member& member, uint32_t argument = 0) {
    events.Add({at_ns, 0, kind, static_cast<uint8_t>(member.id().value), member.life(), argument});
  }
  // A host's event: of no life.
  void AtHost(int64_t at_ns, EventKind kind, NodeId member, uint32_t argument = 0) {
    events.Add({at_ns, 0, kind, static_cast<uint8_t>(member.value), 0, argument});
  }

  bool faulty() const { return faulty_; }
  bool tracing() const { return trace_; }
  void Trace(const Member* member, const std::string& what);

  // --- members: everybody who ever had a machine, in the order of their coming ---
  const std::vector<Member*>& members() const { return members_; }
  bool Exists(NodeId id) const { return id.value < by_id_.size() && by_id_[id.value] != nullptr; }
  Member& member(NodeId id) const { return *by_id_[id.value]; }
  Member& AddMember(NodeId id, const raft::Membership& bootstrap);
  // Null if there is none.
  Member* RandomRunning();
  Member* Leader();  // that of the newest term

 private:
  void Dispatch(const Event& event);
  void RunUntil(int64_t until_ns);
  void Heal();
  bool Recover();
  void AskAround();
  std::string WhatIsLacking();
  std::string WhatMemberLacks(Member& member, const Member& leader);
  int64_t RecoveryLimitNs();
  void Account();

  const bool trace_;
  bool faulty_ = true;
  int64_t healed_ns_ = 0;
  // The liveness phase: what was asked for.
  int64_t next_ask_ns_ = 0;
  std::optional<uint32_t> write_asked_;
  std::map<NodeId, uint32_t> reads_asked_;
  std::vector<std::unique_ptr<Member>> by_id_;
  std::vector<Member*> members_;
};

}  // namespace holdfast::sim
