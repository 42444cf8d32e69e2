// The stories of Election and Lock, told by whoever answers: a real etcd, our services over it,
// and holdfastd.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concurrency_test_util.h"

namespace holdfast::server {
namespace {

using testing::Client;
using ::testing::ElementsAre;
using testing::Eventually;
using testing::Observer;
using testing::PendingCampaign;
using testing::PendingLock;

enum class Who { kEtcd, kOursOverEtcd, kHoldfastd };

std::string WhoName(const ::testing::TestParamInfo<Who>& info) {
  switch (info.param) {
    case Who::kEtcd:
      return "Etcd";
    case Who::kOursOverEtcd:
      return "OursOverEtcd";
    case Who::kHoldfastd:
      return "Holdfastd";
  }
  return "";
}

class Concurrency : public ::testing::TestWithParam<Who> {
 protected:
  void SetUp() override {
    bench::LocalCluster* const store =
        GetParam() == Who::kHoldfastd ? testing::SharedHoldfastd() : testing::SharedEtcd();
    if (store == nullptr) GTEST_SKIP() << testing::kEtcd << " is not installed";
    const auto channel = testing::Dial(store->endpoint(0));
    if (GetParam() == Who::kOursOverEtcd) {
      ours_ = std::make_unique<testing::OurServices>(channel);
    }
    client_ = std::make_unique<Client>(channel, ours_ ? ours_->channel() : channel);
    name_ = ::testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  bool ours() const { return GetParam() != Who::kEtcd; }

  std::unique_ptr<testing::OurServices> ours_;
  std::unique_ptr<Client> client_;
  std::string name_;  // of the election or lock: no test meets another's keys
};

TEST_P(Concurrency, CandidatesLeadInTheOrderInWhichTheyCame) {
  constexpr int kCandidates = 20;
  std::vector<std::unique_ptr<PendingCampaign>> campaigns;
  for (int i = 0; i < kCandidates; ++i) {
    campaigns.push_back(client_->Campaign(name_, client_->Grant(), fmt::format("c{}", i)));
    ASSERT_TRUE(client_->HasKeys(name_, i + 1));
  }
  int64_t last_revision = 0;
  for (int i = 0; i < kCandidates; ++i) {
    ASSERT_TRUE(campaigns[i]->Done()) << i;
    ASSERT_TRUE(campaigns[i]->status().ok()) << campaigns[i]->status().error_message();
    for (int later = i + 1; later < kCandidates; ++later) ASSERT_FALSE(campaigns[later]->done());
    const v3electionpb::LeaderKey& key = campaigns[i]->response().leader();
    EXPECT_EQ(key.name(), name_);
    EXPECT_EQ(key.key(), fmt::format("{}/{:x}", name_, key.lease()));
    EXPECT_GT(key.rev(), last_revision);
    EXPECT_EQ(campaigns[i]->response().header().revision(), key.rev());
    last_revision = key.rev();
    v3electionpb::LeaderResponse leader;
    ASSERT_TRUE(client_->Leader(name_, &leader).ok());
    EXPECT_EQ(leader.kv().value(), fmt::format("c{}", i));
    EXPECT_EQ(leader.kv().create_revision(), key.rev());
    ASSERT_TRUE(client_->Resign(key).ok());
  }
}

TEST_P(Concurrency, LocksAreHeldInTheOrderOfAsking) {
  constexpr int kCallers = 10;
  std::vector<std::unique_ptr<PendingLock>> locks;
  for (int i = 0; i < kCallers; ++i) {
    locks.push_back(client_->Lock(name_, client_->Grant()));
    ASSERT_TRUE(client_->HasKeys(name_, i + 1));
  }
  int64_t last_revision = 0;
  for (int i = 0; i < kCallers; ++i) {
    ASSERT_TRUE(locks[i]->Done()) << i;
    ASSERT_TRUE(locks[i]->status().ok()) << locks[i]->status().error_message();
    for (int later = i + 1; later < kCallers; ++later) ASSERT_FALSE(locks[later]->done());
    EXPECT_GT(locks[i]->response().header().revision(), last_revision);
    last_revision = locks[i]->response().header().revision();
    ASSERT_TRUE(client_->Unlock(locks[i]->response().key()).ok());
  }
}

TEST_P(Concurrency, WhoCancelsWhileWaitingBlocksNobody) {
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const auto second = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  const auto third = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(client_->HasKeys(name_, 3));

  second->Cancel();
  ASSERT_TRUE(second->Done());
  EXPECT_EQ(second->status().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  ASSERT_FALSE(third->done());
  ASSERT_TRUE(client_->Unlock(holder->response().key()).ok());
  ASSERT_TRUE(third->Done());
  EXPECT_TRUE(third->status().ok());
}

TEST_P(Concurrency, CallPastItsDeadlineLeavesTheQueue) {
  const auto leader = client_->Campaign(name_, client_->Grant(), "leader");
  ASSERT_TRUE(leader->Done());
  const auto lock = client_->Lock(name_, client_->Grant(), absl::Milliseconds(300));
  ASSERT_TRUE(lock->Done());
  EXPECT_FALSE(lock->status().ok());
  // etcd says so with code Unknown, if it is faster than the client.
  if (ours()) {
    EXPECT_EQ(lock->status().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_TRUE(client_->HasKeys(name_, 1));
}

TEST_P(Concurrency, SameLeaseAgainIsNoSecondCandidate) {
  const int64_t lease = client_->Grant();
  const auto first = client_->Lock(name_, lease);
  ASSERT_TRUE(first->Done());
  const auto again = client_->Lock(name_, lease);
  ASSERT_TRUE(again->Done());
  ASSERT_TRUE(again->status().ok());
  EXPECT_EQ(again->response().key(), first->response().key());
  EXPECT_EQ(client_->Keys(name_).kvs(0).version(), 1);
}

TEST_P(Concurrency, CampaignAgainWithAnotherValueProclaimsIt) {
  const int64_t lease = client_->Grant();
  const auto first = client_->Campaign(name_, lease, "old");
  ASSERT_TRUE(first->Done());
  const auto again = client_->Campaign(name_, lease, "new");
  ASSERT_TRUE(again->Done());
  ASSERT_TRUE(again->status().ok());
  EXPECT_EQ(again->response().leader().rev(), first->response().leader().rev());
  v3electionpb::LeaderResponse leader;
  ASSERT_TRUE(client_->Leader(name_, &leader).ok());
  EXPECT_EQ(leader.kv().value(), "new");
}

TEST_P(Concurrency, LeaseThatGoesWhileHoldingPassesLeadershipOn) {
  const int64_t lease = client_->Grant(2);  // nobody keeps it alive
  const auto first = client_->Campaign(name_, lease, "first");
  ASSERT_TRUE(first->Done());
  ASSERT_TRUE(first->status().ok());
  const auto second = client_->Campaign(name_, client_->Grant(), "second");
  ASSERT_TRUE(second->Done());
  EXPECT_TRUE(second->status().ok());
  const grpc::Status status = client_->Proclaim(first->response().leader(), "still me");
  EXPECT_EQ(status.error_message(), "election: not leader");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNKNOWN);
  EXPECT_TRUE(client_->Resign(first->response().leader()).ok());
  EXPECT_EQ(client_->Keys(name_).kvs(0).value(), "second");
}

// Jepsen's finding of 2019. etcd 3.4 answers both calls with success.
TEST_P(Concurrency, LeaseThatGoesWhileWaitingIsNeverSuccess) {
  if (!ours()) GTEST_SKIP() << "etcd 3.4 answers success";
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const int64_t lease = client_->Grant();
  const auto waiter = client_->Lock(name_, lease);
  const int64_t candidate_lease = client_->Grant();
  const auto candidate = client_->Campaign(name_, candidate_lease, "x");
  ASSERT_TRUE(client_->HasKeys(name_, 3));
  client_->Revoke(lease);
  client_->Revoke(candidate_lease);
  // At once, with the holder still there.
  ASSERT_TRUE(waiter->Done());
  EXPECT_EQ(waiter->status().error_message(), "mutex: session is expired");
  EXPECT_EQ(waiter->status().error_code(), grpc::StatusCode::UNKNOWN);
  ASSERT_TRUE(candidate->Done());
  EXPECT_EQ(candidate->status().error_message(), "election: session is expired");
  EXPECT_TRUE(client_->HasKeys(name_, 1));
}

// The same key, put anew under another lease of the same number, is another candidate.
TEST_P(Concurrency, KeyPutAnewWhileWaitingIsNotTheOneThatWaited) {
  if (!ours()) GTEST_SKIP() << "etcd 3.4 answers success";
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const int64_t lease = client_->Grant();
  const auto waiter = client_->Lock(name_, lease);
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  const std::string key = fmt::format("{}/{:x}", name_, lease);
  client_->Delete(key);
  client_->Put(key, "another");
  ASSERT_TRUE(waiter->Done());
  EXPECT_EQ(waiter->status().error_message(), "mutex: session is expired");
  EXPECT_TRUE(client_->HasKeys(name_, 2)) << "what is not its own must stay";
  client_->Delete(key);
}

TEST_P(Concurrency, WithoutLeaseTheServerGrantsOneForAMinute) {
  const auto campaign = client_->Campaign(name_, 0, "x");
  ASSERT_TRUE(campaign->Done());
  ASSERT_TRUE(campaign->status().ok()) << campaign->status().error_message();
  const v3electionpb::LeaderKey& leader = campaign->response().leader();
  EXPECT_NE(leader.lease(), 0);
  EXPECT_EQ(leader.key(), fmt::format("{}/{:x}", name_, leader.lease()));
  etcdserverpb::LeaseTimeToLiveRequest request;
  request.set_id(leader.lease());
  etcdserverpb::LeaseTimeToLiveResponse ttl;
  grpc::ClientContext context;
  ASSERT_TRUE(client_->leases->LeaseTimeToLive(&context, request, &ttl).ok());
  EXPECT_EQ(ttl.grantedttl(), 60);
  EXPECT_TRUE(client_->Proclaim(leader, "y").ok());
  EXPECT_TRUE(client_->Resign(leader).ok());
  EXPECT_TRUE(client_->HasKeys(name_, 0));
}

TEST_P(Concurrency, LeaseGrantedForACallThatIsCancelledGoesWithIt) {
  if (!ours()) GTEST_SKIP() << "etcd leaves it to expire";
  const auto holder = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(holder->Done());
  ASSERT_TRUE(holder->status().ok()) << holder->status().error_message();
  const auto waiter = client_->Lock(name_, 0);
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  const int64_t lease = client_->Keys(name_).kvs(1).lease();
  waiter->Cancel();
  ASSERT_TRUE(waiter->Done());
  EXPECT_TRUE(client_->HasKeys(name_, 1));
  EXPECT_TRUE(Eventually([&] {
    const std::vector<int64_t> leases = client_->Leases();
    return std::find(leases.begin(), leases.end(), lease) == leases.end();
  }));
}

TEST_P(Concurrency, ObserveTellsEveryLeaderAndEveryValue) {
  Observer early(client_->services_channel, name_);  // nobody leads yet
  const auto first = client_->Campaign(name_, client_->Grant(), "a");
  ASSERT_TRUE(first->Done());
  ASSERT_TRUE(early.Sees("a"));
  ASSERT_TRUE(client_->Proclaim(first->response().leader(), "b").ok());
  ASSERT_TRUE(early.Sees("b"));
  const auto second = client_->Campaign(name_, client_->Grant(), "c");
  ASSERT_TRUE(client_->HasKeys(name_, 2));
  Observer late(client_->services_channel, name_);
  ASSERT_TRUE(late.Sees("b"));
  ASSERT_TRUE(client_->Resign(first->response().leader()).ok());
  ASSERT_TRUE(second->Done());
  ASSERT_TRUE(early.Sees("c"));
  ASSERT_TRUE(late.Sees("c"));
  ASSERT_TRUE(client_->Resign(second->response().leader()).ok());
  const auto third = client_->Campaign(name_, client_->Grant(), "d");
  ASSERT_TRUE(third->Done());
  ASSERT_TRUE(early.Sees("d"));
  ASSERT_TRUE(late.Sees("d"));
  EXPECT_THAT(early.values(), ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(late.values(), ElementsAre("b", "c", "d"));
  for (const v3electionpb::LeaderResponse& response : early.responses()) {
    EXPECT_GE(response.header().revision(), response.kv().mod_revision());
    EXPECT_NE(response.header().member_id(), 0u);
  }
}

TEST_P(Concurrency, CallsOnOneNameDoNotMeetThoseOnALongerOne) {
  const auto outer = client_->Lock(name_, client_->Grant());
  ASSERT_TRUE(outer->Done());
  const auto inner = client_->Lock(name_ + "2", client_->Grant());
  ASSERT_TRUE(inner->Done());
  EXPECT_TRUE(inner->status().ok());
}

TEST(ConcurrencyStop, HoldfastdStopsWithCallsWaiting) {
  const std::unique_ptr<bench::LocalCluster> cluster = testing::StartHoldfastd();
  const auto channel = testing::Dial(cluster->endpoint(0));
  Client client(channel, channel);
  const auto holder = client.Lock("n", client.Grant());
  ASSERT_TRUE(holder->Done());
  std::vector<std::unique_ptr<PendingLock>> waiters;
  for (int i = 0; i < 10; ++i) waiters.push_back(client.Lock("n", i % 2 == 0 ? 0 : client.Grant()));
  ASSERT_TRUE(client.HasKeys("n", 11));
  {
    Observer observer(channel, "n");
    ASSERT_TRUE(observer.Sees(""));
    ASSERT_TRUE(cluster->Stop(0).ok());
  }
  for (const auto& waiter : waiters) {
    ASSERT_TRUE(waiter->Done());
    EXPECT_EQ(waiter->status().error_message(), "etcdserver: server stopped");
  }
  ASSERT_TRUE(cluster->Restart(0).ok());
  ASSERT_TRUE(cluster->WaitForLeader(testing::kPatience).ok());
  EXPECT_EQ(client.Keys("n").kvs_size(), 1) << "whoever was told of a failure waits no more";
}

INSTANTIATE_TEST_SUITE_P(Answered, Concurrency,
                         ::testing::Values(Who::kEtcd, Who::kOursOverEtcd, Who::kHoldfastd),
                         WhoName);

}  // namespace
}  // namespace holdfast::server
