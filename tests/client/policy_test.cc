// The pure parts: what is retried, how often, and where.
#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "client/endpoint.h"
#include "client/endpoint_set.h"
#include "client/fresh_gate.h"
#include "client/outcome.h"
#include "client/retry_budget.h"
#include "client/rpc.h"
#include "holdfast/client.h"

namespace holdfast::internal {
namespace {

using grpc::StatusCode;

struct Row {
  StatusCode code;
  const char* text;
  Asked asked;
  Outcome outcome;
  bool retried;
};

// May a request that met this be sent again? A write only if it certainly had no effect.
bool Retried(Outcome outcome, bool write) {
  return MayDifferElsewhere(outcome) && (!write || CertainlyNoEffect(outcome));
}

TEST(Outcome, DecidesWhatIsSentAgain) {
  const Asked write{.write = true};
  const Asked unsent{.write = true, .sent = false};
  const Asked read{};
  const Asked serializable{.serializable = true};
  const Asked bounded{.bounded = true, .serializable = true};
  const std::vector<Row> table = {
      // A write that may have taken effect is never sent again.
      {StatusCode::UNAVAILABLE, "Socket closed", write, Outcome::kBroken, false},
      {StatusCode::UNAVAILABLE, "etcdserver: request timed out", write, Outcome::kNoQuorum, false},
      {StatusCode::UNAVAILABLE,
       "etcdserver: request timed out, possibly due to previous leader failure", write,
       Outcome::kNoQuorum, false},
      {StatusCode::UNAVAILABLE, "etcdserver: request timed out, possibly due to connection lost",
       write, Outcome::kNoQuorum, false},
      {StatusCode::UNKNOWN, "etcdserver: request timed out, leader transfer took too long", write,
       Outcome::kNoQuorum, false},
      {StatusCode::UNAVAILABLE, "etcdserver: leader changed", write, Outcome::kNoQuorum, false},
      {StatusCode::UNAVAILABLE, "etcdserver: server stopped", write, Outcome::kNoQuorum, false},
      {StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded", write, Outcome::kTimedOut, false},
      {StatusCode::CANCELLED, "", write, Outcome::kBroken, false},
      {StatusCode::INTERNAL, "RST_STREAM", write, Outcome::kBroken, false},
      {StatusCode::UNKNOWN, "something new", write, Outcome::kNoQuorum, false},
      // One that certainly had none is.
      {StatusCode::UNAVAILABLE, "etcdserver: no leader", write, Outcome::kNoLeader, true},
      {StatusCode::UNKNOWN, "etcdserver: too many requests", write, Outcome::kOverloaded, true},
      {StatusCode::RESOURCE_EXHAUSTED, "etcdserver: too many requests", write, Outcome::kOverloaded,
       true},
      {StatusCode::FAILED_PRECONDITION, "etcdserver: rpc not supported for learner", write,
       Outcome::kWrongMember, true},
      {StatusCode::UNAVAILABLE, "Connection refused", unsent, Outcome::kNotSent, true},
      {StatusCode::DEADLINE_EXCEEDED, "", unsent, Outcome::kTimedOut, false},
      // A definite no is final for both.
      {StatusCode::INVALID_ARGUMENT, "etcdserver: key is not provided", write, Outcome::kRefused,
       false},
      {StatusCode::RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", write,
       Outcome::kRefused, false},
      {StatusCode::PERMISSION_DENIED, "etcdserver: permission denied", read, Outcome::kRefused,
       false},
      {StatusCode::OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", read,
       Outcome::kRefused, false},
      {StatusCode::DATA_LOSS, "etcdserver: corrupt cluster", read, Outcome::kRefused, false},
      {StatusCode::UNIMPLEMENTED, "", read, Outcome::kRefused, false},
      // Reads are sent again whenever another try can differ.
      {StatusCode::UNAVAILABLE, "Socket closed", read, Outcome::kBroken, true},
      {StatusCode::UNAVAILABLE, "etcdserver: request timed out", read, Outcome::kNoQuorum, true},
      {StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded", read, Outcome::kTimedOut, true},
      // A revision that a follower lacks can be at another; one that nobody has cannot.
      {StatusCode::OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision",
       serializable, Outcome::kBehind, true},
      {StatusCode::OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", read,
       Outcome::kRefused, false},
      {StatusCode::FAILED_PRECONDITION, "too stale", bounded, Outcome::kTooOld, true},
      {StatusCode::FAILED_PRECONDITION, "etcdserver: not capable", read, Outcome::kRefused, false},
  };
  for (const Row& row : table) {
    SCOPED_TRACE(testing::Message() << (row.asked.write ? "write: " : "read: ")
                                    << static_cast<int>(row.code) << " " << row.text);
    const Outcome outcome = Classify(grpc::Status(row.code, row.text), row.asked);
    EXPECT_EQ(ToString(outcome), ToString(row.outcome));
    // A write that timed out unsent has no time left; a sent one must not go again.
    if (row.outcome == Outcome::kTimedOut && !row.asked.sent) continue;
    EXPECT_EQ(Retried(outcome, row.asked.write), row.retried);
  }
  EXPECT_EQ(Classify(grpc::Status::OK, write), Outcome::kOk);
}

TEST(RetryBudget, NeverExceedsItsShareWhateverCallersDo) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    base::Rng rng(seed);
    absl::Duration now;
    RetryBudget budget(0.1, 1.0, now);
    double calls = 0, retries = 0;
    for (int i = 0; i < 5000; ++i) {
      now += absl::Milliseconds(static_cast<int64_t>(rng.Below(20)));
      if (rng.OneIn(2)) {
        budget.OnCall();
        ++calls;
      }
      while (budget.TryTake(now)) ++retries;
      ASSERT_LE(retries, RetryBudget::kInitial + 0.1 * calls + absl::ToDoubleSeconds(now) + 1e-6);
    }
    // And it does grant it.
    EXPECT_GT(retries, 0.9 * (0.1 * calls + absl::ToDoubleSeconds(now)));
  }
}

TEST(RetryBudget, SavesUpLittle) {
  RetryBudget budget(0.1, 1.0, absl::ZeroDuration());
  for (int i = 0; i < 100'000; ++i) budget.OnCall();
  int burst = 0;
  const absl::Duration later = absl::Hours(1);
  while (budget.TryTake(later)) ++burst;
  EXPECT_EQ(burst, RetryBudget::kSavedMax);
  EXPECT_EQ(budget.UntilNext(later), absl::Seconds(1));
  // An idle hour is worth no more than a start.
  burst = 0;
  while (budget.TryTake(later + absl::Hours(1))) ++burst;
  EXPECT_EQ(burst, RetryBudget::kSavedByTimeMax);
}

TEST(RetryBudget, DebtIsPaidBackBeforeTheNextRetry) {
  RetryBudget budget(0.1, 1.0, absl::ZeroDuration());
  for (int i = 0; i < 4; ++i) budget.Charge(absl::ZeroDuration());  // 2 - 4
  EXPECT_FALSE(budget.TryTake(absl::Seconds(2.5)));
  EXPECT_TRUE(budget.TryTake(absl::Seconds(3.5)));
}

class EndpointSetTest : public testing::Test {
 protected:
  // Marks the endpoint as tried and gives it.
  size_t PickNext(bool needs_quorum = true) {
    const auto pick = set_.Pick(needs_quorum, tried_, now_);
    EXPECT_TRUE(pick.has_value());
    tried_[*pick] = true;
    return *pick;
  }
  void NewCall() { tried_.reset(); }
  void Report(size_t endpoint, Outcome outcome, bool needs_quorum = true) {
    set_.Report(endpoint, outcome, needs_quorum, now_);
  }

  base::Rng rng_{7};
  RetryPolicy policy_;
  EndpointSet set_{3, policy_, &rng_};
  EndpointFlags tried_;
  absl::Duration now_ = absl::Seconds(100);
};

TEST_F(EndpointSetTest, StaysWithOneEndpointUntilItFails) {
  for (int i = 0; i < 10; ++i) {
    NewCall();
    EXPECT_EQ(PickNext(), 0u);
    Report(0, Outcome::kOk);
  }
  NewCall();
  EXPECT_EQ(PickNext(), 0u);
  Report(0, Outcome::kNotSent);
  EXPECT_EQ(PickNext(), 1u);
  Report(1, Outcome::kOk);
  // It does not go back when the first recovers: a warm connection is worth more.
  now_ += absl::Hours(1);
  NewCall();
  EXPECT_EQ(PickNext(), 1u);
}

TEST_F(EndpointSetTest, EveryEndpointHasOneTurnPerRound) {
  std::set<size_t> seen = {PickNext(), PickNext(), PickNext()};
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(set_.Pick(true, tried_, now_), std::nullopt);
}

TEST_F(EndpointSetTest, AMemberWithoutLeaderStillServesStaleReads) {
  Report(0, Outcome::kNoLeader);
  Report(1, Outcome::kNotSent);
  Report(2, Outcome::kNotSent);
  NewCall();
  EXPECT_EQ(PickNext(/*needs_quorum=*/false), 0u);
  NewCall();
  EXPECT_FALSE(set_.HealthyLeft(/*needs_quorum=*/true, tried_, now_));
  EXPECT_TRUE(set_.HealthyLeft(/*needs_quorum=*/false, tried_, now_));
}

TEST_F(EndpointSetTest, ASilentEndpointIsBetterThanOneThatRefuses) {
  // Repeated, so that the back-offs are long whatever the jitter.
  for (int i = 0; i < 12; ++i) {
    Report(0, Outcome::kNotSent);
    Report(1, Outcome::kTimedOut);
    Report(2, Outcome::kNotSent);
    now_ += absl::Seconds(10);
  }
  Report(0, Outcome::kNotSent);
  Report(1, Outcome::kTimedOut);
  Report(2, Outcome::kNotSent);
  EXPECT_EQ(PickNext(), 1u);
}

TEST_F(EndpointSetTest, BackOffGrowsAndIsForgottenOnlyAfterAMinuteOfHealth) {
  const EndpointFlags none;
  // The longest of many back-offs after one more failure.
  const auto longest_after = [&](int failures, absl::Duration health) {
    absl::Duration longest;
    for (int sample = 0; sample < 200; ++sample) {
      EndpointSet one(1, policy_, &rng_);
      for (int i = 0; i < failures; ++i) {
        one.Report(0, Outcome::kNotSent, false, now_);
        now_ += policy_.cap;
      }
      one.Report(0, Outcome::kOk, false, now_);
      now_ += health;
      one.Report(0, Outcome::kOk, false, now_);
      one.Report(0, Outcome::kNotSent, false, now_);
      absl::Duration out;
      while (!one.HealthyLeft(false, none, now_ + out)) out += absl::Milliseconds(1);
      longest = std::max(longest, out);
    }
    return longest;
  };
  EXPECT_LE(longest_after(0, absl::ZeroDuration()), absl::Milliseconds(51));
  EXPECT_GT(longest_after(6, absl::Seconds(59)), absl::Milliseconds(1600));
  EXPECT_LE(longest_after(6, absl::Seconds(60)), absl::Milliseconds(51));
}

TEST_F(EndpointSetTest, IsSettledOnceASuccessWouldChangeNothing) {
  EXPECT_FALSE(set_.Settled(0)) << "nobody knows yet how it is";
  Report(0, Outcome::kOk);
  EXPECT_TRUE(set_.Settled(0));
  EXPECT_FALSE(set_.Settled(1)) << "it is not in use";
  // Its back-off, then the memory of its failures.
  Report(0, Outcome::kNotSent);
  EXPECT_FALSE(set_.Settled(0));
  Report(0, Outcome::kOk);
  EXPECT_FALSE(set_.Settled(0));
  now_ += policy_.healthy_after;
  Report(0, Outcome::kOk);
  EXPECT_TRUE(set_.Settled(0));
  // Of the quorum too, although it was reached.
  Report(0, Outcome::kNoLeader);
  EXPECT_FALSE(set_.Settled(0));
}

TEST(FullJitter, IsUniformUpToTheCap) {
  base::Rng rng(3);
  const RetryPolicy policy;
  for (int n = 0; n < 40; ++n) {
    const absl::Duration most =
        std::min(policy.base * static_cast<double>(uint64_t{1} << std::min(n, 30)), policy.cap);
    absl::Duration sum, longest;
    for (int i = 0; i < 2000; ++i) {
      const absl::Duration d = FullJitter(policy, n, rng);
      ASSERT_GE(d, absl::ZeroDuration());
      ASSERT_LE(d, most);
      sum += d;
      longest = std::max(longest, d);
    }
    EXPECT_GT(longest, most * 0.99);
    EXPECT_NEAR(absl::FDivDuration(sum / 2000, most), 0.5, 0.05);
  }
}

TEST(FreshGate, LetsOneProbeThroughWhileClosed) {
  base::Rng rng(5);
  FreshGate gate(RetryPolicy(), &rng);
  absl::Duration now = absl::Seconds(1);
  EXPECT_EQ(gate.Enter(now), FreshGate::Pass::kYes);
  EXPECT_EQ(gate.Enter(now), FreshGate::Pass::kYes);
  gate.OnNotFresh(now);
  now += absl::Seconds(10);
  EXPECT_EQ(gate.Enter(now), FreshGate::Pass::kProbe);
  EXPECT_EQ(gate.Enter(now), FreshGate::Pass::kNo);
  gate.OnProbeOver();
  EXPECT_EQ(gate.Enter(now), FreshGate::Pass::kProbe);
  gate.OnFresh();
  EXPECT_EQ(gate.Enter(now), FreshGate::Pass::kYes);
}

TEST(FreshGate, ProbesAboutOnceASecondInALongOutage) {
  base::Rng rng(5);
  FreshGate gate(RetryPolicy(), &rng);
  int probes = 0;
  gate.OnNotFresh(absl::ZeroDuration());
  for (absl::Duration now; now < absl::Seconds(300); now += absl::Milliseconds(1)) {
    if (gate.Enter(now) != FreshGate::Pass::kProbe) continue;
    ++probes;
    gate.OnNotFresh(now);
  }
  EXPECT_GT(probes, 200);
  EXPECT_LT(probes, 420);
}

TEST(Endpoint, AcceptsTheFormsThatPeopleWrite) {
  const std::vector<std::pair<std::string, std::string>> good = {
      {"a:2379", "a:2379"},
      {"http://store-1.example.org:2379", "store-1.example.org:2379"},
      {"http://10.0.0.1:2379/", "10.0.0.1:2379"},
      {"[::1]:2379", "[::1]:2379"},
      {"localhost:65535", "localhost:65535"},
  };
  for (const auto& [text, name] : good) {
    const auto endpoint = ParseEndpoint(text);
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    EXPECT_EQ(endpoint->name, name);
    EXPECT_EQ(endpoint->target, "dns:///" + name);
  }
  for (const char* bad : {"", "a", "a:", ":2379", "a:0", "a:65536", "a:23x", "https://a:2379",
                          "http://", "a b:1", "::1:2379", "a:2379/path", "a:-1", "[zz]:1"}) {
    const auto endpoint = ParseEndpoint(bad);
    EXPECT_EQ(endpoint.status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(Options, AreChecked) {
  const auto open = [](auto change) {
    ClientOptions options{.endpoints = {"127.0.0.1:1"}};
    change(options);
    return Client::Open(options).status().code();
  };
  EXPECT_EQ(open([](auto&) {}), absl::StatusCode::kOk);
  const std::vector<std::function<void(ClientOptions&)>> bad = {
      [](auto& o) { o.endpoints.clear(); },
      [](auto& o) { o.endpoints.assign(33, "a:1"); },
      [](auto& o) { o.endpoints.push_back("no port"); },
      [](auto& o) { o.retry.max_attempts = 0; },
      [](auto& o) { o.retry.base = absl::ZeroDuration(); },
      [](auto& o) { o.retry.cap = absl::Milliseconds(1); },
      [](auto& o) { o.retry.try_timeout = absl::ZeroDuration(); },
      [](auto& o) { o.retry.budget_ratio = 1.5; },
      [](auto& o) { o.retry.budget_per_second = -1; },
      [](auto& o) { o.max_clock_slow = 1; },
  };
  for (const auto& change : bad) EXPECT_EQ(open(change), absl::StatusCode::kInvalidArgument);
}

TEST(Token, SurvivesTheTrip) {
  const Token token{.revision = 42, .cluster_id = 0xfeedbeef};
  const auto back = Token::Parse(token.Serialize());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->revision, 42u);
  EXPECT_EQ(back->cluster_id, 0xfeedbeefu);
  EXPECT_EQ(back->incarnation, 0u);  // as of a token of release 0.1
  const Token born{.revision = 42, .cluster_id = 7, .incarnation = 0xabc};
  const auto again = Token::Parse(born.Serialize());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->revision, 42u);
  EXPECT_EQ(again->cluster_id, 7u);
  EXPECT_EQ(again->incarnation, 0xabcu);
  for (const char* bad : {"", "42", "hf1.", "hf1.7", "hf1.7.", "hf1.zz.1", "hf1.7.-1", "hf2.7.1",
                          "hf1.7.1.", "hf1.7.1.zz", "hf1.7.1.2.3"}) {
    EXPECT_FALSE(Token::Parse(bad).ok()) << bad;
  }
}

TEST(PrefixEnd, IsTheFirstKeyBehindThePrefix) {
  EXPECT_EQ(PrefixEnd("/config/"), "/config0");
  EXPECT_EQ(PrefixEnd("a\xff"), "b");
  EXPECT_EQ(PrefixEnd("\xff\xff"), std::string(1, '\0'));
  EXPECT_EQ(PrefixEnd(""), std::string(1, '\0'));
}

TEST(AgeReport, BelievesOnlyWhatTheSpecificationSays) {
  EXPECT_EQ(ParseAgeReport("40", "proven", "leader").age, absl::Milliseconds(40));
  EXPECT_EQ(ParseAgeReport("0", "proven", "follower").source, Source::kFollower);
  EXPECT_EQ(ParseAgeReport("40", "unknown", "leader").age, std::nullopt);
  EXPECT_EQ(ParseAgeReport("40", std::nullopt, "leader").age, std::nullopt);
  EXPECT_EQ(ParseAgeReport(std::nullopt, "proven", "leader").age, std::nullopt);
  for (const char* bad :
       {"", "-1", "4x", " 4", "1e3", "99999999999999999999", "9223372036854775807"}) {
    EXPECT_EQ(ParseAgeReport(bad, "proven", "leader").age, std::nullopt) << bad;
  }
  EXPECT_EQ(ParseAgeReport("1", "proven", "somebody").source, Source::kUnknown);
}

}  // namespace
}  // namespace holdfast::internal
