// What every call of a client passes before anything else: the one place that may refuse it for who
// asks, or for the state that this member is in.
//
// Today: `hasleader: true` without a leader; a fence: a member whose data differs from the others'
// answers nothing but its own status; the alarm CORRUPT, of this member or of all; and a disk that
// is short of space. Who may do what (authentication, roles) belongs here too; every RPC already
// names the kind of call that it is.
// Threads: all methods from any thread.
#pragma once

#include <atomic>
#include <string>

#include <grpcpp/server_context.h>

#include "absl/status/status.h"
#include "replication/raft_node.h"
#include "server/alarm_watch.h"

namespace holdfast::server {

class Admission {
 public:
  enum class Call {
    kLocal,  // what this member says of itself: served in any state
    kRead,   // of keys, leases, events
    kWrite,
    kAdmin,  // members, alarms, compaction, backup
  };

  // Both must outlive this. `node` null: SetNode comes before the first Admit. `alarms` null
  // (tests): none is ever in force.
  explicit Admission(const raft::RaftNode* node, const AlarmWatch* alarms = nullptr)
      : node_(node), alarms_(alarms) {}
  // Once. What follows the state machine may ask CheckTrust before there is a node.
  void SetNode(const raft::RaftNode* node) { node_.store(node, std::memory_order_release); }

  // Not OK: what the caller is told, and nothing else is done.
  absl::Status Admit(const grpc::CallbackServerContext& context, Call call) const;
  // `wants_leader`: the caller's `hasleader: true`, however it came.
  absl::Status Admit(bool wants_leader, Call call) const;
  // For what is answered later than it was admitted: whether this member's data may still be shown.
  absl::Status CheckTrust() const;
  // For what makes the data larger (a put, a grant), beside Admit: ErrNoSpace while this member's
  // disk is short of space (server/space_guard.h). The alarm NOSPACE is looked at when applied.
  absl::Status CheckSpace() const;

  // For good: until the process ends.
  void Fence() { fenced_.store(true, std::memory_order_release); }
  bool fenced() const { return fenced_.load(std::memory_order_acquire); }
  void SetShortOfSpace(bool is_short) {
    short_of_space_.store(is_short, std::memory_order_release);
  }

 private:
  std::atomic<const raft::RaftNode*> node_;
  const AlarmWatch* const alarms_;
  std::atomic<bool> fenced_ = false;
  std::atomic<bool> short_of_space_ = false;
};

}  // namespace holdfast::server
