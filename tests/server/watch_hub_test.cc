// What the Watch service promises, case by case, with the hub's turns taken by hand.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "server/etcd_errors.h"
#include "watch_test_world.h"

namespace holdfast::server {
namespace {

using etcdserverpb::WatchResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using testing::TestStream;
using testing::WatchWorld;

// One line a response, without what all have in common.
std::string Line(const WatchResponse& response) {
  WatchResponse copy = response;
  copy.mutable_header()->clear_cluster_id();
  copy.mutable_header()->clear_member_id();
  copy.mutable_header()->clear_raft_term();
  return testing::Text(copy);
}

std::vector<std::string> Lines(TestStream& stream) {
  std::vector<std::string> lines;
  for (const WatchResponse& response : stream.TakeAll()) lines.push_back(Line(response));
  return lines;
}

std::vector<std::string> Keys(const std::vector<WatchResponse>& responses) {
  std::vector<std::string> keys;
  for (const WatchResponse& response : responses) {
    for (const mvccpb::Event& event : response.events()) {
      keys.push_back((event.type() == mvccpb::Event::DELETE ? "-" : "") + event.kv().key());
    }
  }
  return keys;
}

class WatchHubTest : public ::testing::Test {
 protected:
  std::vector<std::string> Settled(TestStream& stream) {
    world_.Settle();
    return Lines(stream);
  }
  std::vector<std::string> SettledKeys(TestStream& stream) {
    world_.Settle();
    return Keys(stream.TakeAll());
  }
  WatchWorld world_{{.progress_interval = absl::Seconds(1)}};
};

TEST_F(WatchHubTest, AnEmptyStoreIsAtRevisionOne) {
  const auto stream = world_.Open();
  stream->Send(R"(create_request { key: "a" })");
  EXPECT_THAT(Lines(*stream), ElementsAre("header { revision: 1 } created: true"));
  world_.Put("a", "1");
  EXPECT_THAT(Settled(*stream),
              ElementsAre("header { revision: 2 } events { kv { key: \"a\" create_revision: 2 "
                          "mod_revision: 2 version: 1 value: \"1\" } }"));
}

TEST_F(WatchHubTest, ADeletionCarriesKeyAndRevisionAndWhatWas) {
  world_.Put("a", "1");
  const auto stream = world_.Open();
  stream->Send(R"(create_request { key: "a" prev_kv: true })");
  Lines(*stream);
  world_.Put("a", "2");
  world_.Delete("a");
  EXPECT_THAT(
      Settled(*stream),
      ElementsAre("header { revision: 4 } events { kv { key: \"a\" create_revision: 2 "
                  "mod_revision: 3 version: 2 value: \"2\" } prev_kv { key: \"a\" "
                  "create_revision: 2 mod_revision: 2 version: 1 value: \"1\" } } events { type: "
                  "DELETE kv { key: \"a\" mod_revision: 4 } prev_kv { key: \"a\" create_revision: "
                  "2 mod_revision: 3 version: 2 value: \"2\" } }"));
}

TEST_F(WatchHubTest, FromARevisionTheHistoryComesFirst) {
  world_.Put("a", "1");
  world_.Put("b", "1");
  world_.Put("a", "2");
  const auto stream = world_.Open();
  stream->Send(R"(create_request { key: "a" start_revision: 1 })");
  EXPECT_THAT(Lines(*stream), ElementsAre("header { revision: 4 } created: true"));
  EXPECT_THAT(SettledKeys(*stream), ElementsAre("a", "a"));
  EXPECT_EQ(world_.hub().stats().catch_up_passes, 1u);
  world_.Put("a", "3");
  EXPECT_THAT(SettledKeys(*stream), ElementsAre("a"));
}

TEST_F(WatchHubTest, AFutureRevisionIsSilentUntilItIsReached) {
  const auto stream = world_.Open();
  stream->Send(R"(create_request { key: "a" start_revision: 5 progress_notify: true })");
  stream->Send("progress_request {}");
  Lines(*stream);
  world_.Put("a", "2");
  world_.Put("a", "3");
  world_.clock().Advance(absl::Seconds(2));
  world_.hub().Tick();
  // Nor is there progress: a client would resume from it, before the revision that it asked for.
  EXPECT_THAT(Settled(*stream), IsEmpty());
  world_.Put("a", "4");
  // Whoever resumes behind this begins where he wanted to.
  EXPECT_THAT(Settled(*stream), ElementsAre("header { revision: 4 } watch_id: -1"));
  world_.Put("a", "5");
  const auto lines = Settled(*stream);
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], HasSubstr("mod_revision: 5"));
}

