// etcd's Maintenance service, as far as it is there: Status, Alarm's list, Defragment, MoveLeader.
//
// Threads: gRPC's. Defragment flushes on a thread of its own, one at a time: nothing else waits.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/member_view.h"

namespace holdfast::server {

class MaintenanceService final : public etcdserverpb::Maintenance::CallbackService {
 public:
  // The node gives up after an election timeout, which may be long.
  static constexpr absl::Duration kTransferWaitMax = absl::Seconds(10);

  // `on_fatal`: the store could not be flushed; must not return to business as usual.
  MaintenanceService(const MemberView& member, std::function<void(const absl::Status&)> on_fatal)
      : member_(member), on_fatal_(std::move(on_fatal)) {}
  ~MaintenanceService() override;

  // Of this member alone, with or without a leader, at once. Carries
  // kv_service.h's freshness trailers.
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const etcdserverpb::StatusRequest* request,
                                   etcdserverpb::StatusResponse* response) override;
  // GET: linearizable, and always empty, for nothing raises an alarm yet. Others: UNIMPLEMENTED.
  grpc::ServerUnaryReactor* Alarm(grpc::CallbackServerContext* context,
                                  const etcdserverpb::AlarmRequest* request,
                                  etcdserverpb::AlarmResponse* response) override;
  // Space is freed in the background all the time, so there is nothing to defragment. Memory is
  // written to files, so that sizes told afterwards are those of the disk.
  grpc::ServerUnaryReactor* Defragment(grpc::CallbackServerContext* context,
                                       const etcdserverpb::DefragmentRequest* request,
                                       etcdserverpb::DefragmentResponse* response) override;

  // Asked of the leader. ErrNotLeader; ErrBadLeaderTransferee: no voter; ErrTimeoutLeaderTransfer:
  // the other did not take over within an election timeout, and this member leads on.
  grpc::ServerUnaryReactor* MoveLeader(grpc::CallbackServerContext* context,
                                       const etcdserverpb::MoveLeaderRequest* request,
                                       etcdserverpb::MoveLeaderResponse* response) override;

  // UNIMPLEMENTED, with a text.
  grpc::ServerUnaryReactor* Hash(grpc::CallbackServerContext* context,
                                 const etcdserverpb::HashRequest* request,
                                 etcdserverpb::HashResponse* response) override;
  grpc::ServerUnaryReactor* HashKV(grpc::CallbackServerContext* context,
                                   const etcdserverpb::HashKVRequest* request,
                                   etcdserverpb::HashKVResponse* response) override;
  grpc::ServerWriteReactor<etcdserverpb::SnapshotResponse>* Snapshot(
      grpc::CallbackServerContext* context, const etcdserverpb::SnapshotRequest* request) override;

 private:
  // The answer to give at once instead of serving, if any.
  grpc::Status CheckLeaderWish(const grpc::CallbackServerContext& context) const;

  const MemberView member_;
  const std::function<void(const absl::Status&)> on_fatal_;
  absl::Mutex mutex_;
  bool flushing_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread flusher_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::server
