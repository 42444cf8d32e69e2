// The store that users test their services with must behave as a real one does: what it gets wrong,
// their tests get wrong.
#include "holdfast/testing/fake_store.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "base/record_digest.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.grpc.pb.h"
#include "holdfast/client.h"
#include "holdfast/testing/fake_clock.h"

namespace holdfast::testing {
namespace {

using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;
using holdfast::v1::LoadHead;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Nothing here takes so long; a test that fails ends at least.
constexpr std::chrono::seconds kPatience(20);

std::unique_ptr<Client> Connect(const FakeStore& store, const FakeClock* clock = nullptr) {
  ClientOptions options = {.endpoints = store.endpoints()};
  options.exactly_once = false;
  options.seed = 1;
  if (clock != nullptr) options.clock = clock->clock();
  auto client = Client::Open(std::move(options));
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

std::shared_ptr<grpc::Channel> Channel(const FakeStore& store, size_t member = 0) {
  return grpc::CreateChannel(store.endpoints()[member], grpc::InsecureChannelCredentials());
}

std::string Value(const Result<std::optional<Entry>>& read) {
  if (!read.ok()) return read.status().ToString();
  return read->value.has_value() ? read->value->value : "(none)";
}

// One watch on one stream, read in the thread of the test.
class Watcher {
 public:
  Watcher(const FakeStore& store, int64_t start, const std::string& prefix = "/", size_t member = 0,
          bool needs_leader = false)
      : stub_(etcdserverpb::Watch::NewStub(Channel(store, member))) {
    context_.set_deadline(std::chrono::system_clock::now() + kPatience);
    if (needs_leader) context_.AddMetadata("hasleader", "true");
    stream_ = stub_->Watch(&context_);
    WatchRequest request;
    auto* const create = request.mutable_create_request();
    create->set_key(prefix);
    create->set_range_end(PrefixEnd(prefix));
    create->set_start_revision(start);
    create->set_prev_kv(true);
    EXPECT_TRUE(stream_->Write(request));
    const WatchResponse created = Next();
    EXPECT_TRUE(created.created()) << created.ShortDebugString();
    id_ = created.watch_id();
  }
  ~Watcher() {
    context_.TryCancel();
    if (!finished_) stream_->Finish();
  }

  WatchResponse Next() {
    WatchResponse response;
    EXPECT_TRUE(stream_->Read(&response)) << "the stream has ended";
    return response;
  }
  void Mark(uint64_t nonce) {
    WatchRequest request;
    request.mutable_holdfast_mark()->set_watch_id(id_);
    request.mutable_holdfast_mark()->set_nonce(nonce);
    EXPECT_TRUE(stream_->Write(request));
  }
  etcdserverpb::WatchBookmark Bookmark(uint64_t nonce) {
    Mark(nonce);
    WatchResponse response = Next();
    EXPECT_TRUE(response.has_holdfast_bookmark()) << response.ShortDebugString();
    EXPECT_EQ(response.holdfast_bookmark().nonce(), nonce);
    return response.holdfast_bookmark();
  }
  grpc::Status End() {
    WatchResponse response;
    while (stream_->Read(&response)) {
    }
    finished_ = true;
    return stream_->Finish();
  }

 private:
  std::unique_ptr<etcdserverpb::Watch::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<WatchRequest, WatchResponse>> stream_;
  int64_t id_ = 0;
  bool finished_ = false;
};

struct Loaded {
  LoadHead head = {};
  std::vector<mvccpb::KeyValue> records = {};
  grpc::Status status = {};
};

Loaded Load(const FakeStore& store, uint64_t revision = 0, uint64_t incarnation = 0,
            const std::string& digest = "") {
  const auto stub = holdfast::v1::Mirror::NewStub(Channel(store));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  holdfast::v1::LoadRequest request;
  request.set_prefix("/");
  request.set_revision(revision);
  request.set_incarnation(incarnation);
  request.set_digest(digest);
  const auto reader = stub->Load(&context, request);
  Loaded loaded;
  holdfast::v1::LoadResponse response;
  bool last = false;
  while (reader->Read(&response)) {
    EXPECT_FALSE(last);
    last = response.last();
    if (response.has_head()) loaded.head = response.head();
    for (const auto& kv : response.records()) loaded.records.push_back(kv);
  }
  loaded.status = reader->Finish();
  EXPECT_TRUE(last || !loaded.status.ok());
  return loaded;
}

// --- reads and writes ---

TEST(FakeStore, ServesWhatTheTestAndTheClientWrote) {
  FakeStore store;
  EXPECT_EQ(store.Put("/a", "1"), 2u);
  const auto client = Connect(store);
  EXPECT_EQ(Value(client->Get("/a")), "1");
  EXPECT_EQ(Value(client->Get("/b")), "(none)");
  const auto put = client->Put("/a", "2");
  ASSERT_TRUE(put.ok()) << put.status();
  EXPECT_EQ(put->token.revision, 3u);
  EXPECT_EQ(put->token.incarnation, store.incarnation());
  const std::optional<Entry> entry = store.Get("/a");
  ASSERT_TRUE(entry.has_value());
  EXPECT_EQ(entry->value, "2");
  EXPECT_EQ(entry->create_revision, 2u);
  EXPECT_EQ(entry->version, 2u);
  EXPECT_EQ(store.calls("Put"), 1);
  EXPECT_EQ(store.connections(), 1);
}

TEST(FakeStore, TransactionsCompareAndTakeOneRevision) {
  FakeStore store;
  store.Put("/a", "1");
  const auto client = Connect(store);
  const Txn txn = Txn()
                      .If({Compare::Value("/a").Equal("1"), Compare::Version("/new").Equal(0)})
                      .Then({Op::Put("/a", "2"), Op::Put("/new", "n"), Op::Get("/a")})
                      .Else({Op::Get("/a")});
  const auto first = client->Commit(txn);
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(first->succeeded);
  EXPECT_EQ(first->results[2].range.entries.at(0).value, "2");
  EXPECT_EQ(store.revision(), 3u);
  const auto second = client->Commit(txn);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_FALSE(second->succeeded);
  EXPECT_EQ(store.revision(), 3u);
}

TEST(FakeStore, ReadsThePastUntilItIsCompacted) {
  FakeStore store;
  const uint64_t first = store.Put("/a", "1");
  store.Put("/a", "2");
  const auto client = Connect(store);
  RangeQuery past = RangeQuery::Key("/a");
  past.revision = first;
  const auto read = client->Range(past);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->value.entries.at(0).value, "1");
  store.Compact();
  EXPECT_EQ(client->Range(past).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(FakeStore, PagesAndDeletesPrefixes) {
  FakeStore store;
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 250; ++i) records.emplace_back("/k/" + std::to_string(1000 + i), "v");
  store.Put(records);
  const auto client = Connect(store);
  const auto scan = client->Scan("/k/");
  ASSERT_TRUE(scan.ok()) << scan.status();
  EXPECT_EQ(scan->value.size(), 250u);
  EXPECT_GT(store.calls("Range"), 1);
  const auto deleted = client->DeletePrefix("/k/1");
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->deleted, 250);
  EXPECT_TRUE(store.Scan("").empty());
}

// --- outages ---

TEST(FakeStore, WithoutQuorumWritesFailStaleReadsGoOnAndAgesGrow) {
  FakeClock clock;
  FakeStore store({.clock = clock.clock()});
  store.Put("/a", "1");
  const auto client = Connect(store, &clock);
  store.LoseQuorum();
  EXPECT_EQ(client->Put("/a", "2", {.deadline = absl::Milliseconds(300)}).status().code(),
            absl::StatusCode::kUnavailable);
  ReadOptions strict;
  strict.Deadline(absl::Milliseconds(300));
  EXPECT_EQ(client->Get("/a", strict).status().code(), absl::StatusCode::kUnavailable);
  clock.Advance(absl::Minutes(5));
  const auto stale = client->Get("/a", ReadOptions::Bounded(absl::InfiniteDuration()));
  EXPECT_EQ(Value(stale), "1");
  EXPECT_EQ(stale->fresh.proof(), Proof::kProven);
  EXPECT_GE(stale->fresh.MaxAge(), absl::Minutes(5));
  EXPECT_LT(stale->fresh.MaxAge(), absl::Minutes(6));
  EXPECT_EQ(client->Get("/a", ReadOptions::Bounded(absl::Minutes(1))).status().code(),
            absl::StatusCode::kFailedPrecondition);
  // The other side of the cut goes on, and is seen once it is over.
  store.Put("/a", "3");
  EXPECT_EQ(Value(client->Get("/a", ReadOptions::Bounded(absl::InfiniteDuration()))), "1");
  store.RestoreQuorum();
  EXPECT_EQ(Value(client->Get("/a", ReadOptions::Bounded(absl::Seconds(1)))), "3");
}

TEST(FakeStore, AgesAreWhatTheTestSays) {
  FakeStore store;
  store.Put("/a", "1");
  const auto client = Connect(store);
  const ReadOptions any = ReadOptions::Bounded(absl::InfiniteDuration());
  store.SetAge(absl::Hours(3));
  EXPECT_GE(client->Get("/a", any)->fresh.MaxAge(), absl::Hours(3));
  store.SetAge(absl::InfiniteDuration());
  EXPECT_EQ(client->Get("/a", any)->fresh.proof(), Proof::kUnknown);
}

TEST(FakeStore, StopsAndServesOnTheSamePort) {
  FakeStore store;
  store.Put("/a", "1");
  const std::string endpoint = store.endpoints()[0];
  store.StopServing();
  {
    const auto client = Connect(store);
    const auto read = client->Get("/a", ReadOptions().Deadline(absl::Seconds(2)));
    EXPECT_EQ(read.status().code(), absl::StatusCode::kUnavailable) << read.status();
    EXPECT_EQ(store.calls(), 0);
  }
  store.ResumeServing();
  EXPECT_EQ(store.endpoints()[0], endpoint);
  EXPECT_EQ(Value(Connect(store)->Get("/a")), "1");
}

TEST(FakeStore, AHungMemberAnswersWhenItGoesOn) {
  FakeStore store;
  store.Put("/a", "1");
  const auto client = Connect(store);
  store.Hang();
  EXPECT_FALSE(client->Get("/a", ReadOptions().Deadline(absl::Milliseconds(50))).ok());
  absl::Notification done;
  std::string value;
  client->Get("/a", {}, [&](auto read) {
    value = Value(read);
    done.Notify();
  });
  ASSERT_TRUE(store.WaitForCalls("Range", 2));
  store.Unhang();
  done.WaitForNotification();
  EXPECT_EQ(value, "1");
}

TEST(FakeStore, AMemberThatIsCutOffServesWhatItHad) {
  FakeStore store({.members = 2});
  store.Put("/a", "1");
  store.CutOff(1);
  store.Put("/a", "2");
  ClientOptions options = {.endpoints = {store.endpoints()[1]}};
  options.exactly_once = false;
  const auto client = *Client::Open(options);
  EXPECT_EQ(Value(client->Get("/a", ReadOptions::Bounded(absl::InfiniteDuration()))), "1");
  EXPECT_EQ(Value(Connect(store)->Get("/a")), "2");  // the other one is asked
  store.Rejoin(1);
  EXPECT_EQ(Value(client->Get("/a")), "2");
}

// --- faults of single calls ---

TEST(FaultInjector, FailsTheNextCallsOfAMethod) {
  FakeStore store;
  const auto client = Connect(store);
  store.faults().Fail({.method = "Put"}, absl::PermissionDeniedError("no"), 2);
  EXPECT_EQ(client->Put("/a", "1").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Value(client->Get("/a")), "(none)");
  EXPECT_EQ(client->Put("/a", "1").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(client->Put("/a", "1").ok());
  EXPECT_EQ(store.faults().injected(), 2);
}

TEST(FaultInjector, ALostAnswerLeavesTheWriteThere) {
  FakeStore store;
  const auto client = Connect(store);
  store.faults().LoseAnswer({.method = "Put"});
  const auto put = client->Put("/a", "1");
  EXPECT_TRUE(MaybeCommitted(put.status())) << put.status();
  EXPECT_EQ(Value(client->Get("/a")), "1");
}

TEST(FaultInjector, ADroppedCallHasNoEffect) {
  FakeStore store;
  const auto client = Connect(store);
  store.faults().Drop({.method = "Put"});
  const auto put = client->Put("/a", "1", {.deadline = absl::Milliseconds(100)});
  EXPECT_TRUE(MaybeCommitted(put.status())) << put.status();
  EXPECT_EQ(store.Get("/a"), std::nullopt);
}

TEST(FaultInjector, AHeldCallGoesOnWhenReleased) {
  FakeStore store;
  const auto client = Connect(store);
  store.faults().Hold({.method = "Put"});
  absl::Notification done;
  absl::StatusOr<WriteResult> result;
  client->Put("/a", "1", {}, [&](auto put) {
    result = std::move(put);
    done.Notify();
  });
  ASSERT_TRUE(store.WaitUntil([&] { return store.faults().held() == 1; }));
  EXPECT_EQ(store.Get("/a"), std::nullopt);
  store.faults().Release();
  done.WaitForNotification();
  EXPECT_TRUE(result.ok()) << result.status();
  EXPECT_NE(store.Get("/a"), std::nullopt);
}

TEST(FaultInjector, MeetsOneEndpointAndLeavesTheOthers) {
  FakeStore store({.members = 2});
  store.Put("/a", "1");
  store.faults().Fail({.endpoint = store.endpoints()[0]}, absl::UnavailableError("gone"),
                      FaultInjector::kForever);
  const auto client = Connect(store);
  EXPECT_EQ(Value(client->Get("/a")), "1");
  EXPECT_EQ(store.calls("Range", 1), 1);
  store.faults().Clear();
}

TEST(FaultInjector, DelayedCallsComeAllTheSame) {
  FakeStore store;
  store.Put("/a", "1");
  const auto client = Connect(store);
  store.faults().Delay({.method = "Range"}, absl::Milliseconds(5));
  EXPECT_EQ(Value(client->Get("/a")), "1");
  // One that is delayed for longer than anybody waits ends with its client.
  store.faults().Delay({.method = "Range"}, absl::Hours(1));
  EXPECT_FALSE(client->Get("/a", ReadOptions().Deadline(absl::Milliseconds(50))).ok());
}

TEST(FaultInjector, PushesBackAsAnOverloadedServerDoes) {
  FakeStore store;
  store.faults().PushBack({.method = "Load"}, absl::Seconds(7));
  const auto stub = holdfast::v1::Mirror::NewStub(Channel(store));
  grpc::ClientContext context;
  const auto reader = stub->Load(&context, {});
  holdfast::v1::LoadResponse response;
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto it = trailing.find("holdfast-retry-after-ms");
  ASSERT_NE(it, trailing.end());
  EXPECT_EQ(it->second, "7000");
}

// --- watches ---

TEST(FakeStore, AWatchGetsThePastAndThePresentOneRevisionAtATime) {
  FakeStore store;
  store.Put({{"/a", "1"}, {"/b", "1"}, {"other", "x"}});
  store.Delete("/a");
  Watcher watcher(store, 2);
  const WatchResponse puts = watcher.Next();
  EXPECT_EQ(puts.header().revision(), 2);
  EXPECT_EQ(puts.events_size(), 2);
  const WatchResponse deletion = watcher.Next();
  ASSERT_EQ(deletion.events_size(), 1);
  EXPECT_EQ(deletion.events(0).type(), mvccpb::Event::DELETE);
  EXPECT_EQ(deletion.events(0).prev_kv().value(), "1");
  store.Put("/b", "2");
  const WatchResponse update = watcher.Next();
  EXPECT_EQ(update.events(0).kv().value(), "2");
  EXPECT_EQ(update.events(0).kv().version(), 2);
  EXPECT_EQ(store.watches(), 1);
}

TEST(FakeStore, ABookmarkStandsBehindTheEventsThatItCovers) {
  FakeClock clock;
  FakeStore store({.clock = clock.clock(), .incarnation = 9});
  Watcher watcher(store, 0);
  store.PauseWatch();
  store.Put("/a", "1");
  watcher.Mark(77);
  store.Put("/a", "2");
  store.SetAge(absl::Milliseconds(250));
  store.ResumeWatch();
  EXPECT_EQ(watcher.Next().events(0).kv().value(), "1");
  EXPECT_EQ(watcher.Next().events(0).kv().value(), "2");
  const WatchResponse response = watcher.Next();
  EXPECT_EQ(response.holdfast_bookmark().nonce(), 77u);
  EXPECT_EQ(response.holdfast_bookmark().delivered_revision(), 3);
  EXPECT_EQ(response.holdfast_bookmark().age_us(), 250'000u);
  EXPECT_EQ(response.holdfast_bookmark().incarnation(), 9u);
  // Without a quorum the age grows, and what the other side writes is not delivered.
  store.LoseQuorum();
  store.Put("/a", "3");
  clock.Advance(absl::Seconds(10));
  const auto bookmark = watcher.Bookmark(78);
  EXPECT_EQ(bookmark.delivered_revision(), 3);
  EXPECT_EQ(bookmark.age_us(), 10'250'000u);
  store.RestoreQuorum();
  EXPECT_EQ(watcher.Next().events(0).kv().value(), "3");
}

TEST(FakeStore, ACompactionEndsAWatchThatItOvertakes) {
  FakeStore store;
  store.Put("/a", "1");
  store.Put("/a", "2");
  Watcher current(store, 2);
  current.Next();
  current.Next();
  store.Compact(3);
  Watcher late(store, 2);
  const WatchResponse response = late.Next();
  EXPECT_TRUE(response.canceled());
  EXPECT_EQ(response.compact_revision(), 3);
  store.Put("/a", "3");  // one that was up to date lives on
  EXPECT_EQ(current.Next().events(0).kv().value(), "3");
}

TEST(FakeStore, WatchesEndWhenTheTestSaysSo) {
  FakeStore store;
  Watcher broken(store, 0);
  store.BreakWatches();
  EXPECT_EQ(broken.End().error_code(), grpc::StatusCode::UNAVAILABLE);
  Watcher careful(store, 0, "/", 0, /*needs_leader=*/true);
  Watcher patient(store, 0);
  store.LoseQuorum();
  EXPECT_THAT(careful.End().error_message(), HasSubstr("no leader"));
  EXPECT_TRUE(store.WaitForWatches(1));
  store.StopServing();
  EXPECT_FALSE(patient.End().ok());
  EXPECT_TRUE(store.WaitForWatches(0));
}

// --- mirrors ---

TEST(FakeStore, ALoadIsWholeResumedOrUnchanged) {
  FakeStore store;
  std::vector<std::pair<std::string, std::string>> records;
  for (int i = 0; i < 201; ++i) records.emplace_back("/" + std::to_string(1000 + i), "v");
  const uint64_t at = store.Put(records);
  const Loaded whole = Load(store);
  EXPECT_EQ(whole.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_EQ(whole.head.revision(), at);
  EXPECT_EQ(whole.head.records(), 201u);
  EXPECT_EQ(whole.records.size(), 201u);

  store.Put("elsewhere", "x");
  const Loaded resumed = Load(store, at, whole.head.incarnation());
  EXPECT_EQ(resumed.head.kind(), LoadHead::RESUME);
  EXPECT_EQ(resumed.head.revision(), at);

  // The history is gone, but nothing of the prefix has changed.
  store.Put("elsewhere", "y");
  store.Compact();
  base::RecordDigest digest;
  for (const auto& kv : whole.records) {
    digest.Add(base::DigestOfRecord(
        base::DigestOfContent(kv.key(), kv.value()), static_cast<uint64_t>(kv.create_revision()),
        static_cast<uint64_t>(kv.mod_revision()), static_cast<uint64_t>(kv.version()), 0));
  }
  const Loaded unchanged = Load(store, at, whole.head.incarnation(), digest.ToBytes());
  EXPECT_EQ(unchanged.head.kind(), LoadHead::UNCHANGED);
  EXPECT_EQ(unchanged.head.revision(), store.revision());
  store.Put("/1000", "changed");
  store.Compact();
  EXPECT_EQ(Load(store, at, whole.head.incarnation(), digest.ToBytes()).head.kind(),
            LoadHead::SNAPSHOT);
  EXPECT_EQ(store.loads_whole(), 2);
  EXPECT_EQ(store.loads_resumed(), 1);
  EXPECT_EQ(store.loads_unchanged(), 1);
}

TEST(FakeStore, ANewIncarnationAndARestoreResumeNobody) {
  FakeStore store;
  const uint64_t good = store.Put("/a", "good");
  const Loaded before = Load(store);
  store.Put("/a", "bad");
  Watcher watcher(store, 0);
  store.RestoreTo(good);
  EXPECT_FALSE(watcher.End().ok());
  EXPECT_EQ(store.revision(), good);
  EXPECT_EQ(store.Get("/a")->value, "good");
  const Loaded after = Load(store, good, before.head.incarnation());
  EXPECT_EQ(after.head.kind(), LoadHead::SNAPSHOT);
  EXPECT_NE(after.head.incarnation(), before.head.incarnation());
  EXPECT_EQ(store.Put("/a", "again"), good + 1);  // a revision is used a second time
}

TEST(FakeStore, KeepsWhatClientsReport) {
  FakeStore store;
  const auto stub = holdfast::v1::Mirror::NewStub(Channel(store));
  holdfast::v1::ReportRequest request;
  request.set_client_id("c1");
  request.set_name("edge");
  auto* const prefix = request.add_prefixes();
  prefix->set_prefix("/config/");
  prefix->set_link("live");
  prefix->set_refused_revision(12);
  prefix->set_refused_why("not JSON");
  grpc::ClientContext context;
  holdfast::v1::ReportResponse response;
  ASSERT_TRUE(stub->Report(&context, request, &response).ok());
  const auto report = store.report("/config/");
  ASSERT_TRUE(report.has_value());
  EXPECT_EQ(report->refused_revision, 12u);
  EXPECT_EQ(report->refused_why, "not JSON");
  ASSERT_EQ(store.reports().size(), 1u);
  EXPECT_EQ(store.reports()[0].name, "edge");
}

// --- sessions ---

TEST(FakeStore, AStampedWriteTakesEffectOnce) {
  FakeStore store;
  const auto sessions = holdfast::v1::Sessions::NewStub(Channel(store));
  holdfast::v1::SessionOpenResponse session;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(sessions->Open(&context, {}, &session).ok());
  }
  const auto kv = etcdserverpb::KV::NewStub(Channel(store));
  const auto put = [&](const std::string& stamp, etcdserverpb::PutResponse* response) {
    grpc::ClientContext context;
    context.AddMetadata("holdfast-session", stamp);
    etcdserverpb::PutRequest request;
    request.set_key("/a");
    request.set_value("1");
    return kv->Put(&context, request, response);
  };
  etcdserverpb::PutResponse first, again, other;
  ASSERT_TRUE(put("1-1-1-abc", &first).ok());
  store.Put("/b", "between");
  ASSERT_TRUE(put("1-1-1-abc", &again).ok());
  EXPECT_EQ(again.header().revision(), first.header().revision());
  EXPECT_EQ(store.Get("/a")->version, 1u);
  EXPECT_EQ(store.deduplicated(), 1);
  EXPECT_THAT(put("1-1-1-def", &other).error_message(), HasSubstr("SESSION_FORKED"));
  EXPECT_TRUE(put("1-2-2-abc", &other).ok());
  EXPECT_THAT(put("1-1-1-abc", &other).error_message(), HasSubstr("SESSION_ACKNOWLEDGED"));
  store.ForgetSessions();
  EXPECT_THAT(put("1-3-3-abc", &other).error_message(), HasSubstr("SESSION_EXPIRED"));
  EXPECT_EQ(put("nonsense", &other).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// --- the clock ---

TEST(FakeClock, MovesWhatItIsToldTo) {
  FakeClock clock;
  const std::string boot = clock.boot_id();
  const absl::Time wall = clock.wall();
  clock.Advance(absl::Seconds(1));
  clock.Suspend(absl::Seconds(2));
  EXPECT_EQ(clock.wall() - wall, absl::Seconds(3));
  EXPECT_EQ(clock.boot_id(), boot);
  clock.Reboot(absl::Minutes(1));
  EXPECT_NE(clock.boot_id(), boot);
  EXPECT_EQ(clock.wall() - wall, absl::Seconds(63));
}

TEST(FakeStore, AnEtcdTellsNoAges) {
  FakeStore store({.plain_etcd = true});
  store.Put("/a", "1");
  const auto client = Connect(store);
  EXPECT_EQ(client->Get("/a")->fresh.proof(), Proof::kProven);  // linearizable
  EXPECT_EQ(client->Get("/a", ReadOptions::Bounded(absl::InfiniteDuration()))->fresh.proof(),
            Proof::kUnknown);
  EXPECT_EQ(Load(store).status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace holdfast::testing