TEST_F(WatchHubTest, Ranges) {
  const auto stream = world_.Open();
  stream->Send(R"(create_request { key: "b" range_end: "d" })");
  stream->Send(R"(create_request { key: "c" range_end: "\0" watch_id: 9 })");
  stream->Send(R"(create_request { range_end: "\0" })");
  Lines(*stream);
  world_.Txn({"a", "b", "c", "d"});
  world_.Settle();
  std::map<int64_t, std::vector<std::string>> keys;
  for (const WatchResponse& response : stream->TakeAll()) {
    keys[response.watch_id()] = Keys({response});
  }
  EXPECT_THAT(keys[0], ElementsAre("b", "c"));
  EXPECT_THAT(keys[9], ElementsAre("c", "d"));
  EXPECT_THAT(keys[1], ElementsAre("a", "b", "c", "d"));
}

TEST_F(WatchHubTest, FiltersLeaveOut) {
  const auto stream = world_.Open();
  stream->Send(R"(create_request { key: "a" filters: NOPUT })");
  stream->Send(R"(create_request { key: "a" filters: NODELETE })");
  stream->Send(R"(create_request { key: "a" filters: NOPUT filters: NODELETE })");
  Lines(*stream);
  world_.Put("a");
  world_.Delete("a");
  world_.Settle();
  std::map<int64_t, std::vector<std::string>> keys;
  for (const WatchResponse& r : stream->TakeAll()) keys[r.watch_id()] = Keys({r});
  EXPECT_THAT(keys[0], ElementsAre("-a"));
  EXPECT_THAT(keys[1], ElementsAre("a"));
  EXPECT_FALSE(keys.contains(2));
}

TEST_F(WatchHubTest, IdsAreTheStreamsOwn) {
  const auto stream = world_.Open();
  const auto other = world_.Open();
  for (const char* request :
       {"create_request { key: 'a' }", "create_request { key: 'a' watch_id: 1 }",
        "create_request { key: 'a' }", "create_request { key: 'a' watch_id: 1 }",
        "create_request { key: 'a' watch_id: -1 }"}) {
    stream->Send(request);
  }
  other->Send("create_request { key: 'a' }");
  EXPECT_THAT(
      Lines(*stream),
      ElementsAre("header { revision: 1 } created: true",
                  "header { revision: 1 } watch_id: 1 created: true",
                  "header { revision: 1 } watch_id: 2 created: true",
                  "header { revision: 1 } watch_id: -1 created: true canceled: true cancel_reason: "
                  "\"mvcc: duplicate watch ID provided on the WatchStream\"",
                  "header { revision: 1 } watch_id: -1 created: true canceled: true cancel_reason: "
                  "\"holdfast: watch ID -1 is not for watches\""));
  EXPECT_THAT(Lines(*other), ElementsAre("header { revision: 1 } created: true"));
}

TEST_F(WatchHubTest, WhatCannotBeWatchedIsCreatedAndCanceled) {
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'b' range_end: 'b' }");
  stream->Send("create_request { key: 'b' range_end: 'a' }");
  stream->Send("create_request { key: 'b' start_revision: -1 }");
  stream->stream()->Refuse(ErrCorrupt());
  const std::string head = "header { revision: 1 } watch_id: -1 created: true canceled: true ";
  EXPECT_THAT(Lines(*stream),
              ElementsAre(head + "cancel_reason: \"mvcc: watcher range is empty\"",
                          head + "cancel_reason: \"mvcc: watcher range is empty\"",
                          head + "cancel_reason: \"etcdserver: mvcc: required revision has been "
                                 "compacted\"",
                          head + "cancel_reason: \"etcdserver: corrupt cluster\""));
  EXPECT_EQ(world_.hub().stats().watches, 0u);
}

TEST_F(WatchHubTest, ACancelEndsOneWatchAndAnUnknownOneNothing) {
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' }");
  stream->Send("create_request { key: 'a' }");
  Lines(*stream);
  stream->Send("cancel_request { watch_id: 0 }");
  stream->Send("cancel_request { watch_id: 7 }");
  EXPECT_THAT(Lines(*stream), ElementsAre("header { revision: 1 } canceled: true"));
  world_.Put("a");
  world_.Settle();
  const auto responses = stream->TakeAll();
  ASSERT_THAT(responses, SizeIs(1));
  EXPECT_EQ(responses[0].watch_id(), 1);
}

