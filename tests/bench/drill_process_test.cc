// Some drills for real, short: what they promise must hold, and their reports and figures must
// come. (Goals that are about time on a quiet machine are left to `holdfast-bench drill`.)
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/drills/drill_run.h"
#include "bench/drills/drills.h"
#include "bench/drills/request_rate.h"
#include "bench/options.h"
#include "tests/process/process_util.h"

namespace holdfast::bench {
namespace {

class DrillProcessTest : public testing::Test {
 protected:
  DrillProcessTest() : out_(testing::TempDir() + "drills-" + std::to_string(getpid())) {}
  ~DrillProcessTest() override { std::filesystem::remove_all(out_); }

  // The one drill's part of the report; {} if it could not be run.
  nlohmann::json Play(std::vector<std::string> args) {
    args.insert(args.begin(), "drill");
    for (const char* const more : {"--without-etcd", "-w", "json", "--out"}) args.push_back(more);
    args.push_back(out_);
    args.push_back("--seed");
    args.push_back(std::to_string(SeedFromEnvironment()));
    const ParseResult parsed = ParseCommandLine(args);
    EXPECT_TRUE(parsed.run) << parsed.text;
    const auto report = RunDrills(parsed.options, cancelled_);
    EXPECT_TRUE(report.ok()) << report.status();
    if (!report.ok()) return {};
    const nlohmann::json json = nlohmann::json::parse(report->text);
    EXPECT_EQ(json["drills"].size(), 1u);
    return json["drills"][0];
  }

  // The goals whose text begins so are met, and there is one.
  static void ExpectMet(const nlohmann::json& drill, const std::string& what) {
    int found = 0;
    for (const nlohmann::json& goal : drill["goals"]) {
      if (!goal["what"].get<std::string>().starts_with(what)) continue;
      ++found;
      EXPECT_TRUE(goal["met"].get<bool>()) << goal.dump(2);
    }
    EXPECT_GT(found, 0) << what << " is no goal of\n" << drill.dump(2);
  }

  const std::atomic<bool> cancelled_{false};
  const std::string out_;
};

TEST_F(DrillProcessTest, June12) {
  const nlohmann::json drill = Play({"june-12", "--duration", "6s"});
  ExpectMet(drill, "config reads served");
  ExpectMet(drill, "identity reads served");
  ExpectMet(drill, "oldest session data served");
  ExpectMet(drill, "single-use tokens refused");
  ExpectMet(drill, "registrations taken in the outage");
  ExpectMet(drill, "registrations that failed without a type");
  ExpectMet(drill, "oracle: ages that were too small");
  ExpectMet(drill, "oracle: reads taken back");
  EXPECT_EQ(drill["tables"][0]["rows"].size(), 14u);
  for (const char* const file : {"/june-12.svg", "/june-12.png"}) {
    EXPECT_TRUE(std::filesystem::exists(out_ + file)) << file;
  }
}

TEST_F(DrillProcessTest, Reboot) {
  const nlohmann::json drill = Play({"5"});
  EXPECT_TRUE(drill["passed"].get<bool>()) << drill.dump(2);
}

TEST_F(DrillProcessTest, AlwaysUnavailable) {
  const nlohmann::json drill = Play({"12", "--duration", "4s"});
  ExpectMet(drill, "requests that the calls send");
  ExpectMet(drill, "calls that failed without a type");
  ExpectMet(drill, "config served from what was built in");
  // The copy's own attempts back off with full jitter: in a few seconds that bounds nothing.
}

// What the rates of the reports are made of: a call is a request, whichever door it takes.
TEST(RequestsOfTest, ACallCountsOnceThroughEitherDoor) {
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  std::vector<std::string> endpoints;
  for (int i = 0; i < cluster->size(); ++i) endpoints.push_back(cluster->endpoint(i));
  const auto requests = [&endpoints] {
    double sum = 0;
    for (const std::string& endpoint : endpoints) {
      const auto text = HttpGet(endpoint, "/metrics", kGiveUp);
      EXPECT_TRUE(text.ok()) << text.status();
      if (text.ok()) sum += RequestsOf(*text);
    }
    return sum;
  };
  constexpr int kCalls = 200;
  constexpr double kBesides = 20;  // opening streams and sessions, finding out who is who
  for (const bool batch_stream : {true, false}) {
    SCOPED_TRACE(batch_stream);
    auto client = Client::Open({.endpoints = endpoints, .batch_stream = batch_stream});
    ASSERT_TRUE(client.ok()) << client.status();
    const double before = requests();
    for (int i = 0; i < kCalls; ++i) ASSERT_TRUE((*client)->Get("key").ok());
    const double after = requests();
    EXPECT_GE(after - before, kCalls);
    EXPECT_LE(after - before, kCalls + kBesides);
  }
}

TEST_F(DrillProcessTest, ADrillThatCannotBeCarriedOutFails) {
  const nlohmann::json drill = Play({"1", "--holdfastd", "/no/such/server"});
  EXPECT_FALSE(drill["passed"].get<bool>());
  EXPECT_NE(drill.dump().find("/no/such/server"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::bench
