// Changes the membership, on whichever member it was asked for: here if this one leads, else over
// the leader's peer port.
//
// Errors by outcome, for a change must never be reported as failed when it may have happened:
//   certainly not done   etcd's refusals (member_rules.h), ErrNoLeader, ErrTooManyRequests,
//                        ErrStopped before it was proposed, "holdfast: ... nothing was changed"
//   unknown              ErrTimeout, ErrTimeoutDueToConnectionLost: list the members
// What is certainly not done for a passing reason (no leader, another change under way) is tried
// again until `timeout`.
//
// Threads: Change never blocks; each change waits on a thread of its own, at most kWaitingMax: they
// are rare, and made by people. Lead blocks.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/member_change.h"
#include "server/member_view.h"

namespace holdfast::server {

class MemberChanger {
 public:
  static constexpr size_t kWaitingMax = 16;
  static constexpr absl::Duration kRetryInterval = absl::Milliseconds(50);
  // How long an answer waits until this member shows the change that the leader made.
  static constexpr absl::Duration kShownWaitMax = absl::Seconds(1);

  struct Options {
    absl::Duration timeout = absl::Seconds(7);  // etcd's request timeout
    // Without a leader for so long a change fails, as a write does.
    absl::Duration leaderless_max = absl::Seconds(2);
  };
  MemberChanger(const MemberView& member, const Options& options);
  ~MemberChanger() { Stop(); }

  // `done` once, on a thread of this class, or at once with ErrTooManyRequests or ErrStopped. OK:
  // the membership with the change in it, which this member's own list shows too.
  using Result = absl::StatusOr<raft::Membership>;
  using Done = absl::AnyInvocable<void(Result) &&>;
  void Change(raft::MemberChange change, Done done);

  // A new id: random, never 0.
  static NodeId NewId();

  // For the peer port: tries once, as the leader. `retry`: certainly not done, and another try,
  // here or at another leader, may succeed.
  struct Led {
    Result result;
    bool retry = false;
  };
  Led Lead(const raft::MemberChange& change, absl::Duration timeout);

  // Answers everything that waits: ErrStopped, or ErrTimeout where the outcome is unknown. No call
  // into the node after it returns. Idempotent.
  void Stop();

 private:
  struct State;  // shared with callbacks that the node may make after Stop

  void Work(raft::MemberChange change, Done done);
  Result Run(const raft::MemberChange& change);
  Led Forward(NodeId leader, const raft::MemberChange& change, absl::Duration timeout);
  Led ForwardTo(const std::string& url, NodeId leader, const raft::MemberChange& change,
                absl::Duration timeout);
  std::set<NodeId> ActiveMembers() const;
  void WaitUntilShown(const raft::MemberChange& change);
  bool Sleep(absl::Duration duration);  // false: stopped
  void JoinFinished();

  const MemberView member_;
  const Options options_;
  const std::shared_ptr<State> state_;
};

}  // namespace holdfast::server
