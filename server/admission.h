// What every call of a client passes before anything else: the one place that may refuse it for who
// asks, or for the state that this member is in.
//
// Today: `hasleader: true` without a leader, and a fence: a member whose data differs from the
// others' answers nothing but its own status. Who may do what (authentication, roles) belongs here
// too; every RPC already names the kind of call that it is.
// Threads: all methods from any thread.
#pragma once

#include <atomic>
#include <string>

#include <grpcpp/server_context.h>

#include "absl/status/status.h"
#include "replication/raft_node.h"

namespace holdfast::server {

class Admission {
 public:
  enum class Call {
    kLocal,  // what this member says of itself: served in any state
    kRead,   // of keys, leases, events
    kWrite,
    kAdmin,  // members, alarms, compaction, backup
  };

  // `node` must outlive this.
  explicit Admission(const raft::RaftNode* node) : node_(node) {}

  // Not OK: what the caller is told, and nothing else is done.
  absl::Status Admit(const grpc::CallbackServerContext& context, Call call) const;

  // For good: until the process ends.
  void Fence() { fenced_.store(true, std::memory_order_release); }
  bool fenced() const { return fenced_.load(std::memory_order_acquire); }

 private:
  const raft::RaftNode* const node_;
  std::atomic<bool> fenced_ = false;
};

}  // namespace holdfast::server
