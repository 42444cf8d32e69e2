// Writes in a session: what is sent again, what is not, and what a caller is told.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "base/strings.h"
#include "client/session.h"
#include "holdfast/client.h"
#include "tests/client/fake_server.h"

namespace holdfast {
namespace {

using absl::StatusCode;
using internal::WriteSessions;
using test::Answer;
using test::FakeServer;
using test::Seen;
using testing::HasSubstr;

struct Stamp {
  std::string session;
  uint64_t sequence = 0;
  uint64_t lowest = 0;
  std::string digest;
  friend bool operator==(const Stamp&, const Stamp&) = default;
};

std::optional<Stamp> StampOf(const Seen& seen) {
  const auto it = seen.metadata.find("holdfast-session");
  if (it == seen.metadata.end()) return std::nullopt;
  const std::vector<std::string> parts = absl::StrSplit(it->second, '-');
  if (parts.size() != 4) return std::nullopt;
  return Stamp{parts[0], std::stoull(parts[1]), std::stoull(parts[2]), parts[3]};
}

bool IsWrite(const Seen& seen) {
  return seen.method == "Put" || seen.method == "DeleteRange" || seen.method == "Txn";
}

Answer Lost() { return Answer::Error(grpc::StatusCode::UNAVAILABLE, "Socket closed"); }
Answer Word(const char* word) {
  return Answer::Error(grpc::StatusCode::ABORTED, fmt::format("holdfast: SESSION_{}: ...", word));
}
Answer Answered(Answer answer, bool before) {
  answer.trailing.emplace_back("holdfast-deduplicated", before ? "1" : "0");
  return answer;
}

std::string Text(const absl::Status& status) { return std::string(base::Message(status)); }

// Three members with sessions. What a write is answered, the test says; sessions are numbered.
class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    Writes([](const Seen&) { return Answered(Answer::Ok(5), false); });
  }

  std::unique_ptr<Client> Open(int max_attempts = 10, bool exactly_once = true) {
    Client::Options options{
        .endpoints = {servers_[0].endpoint(), servers_[1].endpoint(), servers_[2].endpoint()},
        .exactly_once = exactly_once,
        .seed = 11};
    options.retry.base = absl::Milliseconds(1);
    options.retry.cap = absl::Milliseconds(5);
    options.retry.try_timeout = absl::Seconds(60);
    options.retry.max_attempts = max_attempts;
    // The budget is other tests' affair.
    options.retry.budget_per_second = 1000;
    auto client = Client::Open(std::move(options));
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
  void Writes(std::function<Answer(const Seen&)> answer) {
    for (FakeServer& server : servers_) {
      server.SetHandler([this, answer](const Seen& seen) {
        const absl::MutexLock lock(&mutex_);
        all_.push_back(seen);
        if (seen.method == "SessionOpen") {
          if (opened_ >= sessions_max_) {
            return Answer::Error(grpc::StatusCode::RESOURCE_EXHAUSTED, "no more");
          }
          Answer opened = open_answer_;
          if (opened.status.ok()) opened.session = 0xa0 + ++opened_;
          opened.window = window_;
          return opened;
        }
        return IsWrite(seen) ? answer(seen) : Answer::Ok(5);
      });
    }
  }
  // The n-th write that reaches the store, counted from 0, is answered answers[n]; the others as
  // the last one.
  void Sequence(std::vector<Answer> answers) {
    const auto next = std::make_shared<size_t>(0);
    Writes([answers = std::move(answers), next](const Seen&) {
      return answers[std::min((*next)++, answers.size() - 1)];
    });
  }
  std::vector<Stamp> Stamps() {
    const absl::MutexLock lock(&mutex_);
    std::vector<Stamp> stamps;
    for (const Seen& seen : all_) {
      if (!IsWrite(seen)) continue;
      const auto stamp = StampOf(seen);
      EXPECT_TRUE(stamp.has_value());
      if (stamp.has_value()) stamps.push_back(*stamp);
    }
    return stamps;
  }
  int Count(const std::string& method) {
    const absl::MutexLock lock(&mutex_);
    int count = 0;
    for (const Seen& seen : all_) count += seen.method == method;
    return count;
  }
  void ReleaseHeld(const Answer& answer) {
    for (FakeServer& server : servers_) server.ReleaseHeld(answer);
  }
  void WaitForWrites(int count) {
    const absl::MutexLock lock(&mutex_);
    auto enough = [this, count]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      int writes = 0;
      for (const Seen& seen : all_) writes += IsWrite(seen);
      return writes >= count;
    };
    mutex_.Await(absl::Condition(&enough));
  }

