// Second tries beside a first one, and what a server's push-back makes of retries.
#include "client/hedge.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "base/rng.h"
#include "base/strings.h"
#include "holdfast/client.h"
#include "tests/client/fake_server.h"

namespace holdfast {
namespace {

using absl::StatusCode;
using internal::Hedger;
using internal::RecentQuantile;
using test::Answer;
using test::DeadEndpoint;
using test::FakeServer;
using test::Seen;
using testing::HasSubstr;

// --- The quantile --------------------------------------------------------------------------------

TEST(RecentQuantile, IsWithinATenthOfTheTruth) {
  base::Rng rng(5);
  for (const double scale_ms : {0.2, 5.0, 800.0}) {
    RecentQuantile recent;
    std::vector<double> all;
    for (int i = 0; i < 900; ++i) {
      const double ms = scale_ms * (1.0 + static_cast<double>(rng.Below(1000)) / 100.0);
      recent.Add(absl::Milliseconds(ms));
      all.push_back(ms);
    }
    std::ranges::sort(all);
    for (const double q : {0.5, 0.95, 0.99}) {
      const double truth = all[static_cast<size_t>(q * 900)];
      const double told = absl::ToDoubleMilliseconds(recent.At(q));
      EXPECT_GT(told, truth * 0.97) << scale_ms << " " << q;
      EXPECT_LT(told, truth * 1.11) << scale_ms << " " << q;
    }
  }
}

TEST(RecentQuantile, OldTimesFade) {
  RecentQuantile recent;
  for (int i = 0; i < 5000; ++i) recent.Add(absl::Milliseconds(100));
  for (int i = 0; i < 6000; ++i) recent.Add(absl::Milliseconds(1));
  EXPECT_LT(recent.At(0.95), absl::Milliseconds(2));
  EXPECT_LT(recent.weight(), 3 * RecentQuantile::kHalfLife);
}

TEST(RecentQuantile, TakesAnyTime) {
  RecentQuantile recent;
  recent.Add(absl::ZeroDuration());
  EXPECT_LE(recent.At(1.0), absl::Microseconds(50));
  recent.Add(absl::Hours(5));
  EXPECT_GT(recent.At(1.0), absl::Seconds(60));
}

// --- When and how many ---------------------------------------------------------------------------

TEST(Hedger, WaitsForTheQuantileAndNeverLessThanTheFloor) {
  Hedger hedger({.budget_ratio = 1});
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(hedger.OnRead(), std::nullopt) << "nothing is known yet";
    hedger.OnTime(absl::Milliseconds(1));
  }
  EXPECT_EQ(hedger.OnRead(), absl::Milliseconds(5));
  for (int i = 0; i < 100; ++i) hedger.OnTime(absl::Milliseconds(40));
  const auto delay = hedger.OnRead();
  ASSERT_TRUE(delay.has_value());
  EXPECT_GE(*delay, absl::Milliseconds(40));
  EXPECT_LE(*delay, absl::Milliseconds(44));
}

TEST(Hedger, NeverSendsMoreThanItsShareOfTheReads) {
  Hedger hedger({});
  int sent = 0;
  for (int i = 1; i <= 10'000; ++i) {
    hedger.OnTime(absl::Milliseconds(1));
    if (hedger.OnRead().has_value() && hedger.Take()) ++sent;
    ASSERT_LE(sent, 0.02 * i);
  }
  EXPECT_GE(sent, 190);
  // What a long quiet time saves up is bounded.
  for (int i = 0; i < 10'000; ++i) hedger.OnRead();
  int burst = 0;
  while (hedger.Take()) ++burst;
  EXPECT_EQ(burst, 5);
  Hedger never({.budget_ratio = 0});
  for (int i = 0; i < 100; ++i) never.OnTime(absl::Milliseconds(1));
  EXPECT_EQ(never.OnRead(), std::nullopt);
  EXPECT_FALSE(never.Take());
}

// --- The client ----------------------------------------------------------------------------------

class HedgeTest : public testing::Test {
 protected:
  std::unique_ptr<Client> Open(std::vector<std::string> endpoints, HedgePolicy hedge = {}) {
    Client::Options options{
        .endpoints = std::move(endpoints), .hedge = hedge, .clock = clock_, .seed = 11};
    options.exactly_once = false;
    options.retry.base = absl::Milliseconds(1);
    options.retry.cap = absl::Milliseconds(5);
    options.retry.try_timeout = absl::Seconds(60);
    auto client = Client::Open(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  // A client that knows how long reads take, and which server it uses.
  std::unique_ptr<Client> Warm(HedgePolicy hedge = {.budget_ratio = 0.5}) {
    for (FakeServer* server : servers_) server->Always(Answer::WithAge(1, 4));
    auto client = Open({a_.endpoint(), b_.endpoint(), c_.endpoint()}, hedge);
    for (int i = 0; i < 40; ++i) EXPECT_TRUE(client->Get("k", Bounded()).ok());
    used_ = *std::ranges::max_element(
        servers_, [](FakeServer* x, FakeServer* y) { return x->calls() < y->calls(); });
    return client;
  }
  ReadOptions Bounded() {
    return ReadOptions::Bounded(absl::Seconds(5)).Deadline(absl::Seconds(60));
  }
  int OtherCalls() const { return a_.calls() + b_.calls() + c_.calls() - used_->calls(); }
  static uint64_t Figure(const Client& client, const std::string& name) {
    const std::string page = client.Metrics();
    const size_t at = page.find("\n" + name + " ");
    EXPECT_NE(at, page.npos) << page;
    return std::stoull(page.substr(at + name.size() + 2));
  }

  const std::shared_ptr<base::FakeClock> clock_ = std::make_shared<base::FakeClock>();
  FakeServer a_, b_, c_;
  const std::vector<FakeServer*> servers_ = {&a_, &b_, &c_};
  FakeServer* used_ = nullptr;
};

TEST_F(HedgeTest, ASilentServerIsHedgedAndTheFirstGoodAnswerWins) {
  const auto client = Warm();
  const int before = OtherCalls();
  used_->Always(Answer::Hold());
  const auto get = client->Get("k", Bounded());
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(get->fresh.revision(), 4u);
  EXPECT_EQ(OtherCalls(), before + 1);
  EXPECT_GE(Figure(*client, "holdfast_client_hedges_total"), 1u);
  EXPECT_GE(Figure(*client, "holdfast_client_hedges_won_total"), 1u);
  // Its loser was cancelled: the client can go at once.
}

TEST_F(HedgeTest, LinearizableReadsAndWritesAndNoHedgeAreNeverHedged) {
  const auto client = Warm();
  used_->Always(Answer::Hold());
  absl::Notification got, put, plain;
  client->Get("k", ReadOptions::Linearizable().Deadline(absl::Seconds(60)),
              [&](auto) { got.Notify(); });
  client->Put("k", "v", {.deadline = absl::Seconds(60)}, [&](auto) { put.Notify(); });
  client->Get("k", Bounded().NoHedge(), [&](auto) { plain.Notify(); });
  used_->WaitForHeld(3);
  const int before = OtherCalls();
  // Several that are hedged, one after the other, so that the others' time has long come.
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(client->Get("k", Bounded()).ok());
  EXPECT_EQ(OtherCalls(), before + 3);
  EXPECT_FALSE(got.HasBeenNotified() || put.HasBeenNotified() || plain.HasBeenNotified());
  used_->ReleaseHeld(Answer::WithAge(1, 4));
  got.WaitForNotification();
  put.WaitForNotification();
  plain.WaitForNotification();
}

TEST_F(HedgeTest, AnAnswerThatMissesItsBoundDoesNotWin) {
  const auto client = Warm();
  used_->Always(Answer::Hold());
  for (FakeServer* server : servers_) {
    if (server != used_) server->Always(Answer::WithAge(60'000, 3));
  }
  absl::Notification done;
  Result<std::optional<Entry>> result = absl::UnknownError("");
  client->Get("k", Bounded(), [&](auto read) {
    result = std::move(read);
    done.Notify();
  });
  used_->WaitForHeld(1);
  while (OtherCalls() == 0) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_FALSE(done.HasBeenNotified());
  used_->ReleaseHeld(Answer::WithAge(1, 9));
  done.WaitForNotification();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->fresh.revision(), 9u);
}

TEST_F(HedgeTest, TwoBadAnswersGoOnToTheThird) {
  const auto client = Warm();
  std::atomic<int> others = 0;
  used_->Always(Answer::Hold());
  for (FakeServer* server : servers_) {
    if (server == used_) continue;
    server->SetHandler([&](const Seen&) {
      return others++ == 0 ? Answer::WithAge(60'000, 3) : Answer::WithAge(1, 7);
    });
  }
  absl::Notification done;
  Result<std::optional<Entry>> result = absl::UnknownError("");
  client->Get("k", Bounded(), [&](auto read) {
    result = std::move(read);
    done.Notify();
  });
  used_->WaitForHeld(1);
  while (others == 0) absl::SleepFor(absl::Milliseconds(1));
  used_->ReleaseHeld(Answer::WithAge(60'000, 2));
  done.WaitForNotification();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->fresh.revision(), 7u);
  EXPECT_EQ(others, 2);
}

TEST_F(HedgeTest, TheBudgetEndsHedgesOfASlowStore) {
  const auto client = Warm({.budget_ratio = 0.02});  // 40 reads: no token yet
  const int before = OtherCalls();
  used_->Always(Answer::Hold());
  absl::Notification done;
  client->Get("k", Bounded(), [&](auto) { done.Notify(); });
  used_->WaitForHeld(1);
  absl::SleepFor(absl::Milliseconds(30));  // far more than the floor
  EXPECT_EQ(OtherCalls(), before);
  used_->ReleaseHeld(Answer::WithAge(1, 4));
  done.WaitForNotification();
  EXPECT_EQ(Figure(*client, "holdfast_client_hedges_total"), 0u);
}

TEST_F(HedgeTest, AClientCanGoWhileBothTriesAreUnderWay) {
  auto client = Warm();
  for (FakeServer* server : servers_) server->Always(Answer::Hold());
  absl::Notification done;
  absl::Status status;
  client->Get("k", Bounded(), [&](auto read) {
    status = read.status();
    done.Notify();
  });
  used_->WaitForHeld(1);
  while (OtherCalls() == 0) absl::SleepFor(absl::Milliseconds(1));
  client = nullptr;
  EXPECT_TRUE(done.HasBeenNotified());
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
}

// --- Push-back -----------------------------------------------------------------------------------

Answer PushBack(int ms) {
  Answer answer = Answer::Error(grpc::StatusCode::RESOURCE_EXHAUSTED, "holdfast: not now");
  answer.trailing = {{"holdfast-retry-after-ms", std::to_string(ms)}};
  return answer;
}

TEST_F(HedgeTest, APushBackLongerThanTheDeadlineIsTheAnswerAtOnce) {
  a_.Always(PushBack(90'000));
  const auto client = Open({a_.endpoint()});
  const auto get = client->Get("k");
  EXPECT_EQ(get.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(base::Message(get.status())), HasSubstr("the servers pushed back"));
  EXPECT_EQ(RetryAfter(get.status()), absl::Seconds(90));
  EXPECT_EQ(a_.calls(), 1);
  const auto put = client->Put("k", "v");
  EXPECT_EQ(put.status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(MaybeCommitted(put.status()));
  EXPECT_EQ(a_.calls(), 2);
}

TEST_F(HedgeTest, NothingIsTriedAgainWhereItWasRefusedBeforeTheTimeButElsewhere) {
  const auto client = Open({a_.endpoint(), b_.endpoint(), c_.endpoint()});
  // Enough of the retry budget for a second round.
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(client->Get("k").ok());
  const std::vector<int> before = {a_.calls(), b_.calls(), c_.calls()};
  std::atomic<bool> pushed = false;
  FakeServer* first = nullptr;
  for (FakeServer* server : servers_) {
    server->SetHandler([&, server](const Seen&) {
      if (!pushed.exchange(true)) {
        first = server;
        return PushBack(60'000);
      }
      return server == first ? PushBack(60'000) : Answer::NoLeader();
    });
  }
  const auto get = client->Get("k", ReadOptions().Deadline(absl::Seconds(2)));
  EXPECT_FALSE(get.ok());
  ASSERT_NE(first, nullptr);
  for (size_t i = 0; i < servers_.size(); ++i) {
    const int calls = servers_[i]->calls() - before[i];
    if (servers_[i] == first) {
      EXPECT_EQ(calls, 1);
    } else {
      EXPECT_GE(calls, 2) << "the others were not tried again";
    }
  }
  // Once the time is over it is asked again. (What was sent nowhere yet may go there before.)
  clock_->Advance(absl::Seconds(61));
  for (FakeServer* server : servers_) server->Always(Answer::Ok(3));
  EXPECT_TRUE(client->Get("k").ok());
}

TEST_F(HedgeTest, AShortPushBackIsWaitedFor) {
  std::atomic<int> calls = 0;
  a_.SetHandler([&](const Seen&) {
    if (calls++ > 0) return Answer::Ok(8);
    clock_->Advance(absl::Milliseconds(1));
    return PushBack(0);
  });
  const auto client = Open({a_.endpoint()});
  const auto get = client->Get("k");
  ASSERT_TRUE(get.ok()) << get.status();
  EXPECT_EQ(calls, 2);
}

TEST_F(HedgeTest, OtherRefusalsForWantOfResourcesAreFinal) {
  a_.Always(Answer::Error(grpc::StatusCode::RESOURCE_EXHAUSTED,
                          "etcdserver: mvcc: database space exceeded"));
  const auto client = Open({a_.endpoint(), b_.endpoint()});
  const auto put = client->Put("k", "v");
  if (a_.calls() > 0) {
    EXPECT_THAT(std::string(base::Message(put.status())), HasSubstr("was refused by"));
  }
  EXPECT_LE(a_.calls() + b_.calls(), 1);
}

TEST_F(HedgeTest, DumpAndMetricsTellWhatCallsCameToAndWhichEndpointsAnswer) {
  a_.Always(Answer::Ok(3));
  const std::string dead = DeadEndpoint();
  const auto client = Open({a_.endpoint(), dead});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(client->Get("k").ok());
  const std::string dump = client->Dump();
  EXPECT_THAT(dump, HasSubstr("calls 3, attempts "));
  EXPECT_THAT(dump, HasSubstr("ok 3"));
  EXPECT_THAT(dump, HasSubstr("endpoint " + a_.endpoint() + " (in use): reachable"));
  EXPECT_EQ(Figure(*client, "holdfast_client_attempts_total{outcome=\"ok\"}"), 3u);
  EXPECT_EQ(Figure(*client, "holdfast_client_endpoint_up{endpoint=\"" + a_.endpoint() + "\"}"), 1u);
}

}  // namespace
}  // namespace holdfast
