#include "server/lease_service.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "base/bounded_queue.h"
#include "base/check.h"
#include "base/rng.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/lease_record.h"
#include "server/lease_stream.h"
#include "server/read_terms.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using etcdserverpb::LeaseGrantRequest;
using etcdserverpb::LeaseGrantResponse;
using etcdserverpb::LeaseKeepAliveRequest;
using etcdserverpb::LeaseKeepAliveResponse;
using etcdserverpb::LeaseLeasesRequest;
using etcdserverpb::LeaseLeasesResponse;
using etcdserverpb::LeaseRevokeRequest;
using etcdserverpb::LeaseRevokeResponse;
using etcdserverpb::LeaseTimeToLiveRequest;
using etcdserverpb::LeaseTimeToLiveResponse;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

// Positive, as etcd chooses them: clients print ids in hex, and some parse them as signed.
int64_t RandomLeaseId() {
  int64_t id = 0;
  while (id == 0) id = static_cast<int64_t>(base::RandomSeed() & INT64_MAX);
  return id;
}

absl::Status TooLarge() {
  return absl::ResourceExhaustedError("holdfast: the answer is larger than one message may be");
}

class LeaseServiceImpl : public LeaseService, public etcdserverpb::Lease::CallbackService {
 public:
  LeaseServiceImpl(const Options& options, const MemberView& member, LeaseRouter* router,
                   const Admission* admission)
      : options_(options),
        min_ttl_s_(MinTtlS(options.heartbeat_interval, options.election_timeout)),
        member_(member),
        router_(router),
        admission_(admission),
        scans_(kScansQueuedMax),
        scanner_([this] { ScanLoop(); }),
        watcher_([this] { WatchLeader(); }) {}
  ~LeaseServiceImpl() override { Stop(); }

  grpc::Service* service() override { return this; }
  void Stop() override;

  ServerUnaryReactor* LeaseGrant(CallbackServerContext* context, const LeaseGrantRequest* request,
                                 LeaseGrantResponse* response) override;
  ServerUnaryReactor* LeaseRevoke(CallbackServerContext* context, const LeaseRevokeRequest* request,
                                  LeaseRevokeResponse* response) override;
  grpc::ServerBidiReactor<LeaseKeepAliveRequest, LeaseKeepAliveResponse>* LeaseKeepAlive(
      CallbackServerContext* context) override;
  ServerUnaryReactor* LeaseTimeToLive(CallbackServerContext* context,
                                      const LeaseTimeToLiveRequest* request,
                                      LeaseTimeToLiveResponse* response) override;
  ServerUnaryReactor* LeaseLeases(CallbackServerContext* context, const LeaseLeasesRequest* request,
                                  LeaseLeasesResponse* response) override;

 private:
  using Scan = absl::AnyInvocable<void() &&>;

  template <class Response>
  ServerUnaryReactor* Propose(CallbackServerContext* context, Command command, Response* response);
  // On the scanning thread; the reactor is finished with the status that `scan` gives.
  void QueueScan(ServerUnaryReactor* reactor, absl::AnyInvocable<absl::Status() &&> scan);
  void ScanLoop();
  void WatchLeader();

  absl::Status FillTimeToLive(int64_t id, bool keys, const LeaseTime& time,
                              LeaseTimeToLiveResponse* response) const;
  absl::Status FillLeases(LeaseLeasesResponse* response) const;
  void FillHeader(int64_t revision, etcdserverpb::ResponseHeader* header) const {
    FillClusterHeader(member_, member_.node->status().term, header);
    header->set_revision(revision);
  }
  absl::Status ReadError(absl::Status status) const {
    if (options_.on_fatal && storage::DamageOf(status).has_value()) options_.on_fatal(status);
    return status;
  }

  const Options options_;
  const int64_t min_ttl_s_;
  const MemberView member_;
  LeaseRouter* const router_;
  const Admission* const admission_;
  LeaseStreams streams_;
  base::BoundedQueue<Scan> scans_;
  std::mutex stop_mutex_;  // joins once
  std::mutex watch_mutex_;
  std::condition_variable watch_wake_;
  bool stopping_ = false;  // guarded by watch_mutex_
  std::thread scanner_;    // these two last: they use everything above
  std::thread watcher_;
};

