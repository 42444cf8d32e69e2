// Commands with a stamp, applied: each takes effect once, and what it was answered is its answer.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "base/strings.h"
#include "holdfast/client.pb.h"
#include "kv_test_util.h"
#include "server/apply_command.h"
#include "server/apply_session.h"
#include "server/etcd_errors.h"
#include "server/session_table.h"
#include "server/state_machine.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::PutResponse;
using etcdserverpb::TxnResponse;
using ::testing::HasSubstr;
using testing::Text;
using Stamp = ApplyResult::Stamp;

constexpr uint64_t kTtlMs = 60'000;

// The state of one member, without Raft.
class Store {
 public:
  ApplyResult Do(const Command& command, Term term = Term(3)) {
    ApplyEffects effects;
    auto result = ApplyCommand(
        command, want_answer_,
        {.index = ++index_, .term = term, .alarms = &alarms_, .effects = &effects}, *writer_);
    CHECK_OK(result.status());
    checks_ = effects.checks;
    return *std::move(result);
  }
  ApplyResult Do(const std::string& text) { return Do(testing::Parse<Command>(text)); }
  void Commit() { CHECK_OK(writer_->Commit(index_, Term(3))); }
  void Restart() {
    Commit();
    writer_.reset();
    CHECK_OK(store_->Flush().status());
    store_.reset();
    store_ = testing::OpenStore(dir_ / "db");
    writer_ = store_->NewWriter();
  }
  std::map<std::string, std::string> Metas(std::string_view prefix = "session/") const {
    std::map<std::string, std::string> metas;
    CHECK_OK(writer_->ScanMeta(prefix, [&](std::string_view key, std::string_view value) {
      metas.emplace(key, value);
      return true;
    }));
    return metas;
  }
  SessionClockRecord Clock() const {
    SessionClockRecord clock;
    const auto bytes = *writer_->GetMeta(kMetaSessionClock);
    if (bytes.has_value()) CHECK(Decode(*bytes, &clock));
    return clock;
  }
  std::string Value(const std::string& key) const {
    const auto found = *writer_->Get(key);
    return found.has_value() ? found->value : "-";
  }

  bool want_answer_ = true;
  AlarmSet alarms_;
  std::vector<CheckResult> checks_;
  testing::TempDir dir_;
  std::unique_ptr<storage::MvccStore> store_ = testing::OpenStore(dir_ / "db");
  std::unique_ptr<storage::MvccStore::Writer> writer_ = store_->NewWriter();
  Index index_;
};

Command Stamped(Command command, uint64_t session, uint64_t sequence, uint64_t lowest,
                uint64_t digest = 7) {
  command.mutable_session()->set_session(session);
  command.mutable_session()->set_sequence(sequence);
  command.mutable_session()->set_lowest_unacknowledged(lowest);
  command.mutable_session()->set_digest(digest);
  return command;
}

Command Stamped(const std::string& text, uint64_t session, uint64_t sequence, uint64_t lowest,
                uint64_t digest = 7) {
  return Stamped(testing::Parse<Command>(text), session, sequence, lowest, digest);
}

Command OpenCommand(uint64_t session, uint64_t ttl_ms = kTtlMs) {
  Command command;
  command.mutable_session_open()->set_session(session);
  command.mutable_session_open()->set_ttl_ms(ttl_ms);
  return command;
}

Command TimeCommand(uint64_t advance_ms, uint64_t term = 3) {
  Command command;
  command.mutable_session_time()->set_term(term);
  command.mutable_session_time()->set_advance_ms(advance_ms);
  return command;
}

class SessionApply : public ::testing::Test, protected Store {
 protected:
  void Open(uint64_t session) { ASSERT_TRUE(Do(OpenCommand(session)).status.ok()); }
  bool Known(uint64_t session) { return (*writer_->GetMeta(SessionMetaKey(session))).has_value(); }
  size_t Results() { return Metas(kMetaSessionResultPrefix).size(); }
};

