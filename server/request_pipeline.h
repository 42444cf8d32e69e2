// One door for everything that needs the cluster: proposals that wait for their result, and reads
// that wait for their index.
//
// Write path: kv_service -> RequestPipeline::Propose -> RaftNode -> RaftCore (leader) -> LogStore
//             -> StateMachine::Apply -> RequestPipeline::Complete -> kv_service answers.
// Threads: all methods from any thread, none blocks. Callbacks run on the pipeline's own responder
// threads, never on an owner thread of the node: finishing an RPC makes system calls. (But for
// ProposeShort; and after Stop there are none left: then a callback runs on the thread that brings
// its answer.)
// Lifetime: the node holds callbacks into the pipeline, so the pipeline must outlive it; and Stop
// comes before the node is destroyed, as does the last call of Propose, LinearizableRead and
// FreshClaim.
// Limits: `max_waiting` proposals (each of a batch counts) and reads; beyond it kTooManyRequests at
// once. The responders' queues hold answers of waiting requests only, so the same limit bounds
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "holdfast/command.pb.h"
#include "replication/raft_node.h"

namespace holdfast::server {

// What applying one command gave: a status with etcd's exact text (server/etcd_errors.h) or one of
// the responses (of the header, only the revision is filled).
struct ApplyResult {
  absl::Status status;
  // Exactly one is set if status is ok and the command has an answer.
  std::unique_ptr<google::protobuf::Message> response;
  // Of a stamped write (server/apply_session.h): whether this is what its stamp is answered for
  // good (kFinal), and was answered before (kRepeated). kNone: of no stamp, or nothing is settled
  // yet.
  enum class Stamp { kNone, kFinal, kRepeated } stamp = Stamp::kNone;
};

class RequestPipeline {
 public:
  struct Options {
    uint64_t origin = 0;  // random per process start; in every Command
    absl::Duration request_timeout = absl::Seconds(7);  // etcd: 5 s + 2 election timeouts
    absl::Duration election_timeout = absl::Seconds(1);
    // Without a leader for this many election timeouts, what waits since as long is answered at
    // once: writes must fail fast when the quorum is gone.
    double leaderless_grace = 2.0;
    size_t max_request_bytes = 1536 * 1024;
    size_t max_waiting = 100000;
    int responder_threads = 1;
    // How often deadlines are looked at, while something waits.
    absl::Duration sweep_interval = absl::Milliseconds(50);
    base::Clock* clock = base::RealClock::Get();
  };
  // REQUIRES: origin != 0, responder_threads > 0.
  static std::unique_ptr<RequestPipeline> Create(const Options& options);
  virtual ~RequestPipeline() = default;

  // The node is made after the state machine, which needs this pipeline: set once, before use.
  virtual void SetNode(raft::RaftNode* node) = 0;

  // Fills origin and sequence, encodes, proposes. `done` is called exactly once. Errors by outcome:
  // certainly without effect (ErrNoLeader, ErrTooManyRequests, ErrRequestTooLarge, ErrStopped while
  // refused; InvalidArgument for a command that could not be read back) or unknown (ErrTimeout*,
  // ErrStopped for what waited when Stop came).
  using Done = absl::AnyInvocable<void(ApplyResult) &&>;
  virtual void Propose(holdfast::command::v1::Command command, Done done) = 0;
  // As Propose, for a `done` that is as short as handing it over would be: the result of a command
  // that is applied all alone is told right there, on the apply thread, which saves a lone caller
  // the wake of a responder. It must not call Stop, nor wait for anything.
  virtual void ProposeShort(holdfast::command::v1::Command command, Done done) {
    Propose(std::move(command), std::move(done));
  }

  // As Propose for each command, in this order, at the price of about one: sets origin and sequence
  // in the commands and encodes them; they are not needed after the call. `done` is called with
  // results until each slot was told exactly once, a few at a time, never two calls at once.
  struct SlotResult {
    size_t slot = 0;
    ApplyResult result = {};
  };
  using BatchDone = absl::AnyInvocable<void(absl::Span<SlotResult> results)>;
  virtual void ProposeBatch(absl::Span<holdfast::command::v1::Command* const> commands,
                            BatchDone done) = 0;

  // `done` with OK once a read of the applied state is linearizable.
  using ReadDone = absl::AnyInvocable<void(absl::Status) &&>;
  virtual void LinearizableRead(ReadDone done) = 0;
  // As RaftNode::FreshClaim, on a responder thread.
  virtual void FreshClaim(absl::Duration max_age, absl::Duration timeout,
                          absl::AnyInvocable<void() &&> done) = 0;

  // From the state machine (apply thread), once a batch is committed to the store: the results of
  // all commands of this process in it. Cheap: hands over and returns.
  struct Completion {
    uint64_t sequence = 0;
    ApplyResult result;
  };
  virtual void Complete(std::vector<Completion> completions) = 0;
  virtual uint64_t origin() const = 0;

  // Fails everything that waits with ErrStopped; later calls are refused. Returns when no callback
  // runs on a responder thread, nor one of ProposeShort where its command was applied; a result
  // that was on its way to a responder may still be told on the thread that brings it. Idempotent.
  // Not from a callback.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
