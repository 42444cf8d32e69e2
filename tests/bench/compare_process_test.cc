// compare and the native transport against real servers, tiny. Both sides are Debian's etcd, whose
// API the client library speaks too: what is tested here is the bench.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "absl/strings/str_split.h"
#include "bench/compare.h"
#include "bench/options.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

using testing::HasSubstr;

const std::atomic<bool> kGoOn{false};

class CompareProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    if (access("/usr/bin/etcd", X_OK) != 0) GTEST_SKIP() << "etcd is not installed";
  }

  static Options Parsed(const std::string& line) {
    const ParseResult parsed = ParseCommandLine(absl::StrSplit(
        line + " --warmup 50ms --data-dir-root " + testing::TempDir(), ' ', absl::SkipEmpty()));
    EXPECT_TRUE(parsed.run) << parsed.text;
    return parsed.options;
  }
};

TEST_F(CompareProcessTest, OneCommandMeasuresEveryGoal) {
  const std::string html = testing::TempDir() + "/compare.html";
  const Options options = Parsed(
      "compare --local 1 --local-etcd 1 --holdfastd /usr/bin/etcd --runs 1 --duration 150ms "
      "--load-keys 500 --native-callers 50 --clients 10 --etcd-clients 5,20 --memory-keys 1000 "
      "-w json --html " +
      html);
  const auto report = Compare(options, kGoOn);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->passed) << report->text;
  const auto json = nlohmann::json::parse(report->text);
  for (const nlohmann::json& row : json["goals"]) {
    EXPECT_TRUE(row.contains("ratio")) << row.dump(2);
    EXPECT_GT(row["holdfast"]["median"], 0) << row.dump(2);
    if (row.contains("goal")) EXPECT_NE(row["verdict"], "not measured");
  }
  std::stringstream page;
  page << std::ifstream(html).rdbuf();
  EXPECT_THAT(page.str(), HasSubstr("<polyline"));
}

TEST_F(CompareProcessTest, EveryWorkloadRunsByEitherApi) {
  Options options = Parsed(
      "run --local-etcd 1 --api native --load 200 --total 60 --clients 8 --native-clients 2 "
      "--workload put,get,get-serializable,mixed,ycsb-a,ycsb-b,ycsb-c,ycsb-d,ycsb-e,ycsb-f,txn,"
      "get-mirror,large-64k");
  auto cluster = StartLocal(options, /*etcd=*/true, kGoOn);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  auto session = Session::Open(options, (*cluster)->Endpoints(), (*cluster)->Pids(), kGoOn);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE((*session)->Load(options.load).ok());
  for (const Workload& workload : options.workloads) {
    for (const Api api : {Api::kNative, Api::kUnary}) {
      if (workload.read == ReadLevel::kMirror && api == Api::kUnary) continue;
      const auto result = (*session)->RunOnce({.workload = workload, .api = api});
      ASSERT_TRUE(result.ok()) << workload.name << ": " << result.status();
      EXPECT_EQ(result->stats.ok(), 60u) << workload.name;
      EXPECT_EQ(result->stats.failed(), 0u) << workload.name;
      EXPECT_EQ(result->stats.not_found(), 0u) << workload.name;
      EXPECT_GT(result->stats.bytes(), 0u) << workload.name;
    }
  }
}

TEST_F(CompareProcessTest, ReadModifyWritesOfOneKeyAreTriedUntilEachHasHeld) {
  Options options =
      Parsed("run --local-etcd 1 --workload ycsb-f --load 1 --key-space 1 --total 40 --clients 4");
  auto cluster = StartLocal(options, /*etcd=*/true, kGoOn);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  auto session = Session::Open(options, (*cluster)->Endpoints(), (*cluster)->Pids(), kGoOn);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE((*session)->Load(1).ok());
  const Workload modify = {.name = "modify", .modify = 1};
  for (const Api api : {Api::kNative, Api::kUnary}) {
    const auto result = (*session)->RunOnce({.workload = modify, .api = api});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->stats.ok(), 40u);
    EXPECT_GT(result->stats.retries(), 0u);  // four at a time, one key
  }
}

}  // namespace
}  // namespace holdfast::bench