TEST_F(SessionApply, AnOpenedSessionIsToldItsTtlAndItsWindow) {
  const ApplyResult opened = Do(OpenCommand(5));
  ASSERT_TRUE(opened.status.ok());
  const auto& response = static_cast<const v1::SessionOpenResponse&>(*opened.response);
  EXPECT_EQ(response.session(), 5u);
  EXPECT_EQ(response.ttl_ms(), kTtlMs);
  EXPECT_EQ(response.window(), kSessionWindow);
  EXPECT_EQ(response.header().revision(), 1);
  EXPECT_EQ(writer_->revision(), 1);  // no revision is used
  EXPECT_EQ(Do(OpenCommand(5)).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Do(OpenCommand(0)).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(SessionApply, ARepeatedWriteIsAnsweredAndNotExecuted) {
  Open(5);
  const Command put = Stamped("put { key: 'a' value: '1' }", 5, 1, 1);
  const ApplyResult first = Do(put);
  ASSERT_TRUE(first.status.ok());
  EXPECT_EQ(first.stamp, Stamp::kFinal);
  ASSERT_TRUE(Do("put { key: 'a' value: '2' }").status.ok());
  const ApplyResult second = Do(put);
  ASSERT_TRUE(second.status.ok());
  EXPECT_EQ(second.stamp, Stamp::kRepeated);
  // The revision too is that of the first time.
  EXPECT_EQ(Text(*second.response), "header { revision: 2 }");
  EXPECT_EQ(Text(*second.response), Text(*first.response));
  EXPECT_EQ(Value("a"), "2");
  EXPECT_EQ(writer_->revision(), 3);
}

TEST_F(SessionApply, TheAnswerOfEveryKindOfWriteIsKeptWhole) {
  Open(5);
  ASSERT_TRUE(Do("put { key: 'a' value: 'old' }").status.ok());
  const std::vector<std::string> writes = {
      "put { key: 'a' value: 'new' prev_kv: true }",
      "delete_range { key: 'a' prev_kv: true }",
      "txn { success { request_put { key: 'b' } } success { request_range { key: 'b' } } }",
  };
  uint64_t sequence = 0;
  for (const std::string& write : writes) {
    ++sequence;
    const ApplyResult first = Do(Stamped(write, 5, sequence, 1));
    const ApplyResult second = Do(Stamped(write, 5, sequence, 1));
    ASSERT_TRUE(first.status.ok());
    ASSERT_TRUE(second.status.ok());
    EXPECT_EQ(Text(*first.response), Text(*second.response));
    EXPECT_EQ(first.response->GetTypeName(), second.response->GetTypeName());
  }
  EXPECT_EQ(writer_->revision(), 5);
}

TEST_F(SessionApply, ARefusalIsRepeatedTooEvenIfItWouldNoLongerBeOne) {
  Open(5);
  const Command put = Stamped("put { key: 'a' lease: 9 }", 5, 1, 1);
  EXPECT_EQ(Do(put).status, ErrLeaseNotFound());
  ASSERT_TRUE(Do("lease_grant { id: 9 ttl_s: 60 }").status.ok());
  const ApplyResult again = Do(put);
  EXPECT_EQ(again.status, ErrLeaseNotFound());
  EXPECT_EQ(again.stamp, Stamp::kRepeated);
  EXPECT_EQ(Value("a"), "-");
}

TEST_F(SessionApply, WhatAnAlarmRefusedIsNotDoneByALateCopy) {
  Open(5);
  alarms_.Raise({1, AlarmType::kNoSpace});
  const Command put = Stamped("put { key: 'a' }", 5, 1, 1);
  const ApplyResult refused = Do(put);
  EXPECT_EQ(refused.status, ErrNoSpace());
  EXPECT_EQ(refused.stamp, Stamp::kFinal);
  EXPECT_EQ(Do(OpenCommand(6)).status, ErrNoSpace());
  alarms_.Clear({1, AlarmType::kNoSpace});
  EXPECT_EQ(Do(put).status, ErrNoSpace());
  EXPECT_EQ(Value("a"), "-");
  // As a new write it is done.
  EXPECT_TRUE(Do(Stamped("put { key: 'a' }", 5, 2, 2)).status.ok());
}

TEST_F(SessionApply, AnotherWriteUnderTheSameSequenceIsAFork) {
  Open(5);
  ASSERT_TRUE(Do(Stamped("put { key: 'a' value: 'mine' }", 5, 1, 1, 7)).status.ok());
  const ApplyResult forked = Do(Stamped("put { key: 'a' value: 'theirs' }", 5, 1, 1, 8));
  EXPECT_EQ(forked.status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(forked.status.message()), HasSubstr("SESSION_FORKED"));
  EXPECT_EQ(forked.stamp, Stamp::kNone);
  // Nor does another operation pass under an equal digest.
  EXPECT_THAT(std::string(Do(Stamped("delete_range { key: 'a' }", 5, 1, 1, 7)).status.message()),
              HasSubstr("SESSION_FORKED"));
  EXPECT_EQ(Value("a"), "mine");
}

TEST_F(SessionApply, AForkDoesNotAcknowledgeForTheOther) {
  Open(5);
  ASSERT_TRUE(Do(Stamped("put { key: 'a' }", 5, 1, 1)).status.ok());
  ASSERT_TRUE(Do(Stamped("put { key: 'b' }", 5, 2, 1)).status.ok());
  EXPECT_EQ(Do(Stamped("put { key: 'c' }", 5, 2, 2, 8)).status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Do(Stamped("put { key: 'a' }", 5, 1, 1)).stamp, Stamp::kRepeated);
}

TEST_F(SessionApply, WhatIsAcknowledgedIsForgottenAndNeverExecuted) {
  Open(5);
  ASSERT_TRUE(Do(Stamped("put { key: 'a' value: '1' }", 5, 1, 1)).status.ok());
  ASSERT_TRUE(Do(Stamped("put { key: 'b' }", 5, 3, 2)).status.ok());
  EXPECT_EQ(Results(), 1u);
  ASSERT_TRUE(Do("put { key: 'a' value: '2' }").status.ok());
  const ApplyResult late = Do(Stamped("put { key: 'a' value: '1' }", 5, 1, 1));
  EXPECT_EQ(late.status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(late.status.message()), HasSubstr("session sequence 1 was acknowledged"));
  EXPECT_EQ(Value("a"), "2");
  // 2 was never seen, and is not below the lowest: it may still come.
  EXPECT_TRUE(Do(Stamped("put { key: 'c' }", 5, 2, 2)).status.ok());
  // An older acknowledgement takes nothing back.
  EXPECT_TRUE(Do(Stamped("put { key: 'd' }", 5, 4, 1)).status.ok());
  EXPECT_EQ(Do(Stamped("put { key: 'a' }", 5, 1, 1)).status.code(), absl::StatusCode::kAborted);
  // One that never came is refused as well once it is acknowledged.
  ASSERT_TRUE(Do(Stamped("put { key: 'e' }", 5, 9, 9)).status.ok());
  EXPECT_EQ(Do(Stamped("put { key: 'f' }", 5, 7, 7)).status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Value("f"), "-");
  EXPECT_EQ(Results(), 1u);
}

TEST_F(SessionApply, AnUnknownSessionIsRefusedAndNotMadeAnew) {
  const ApplyResult unknown = Do(Stamped("put { key: 'a' }", 5, 1, 1));
  EXPECT_EQ(unknown.status.code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(unknown.status.message()), HasSubstr("SESSION_EXPIRED"));
  EXPECT_EQ(unknown.stamp, Stamp::kNone);
  EXPECT_EQ(Value("a"), "-");
  EXPECT_TRUE(Metas().empty());
}

TEST_F(SessionApply, TheWholeWindowIsKeptAndNothingBeyondIt) {
  Open(5);
  for (uint64_t n = 1; n <= kSessionWindow; ++n) {
    ASSERT_TRUE(Do(Stamped("put { key: 'a' }", 5, n, 1)).status.ok());
  }
  EXPECT_EQ(Results(), kSessionWindow);
  for (const uint64_t n : {uint64_t{1}, kSessionWindow}) {
    EXPECT_EQ(Do(Stamped("put { key: 'a' }", 5, n, 1)).stamp, Stamp::kRepeated);
  }
  EXPECT_EQ(Do(Stamped("put { key: 'a' }", 5, kSessionWindow + 1, 1)).status.code(),
            absl::StatusCode::kInvalidArgument);
  // The next one takes the place of the first, whose bit it has.
  ASSERT_EQ(Do(Stamped("put { key: 'a' }", 5, kSessionWindow + 1, 2)).stamp, Stamp::kFinal);
  EXPECT_EQ(Results(), kSessionWindow);
  // Far ahead: everything goes at once.
  ASSERT_EQ(Do(Stamped("put { key: 'a' }", 5, uint64_t{1} << 60, uint64_t{1} << 60)).stamp,
            Stamp::kFinal);
  EXPECT_EQ(Results(), 1u);
}

TEST_F(SessionApply, AnAnswerTooLargeToKeepLeavesItsRevision) {
  Open(5);
  const std::string big(kSessionAnswerBytesMax, 'x');
  ASSERT_TRUE(Do("put { key: 'a' value: '" + big + "' }").status.ok());
  const Command txn =
      Stamped("txn { success { request_range { key: 'a' } } success { request_put { key: 'b' } } }",
              5, 1, 1);
  const ApplyResult first = Do(txn);
  ASSERT_TRUE(first.status.ok());
  EXPECT_GT(first.response->ByteSizeLong(), kSessionAnswerBytesMax);
  const ApplyResult again = Do(txn);
  EXPECT_EQ(again.status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(again.stamp, Stamp::kRepeated);
  EXPECT_THAT(std::string(again.status.message()), HasSubstr("at revision 3"));
  EXPECT_EQ(writer_->revision(), 3);
  for (const auto& [key, value] : Metas(kMetaSessionResultPrefix)) EXPECT_LT(value.size(), 64u);
}

TEST_F(SessionApply, AClosedSessionLeavesNothing) {
  Open(5);
  Open(6);
  for (uint64_t n = 1; n <= 3; ++n) Do(Stamped("put { key: 'a' }", 5, n, 1));
  ASSERT_TRUE(Do("session_close { session: 5 }").status.ok());
  EXPECT_FALSE(Known(5));
  EXPECT_TRUE(Known(6));
  EXPECT_EQ(Results(), 0u);
  EXPECT_EQ(Clock().sessions, 1u);
  EXPECT_TRUE(Do("session_close { session: 5 }").status.ok());
  EXPECT_EQ(Clock().sessions, 1u);
}

TEST_F(SessionApply, AnIdleSessionExpiresByLoggedTimeAlone) {
  Open(5);
  Open(6);
  Do(Stamped("put { key: 'a' }", 5, 1, 1));
  Do(TimeCommand(20'000));
  Do(TimeCommand(20'000));
  Do(Stamped("put { key: 'a' }", 6, 1, 1));  // not idle
  Do(TimeCommand(19'999));
  EXPECT_TRUE(Known(5));
  Do(TimeCommand(1));
  EXPECT_FALSE(Known(5));
  EXPECT_TRUE(Known(6));
  EXPECT_EQ(Clock().sessions, 1u);
  EXPECT_EQ(Results(), 1u);
  EXPECT_THAT(std::string(Do(Stamped("put { key: 'a' }", 5, 1, 1)).status.message()),
              HasSubstr("SESSION_EXPIRED"));
  // A repetition is a sign of life as well.
  Do(TimeCommand(20'000));
  Do(TimeCommand(19'000));
  Do(Stamped("put { key: 'a' }", 6, 1, 1));
  Do(TimeCommand(20'000));
  EXPECT_TRUE(Known(6));
}

TEST_F(SessionApply, TimeOfAnotherTermDoesNotCountAndNoEntryBringsMoreThanTheMost) {
  Open(5);
  Do(TimeCommand(20'000, /*term=*/2));
  EXPECT_EQ(Clock().now_ms, 0u);
  Do(TimeCommand(uint64_t{1} << 62));
  EXPECT_EQ(Clock().now_ms, kSessionAdvanceMsMax);
  EXPECT_TRUE(Known(5));
}

TEST_F(SessionApply, WhatOneEntryDropsIsBoundedAndTheNextGoesOnBehindIt) {
  const uint64_t sessions = 2 * kSessionsExaminedMax + 10;
  for (uint64_t id = 1; id <= sessions; ++id) Do(OpenCommand(id, /*ttl_ms=*/1));
  EXPECT_EQ(Clock().sessions, sessions);
  Do(TimeCommand(10));
  EXPECT_EQ(Clock().sessions, sessions - kSessionsExaminedMax);
  EXPECT_FALSE(Known(1));
  EXPECT_TRUE(Known(kSessionsExaminedMax + 1));
  Do(TimeCommand(0));
  Do(TimeCommand(0));
  EXPECT_EQ(Clock().sessions, 0u);
  EXPECT_EQ(Clock().cursor, 0u);

  const uint64_t full = kSessionRecordsDroppedMax / (kSessionWindow + 1) + 1;
  for (uint64_t id = 1; id <= full + 1; ++id) {
    Do(OpenCommand(id, 1));
    for (uint64_t n = 1; n <= kSessionWindow; ++n) Do(Stamped("put { key: 'a' }", id, n, 1));
  }
  Do(TimeCommand(10));
  EXPECT_EQ(Clock().sessions, 1u);
  EXPECT_EQ(Results(), kSessionWindow);
}

TEST_F(SessionApply, SessionsBeyondTheMostAreRefused) {
  // Written beside the commands: opening so many takes long.
  writer_->PutMeta(kMetaSessionClock, Encode(SessionClockRecord{.sessions = kSessionsMax - 1}));
  Open(5);
  EXPECT_EQ(Do(OpenCommand(6)).status.code(), absl::StatusCode::kResourceExhausted);
  Do("session_close { session: 5 }");
  Open(6);
}

TEST_F(SessionApply, AnotherIncarnationKnowsNoSessionOfBefore) {
  Do("cluster_birth { incarnation: 77 }");
  Open(5);
  Do(Stamped("put { key: 'a' value: '1' }", 5, 1, 1));
  // Of two leaders that propose the first one, the second means nothing.
  Do("cluster_birth { incarnation: 78 }");
  EXPECT_EQ(Do(Stamped("put { key: 'a' value: '1' }", 5, 1, 1)).stamp, Stamp::kRepeated);
  Do("cluster_birth { incarnation: 79 replaces: 77 }");
  EXPECT_THAT(std::string(Do(Stamped("put { key: 'a' }", 5, 1, 1)).status.message()),
              HasSubstr("SESSION_EXPIRED"));
  EXPECT_THAT(std::string(Do(Stamped("put { key: 'a' }", 5, 2, 1)).status.message()),
              HasSubstr("SESSION_EXPIRED"));
  Open(6);
  EXPECT_TRUE(Do(Stamped("put { key: 'a' value: '2' }", 6, 1, 1)).status.ok());
  // What they held goes in time.
  Do(TimeCommand(0));
  EXPECT_FALSE(Known(5));
  EXPECT_TRUE(Known(6));
  EXPECT_EQ(Results(), 1u);
}

TEST_F(SessionApply, AStampOnWhatCannotCarryOneIsPassedOver) {
  EXPECT_TRUE(Do(Stamped("lease_grant { id: 9 ttl_s: 60 }", 5, 1, 1)).status.ok());
}

TEST_F(SessionApply, AStampWithoutSenseIsRefused) {
  Open(5);
  const uint64_t nonsense[][3] = {{0, 1, 1}, {5, 1, 0}, {5, 1, 2}, {5, 200, 1}, {5, 0, 0}};
  for (const auto& [session, sequence, lowest] : nonsense) {
    EXPECT_EQ(Do(Stamped("put { key: 'a' }", session, sequence, lowest)).status.code(),
              absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(Value("a"), "-");
}

TEST_F(SessionApply, AnUnstampedWriteTouchesNoSession) {
  Open(5);
  const auto before = Metas();
  ASSERT_TRUE(Do("put { key: 'a' }").status.ok());
  EXPECT_EQ(Metas(), before);
}

TEST_F(SessionApply, TheTableOutlivesARestartAndTravelsWithACheckpoint) {
  Open(5);
  const Command put = Stamped("put { key: 'a' value: '1' }", 5, 1, 1);
  const std::string first = Text(*Do(put).response);
  Restart();
  EXPECT_EQ(Text(*Do(put).response), first);
  Commit();
  ASSERT_TRUE(store_->Checkpoint(dir_ / "copy").ok());
  const auto copy = testing::OpenStore(dir_ / "copy");
  const auto writer = copy->NewWriter();
  const auto again = testing::Parse<Command>("put { key: 'a' value: '1' }");
  auto answer = testing::ApplyAlone(Stamped(again, 5, 1, 1), true, *writer);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->stamp, Stamp::kRepeated);
  EXPECT_EQ(Text(*answer->response), first);
}

TEST_F(SessionApply, AMemberThatLacksAnAnswerIsFoundOut) {
  Open(5);
  Do(Stamped("put { key: 'a' }", 5, 1, 1));
  const auto digest = [this] {
    Do("check { part: META max_records: 1000 max_bytes: 1000000 }");
    return checks_.at(0);
  };
  const CheckResult before = digest();
  EXPECT_EQ(digest().low, before.low);
  writer_->DeleteMeta(SessionResultMetaKey(5, 1));
  EXPECT_NE(digest().low, before.low);
}

TEST_F(SessionApply, ARecordThatNobodyWroteStopsTheMember) {
  Open(5);
  Do(Stamped("put { key: 'a' }", 5, 1, 1));
  writer_->PutMeta(SessionResultMetaKey(5, 1), "?");
  ApplyEffects effects;
  const ApplyContext context = {
      .index = ++index_, .term = Term(3), .alarms = &alarms_, .effects = &effects};
  EXPECT_FALSE(ApplyCommand(Stamped("put { key: 'a' }", 5, 1, 1), true, context, *writer_).ok());
  writer_->DeleteMeta(SessionResultMetaKey(5, 1));
  EXPECT_FALSE(ApplyCommand(Stamped("put { key: 'a' }", 5, 1, 1), true, context, *writer_).ok());
  writer_->PutMeta(SessionMetaKey(5), "?");
  EXPECT_FALSE(ApplyCommand(Stamped("put { key: 'a' }", 5, 1, 1), true, context, *writer_).ok());
  EXPECT_FALSE(ApplyCommand(TimeCommand(1), true, context, *writer_).ok());
}

TEST(SessionRecords, ComeBackAsTheyWere) {
  SessionRecord record = {.generation = 3, .ttl_ms = 4, .used_ms = 5, .lowest = 6};
  record.answered.set(0).set(63).set(64).set(127);
  SessionRecord read;
  ASSERT_TRUE(Decode(Encode(record), &read));
  EXPECT_EQ(Encode(read), Encode(record));
  EXPECT_EQ(read.answered, record.answered);
  EXPECT_EQ(read.lowest, 6u);
  SessionResult result = {.digest = ~uint64_t{0},
                          .op = 5,
                          .kind = SessionResult::Kind::kRefusal,
                          .code = 9,
                          .revision = 77,
                          .text = "why"};
  SessionResult read_result;
  ASSERT_TRUE(Decode(Encode(result), &read_result));
  EXPECT_EQ(Encode(read_result), Encode(result));
  const std::string bytes = Encode(result);
  for (size_t size = 0; size + result.text.size() < bytes.size(); ++size) {
    EXPECT_FALSE(Decode(std::string_view(bytes).substr(0, size), &read_result));
  }
  uint64_t id = 0;
  ASSERT_TRUE(ParseSessionMetaKey(SessionMetaKey(0x1234), &id));
  EXPECT_EQ(id, 0x1234u);
  EXPECT_FALSE(ParseSessionMetaKey("session/s/short", &id));
  EXPECT_FALSE(ParseSessionMetaKey(SessionResultMetaKey(1, 2), &id));
}

// ---------------------------------------------------------------- a model

// Writers that append "|<session>.<sequence>" to a key of their own, over a network that loses,
// doubles, delays and reorders what it carries. Two members apply the same log; one of them
// answers.
class World {
 public:
  explicit World(uint64_t seed) : rng_(seed) { follower_.want_answer_ = false; }

  void Run() {
    for (int i = 0; i < kWriters; ++i) Reopen(&writers_.emplace_back());
    for (int step = 0; step < 1500; ++step) Step();
    // Everything that is out comes, and everything that can still be asked for is.
    while (!network_.empty()) DeliverOne();
    for (Writer& writer : writers_) {
      while (!writer.open.empty()) {
        Send(writer, writer.open.begin()->second);
        while (!network_.empty()) DeliverOne();
      }
    }
    Judge();
    leader_.Commit();
    follower_.Commit();
    EXPECT_EQ(leader_.Metas(""), follower_.Metas(""));
    EXPECT_EQ(leader_.writer_->revision(), follower_.writer_->revision());
  }

 private:
  static constexpr int kWriters = 4;
  static constexpr uint64_t kInFlight = 6;

  struct Write {
    uint64_t session = 0;
    uint64_t sequence = 0;
    std::string token = {};
  };
  struct Writer {
    uint64_t session = 0;
    uint64_t next = 1;
    std::map<uint64_t, Write> open = {};  // without an answer so far
  };

  void Reopen(Writer* writer) {
    *writer = {.session = ++last_session_};
    Apply(OpenCommand(writer->session));
  }

  ApplyResult Apply(const Command& command) {
    ApplyResult result = leader_.Do(command);
    const ApplyResult other = follower_.Do(command);
    EXPECT_EQ(result.status, other.status);
    return result;
  }

  void Step() {
    Writer& writer = writers_[rng_.Below(kWriters)];
    switch (rng_.Below(10)) {
      case 0:
      case 1:
      case 2:
      case 3:
        if (writer.open.size() >= kInFlight) break;
        if (!writer.open.empty() && writer.next - writer.open.begin()->first >= kSessionWindow)
          break;
        Start(writer);
        break;
      case 4:
        if (writer.open.empty()) break;
        Send(writer,
             std::next(writer.open.begin(), static_cast<ptrdiff_t>(rng_.Below(writer.open.size())))
                 ->second);
        break;
      case 5:
        if (rng_.OneIn(10)) Apply(TimeCommand(rng_.Below(30'000)));
        break;
      case 6:
        // The oldest is given up: its outcome stays unknown.
        if (writer.open.empty() || !rng_.OneIn(5)) break;
        writer.open.erase(writer.open.begin());
        break;
      default:
        if (!network_.empty()) DeliverOne();
    }
  }

  void Start(Writer& writer) {
    Write write = {.session = writer.session, .sequence = writer.next++};
    write.token = fmt::format("|{}.{}", write.session, write.sequence);
    writer.open[write.sequence] = write;
    Send(writer, write);
  }

  void Send(const Writer& writer, const Write& write) {
    const uint64_t lowest = writer.open.empty() ? write.sequence : writer.open.begin()->first;
    network_.push_back({write, std::min(lowest, write.sequence)});
    if (rng_.OneIn(4)) network_.push_back(network_.back());
  }

  void DeliverOne() {
    const size_t at = rng_.Below(network_.size());
    const auto [write, lowest] = network_[at];
    network_.erase(network_.begin() + static_cast<ptrdiff_t>(at));
    if (rng_.OneIn(8)) return;  // lost
    // The append is a read and a put, as one command: what it reads is what is there at apply.
    const std::string key = fmt::format("k{}", write.session % 3);
    const std::string now = leader_.Value(key) == "-" ? "" : leader_.Value(key);
    Command command;
    command.mutable_put()->set_key(key);
    command.mutable_put()->set_value(now + write.token);
    const ApplyResult result = Apply(Stamped(command, write.session, write.sequence, lowest,
                                             std::hash<std::string>()(write.token)));
    if (!rng_.OneIn(4)) Answer(write, result);
  }

  void Answer(const Write& write, const ApplyResult& result) {
    for (Writer& writer : writers_) {
      if (writer.session != write.session || !writer.open.contains(write.sequence)) continue;
      if (result.status.ok()) {
        done_.insert(write.token);
        writer.open.erase(write.sequence);
        return;
      }
      // All that can refuse these writes is the end of the session: no fork, no acknowledgement of
      // what is open.
      EXPECT_THAT(std::string(result.status.message()), HasSubstr("SESSION_EXPIRED"));
      Reopen(&writer);
      return;
    }
  }

  void Judge() {
    std::map<std::string, int> times;
    for (int k = 0; k < 3; ++k) {
      const std::string value = leader_.Value(fmt::format("k{}", k));
      EXPECT_EQ(value, follower_.Value(fmt::format("k{}", k)));
      for (size_t at = value.find('|'); at != std::string::npos;) {
        const size_t end = value.find('|', at + 1);
        ++times[value.substr(at, end == std::string::npos ? end : end - at)];
        at = end;
      }
    }
    for (const auto& [token, count] : times) EXPECT_EQ(count, 1) << token;
    for (const std::string& token : done_) EXPECT_EQ(times[token], 1) << token;
    EXPECT_GT(done_.size(), 100u);
  }

  base::Rng rng_;
  Store leader_, follower_;
  uint64_t last_session_ = 0;
  std::vector<Writer> writers_;
  std::vector<std::pair<Write, uint64_t>> network_;
  std::set<std::string> done_;  // as their writers were told
};

class SessionModel : public ::testing::TestWithParam<uint64_t> {};

TEST_P(SessionModel, EveryWriteTakesEffectOnceAndTwoMembersAgree) {
  const char* const seed = std::getenv("HOLDFAST_SEED");
  World world(seed != nullptr ? std::strtoull(seed, nullptr, 10) : GetParam());
  world.Run();
}

INSTANTIATE_TEST_SUITE_P(Seeds, SessionModel, ::testing::Range<uint64_t>(1, 31));

}  // namespace
}  // namespace holdfast::server
