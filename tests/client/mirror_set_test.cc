// The connection that feeds a client's mirrors, in virtual time: when it connects, in which order
// it loads, when it gives a member up, and which claims it takes. Clauses: docs/freshness.md,
// section 6.
#include "client/mirror_set.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "client/guards.h"
#include "client/version_store.h"
#include "tests/client/mirror_world.h"

namespace holdfast::test {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

constexpr uint64_t kIncarnation = 77;

class MirrorSetTest : public testing::Test {
 protected:
  MirrorSetTest() : clock_(std::make_shared<base::FakeClock>()) {
    scheduler_ = std::make_shared<VirtualScheduler>(clock_.get());
    uplinks_ = std::make_shared<ScriptedUplinks>(scheduler_.get());
  }
  ~MirrorSetTest() override {
    if (set_ != nullptr) Close();
  }

  void Open(std::vector<PrefixOptions> prefixes, int endpoints = 3) {
    for (PrefixOptions& one : prefixes) {
      one.policy.MemoryOnly().StartupWait(absl::ZeroDuration());
      one.policy.Defaults({{.key = one.prefix + "default", .value = "1"}});
    }
    internal::MirrorSet::Options options;
    for (int i = 0; i < endpoints; ++i) {
      options.endpoints.push_back({"member" + std::to_string(i), ""});
    }
    options.prefixes = std::move(prefixes);
    options.clock = clock_;
    options.seed = 1;
    set_ = std::make_shared<internal::MirrorSet>(std::move(options), scheduler_, uplinks_);
    // Open waits for what it posts; nothing else runs this scheduler.
    std::thread opener([this] {
      opened_ = set_->Open();
      done_ = true;
    });
    while (!done_) scheduler_->Drain();
    opener.join();
    scheduler_->Drain();
  }
  void Close() {
    done_ = false;
    std::thread closer([this] {
      set_->Close();
      done_ = true;
    });
    while (!done_) scheduler_->Drain();
    closer.join();
  }

  Line& line() { return *uplinks_->lines.back(); }
  size_t connects() const { return uplinks_->lines.size(); }
  internal::MirrorImpl& mirror(std::string_view prefix = "/a/") { return *set_->Find(prefix); }

  // --- a member that behaves ---
  void Serve(uint64_t revision = 10) {
    revision_ = revision;
    uplinks_->on_load = [this](Line& to, const Line::Load& load) {
      if (load.request.revision() == revision_ && load.request.incarnation() == incarnation_) {
        return AnswerLoad(to, load, v1::LoadHead::RESUME, {});
      }
      AnswerLoad(to, load, v1::LoadHead::SNAPSHOT, {{load.request.prefix() + "k", "v"}});
    };
    uplinks_->on_request = [this](Line& to, const WatchRequest& request) {
      if (request.has_holdfast_mark()) AnswerMark(to, request);
    };
  }
  void AnswerLoad(Line& to, const Line::Load& load, v1::LoadHead::Kind kind,
                  const std::vector<std::pair<std::string, std::string>>& records) {
    v1::LoadResponse head;
    head.mutable_head()->set_kind(kind);
    head.mutable_head()->set_revision(revision_);
    head.mutable_head()->set_incarnation(incarnation_);
    head.mutable_head()->set_cluster_id(7);
    head.set_last(records.empty());
    const auto sink = to.sink.lock();
    sink->OnLoadPart(to.number, load.feed, head);
    if (!records.empty()) {
      v1::LoadResponse part;
      for (const auto& [key, value] : records) {
        mvccpb::KeyValue* kv = part.add_records();
        kv->set_key(key);
        kv->set_value(value);
        kv->set_mod_revision(static_cast<int64_t>(revision_));
        kv->set_version(1);
      }
      part.set_last(true);
      sink->OnLoadPart(to.number, load.feed, part);
    }
    sink->OnLoadEnd(to.number, load.feed, absl::OkStatus(), std::nullopt);
  }
  void AnswerMark(Line& to, const WatchRequest& request) {
    WatchResponse response;
    response.set_watch_id(request.holdfast_mark().watch_id());
    auto* bookmark = response.mutable_holdfast_bookmark();
    bookmark->set_nonce(request.holdfast_mark().nonce());
    bookmark->set_delivered_revision(static_cast<int64_t>(revision_));
    bookmark->set_incarnation(incarnation_);
    if (age_.has_value()) {
      bookmark->set_age_us(static_cast<uint64_t>(absl::ToInt64Microseconds(*age_)));
    }
    to.sink.lock()->OnWatch(to.number, response);
  }
  void Event(Line& to, int64_t watch, const std::string& key, const std::string& value,
             uint64_t revision) {
    WatchResponse response;
    response.set_watch_id(watch);
    mvccpb::Event* event = response.add_events();
    event->mutable_kv()->set_key(key);
    event->mutable_kv()->set_value(value);
    event->mutable_kv()->set_mod_revision(static_cast<int64_t>(revision));
    revision_ = std::max(revision_, revision);
    to.sink.lock()->OnWatch(to.number, response);
  }
  void Fail(Line& to, const absl::Status& why) { to.sink.lock()->OnWatchEnd(to.number, why); }
  void RefuseAll() {
    uplinks_->on_request = nullptr;
    uplinks_->on_load = [](Line& to, const Line::Load& load) {
      to.sink.lock()->OnLoadEnd(to.number, load.feed, absl::UnavailableError("refused"),
                                std::nullopt);
    };
  }
  std::string Value(const std::string& key) {
    const auto read = mirror(key).Get(key);
    return !read.ok() ? std::string("error") : read->value ? read->value->value : "none";
  }

