#include "server/maintenance_service.h"

#include <optional>
#include <string>
#include <utility>

#include "base/strings.h"
#include "server/etcd_errors.h"
#include "server/read_terms.h"
#include "server/version.h"

namespace holdfast::server {
namespace {

grpc::Status NotInThisRelease(const std::string& text) {
  return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "holdfast: " + text);
}

// A stream that ends with a status before its first message.
class RefusedStream : public grpc::ServerWriteReactor<etcdserverpb::SnapshotResponse> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

MaintenanceService::~MaintenanceService() {
  std::thread flusher;
  {
    absl::MutexLock lock(&mutex_);
    flusher = std::move(flusher_);
  }
  if (flusher.joinable()) flusher.join();
}

grpc::Status MaintenanceService::CheckLeaderWish(const grpc::CallbackServerContext& context) const {
  const bool missing = WantsLeader(context) && !member_.node->status().leader;
  return missing ? ToGrpc(ErrNoLeader()) : grpc::Status::OK;
}

grpc::ServerUnaryReactor* MaintenanceService::Status(grpc::CallbackServerContext* context,
                                                     const etcdserverpb::StatusRequest*,
                                                     etcdserverpb::StatusResponse* response) {
  if (grpc::Status status = CheckLeaderWish(*context); !status.ok()) {
    return FinishWith(context, status);
  }
  // The claim first: the state looked at after it is at least as new.
  const std::optional<raft::Claim> claim = member_.node->claim();
  const raft::NodeStatus status = member_.node->status();
  const storage::AppliedState applied = member_.machine->applied_state();
  const std::shared_ptr<storage::MvccStore> store = member_.machine->store();

  FillClusterHeader(member_, status.term, response->mutable_header());
  response->mutable_header()->set_revision(applied.revision);
  response->set_version(std::string(kEtcdApiVersion));
  response->set_dbsize(static_cast<int64_t>(store->disk_bytes()));
  response->set_dbsizeinuse(static_cast<int64_t>(store->in_use_bytes()));
  response->set_leader(status.leader.value);
  response->set_raftindex(status.commit.value);
  response->set_raftterm(status.term.value);
  response->set_raftappliedindex(applied.index.value);
  response->set_islearner(status.is_learner);
  if (!status.leader) response->add_errors(std::string(base::Message(ErrNoLeader())));
  std::optional<absl::Duration> age;
  if (claim.has_value()) age = claim->AgeAt(member_.clock->Sample());
  AddFreshness(context, age, status.role == raft::Role::kLeader);
  return FinishWith(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* MaintenanceService::Alarm(grpc::CallbackServerContext* context,
                                                    const etcdserverpb::AlarmRequest* request,
                                                    etcdserverpb::AlarmResponse* response) {
  if (grpc::Status status = CheckLeaderWish(*context); !status.ok()) {
    return FinishWith(context, status);
  }
  if (request->action() != etcdserverpb::AlarmRequest::GET) {
    return FinishWith(context, NotInThisRelease("alarms cannot be set or cleared in this release; "
                                                "none is ever raised"));
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->LinearizableRead([this, response, reactor](absl::Status status) {
    if (status.ok()) {
      FillClusterHeader(member_, member_.node->status().term, response->mutable_header());
      response->mutable_header()->set_revision(member_.machine->applied_state().revision);
    }
    reactor->Finish(ToGrpc(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* MaintenanceService::Defragment(grpc::CallbackServerContext* context,
                                                         const etcdserverpb::DefragmentRequest*,
                                                         etcdserverpb::DefragmentResponse*) {
  if (grpc::Status status = CheckLeaderWish(*context); !status.ok()) {
    return FinishWith(context, status);
  }
  absl::MutexLock lock(&mutex_);
  if (flushing_) return FinishWith(context, ToGrpc(ErrTooManyRequests()));
  // The one before has cleared flushing_, so it is at its end.
  if (flusher_.joinable()) flusher_.join();
  flushing_ = true;
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  flusher_ = std::thread([this, reactor, store = member_.machine->store()] {
    const absl::Status status = store->Flush().status();
    if (!status.ok()) on_fatal_(status);
    {
      absl::MutexLock done(&mutex_);
      flushing_ = false;
    }
    reactor->Finish(ToGrpc(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* MaintenanceService::Hash(grpc::CallbackServerContext* context,
                                                   const etcdserverpb::HashRequest*,
                                                   etcdserverpb::HashResponse*) {
  return FinishWith(context, NotInThisRelease("Hash is not in this release"));
}

grpc::ServerUnaryReactor* MaintenanceService::HashKV(grpc::CallbackServerContext* context,
                                                     const etcdserverpb::HashKVRequest*,
                                                     etcdserverpb::HashKVResponse*) {
  return FinishWith(context, NotInThisRelease("HashKV is not in this release"));
}

grpc::ServerWriteReactor<etcdserverpb::SnapshotResponse>* MaintenanceService::Snapshot(
    grpc::CallbackServerContext*, const etcdserverpb::SnapshotRequest*) {
  return new RefusedStream(NotInThisRelease(
      "snapshots for backup are not in this release; copy a stopped member's data directory"));
}

grpc::ServerUnaryReactor* MaintenanceService::MoveLeader(
    grpc::CallbackServerContext* context, const etcdserverpb::MoveLeaderRequest* request,
    etcdserverpb::MoveLeaderResponse*) {
  const raft::NodeStatus status = member_.node->status();
  if (WantsLeader(*context) && !status.leader) return FinishWith(context, ToGrpc(ErrNoLeader()));
  if (status.role != raft::Role::kLeader) return FinishWith(context, ToGrpc(ErrNotLeader()));
  const NodeId to(request->targetid());
  // 0 would be anybody to the node; etcd knows no such wish.
  if (!to || !status.membership->voters.contains(to)) {
    return FinishWith(context, ToGrpc(ErrBadLeaderTransferee()));
  }
  if (to == member_.self) return FinishWith(context, grpc::Status::OK);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.node->TransferLeadership(to, kTransferWaitMax, [reactor](absl::Status moved) {
    if (absl::IsFailedPrecondition(moved)) moved = ErrNotLeader();
    if (absl::IsNotFound(moved)) moved = ErrBadLeaderTransferee();
    if (absl::IsUnavailable(moved) || absl::IsDeadlineExceeded(moved)) {
      moved = ErrTimeoutLeaderTransfer();
    }
    reactor->Finish(ToGrpc(moved));
  });
  return reactor;
}

}  // namespace holdfast::server
