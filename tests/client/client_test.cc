// The client library against servers that misbehave on demand.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "base/strings.h"
#include "client/retry_budget.h"
#include "holdfast/client.h"
#include "tests/client/fake_server.h"

namespace holdfast {
namespace {

using absl::StatusCode;
using test::Answer;
using test::BlackHole;
using test::DeadEndpoint;
using test::FakeServer;
using test::Seen;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr uint64_t kSeed = 11;

// Ages, budgets and back-offs stand still unless a test moves the clock.
class ClientTest : public testing::Test {
 protected:
  // Patient, so that a slow machine makes no try time out, unless a test is about that.
  std::unique_ptr<Client> Open(std::vector<std::string> endpoints,
                               absl::Duration try_timeout = absl::Seconds(60)) {
    Client::Options options{.endpoints = std::move(endpoints), .clock = clock_, .seed = kSeed};
    options.retry.base = absl::Milliseconds(1);
    options.retry.cap = absl::Milliseconds(5);
    options.retry.try_timeout = try_timeout;
    auto client = Client::Open(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  std::unique_ptr<Client> OpenAll(absl::Duration try_timeout = absl::Seconds(60)) {
    return Open({a_.endpoint(), b_.endpoint(), c_.endpoint()}, try_timeout);
  }
  void AllAlways(const Answer& answer) {
    for (FakeServer* server : {&a_, &b_, &c_}) server->Always(answer);
  }
  int AllCalls() const { return a_.calls() + b_.calls() + c_.calls(); }
  std::vector<Seen> AllSeen() const {
    std::vector<Seen> all;
    for (const FakeServer* server : {&a_, &b_, &c_}) {
      for (const Seen& seen : server->seen()) all.push_back(seen);
    }
    return all;
  }
  // Answers the first request that any server gets with `first`, the others with `then`.
  void FirstThen(const Answer& first, const Answer& then) {
    for (FakeServer* server : {&a_, &b_, &c_}) {
      server->SetHandler(
          [this, first, then](const Seen&) { return requests_.fetch_add(1) == 0 ? first : then; });
    }
  }

  const std::shared_ptr<base::FakeClock> clock_ = std::make_shared<base::FakeClock>();
  std::atomic<int> requests_{0};
  FakeServer a_, b_, c_;
};

Answer WithKey(int64_t revision = 5) {
  Answer answer = Answer::Ok(revision);
  answer.kvs = {{"k", "v"}};
  return answer;
}

std::string Text(const absl::Status& status) { return std::string(base::Message(status)); }

// --- What goes over the wire -------------------------------------------------------------------

TEST_F(ClientTest, ReadsAndWrites) {
  a_.SetHandler([](const Seen& seen) {
    Answer answer = WithKey(9);
    answer.deleted = 3;
    return answer;
  });
  const auto client = Open({a_.endpoint()});
  const auto get = client->Get("k");
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->value->value, "v");
  EXPECT_EQ(get->fresh.revision(), 9u);
  const auto put = client->Put("k", std::string("a\0b", 3));
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->token.revision, 9u);
  EXPECT_EQ(put->token.cluster_id, 7u);
  EXPECT_EQ(put->attempts, 1);
  EXPECT_EQ(client->Delete("k")->deleted, 3);
  EXPECT_EQ(client->DeletePrefix("p/")->deleted, 3);
  const auto seen = a_.seen();
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_FALSE(seen[0].serializable());
  EXPECT_EQ(seen[0].metadata.count("hasleader"), 0u);  // a plain read may wait for an election
  EXPECT_EQ(seen[1].put.value(), std::string("a\0b", 3));
  EXPECT_EQ(seen[1].metadata.at("hasleader"), "true");
  EXPECT_EQ(seen[2].delete_range.range_end(), "");
  EXPECT_EQ(seen[3].delete_range.range_end(), "p0");
}

TEST_F(ClientTest, AMissingKeyIsAnAnswer) {
  const auto client = Open({a_.endpoint()});
  const auto get = client->Get("nothing");
  ASSERT_TRUE(get.ok());
  EXPECT_EQ(get->value, std::nullopt);
  EXPECT_EQ(get->fresh.proof(), Proof::kProven);
}

TEST_F(ClientTest, SendsTransactions) {
  const auto client = Open({a_.endpoint()});
  Answer failed = Answer::Ok(4);
  failed.succeeded = false;
  a_.Always(failed);
  const auto result = client->Commit(
      Txn()
          .If({Compare::Value("k").NotEqual("x"), Compare::CreateRevision("k").Greater(3)})
          .Then({Op::Put("k", "y"), Op::DeletePrefix("p/")})
          .Else({Op::Get("k")}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->succeeded);
  EXPECT_EQ(result->token.revision, 4u);
  const etcdserverpb::TxnRequest txn = a_.seen().at(0).txn;
  EXPECT_EQ(txn.compare(0).target(), etcdserverpb::Compare::VALUE);
  EXPECT_EQ(txn.compare(0).result(), etcdserverpb::Compare::NOT_EQUAL);
  EXPECT_EQ(txn.compare(0).value(), "x");
  EXPECT_EQ(txn.compare(1).target(), etcdserverpb::Compare::CREATE);
  EXPECT_EQ(txn.compare(1).create_revision(), 3);
  EXPECT_EQ(txn.success(0).request_put().value(), "y");
  EXPECT_EQ(txn.success(1).request_delete_range().range_end(), "p0");
  EXPECT_EQ(txn.failure(0).request_range().key(), "k");
}

TEST_F(ClientTest, WrongArgumentsAreNotSent) {
  const auto client = Open({a_.endpoint()});
  EXPECT_EQ(client->Get("").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(client->Put("", "v").status().code(), StatusCode::kInvalidArgument);
  RangeQuery past = RangeQuery::Key("k");
  past.revision = 3;
  EXPECT_EQ(client->Range(past, ReadOptions::Bounded(absl::Seconds(1))).status().code(),
            StatusCode::kInvalidArgument);
  RangeQuery endless = RangeQuery::Prefix("");
  endless.limit = 0;
  EXPECT_EQ(client->Range(endless).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(a_.calls(), 0);
}

// --- Freshness -----------------------------------------------------------------------------------

TEST_F(ClientTest, ALinearizableAnswerIsAsOldAsItsRequest) {
  a_.SetHandler([this](const Seen&) {
    clock_->Advance(absl::Milliseconds(30));  // on the way: a sample taken at receipt misses it
    return WithKey();
  });
  const auto client = Open({a_.endpoint()});
  const auto get = client->Get("k");
  ASSERT_TRUE(get.ok());
  EXPECT_EQ(get->fresh.proof(), Proof::kProven);
  EXPECT_EQ(get->fresh.MaxAge(), absl::Milliseconds(30) * 1.002 + absl::Milliseconds(1));
  clock_->Advance(absl::Seconds(10));
  EXPECT_EQ(get->fresh.MaxAge(), absl::Milliseconds(10030) * 1.002 + absl::Milliseconds(1));
  EXPECT_TRUE(get->fresh.Within(absl::Seconds(11)));
  EXPECT_FALSE(get->fresh.Within(absl::Seconds(10)));
}

TEST_F(ClientTest, AStaleAnswerIsAsOldAsTheServerSaysPlusTheWay) {
  a_.SetHandler([this](const Seen&) {
    clock_->Advance(absl::Milliseconds(30));
    return Answer::WithAge(250, 6);
  });
  const auto client = Open({a_.endpoint()});
  const auto get = client->Get("k", ReadOptions::Bounded(absl::Seconds(1)));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->fresh.MaxAge(),
            absl::Milliseconds(250) + absl::Milliseconds(30) * 1.002 + absl::Milliseconds(1));
  EXPECT_EQ(get->fresh.source(), Source::kFollower);
  EXPECT_EQ(get->fresh.revision(), 6u);
  EXPECT_TRUE(a_.seen().at(0).serializable());
  EXPECT_EQ(a_.seen().at(0).metadata.at("holdfast-max-age-ms"), "1000");
}

TEST_F(ClientTest, PlainEtcdTellsNoAge) {
  a_.Always(WithKey());
  const auto client = Open({a_.endpoint()});
  const auto stale = client->Get("k", ReadOptions::Bounded(absl::InfiniteDuration()));
  ASSERT_TRUE(stale.ok()) << stale.status();
  EXPECT_EQ(stale->fresh.MaxAge(), absl::InfiniteDuration());
  EXPECT_EQ(stale->fresh.proof(), Proof::kUnknown);
  EXPECT_FALSE(stale->fresh.Within(absl::Hours(1000)));
  EXPECT_EQ(a_.seen().at(0).metadata.count("holdfast-max-age-ms"), 0u);
  const auto bounded = client->Get("k", ReadOptions::Bounded(absl::Hours(1)));
  EXPECT_EQ(bounded.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(Text(bounded.status()), HasSubstr("plain etcd"));
}

TEST_F(ClientTest, APastRevisionHasNoAge) {
  a_.Always(WithKey(9));
  const auto client = Open({a_.endpoint()});
  RangeQuery query = RangeQuery::Key("k");
  query.revision = 4;
  const auto past = client->Range(query);
  ASSERT_TRUE(past.ok());
  EXPECT_EQ(past->fresh.revision(), 4u);
  EXPECT_EQ(past->fresh.proof(), Proof::kUnknown);
  query.revision = 9;  // which is the newest
  EXPECT_EQ(client->Range(query)->fresh.proof(), Proof::kProven);
}

TEST_F(ClientTest, AFreshnessOutlivesItsClient) {
  a_.Always(WithKey());
  auto client = Open({a_.endpoint()});
  const auto get = client->Get("k");
  client = nullptr;
  clock_->Advance(absl::Seconds(1));
  EXPECT_GT(get->fresh.MaxAge(), absl::Seconds(1));
}

// --- Bounds and ladders --------------------------------------------------------------------------

TEST_F(ClientTest, ABoundedReadAsksTheOtherMembersWhenOneIsTooOld) {
  FirstThen(Answer::WithAge(10'000, 3), Answer::WithAge(20, 8));
  const auto client = OpenAll();
  const auto get = client->Get("k", ReadOptions::Bounded(absl::Seconds(5)));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->fresh.revision(), 8u);
  EXPECT_EQ(AllCalls(), 2);
  // The next one starts where it worked.
  EXPECT_TRUE(client->Get("k", ReadOptions::Bounded(absl::Seconds(5))).ok());
  EXPECT_EQ(AllCalls(), 3);
}

TEST_F(ClientTest, TooOldEverywhereIsAnErrorThatTellsTheBest) {
  a_.Always(Answer::WithAge(9000, 3));
  b_.Always(Answer::WithAge(7000, 5, "leader"));
  // A server may also refuse by itself, and tell its age.
  Answer refusal = Answer::WithAge(8000);
  refusal.status = grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "too stale");
  c_.Always(refusal);
  const auto client = OpenAll();
  const auto get = client->Get("k", ReadOptions::Bounded(absl::Seconds(5)));
  EXPECT_EQ(get.status().code(), StatusCode::kFailedPrecondition);
  for (const FakeServer* server : {&a_, &b_, &c_}) {
    EXPECT_EQ(server->calls(), 1);
    EXPECT_THAT(Text(get.status()), HasSubstr(server->endpoint()));
    EXPECT_TRUE(server->seen().at(0).serializable());
  }
  const auto best = BestAvailable(get.status());
  ASSERT_TRUE(best.has_value());
  EXPECT_EQ(best->MaxAge(), absl::Milliseconds(7001));
  EXPECT_EQ(best->revision(), 5u);
  EXPECT_EQ(best->source(), Source::kLeader);
  clock_->Advance(absl::Seconds(1));
  EXPECT_EQ(best->MaxAge(), absl::Milliseconds(7001) + absl::Seconds(1) * 1.002);
  EXPECT_EQ(BestAvailable(absl::FailedPreconditionError("other")), std::nullopt);
}

TEST_F(ClientTest, TheWayHereCountsAgainstTheBound) {
  a_.SetHandler([this](const Seen&) {
    clock_->Advance(absl::Milliseconds(200));
    return Answer::WithAge(4900);
  });
  const auto client = Open({a_.endpoint()});
  EXPECT_EQ(client->Get("k", ReadOptions::Bounded(absl::Seconds(5))).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(ClientTest, ALinearizableReadIsNeverDowngraded) {
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([](const Seen& seen) {
      return seen.serializable() ? Answer::WithAge(1) : Answer::NoLeader();
    });
  }
  const auto client = OpenAll();
  const auto get = client->Get("k");
  EXPECT_EQ(get.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(Text(get.status()), HasSubstr("no quorum"));
  EXPECT_GE(AllCalls(), 3);  // each was asked
  for (const Seen& seen : AllSeen()) EXPECT_FALSE(seen.serializable());
}

TEST_F(ClientTest, TheLadderServesStaleOnlyWhenFreshCannotBeHad) {
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([](const Seen& seen) {
      return seen.serializable() ? Answer::WithAge(90'000, 4) : WithKey(5);
    });
  }
  const auto client = OpenAll();
  const auto options = ReadOptions::Linearizable().OrStale(absl::Minutes(10));
  EXPECT_EQ(client->Get("k", options)->fresh.revision(), 5u);
  EXPECT_EQ(AllCalls(), 1);
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([](const Seen& seen) {
      return seen.serializable() ? Answer::WithAge(90'000, 4) : Answer::NoLeader();
    });
  }
  const auto stale = client->Get("k", options);
  ASSERT_TRUE(stale.ok()) << stale.status();
  EXPECT_EQ(stale->fresh.revision(), 4u);
  EXPECT_EQ(stale->fresh.MaxAge(), absl::Milliseconds(90'001));
  // The second rung has a bound of its own.
  const auto too_old = client->Get("k", ReadOptions::Linearizable().OrStale(absl::Minutes(1)));
  EXPECT_EQ(too_old.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(BestAvailable(too_old.status()).has_value());
}

TEST_F(ClientTest, InAnOutageLaddersProbeNowAndThenAndCostOneRequestEach) {
  std::atomic<bool> quorum{false};
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([&quorum](const Seen& seen) {
      return seen.serializable() || quorum ? WithKey() : Answer::NoLeader();
    });
  }
  const auto client = OpenAll();
  const auto options = ReadOptions::Linearizable().OrStale(absl::InfiniteDuration());
  constexpr int kReads = 200;
  for (int i = 0; i < kReads; ++i) {
    const auto get = client->Get("k", options);
    ASSERT_TRUE(get.ok()) << get.status();
    EXPECT_EQ(get->fresh.proof(), Proof::kUnknown);
  }
  // One read found the quorum gone (three endpoints, then waits as far as the budget goes).
  EXPECT_LE(AllCalls(), kReads * 1.1 + internal::RetryBudget::kInitial + 1);
  quorum = true;
  clock_->Advance(absl::Seconds(3));
  EXPECT_EQ(client->Get("k", options)->fresh.proof(), Proof::kProven);
  EXPECT_EQ(client->Get("k", options)->fresh.proof(), Proof::kProven);
}

TEST_F(ClientTest, TheStaleRungIsServedEvenWithTheBudgetSpent) {
  AllAlways(Answer::NoLeader());
  const auto client = OpenAll();
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(client->Get("k").ok());  // spends all there is
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler(
        [](const Seen& seen) { return seen.serializable() ? WithKey() : Answer::NoLeader(); });
  }
  const auto get = client->Get("k", ReadOptions::Linearizable().OrStale(absl::InfiniteDuration()));
  EXPECT_TRUE(get.ok()) << get.status();
}

TEST_F(ClientTest, AtLeastReadsWhereTheTokenHasArrived) {
  FirstThen(WithKey(5), WithKey(9));
  const auto client = OpenAll();
  const auto get = client->Get("k", ReadOptions::AtLeast({.revision = 9, .cluster_id = 7}));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->fresh.revision(), 9u);
  for (const Seen& seen : AllSeen()) EXPECT_TRUE(seen.serializable());
}

// Freshness 7: another incarnation never merges.
TEST_F(ClientTest, ATokenOfAnotherIncarnationIsRefused) {
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([](const Seen&) {
      Answer answer = WithKey(9);
      answer.trailing.emplace_back("holdfast-incarnation", "abc");
      return answer;
    });
  }
  const auto client = OpenAll();
  const Token token{.revision = 5, .cluster_id = 7, .incarnation = 0xabc};
  const auto same = client->Get("k", ReadOptions::AtLeast(token));
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->incarnation, 0xabcu);
  const Token before{.revision = 5, .cluster_id = 7, .incarnation = 0xdef};
  const auto other = client->Get("k", ReadOptions::AtLeast(before));
  EXPECT_EQ(other.status().code(), StatusCode::kFailedPrecondition) << other.status();
}

TEST_F(ClientTest, AtLeastGoesToTheQuorumIfNoMemberHasTheToken) {
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([](const Seen& seen) { return WithKey(seen.serializable() ? 5 : 9); });
  }
  const auto client = OpenAll();
  const auto get = client->Get("k", ReadOptions::AtLeast({.revision = 9}));
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->fresh.revision(), 9u);
  EXPECT_EQ(AllCalls(), 4);
  // A revision that the store itself has never reached, or another store.
  EXPECT_EQ(client->Get("k", ReadOptions::AtLeast({.revision = 99})).status().code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(
      client->Get("k", ReadOptions::AtLeast({.revision = 1, .cluster_id = 8})).status().code(),
      StatusCode::kFailedPrecondition);
}

// --- Failing endpoints ---------------------------------------------------------------------------

TEST_F(ClientTest, OpensWithTheStoreDownAndRecovers) {
  a_.Stop();
  const auto client = Open({a_.endpoint()});
  const auto down = client->Get("k", ReadOptions().Deadline(absl::Seconds(1)));
  EXPECT_EQ(down.status().code(), StatusCode::kUnavailable) << down.status();
  EXPECT_THAT(Text(down.status()), HasSubstr(a_.endpoint()));
  const auto write = client->Put("k", "v", {.deadline = absl::Seconds(1)});
  EXPECT_EQ(write.status().code(), StatusCode::kUnavailable) << write.status();
  EXPECT_FALSE(MaybeCommitted(write.status()));
  a_.Start();
  // gRPC reconnects by its own real clock, within a few seconds.
  const auto start = std::chrono::steady_clock::now();
  bool recovered = false;
  while (!recovered && std::chrono::steady_clock::now() - start < std::chrono::seconds(20)) {
    clock_->Advance(absl::Seconds(1));
    recovered = client->Put("k", "v").ok();
  }
  EXPECT_TRUE(recovered);
}

TEST_F(ClientTest, ADeadEndpointCostsNothing) {
  a_.Always(WithKey());
  // Whatever the shuffle: dead ones stand before and behind.
  const auto client =
      Open({DeadEndpoint(), DeadEndpoint(), a_.endpoint(), DeadEndpoint(), DeadEndpoint()});
  constexpr int kCalls = 50;
  absl::BlockingCounter done(2 * kCalls);
  std::atomic<int> ok{0};
  for (int i = 0; i < kCalls; ++i) {
    client->Get("k", {}, [&](auto get) {
      ok += get.ok();
      done.DecrementCount();
    });
    client->Put("k", "v", {}, [&](auto put) {
      ok += put.ok();
      done.DecrementCount();
    });
  }
  done.Wait();
  EXPECT_EQ(ok, 2 * kCalls);
  EXPECT_EQ(a_.calls(), 2 * kCalls);
}

TEST_F(ClientTest, GoesOnWithAnotherServerWhenOneDies) {
  AllAlways(WithKey());
  const auto client = OpenAll();
  for (FakeServer* server : {&a_, &b_}) {
    ASSERT_TRUE(client->Get("k").ok());
    server->Stop();
    for (int i = 0; i < 5; ++i) {
      const auto get = client->Get("k");
      EXPECT_TRUE(get.ok()) << get.status();
    }
  }
  EXPECT_TRUE(client->Put("k", "v").ok());
}

TEST_F(ClientTest, ABlackHoleDoesNotEatTheDeadline) {
  a_.Always(WithKey());
  const BlackHole hole;
  constexpr absl::Duration kTry = absl::Milliseconds(200);
  // Both orders of the two seeds, whatever the shuffle makes of them.
  for (const bool hole_first : {true, false}) {
    const auto client = hole_first ? Open({hole.endpoint(), a_.endpoint()}, kTry)
                                   : Open({a_.endpoint(), hole.endpoint()}, kTry);
    const auto get = client->Get("k");
    EXPECT_TRUE(get.ok()) << get.status();
    EXPECT_TRUE(client->Put("k", "v").ok());
    // A write that comes first is provably not sent to the hole, so it may go elsewhere.
    const auto writer = hole_first ? Open({hole.endpoint(), a_.endpoint()})
                                   : Open({a_.endpoint(), hole.endpoint()});
    const auto put = writer->Put("k", "v");
    EXPECT_TRUE(put.ok()) << put.status();
  }
}

TEST_F(ClientTest, AServerThatFallsSilentIsLeftForAnother) {
  FirstThen(WithKey(), WithKey());
  const auto client = OpenAll(absl::Milliseconds(200));
  ASSERT_TRUE(client->Get("k").ok());  // connected
  requests_ = 0;
  FirstThen(Answer::Hold(), WithKey());
  const auto get = client->Get("k");
  EXPECT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(AllCalls(), 3);
}

TEST_F(ClientTest, ReadsGoOnAtOtherMembersAfterAnyTransientError) {
  const std::vector<grpc::Status> errors = {
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader"},
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: leader changed"},
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: request timed out"},
      {grpc::StatusCode::UNKNOWN, "etcdserver: too many requests"},
      {grpc::StatusCode::UNAVAILABLE, "connection reset"},
      {grpc::StatusCode::FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"},
  };
  for (const grpc::Status& error : errors) {
    SCOPED_TRACE(error.error_message());
    requests_ = 0;
    FirstThen({.status = error}, WithKey());
    const auto client = OpenAll();
    EXPECT_TRUE(client->Get("k").ok());
    EXPECT_EQ(requests_, 2);
  }
}

TEST_F(ClientTest, ADefiniteNoIsFinal) {
  AllAlways(Answer::Error(grpc::StatusCode::PERMISSION_DENIED, "etcdserver: permission denied"));
  const auto client = OpenAll();
  const auto get = client->Get("k");
  EXPECT_EQ(get.status().code(), StatusCode::kPermissionDenied);
  EXPECT_THAT(Text(get.status()), HasSubstr("etcdserver: permission denied"));
  EXPECT_EQ(client->Put("k", "v").status().code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(AllCalls(), 2);
}

// --- Writes whose outcome is unknown -------------------------------------------------------------

TEST_F(ClientTest, AWriteThatMayHaveTakenEffectIsNeverSentAgain) {
  const std::vector<grpc::Status> errors = {
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: request timed out"},
      {grpc::StatusCode::UNAVAILABLE,
       "etcdserver: request timed out, possibly due to previous leader failure"},
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: leader changed"},
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: server stopped"},
      {grpc::StatusCode::UNAVAILABLE, "connection reset"},
      {grpc::StatusCode::INTERNAL, "RST_STREAM"},
      {grpc::StatusCode::UNKNOWN, "surprise"},
      {grpc::StatusCode::DEADLINE_EXCEEDED, "context deadline exceeded"},
      {grpc::StatusCode::CANCELLED, ""},
  };
  for (const grpc::Status& error : errors) {
    SCOPED_TRACE(error.error_message());
    requests_ = 0;
    FirstThen({.status = error}, Answer::Ok());
    const auto client = OpenAll();
    const auto put = client->Put("k", "v");
    EXPECT_EQ(put.status().code(), StatusCode::kUnknown) << put.status();
    EXPECT_TRUE(MaybeCommitted(put.status()));
    EXPECT_EQ(requests_, 1);
    // Once more over a connection that is up, where gRPC sends all in one go.
    requests_ = 0;
    EXPECT_TRUE(MaybeCommitted(client->Delete("k").status()));
    EXPECT_EQ(requests_, 1);
  }
}

TEST_F(ClientTest, AWriteThatWasRefusedWithoutEffectIsSentElsewhere) {
  const std::vector<grpc::Status> errors = {
      {grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader"},
      {grpc::StatusCode::RESOURCE_EXHAUSTED, "etcdserver: too many requests"},
      {grpc::StatusCode::FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"},
  };
  for (const grpc::Status& error : errors) {
    SCOPED_TRACE(error.error_message());
    requests_ = 0;
    FirstThen({.status = error}, Answer::Ok());
    const auto client = OpenAll();
    const auto put = client->Put("k", "v");
    ASSERT_TRUE(put.ok()) << put.status();
    EXPECT_EQ(put->attempts, 2);
    EXPECT_EQ(requests_, 2);
  }
}

TEST_F(ClientTest, AWriteWithoutAnswerByItsDeadlineIsUnknown) {
  const auto client = OpenAll();
  ASSERT_TRUE(client->Put("k", "v").ok());  // connected: nothing but the answer takes time
  AllAlways(Answer::Hold());
  const auto put = client->Put("k", "v", {.deadline = absl::Milliseconds(300)});
  EXPECT_TRUE(MaybeCommitted(put.status())) << put.status();
  EXPECT_EQ(AllCalls(), 2);
}

TEST_F(ClientTest, AWriteWhoseServerDiesIsUnknown) {
  AllAlways(Answer::Hold());
  const auto client = Open({a_.endpoint(), DeadEndpoint()});
  absl::Notification done;
  absl::StatusOr<WriteResult> result;
  client->Put("k", "v", {}, [&](auto put) {
    result = std::move(put);
    done.Notify();
  });
  a_.WaitForHeld(1);
  a_.Stop();
  done.WaitForNotification();
  EXPECT_TRUE(MaybeCommitted(result.status())) << result.status();
  EXPECT_EQ(a_.calls(), 1);
}

TEST_F(ClientTest, ADeadlineThatPassesBeforeSendingIsItsOwnError) {
  const auto client = Open({a_.endpoint()});
  EXPECT_EQ(client->Put("k", "v", {.deadline = absl::ZeroDuration()}).status().code(),
            StatusCode::kDeadlineExceeded);
  EXPECT_EQ(client->Get("k", ReadOptions().Deadline(-absl::Seconds(1))).status().code(),
            StatusCode::kDeadlineExceeded);
  EXPECT_EQ(a_.calls(), 0);
  // Nor was anything sent while no connection came up.
  const BlackHole hole;
  const auto cut_off = Open({hole.endpoint()});
  const auto put = cut_off->Put("k", "v", {.deadline = absl::Milliseconds(100)});
  EXPECT_EQ(put.status().code(), StatusCode::kDeadlineExceeded) << put.status();
  EXPECT_FALSE(MaybeCommitted(put.status()));
}

TEST_F(ClientTest, AReadOnlyTransactionIsRetriedLikeARead) {
  FirstThen(Answer::Error(grpc::StatusCode::UNAVAILABLE, "etcdserver: leader changed"),
            Answer::Ok());
  const auto client = OpenAll();
  EXPECT_TRUE(client->Commit(Txn().Then({Op::Get("k")})).ok());
  requests_ = 0;
  const auto write = client->Commit(Txn().Then({Op::Get("k")}).Else({Op::Delete("k")}));
  EXPECT_TRUE(MaybeCommitted(write.status()));
}

// --- The budget ----------------------------------------------------------------------------------

TEST_F(ClientTest, InATotalOutageTheServersSeeTenPercentMore) {
  AllAlways(Answer::NoLeader());
  const auto client = OpenAll();
  constexpr int kCalls = 500;
  int held_back = 0;
  for (int i = 0; i < kCalls; ++i) {
    const absl::Status status =
        i % 2 == 0 ? client->Get("k").status() : client->Put("k", "v").status();
    EXPECT_FALSE(status.ok());
    EXPECT_FALSE(MaybeCommitted(status));
    if (status.code() == StatusCode::kResourceExhausted) {
      EXPECT_TRUE(RetryAfter(status).has_value());
      ++held_back;
    } else {
      EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    }
  }
  EXPECT_GE(AllCalls(), kCalls);
  EXPECT_LE(AllCalls(), kCalls * 1.1 + internal::RetryBudget::kInitial);
  // Time earns one a second.
  const int before = AllCalls();
  for (int second = 0; second < 30; ++second) {
    clock_->Advance(absl::Seconds(1));
    EXPECT_FALSE(client->Get("k").ok());
  }
  EXPECT_LE(AllCalls() - before, 30 * 1.1 + 30 + 1);
  EXPECT_GE(AllCalls() - before, 30 + 30 - 1);
}

TEST_F(ClientTest, WithoutAQuorumForLongWritesFailAfterOneRound) {
  AllAlways(Answer::NoLeader());
  const auto client = OpenAll();
  EXPECT_FALSE(client->Put("k", "v").ok());
  clock_->Advance(absl::Seconds(30));  // beyond the patience, and the budget is full again
  const int before = AllCalls();
  // Without the patience this would try on until its attempts, budget or deadline are used up.
  const absl::Status status = client->Put("k", "v", {.deadline = absl::Hours(1)}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status;
  EXPECT_FALSE(MaybeCommitted(status));
  EXPECT_EQ(AllCalls() - before, 3);
  // One success and the client is patient again.
  clock_->Advance(absl::Seconds(30));
  FirstThen(Answer::NoLeader(), Answer::Ok());
  EXPECT_TRUE(client->Put("k", "v").ok());
}

TEST_F(ClientTest, ASpentBudgetSaysWhenToComeBack) {
  AllAlways(WithKey());
  const auto client = OpenAll();
  // Each call fails first, and a healthy endpoint is left: only the budget forbids to ask it.
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->Always(Answer::Error(grpc::StatusCode::UNAVAILABLE, "connection reset"));
  }
  absl::Status status;
  for (int i = 0; i < 10 && status.code() != StatusCode::kResourceExhausted; ++i) {
    clock_->Advance(absl::Milliseconds(60));  // past the first back-offs: all look healthy again
    status = client->Get("k").status();
  }
  ASSERT_EQ(status.code(), StatusCode::kResourceExhausted) << status;
  ASSERT_TRUE(RetryAfter(status).has_value());
  EXPECT_GT(*RetryAfter(status), absl::ZeroDuration());
  EXPECT_LE(*RetryAfter(status), absl::Seconds(1));
}

// --- Scans ---------------------------------------------------------------------------------------

constexpr int kScanKeys = 250;

// Serves kScanKeys keys in pages; the store moves on with every request.
Answer ScanPage(const Seen& seen, int64_t revision_now) {
  Answer answer = Answer::Ok(revision_now);
  for (int i = 0; i < kScanKeys; ++i) {
    const std::string key = "p/" + std::to_string(1000 + i);
    if (key < seen.range.key()) continue;
    answer.count = std::max<int64_t>(answer.count, 0) + 1;
    if (std::ssize(answer.kvs) < seen.range.limit()) {
      answer.kvs.emplace_back(key, std::string(50'000, 'x'));
    } else {
      answer.more = true;
    }
  }
  return answer;
}

TEST_F(ClientTest, AScanIsPagedAtOneRevision) {
  std::atomic<int64_t> revision{70};
  a_.SetHandler([&](const Seen& seen) { return ScanPage(seen, revision++); });
  const auto client = Open({a_.endpoint()});
  const auto scan = client->Scan("p/");
  ASSERT_TRUE(scan.ok()) << scan.status();
  ASSERT_EQ(scan->value.size(), static_cast<size_t>(kScanKeys));
  for (int i = 0; i < kScanKeys; ++i) {
    EXPECT_EQ(scan->value[i].key, "p/" + std::to_string(1000 + i));
  }
  EXPECT_EQ(scan->fresh.revision(), 70u);
  EXPECT_EQ(scan->fresh.proof(), Proof::kProven);
  const auto pages = a_.seen();
  ASSERT_GT(pages.size(), 3u);
  EXPECT_FALSE(pages[0].serializable());
  for (size_t i = 1; i < pages.size(); ++i) {
    EXPECT_EQ(pages[i].range.revision(), 70);
    EXPECT_TRUE(pages[i].serializable());
    // About a megabyte each, whatever the values' size.
    EXPECT_LE(pages[i].range.limit(), 21);
  }
}

TEST_F(ClientTest, AScanGoesOnAtAnotherMemberAndOutlivesTheQuorum) {
  std::atomic<int> pages{0};
  for (FakeServer* server : {&a_, &b_, &c_}) {
    server->SetHandler([&pages](const Seen& seen) {
      const int page = pages++;
      // The second page meets a member that is behind; from then on nobody has a leader.
      if (page == 1) {
        return Answer::Error(grpc::StatusCode::OUT_OF_RANGE,
                             "etcdserver: mvcc: required revision is a future revision");
      }
      if (page > 0 && !seen.serializable()) return Answer::NoLeader();
      return ScanPage(seen, 70 + page);
    });
  }
  const auto client = OpenAll();
  const auto scan = client->Scan("p/");
  ASSERT_TRUE(scan.ok()) << scan.status();
  EXPECT_EQ(scan->value.size(), static_cast<size_t>(kScanKeys));
}

TEST_F(ClientTest, AScanBeyondItsLimitIsRefusedAfterOnePage) {
  a_.SetHandler([](const Seen& seen) { return ScanPage(seen, 1); });
  const auto client = Open({a_.endpoint()});
  const auto scan = client->Scan("p/", ReadOptions().MaxEntries(kScanKeys - 1));
  EXPECT_EQ(scan.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(Text(scan.status()), HasSubstr("250"));
  EXPECT_EQ(a_.calls(), 1);
}

// --- Threads and the end -------------------------------------------------------------------------

TEST_F(ClientTest, ASynchronousCallFromACallbackIsRefused) {
  const auto client = Open({a_.endpoint()});
  absl::Notification done;
  absl::Status inner;
  client->Get("k", {}, [&](auto) {
    inner = client->Get("k").status();
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(inner.code(), StatusCode::kFailedPrecondition);
}

TEST_F(ClientTest, EveryCallbackRunsExactlyOnceWhenTheClientGoes) {
  a_.Always(Answer::Hold());
  auto owner = Open({a_.endpoint()});
  Client* const client = owner.get();
  constexpr int kCalls = 20;
  std::vector<std::atomic<int>> runs(4 * kCalls);
  std::atomic<int> cancelled{0}, unknown{0}, after{0};
  for (int i = 0; i < kCalls; ++i) {
    client->Get("k", {}, [&, i](auto get) {
      ++runs[i];
      cancelled += get.status().code() == StatusCode::kCancelled;
      // A call from a callback is answered too, not lost.
      client->Get("k", {}, [&runs, &after, i](auto again) {
        ++runs[kCalls + i];
        after += again.status().code() == StatusCode::kCancelled;
      });
    });
    client->Put("k", "v", {}, [&, i](auto put) {
      ++runs[2 * kCalls + i];
      unknown += MaybeCommitted(put.status());
    });
    client->Scan("p/", ReadOptions::Bounded(absl::InfiniteDuration()), [&, i](auto scan) {
      ++runs[3 * kCalls + i];
      cancelled += scan.status().code() == StatusCode::kCancelled;
    });
  }
  a_.WaitForHeld(3 * kCalls);
  owner.reset();
  for (size_t i = 0; i < runs.size(); ++i) EXPECT_EQ(runs[i], 1) << i;
  EXPECT_EQ(unknown, kCalls);
  EXPECT_EQ(cancelled, 2 * kCalls);
  EXPECT_EQ(after, kCalls);
}

TEST_F(ClientTest, GoesWhileCallsAreConnectingAndWaiting) {
  const BlackHole hole;
  std::atomic<int> runs{0};
  constexpr int kCalls = 20;
  for (const std::string& endpoint : {hole.endpoint(), DeadEndpoint()}) {
    runs = 0;
    auto client = Open({endpoint});
    for (int i = 0; i < kCalls; ++i) {
      client->Get("k", {}, [&](auto get) {
        EXPECT_FALSE(get.ok());
        ++runs;
      });
      client->Put("k", "v", {}, [&](auto put) {
        EXPECT_FALSE(put.ok());
        EXPECT_FALSE(MaybeCommitted(put.status())) << put.status();
        ++runs;
      });
    }
    client.reset();
    EXPECT_EQ(runs, 2 * kCalls);
  }
}

}  // namespace
}  // namespace holdfast
