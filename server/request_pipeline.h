// One door for everything that needs the cluster: proposals that wait for their result, and reads
// that wait for their index.
//
// Write path: kv_service -> RequestPipeline::Propose -> RaftNode -> RaftCore (leader) -> LogStore
//             -> StateMachine::Apply -> RequestPipeline::Complete -> kv_service answers.
// Threads: all methods from any thread, none blocks. Callbacks run on the pipeline's own responder
// threads, never on an owner thread of the node: finishing an RPC makes system calls.
// Limits: `max_waiting` proposals and reads; beyond it kTooManyRequests at once.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "holdfast/command.pb.h"
#include "replication/raft_node.h"

namespace holdfast::server {

// What applying one command gave: a status with etcd's exact text (server/etcd_errors.h) or one of
// the responses (headers filled except member id).
struct ApplyResult {
  absl::Status status;
  // Exactly one is set if status is ok and the command has an answer.
  std::unique_ptr<google::protobuf::Message> response;
};

class RequestPipeline {
 public:
  struct Options {
    uint64_t origin = 0;            // random per process start; in every Command
    absl::Duration request_timeout = absl::Seconds(7);  // etcd: 5 s + 2 election timeouts
    absl::Duration election_timeout = absl::Seconds(1);
    size_t max_request_bytes = 1536 * 1024;
    size_t max_waiting = 100000;
    int responder_threads = 1;
    base::Clock* clock = base::RealClock::Get();
  };
  static std::unique_ptr<RequestPipeline> Create(const Options& options);
  virtual ~RequestPipeline() = default;

  // The node is made after the state machine, which needs this pipeline: set once, before use.
  virtual void SetNode(raft::RaftNode* node) = 0;

  // Fills origin and sequence, encodes, proposes. `done` is called exactly once. Errors by outcome:
  // certainly without effect (kNoLeader, kTooManyRequests, kRequestTooLarge, kServerStopped) or
  // unknown (kTimeout*).
  using Done = absl::AnyInvocable<void(ApplyResult) &&>;
  virtual void Propose(holdfast::command::v1::Command command, Done done) = 0;

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

  // Fails everything that waits with kServerStopped; later calls are refused.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
