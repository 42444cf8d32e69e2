// The batch door's stream itself: what is told when, what holds up whom, what is bounded, and how
// it ends. What each request is answered is door_test.cc's.
#include <atomic>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/rng.h"
#include "door_member.h"
#include "exchange_caller.h"
#include "kv_test_util.h"

namespace holdfast::server {
namespace {

using ::testing::AnyOf;
using testing::DoorAnswer;
using testing::DoorKind;
using testing::DoorMember;
using ::testing::Eq;
using testing::ExchangeCaller;
using testing::FakeNode;
using ::testing::HasSubstr;
using testing::Parse;
using testing::Text;
using v1::ExchangeReply;
using v1::ExchangeRequest;
using v1::ExchangeRequests;
using Mode = FakeNode::Mode;

constexpr absl::Duration kPatience = ExchangeCaller::kPatience;

ExchangeRequest Request(uint64_t id, const std::string& text) {
  ExchangeRequest request = Parse<ExchangeRequest>(text);
  request.set_id(id);
  return request;
}

void Add(uint64_t id, const std::string& text, ExchangeRequests* batch) {
  *batch->add_requests() = Request(id, text);
}

// Polls; false: it did not come to hold in time.
bool Eventually(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

// That something has come to rest: it did not change for a while.
template <class Get>
auto AtRest(Get get) {
  auto last = get();
  for (absl::Time since = absl::Now(); absl::Now() - since < absl::Milliseconds(300);) {
    absl::SleepFor(absl::Milliseconds(5));
    if (auto now = get(); now != last) {
      last = now;
      since = absl::Now();
    }
  }
  return last;
}

class ExchangeStreamTest : public ::testing::Test, protected DoorMember {
 protected:
  explicit ExchangeStreamTest(ExchangeService::Options options = {})
      : DoorMember(DoorKind::kExchange, options) {}

  std::unique_ptr<ExchangeCaller> Open() { return std::make_unique<ExchangeCaller>(Connect()); }
  int64_t revision() const { return machine_->applied_state().revision; }
  void PutValue(const std::string& key, size_t size) {
    ExchangeRequest request;
    request.mutable_put()->set_key(key);
    request.mutable_put()->set_value(std::string(size, 'x'));
    ASSERT_EQ(door().Call(request).reply.code(), 0u);
  }
  // Nothing that goes to the scan threads begins until the holder is gone.
  class ScansHeld {
   public:
    explicit ScansHeld(KvReads* reads) {
      for (int i = 0; i < 2; ++i) {
        CHECK_OK(reads->scans().Post([state = state_] {
          ++state->held;
          state->go_on.WaitForNotification();
        }));
      }
      while (state_->held < 2) std::this_thread::yield();
    }
    ~ScansHeld() { Release(); }
    void Release() {
      if (!std::exchange(released_, true)) state_->go_on.Notify();
    }

   private:
    struct State {
      std::atomic<int> held{0};
      absl::Notification go_on;
    };
    const std::shared_ptr<State> state_ = std::make_shared<State>();
    bool released_ = false;
  };
};

// ---------------------------------------------------------------- what is told

TEST_F(ExchangeStreamTest, TheFirstMessageTellsTheLimitsAndNoOtherDoes) {
  auto caller = Open();
  const auto limits = caller->AwaitLimits();
  ASSERT_TRUE(limits.has_value());  // though nothing was sent
  EXPECT_EQ(limits->max_request_bytes(), 1536u * 1024);
  EXPECT_GT(limits->max_batch_bytes(), limits->max_request_bytes());
  EXPECT_GE(limits->max_bytes_under_way(), limits->max_batch_bytes());
  EXPECT_GT(limits->max_bytes_unread(), 0u);
  for (uint64_t id = 1; id <= 20; ++id) {
    ASSERT_TRUE(caller->Send(Request(id, "put { key: 'a' }")));
    ASSERT_TRUE(caller->Await(id).has_value());
  }
  EXPECT_EQ(caller->stray_limits(), 0);
}

TEST_F(ExchangeStreamTest, AnIdOfZeroEndsTheStream) {
  auto caller = Open();
  ExchangeRequests batch;
  Add(1, "put { key: 'a' }", &batch);
  Add(0, "put { key: 'b' }", &batch);
  caller->Send(batch);
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(end->error_message(), HasSubstr("id 0"));
  // Nothing of such a batch is executed.
  EXPECT_EQ(revision(), 1);
}

TEST_F(ExchangeStreamTest, TwoRequestsOfOneIdGetTwoReplies) {
  auto caller = Open();
  ExchangeRequests batch;
  for (int i = 0; i < 2; ++i) Add(7, "put { key: 'a' }", &batch);
  caller->Send(batch);
  EXPECT_TRUE(Eventually([&] {
    const auto answer = caller->Find(7);
    return answer.has_value() && answer->times == 2;
  }));
  EXPECT_EQ(revision(), 3);
}

TEST_F(ExchangeStreamTest, ARequestOfNoKnownKindIsRefusedAndTheOthersAreNot) {
  auto caller = Open();
  ExchangeRequests batch;
  Add(1, "", &batch);
  Add(2, "put { key: 'a' }", &batch);
  caller->Send(batch);
  const auto unknown = caller->Await(1);
  ASSERT_TRUE(unknown.has_value());
  EXPECT_EQ(unknown->reply.code(), 12u);
  EXPECT_EQ(caller->Await(2)->reply.code(), 0u);
}

TEST_F(ExchangeStreamTest, ABatchOverTheLimitEndsTheStreamInWords) {
  auto caller = Open();
  const auto limits = caller->AwaitLimits();
  ASSERT_TRUE(limits.has_value());
  ExchangeRequest large = Request(1, "put { key: 'a' }");
  large.mutable_put()->set_value(std::string(limits->max_batch_bytes(), 'x'));
  caller->Send(large);
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(end->error_message(), HasSubstr("max_batch_bytes"));
  EXPECT_EQ(revision(), 1);
}

TEST_F(ExchangeStreamTest, ABatchOfExactlyTheLimitIsTaken) {
  auto caller = Open();
  const auto limits = caller->AwaitLimits();
  ASSERT_TRUE(limits.has_value());
  ExchangeRequests batch;
  for (uint64_t id = 1; id <= 2; ++id) Add(id, fmt::format("put {{ key: 'k{}' }}", id), &batch);
  batch.mutable_requests(0)->mutable_put()->set_value(std::string(800'000, 'x'));
  std::string* const value = batch.mutable_requests(1)->mutable_put()->mutable_value();
  value->assign(700'000, 'y');
  value->resize(value->size() + limits->max_batch_bytes() - batch.ByteSizeLong(), 'y');
  ASSERT_EQ(batch.ByteSizeLong(), limits->max_batch_bytes());
  caller->Send(batch);
  for (uint64_t id = 1; id <= 2; ++id) {
    const auto answer = caller->Await(id);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->reply.code(), 0u) << answer->reply.message();
  }
}

// ---------------------------------------------------------------- who waits for whom

TEST_F(ExchangeStreamTest, AScanHoldsUpNoGetBehindIt) {
  PutValue("a", 10);
  auto caller = Open();
  ScansHeld held(service_->reads());
  ExchangeRequests batch;
  Add(1, "range { key: 'a' range_end: 'b' }", &batch);
  Add(2, "range { key: 'a' }", &batch);
  Add(3, "put { key: 'c' }", &batch);
  Add(4, "range { key: 'a' serializable: true }", &batch);
  Add(5, "txn { success { request_range { key: 'a' } } }", &batch);
  caller->Send(batch);
  for (const uint64_t id : {2, 3, 4, 5}) EXPECT_TRUE(caller->Await(id).has_value()) << id;
  EXPECT_FALSE(caller->Find(1).has_value());
  held.Release();
  EXPECT_EQ(caller->Await(1)->reply.range().count(), 1);
}

TEST_F(ExchangeStreamTest, AWriteThatWaitsHoldsUpNoReadAndNoLaterBatch) {
  auto caller = Open();
  node_->set_proposals(Mode::kHold);
  ExchangeRequests batch;
  Add(1, "put { key: 'a' }", &batch);
  Add(2, "range { key: 'a' }", &batch);
  caller->Send(batch);
  EXPECT_EQ(caller->Await(2)->reply.range().count(), 0);
  caller->Send(Request(3, "range { key: 'a' serializable: true }"));
  EXPECT_TRUE(caller->Await(3).has_value());
  EXPECT_FALSE(caller->Find(1).has_value());
  node_->ReleaseHeld();
  EXPECT_TRUE(caller->Await(1).has_value());
}

class SmallParts : public ExchangeStreamTest {
 protected:
  SmallParts() : ExchangeStreamTest({.part_bytes = 2000}) {}
};

TEST_F(SmallParts, ALargeAnswerComesInPartsBetweenOthers) {
  constexpr size_t kSize = 1'400'000;
  PutValue("large", kSize);
  auto caller = Open();
  ASSERT_TRUE(caller->AwaitLimits().has_value());
  caller->PauseReading();  // (one message more may come)
  ExchangeRequests batch;
  Add(1, "range { key: 'large' }", &batch);
  Add(2, "range { key: 'large' serializable: true }", &batch);
  caller->Send(batch);
  // Done when most of the parts are still to be sent: no more of them is on its way than a caller
  // takes who does not read.
  const int64_t before = revision();
  for (uint64_t id = 3; id < 10; ++id) caller->Send(Request(id, "put { key: 'small' }"));
  ASSERT_TRUE(Eventually([&] { return revision() == before + 7; }));
  // Behind their replies on the one thread that hands out replies.
  ASSERT_EQ(door().Call(Parse<ExchangeRequest>("put { key: 'small' }")).reply.code(), 0u);
  caller->GoOnReading();
  for (uint64_t id = 3; id < 10; ++id) {
    ASSERT_TRUE(caller->Await(id).has_value());
    EXPECT_EQ(caller->pieces(id).count, 0);
  }
  for (const uint64_t id : {1, 2}) {
    const auto answer = caller->Await(id);
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->times, 1);
    ASSERT_EQ(answer->reply.range().kvs_size(), 1);
    EXPECT_EQ(answer->reply.range().kvs(0).value(), std::string(kSize, 'x'));
    EXPECT_EQ(answer->reply.range().header().member_id(), kMember);
    EXPECT_GE(caller->pieces(id).count, int(kSize / 2000));
  }
  // Each in its turn, and the small ones between.
  EXPECT_LT(caller->pieces(1).first_message, caller->pieces(2).last_message);
  EXPECT_LT(caller->pieces(2).first_message, caller->pieces(1).last_message);
  const int end = std::min(caller->pieces(1).last_message, caller->pieces(2).last_message);
  for (uint64_t id = 3; id < 10; ++id) EXPECT_LT(caller->message_of(id), end);
}

TEST_F(SmallParts, EveryKindOfLargeAnswerIsTheUnaryOne) {
  for (int i = 0; i < 12; ++i) PutValue(fmt::format("k{:02}", i), 2990 + static_cast<size_t>(i));
  const char* const kRequests[] = {
      "range { key: 'k' range_end: 'l' }",
      "range { key: 'k' range_end: 'l' serializable: true sort_order: DESCEND }",
      "range { key: 'k03' }",
      "txn { success { request_range { key: 'k' range_end: 'k06' } } success { request_range { "
      "key: 'k07' } } }",
      "put { key: 'k03' prev_kv: true ignore_value: true }",
      "delete_range { key: 'none' }",
      "range { key: 'k' range_end: 'l' keys_only: true }",
  };
  const auto unary = testing::OpenUnaryDoor(server_->InProcessChannel({}));
  for (const char* request : kRequests) {
    SCOPED_TRACE(request);
    const auto one = unary->Call(Parse<ExchangeRequest>(request));
    auto other = door().Call(Parse<ExchangeRequest>(request));
    if (one.reply.has_put()) {  // a write was made by each: the record is the same but for its age
      EXPECT_EQ(other.reply.put().prev_kv().value(), one.reply.put().prev_kv().value());
      continue;
    }
    EXPECT_EQ(Text(other.reply), Text(one.reply));
  }
  ExchangeReply deleted =
      door()
          .Call(Parse<ExchangeRequest>("delete_range { key: 'k' range_end: 'l' prev_kv: true }"))
          .reply;
  EXPECT_EQ(deleted.delete_range().prev_kvs_size(), 12);
  EXPECT_EQ(deleted.delete_range().prev_kvs(11).value().size(), 3001u);
}

// ---------------------------------------------------------------- what is bounded

class SmallLimits : public ExchangeStreamTest {
 protected:
  static constexpr size_t kUnderWay = 100'000;
  static constexpr size_t kUnread = 200'000;
  SmallLimits()
      : ExchangeStreamTest({.max_bytes_under_way = kUnderWay, .max_bytes_unread = kUnread}) {}
};

// What the network may hold between the two, generously: HTTP/2 windows and socket buffers.
constexpr size_t kInTransit = 12 << 20;

TEST_F(SmallLimits, ACallerThatNeverReadsStopsTheServerFromReadingOn) {
  PutValue("k", 50'000);
  const int64_t before = revision();
  auto caller = Open();
  ASSERT_TRUE(caller->AwaitLimits().has_value());
  caller->PauseReading();
  constexpr uint64_t kBatches = 1500;  // 75 MB of answers
  std::atomic<uint64_t> sent{0};
  std::thread writer([&] {
    const std::string padding(50'000, 'x');
    for (uint64_t i = 0; i < kBatches; ++i) {
      ExchangeRequests batch;
      // A write is answered whether there is room or not, and then is not under way any more: only
      // reading no more of them helps.
      Add(i + 1, fmt::format("put {{ key: 'k' value: '{}' prev_kv: true }}", padding), &batch);
      if (!caller->Send(batch)) return;
      ++sent;
    }
  });
  AtRest([&] { return sent.load(); });
  const auto accepted = static_cast<uint64_t>(AtRest([&] { return revision(); }) - before);
  EXPECT_LT(accepted, (kUnread + kInTransit) / 50'000);
  EXPECT_LT(sent.load(), kBatches) << "the caller was not held back";
  caller->GoOnReading();
  const bool all = caller->AwaitAnswers(kBatches);
  EXPECT_TRUE(all);
  if (!all) caller->Cancel();  // or the writer would not end
  writer.join();
  EXPECT_EQ(revision(), before + static_cast<int64_t>(kBatches));
}

TEST_F(SmallLimits, ACallerWithTooMuchUnderWayIsHeldBack) {
  auto caller = Open();
  node_->set_proposals(Mode::kHold);
  constexpr uint64_t kRequests = 2000;  // 40 MB
  std::atomic<uint64_t> sent{0};
  std::thread writer([&] {
    ExchangeRequest request = Request(1, "put { key: 'k' }");
    request.mutable_put()->set_value(std::string(20'000, 'x'));
    for (uint64_t id = 1; id <= kRequests; ++id) {
      request.set_id(id);
      if (!caller->Send(request)) return;
      ++sent;
    }
  });
  AtRest([&] { return sent.load(); });
  // Up to the limit, and the one that went over it.
  const size_t held = AtRest([&] { return node_->held_proposals(); });
  EXPECT_GE(held, kUnderWay / 20'100);
  EXPECT_LE(held, kUnderWay / 20'000 + 2);
  EXPECT_LT(sent.load(), kRequests);
  // Another stream is not held back by this one.
  auto other = Open();
  other->Send(Request(1, "range { key: 'k' }"));
  EXPECT_TRUE(other->Await(1).has_value());
  node_->set_proposals(Mode::kApply);
  node_->ReleaseHeld();
  const bool all = caller->AwaitAnswers(kRequests);
  EXPECT_TRUE(all);
  if (!all) caller->Cancel();  // or the writer would not end
  writer.join();
  EXPECT_EQ(revision(), 1 + static_cast<int64_t>(kRequests));
}

// The most this process had since the mark, in bytes.
size_t PeakSinceMark() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    size_t kib = 0;
    status >> kib;
    return kib << 10;
  }
  return 0;
}
bool MarkPeak() {
  std::ofstream refs("/proc/self/clear_refs");
  refs << "5" << std::flush;
  return refs.good();
}

// A message of a few KB must not be able to ask for more memory than the server has.
TEST_F(ExchangeStreamTest, ManyGetsOfALargeValueTakeBoundedMemory) {
  constexpr uint64_t kGets = 400;  // of 1.4 MB: 560 MB
  PutValue("large", 1'400'000);
  auto caller = Open();
  caller->DropValues();
  ASSERT_TRUE(caller->AwaitLimits().has_value());
  if (!MarkPeak()) GTEST_SKIP() << "/proc/self/clear_refs can not be written";
  const size_t before = PeakSinceMark();
  caller->PauseReading();
  ExchangeRequests batch;
  for (uint64_t id = 1; id <= kGets; ++id) {
    Add(id, id % 2 == 0 ? "range { key: 'large' }" : "range { key: 'large' serializable: true }",
        &batch);
  }
  caller->Send(batch);
  AtRest([] { return PeakSinceMark(); });
  caller->GoOnReading();
  ASSERT_TRUE(caller->AwaitAnswers(kGets));
  for (uint64_t id = 1; id <= kGets; ++id) {
    const ExchangeReply reply = caller->Find(id)->reply;
    EXPECT_THAT(reply.code(), AnyOf(Eq(0u), Eq(8u))) << reply.message();
    EXPECT_EQ(reply.range().count(), reply.code() == 0 ? 1 : 0);
  }
  EXPECT_LT(PeakSinceMark() - before, size_t{150} << 20);
}

// ---------------------------------------------------------------- giving up

TEST_F(ExchangeStreamTest, AScanThatNobodyWaitsForIsNotBegun) {
  PutValue("a", 10);
  auto caller = Open();
  ScansHeld held(service_->reads());
  ExchangeRequests batch, cancel;
  Add(1, "range { key: 'a' range_end: 'b' serializable: true }", &batch);
  Add(2, "range { key: 'a' range_end: 'b' serializable: true }", &batch);
  Add(3, "range { key: 'a' serializable: true }", &batch);
  caller->Send(batch);
  ASSERT_TRUE(caller->Await(3).has_value());  // the scans wait for a thread
  cancel.add_cancel(1);
  cancel.add_cancel(99);  // of nothing
  Add(4, "put { key: 'c' }", &cancel);
  caller->Send(cancel);
  ASSERT_TRUE(caller->Await(4).has_value());  // the cancel was read
  held.Release();
  EXPECT_EQ(caller->Await(2)->reply.range().count(), 1);
  caller->CloseWrites();
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_TRUE(end->ok());
  const auto cancelled = caller->Find(1);
  EXPECT_TRUE(!cancelled.has_value() || cancelled->reply.code() == 1u);
}

TEST_F(ExchangeStreamTest, NorOneThatStillWaitsForItsReadIndex) {
  PutValue("a", 10);
  auto caller = Open();
  node_->set_reads(Mode::kHold);
  ExchangeRequests cancel;
  caller->Send(Request(1, "range { key: 'a' range_end: 'b' }"));
  ASSERT_TRUE(Eventually([&] { return node_->held_reads() == 1; }));
  cancel.add_cancel(1);
  Add(2, "put { key: 'c' }", &cancel);
  caller->Send(cancel);
  ASSERT_TRUE(caller->Await(2).has_value());  // the cancel was read
  node_->AnswerRead(machine_->applied());
  caller->CloseWrites();
  ASSERT_TRUE(caller->AwaitEnd().has_value());
  const auto cancelled = caller->Find(1);
  EXPECT_TRUE(!cancelled.has_value() || cancelled->reply.code() == 1u);
}

TEST_F(ExchangeStreamTest, ACancelledWriteIsNotUndone) {
  auto caller = Open();
  node_->set_proposals(Mode::kHold);
  caller->Send(Request(1, "put { key: 'a' }"));
  ASSERT_TRUE(Eventually([&] { return node_->held_proposals() == 1; }));
  ExchangeRequests cancel;
  cancel.add_cancel(1);
  Add(2, "range { key: 'a' }", &cancel);
  caller->Send(cancel);
  ASSERT_TRUE(caller->Await(2).has_value());
  node_->ReleaseHeld();
  EXPECT_EQ(revision(), 2);
  // The stream goes on, with the same id if the caller likes.
  node_->set_proposals(Mode::kApply);
  caller->Send(Request(3, "range { key: 'a' }"));
  EXPECT_EQ(caller->Await(3)->reply.range().count(), 1);
}

TEST_F(ExchangeStreamTest, OnlyWhatIsLateIsToldSoAndOnce) {
  auto caller = Open();
  node_->set_proposals(Mode::kHold);
  ExchangeRequests batch;
  Add(1, "put { key: 'a' } timeout_ms: 1000", &batch);
  Add(2, "put { key: 'b' } timeout_ms: 60000", &batch);
  Add(3, "put { key: 'c' }", &batch);
  caller->Send(batch);
  ASSERT_TRUE(Eventually([&] { return node_->held_proposals() == 3; }));
  clock_.Advance(absl::Seconds(2));
  const auto late = caller->Await(1);
  ASSERT_TRUE(late.has_value());
  EXPECT_EQ(late->reply.code(), 4u);
  EXPECT_THAT(late->reply.message(), HasSubstr("may still take effect"));
  EXPECT_FALSE(caller->Find(2).has_value());
  EXPECT_FALSE(caller->Find(3).has_value());
  node_->ReleaseHeld();
  EXPECT_EQ(caller->Await(2)->reply.code(), 0u);
  EXPECT_EQ(caller->Await(3)->reply.code(), 0u);
  EXPECT_EQ(revision(), 4);
  caller->CloseWrites();
  EXPECT_TRUE(caller->AwaitEnd()->ok());
  EXPECT_EQ(caller->Find(1)->times, 1);
}

// ---------------------------------------------------------------- ends

TEST_F(ExchangeStreamTest, HalfClosingDeliversWhatIsUnderWay) {
  PutValue("a", 10);
  auto caller = Open();
  node_->set_proposals(Mode::kHold);
  node_->set_reads(Mode::kHold);
  ExchangeRequests batch;
  Add(1, "put { key: 'b' }", &batch);
  Add(2, "range { key: 'a' }", &batch);
  Add(3, "range { key: 'a' range_end: 'b' }", &batch);
  caller->Send(batch);
  caller->CloseWrites();
  ASSERT_TRUE(Eventually([&] { return node_->held_proposals() == 1 && node_->held_reads() == 1; }));
  EXPECT_FALSE(caller->ended());
  node_->AnswerRead(machine_->applied());
  EXPECT_TRUE(caller->Await(2).has_value());
  EXPECT_TRUE(caller->Await(3).has_value());
  EXPECT_FALSE(caller->ended());
  node_->ReleaseHeld();
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_TRUE(end->ok()) << end->error_message();
  EXPECT_EQ(caller->answers(), 3u);
}

// However close the half-close is behind the batch: what was sent is answered, or the end is no OK.
TEST_F(ExchangeStreamTest, AHalfCloseDoesNotOvertakeTheBatchBeforeIt) {
  const auto channel = Connect();
  ExchangeRequests batch;
  for (uint64_t id = 1; id <= 3000; ++id) Add(id, "put { ignore_value: true }", &batch);
  for (int round = 0; round < 200; ++round) {
    ExchangeCaller caller(channel);
    ASSERT_TRUE(caller.Send(batch));
    caller.CloseWrites();
    const auto end = caller.AwaitEnd();
    ASSERT_TRUE(end.has_value());
    ASSERT_TRUE(end->ok()) << end->error_message();
    ASSERT_EQ(caller.answers(), 3000u) << "in round " << round;
  }
}

TEST_F(ExchangeStreamTest, AStreamWithoutRequestsEndsWhenHalfClosed) {
  auto caller = Open();
  caller->CloseWrites();
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_TRUE(end->ok());
  EXPECT_TRUE(caller->AwaitLimits().has_value());
}

TEST_F(ExchangeStreamTest, ACallerThatGoesLeavesItsWritesToTheirFate) {
  node_->set_proposals(Mode::kHold);
  node_->set_reads(Mode::kHold);
  for (int i = 0; i < 20; ++i) {
    auto caller = Open();
    ExchangeRequests batch;
    Add(1, "put { key: 'a' }", &batch);
    Add(2, "range { key: 'a' }", &batch);
    Add(3, "range { key: 'a' range_end: 'b' } timeout_ms: 5000", &batch);
    caller->Send(batch);
    ASSERT_TRUE(Eventually([&] { return node_->held_reads() == static_cast<size_t>(i) + 1; }));
    caller->Cancel();
  }
  while (node_->held_reads() > 0) node_->AnswerRead(machine_->applied());
  node_->ReleaseHeld();
  EXPECT_EQ(revision(), 21);
  node_->set_proposals(Mode::kApply);
  node_->set_reads(Mode::kApply);
  auto caller = Open();
  caller->Send(Request(1, "range { key: 'a' }"));
  EXPECT_EQ(caller->Await(1)->reply.range().count(), 1);
}

TEST_F(ExchangeStreamTest, StoppingAnswersWhatWasTakenAndEndsEveryStream) {
  auto idle = Open();
  auto busy = Open();
  ASSERT_TRUE(idle->AwaitLimits().has_value());
  node_->set_proposals(Mode::kHold);
  node_->set_reads(Mode::kHold);
  ExchangeRequests batch;
  for (uint64_t id = 1; id <= 50; ++id) Add(id, "put { key: 'a' }", &batch);
  Add(51, "range { key: 'a' }", &batch);
  busy->Send(batch);
  ASSERT_TRUE(
      Eventually([&] { return node_->held_proposals() == 50 && node_->held_reads() == 1; }));
  const absl::Time start = absl::Now();
  exchange().Stop();
  const auto end = idle->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(end->error_message(), "etcdserver: server stopped");
  EXPECT_FALSE(busy->ended());
  Stop();
  const auto busy_end = busy->AwaitEnd();
  ASSERT_TRUE(busy_end.has_value());
  EXPECT_EQ(busy_end->error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(busy->answers(), 51u);
  EXPECT_EQ(busy->Find(1)->reply.message(), "etcdserver: server stopped");
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  // Held for good by a node that is gone: nobody comes back.
  node_->RefuseHeld(absl::UnavailableError("stopped"));
}

TEST_F(ExchangeStreamTest, ACallerThatDoesNotReadCanNotKeepTheServerFromStopping) {
  PutValue("large", 1'400'000);
  auto caller = Open();
  ASSERT_TRUE(caller->AwaitLimits().has_value());
  caller->PauseReading();
  ExchangeRequests batch;
  for (uint64_t id = 1; id <= 10; ++id) Add(id, "range { key: 'large' }", &batch);
  caller->Send(batch);
  const absl::Time start = absl::Now();
  Stop(/*grace=*/absl::Milliseconds(200));
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  caller->GoOnReading();
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_FALSE(end->ok());
}

TEST_F(ExchangeStreamTest, AfterTheStopNoStreamIsBegun) {
  exchange().Stop();
  auto caller = Open();
  const auto end = caller->AwaitEnd();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->error_code(), grpc::StatusCode::UNAVAILABLE);
}

// ---------------------------------------------------------------- much at once

TEST_F(ExchangeStreamTest, TenThousandRequestsInOneBatch) {
  PutValue("a", 10);
  auto caller = Open();
  constexpr uint64_t kRequests = 10'000;
  ExchangeRequests batch;
  for (uint64_t id = 1; id <= kRequests; ++id) {
    Add(id, id % 2 == 0 ? fmt::format("put {{ key: 'k{}' }}", id) : "range { key: 'a' }", &batch);
  }
  caller->Send(batch);
  ASSERT_TRUE(caller->AwaitAnswers(kRequests));
  for (uint64_t id = 1; id <= kRequests; ++id) {
    const auto answer = caller->Find(id);
    ASSERT_EQ(answer->reply.code(), 0u) << answer->reply.message();
    EXPECT_EQ(answer->times, 1);
    EXPECT_EQ(answer->reply.has_put(), id % 2 == 0);
  }
  EXPECT_EQ(revision(), 2 + static_cast<int64_t>(kRequests / 2));
}

TEST_F(ExchangeStreamTest, ManyStreamsAtOnce) {
  PutValue("a", 10);
  constexpr int kStreams = 24;
  constexpr uint64_t kBatches = 20, kEach = 25;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int s = 0; s < kStreams; ++s) {
    threads.emplace_back([&, s] {
      auto caller = Open();
      for (uint64_t b = 0; b < kBatches; ++b) {
        ExchangeRequests batch;
        for (uint64_t i = 1; i <= kEach; ++i) {
          const uint64_t id = b * kEach + i;
          switch (id % 4) {
            case 0:
              Add(id, fmt::format("put {{ key: 's{}/{}' value: '{}' }}", s, id, id), &batch);
              break;
            case 1:
              Add(id, "range { key: 'a' range_end: 'b' } timeout_ms: 100000", &batch);
              break;
            case 2:
              Add(id, "range { key: 'a' }", &batch);
              break;
            default:
              Add(id, "range { key: 'a' serializable: true }", &batch);
          }
        }
        if (!caller->Send(batch)) ++wrong;
      }
      caller->CloseWrites();
      const auto end = caller->AwaitEnd();
      if (!end.has_value() || !end->ok() || caller->answers() != kBatches * kEach) ++wrong;
      for (uint64_t id = 1; id <= kBatches * kEach; ++id) {
        const auto answer = caller->Find(id);
        if (!answer.has_value() || answer->times != 1 || answer->reply.code() != 0) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(revision(), 2 + static_cast<int64_t>(kStreams * kBatches * kEach / 4));
}

}  // namespace
}  // namespace holdfast::server
