// The network between simulated members: what is lost, late, out of order, repeated or cut.
//
// Links are directed. A stream between two members keeps its order unless the run says otherwise;
// a message that forwards proposals is never repeated (see raft::Transport::Send).
// Threads: one.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "base/ids.h"
#include "replication/raft_node.h"

namespace holdfast::sim {

class World;
class Member;

class Network {
 public:
  static constexpr uint64_t kMaxMembers = 63;  // that ever were, in one run

  explicit Network(World* world) : world_(*world) {}

  void Send(Member& from, std::vector<raft::Message> messages);
  void Deliver(uint32_t packet);

  using SnapshotDone = absl::AnyInvocable<void(absl::Status) &&>;
  void SendSnapshot(Member& from, raft::Transport::SnapshotToSend snapshot, SnapshotDone done);
  void SnapshotHere(uint32_t flight);
  void SnapshotLost(uint32_t flight);
  void SnapshotDoneAt(uint32_t flight);
  // The sender's process is gone: nobody is left to hear of its snapshots.
  void ForgetSender(NodeId from);

  // Draws a partition around one member or through all of them, and when it ends.
  void CutSomething();
  void SlowSomething();
  void EndCut(uint32_t cut);
  void HealEverything();
  bool IsCut(NodeId from, NodeId to) const { return link(from, to).cuts > 0; }
  // Tells those whose connection to `member` breaks (or comes back), sooner or later.
  void BreakConnections(NodeId member);
  void RestoreConnections(NodeId member);

 private:
  struct Link {
    uint32_t cuts = 0;
    int64_t extra_ns = 0;
    int64_t last_arrival_ns = 0;
  };
  struct Packet {
    NodeId from;
    NodeId to;
    std::vector<raft::Message> messages;
  };
  struct Cut {
    std::vector<std::pair<NodeId, NodeId>> links;
    uint32_t flaps_left = 0;
    bool active = false;
    int64_t slow_ns = 0;  // a slow link, not a cut one
  };
  struct Flight {
    NodeId from, to;
    Term term;
    storage::LogMark mark;
    std::string dir;
    SnapshotDone done;
    bool open = true;  // the sender waits
    absl::Status result;
  };

  Link& link(NodeId from, NodeId to) { return links_[from.value * 64 + to.value]; }
  const Link& link(NodeId from, NodeId to) const { return links_[from.value * 64 + to.value]; }
  bool Connected(const Member& from, NodeId to) const;
  void SendPacket(Member& from, NodeId to, std::vector<raft::Message> messages);
  void Schedule(const Link& link, Packet packet, int64_t at_ns);
  int64_t Delay(const Link& link);
  void CheckMessage(Member& from, const raft::Message& message);
  void CheckMayLeave(Member& from, const raft::Message& message);
  void CheckAppendReply(Member& from, const raft::Message& message);
  void Finish(uint32_t flight, absl::Status result);
  std::vector<std::pair<NodeId, NodeId>> DrawLinks();
  void SetActive(Cut& cut, bool active);
  void Hint(NodeId member, NodeId peer, bool lost, int64_t within_ns);

  World& world_;
  std::array<Link, 64 * 64> links_;
  std::vector<Packet> packets_;
  std::vector<uint32_t> free_packets_;
  std::vector<Cut> cuts_;
  std::vector<Flight> flights_;
};

}  // namespace holdfast::sim
