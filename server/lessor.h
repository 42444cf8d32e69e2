// The leader's knowledge of time: expires leases, renews them, tells how long they last.
//
// One thread around a LessorCore (which holds the rules). It watches whether this member leads.
// When it does, a read round of its own term shows that everything older is applied; then the
// leases are loaded from a view of the store, and from there on followed by what the state machine
// applies: changes are gathered from before the view on, and those that the view has are passed
// over. A member that does not lead keeps nothing.
//
// Threads: Ask and the listener's calls from any thread; none blocks.
// Why no queue grows without bound: asks are refused beyond kQueuedIdsMax ids. Changes are gathered
// only while this member leads; the thread takes them many times faster than the log can bring
// them, but for the seconds of a load.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "replication/raft_node.h"
#include "server/apply_listener.h"
#include "server/lessor_core.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server {

// Counted since the start of this process.
struct LeaseStats {
  uint64_t leases = 0;       // that this member keeps time for: all of them on the leader, else 0
  uint64_t granted = 0;      // as applied here
  uint64_t revoked = 0;      // as applied here, for whatever reason
  uint64_t renewed = 0;      // by this member as the leader
  uint64_t expired = 0;      // by this member as the leader
  uint64_t checkpoints = 0;  // leases in checkpoints, as applied here
};

class Lessor : public ApplyListener {
 public:
  struct Options {
    absl::Duration election_timeout = absl::Seconds(1);
    base::Clock* clock = base::RealClock::Get();
    // The store could not be read: must not return to business as usual. Null (tests): ignored.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
  };
  // Ids in asks that wait: 8 MiB.
  static constexpr size_t kQueuedIdsMax = size_t{1} << 20;
  // Of one ask.
  static constexpr size_t kAskIdsMax = 10'000;
  // How long the round that begins a term, or one that asks wait for, may take before it is begun
  // anew.
  static constexpr absl::Duration kRoundTimeout = absl::Seconds(5);

  explicit Lessor(const Options& options);
  ~Lessor() override { Stop(); }

  // All outlive the lessor's Stop. Once; add it to the machine's listeners before the node starts.
  void Start(raft::RaftNode* node, RequestPipeline* pipeline, KvStateMachine* machine);

  // The times of leases, in the order of `ids`; if `renew`, after giving each its TTL anew. `done`
  // once, on the lessor's thread or at once. Linearizable.
  //   FailedPrecondition  this member does not lead (any more): nothing was done, ask the leader
  //   ResourceExhausted   ErrTooManyRequests
  //   Unavailable         ErrStopped
  // REQUIRES: ids.size() <= kAskIdsMax.
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::vector<LeaseTime>>) &&>;
  void Ask(std::vector<int64_t> ids, bool renew, Done done);

  LeaseStats stats() const;

  void OnApplied(const storage::AppliedState& state, const ApplyEffects& effects,
                 bool events) override;
  void OnReplaced(const storage::AppliedState& state) override;

  // Answers what waits, ends the thread. Idempotent.
  void Stop();

 private:
  struct State;  // shared with callbacks that come after Stop

  void Run();
  const Options options_;
  const std::shared_ptr<State> state_;
  std::atomic<uint64_t> granted_ = 0, revoked_ = 0, checkpoints_ = 0;
  std::atomic<uint64_t> leases_ = 0, renewed_ = 0, expired_ = 0;

  class Loop;  // what the thread has
  raft::RaftNode* node_ = nullptr;
  RequestPipeline* pipeline_ = nullptr;
  KvStateMachine* machine_ = nullptr;
  std::mutex stop_mutex_;  // joins once
  std::thread thread_;
};

}  // namespace holdfast::server