  absl::Mutex mutex_;
  std::vector<Seen> all_ ABSL_GUARDED_BY(mutex_);
  uint64_t opened_ = 0;
  Answer open_answer_ = Answer::Ok(1);
  uint64_t sessions_max_ = 1000;  // that the store opens
  uint32_t window_ = 128;
  FakeServer servers_[3] = {FakeServer(FakeServer::Sessions::kYes),
                            FakeServer(FakeServer::Sessions::kYes),
                            FakeServer(FakeServer::Sessions::kYes)};
};

TEST_F(SessionTest, TheFirstWriteOpensASessionAndEachGetsTheNextSequence) {
  const auto client = Open();
  EXPECT_TRUE(client->Get("k").ok());
  EXPECT_EQ(Count("SessionOpen"), 0);
  const auto put = client->Put("k", "v");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->attempts, 1);
  EXPECT_FALSE(put->deduplicated);
  EXPECT_TRUE(client->Delete("k").ok());
  EXPECT_TRUE(client->Commit(Txn().Then({Op::Put("k", "v")})).ok());
  EXPECT_TRUE(client->Put("k", "v").ok());
  EXPECT_EQ(Count("SessionOpen"), 1);
  const auto stamps = Stamps();
  ASSERT_EQ(stamps.size(), 4u);
  for (size_t i = 0; i < stamps.size(); ++i) {
    EXPECT_EQ(stamps[i].session, "a1");
    EXPECT_EQ(stamps[i].sequence, i + 1);
    EXPECT_EQ(stamps[i].lowest, i + 1);  // everything before is answered
  }
  EXPECT_EQ(stamps[0].digest, stamps[3].digest);
  EXPECT_NE(stamps[0].digest, stamps[1].digest);
  // A transaction that only reads is none.
  EXPECT_TRUE(client->Commit(Txn().Then({Op::Get("k")})).ok());
  EXPECT_FALSE(StampOf(all_.back()).has_value());
}

TEST_F(SessionTest, AWriteWithoutAnAnswerGoesOutAgainUnderItsStamp) {
  Sequence({Lost(), Answered(Answer::Ok(7), true)});
  const auto client = Open();
  const auto put = client->Put("k", "v");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->attempts, 2);
  EXPECT_TRUE(put->deduplicated);
  EXPECT_EQ(put->token.revision, 7u);
  const auto stamps = Stamps();
  ASSERT_EQ(stamps.size(), 2u);
  EXPECT_EQ(stamps[0], stamps[1]);
}