void LeaseServiceImpl::Stop() {
  const std::lock_guard stopping(stop_mutex_);
  {
    const std::lock_guard lock(watch_mutex_);
    stopping_ = true;
    watch_wake_.notify_one();
  }
  streams_.Close(ErrStopped());
  scans_.Close();
  if (watcher_.joinable()) watcher_.join();
  if (scanner_.joinable()) scanner_.join();
}

// ---------------------------------------------------------------- proposals

template <class Response>
ServerUnaryReactor* LeaseServiceImpl::Propose(CallbackServerContext* context, Command command,
                                              Response* response) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->Propose(
      std::move(command), [this, context, response, reactor](ApplyResult result) {
        if (result.status.ok()) {
          AddIncarnation(context, member_.machine->incarnation());
          CHECK(result.response != nullptr);
          response->Swap(static_cast<Response*>(result.response.get()));
          FillHeader(response->header().revision(), response->mutable_header());
        }
        reactor->Finish(ToGrpc(result.status));
      });
  return reactor;
}

ServerUnaryReactor* LeaseServiceImpl::LeaseGrant(CallbackServerContext* context,
                                                 const LeaseGrantRequest* request,
                                                 LeaseGrantResponse* response) {
  absl::Status status = admission_->Admit(*context, Admission::Call::kWrite);
  if (status.ok()) status = admission_->CheckSpace();
  if (status.ok() && request->ttl() > kTtlMaxS) status = ErrLeaseTtlTooLarge();
  if (!status.ok()) return FinishWith(context, ToGrpc(status));
  Command command;
  command.mutable_lease_grant()->set_id(request->id() != 0 ? request->id() : RandomLeaseId());
  command.mutable_lease_grant()->set_ttl_s(std::max(request->ttl(), min_ttl_s_));
  return Propose(context, std::move(command), response);
}

ServerUnaryReactor* LeaseServiceImpl::LeaseRevoke(CallbackServerContext* context,
                                                  const LeaseRevokeRequest* request,
                                                  LeaseRevokeResponse* response) {
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kWrite); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  Command command;
  command.mutable_lease_revoke()->set_id(request->id());
  return Propose(context, std::move(command), response);
}

// ---------------------------------------------------------------- renewals

grpc::ServerBidiReactor<LeaseKeepAliveRequest, LeaseKeepAliveResponse>*
LeaseServiceImpl::LeaseKeepAlive(CallbackServerContext* context) {
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kWrite); !status.ok()) {
    return NewRefusedLeaseStream(status);
  }
  return NewLeaseStream(member_, router_, &streams_, WantsLeader(*context));
}

void LeaseServiceImpl::WatchLeader() {
  // Coarse: the clients in question wait for three election timeouts anyway.
  const auto interval = absl::ToChronoNanoseconds(options_.election_timeout / 2);
  std::unique_lock lock(watch_mutex_);
  while (!watch_wake_.wait_for(lock, interval, [this] { return stopping_; })) {
    lock.unlock();
    const raft::NodeStatus status = member_.node->status();
    if (!status.leader && status.leaderless >= kLeaderlessTimeoutsMax * options_.election_timeout) {
      streams_.EndAll(ErrNoLeader(), /*only_leader_wanting=*/true);
    }
    lock.lock();
  }
}

// ---------------------------------------------------------------- questions

ServerUnaryReactor* LeaseServiceImpl::LeaseTimeToLive(CallbackServerContext* context,
                                                      const LeaseTimeToLiveRequest* request,
                                                      LeaseTimeToLiveResponse* response) {
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kRead); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  ServerUnaryReactor* reactor = context->DefaultReactor();
  // The leader's word first, then a read that is no older than the call: a lease that went in
  // between is told as gone.
  router_->Times(request->id(), [this, request, response, reactor](absl::StatusOr<LeaseTime> time) {
    if (!time.ok()) return reactor->Finish(ToGrpc(time.status()));
    member_.pipeline->LinearizableRead(
        [this, request, response, reactor, time = *time](absl::Status status) {
          if (!status.ok()) return reactor->Finish(ToGrpc(status));
          if (!request->keys()) {
            return reactor->Finish(ToGrpc(FillTimeToLive(request->id(), false, time, response)));
          }
          QueueScan(reactor, [this, request, response, time] {
            return FillTimeToLive(request->id(), true, time, response);
          });
        });
  });
  return reactor;
}

