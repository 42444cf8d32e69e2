// The pure parts of failover, catchup and members, and their clients against servers played here.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/time/clock.h"
#include "bench/catchup.h"
#include "bench/drill_load.h"
#include "bench/failover.h"
#include "bench/members.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

using testing::HasSubstr;

TEST(PercentileTest, IsTheNearestRank) {
  const std::vector<double> values = {5, 1, 4, 2, 3};
  EXPECT_EQ(Percentile(values, 0.5), 3);
  EXPECT_EQ(Percentile(values, 0.9), 5);
  EXPECT_EQ(Percentile(values, 0.2), 1);
  EXPECT_EQ(Percentile(values, 1), 5);
  EXPECT_EQ(Percentile({7}, 0.5), 7);
}

TEST(SnapshotsInTest, ReadsTheReceiversLines) {
  const std::vector<ReceivedSnapshot> snapshots = SnapshotsIn(
      "2026-01-01T00:00:00.000 I m1 receiving a snapshot at index 73063 from member 1: 4 files\n"
      "2026-01-01T00:00:37.580 I m1 snapshot at index 73063 received: 2403741696 bytes in 37.580 "
      "s, "
      "0 were here\nand a line of something else\n");
  ASSERT_EQ(snapshots.size(), 1u);
  EXPECT_EQ(snapshots[0].index, 73063u);
  EXPECT_EQ(snapshots[0].bytes, 2403741696u);
  EXPECT_EQ(snapshots[0].seconds, 37.58);
  EXPECT_TRUE(SnapshotsIn("").empty());
}

TEST(FailoverReportTest, HasEveryFigure) {
  Options options;
  options.how = FailoverHow::kPause;
  options.rounds = 4;
  FailoverSide side;
  side.name = "holdfast";
  side.version = "3.5.17";
  for (const double gap_ms : {40.0, 10.0, 30.0, 20.0}) {
    side.rounds.push_back({.gap_ms = gap_ms, .client_ms = 100, .quiet_ms = 5, .return_ms = 7});
  }
  const std::string text = FailoverText(options, {side});
  EXPECT_THAT(text, HasSubstr("leader silent (SIGSTOP), 4 rounds"));
  EXPECT_THAT(text, HasSubstr("a try is given up after 125ms to 250ms"));
  EXPECT_THAT(text, HasSubstr("  gap                     20        40        40        40\n"));
  const nlohmann::json json = FailoverJson(options, {side});
  EXPECT_EQ(json["sides"]["holdfast"]["ms"]["gap"]["median"], 20);
  EXPECT_EQ(json["sides"]["holdfast"]["ms"]["gap"]["worst"], 40);
  EXPECT_EQ(json["sides"]["holdfast"]["ms"]["gap"]["rounds"].size(), 4u);
}

TEST(CatchupReportTest, SaysWhetherASnapshotWasNeeded) {
  Options options;
  options.local = 3;
  CatchupResult result;
  result.phases = {{.name = "before",
                    .seconds = 2,
                    .writes = 2000,
                    .bytes = 2 << 20,
                    .failed_tries = 0,
                    .gap_ms = 3},
                   {.name = "catching up",
                    .seconds = 1,
                    .writes = 900,
                    .bytes = 1 << 20,
                    .failed_tries = 4,
                    .gap_ms = 12}};
  result.ratio = 0.9;
  EXPECT_THAT(CatchupText(options, result), HasSubstr("no snapshot was needed"));
  result.snapshots.push_back({.index = 5, .bytes = 64 << 20, .seconds = 2});
  const std::string text = CatchupText(options, result);
  EXPECT_THAT(text, HasSubstr("0.90 of the rate before"));
  EXPECT_THAT(text, HasSubstr("snapshot at index 5: 64.0 MiB in 2.00 s, 32.0 MiB/s"));
  EXPECT_EQ(CatchupJson(options, result)["snapshots"][0]["bytes"], 64 << 20);
}

