// Brings renewals and questions about leases to the leader, from whichever member a client is
// connected to: to this member's lessor if it leads, else over the leader's peer port (PeerLeases).
//
// Natural batching: one call of each kind is in flight, and takes everything that came meanwhile
// when it returns. What was not done for a passing reason (another leader, an entry about the lease
// under way) is tried again until the request timeout.
//
// Threads: Renew and Times from any thread, never block; callbacks run on the router's own thread,
// or at once if refused.
// Why the queue is bounded: kQueuedMax; beyond it ErrTooManyRequests.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/lessor.h"
#include "server/member_view.h"

namespace holdfast::server {

class LeaseRouter {
 public:
  static constexpr size_t kQueuedMax = 200'000;
  // How soon what could not be done is tried again.
  static constexpr absl::Duration kRetryInterval = absl::Milliseconds(20);
  // One call to the leader; it is then begun anew, perhaps with another leader.
  static constexpr absl::Duration kCallTimeout = absl::Seconds(2);

  struct Options {
    absl::Duration timeout = absl::Seconds(7);  // etcd's request timeout
    // Without a leader for so long a request fails, as a write does.
    absl::Duration leaderless_max = absl::Seconds(2);
  };
  // `lessor` outlives the router's Stop, as does everything in `member`.
  LeaseRouter(const MemberView& member, Lessor* lessor, const Options& options);
  ~LeaseRouter() { Stop(); }

  // `done` once. OK: what the leader knew at some instant after the call; of a renewal, found()
  // means that the lease has its whole TTL since then. Unavailable: ErrNoLeader, ErrTimeout,
  // ErrStopped; a renewal may have counted. ResourceExhausted: ErrTooManyRequests.
  using Done = absl::AnyInvocable<void(absl::StatusOr<LeaseTime>) &&>;
  void Renew(int64_t id, Done done);
  void Times(int64_t id, Done done);

  // Answers what waits. No callback runs when it returns. After the lessor's Stop, lest it wait for
  // a round of its. Idempotent; not from a callback.
  void Stop();

 private:
  struct State;
  class Loop;

  void Add(bool renew, int64_t id, Done done);

  const std::shared_ptr<State> state_;
  std::mutex stop_mutex_;  // joins once
  std::thread thread_;
};

}  // namespace holdfast::server