  std::shared_ptr<base::FakeClock> clock_;
  std::shared_ptr<VirtualScheduler> scheduler_;
  std::shared_ptr<ScriptedUplinks> uplinks_;
  std::shared_ptr<internal::MirrorSet> set_;
  absl::Status opened_;
  std::atomic<bool> done_ = false;
  uint64_t revision_ = 10;
  uint64_t incarnation_ = kIncarnation;
  std::optional<absl::Duration> age_ = absl::Milliseconds(100);
};

TEST_F(MirrorSetTest, LoadsThenWatchesFromTheNextRevisionAndMarks) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  ASSERT_TRUE(opened_.ok()) << opened_;
  EXPECT_EQ(Value("/a/k"), "v");
  ASSERT_GE(line().requests.size(), 2u);
  EXPECT_EQ(line().requests[0].create_request().start_revision(), 11);
  EXPECT_EQ(line().requests[0].create_request().key(), "/a/");
  EXPECT_EQ(line().requests[0].create_request().range_end(), "/a0");
  EXPECT_EQ(mirror().link(), Link::kLive);
  EXPECT_EQ(mirror().fresh().proof(), Proof::kProven);
  EXPECT_EQ(mirror().fresh().source(), Source::kMirror);
  EXPECT_TRUE(mirror().fresh().Within(absl::Milliseconds(120)));
}

TEST_F(MirrorSetTest, AMarkEverySecond) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(1));
  const size_t before = line().requests.size();
  scheduler_->Advance(absl::Seconds(20));
  EXPECT_NEAR(static_cast<double>(line().requests.size() - before), 20, 1);
  EXPECT_EQ(connects(), 1u);
}

// Freshness 5 and W2: counted from before the mark was sent, whatever the answer took.
TEST_F(MirrorSetTest, AnAgeCountsFromTheMarkNotFromItsAnswer) {
  Serve();
  uplinks_->on_request = nullptr;
  Open({{"/a/", Policy::FailStatic()}});
  EXPECT_EQ(mirror().fresh().MaxAge(), absl::InfiniteDuration());
  const WatchRequest mark = line().requests[1];
  scheduler_->Advance(absl::Seconds(2));
  AnswerMark(line(), mark);
  EXPECT_GE(mirror().fresh().MaxAge(), absl::Milliseconds(2100));
  EXPECT_LE(mirror().fresh().MaxAge(), absl::Milliseconds(2120));
}

TEST_F(MirrorSetTest, AnUnknownNonceMakesNoClaim) {
  Serve();
  uplinks_->on_request = nullptr;
  Open({{"/a/", Policy::FailStatic()}});
  WatchRequest mark = line().requests[1];
  mark.mutable_holdfast_mark()->set_nonce(mark.holdfast_mark().nonce() + 1);
  AnswerMark(line(), mark);
  EXPECT_EQ(mirror().fresh().proof(), Proof::kUnknown);
  // The same mark answered twice counts once.
  scheduler_->Advance(absl::Seconds(1));
  AnswerMark(line(), line().requests[1]);
  const absl::Duration age = mirror().fresh().MaxAge();
  EXPECT_GE(age, absl::Seconds(1));
}

