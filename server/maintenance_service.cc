#include "server/maintenance_service.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/apply_command.h"
#include "server/downgrade.h"
#include "server/etcd_errors.h"
#include "server/read_terms.h"
#include "server/state_hash.h"
#include "server/version.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

std::string StorageVersion() { return fmt::format("{}.0", kEtcdClusterVersion); }

// As Go prints the message, the space at its end included: etcdctl shows it as it comes.
std::string AlarmText(const AlarmSet::Alarm& alarm) {
  std::string text;
  if (alarm.first != 0) text += fmt::format("memberID:{} ", alarm.first);
  text +=
      fmt::format("alarm:{} ",
                  etcdserverpb::AlarmType_Name(static_cast<etcdserverpb::AlarmType>(alarm.second)));
  return text;
}

int64_t WallTimeMs() { return absl::ToUnixMillis(absl::Now()); }

}  // namespace

MaintenanceService::MaintenanceService(const MemberView& member, const Admission* admission,
                                       const Options& options)
    : member_(member),
      admission_(admission),
      options_(options),
      snapshots_({.version = StorageVersion(), .on_damage = options.on_fatal}) {}

void MaintenanceService::Stop() {
  snapshots_.Stop();
  hasher_.Stop();
  defragmenter_.Stop();
}

grpc::Status MaintenanceService::Admit(const CallbackServerContext& context,
                                       Admission::Call call) const {
  return ToGrpc(admission_->Admit(context, call));
}

void MaintenanceService::FillHeader(etcdserverpb::ResponseHeader* header) const {
  FillClusterHeader(member_, member_.node->status().term, header);
}

void MaintenanceService::StopIfFatal(const absl::Status& status) const {
  if (!status.ok() && options_.on_fatal) options_.on_fatal(status);
}

absl::StatusOr<etcdserverpb::DowngradeInfo> MaintenanceService::ReadDowngrade() const {
  const std::shared_ptr<storage::MvccStore> store = member_.machine->store();
  const auto record = store->NewView()->GetMeta(kMetaDowngrade);
  if (!record.ok()) return record.status();
  etcdserverpb::DowngradeInfo info;
  command::v1::Downgrade stored;
  if (record->has_value() && stored.ParseFromString(**record)) {
    info.set_enabled(stored.enabled());
    info.set_targetversion(stored.target_version());
  }
  return info;
}

ServerUnaryReactor* MaintenanceService::Status(CallbackServerContext* context,
                                               const etcdserverpb::StatusRequest*,
                                               etcdserverpb::StatusResponse* response) {
  if (grpc::Status status = Admit(*context, Admission::Call::kLocal); !status.ok()) {
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
  response->set_storageversion(StorageVersion());
  response->set_dbsizequota(options_.quota_bytes);
  if (auto downgrade = ReadDowngrade(); downgrade.ok()) {
    *response->mutable_downgradeinfo() = *std::move(downgrade);
  } else {
    response->add_errors(std::string(base::Message(downgrade.status())));
  }
  if (!status.leader) response->add_errors(std::string(base::Message(ErrNoLeader())));
  const AlarmSet alarms = member_.machine->alarms();
  for (const AlarmSet::Alarm& alarm : alarms.alarms()) response->add_errors(AlarmText(alarm));
  if (admission_->fenced()) response->add_errors(std::string(base::Message(ErrCorrupt())));
  std::optional<absl::Duration> age;
  if (claim.has_value()) age = claim->AgeAt(member_.clock->Sample());
  AddFreshness(context, age, status.role == raft::Role::kLeader);
  return FinishWith(context, grpc::Status::OK);
}

ServerUnaryReactor* MaintenanceService::Alarm(CallbackServerContext* context,
                                              const etcdserverpb::AlarmRequest* request,
                                              etcdserverpb::AlarmResponse* response) {
  if (grpc::Status status = Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, status);
  }
  command::v1::Command command;
  command::v1::Alarm* alarm = command.mutable_alarm();
  alarm->set_action(static_cast<command::v1::Alarm::Action>(request->action()));
  alarm->set_member_id(request->memberid());
  alarm->set_type(static_cast<uint32_t>(request->alarm()));
  ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->Propose(std::move(command), [this, response, reactor](ApplyResult result) {
    if (result.status.ok()) {
      CHECK(result.response != nullptr);
      response->Swap(static_cast<etcdserverpb::AlarmResponse*>(result.response.get()));
      FillHeader(response->mutable_header());
    }
    reactor->Finish(ToGrpc(result.status));
  });
  return reactor;
}

