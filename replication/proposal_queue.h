// Proposals on the raft thread, from the caller to the log or to the leader.
//
// A proposal is refused only when it certainly was not proposed anywhere; one that was forwarded
// and not refused is the caller's to time out (its outcome is unknown).
// Limits: what waits here came through the node's inbox and was bounded there; forwarded copies are
// forgotten after a while and bounded by kMaxForwardedBytes.
// Threads: one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "replication/raft_core.h"

namespace holdfast::raft {

struct Proposal {
  std::string payload;
  absl::AnyInvocable<void(absl::Status) &&> refused;
  int64_t since_ns = 0;  // set by ProposalQueue::Add
};

class ProposalQueue {
 public:
  // `boot`: random per process start; ids begin there, so that none is that of a former life.
  // A proposal that no leader took within `max_wait_ns` is refused; its caller has given up by
  // then.
  ProposalQueue(uint64_t boot, int64_t max_wait_ns)
      : max_wait_ns_(max_wait_ns), next_id_((boot >> 1) + 1) {}

  void Add(Proposal proposal, int64_t now_ns);
  // Proposes everything that waits, in batches. REQUIRES: the core knows a leader.
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
  struct Forwarded {
    int64_t at_ns = 0;
    size_t bytes = 0;
    std::vector<Proposal> proposals;
  };

  void Hold(Proposal proposal, std::vector<Proposal>& where);

  const int64_t max_wait_ns_;
  std::vector<Proposal> waiting_;
  std::vector<Proposal> refused_;  // until the next tick; counted in waiting_bytes_
  size_t waiting_bytes_ = 0;
  std::map<uint64_t, Forwarded> forwarded_;
  size_t forwarded_bytes_ = 0;
  uint64_t next_id_;
};

}  // namespace holdfast::raft