TEST_F(SessionTest, WhatStaysUnknownCanBeAskedForAgain) {
  Sequence({Lost(), Answered(Answer::Ok(6), false), Answered(Answer::Ok(5), true),
            Answered(Answer::Ok(8), false)});
  const auto client = Open(/*max_attempts=*/1);
  const auto unknown = client->DeletePrefix("p/");
  EXPECT_EQ(unknown.status().code(), StatusCode::kUnknown);
  EXPECT_TRUE(MaybeCommitted(unknown.status()));
  EXPECT_THAT(Text(unknown.status()), HasSubstr("Client::Resolve()"));
  EXPECT_TRUE(client->Put("other", "v").ok());
  const auto resolved = client->Resolve(unknown.status());
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->token.revision, 5u);
  EXPECT_TRUE(resolved->deduplicated);
  EXPECT_TRUE(client->Put("other", "v").ok());
  const auto stamps = Stamps();
  ASSERT_EQ(stamps.size(), 4u);
  EXPECT_EQ(stamps[1].sequence, 2u);
  EXPECT_EQ(stamps[1].lowest, 1u);  // the unknown one holds it back
  EXPECT_EQ(stamps[2], stamps[0]);
  EXPECT_EQ(stamps[3].lowest, 3u);
  EXPECT_EQ(client->Resolve(unknown.status()).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(client->Resolve(absl::UnknownError("else")).status().code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(SessionTest, AnAnswerThatStaysAwayCanBeAskedForAsOftenAsItTakes) {
  Sequence({Lost(), Lost(), Answered(Answer::Ok(5), true)});
  const auto client = Open(/*max_attempts=*/1);
  const auto unknown = client->Put("k", "v");
  const auto again = client->Resolve(unknown.status());
  EXPECT_TRUE(MaybeCommitted(again.status()));
  EXPECT_TRUE(client->Resolve(again.status()).ok());
}

TEST_F(SessionTest, WithoutSessionsAWriteIsSentOnce) {
  FakeServer etcd;
  auto client = *Client::Open({.endpoints = {etcd.endpoint()}});
  EXPECT_TRUE(client->Put("k", "v").ok());
  etcd.Always(Lost());
  const auto lost = client->Put("k", "v");
  EXPECT_TRUE(MaybeCommitted(lost.status()));
  EXPECT_EQ(etcd.calls(), 2);
  for (const Seen& seen : etcd.seen()) EXPECT_FALSE(StampOf(seen).has_value());
  EXPECT_EQ(client->Resolve(lost.status()).status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(SessionTest, WhoDoesNotWantASessionHasNone) {
  Sequence({Lost(), Answer::Ok()});
  const auto client = Open(10, /*exactly_once=*/false);
  EXPECT_TRUE(MaybeCommitted(client->Put("k", "v").status()));
  EXPECT_TRUE(client->Put("k", "v").ok());
  EXPECT_EQ(Count("SessionOpen"), 0);
  EXPECT_EQ(Count("Put"), 2);
}

TEST_F(SessionTest, AForkIsToldAndTheNextWriteOpensAnotherSession) {
  Sequence({Word("FORKED"), Answered(Answer::Ok(5), false)});
  const auto client = Open();
  const auto forked = client->Put("k", "v");
  EXPECT_EQ(forked.status().code(), StatusCode::kAborted);
  EXPECT_FALSE(MaybeCommitted(forked.status()));
  EXPECT_THAT(Text(forked.status()), HasSubstr("SESSION_FORKED"));
  EXPECT_EQ(Count("Put"), 1);
  EXPECT_TRUE(client->Put("k", "v").ok());
  const auto stamps = Stamps();
  ASSERT_EQ(stamps.size(), 2u);
  EXPECT_EQ(stamps[1].session, "a2");
  EXPECT_EQ(stamps[1].sequence, 1u);
}

TEST_F(SessionTest, AnExpiredSessionIsReplacedForAWriteThatWasSentOnce) {
  Sequence({Answered(Answer::Ok(5), false), Word("EXPIRED"), Answered(Answer::Ok(6), false)});
  const auto client = Open();
  EXPECT_TRUE(client->Put("k", "v").ok());
  const auto put = client->Put("k", "w");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(Count("SessionOpen"), 2);
  const auto stamps = Stamps();
  ASSERT_EQ(stamps.size(), 3u);
  EXPECT_EQ(stamps[1].session, "a1");
  EXPECT_EQ(stamps[2].session, "a2");
  EXPECT_EQ(stamps[2].sequence, 1u);
}

TEST_F(SessionTest, AWriteInDoubtNeverGoesIntoAnotherSession) {
  Sequence({Lost(), Word("EXPIRED"), Answered(Answer::Ok(6), false)});
  const auto client = Open();
  const auto put = client->Put("k", "v");
  EXPECT_TRUE(MaybeCommitted(put.status())) << put.status();
  EXPECT_EQ(Count("Put"), 2);
  EXPECT_EQ(client->Resolve(put.status()).status().code(), StatusCode::kFailedPrecondition);
  // A new write does.
  EXPECT_TRUE(client->Put("k", "w").ok());
  EXPECT_EQ(Stamps().back().session, "a2");
}

TEST_F(SessionTest, WhatAnotherAcknowledgedIsUnknownIfItWasInDoubt) {
  Sequence({Lost(), Word("ACKNOWLEDGED"), Word("ACKNOWLEDGED")});
  const auto client = Open();
  EXPECT_TRUE(MaybeCommitted(client->Put("k", "v").status()));
  const auto once = client->Put("k", "v");
  EXPECT_EQ(once.status().code(), StatusCode::kAborted);
  EXPECT_THAT(Text(once.status()), HasSubstr("SESSION_FORKED"));
}

TEST_F(SessionTest, ARefusalThatTheStoreKeepsIsFinal) {
  Answer refused = Answer::Error(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                 "etcdserver: mvcc: database space exceeded");
  Sequence({Lost(), Answered(refused, true)});
  const auto client = Open();
  const auto put = client->Put("k", "v");
  EXPECT_EQ(put.status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(MaybeCommitted(put.status()));
  EXPECT_EQ(Count("Put"), 2);
}

TEST_F(SessionTest, ARefusalBeforeTheLogSettlesNothingThatIsInDoubt) {
  Answer refused = Answer::Error(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                 "etcdserver: mvcc: database space exceeded");
  Sequence({Lost(), refused, refused, Answered(Answer::Ok(5), true)});
  const auto client = Open();
  const auto put = client->Put("k", "v");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->attempts, 4);
  // Of a write that was sent once it is the answer.
  Sequence({refused});
  const auto once = client->Put("k", "v");
  EXPECT_EQ(once.status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(MaybeCommitted(once.status()));
  Sequence({Lost(), refused});
  const auto unknown = client->Put("k", "v");
  EXPECT_TRUE(MaybeCommitted(unknown.status())) << unknown.status();
}

TEST_F(SessionTest, NoLeaderSettlesNothingThatIsInDoubt) {
  Sequence({Lost(), Answer::NoLeader()});
  const auto client = Open(/*max_attempts=*/4);
  const auto put = client->Put("k", "v");
  EXPECT_TRUE(MaybeCommitted(put.status())) << put.status();
  Sequence({Answer::NoLeader()});
  const auto none = client->Put("k", "v");
  EXPECT_EQ(none.status().code(), StatusCode::kUnavailable);
  EXPECT_FALSE(MaybeCommitted(none.status()));
}

TEST_F(SessionTest, AnAnswerTooLargeToBeKeptSaysThatItTookEffect) {
  Sequence({Lost(), Answered(Answer::Error(grpc::StatusCode::ALREADY_EXISTS,
                                           "holdfast: SESSION_ANSWER_TOO_LARGE: took effect, "
                                           "once, at revision 9"),
                             true)});
  const auto client = Open();
  const auto txn = client->Commit(Txn().Then({Op::Put("k", "v"), Op::Get("big")}));
  EXPECT_EQ(txn.status().code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(Text(txn.status()), HasSubstr("at revision 9"));
  EXPECT_FALSE(MaybeCommitted(txn.status()));
}

TEST_F(SessionTest, WithoutASessionNothingIsSentAndTheCallerIsToldSo) {
  open_answer_ = Answer::NoLeader();
  const auto client = Open(/*max_attempts=*/3);
  const auto put = client->Put("k", "v");
  EXPECT_EQ(put.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(Text(put.status()), HasSubstr("It had no effect"));
  EXPECT_FALSE(MaybeCommitted(put.status()));
  EXPECT_EQ(Count("Put"), 0);
  {
    const absl::MutexLock lock(&mutex_);
    open_answer_ = Answer::Ok(1);
  }
  EXPECT_TRUE(client->Put("k", "v").ok());
}

TEST_F(SessionTest, ASessionThatIsNotOpenedInTimeCostsTheWriteNothingButTime) {
  open_answer_ = Answer::Hold();
  const auto client = Open();
  const auto put = client->Put("k", "v", {.deadline = absl::Milliseconds(200)});
  EXPECT_FALSE(put.ok());
  EXPECT_FALSE(MaybeCommitted(put.status())) << put.status();
  EXPECT_EQ(Count("Put"), 0);
}

TEST_F(SessionTest, TheOpeningOfASessionIsRetriedWhateverBecameOfIt) {
  open_answer_ = Lost();
  const auto client = Open(/*max_attempts=*/3);
  EXPECT_FALSE(client->Put("k", "v").ok());
  EXPECT_EQ(Count("SessionOpen"), 3);
}

TEST_F(SessionTest, AFullWindowMakesTheNextOneWait) {
  window_ = 2;
  sessions_max_ = 1;
  Writes([](const Seen&) { return Answer::Hold(); });
  const auto client = Open();
  absl::BlockingCounter done(3);
  std::atomic<int> ok = 0;
  const auto then = [&](absl::StatusOr<WriteResult> result) {
    if (result.ok()) ++ok;
    done.DecrementCount();
  };
  client->Put("a", "v", {}, then);
  client->Put("b", "v", {}, then);
  WaitForWrites(2);
  client->Put("c", "v", {}, then);
  const auto late = client->Put("d", "v", {.deadline = absl::Milliseconds(50)});
  EXPECT_EQ(late.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_THAT(Text(late.status()), HasSubstr("had no effect"));
  EXPECT_EQ(Count("Put"), 2);
  Writes([](const Seen&) { return Answered(Answer::Ok(5), false); });
  ReleaseHeld(Answered(Answer::Ok(5), false));
  done.Wait();
  EXPECT_EQ(ok, 3);
  EXPECT_EQ(Stamps().back().sequence, 3u);
}

TEST_F(SessionTest, EachWriteThatWaitsIsToldAtItsOwnDeadline) {
  window_ = 1;
  sessions_max_ = 1;
  Writes([](const Seen&) { return Answer::Hold(); });
  const auto client = Open();
  client->Put("a", "v", {.deadline = absl::Seconds(60)}, [](const auto&) {});
  WaitForWrites(1);
  // The earliest is neither the first nor the last to come, and one stays behind.
  absl::Mutex mutex;
  std::vector<int> told;
  absl::BlockingCounter late(3);
  for (const int ms : {60'000, 150, 50, 100}) {
    client->Put("k", "v", {.deadline = absl::Milliseconds(ms)}, [&, ms](const auto& result) {
      if (result.status().code() != StatusCode::kDeadlineExceeded) return;
      {
        absl::MutexLock lock(&mutex);
        told.push_back(ms);
      }
      late.DecrementCount();
    });
  }
  late.Wait();
  absl::MutexLock lock(&mutex);
  EXPECT_THAT(told, testing::ElementsAre(50, 100, 150));
  EXPECT_EQ(Count("Put"), 1);
}

TEST(OpenWrites, TheLowestGoesOnOnlyWhenAllBelowAreSettled) {
  internal::OpenWrites open;
  for (uint64_t sequence = 1; sequence <= 4; ++sequence) open.Add(sequence);
  open.Settle(2);
  EXPECT_EQ(open.lowest(), 1u);
  open.Set(1, /*under_way=*/false);
  EXPECT_FALSE(open.lowest_under_way());
  EXPECT_TRUE(open.any_under_way());
  open.Settle(1);
  EXPECT_EQ(open.lowest(), 3u);
  EXPECT_TRUE(open.lowest_under_way());
  open.Settle(4);
  EXPECT_EQ(open.lowest(), 3u);
  open.Settle(3);
  EXPECT_TRUE(open.empty());
  EXPECT_FALSE(open.any_under_way());
  open.Add(5);
  EXPECT_EQ(open.lowest(), 5u);
}

TEST_F(SessionTest, AnUnknownWriteDoesNotStopTheOthers) {
  window_ = 2;
  Sequence({Lost(), Answered(Answer::Ok(5), false)});
  const auto client = Open(/*max_attempts=*/1);
  const auto unknown = client->Put("k", "v");
  ASSERT_TRUE(MaybeCommitted(unknown.status()));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(client->Put("k", "v").ok());
  EXPECT_EQ(Count("SessionOpen"), 2);
  // Its session is kept for it, and closed with it.
  EXPECT_EQ(Count("SessionClose"), 0);
  EXPECT_TRUE(client->Resolve(unknown.status()).ok());
  EXPECT_EQ(Stamps().back().session, "a1");
  EXPECT_TRUE(client->Get("k").ok());
}

TEST_F(SessionTest, TheOldestUnknownWritesAreGivenUpForNewerOnes) {
  Writes([](const Seen&) { return Lost(); });
  const auto client = Open(/*max_attempts=*/1);
  std::vector<absl::Status> unknown;
  for (size_t i = 0; i <= WriteSessions::kUnresolvedMax; ++i) {
    unknown.push_back(client->Put("k", "v").status());
    ASSERT_TRUE(MaybeCommitted(unknown.back())) << unknown.back();
  }
  Writes([](const Seen&) { return Answered(Answer::Ok(5), true); });
  EXPECT_EQ(client->Resolve(unknown[0]).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(client->Resolve(unknown[1]).ok());
  EXPECT_TRUE(client->Resolve(unknown.back()).ok());
}

TEST_F(SessionTest, UnknownWritesAreBoundedInBytesToo) {
  Writes([](const Seen&) { return Lost(); });
  const auto client = Open(/*max_attempts=*/1);
  const std::string big(size_t{1} << 20, 'x');
  std::vector<absl::Status> unknown;
  for (size_t i = 0; i < (WriteSessions::kUnresolvedBytesMax >> 20) + 1; ++i) {
    unknown.push_back(client->Put("k", big).status());
  }
  Writes([](const Seen&) { return Answered(Answer::Ok(5), true); });
  EXPECT_EQ(client->Resolve(unknown[0]).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(client->Resolve(unknown.back()).ok());
}

TEST_F(SessionTest, AClientThatGoesClosesItsSession) {
  auto client = Open();
  EXPECT_TRUE(client->Put("k", "v").ok());
  client = nullptr;
  ASSERT_EQ(Count("SessionClose"), 1);
  EXPECT_EQ(all_.back().session, 0xa1u);
}

TEST_F(SessionTest, AClientThatGoesWithAWriteUnderWaySaysThatItsOutcomeIsUnknown) {
  Writes([](const Seen&) { return Answer::Hold(); });
  auto client = Open();
  absl::Notification done;
  absl::Status status;
  client->Put("k", "v", {}, [&](absl::StatusOr<WriteResult> result) {
    status = result.status();
    done.Notify();
  });
  WaitForWrites(1);
  client = nullptr;
  ASSERT_TRUE(done.HasBeenNotified());
  EXPECT_TRUE(MaybeCommitted(status)) << status;
  EXPECT_EQ(Count("SessionClose"), 0);
}

TEST_F(SessionTest, AFullWindowOpensAnotherSession) {
  window_ = 2;
  Writes([](const Seen&) { return Answer::Hold(); });
  const auto client = Open();
  constexpr int kWrites = 2 * 64 + 1;  // one more than all sessions together have room for
  absl::BlockingCounter done(kWrites);
  std::atomic<int> ok = 0;
  for (int i = 0; i < kWrites; ++i) {
    client->Put("k", "v", {.deadline = absl::Seconds(60)}, [&](absl::StatusOr<WriteResult> result) {
      if (result.ok()) ++ok;
      done.DecrementCount();
    });
  }
  WaitForWrites(kWrites - 1);
  EXPECT_EQ(Count("SessionOpen"), 64);
  EXPECT_EQ(Count("Put"), kWrites - 1);
  Writes([](const Seen&) { return Answered(Answer::Ok(5), false); });
  ReleaseHeld(Answered(Answer::Ok(5), false));
  done.Wait();
  EXPECT_EQ(ok, kWrites);
  EXPECT_EQ(Count("SessionOpen"), 64);
}

TEST_F(SessionTest, AClientThatGoesAnswersWhatWaits) {
  window_ = 1;
  sessions_max_ = 1;
  Writes([](const Seen&) { return Answer::Hold(); });
  auto client = Open();
  std::atomic<int> answered = 0, unknown = 0;
  for (int i = 0; i < 5; ++i) {
    client->Put("k", "v", {}, [&](absl::StatusOr<WriteResult> result) {
      ++answered;
      if (MaybeCommitted(result.status())) ++unknown;
    });
  }
  WaitForWrites(1);
  client = nullptr;
  EXPECT_EQ(answered, 5);
  EXPECT_EQ(unknown, 1);
}

TEST_F(SessionTest, ManyThreadsNeverShareASequence) {
  const auto client = Open();
  absl::BlockingCounter done(400);
  for (int i = 0; i < 400; ++i) {
    client->Put(fmt::format("k{}", i), "v", {.deadline = absl::Seconds(60)},
                [&](absl::StatusOr<WriteResult> result) {
                  EXPECT_TRUE(result.ok()) << result.status();
                  done.DecrementCount();
                });
  }
  done.Wait();
  std::set<std::pair<std::string, uint64_t>> sequences;
  for (const Stamp& stamp : Stamps()) {
    EXPECT_TRUE(sequences.emplace(stamp.session, stamp.sequence).second);
    EXPECT_LE(stamp.lowest, stamp.sequence);
    EXPECT_LT(stamp.sequence - stamp.lowest, 128u);
  }
  EXPECT_EQ(sequences.size(), 400u);
  EXPECT_LE(Count("SessionOpen"), 4);  // 128 in each
}

// Freshness: the try that took effect may have been the first.
TEST_F(SessionTest, ATransactionThatWasAnsweredBeforeIsAsOldAsItsFirstTry) {
  const auto clock = std::make_shared<base::FakeClock>();
  Client::Options options{
      .endpoints = {servers_[0].endpoint(), servers_[1].endpoint()}, .clock = clock, .seed = 11};
  const auto tries = std::make_shared<int>(0);
  Writes([clock, tries](const Seen&) {
    clock->Advance(absl::Seconds(3));
    return (*tries)++ == 0 ? Lost() : Answered(Answer::Ok(7), true);
  });
  const auto client = *Client::Open(std::move(options));
  const auto txn = client->Commit(Txn().Then({Op::Put("k", "v"), Op::Get("l")}));
  ASSERT_TRUE(txn.ok()) << txn.status();
  EXPECT_TRUE(txn->deduplicated);
  EXPECT_GE(txn->fresh.MaxAge(), absl::Seconds(6));
}

TEST_F(SessionTest, AChildProcessIsToldAndSendsNothing) {
  auto client = Open();
  EXPECT_TRUE(client->Put("k", "v").ok());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto put = client->Put("k", "w");
    const auto get = client->Get("k");
    const auto resolved = client->Resolve(absl::UnknownError(""));
    const bool told = put.status().code() == StatusCode::kAborted &&
                      get.status().code() == StatusCode::kAborted &&
                      resolved.status().code() == StatusCode::kAborted &&
                      Text(put.status()).find("SESSION_FORKED") != std::string::npos;
    client = nullptr;  // and does not hang
    _exit(told ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(client->Put("k", "v").ok());
  EXPECT_EQ(Count("Put"), 2);
}

}  // namespace
}  // namespace holdfast