// W2: events in front of a bookmark are applied before its claim is taken, in one step for readers.
TEST_F(MirrorSetTest, ABookmarkComesAfterTheEventsBeforeIt) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  uplinks_->on_request = nullptr;
  scheduler_->Advance(absl::Seconds(1));
  const WatchRequest mark = line().requests.back();
  Event(line(), 1, "/a/k", "new", 12);
  AnswerMark(line(), mark);
  EXPECT_EQ(Value("/a/k"), "new");
  EXPECT_EQ(mirror().fresh().revision(), 12u);
}

TEST_F(MirrorSetTest, SilenceIsJeopardyAtThreeSecondsAndLostAtTen) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  uplinks_->on_request = nullptr;  // half-open: nothing comes any more
  scheduler_->Advance(absl::Milliseconds(2700));
  EXPECT_EQ(mirror().link(), Link::kLive);
  scheduler_->Advance(absl::Milliseconds(600));
  EXPECT_EQ(mirror().link(), Link::kJeopardy);
  EXPECT_EQ(connects(), 1u);
  Serve(revision_);
  uplinks_->on_request = nullptr;
  scheduler_->Advance(absl::Seconds(7));
  EXPECT_EQ(connects(), 2u);
  EXPECT_NE(uplinks_->lines[0]->endpoint, uplinks_->lines[1]->endpoint);
  EXPECT_FALSE(uplinks_->lines[0]->open);
}

TEST_F(MirrorSetTest, ADeadMemberIsLeftAtOnceAndTheWatchGoesOn) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(61));
  Event(line(), 1, "/a/k", "2", 15);
  scheduler_->Drain();
  Fail(line(), absl::UnavailableError("gone"));
  scheduler_->Advance(absl::Milliseconds(60));
  ASSERT_EQ(connects(), 2u);
  ASSERT_EQ(line().loads.size(), 1u);
  EXPECT_EQ(line().loads[0].request.revision(), 15u);
  EXPECT_EQ(line().loads[0].request.incarnation(), kIncarnation);
  EXPECT_EQ(line().loads[0].request.digest().size(), 16u);
  EXPECT_EQ(line().requests[0].create_request().start_revision(), 16);
  EXPECT_EQ(mirror().status().resumes, 1u);
}

// client.md: at most one connect per 10 s in a long outage; the reads do not matter.
TEST_F(MirrorSetTest, ALongOutageCostsFewConnects) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(61));
  RefuseAll();
  Fail(line(), absl::UnavailableError("gone"));
  scheduler_->Advance(absl::Minutes(5));
  const size_t before = connects();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Value("/a/k"), "v");
  scheduler_->Advance(absl::Hours(1));
  EXPECT_LT(connects() - before, 360u);
  EXPECT_GT(connects() - before, 120u);
  EXPECT_EQ(mirror().link(), Link::kStale);
  EXPECT_GT(mirror().fresh().MaxAge(), absl::Minutes(65));
  EXPECT_EQ(mirror().fresh().proof(), Proof::kProven);
  Serve(revision_);
  scheduler_->Advance(absl::Seconds(31));
  EXPECT_EQ(mirror().link(), Link::kLive);
}

TEST_F(MirrorSetTest, AConnectionThatKeepsBreakingIsNotTriedInATightLoop) {
  Serve();
  uplinks_->on_connect = nullptr;
  Open({{"/a/", Policy::FailStatic()}});
  for (int i = 0; i < 100; ++i) {
    if (line().open) Fail(line(), absl::UnavailableError("again"));
    scheduler_->Advance(absl::Seconds(3));
  }
  EXPECT_LT(connects(), 45u) << "300 s of flapping";
}

TEST_F(MirrorSetTest, AuthLoadsFirst) {
  Open({{"/config/", Policy::FailStatic()},
        {"/bulk/", Policy::FailStatic().Class("bulk")},
        {"/auth/", Policy::FailClosedAfter(absl::Hours(1))}});
  ASSERT_EQ(line().loads.size(), 2u) << "two at a time";
  EXPECT_EQ(line().loads[0].request.prefix(), "/auth/");
  EXPECT_EQ(line().loads[0].klass, "auth");
  EXPECT_EQ(line().loads[1].request.prefix(), "/config/");
  AnswerLoad(line(), line().loads[0], v1::LoadHead::SNAPSHOT, {{"/auth/k", "v"}});
  ASSERT_EQ(line().loads.size(), 3u);
  EXPECT_EQ(line().loads[2].request.prefix(), "/bulk/");
}

