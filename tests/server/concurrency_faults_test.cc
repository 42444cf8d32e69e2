// Election and Lock when what they stand on fails: the link to the server is cut, history is
// compacted away, callers go at any moment, the server stops.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "bench/tcp_proxy.h"
#include "concurrency_test_util.h"

namespace holdfast::server {
namespace {

using testing::Client;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Observer;
using testing::PendingCampaign;
using testing::PendingLock;

constexpr int kServices = 0;  // ends of the proxy
constexpr int kStore = 1;

// A port that was free a moment ago.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(fd);
  return ntohs(address.sin_port);
}

// The services reach the store through a proxy, the test reaches it directly.
class ConcurrencyFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = testing::SharedEtcd();
    if (store_ == nullptr) GTEST_SKIP() << testing::kEtcd << " is not installed";
    auto proxy = bench::TcpProxy::Start();
    ASSERT_TRUE(proxy.ok());
    proxy_ = *std::move(proxy);
    const int port = FreePort();
    // Nobody dials the services; but every end has a port.
    ASSERT_TRUE(proxy_->Listen(kServices, FreePort(), port).ok());
    ASSERT_TRUE(proxy_->Listen(kStore, port, store_->client_port(0)).ok());
    proxy_->SetProcess(kServices, [] { return getpid(); });
    proxy_->SetProcess(kStore, [this] { return store_->pid(0); });
    direct_ = testing::Dial(store_->endpoint(0));
    ours_ = std::make_unique<testing::OurServices>(
        testing::Dial(fmt::format("127.0.0.1:{}", port)),
        WaitingCalls::Limits{.calls_max = kWaitingMax, .give_up_after = kGiveUpAfter});
    client_ = std::make_unique<Client>(direct_, ours_->channel());
    name_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  static constexpr size_t kWaitingMax = 300;
  static constexpr std::chrono::milliseconds kGiveUpAfter{5'000};
  bench::LocalCluster* store_ = nullptr;
  std::unique_ptr<bench::TcpProxy> proxy_;
  std::shared_ptr<grpc::Channel> direct_;
  std::unique_ptr<testing::OurServices> ours_;
  std::unique_ptr<Client> client_;
  std::string name_;
};

TEST_F(ConcurrencyFaults, DeletionDuringACutIsNotMissed) {
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const auto waiter = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  proxy_->Cut(kServices, kStore);
  client_->Delete(holder->response().key());
  client_->Compact(client_->Put("unrelated", ""));
  EXPECT_FALSE(waiter->Done(absl::Milliseconds(200)));
  proxy_->HealAll();
  ASSERT_TRUE(waiter->Done());
  EXPECT_TRUE(waiter->status().ok()) << waiter->status().error_message();
}

TEST_F(ConcurrencyFaults, LeaseThatGoesDuringACutIsNoSuccess) {
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const int64_t lease = client_->Grant();
  const auto waiter = client_->Lock(name_, lease);
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  proxy_->Cut(kServices, kStore);
  client_->Revoke(lease);
  client_->Delete(holder->response().key());
  proxy_->HealAll();
  ASSERT_TRUE(waiter->Done());
  EXPECT_EQ(waiter->status().error_message(), "mutex: session is expired");
}

TEST_F(ConcurrencyFaults, ObserverSeesTheNewestLeaderAfterACutAndACompaction) {
  client_->Put(name_ + "/1", "a");
  Observer observer(client_->services_channel, name_);
  ASSERT_TRUE(observer.Sees("a"));
  proxy_->Cut(kServices, kStore);
  client_->Put(name_ + "/1", "b");
  client_->Put(name_ + "/2", "c");
  client_->Delete(name_ + "/1");
  client_->Compact(client_->Put("unrelated", ""));
  proxy_->HealAll();
  ASSERT_TRUE(observer.Sees("c"));
  client_->Put(name_ + "/2", "d");
  ASSERT_TRUE(observer.Sees("d"));
  EXPECT_THAT(observer.values(), ElementsAre("a", "c", "d"));
}

TEST_F(ConcurrencyFaults, ObserverMissesNothingOverACut) {
  client_->Put(name_ + "/1", "a");
  Observer observer(client_->services_channel, name_);
  ASSERT_TRUE(observer.Sees("a"));
  proxy_->Cut(kServices, kStore);
  for (const char* value : {"b", "c", "d"}) client_->Put(name_ + "/1", value);
  proxy_->HealAll();
  ASSERT_TRUE(observer.Sees("d"));
  EXPECT_THAT(observer.values(), ElementsAre("a", "b", "c", "d"));
}

// Whoever waits keeps the place, whatever the link does; never two hold the name.
TEST_F(ConcurrencyFaults, LinkCutAgainAndAgainUnderWaitingCalls) {
  constexpr int kCallers = 12;
  std::vector<std::unique_ptr<PendingCampaign>> campaigns;
  for (int i = 0; i < kCallers; ++i) {
    campaigns.push_back(client_->Campaign(name_, client_->Grant(), fmt::format("c{}", i)));
    ASSERT_TRUE(client_->HasKeys(name_, i + 1));
  }
  Observer observer(client_->services_channel, name_);
  ASSERT_TRUE(observer.Sees("c0"));
  for (int i = 0; i < kCallers; ++i) {
    proxy_->Cut(kServices, kStore);
    if (i % 2 == 0) proxy_->HealAll();
    for (int later = i + 1; later < kCallers; ++later) ASSERT_FALSE(campaigns[later]->done());
    // The leader goes as one does whose lease expires.
    client_->Delete(client_->Keys(name_).kvs(0).key());
    proxy_->HealAll();
    ASSERT_TRUE(campaigns[i]->Done()) << i;
    EXPECT_TRUE(campaigns[i]->status().ok()) << i << campaigns[i]->status().error_message();
    if (i + 1 == kCallers) break;
    ASSERT_TRUE(campaigns[i + 1]->Done()) << i;
    ASSERT_TRUE(observer.Sees(fmt::format("c{}", i + 1)));
  }
  EXPECT_TRUE(client_->HasKeys(name_, 0));
}

// A server that does not come back in time: the status as it came, and no success.
TEST_F(ConcurrencyFaults, LinkThatStaysCutEndsTheWait) {
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const auto waiter = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  proxy_->Cut(kServices, kStore);
  ASSERT_TRUE(waiter->Done(absl::Seconds(60)));
  EXPECT_EQ(waiter->status().error_code(), grpc::StatusCode::UNAVAILABLE);
  // What could not be tidied up during the cut is tidied up after it.
  proxy_->HealAll();
  EXPECT_TRUE(client_->HasKeys(name_, 1));
}

TEST_F(ConcurrencyFaults, CallersGoAtAnyMoment) {
  const uint64_t seed = base::RandomSeed();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  std::mt19937_64 random(seed);
  constexpr int kRounds = 8;
  constexpr int kCallers = 40;
  const int64_t holder_lease = client_->Grant();
  std::vector<int64_t> leases;
  for (int i = 0; i < kCallers; ++i) leases.push_back(client_->Grant());
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::unique_ptr<PendingLock>> calls;
    std::vector<std::unique_ptr<Observer>> observers;
    ASSERT_TRUE(Eventually([&] {
      const auto holder = client_->Lock(name_, holder_lease);
      return holder->Done() && holder->status().ok();
    }));
    for (int i = 0; i < kCallers; ++i) {
      const int64_t lease = random() % 4 == 0 ? 0 : leases[i];
      calls.push_back(client_->Lock(name_, lease, absl::Microseconds(random() % 60'000)));
      if (random() % 4 == 0) calls.back()->Cancel();
      if (random() % 10 == 0) {
        observers.push_back(std::make_unique<Observer>(client_->services_channel, name_));
      }
    }
    const bool cut = round % 2 == 1;
    if (cut) proxy_->Cut(kServices, kStore);
    proxy_->HealAll();
    for (const auto& call : calls) {
      ASSERT_TRUE(call->Done());
      ASSERT_FALSE(call->status().ok());
    }
    observers.clear();
    ASSERT_TRUE(Eventually([&] { return ours_->calls().size() == 0; }));
    const etcdserverpb::RangeResponse left = client_->Keys(name_);
    // A put that was under way when the link was cut may have happened without anybody's knowing.
    EXPECT_TRUE(cut || left.kvs_size() == 1) << left.kvs_size();
    for (const mvccpb::KeyValue& kv : left.kvs()) client_->Delete(kv.key());
  }
}

TEST_F(ConcurrencyFaults, SoManyMayWaitAndNoMore) {
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const int64_t lease = client_->Grant();
  std::vector<std::unique_ptr<PendingLock>> waiters;
  for (size_t i = 0; i < kWaitingMax; ++i) waiters.push_back(client_->Lock(name_, lease));
  ASSERT_TRUE(Eventually([&] { return ours_->calls().size() == kWaitingMax; }));
  const auto one_more = client_->Lock(name_, lease);
  ASSERT_TRUE(one_more->Done());
  EXPECT_EQ(one_more->status().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(one_more->status().error_message(), "etcdserver: too many requests");
  waiters.clear();
  EXPECT_TRUE(Eventually([&] { return ours_->calls().size() == 0; }));
  const auto again = client_->Lock(name_ + "2", client_->Grant());
  ASSERT_TRUE(again->Done());
  EXPECT_TRUE(again->status().ok());
}

TEST_F(ConcurrencyFaults, StopAnswersWhoWaitsAndTidiesUp) {
  const auto holder = client_->Campaign(name_, client_->Grant(), "x");
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const auto lock = client_->Lock(name_, 0);
  const auto campaign = client_->Campaign(name_, client_->Grant(), "y");
  ASSERT_TRUE(client_->HasKeys(name_, 3));
  ours_->calls().StopAll();
  ASSERT_TRUE(lock->Done());
  ASSERT_TRUE(campaign->Done());
  for (const grpc::Status& status : {lock->status(), campaign->status()}) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(status.error_message(), "etcdserver: server stopped");
  }
  EXPECT_TRUE(ours_->calls().Drain(testing::kPatience));
  EXPECT_TRUE(client_->HasKeys(name_, 1));
  const auto late = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(late->Done());
  EXPECT_EQ(late->status().error_message(), "etcdserver: server stopped");
}

TEST_F(ConcurrencyFaults, ShutdownOfGrpcWaitsForNoneOfThem) {
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  std::vector<std::unique_ptr<PendingLock>> waiters;
  std::vector<std::unique_ptr<Observer>> observers;
  for (int i = 0; i < 20; ++i) waiters.push_back(client_->Lock(name_, client_->Grant()));
  for (int i = 0; i < 3; ++i) {
    observers.push_back(std::make_unique<Observer>(client_->services_channel, name_));
  }
  ASSERT_TRUE(client_->HasKeys(name_, 21));
  ours_->Shutdown();
  for (const auto& waiter : waiters) {
    ASSERT_TRUE(waiter->Done());
    EXPECT_FALSE(waiter->status().ok());
  }
  EXPECT_TRUE(ours_->calls().Drain(testing::kPatience));
  EXPECT_TRUE(client_->HasKeys(name_, 1));
}

// Remembers who asked, and refuses.
class RefusingKv : public etcdserverpb::KV::Service {
 public:
  grpc::Status Txn(grpc::ServerContext* context, const etcdserverpb::TxnRequest*,
                   etcdserverpb::TxnResponse*) override {
    return Note(*context);
  }
  grpc::Status Range(grpc::ServerContext* context, const etcdserverpb::RangeRequest*,
                     etcdserverpb::RangeResponse*) override {
    return Note(*context);
  }
  std::string noted() const {
    absl::MutexLock lock(&mutex_);
    return noted_;
  }
  std::chrono::system_clock::time_point deadline() const {
    absl::MutexLock lock(&mutex_);
    return deadline_;
  }

 private:
  grpc::Status Note(const grpc::ServerContext& context) {
    absl::MutexLock lock(&mutex_);
    noted_.clear();
    for (const char* key : {"authorization", "hasleader", "token", "other"}) {
      const auto found = context.client_metadata().find(key);
      if (found == context.client_metadata().end()) continue;
      noted_ += fmt::format("{}={} ", key, std::string(found->second.data(), found->second.size()));
    }
    deadline_ = context.deadline();
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "etcdserver: permission denied");
  }

  mutable absl::Mutex mutex_;
  std::string noted_ ABSL_GUARDED_BY(mutex_);
  std::chrono::system_clock::time_point deadline_ ABSL_GUARDED_BY(mutex_);
};

TEST(ConcurrencyTerms, IdentityAndDeadlineArePassedOnAndRefusalsBack) {
  RefusingKv kv;
  grpc::ServerBuilder builder;
  builder.RegisterService(&kv);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  testing::OurServices ours(server->InProcessChannel({}));
  Client client(ours.channel(), ours.channel());

  v3electionpb::LeaderRequest request;
  request.set_name("n");
  v3electionpb::LeaderResponse response;
  const auto ask = [&](auto call) {
    grpc::ClientContext context;
    context.AddMetadata("token", "t.1");
    context.AddMetadata("authorization", "Bearer x");
    context.AddMetadata("hasleader", "true");
    context.AddMetadata("other", "o");
    const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(20);
    context.set_deadline(deadline);
    const grpc::Status status = call(&context);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
    EXPECT_EQ(status.error_message(), "etcdserver: permission denied");
    EXPECT_EQ(kv.noted(), "authorization=Bearer x hasleader=true token=t.1 ");
    return deadline;
  };
  const auto deadline = ask([&](grpc::ClientContext* context) {
    return client.election->Leader(context, request, &response);
  });
  // It travels as the time that is left, in a few digits.
  EXPECT_LT(kv.deadline(), deadline + std::chrono::seconds(1));
  EXPECT_GT(kv.deadline(), deadline - std::chrono::seconds(2));
  ask([&](grpc::ClientContext* context) {
    v3lockpb::LockRequest lock;
    lock.set_name("n");
    lock.set_lease(5);
    v3lockpb::LockResponse locked;
    return client.lock->Lock(context, lock, &locked);
  });
  server->Shutdown();
}

TEST(ConcurrencyTerms, BeforeTheServerIsReadyEveryCallSaysSo) {
  testing::OurServices ours(nullptr);
  Client client(ours.channel(), ours.channel());
  const auto lock = client.Lock("n", 5);
  ASSERT_TRUE(lock->Done());
  EXPECT_EQ(lock->status().error_code(), grpc::StatusCode::UNAVAILABLE);
  v3electionpb::LeaderResponse leader;
  EXPECT_EQ(client.Leader("n", &leader).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(client.Unlock("n/5").error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace holdfast::server