ServerUnaryReactor* MaintenanceService::Defragment(CallbackServerContext* context,
                                                   const etcdserverpb::DefragmentRequest*,
                                                   etcdserverpb::DefragmentResponse*) {
  if (grpc::Status status = Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, status);
  }
  ServerUnaryReactor* reactor = context->DefaultReactor();
  WorkThread::Job job = [this, reactor](std::atomic<bool>* stop) {
    if (stop->load()) return reactor->Finish(ToGrpc(ErrStopped()));
    const absl::Status status = member_.machine->store()->Defragment(stop);
    StopIfFatal(status);
    // What was rewritten stays; the caller is told that it was not all.
    reactor->Finish(ToGrpc(status.ok() && stop->load() ? ErrStopped() : status));
  };
  if (!defragmenter_.TryPost(std::move(job))) {
    reactor->Finish(ToGrpc(defragmenter_.stopped() ? ErrStopped() : ErrTooManyRequests()));
  }
  return reactor;
}

template <class Run>
ServerUnaryReactor* MaintenanceService::OnHashThread(CallbackServerContext* context, Run run) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  WorkThread::Job job = [this, context, reactor, run](std::atomic<bool>* stop) {
    if (stop->load()) return reactor->Finish(ToGrpc(ErrStopped()));
    const std::shared_ptr<storage::MvccStore> store = member_.machine->store();
    const auto view = store->NewView();
    const auto stopped = [context, stop] { return stop->load() || context->IsCancelled(); };
    absl::Status status = run(*view, stopped);
    if (storage::DamageOf(status).has_value()) StopIfFatal(status);
    if (stop->load()) status = ErrStopped();
    reactor->Finish(ToGrpc(status));
  };
  if (!hasher_.TryPost(std::move(job))) {
    reactor->Finish(ToGrpc(hasher_.stopped() ? ErrStopped() : ErrTooManyRequests()));
  }
  return reactor;
}

ServerUnaryReactor* MaintenanceService::Hash(CallbackServerContext* context,
                                             const etcdserverpb::HashRequest*,
                                             etcdserverpb::HashResponse* response) {
  if (grpc::Status status = Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, status);
  }
  return OnHashThread(context,
                      [this, response](const storage::MvccStore::View& view, StopScan stop) {
                        const absl::StatusOr<uint32_t> hash = HashState(view, stop);
                        if (!hash.ok()) return hash.status();
                        response->set_hash(*hash);
                        FillHeader(response->mutable_header());
                        response->mutable_header()->set_revision(view.applied().revision);
                        return absl::OkStatus();
                      });
}