TEST_F(MirrorSetTest, PushBackIsObeyedAndHoldsUpNothingElse) {
  Serve();
  uplinks_->on_load = nullptr;
  Open({{"/auth/", Policy::FailClosedAfter(absl::Hours(1))}, {"/config/", Policy::FailStatic()}});
  const Line::Load config = line().loads[1];
  line().sink.lock()->OnLoadEnd(line().number, config.feed, absl::ResourceExhaustedError("later"),
                                absl::Seconds(8));
  AnswerLoad(line(), line().loads[0], v1::LoadHead::SNAPSHOT, {{"/auth/k", "v"}});
  scheduler_->Advance(absl::Milliseconds(7900));
  EXPECT_EQ(Value("/auth/k"), "v");
  EXPECT_EQ(line().loads.size(), 2u);
  scheduler_->Advance(absl::Milliseconds(2500));
  EXPECT_EQ(line().loads.size(), 3u);
}

// A member that was cut off: its answers grow old, and another one may be better off.
TEST_F(MirrorSetTest, AMemberWhoseDataGrowsOldIsLeft) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(30));
  age_ = absl::Seconds(6);
  scheduler_->Advance(absl::Seconds(6));
  EXPECT_GE(connects(), 2u);
  // All of them are: the quorum is gone. Going around must not become a habit.
  const size_t before = connects();
  age_ = absl::Minutes(10);
  scheduler_->Advance(absl::Minutes(30));
  EXPECT_LT(connects() - before, 60u);
}

TEST_F(MirrorSetTest, WhatAnOldConnectionSaysIsDropped) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(61));
  const std::shared_ptr<Line> old = uplinks_->lines[0];
  Fail(*old, absl::UnavailableError("gone"));
  scheduler_->Advance(absl::Seconds(1));
  ASSERT_EQ(connects(), 2u);
  Event(*old, 1, "/a/k", "ghost", 30);
  scheduler_->Drain();
  EXPECT_EQ(Value("/a/k"), "v");
  Fail(*old, absl::UnavailableError("gone again"));
  EXPECT_TRUE(line().open);
}

// Freshness 7: another incarnation never merges.
TEST_F(MirrorSetTest, ABookmarkOfAnotherIncarnationEndsTheConnection) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(61));
  incarnation_ = kIncarnation + 1;
  revision_ = 4;
  uplinks_->on_load = [this](Line& to, const Line::Load& load) {
    AnswerLoad(to, load, v1::LoadHead::SNAPSHOT, {{"/a/k", "restored"}});
  };
  scheduler_->Advance(absl::Seconds(2));
  EXPECT_EQ(connects(), 2u);
  EXPECT_EQ(Value("/a/k"), "restored");
  EXPECT_EQ(mirror().fresh().revision(), 4u);
}

// Between the load and the watch the member may have become another incarnation of the store.
TEST_F(MirrorSetTest, EventsCountOnceABookmarkSaysWhoseTheyAre) {
  Serve();
  uplinks_->on_request = nullptr;
  Open({{"/a/", Policy::FailStatic()}});
  const WatchRequest mark = line().requests[1];
  Event(line(), 1, "/a/k", "whose?", 11);
  scheduler_->Drain();
  EXPECT_EQ(Value("/a/k"), "v");
  incarnation_ = kIncarnation + 1;
  AnswerMark(line(), mark);
  EXPECT_EQ(Value("/a/k"), "v");
  EXPECT_FALSE(line().open);
}

TEST_F(MirrorSetTest, ARevisionThatGoesBackWithinOneIncarnationIsAnError) {
  Serve(20);
  Open({{"/a/", Policy::FailStatic()}});
  scheduler_->Advance(absl::Seconds(61));
  revision_ = 15;
  uplinks_->on_load = [this](Line& to, const Line::Load& load) {
    AnswerLoad(to, load, v1::LoadHead::SNAPSHOT, {{"/a/k", "older"}});
  };
  Fail(line(), absl::UnavailableError("gone"));
  scheduler_->Advance(absl::Seconds(10));
  EXPECT_EQ(Value("/a/k"), "v");
  EXPECT_EQ(mirror().fresh().revision(), 20u);
  EXPECT_GT(connects(), 2u) << "it asks the others";
}

