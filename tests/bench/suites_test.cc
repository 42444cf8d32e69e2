// watch, scale, compaction and lease: their pure parts, and their clients against servers played
// here, which lose, repeat and reorder what they should deliver.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "absl/time/clock.h"
#include "bench/lease_streams.h"
#include "bench/monotonic.h"
#include "bench/operation.h"
#include "bench/put_load.h"
#include "bench/raw_calls.h"
#include "bench/scale.h"
#include "bench/side_by_side.h"
#include "bench/watch.h"
#include "bench/watch_message.h"
#include "bench/watchers.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::bench {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::atomic<bool> kGoOn{false};

TEST(StampTest, IsReadBackAndNothingElseIs) {
  std::string value(256, 'x');
  EXPECT_EQ(ReadStamp(value), std::nullopt);
  const Stamp stamp = {.sequence = 7, .due_ns = -3};
  WriteStamp(stamp, &value);
  EXPECT_EQ(value.size(), 256u);
  EXPECT_EQ(ReadStamp(value), stamp);
  EXPECT_EQ(ReadStamp(value.substr(0, kStampBytes - 1)), std::nullopt);
}

TEST(WriteSourceTest, PastTheKeySpaceKeysAreWrittenAgain) {
  const auto source =
      NewWriteSource({.first = 8, .keys = 10, .batch_keys = 4, .key_space = 12}, 0, 1);
  const Operation a = source->Next();
  const Operation b = source->Next();
  const Operation c = source->Next();
  EXPECT_EQ(a.first_key, 8u);
  EXPECT_EQ(b.first_key, 0u);
  EXPECT_EQ(c.first_key, 4u);
  EXPECT_EQ(c.keys, 2u);
  EXPECT_NE(a.salt, b.salt);  // so that the value is another one
}

etcdserverpb::WatchResponse Response(int64_t watch_id) {
  etcdserverpb::WatchResponse response;
  response.mutable_header()->set_revision(99);
  response.mutable_header()->set_cluster_id(~uint64_t{0});
  response.set_watch_id(watch_id);
  return response;
}

void AddPut(int64_t revision, const std::string& key, const std::string& value,
            etcdserverpb::WatchResponse* response) {
  mvccpb::Event& event = *response->add_events();
  event.mutable_kv()->set_key(key);
  event.mutable_kv()->set_value(value);
  event.mutable_kv()->set_create_revision(1);
  event.mutable_kv()->set_mod_revision(revision);
  event.mutable_kv()->set_lease(12345);
}

TEST(WatchMessageTest, ReadsWhatTheServersWrite) {
  etcdserverpb::WatchResponse response = Response(5);
  AddPut(98, "a", "first", &response);
  AddPut(99, "b", std::string(300, 'v'), &response);
  response.add_events()->set_type(mvccpb::Event::DELETE);
  response.mutable_events(2)->mutable_kv()->set_key("c");
  response.mutable_events(2)->mutable_prev_kv()->set_key("not this one");
  const std::string bytes = response.SerializeAsString();
  WatchMessage message;
  ASSERT_TRUE(ParseWatchMessage(bytes, &message));
  EXPECT_EQ(message.watch_id, 5);
  EXPECT_EQ(message.revision, 99);
  EXPECT_FALSE(message.created);
  WatchEvent event;
  ASSERT_TRUE(NextWatchEvent(&message.events, &event));
  EXPECT_EQ(event.key, "a");
  EXPECT_EQ(event.value, "first");
  EXPECT_EQ(event.mod_revision, 98);
  EXPECT_FALSE(event.is_delete);
  ASSERT_TRUE(NextWatchEvent(&message.events, &event));
  EXPECT_EQ(event.value.size(), 300u);
  ASSERT_TRUE(NextWatchEvent(&message.events, &event));
  EXPECT_TRUE(event.is_delete);
  EXPECT_EQ(event.key, "c");
  EXPECT_FALSE(NextWatchEvent(&message.events, &event));
  EXPECT_TRUE(message.events.empty());
}