ServerUnaryReactor* MaintenanceService::HashKV(CallbackServerContext* context,
                                               const etcdserverpb::HashKVRequest* request,
                                               etcdserverpb::HashKVResponse* response) {
  if (grpc::Status status = Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, status);
  }
  return OnHashThread(context, [this, request, response](const storage::MvccStore::View& view,
                                                         StopScan stop) {
    const absl::StatusOr<uint32_t> hash = HashRecords(view, request->revision(), stop);
    if (!hash.ok()) return hash.status();
    const storage::AppliedState& applied = view.applied();
    response->set_hash(*hash);
    // etcd says -1 where nothing was ever compacted.
    response->set_compact_revision(applied.compact_revision > 0 ? applied.compact_revision : -1);
    response->set_hash_revision(request->revision() > 0 ? request->revision() : applied.revision);
    FillHeader(response->mutable_header());
    response->mutable_header()->set_revision(applied.revision);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<etcdserverpb::SnapshotResponse>* MaintenanceService::Snapshot(
    CallbackServerContext* context, const etcdserverpb::SnapshotRequest*) {
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return SnapshotStreams::Refuse(status);
  }
  return snapshots_.Start(context, [this] {
    std::shared_ptr<storage::MvccStore> store = member_.machine->store();
    auto view = store->NewView();
    LOG_INFO("a backup of revision {} is read from this member", view->applied().revision);
    return SnapshotExport::Create(std::move(store), std::move(view),
                                  {.cluster_id = member_.cluster_id,
                                   .incarnation = member_.machine->incarnation(),
                                   .version = std::string(kVersion),
                                   .wall_time_unix_ms = WallTimeMs()});
  });
}

ServerUnaryReactor* MaintenanceService::MoveLeader(CallbackServerContext* context,
                                                   const etcdserverpb::MoveLeaderRequest* request,
                                                   etcdserverpb::MoveLeaderResponse*) {
  if (grpc::Status status = Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, status);
  }
  const raft::NodeStatus status = member_.node->status();
  if (status.role != raft::Role::kLeader) return FinishWith(context, ToGrpc(ErrNotLeader()));
  const NodeId to(request->targetid());
  // 0 would be anybody to the node; etcd knows no such wish.
  if (!to || !status.membership->voters.contains(to)) {
    return FinishWith(context, ToGrpc(ErrBadLeaderTransferee()));
  }
  if (to == member_.self) return FinishWith(context, grpc::Status::OK);
  ServerUnaryReactor* reactor = context->DefaultReactor();
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

void MaintenanceService::ProposeDowngrade(ServerUnaryReactor* reactor, bool enabled,
                                          std::string target,
                                          etcdserverpb::DowngradeResponse* response) {
  command::v1::Command command;
  command.mutable_downgrade()->set_enabled(enabled);
  command.mutable_downgrade()->set_target_version(std::move(target));
  member_.pipeline->Propose(std::move(command), [this, reactor, response](ApplyResult result) {
    if (result.status.ok()) {
      CHECK(result.response != nullptr);
      response->Swap(static_cast<etcdserverpb::DowngradeResponse*>(result.response.get()));
      FillHeader(response->mutable_header());
      response->set_version(StorageVersion());
    }
    reactor->Finish(ToGrpc(result.status));
  });
}

ServerUnaryReactor* MaintenanceService::Downgrade(CallbackServerContext* context,
                                                  const etcdserverpb::DowngradeRequest* request,
                                                  etcdserverpb::DowngradeResponse* response) {
  using Request = etcdserverpb::DowngradeRequest;
  if (grpc::Status status = Admit(*context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, status);
  }
  const Request::DowngradeAction action = request->action();
  if (action != Request::VALIDATE && action != Request::ENABLE && action != Request::CANCEL) {
    return FinishWith(context, ToGrpc(ErrUnknownMethod()));
  }
  std::string target;
  if (action != Request::CANCEL) {
    absl::StatusOr<std::string> checked =
        CheckDowngradeTarget(request->version(), kEtcdClusterVersion);
    if (!checked.ok()) return FinishWith(context, ToGrpc(checked.status()));
    target = *std::move(checked);
  }
  ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->LinearizableRead(
      [this, action, reactor, target, response](absl::Status status) mutable {
        if (!status.ok()) return reactor->Finish(ToGrpc(status));
        const absl::StatusOr<etcdserverpb::DowngradeInfo> info = ReadDowngrade();
        if (!info.ok()) return reactor->Finish(ToGrpc(info.status()));
        if (action == Request::CANCEL) {
          if (!info->enabled()) return reactor->Finish(ToGrpc(ErrNoInflightDowngrade()));
          return ProposeDowngrade(reactor, false, "", response);
        }
        if (info->enabled()) return reactor->Finish(ToGrpc(ErrDowngradeInProcess()));
        if (action == Request::ENABLE) {
          return ProposeDowngrade(reactor, true, std::move(target), response);
        }
        FillHeader(response->mutable_header());
        response->mutable_header()->set_revision(member_.machine->applied_state().revision);
        response->set_version(StorageVersion());
        reactor->Finish(grpc::Status::OK);
      });
  return reactor;
}

}  // namespace holdfast::server