TEST_F(MirrorSetTest, AWatchThatWasCompactedAwayLoadsAgain) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  WatchResponse gone;
  gone.set_watch_id(1);
  gone.set_canceled(true);
  gone.set_compact_revision(40);
  revision_ = 50;
  line().sink.lock()->OnWatch(line().number, gone);
  scheduler_->Drain();
  EXPECT_EQ(connects(), 1u);
  EXPECT_EQ(line().loads.size(), 2u);
  EXPECT_EQ(mirror().fresh().revision(), 50u);
}

// What was applied a moment ago is part of what the member is asked about.
TEST_F(MirrorSetTest, TheDigestIsOfEverythingThatCame) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  const std::string before = mirror().position().digest;
  Event(line(), 1, "/a/new", "x", 12);
  WatchResponse gone;
  gone.set_watch_id(1);
  gone.set_canceled(true);
  gone.set_compact_revision(40);
  line().sink.lock()->OnWatch(line().number, gone);
  ASSERT_EQ(line().loads.size(), 2u);
  EXPECT_EQ(line().loads[1].request.revision(), 12u);
  EXPECT_NE(line().loads[1].request.digest(), before);
}

TEST_F(MirrorSetTest, AWatchThatIsRefusedEndsTheConnectionAndSaysWhy) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  WatchResponse refused;
  refused.set_watch_id(-1);
  refused.set_canceled(true);
  refused.set_cancel_reason("holdfast: too many watches");
  line().sink.lock()->OnWatch(line().number, refused);
  EXPECT_FALSE(line().open);
  EXPECT_NE(set_->Dump().find("too many watches"), std::string::npos);
}

// The store goes on elsewhere meanwhile: bookmarks raise the revision, not what was looked at.
TEST_F(MirrorSetTest, WhatSomebodyLookedAtIsAcceptedWhateverHappensElsewhere) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  Event(line(), 1, "/a/k", std::string(5000, 'x'), 11);
  scheduler_->Advance(absl::Seconds(1));
  ASSERT_EQ(mirror().status().refused_revision, 11u);
  revision_ = 150;
  scheduler_->Advance(absl::Seconds(3));
  ASSERT_EQ(mirror().status().refused_revision, 11u);
  mirror().MarkAccepted(11);
  scheduler_->Advance(absl::Seconds(2));
  EXPECT_EQ(Value("/a/k").size(), 5000u);
  EXPECT_EQ(mirror().fresh().revision(), 150u);
  EXPECT_LT(mirror().fresh().MaxAge(), absl::Seconds(2));
}

TEST_F(MirrorSetTest, AWaiverIsOfOneIncarnation) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  mirror().MarkAccepted(10'000);
  scheduler_->Drain();
  incarnation_ = kIncarnation + 1;
  uplinks_->on_load = [this](Line& to, const Line::Load& load) {
    AnswerLoad(to, load, v1::LoadHead::SNAPSHOT, {{"/a/k", std::string(5000, 'x')}});
  };
  Fail(line(), absl::UnavailableError("restarted"));
  scheduler_->Advance(absl::Seconds(3));
  EXPECT_EQ(Value("/a/k"), "v");
  EXPECT_TRUE(mirror().fresh().superseded());
}

// While a set is refused, what replaces it again and again must not stay in memory for ever.
TEST_F(MirrorSetTest, ALongRefusalDoesNotEatTheMemory) {
  Serve();
  Open({{"/a/", Policy::FailStatic().MaxBytes(4000).Probation(absl::Seconds(1))}});
  scheduler_->Advance(absl::Seconds(3));
  size_t most = 0;
  for (uint64_t i = 0; i < 300; ++i) {
    Event(line(), 1, "/a/big", std::string(1 << 20, 'a' + static_cast<char>(i % 20)), 20 + i);
    scheduler_->Advance(absl::Milliseconds(300));
    const std::string dump = mirror().Dump();
    const size_t at = dump.find("memory: ");
    most = std::max<size_t>(most, std::stoull(dump.substr(at + 8)));
  }
  EXPECT_LT(most, size_t{100} << 20);
  EXPECT_EQ(Value("/a/k"), "v");
  Event(line(), 1, "/a/big", "small", 400);
  scheduler_->Advance(absl::Seconds(3));
  EXPECT_EQ(Value("/a/big"), "small");
  EXPECT_FALSE(mirror().fresh().superseded());
}