TEST_F(WatchHubTest, ACompactedStartIsCreatedFirstAndThenCanceled) {
  for (int i = 0; i < 5; ++i) world_.Put("a");
  world_.Compact(4);
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' start_revision: 3 }");
  stream->Send("create_request { key: 'a' start_revision: 4 }");
  const auto lines = Settled(*stream);
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_EQ(lines[0], "header { revision: 6 } created: true");
  EXPECT_EQ(lines[1], "header { revision: 6 } watch_id: 1 created: true");
  EXPECT_EQ(lines[2],
            "header { revision: 6 } canceled: true compact_revision: 4 cancel_reason: "
            "\"etcdserver: mvcc: required revision has been compacted\"");
  // The compact revision itself is there: clients go on from what compact_revision told them.
  EXPECT_THAT(lines[3], HasSubstr("mod_revision: 4"));
  EXPECT_THAT(lines[3], HasSubstr("mod_revision: 6"));
}

TEST_F(WatchHubTest, ARevisionIsNeverTorn) {
  WatchWorld world({.limits = {.response_bytes = 100}});
  const auto stream = world.Open();
  stream->Send("create_request { key: 'a' range_end: 'z' }");
  Lines(*stream);
  world.Txn({"a", "b", "c", "d", "e", "f"});
  world.Put("g");
  world.Put("h");
  world.Settle();
  const auto responses = stream->TakeAll();
  ASSERT_THAT(responses, SizeIs(2));
  EXPECT_EQ(responses[0].events_size(), 6);
  EXPECT_EQ(responses[0].header().revision(), 2);
  EXPECT_EQ(responses[1].events_size(), 2);
  EXPECT_EQ(responses[1].header().revision(), 4);
}

TEST_F(WatchHubTest, FragmentsAreForThoseWhoAskForThem) {
  WatchWorld world({.max_request_bytes = 1000});
  const auto stream = world.Open();
  stream->Send("create_request { key: 'a' range_end: 'z' fragment: true }");
  stream->Send("create_request { key: 'a' range_end: 'z' }");
  Lines(*stream);
  const std::string value(400, 'v');
  world.Txn({"a", "b", "c", "d", "e"}, value);
  world.Put("f");
  world.Settle();
  std::vector<std::pair<bool, int>> fragments;
  for (const WatchResponse& response : stream->TakeAll()) {
    if (response.watch_id() == 1) {
      EXPECT_EQ(response.events_size(), 6);
      EXPECT_FALSE(response.fragment());
      continue;
    }
    fragments.emplace_back(response.fragment(), response.events_size());
  }
  EXPECT_THAT(fragments, ElementsAre(std::pair(true, 2), std::pair(true, 2), std::pair(false, 2)));
}

TEST_F(WatchHubTest, ProgressIsToldToIdleWatchesAlone) {
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' progress_notify: true }");
  stream->Send("create_request { key: 'b' progress_notify: true }");
  stream->Send("create_request { key: 'b' }");
  Lines(*stream);
  world_.Put("a");
  world_.Settle();
  Lines(*stream);
  world_.clock().Advance(absl::Milliseconds(900));
  world_.hub().Tick();
  EXPECT_THAT(Lines(*stream), IsEmpty());
  world_.clock().Advance(absl::Milliseconds(250));  // the jitter included
  world_.hub().Tick();
  EXPECT_THAT(Lines(*stream), ElementsAre("header { revision: 2 } watch_id: 1"));
  world_.clock().Advance(absl::Milliseconds(1150));
  world_.hub().Tick();
  EXPECT_THAT(Lines(*stream),
              ElementsAre("header { revision: 2 }", "header { revision: 2 } watch_id: 1"));
}

TEST_F(WatchHubTest, RequestedProgressCoversWhatWasAppliedAndWaitsForWhoLags) {
  world_.Put("a");
  world_.Put("a");
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' start_revision: 1 }");
  Lines(*stream);
  stream->Send("progress_request {}");
  EXPECT_THAT(Lines(*stream), IsEmpty());
  world_.Settle();
  const auto lines = Lines(*stream);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_EQ(lines[1], "header { revision: 3 } watch_id: -1");
  // Applied, and not yet dispatched.
  world_.Put("a");
  stream->Send("progress_request {}");
  EXPECT_THAT(Lines(*stream), IsEmpty());
  const auto both = Settled(*stream);
  ASSERT_THAT(both, SizeIs(2));
  EXPECT_EQ(both[1], "header { revision: 4 } watch_id: -1");
}