TEST(WatchMessageTest, ReadsControlResponses) {
  etcdserverpb::WatchResponse response = Response(-1);
  response.set_created(true);
  response.set_canceled(true);
  response.set_compact_revision(17);
  response.set_cancel_reason("no");
  const std::string bytes = response.SerializeAsString();
  WatchMessage message;
  ASSERT_TRUE(ParseWatchMessage(bytes, &message));
  EXPECT_TRUE(message.created);
  EXPECT_TRUE(message.canceled);
  EXPECT_EQ(message.watch_id, -1);
  EXPECT_EQ(message.compact_revision, 17);
  EXPECT_EQ(message.cancel_reason, "no");
}

// Whatever is cut off is noticed or is a whole message by itself; nothing is read behind the end.
TEST(WatchMessageTest, SurvivesEveryTruncation) {
  etcdserverpb::WatchResponse response = Response(5);
  AddPut(98, "a", "value", &response);
  const std::string bytes = response.SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) {
    WatchMessage message;
    if (!ParseWatchMessage(std::string_view(bytes).substr(0, size), &message)) continue;
    WatchEvent event;
    EXPECT_FALSE(NextWatchEvent(&message.events, &event)) << size;
  }
}

TEST(WatchLayoutTest, EveryPutIsForFanOutWatchers) {
  Options options;
  options.watch = {.watchers = 60, .streams = 6, .fan_out = 5, .whole_prefix = false};
  const WatchLayout layout(options);
  EXPECT_EQ(layout.fan_out(), 5u);
  for (uint64_t put = 0; put < 200; ++put) {
    std::set<uint64_t> streams;
    uint64_t watchers = 0;
    for (uint64_t w = 0; w < layout.watchers(); ++w) {
      const bool inside =
          layout.KeyOf(put) >= layout.FirstKey(w) && layout.KeyOf(put) < layout.EndKey(w);
      EXPECT_EQ(inside, layout.IsFor(w, put));
      if (!inside) continue;
      ++watchers;
      streams.insert(w / 10);
    }
    EXPECT_EQ(watchers, 5u);
    EXPECT_EQ(streams.size(), 5u);
  }
}

TEST(WatchLayoutTest, ThePrefixIsForOneWatcherOfEachStream) {
  Options options;
  options.key_space = 1000;
  options.watch = {.watchers = 60, .streams = 6, .fan_out = 1, .whole_prefix = true};
  const WatchLayout layout(options);
  EXPECT_EQ(layout.watchers(), 6u);
  EXPECT_EQ(layout.fan_out(), 6u);
  EXPECT_EQ(layout.FirstKey(5), 0u);
  EXPECT_EQ(layout.EndKey(5), 1000u);
}

TEST(NumberOfKeyTest, IsTheDigitsAtTheEnd) {
  const DataShape shape("bench/", 24, 16, 1);
  std::string key;
  shape.WriteKey(1234, &key);
  EXPECT_EQ(NumberOfKey(key), 1234u);
  EXPECT_EQ(NumberOfKey("0042"), 42u);
  EXPECT_EQ(NumberOfKey("bench/"), std::nullopt);
  EXPECT_EQ(NumberOfKey(""), std::nullopt);
}

// --- scale and the report ---

Table Sized(const std::string& title, double put_rate, double put_p99) {
  return {
      .title = title,
      .metrics = {{.name = "put_rate", .unit = "/s", .value = put_rate, .better = Better::kHigher},
                  {.name = "put_p99", .unit = "ms", .value = put_p99, .better = Better::kLower}}};
}

TEST(ScaleTest, SizesAreHeldAgainstTheFirst) {
  EXPECT_THAT(ScaleNotes({Sized("10 keys", 100, 5)}), IsEmpty());
  const std::vector<std::string> notes =
      ScaleNotes({Sized("10 keys", 100, 5), Sized("20 keys", 81, 6.1)});
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_THAT(notes[0], HasSubstr("put_rate at 20 keys: 0.81 of that at 10 keys"));
  EXPECT_THAT(notes[0], HasSubstr(": met"));
  EXPECT_THAT(notes[1], HasSubstr(": MISSED"));
}

