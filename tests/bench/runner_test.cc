// RunWorker over a fake transport, and the gRPC transport against a fake etcd in this process.
#include "bench/runner.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <map>
#include <set>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "bench/endpoint.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

const std::atomic<bool> kNotCancelled{false};

// Answers at once, or never when `silent` until it is cancelled.
class FakeTransport : public Transport {
 public:
  explicit FakeTransport(bool silent) : silent_(silent) {}

  void Start(uint32_t slot, const Operation& operation) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(in_flight_.insert(slot).second) << "two calls in slot " << slot;
    if (!silent_) ended_.push_back({.slot = slot, .kind = operation.kind, .outcome = {}});
  }
  std::optional<Completion> Next(int64_t deadline_ns) override {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(
                                +[](std::deque<Completion>* q) { return !q->empty(); }, &ended_),
                            absl::Nanoseconds(deadline_ns - MonotonicNs()));
    if (ended_.empty()) return std::nullopt;
    const Completion completion = ended_.front();
    ended_.pop_front();
    in_flight_.erase(completion.slot);
    return completion;
  }
  void CancelOverdue(int64_t) override {}
  void CancelAll() override {
    absl::MutexLock lock(&mutex_);
    for (const uint32_t slot : in_flight_) {
      ended_.push_back({.slot = slot, .kind = OpKind::kPut, .outcome = {.code = 1, .message = {}}});
    }
  }

 private:
  const bool silent_;
  absl::Mutex mutex_;
  std::set<uint32_t> in_flight_;
  std::deque<Completion> ended_;
};

TEST(RunWorkerTest, AClosedLoopMakesExactlyTheTotal) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = kNever, .total = 5000};
  const auto schedule = NewClosedSchedule(10, window);
  FakeTransport transport(false);
  const auto source = NewMixSource({.key_space = 10, .read_ratio = 0.5}, 0, 1);
  RunStats stats(window);
  RunWorker(*schedule, transport, *source, false, kNever, kNotCancelled, stats);
  EXPECT_EQ(stats.ok(), 5000u);
  EXPECT_GT(stats.latency(OpKind::kGet).count(), 2000u);
  EXPECT_GT(stats.latency(OpKind::kPut).count(), 2000u);
}

TEST(RunWorkerTest, AnOpenLoopKeepsItsPaceFromAThreadOfItsOwn) {
  const int64_t begin_ns = MonotonicNs();
  const Window window = {
      .start_ns = begin_ns, .begin_ns = begin_ns, .end_ns = kNever, .total = 100};
  const auto schedule = NewOpenSchedule({.clients = 3, .rate = 1000}, window);
  FakeTransport transport(false);
  const auto source = NewMixSource({.key_space = 10}, 0, 1);
  RunStats stats(window);
  RunWorker(*schedule, transport, *source, true, kNever, kNotCancelled, stats);
  EXPECT_EQ(stats.ok(), 100u);
  EXPECT_GE(stats.Seconds(), 0.099);
}

TEST(RunWorkerTest, ACancelEndsItThoughTheServerIsSilent) {
  const std::atomic<bool> cancelled{true};
  for (const bool open_loop : {false, true}) {
    const int64_t now_ns = MonotonicNs();
    const Window window = {.start_ns = now_ns, .begin_ns = now_ns, .end_ns = kNever};
    const auto schedule = open_loop ? NewOpenSchedule({.clients = 4, .rate = 1000}, window)
                                    : NewClosedSchedule(4, window);
    FakeTransport transport(true);
    const auto source = NewMixSource({.key_space = 10}, 0, 1);
    RunStats stats(window);
    RunWorker(*schedule, transport, *source, open_loop, kNever, cancelled, stats);
    EXPECT_EQ(stats.ok(), 0u);
    EXPECT_EQ(stats.failed(), 4u);
  }
}

// Answers on a thread of its own, as a client library does.
class DeliveringTransport : public Transport {
 public:
  ~DeliveringTransport() override {
    {
      absl::MutexLock lock(&mutex_);
      over_ = true;
    }
    if (thread_.joinable()) thread_.join();
  }

  bool Deliver(std::function<void(const Completion&)> sink) override {
    sink_ = std::move(sink);
    thread_ = std::thread([this] { Answer(); });
    return true;
  }
  void Start(uint32_t slot, const Operation& operation) override {
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(in_flight_.insert(slot).second) << "two calls in slot " << slot;
    asked_.push_back({.slot = slot, .kind = operation.kind});
  }
  void Settle() override {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](bool* inside) { return !*inside; }, &inside_));
    settled_ = true;
  }
  std::optional<Completion> Next(int64_t) override {
    ADD_FAILURE() << "this transport delivers";
    return std::nullopt;
  }
  void CancelOverdue(int64_t) override {}
  void CancelAll() override {}

  bool settled() const { return settled_; }

 private:
  bool Ready() const { return over_ || !asked_.empty(); }

  void Answer() {
    while (true) {
      Completion completion;
      {
        absl::MutexLock lock(&mutex_);
        mutex_.Await(absl::Condition(this, &DeliveringTransport::Ready));
        if (asked_.empty()) return;
        completion = asked_.front();
        asked_.pop_front();
        in_flight_.erase(completion.slot);
        inside_ = true;
      }
      sink_(completion);
      absl::MutexLock lock(&mutex_);
      inside_ = false;
    }
  }

  absl::Mutex mutex_;
  std::set<uint32_t> in_flight_;
  std::deque<Completion> asked_;
  std::function<void(const Completion&)> sink_;
  bool inside_ = false;
  bool over_ = false;
  bool settled_ = false;
  std::thread thread_;
};

