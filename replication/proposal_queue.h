// Proposals on the raft thread, from the caller to the log or to the leader.
//
// A proposal is refused only when it certainly was not proposed anywhere; one that was forwarded
// and not refused is the caller's to time out (its outcome is unknown).
// Proposals stay together as they came: a batch is handed over, offered and kept as one, whatever
// its size; only what is larger than kMaxBatchBytes is cut, between two payloads.
// Limits: what waits here came through the node's inbox and was bounded there; forwarded copies are
// forgotten after a while and bounded by kMaxForwardedBytes.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "replication/raft_core.h"

namespace holdfast::raft {

// Payloads that came in one call, or a part of them.
struct ProposalBatch {
  // Called for each slot that was certainly not proposed; the parts of one call share it.
  using Refused = absl::AnyInvocable<void(size_t slot, const absl::Status&)>;

  ProposalBatch() = default;
  ProposalBatch(std::vector<std::string> payloads, Refused refused);
  // A batch of one.
  ProposalBatch(std::string payload, absl::AnyInvocable<void(absl::Status) &&> refused);

  void RefuseAll(const absl::Status& why) const;
  // Cuts off the first payloads, as many as fit into `max_bytes` but at least one.
  ProposalBatch TakeFront(size_t max_bytes);

  std::vector<std::string> payloads;
  size_t first_slot = 0;  // of payloads[0], as its caller counts
  size_t bytes = 0;       // of all payloads, with what it costs to keep them
  int64_t since_ns = 0;   // set by ProposalQueue::Add
  std::shared_ptr<Refused> refused;
};

class ProposalQueue {
 public:
  // `boot`: random per process start; ids begin there, so that none is that of a former life.
  // A proposal that no leader took within `max_wait_ns` is refused; its caller has given up by
  // then.
  ProposalQueue(uint64_t boot, int64_t max_wait_ns)
      : max_wait_ns_(max_wait_ns), next_id_((boot >> 1) + 1) {}

  void Add(ProposalBatch batch, int64_t now_ns);
  // Proposes everything that waits, in its order. REQUIRES: the core knows a leader.
  void OfferTo(RaftCore& core, int64_t now_ns);
  void RefuseWaiting(const absl::Status& why);
  // The leader's word that a forwarded batch was not appended. It waits for the next tick: a leader
  // that is full, or no longer leads, would only refuse it again at once.
  void Refused(uint64_t propose_id);
  void ReleaseRefused();
  // Batches forwarded more than max_wait_ns ago: no refusal will come any more.
  void ForgetForwarded(int64_t now_ns);

 private:
  static constexpr size_t kMaxBatchBytes = size_t{1} << 20;
  static constexpr size_t kMaxWaitingBytes = size_t{64} << 20;
  static constexpr size_t kMaxForwardedBytes = size_t{64} << 20;
  // What went to the leader in one message.
  struct Forwarded {
    int64_t at_ns = 0;
    size_t bytes = 0;
    std::vector<ProposalBatch> batches;
  };

  void Hold(ProposalBatch batch, std::vector<ProposalBatch>& where);
  void Append(RaftCore& core, ProposalBatch batch);
  void Forward(RaftCore& core, Forwarded forwarded);

  const int64_t max_wait_ns_;
  std::vector<ProposalBatch> waiting_;
  std::vector<ProposalBatch> refused_;  // until the next tick; counted in waiting_bytes_
  size_t waiting_bytes_ = 0;
  std::map<uint64_t, Forwarded> forwarded_;
  size_t forwarded_bytes_ = 0;
  uint64_t next_id_;
};

}  // namespace holdfast::raft