// Freshness 1: the better of two claims is kept, as long as the data only moves forward.
TEST_F(MirrorSetTest, AWorseClaimDoesNotReplaceABetterOne) {
  Serve();
  Open({{"/a/", Policy::FailStatic()}});
  age_ = absl::Seconds(3);
  scheduler_->Advance(absl::Seconds(1));
  EXPECT_LT(mirror().fresh().MaxAge(), absl::Milliseconds(1600));
  age_.reset();  // the member cannot tell
  scheduler_->Advance(absl::Seconds(1));
  EXPECT_EQ(mirror().fresh().proof(), Proof::kProven);
  EXPECT_GE(mirror().fresh().MaxAge(), absl::Seconds(2));
  // Nor when new data comes on top of it: it stays true while the data moves forward.
  Event(line(), 1, "/a/k", "2", 12);
  scheduler_->Advance(absl::Seconds(1));
  Event(line(), 1, "/a/k", "3", 13);
  scheduler_->Drain();
  EXPECT_EQ(Value("/a/k"), "3");
  EXPECT_EQ(mirror().fresh().proof(), Proof::kProven);
}

// An operator's own changes are not held back, and let nothing else through.
TEST(GuardsTest, WhatAnOperatorChangesCountsForNothing) {
  internal::VersionStore store;
  for (int i = 0; i < 12; ++i) store.Put({.key = "/k/" + std::to_string(i), .value = "v"});
  const MirrorSnapshot before = store.Build(1);
  for (int i = 0; i < 5; ++i) store.Delete("/k/" + std::to_string(i));
  store.Put({.key = "/k/11", .value = std::string(10'000, 'x')});
  const MirrorSnapshot after = store.Build(2);
  const Policy policy = Policy::FailStatic();
  EXPECT_FALSE(internal::CheckChange(policy, before, after, {}).ok());
  EXPECT_FALSE(internal::CheckChange(policy, before, after, {"/k/11"}).ok());
  EXPECT_TRUE(internal::CheckChange(policy, before, after,
                                    {"/k/0", "/k/1", "/k/2", "/k/3", "/k/4", "/k/11"})
                  .ok());
}

// W4: of what is refused nothing is claimed, though the link is healthy.
TEST_F(MirrorSetTest, WhileARevisionIsRefusedTheAgeGrows) {
  Serve();
  Open({{"/a/", Policy::FailStatic().MaxBytes(100)}});
  scheduler_->Advance(absl::Seconds(1));
  Event(line(), 1, "/a/big", std::string(200, 'x'), 11);
  scheduler_->Advance(absl::Seconds(20));
  EXPECT_EQ(mirror().link(), Link::kLive);
  EXPECT_TRUE(mirror().fresh().superseded());
  EXPECT_EQ(mirror().fresh().revision(), 10u);
  EXPECT_GE(mirror().fresh().MaxAge(), absl::Seconds(20));
  EXPECT_EQ(Value("/a/big"), "none");
  EXPECT_EQ(mirror().status().refused_revision, 11u);
  // It is told to the server soon.
  ASSERT_FALSE(line().reports.empty());
  EXPECT_EQ(line().reports.back().prefixes(0).refused_revision(), 11u);
  // What mends it brings everything along.
  Event(line(), 1, "/a/k", "2", 12);
  Event(line(), 1, "/a/big", "small", 13);
  scheduler_->Advance(absl::Seconds(2));
  EXPECT_FALSE(mirror().fresh().superseded());
  EXPECT_EQ(Value("/a/k"), "2");
  EXPECT_EQ(Value("/a/big"), "small");
  EXPECT_LT(mirror().fresh().MaxAge(), absl::Seconds(2));
  EXPECT_EQ(line().reports.back().prefixes(0).refused_revision(), 0u);
}

TEST_F(MirrorSetTest, WithoutTheStoreTheDefaultsAreServedAndNeverMixedWithRealData) {
  RefuseAll();
  Open({{"/a/", Policy::FailStatic()}});
  ASSERT_TRUE(opened_.ok()) << opened_;
  EXPECT_EQ(Value("/a/default"), "1");
  EXPECT_EQ(mirror().fresh().source(), Source::kDefault);
  EXPECT_EQ(mirror().fresh().proof(), Proof::kUnknown);
  Serve();
  scheduler_->Advance(absl::Seconds(31));
  EXPECT_EQ(Value("/a/default"), "none");
  EXPECT_EQ(Value("/a/k"), "v");
  EXPECT_EQ(mirror().fresh().source(), Source::kMirror);
}

}  // namespace
}  // namespace holdfast::test