TEST(RunWorkerTest, ATransportThatDeliversIsWaitedForAndItsCallsCounted) {
  for (const bool open_loop : {false, true}) {
    const int64_t now_ns = MonotonicNs();
    const Window window = {.start_ns = now_ns, .begin_ns = now_ns, .end_ns = kNever, .total = 300};
    const auto schedule = open_loop ? NewOpenSchedule({.clients = 4, .rate = 10'000}, window)
                                    : NewClosedSchedule(4, window);
    DeliveringTransport transport;
    const auto source = NewMixSource({.key_space = 10}, 0, 1);
    RunStats stats(window);
    RunWorker(*schedule, transport, *source, open_loop, kNever, kNotCancelled, stats);
    EXPECT_EQ(stats.ok(), 300u);
    EXPECT_TRUE(transport.settled());
  }
}

// A KV service in memory that knows who called.
class FakeKv : public etcdserverpb::KV::CallbackService {
 public:
  grpc::ServerUnaryReactor* Put(grpc::CallbackServerContext* context,
                                const etcdserverpb::PutRequest* request,
                                etcdserverpb::PutResponse*) override {
    auto* reactor = context->DefaultReactor();
    absl::MutexLock lock(&mutex_);
    peers_.insert(context->peer());
    keys_[request->key()] = request->value();
    if (silent_) {
      held_.push_back(reactor);
    } else {
      reactor->Finish(refuse_ ? grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many")
                              : grpc::Status::OK);
    }
    return reactor;
  }
  grpc::ServerUnaryReactor* Range(grpc::CallbackServerContext* context,
                                  const etcdserverpb::RangeRequest* request,
                                  etcdserverpb::RangeResponse* response) override {
    auto* reactor = context->DefaultReactor();
    absl::MutexLock lock(&mutex_);
    if (request->serializable()) ++serializable_;
    const auto it = keys_.find(request->key());
    if (it != keys_.end()) response->add_kvs()->set_value(it->second);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  grpc::ServerUnaryReactor* Txn(grpc::CallbackServerContext* context,
                                const etcdserverpb::TxnRequest* request,
                                etcdserverpb::TxnResponse*) override {
    auto* reactor = context->DefaultReactor();
    absl::MutexLock lock(&mutex_);
    for (const auto& op : request->success()) {
      keys_[op.request_put().key()] = op.request_put().value();
    }
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

  void set_refuse(bool refuse) {
    absl::MutexLock lock(&mutex_);
    refuse_ = refuse;
  }
  void set_silent(bool silent) {
    absl::MutexLock lock(&mutex_);
    silent_ = silent;
  }
  void Release() {
    absl::MutexLock lock(&mutex_);
    for (auto* reactor : held_) reactor->Finish(grpc::Status::OK);
    held_.clear();
  }
  std::set<std::string> peers() {
    absl::MutexLock lock(&mutex_);
    return peers_;
  }
  std::map<std::string, std::string> keys() {
    absl::MutexLock lock(&mutex_);
    return keys_;
  }
  int serializable() {
    absl::MutexLock lock(&mutex_);
    return serializable_;
  }

 private:
  absl::Mutex mutex_;
  std::set<std::string> peers_;
  std::map<std::string, std::string> keys_;
  std::vector<grpc::ServerUnaryReactor*> held_;
  bool refuse_ = false;
  bool silent_ = false;
  int serializable_ = 0;
};

class GrpcRunTest : public testing::Test {
 protected:
  GrpcRunTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&kv_);
    server_ = builder.BuildAndStart();
    endpoint_ = "127.0.0.1:" + std::to_string(port);
  }
  ~GrpcRunTest() override {
    kv_.Release();
    server_->Shutdown();
  }

  RunResult RunPlanned(const RunPlan& plan, size_t connections = 1) {
    auto opened = Connections::Open({endpoint_}, connections, absl::Seconds(5));
    EXPECT_TRUE(opened.ok()) << opened.status();
    auto result = bench::Run(**opened, shape_, plan, kNotCancelled);
    EXPECT_TRUE(result.ok()) << result.status();
    return *std::move(result);
  }

  static RunPlan Plan(double read_ratio, uint64_t total) {
    RunPlan plan;
    plan.clients = 8;
    plan.threads = 2;
    plan.total = total;
    plan.source = [read_ratio](uint64_t worker, uint64_t workers) {
      return NewMixSource({.key_space = 100, .read_ratio = read_ratio}, worker, workers);
    };
    return plan;
  }

  FakeKv kv_;
  std::unique_ptr<grpc::Server> server_;
  std::string endpoint_;
  DataShape shape_{"bench/", 10, 32, 1};
};

TEST_F(GrpcRunTest, PutsReachTheServerOverSeparateConnections) {
  const RunResult result = RunPlanned(Plan(0, 2000), 4);
  EXPECT_EQ(result.stats.ok(), 2000u);
  EXPECT_EQ(result.stats.failed(), 0u);
  EXPECT_EQ(result.stats.bytes(), 2000u * 42);
  EXPECT_THAT(kv_.peers(), SizeIs(4));
  ASSERT_THAT(kv_.keys(), SizeIs(100));
  EXPECT_EQ(kv_.keys().begin()->first, "bench/0000");
  EXPECT_EQ(kv_.keys().begin()->second.size(), 32u);
  EXPECT_GT(result.bench_cpu_seconds, 0);
}

TEST_F(GrpcRunTest, GetsOfMissingKeysAreTold) {
  RunPlan plan = Plan(1, 500);
  plan.read = ReadLevel::kSerializable;
  const RunResult result = RunPlanned(plan);
  EXPECT_EQ(result.stats.ok(), 500u);
  EXPECT_EQ(result.stats.not_found(), 500u);
  EXPECT_EQ(kv_.serializable(), 500);
}

TEST_F(GrpcRunTest, ALoadWritesEveryKey) {
  RunPlan plan = Plan(0, LoadBatches(1003, 50));
  plan.source = [](uint64_t worker, uint64_t workers) {
    return NewLoadSource(1003, 50, worker, workers);
  };
  EXPECT_EQ(RunPlanned(plan).stats.failed(), 0u);
  EXPECT_THAT(kv_.keys(), SizeIs(1003));
  plan = Plan(1, 300);
  EXPECT_EQ(RunPlanned(plan).stats.not_found(), 0u);
}

TEST_F(GrpcRunTest, RefusalsAreCountedByCode) {
  kv_.set_refuse(true);
  const RunResult result = RunPlanned(Plan(0, 16));
  EXPECT_EQ(result.stats.ok(), 0u);
  ASSERT_THAT(result.stats.errors(), SizeIs(1));
  EXPECT_EQ(result.stats.errors().at(8).count, 16u);
  EXPECT_EQ(result.stats.errors().at(8).example, "too many");
}

TEST_F(GrpcRunTest, ASilentServerRunsIntoTheTimeout) {
  kv_.set_silent(true);
  RunPlan plan = Plan(0, 8);
  plan.timeout = absl::Milliseconds(150);
  const RunResult result = RunPlanned(plan);
  ASSERT_THAT(result.stats.errors(), SizeIs(1));
  EXPECT_EQ(result.stats.errors().at(4).count, 8u);
  EXPECT_THAT(result.stats.errors().at(4).example, HasSubstr("150ms"));
}

TEST_F(GrpcRunTest, AServerThatGoesAwayIsAnErrorNotAHang) {
  RunPlan plan = Plan(0, 0);
  plan.clients = 2;
  plan.duration = absl::Milliseconds(300);
  auto opened = Connections::Open({endpoint_}, 1, absl::Seconds(5));
  ASSERT_TRUE(opened.ok());
  server_->Shutdown();
  const auto result = bench::Run(**opened, shape_, plan, kNotCancelled);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->stats.ok(), 0u);
  EXPECT_GT(result->stats.errors().at(14).count, 0u);
  // Two clients, a pause of 50 ms after each error.
  EXPECT_LE(result->stats.failed(), 14u);
}

TEST_F(GrpcRunTest, UsageOfServerProcessesIsRead) {
  RunPlan plan = Plan(0, 2000);
  plan.pids = {getpid()};
  const RunResult result = RunPlanned(plan);
  ASSERT_THAT(result.servers, SizeIs(1));
  EXPECT_GT(result.servers[0].cpu_seconds, 0);
  EXPECT_GT(result.servers[0].end.rss_bytes, 1u << 20);
  EXPECT_LE(result.servers[0].end.rss_anon_bytes, result.servers[0].end.rss_bytes);
}

TEST_F(GrpcRunTest, AnUnknownPidIsAnError) {
  auto opened = Connections::Open({endpoint_}, 1, absl::Seconds(5));
  ASSERT_TRUE(opened.ok());
  RunPlan plan = Plan(0, 10);
  plan.pids = {4'194'305};  // above the kernel's greatest pid
  EXPECT_TRUE(absl::IsNotFound(bench::Run(**opened, shape_, plan, kNotCancelled).status()));
}

TEST(ConnectTest, NobodyThereIsAClearError) {
  // Port 1 of loopback: nothing listens, and a test may not bind it by chance.
  const auto status = GetEndpointStatus("127.0.0.1:1", absl::Milliseconds(100)).status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("127.0.0.1:1"));
  const auto opened = Connections::Open({"127.0.0.1:1"}, 1, absl::Milliseconds(100)).status();
  EXPECT_TRUE(absl::IsUnavailable(opened));
}

}  // namespace
}  // namespace holdfast::bench
