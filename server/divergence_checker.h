// Runs the check of the members against each other (divergence.h) on a real member.
//
// Three parts: CheckLog remembers what the checks gave here; PeerCheckService answers the leader's
// questions and takes its Fence; DivergenceChecker, on the leader, asks and acts.
//
// A fence, wherever it comes from: this member answers no client from that moment on (Admission),
// hands leadership over if it has it, and stops with a storage::Damage, so that its next start
// repairs it (docs/recovery.md).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/admission.h"
#include "server/apply_listener.h"
#include "server/divergence.h"
#include "server/member_view.h"

namespace holdfast::server {

// Threads: the listener's calls on the apply thread, the rest from any.
class CheckLog : public ApplyListener {
 public:
  // Far more than a leader waits for at a time.
  static constexpr size_t kKept = 4 * Divergence::kRoundsMax;

  void OnApplied(const storage::AppliedState& state, const ApplyEffects& effects,
                 bool events) override;

  // nullopt: not applied yet, or forgotten.
  std::optional<CheckDigest> Find(Index index) const;
  std::optional<CheckResult> Newest() const;

 private:
  struct Kept {
    Index index;
    CheckDigest digest;
  };
  mutable absl::Mutex mutex_;
  std::deque<Kept> kept_ ABSL_GUARDED_BY(mutex_);  // by index, ascending; at most kKept
  std::optional<CheckResult> newest_ ABSL_GUARDED_BY(mutex_);
};

class DivergenceChecker {
 public:
  // How often is looked whether there is something to do.
  static constexpr absl::Duration kTick = absl::Milliseconds(100);
  // For an answer of another member. The checker's thread waits for it; nobody else does.
  static constexpr absl::Duration kCallMax = absl::Milliseconds(500);
  // A leader that differs: for its alarm, and for a successor.
  static constexpr absl::Duration kLeaveMax = absl::Seconds(2);
  // So that the answer to a Fence still goes out.
  static constexpr absl::Duration kFenceGrace = absl::Milliseconds(200);

  struct Options {
    std::string data_dir;
    // The data is not to be trusted: must not return to business as usual.
    std::function<void(const absl::Status&)> on_fatal;
  };
  // All outlive the checker.
  DivergenceChecker(const MemberView& member, const CheckLog* checks, Admission* admission,
                    const Options& options);
  ~DivergenceChecker();

  // This member differs from the majority, says the leader. Returns at once; no client is answered
  // any more, and the process ends soon. Any thread.
  void FenceSelf(Index index, const std::string& why);

  // Idempotent.
  void Stop();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

// What the leader asks (PeerChecks in holdfast/raft.proto).
// Threads: gRPC's; nothing waits here.
class PeerCheckService final : public raft::v1::PeerChecks::Service {
 public:
  // A question about more is not the leader's.
  static constexpr int kIndexesMax = 4 * static_cast<int>(Divergence::kRoundsMax);

  // All outlive the service.
  PeerCheckService(const MemberView& member, const CheckLog* checks, DivergenceChecker* checker)
      : member_(member), checks_(checks), checker_(checker) {}

  // FailedPrecondition: meant for another member or cluster.
  grpc::Status Digests(grpc::ServerContext* context, const raft::v1::DigestsRequest* request,
                       raft::v1::DigestsReply* reply) override;
  grpc::Status Fence(grpc::ServerContext* context, const raft::v1::FenceRequest* request,
                     raft::v1::FenceReply* reply) override;

 private:
  grpc::Status CheckAddressee(uint64_t cluster_id, uint64_t to) const;

  const MemberView member_;
  const CheckLog* const checks_;
  DivergenceChecker* const checker_;
};

}  // namespace holdfast::server