TEST(ScaleTest, RefusesADiskThatIsTooSmall) {
  EXPECT_GE(ScaleDiskBytes(1'000'000, 3, 280), 3'000'000'000u);
  EXPECT_TRUE(CheckDiskSpace(1, testing::TempDir()).ok());
  const absl::Status status = CheckDiskSpace(uint64_t{1} << 60, testing::TempDir());
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--data-dir-root"));
}

TEST(SideBySideTest, BothSidesAndTheirRatio) {
  Options options;
  options.local = 3;
  options.local_etcd = 3;
  Turn a{.version = "1",
         .tables = {Sized("t", 300, 2), Sized("only here", 1, 1)},
         .wrong = {},
         .notes = {"mind this"}};
  Turn b{.version = "2", .tables = {Sized("t", 100, 4)}, .wrong = {}, .notes = {}};
  std::vector<SideTurns> sides = {{.side = Side::kHoldfast, .turns = {a}},
                                  {.side = Side::kEtcd, .turns = {b}}};
  BenchReport report = ReportOf(options, Hardware(), "some load", sides);
  EXPECT_TRUE(report.passed);
  EXPECT_THAT(report.text, testing::ContainsRegex("put_rate +/s +300 +100 +3.00\n"));
  EXPECT_THAT(report.text, testing::ContainsRegex("put_rate +/s +1 +-\n"));
  EXPECT_THAT(report.text, HasSubstr("note      holdfast 1: mind this"));
  sides[1].turns[0].wrong = {"lost one"};
  report = ReportOf(options, Hardware(), "some load", sides);
  EXPECT_FALSE(report.passed);
  EXPECT_THAT(report.text, HasSubstr("WRONG     etcd 1: lost one"));
  options.json = true;
  const auto json = nlohmann::json::parse(ReportOf(options, Hardware(), "l", sides).text);
  EXPECT_FALSE(json["passed"]);
  EXPECT_EQ(json["ratio"]["t"]["put_p99"], 0.5);
  EXPECT_EQ(json["sides"]["etcd"]["runs"][0]["wrong"][0], "lost one");
}

TEST(SideBySideTest, AFailedSideDoesNotTakeTheOthersFigures) {
  Options options;
  options.local = 3;
  options.local_etcd = 3;
  const auto report = SideBySide(options, "load", [](Side side, uint32_t) -> absl::StatusOr<Turn> {
    if (side == Side::kEtcd) return absl::UnavailableError("it died");
    return Turn{.version = "1", .tables = {Sized("t", 300, 2)}, .wrong = {}, .notes = {}};
  });
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->passed);
  EXPECT_THAT(report->text, HasSubstr("it died"));
  EXPECT_THAT(report->text, HasSubstr("300"));
}

// --- clients against servers played here ---

// Confirms watchers; delivers what the test says, in its order.
class WatchServer : public etcdserverpb::Watch::Service, public etcdserverpb::KV::Service {
 public:
  using Stream = grpc::ServerReaderWriter<etcdserverpb::WatchResponse, etcdserverpb::WatchRequest>;

  WatchServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<etcdserverpb::Watch::Service*>(this));
    builder.RegisterService(static_cast<etcdserverpb::KV::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~WatchServer() override { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::Status Watch(grpc::ServerContext*, Stream* stream) override {
    {
      std::lock_guard lock(mutex_);
      stream_ = stream;
    }
    etcdserverpb::WatchRequest request;
    while (stream->Read(&request)) {
      etcdserverpb::WatchResponse response;
      response.set_watch_id(request.create_request().watch_id());
      response.set_created(true);
      Send(response);
    }
    std::lock_guard lock(mutex_);
    stream_ = nullptr;
    return grpc::Status::OK;
  }
  grpc::Status Put(grpc::ServerContext*, const etcdserverpb::PutRequest* request,
                   etcdserverpb::PutResponse*) override {
    if (on_put) return on_put(*request);
    return grpc::Status::OK;
  }

  void Send(const etcdserverpb::WatchResponse& response) {
    std::lock_guard lock(mutex_);
    if (stream_ != nullptr) stream_->Write(response);
  }

  std::function<grpc::Status(const etcdserverpb::PutRequest&)> on_put;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  Stream* stream_ = nullptr;  // guarded by mutex_
};

// Two watchers on one stream: even puts are for the first, odd ones for the second.
class WatchersTest : public testing::Test {
 protected:
  void SetUp() override {
    channels_ = *RawChannels::Open({server_.endpoint()}, 1);
    WatcherPlan plan;
    plan.watchers = 2;
    plan.range = [](uint64_t w) { return std::pair{std::string(1, char('a' + w)), std::string()}; };
    plan.is_for = [](uint64_t w, uint64_t n) { return n % 2 == w; };
    plan.puts_max = 100;
    auto watchers = Watchers::Open(*channels_, plan, kGoOn);
    ASSERT_TRUE(watchers.ok()) << watchers.status();
    watchers_ = *std::move(watchers);
    watchers_->SetWindow(0, INT64_MAX);
  }

  void Deliver(uint64_t put, int64_t revision, int64_t watch_id) {
    std::string value(64, 'v');
    WriteStamp({.sequence = put, .due_ns = MonotonicNs()}, &value);
    etcdserverpb::WatchResponse response = Response(watch_id);
    AddPut(revision, "k", value, &response);
    server_.Send(response);
    ++delivered_;
  }

  // `puts` puts have been answered; the last one of them failed if `last_failed`.
  Watchers::Result Close(size_t puts, bool last_failed = false) {
    const int64_t give_up_ns = MonotonicNs() + 30'000'000'000;
    while (watchers_->events() < delivered_ && MonotonicNs() < give_up_ns) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    std::deque<PutLoad::Put> made(puts, {.due_ns = 1, .done_ns = 2, .failed = false});
    if (last_failed) made.back().failed = true;
    return watchers_->Close(made, /*fan_out=*/1);
  }

  WatchServer server_;
  std::unique_ptr<RawChannels> channels_;
  std::unique_ptr<Watchers> watchers_;
  uint64_t delivered_ = 0;
};

TEST_F(WatchersTest, AllIsWell) {
  for (uint64_t n = 0; n < 10; ++n) Deliver(n, int64_t(n) + 5, int64_t(n % 2) + 1);
  const Watchers::Result result = Close(10);
  EXPECT_EQ(result.events, 10u);
  EXPECT_EQ(result.latency.count(), 10u);
  EXPECT_EQ(result.missed + result.doubled + result.out_of_order + result.strangers, 0u);
  EXPECT_THAT(result.errors, IsEmpty());
}

TEST_F(WatchersTest, AMissingEventIsMissed) {
  Deliver(0, 5, 1);
  Deliver(2, 7, 1);
  EXPECT_EQ(Close(3).missed, 1u);
}

TEST_F(WatchersTest, APutWithoutAnAnswerMayOrMayNotHaveAnEvent) {
  Deliver(0, 5, 1);
  EXPECT_EQ(Close(2, /*last_failed=*/true).missed, 0u);
}

TEST_F(WatchersTest, ARepeatedEventIsDoubled) {
  Deliver(0, 5, 1);
  Deliver(0, 5, 1);
  const Watchers::Result result = Close(1);
  EXPECT_EQ(result.doubled, 1u);
  EXPECT_EQ(result.out_of_order, 1u);
}

TEST_F(WatchersTest, ALowerRevisionIsOutOfOrder) {
  Deliver(2, 7, 1);
  Deliver(0, 5, 1);
  Deliver(1, 6, 2);  // another watcher has an order of its own
  const Watchers::Result result = Close(3);
  EXPECT_EQ(result.out_of_order, 1u);
  EXPECT_EQ(result.missed, 0u);
}

TEST_F(WatchersTest, AnEventForTheOtherWatcherIsAStranger) {
  Deliver(1, 5, 1);
  const Watchers::Result result = Close(2);
  EXPECT_EQ(result.strangers, 1u);
  EXPECT_EQ(result.missed, 2u);
}

TEST_F(WatchersTest, ACancelledWatcherIsTold) {
  etcdserverpb::WatchResponse response = Response(2);
  response.set_canceled(true);
  response.set_cancel_reason("too slow");
  server_.Send(response);
  Deliver(0, 5, 1);
  EXPECT_THAT(Close(1).errors, ElementsAre(HasSubstr("too slow")));
}

TEST(PutLoadTest, NotesEveryPutAndWhetherItFailed) {
  WatchServer server;
  std::atomic<uint64_t> seen{0};
  server.on_put = [&seen](const etcdserverpb::PutRequest& request) {
    const std::optional<Stamp> stamp = ReadStamp(request.value());
    if (!stamp.has_value()) return grpc::Status(grpc::INTERNAL, "no stamp");
    ++seen;
    return stamp->sequence == 3 ? grpc::Status(grpc::UNAVAILABLE, "try later") : grpc::Status::OK;
  };
  const DataShape shape("k", 10, 64, 1);
  PutLoadOptions options;
  options.endpoints = {server.endpoint()};
  options.clients = 4;
  options.rate = 500;
  options.stamps = true;
  options.key = [](uint64_t n) { return n % 10; };
  const int64_t begin_ns = MonotonicNs();
  auto load = PutLoad::Start(shape, options, kGoOn);
  ASSERT_TRUE(load.ok()) << load.status();
  const int64_t give_up_ns = begin_ns + 30'000'000'000;
  while (seen < 20 && MonotonicNs() < give_up_ns) absl::SleepFor(absl::Milliseconds(1));
  (*load)->Stop();
  const PutLoad::Summary all = (*load)->Between(begin_ns, MonotonicNs());
  EXPECT_EQ(all.ok + all.failed, (*load)->puts().size());
  EXPECT_EQ(all.failed, 1u);
  EXPECT_TRUE((*load)->puts()[3].failed);
  EXPECT_GE(all.ok, 19u);
  EXPECT_THAT((*load)->Complaint(), HasSubstr("try later"));
  EXPECT_EQ((*load)->Between(0, begin_ns).ok, 0u);
}

TEST(RunCallsTest, TheFirstErrorEndsIt) {
  WatchServer server;
  server.on_put = [](const etcdserverpb::PutRequest& request) {
    return request.key() == "7" ? grpc::Status(grpc::FAILED_PRECONDITION, "no seven")
                                : grpc::Status::OK;
  };
  const auto channels = RawChannels::Open({server.endpoint()}, 2);
  ASSERT_TRUE(channels.ok());
  CallPlan plan;
  plan.method = "/etcdserverpb.KV/Put";
  plan.calls = 7;
  plan.clients = 3;
  plan.request = [](uint64_t n) {
    etcdserverpb::PutRequest request;
    request.set_key(std::to_string(n));
    return Pack(request);
  };
  std::set<uint64_t> answered;
  plan.reply = [&answered](uint64_t n, int64_t sent_ns, int64_t now_ns, const grpc::ByteBuffer&) {
    EXPECT_LE(sent_ns, now_ns);
    answered.insert(n);
    return absl::OkStatus();
  };
  const auto result = RunCalls(**channels, plan, kGoOn);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->calls, 7u);
  EXPECT_EQ(answered.size(), 7u);
  plan.calls = 1000;
  const auto failed = RunCalls(**channels, plan, kGoOn);
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("no seven"));
  EXPECT_LT(answered.size(), 20u);
}

}  // namespace
}  // namespace holdfast::bench