absl::Status LeaseServiceImpl::FillTimeToLive(int64_t id, bool keys, const LeaseTime& time,
                                              LeaseTimeToLiveResponse* response) const {
  const std::shared_ptr<storage::MvccStore> store = member_.machine->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  const auto record = view->GetMeta(LeaseMetaKey(id));
  if (!record.ok()) return ReadError(record.status());
  FillHeader(view->applied().revision, response->mutable_header());
  response->set_id(id);
  if (!time.found() || !record->has_value()) {
    response->set_ttl(-1);
    return absl::OkStatus();
  }
  response->set_ttl(time.left_ms / 1000);
  response->set_grantedttl(time.granted_s);
  if (!keys) return absl::OkStatus();
  size_t bytes = 0;
  const absl::Status scanned = view->ScanLeaseKeys(id, [&](std::string_view key) {
    bytes += key.size();
    if (bytes > kKeysAnswerBytesMax) return false;
    response->add_keys(std::string(key));
    return true;
  });
  if (!scanned.ok()) return ReadError(scanned);
  return bytes > kKeysAnswerBytesMax ? TooLarge() : absl::OkStatus();
}

ServerUnaryReactor* LeaseServiceImpl::LeaseLeases(CallbackServerContext* context,
                                                  const LeaseLeasesRequest*,
                                                  LeaseLeasesResponse* response) {
  if (absl::Status status = admission_->Admit(*context, Admission::Call::kRead); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  ServerUnaryReactor* reactor = context->DefaultReactor();
  QueueScan(reactor, [this, response] { return FillLeases(response); });
  return reactor;
}

absl::Status LeaseServiceImpl::FillLeases(LeaseLeasesResponse* response) const {
  const std::shared_ptr<storage::MvccStore> store = member_.machine->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  FillHeader(view->applied().revision, response->mutable_header());
  bool too_many = false;
  const absl::Status scanned =
      view->ScanMeta(kMetaLeasePrefix, [&](std::string_view key, std::string_view) {
        int64_t id = 0;
        if (!ParseLeaseMetaKey(key, &id)) return true;
        too_many = static_cast<size_t>(response->leases_size()) == kLeasesAnswerMax;
        if (!too_many) response->add_leases()->set_id(id);
        return !too_many;
      });
  if (!scanned.ok()) return ReadError(scanned);
  return too_many ? TooLarge() : absl::OkStatus();
}

void LeaseServiceImpl::QueueScan(ServerUnaryReactor* reactor,
                                 absl::AnyInvocable<absl::Status() &&> scan) {
  Scan job = [reactor, scan = std::move(scan)]() mutable {
    reactor->Finish(ToGrpc(std::move(scan)()));
  };
  if (scans_.TryPush(std::move(job), 1)) return;
  reactor->Finish(ToGrpc(scans_.closed() ? ErrStopped() : ErrTooManyRequests()));
}

void LeaseServiceImpl::ScanLoop() {
  for (;;) {
    std::vector<Scan> scans = scans_.DrainAll();
    if (scans.empty()) return;  // closed
    for (Scan& scan : scans) std::move(scan)();
  }
}

}  // namespace

int64_t LeaseService::MinTtlS(absl::Duration heartbeat_interval, absl::Duration election_timeout) {
  const int64_t ticks = election_timeout / heartbeat_interval;
  return static_cast<int64_t>(
      absl::ToDoubleSeconds(absl::Ceil(heartbeat_interval * (3 * ticks / 2), absl::Seconds(1))));
}

std::unique_ptr<LeaseService> LeaseService::Create(const Options& options, const MemberView& member,
                                                   LeaseRouter* router,
                                                   const Admission* admission) {
  return std::make_unique<LeaseServiceImpl>(options, member, router, admission);
}

}  // namespace holdfast::server
