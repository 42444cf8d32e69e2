// The driver without threads: whoever holds it is the scheduler. The simulator runs whole clusters
// of these on one thread, in an order drawn from a seed; everything but the threads is the code
// that RaftNode::Start runs.
//
// Each Run* does what its thread would do when it wakes up once: take everything that is queued,
// and carry it out. Calls may come in any order and at any distance; what a thread would do at once
// may be held back as long as the scheduler likes.
// Threads: one, for everything. Callbacks (done, refused, Transport, StateMachine, LogStore) run
// inside Run* or inside the call that caused them.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "replication/raft_node.h"

namespace holdfast::raft {

class SteppedNode : public RaftNode {
 public:
  // As RaftNode::Start. Destroying it without Stop() is a crash: nothing is flushed, and callers
  // that wait are told nothing.
  static absl::StatusOr<std::unique_ptr<SteppedNode>> Start(NodeOptions options,
                                                            const Membership& bootstrap,
                                                            storage::LogStore* log,
                                                            StateMachine* machine,
                                                            Transport* transport);

  // One turn of the raft thread. Cheap when there is nothing to do.
  virtual void RunRaft() = 0;
  // True if RunRaft would find an input. Time alone may also call for a turn:
  virtual bool HasInput() const = 0;
  // On the node's clock (ClockSample::boot_ns): when the next tick is due.
  virtual int64_t next_tick_ns() const = 0;

  // The other threads; false if there was nothing to do.
  virtual bool RunLog() = 0;          // one LogStore::Append for all that is queued, or a Compact
  virtual bool RunApply() = 0;        // one StateMachine::Apply for all that is queued
  virtual bool RunFetch() = 0;        // LogStore::Read for slow members
  virtual bool RunMaintenance() = 0;  // flush, checkpoint, freshness record

  // Whether the Run* above would find something.
  virtual bool HasLogWork() const = 0;
  virtual bool HasApplyWork() const = 0;
  virtual bool HasFetchWork() const = 0;
  virtual bool HasMaintenanceWork() const = 0;

  // The core, to look at.
  virtual const RaftCore& core() const = 0;
};

}  // namespace holdfast::raft
