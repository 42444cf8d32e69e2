// etcd's Maintenance service. docs/maintenance.md tells where its answers differ from etcd's.
//
// Threads: gRPC's. What reads or rewrites everything has threads of its own, with bounds: hashes
// (kHashesMax waiting), one defragmentation, SnapshotStreams::kStreamsMax snapshots.
#pragma once

#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/admission.h"
#include "server/member_view.h"
#include "server/snapshot_stream.h"
#include "server/work_thread.h"

namespace holdfast::server {

class MaintenanceService final : public etcdserverpb::Maintenance::CallbackService {
 public:
  // The node gives up after an election timeout, which may be long.
  static constexpr absl::Duration kTransferWaitMax = absl::Seconds(10);
  static constexpr size_t kHashesMax = 16;

  struct Options {
    // The store could not be written or read: must not return to business as usual. Null (tests
    // only): the error is the answer.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
    int64_t quota_bytes = 0;  // told in Status; 0: none
  };
  // Both outlive the service.
  MaintenanceService(const MemberView& member, const Admission* admission, const Options& options);
  ~MaintenanceService() override { Stop(); }

  // Answers what waits or streams with ErrStopped, and ends the threads. Before the gRPC server is
  // shut down, which would wait for them. Idempotent.
  void Stop();

  // Of this member alone, with or without a leader, at once. Carries kv_service.h's freshness
  // trailers.
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const etcdserverpb::StatusRequest* request,
                                   etcdserverpb::StatusResponse* response) override;
  // All three actions through the log, GET too: as etcd, it fails without a quorum.
  grpc::ServerUnaryReactor* Alarm(grpc::CallbackServerContext* context,
                                  const etcdserverpb::AlarmRequest* request,
                                  etcdserverpb::AlarmResponse* response) override;
  // Gives the space of deleted and compacted records back at once, instead of some time. Nobody
  // waits for it but the caller. One at a time: ErrTooManyRequests.
  grpc::ServerUnaryReactor* Defragment(grpc::CallbackServerContext* context,
                                       const etcdserverpb::DefragmentRequest* request,
                                       etcdserverpb::DefragmentResponse* response) override;
  // state_hash.h, of this member's own state.
  grpc::ServerUnaryReactor* Hash(grpc::CallbackServerContext* context,
                                 const etcdserverpb::HashRequest* request,
                                 etcdserverpb::HashResponse* response) override;
  grpc::ServerUnaryReactor* HashKV(grpc::CallbackServerContext* context,
                                   const etcdserverpb::HashKVRequest* request,
                                   etcdserverpb::HashKVResponse* response) override;
  grpc::ServerWriteReactor<etcdserverpb::SnapshotResponse>* Snapshot(
      grpc::CallbackServerContext* context, const etcdserverpb::SnapshotRequest* request) override;
  // Asked of the leader. ErrNotLeader; ErrBadLeaderTransferee: no voter; ErrTimeoutLeaderTransfer:
  // the other did not take over within an election timeout, and this member leads on.
  grpc::ServerUnaryReactor* MoveLeader(grpc::CallbackServerContext* context,
                                       const etcdserverpb::MoveLeaderRequest* request,
                                       etcdserverpb::MoveLeaderResponse* response) override;
  // downgrade.h. The answer's version is the cluster's.
  grpc::ServerUnaryReactor* Downgrade(grpc::CallbackServerContext* context,
                                      const etcdserverpb::DowngradeRequest* request,
                                      etcdserverpb::DowngradeResponse* response) override;

 private:
  grpc::Status Admit(const grpc::CallbackServerContext& context, Admission::Call call) const;
  void FillHeader(etcdserverpb::ResponseHeader* header) const;  // all but the revision
  void StopIfFatal(const absl::Status& status) const;
  // Runs `hash` on the thread for it, with a view and its StopScan.
  template <class Run>
  grpc::ServerUnaryReactor* OnHashThread(grpc::CallbackServerContext* context, Run run);
  void ProposeDowngrade(grpc::ServerUnaryReactor* reactor, bool enabled, std::string target,
                        etcdserverpb::DowngradeResponse* response);
  absl::StatusOr<etcdserverpb::DowngradeInfo> ReadDowngrade() const;

  const MemberView member_;
  const Admission* const admission_;
  const Options options_;
  SnapshotStreams snapshots_;
  WorkThread hasher_{kHashesMax};
  WorkThread defragmenter_{0};
};

}  // namespace holdfast::server