TEST_F(WatchHubTest, ABookmarkStandsBehindItsEvents) {
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' }");
  Lines(*stream);
  world_.Put("b");
  world_.Put("a");
  world_.hub().StepDispatch();
  world_.Put("a");  // applied, and not yet dispatched
  stream->Send("holdfast_mark { watch_id: 0 nonce: 77 }");
  stream->Send("holdfast_mark { watch_id: 5 nonce: 78 }");
  const auto responses = stream->TakeAll();
  ASSERT_THAT(responses, SizeIs(2));
  EXPECT_EQ(responses[0].events(0).kv().mod_revision(), 3);
  const auto& bookmark = responses[1].holdfast_bookmark();
  EXPECT_EQ(bookmark.nonce(), 77u);
  EXPECT_EQ(bookmark.delivered_revision(), 3);
  // Of index 2, and not of the third that is applied.
  EXPECT_EQ(bookmark.age_us(), 1002u);
  EXPECT_EQ(responses[1].header().revision(), 3);
}

TEST_F(WatchHubTest, ALaggingWatchIsVouchedForAsFarAsItIs) {
  for (int i = 0; i < 5; ++i) world_.Put("a");
  world_.Settle();
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' start_revision: 4 }");
  stream->Send("holdfast_mark { watch_id: 0 nonce: 1 }");
  auto responses = stream->TakeAll();
  ASSERT_THAT(responses, SizeIs(2));
  EXPECT_EQ(responses[1].holdfast_bookmark().delivered_revision(), 3);
  world_.node().claims = false;
  world_.Settle();
  stream->Send("holdfast_mark { watch_id: 0 nonce: 2 }");
  responses = stream->TakeAll();
  EXPECT_EQ(responses.back().holdfast_bookmark().delivered_revision(), 6);
  EXPECT_FALSE(responses.back().holdfast_bookmark().has_age_us());
}

TEST_F(WatchHubTest, ASlowConsumerLosesNothingAndStopsNobody) {
  WatchWorld world({.limits = {.stream_bytes = 2000, .response_bytes = 500, .recent_bytes = 500}});
  const auto slow = world.Open();
  const auto quick = world.Open();
  for (TestStream* stream : {slow.get(), quick.get()}) {
    stream->Send("create_request { key: 'a' range_end: 'z' prev_kv: true }");
    stream->TakeAll();
  }
  constexpr int kPuts = 500;
  size_t quick_events = 0;
  for (int i = 0; i < kPuts; ++i) {
    world.Put("k", std::string(50, 'v'));
    world.Settle();
    const auto responses = quick->TakeAll();
    ASSERT_EQ(Keys(responses).size(), 1u);
    ++quick_events;
    EXPECT_LE(world.hub().stats().bytes_queued, 3000u);
  }
  EXPECT_EQ(world.hub().stats().lagging_watches, 1u);
  size_t slow_events = 0;
  int64_t last = 1;
  for (int turn = 0; turn < 10 * kPuts; ++turn) {
    auto response = slow->Take();
    world.Settle();
    if (!response.has_value()) response = slow->Take();
    if (!response.has_value()) break;
    for (const mvccpb::Event& event : response->events()) {
      EXPECT_EQ(event.kv().mod_revision(), ++last);
      ++slow_events;
    }
  }
  EXPECT_EQ(slow_events, quick_events);
  EXPECT_EQ(world.hub().stats().lagging_watches, 0u);
}

TEST_F(WatchHubTest, AStreamThatIsOverItsLimitTakesNoRequests) {
  WatchWorld world({.limits = {.stream_bytes = 1000}});
  const auto stream = world.Open();
  int sent = 0;
  while (stream->may_read() && sent < 1000) {
    stream->Send("create_request { key: 'a' }");
    ++sent;
  }
  EXPECT_LT(sent, 20);
  while (!stream->may_read()) ASSERT_TRUE(stream->Take().has_value());
}

