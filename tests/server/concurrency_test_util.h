// Shared by the tests of Election and Lock: who answers (etcd, ours over an etcd, holdfastd), and
// calls that can be left waiting.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "bench/local_cluster.h"
#include "etcd/election.grpc.pb.h"
#include "etcd/lock.grpc.pb.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/election_service.h"
#include "server/lock_service.h"
#include "server/waiting_calls.h"

namespace holdfast::server::testing {

// Long enough for a busy machine; only a failing test waits that long.
inline constexpr absl::Duration kPatience = absl::Seconds(30);
inline constexpr char kEtcd[] = "/usr/bin/etcd";

inline std::shared_ptr<grpc::Channel> Dial(const std::string& endpoint) {
  grpc::ChannelArguments arguments;
  // A channel of its own each time, and quick to come back after a cut.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // How long one attempt may take, on a busy machine.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), arguments);
}

// Of real processes: looks again and again. False if it was not so in time.
inline bool Eventually(const std::function<bool()>& holds, absl::Duration patience = kPatience) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(patience);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// Our services on a port of their own, over any server's public calls.
class OurServices {
 public:
  explicit OurServices(const std::shared_ptr<grpc::Channel>& inner,
                       const WaitingCalls::Limits& limits = WaitingCalls::Limits())
      : calls_(std::make_shared<WaitingCalls>(limits)), election_(calls_), lock_(calls_) {
    if (inner != nullptr) calls_->client().SetChannel(inner);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&election_);
    builder.RegisterService(&lock_);
    server_ = builder.BuildAndStart();
    CHECK(server_ != nullptr);
    channel_ = Dial(fmt::format("127.0.0.1:{}", port));
  }
  ~OurServices() {
    if (server_ != nullptr) Shutdown();
    EXPECT_TRUE(calls_->Drain(kPatience)) << calls_->size() << " calls are left";
  }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  WaitingCalls& calls() { return *calls_; }
  // What is under way is broken off by gRPC.
  void Shutdown() {
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

 private:
  const std::shared_ptr<WaitingCalls> calls_;
  ElectionService election_;
  LockService lock_;
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

// One call that may wait long. Destroyed: cancelled.
template <class Response>
class Pending {
 public:
  Pending() = default;
  ~Pending() {
    Cancel();
    if (started_) done_.WaitForNotification();
  }
  // A generated async method with everything but the context, the answer and the callback bound.
  template <class Start>
  void Begin(Start start) {
    started_ = true;
    start(&context_, &response_, [this](grpc::Status status) {
      status_ = std::move(status);
      done_.Notify();
    });
  }
  grpc::ClientContext& context() { return context_; }
  void Cancel() { context_.TryCancel(); }
  bool done() const { return done_.HasBeenNotified(); }
  bool Done(absl::Duration patience = kPatience) {
    return done_.WaitForNotificationWithTimeout(patience);
  }
  // REQUIRES: done.
  const grpc::Status& status() const { return status_; }
  const Response& response() const { return response_; }

 private:
  grpc::ClientContext context_;
  Response response_;
  grpc::Status status_;
  bool started_ = false;
  absl::Notification done_;
};
using PendingCampaign = Pending<v3electionpb::CampaignResponse>;
using PendingLock = Pending<v3lockpb::LockResponse>;

// Collects what Observe streams.
class Observer {
 public:
  Observer(const std::shared_ptr<grpc::Channel>& channel, const std::string& name)
      : stub_(v3electionpb::Election::NewStub(channel)) {
    request_.set_name(name);
    thread_ = std::thread([this] { Read(); });
  }
  ~Observer() {
    context_.TryCancel();
    thread_.join();
  }
  std::vector<std::string> values() const {
    absl::MutexLock lock(&mutex_);
    return values_;
  }
  std::vector<v3electionpb::LeaderResponse> responses() const {
    absl::MutexLock lock(&mutex_);
    return responses_;
  }
  bool Sees(const std::string& value) {
    return Eventually([&] {
      const std::vector<std::string> seen = values();
      return !seen.empty() && seen.back() == value;
    });
  }

 private:
  void Read() {
    const auto reader = stub_->Observe(&context_, request_);
    v3electionpb::LeaderResponse response;
    while (reader->Read(&response)) {
      absl::MutexLock lock(&mutex_);
      values_.push_back(response.kv().value());
      responses_.push_back(response);
    }
    reader->Finish();
  }

  const std::unique_ptr<v3electionpb::Election::Stub> stub_;
  grpc::ClientContext context_;
  v3electionpb::LeaderRequest request_;
  mutable absl::Mutex mutex_;
  std::vector<std::string> values_ ABSL_GUARDED_BY(mutex_);
  std::vector<v3electionpb::LeaderResponse> responses_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// What a test asks, by plain calls that end. `store` answers KV and Lease, `services` the rest.
class Client {
 public:
  Client(const std::shared_ptr<grpc::Channel>& store,
         const std::shared_ptr<grpc::Channel>& services)
      : services_channel(services),
        kv(etcdserverpb::KV::NewStub(store)),
        leases(etcdserverpb::Lease::NewStub(store)),
        election(v3electionpb::Election::NewStub(services)),
        lock(v3lockpb::Lock::NewStub(services)) {}

  int64_t Grant(int64_t ttl = 600, int64_t id = 0) {
    etcdserverpb::LeaseGrantRequest request;
    request.set_ttl(ttl);
    request.set_id(id);
    etcdserverpb::LeaseGrantResponse response;
    grpc::ClientContext context;
    const grpc::Status status = leases->LeaseGrant(&context, request, &response);
    CHECK_MSG(status.ok(), status.error_message());
    return response.id();
  }
  void Revoke(int64_t id) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(id);
    etcdserverpb::LeaseRevokeResponse response;
    grpc::ClientContext context;
    const grpc::Status status = leases->LeaseRevoke(&context, request, &response);
    CHECK_MSG(status.ok(), status.error_message());
  }
  std::vector<int64_t> Leases() {
    etcdserverpb::LeaseLeasesResponse response;
    grpc::ClientContext context;
    CHECK(leases->LeaseLeases(&context, {}, &response).ok());
    std::vector<int64_t> ids;
    for (const auto& lease : response.leases()) ids.push_back(lease.id());
    return ids;
  }
  // All keys of a name, oldest first.
  etcdserverpb::RangeResponse Keys(const std::string& name) {
    etcdserverpb::RangeRequest request;
    request.set_key(name + "/");
    request.set_range_end(name + "0");
    request.set_sort_target(etcdserverpb::RangeRequest::CREATE);
    request.set_sort_order(etcdserverpb::RangeRequest::ASCEND);
    etcdserverpb::RangeResponse response;
    grpc::ClientContext context;
    const grpc::Status status = kv->Range(&context, request, &response);
    CHECK_MSG(status.ok(), status.error_message());
    return response;
  }
  bool HasKeys(const std::string& name, int count) {
    return Eventually([&] { return Keys(name).kvs_size() == count; });
  }
  int64_t Put(const std::string& key, const std::string& value) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    etcdserverpb::PutResponse response;
    grpc::ClientContext context;
    CHECK(kv->Put(&context, request, &response).ok());
    return response.header().revision();
  }
  void Delete(const std::string& key) {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(key);
    etcdserverpb::DeleteRangeResponse response;
    grpc::ClientContext context;
    CHECK(kv->DeleteRange(&context, request, &response).ok());
  }
  void Compact(int64_t revision) {
    etcdserverpb::CompactionRequest request;
    request.set_revision(revision);
    request.set_physical(true);
    etcdserverpb::CompactionResponse response;
    grpc::ClientContext context;
    CHECK(kv->Compact(&context, request, &response).ok());
  }

  std::unique_ptr<PendingCampaign> Campaign(const std::string& name, int64_t lease,
                                            const std::string& value) {
    auto pending = std::make_unique<PendingCampaign>();
    v3electionpb::CampaignRequest request;
    request.set_name(name);
    request.set_lease(lease);
    request.set_value(value);
    pending->Begin([&](auto* context, auto* response, auto callback) {
      Keep(request, [&](const auto* kept, auto keep) {
        election->async()->Campaign(context, kept, response,
                                    [callback, keep](grpc::Status status) { callback(status); });
      });
    });
    return pending;
  }
  std::unique_ptr<PendingLock> Lock(const std::string& name, int64_t lease,
                                    absl::Duration deadline = absl::InfiniteDuration()) {
    auto pending = std::make_unique<PendingLock>();
    if (deadline != absl::InfiniteDuration()) {
      pending->context().set_deadline(std::chrono::system_clock::now() +
                                      absl::ToChronoMicroseconds(deadline));
    }
    v3lockpb::LockRequest request;
    request.set_name(name);
    request.set_lease(lease);
    pending->Begin([&](auto* context, auto* response, auto callback) {
      Keep(request, [&](const auto* kept, auto keep) {
        lock->async()->Lock(context, kept, response,
                            [callback, keep](grpc::Status status) { callback(status); });
      });
    });
    return pending;
  }
  grpc::Status Unlock(const std::string& key) {
    v3lockpb::UnlockRequest request;
    request.set_key(key);
    v3lockpb::UnlockResponse response;
    grpc::ClientContext context;
    return lock->Unlock(&context, request, &response);
  }
  grpc::Status Resign(const v3electionpb::LeaderKey& leader) {
    v3electionpb::ResignRequest request;
    *request.mutable_leader() = leader;
    v3electionpb::ResignResponse response;
    grpc::ClientContext context;
    return election->Resign(&context, request, &response);
  }
  grpc::Status Proclaim(const v3electionpb::LeaderKey& leader, const std::string& value) {
    v3electionpb::ProclaimRequest request;
    *request.mutable_leader() = leader;
    request.set_value(value);
    v3electionpb::ProclaimResponse response;
    grpc::ClientContext context;
    return election->Proclaim(&context, request, &response);
  }
  grpc::Status Leader(const std::string& name, v3electionpb::LeaderResponse* response) {
    v3electionpb::LeaderRequest request;
    request.set_name(name);
    grpc::ClientContext context;
    return election->Leader(&context, request, response);
  }

  const std::shared_ptr<grpc::Channel> services_channel;
  const std::unique_ptr<etcdserverpb::KV::Stub> kv;
  const std::unique_ptr<etcdserverpb::Lease::Stub> leases;
  const std::unique_ptr<v3electionpb::Election::Stub> election;
  const std::unique_ptr<v3lockpb::Lock::Stub> lock;

 private:
  // A request that lives as long as its call.
  template <class Request, class F>
  static void Keep(const Request& request, F f) {
    auto kept = std::make_shared<Request>(request);
    f(kept.get(), kept);
  }
};

std::unique_ptr<bench::LocalCluster> StartHoldfastd();  // of one member
std::unique_ptr<bench::LocalCluster> StartEtcd();       // of one member
bench::LocalCluster* SharedHoldfastd();                 // the same of ours
// One for all tests of a process that want it; null where etcd is not installed.
bench::LocalCluster* SharedEtcd();

}  // namespace holdfast::server::testing