TEST(MembersReportTest, HasARowForEachStep) {
  MembersStep step;
  step.name = "add, 3 to 4";
  step.seconds = 1.5;
  step.reads = {.answered = 100, .failed_tries = 2, .gap_ms = 30, .client_ms = 40};
  const std::string text = MembersText(Options(), {step});
  EXPECT_THAT(text, HasSubstr("add, 3 to 4"));
  EXPECT_THAT(text, HasSubstr("1.50"));
  EXPECT_EQ(MembersJson(Options(), {step})["steps"][0]["reads"]["gap_ms"], 30);
}

// --- the clients ---

class Server : public etcdserverpb::KV::Service {
 public:
  Server() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Server() override { server_->Shutdown(std::chrono::system_clock::now()); }
  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::Status Put(grpc::ServerContext*, const etcdserverpb::PutRequest*,
                   etcdserverpb::PutResponse*) override {
    return refuse ? grpc::Status(grpc::UNAVAILABLE, "no leader") : grpc::Status::OK;
  }
  grpc::Status Range(grpc::ServerContext*, const etcdserverpb::RangeRequest*,
                     etcdserverpb::RangeResponse*) override {
    return refuse ? grpc::Status(grpc::UNAVAILABLE, "no leader") : grpc::Status::OK;
  }

  std::atomic<bool> refuse{false};

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

constexpr DrillLoad::Kind kWrite = DrillLoad::Kind::kWrite;
constexpr DrillLoad::Kind kRead = DrillLoad::Kind::kRead;

// Until `n` more answers have come; false if they do not.
bool MoreAnswers(const DrillLoad& load, DrillLoad::Kind kind, uint64_t n) {
  const uint64_t goal = load.counts(kind).answered + n;
  const int64_t give_up_ns = MonotonicNs() + 30'000'000'000;
  while (load.counts(kind).answered < goal) {
    if (MonotonicNs() > give_up_ns) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

TEST(DrillLoadTest, EveryClientFindsTheEndpointThatAnswers) {
  Server up, refuses;
  refuses.refuse = true;
  DrillLoadOptions options;
  options.endpoints = {refuses.endpoint(), "127.0.0.1:1", up.endpoint()};
  options.writers = 3;
  options.readers = 3;
  const auto load = DrillLoad::Start(options);
  ASSERT_TRUE(MoreAnswers(*load, kWrite, 50));
  ASSERT_TRUE(MoreAnswers(*load, kRead, 50));
  const DrillLoad::Counts writes = load->counts(kWrite);
  // Two of three begin elsewhere; whoever found it stays.
  EXPECT_GE(writes.failed_tries, 2u);
  EXPECT_LE(writes.failed_tries, 6u);
  EXPECT_EQ(writes.bytes, writes.answered * (options.key_size + options.value_size));
  load->SetEndpoints({refuses.endpoint()});
  refuses.refuse = false;
  up.refuse = true;
  EXPECT_TRUE(MoreAnswers(*load, kWrite, 50));
}

TEST(DrillLoadTest, AnOutageIsAGapThatAllSee) {
  Server server;
  DrillLoadOptions options;
  options.endpoints = {server.endpoint()};
  options.writers = 4;
  const auto load = DrillLoad::Start(options);
  ASSERT_TRUE(MoreAnswers(*load, kWrite, 100));
  const int64_t begin_ns = MonotonicNs();
  server.refuse = true;
  const uint64_t failed = load->counts(kWrite).failed_tries;
  while (load->counts(kWrite).failed_tries < failed + 100) absl::SleepFor(absl::Milliseconds(1));
  const int64_t down_ns = MonotonicNs();
  const int64_t last_ns = load->LastAnswerNs(kWrite);
  server.refuse = false;
  ASSERT_TRUE(MoreAnswers(*load, kWrite, 100));
  const int64_t end_ns = MonotonicNs();
  const int64_t gap_ns = load->LongestGapNs(kWrite, begin_ns, end_ns);
  EXPECT_GE(gap_ns, down_ns - last_ns);
  EXPECT_LE(gap_ns, end_ns - begin_ns);
  EXPECT_GE(load->SlowestClientNs(kWrite, begin_ns, end_ns), gap_ns);
  // One that still lasts counts up to the end asked for.
  EXPECT_EQ(load->LongestGapNs(kWrite, end_ns + 1'000'000'000'000, end_ns + 1'000'000'000'007), 7);
}

}  // namespace
}  // namespace holdfast::bench
