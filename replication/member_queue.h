// Callers that wait for a membership change or for a transfer of leadership, on the raft thread.
//
// Every waiter is called exactly once: done, certainly not done, or (DeadlineExceeded) unknown.
// Threads: one. Limit: kMaxWaiters of each kind.
#pragma once

#include <cstdint>
#include <vector>

#include "replication/raft_core.h"
#include "replication/raft_node.h"

namespace holdfast::raft {

class MemberQueue {
 public:
  void Change(RaftCore& core, const MemberChange& change, int64_t deadline_ns,
              RaftNode::ChangeDone done);
  void Transfer(RaftCore& core, NodeId to, int64_t deadline_ns, RaftNode::TransferDone done);
  // After every turn: tells those whose answer has come.
  void Offer(const RaftCore& core, int64_t now_ns);
  // The node stops: what was asked may still happen.
  void RefuseAll();

 private:
  static constexpr size_t kMaxWaiters = 64;
  struct Changing {
    Term term;
    Index index;  // of the change's first config entry
    int64_t deadline_ns = 0;
    bool committed = false;  // that entry, in that term
    RaftNode::ChangeDone done;
  };
  struct Transferring {
    Term term;
    NodeId to;
    int64_t deadline_ns = 0;
    RaftNode::TransferDone done;
  };
  // True if the waiter was told.
  static bool Tell(const RaftCore& core, int64_t now_ns, Changing& waiter);
  static bool Tell(const RaftCore& core, int64_t now_ns, Transferring& waiter);

  std::vector<Changing> changing_;
  std::vector<Transferring> transferring_;
};

}  // namespace holdfast::raft