TEST_F(WatchHubTest, LimitsSaySo) {
  WatchWorld world(
      {.limits = {
           .watches_per_stream = 2, .watches = 3, .streams = 2, .key_bytes_per_stream = 100}});
  const auto first = world.Open();
  const auto second = world.Open();
  EXPECT_EQ(world.hub().Open(std::make_shared<TestStream::Sink>(), false).status(),
            ErrTooManyRequests());
  for (int i = 0; i < 3; ++i) first->Send("create_request { key: 'a' }");
  EXPECT_THAT(Lines(*first).back(), HasSubstr("holdfast: too many watches on this stream"));
  second->Send("create_request { key: '" + std::string(101, 'k') + "' }");
  EXPECT_THAT(Lines(*second).back(), HasSubstr("too many bytes of keys"));
  second->Send("create_request { key: 'a' }");
  second->Send("create_request { key: 'a' }");
  EXPECT_THAT(Lines(*second).back(), HasSubstr("holdfast: too many watches on this member"));
  first->Close();
  EXPECT_EQ(world.hub().stats().watches, 1u);
  second->Send("create_request { key: 'a' }");
  EXPECT_THAT(Lines(*second).back(), ::testing::Not(HasSubstr("cancel")));
}

TEST_F(WatchHubTest, ASnapshotInstalledIsReadFromItsHistory) {
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' prev_kv: true }");
  world_.Put("a", "1");
  EXPECT_THAT(SettledKeys(*stream), ElementsAre("a"));
  world_.ApplyAtLeader({testing::PutCommand("a", "2"), testing::PutCommand("b", "3"),
                        testing::PutCommand("a", "4")});
  world_.InstallSnapshot();
  EXPECT_THAT(SettledKeys(*stream), ElementsAre("a", "a"));
  world_.Put("a", "5");
  EXPECT_THAT(SettledKeys(*stream), ElementsAre("a"));
}

TEST_F(WatchHubTest, ASnapshotThatDoesNotReachBackCancels) {
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' }");
  world_.Put("a", "1");
  world_.Settle();
  Lines(*stream);
  command::v1::Command compact;
  compact.mutable_compaction()->set_revision(5);
  world_.ApplyAtLeader({testing::PutCommand("a", "3"), testing::PutCommand("a", "4"),
                        testing::PutCommand("a", "5"), compact});
  world_.InstallSnapshot();
  EXPECT_THAT(Settled(*stream),
              ElementsAre("header { revision: 5 } canceled: true compact_revision: 5 "
                          "cancel_reason: \"etcdserver: mvcc: required revision has been "
                          "compacted\""));
}

TEST_F(WatchHubTest, NobodyWatchesAndNothingIsKept) {
  for (int i = 0; i < 100; ++i) world_.Put("a", std::string(1000, 'v'));
  EXPECT_EQ(world_.hub().stats().gaps, 0u);
  const auto stream = world_.Open();
  stream->Send("create_request { key: 'a' }");
  world_.Put("a");
  EXPECT_THAT(SettledKeys(*stream), ElementsAre("a"));
  EXPECT_EQ(world_.hub().stats().catch_up_passes, 0u);
}

TEST_F(WatchHubTest, AStreamWithHasleaderEndsAfterThreeElectionsWithoutOne) {
  const auto patient = world_.Open();
  const auto needing = world_.Open(/*needs_leader=*/true);
  world_.node().set_leader(NodeId(), Term(4), absl::Milliseconds(2900));
  world_.hub().Tick();
  EXPECT_EQ(needing->end(), std::nullopt);
  world_.node().set_leader(NodeId(), Term(4), absl::Milliseconds(3000));
  world_.hub().Tick();
  EXPECT_EQ(needing->end(), ErrNoLeader());
  EXPECT_EQ(patient->end(), std::nullopt);
  needing->Close();
}

TEST_F(WatchHubTest, AFencedMemberEndsItsStreams) {
  absl::Status fence;
  WatchWorld world({.fence = [&fence] { return fence; }});
  const auto stream = world.Open();
  world.hub().Tick();
  EXPECT_EQ(stream->end(), std::nullopt);
  fence = ErrCorrupt();
  world.hub().Tick();
  EXPECT_EQ(stream->end(), ErrCorrupt());
}

TEST_F(WatchHubTest, StopEndsAllAndOpensNoMore) {
  const auto stream = world_.Open();
  world_.hub().Stop();
  EXPECT_EQ(stream->end(), ErrStopped());
  EXPECT_EQ(world_.hub().Open(std::make_shared<TestStream::Sink>(), false).status(), ErrStopped());
}

}  // namespace
}  // namespace holdfast::server
