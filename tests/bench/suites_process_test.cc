// watch, scale, compaction and lease against Debian's etcd, tiny and whole.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_split.h"
#include "bench/compaction.h"
#include "bench/lease.h"
#include "bench/options.h"
#include "bench/scale.h"
#include "bench/watch.h"

namespace holdfast::bench {
namespace {

using Bench = std::function<absl::StatusOr<BenchReport>(const Options&, const std::atomic<bool>&)>;

const std::atomic<bool> kGoOn{false};

class SuiteTest : public testing::Test {
 protected:
  void SetUp() override {
    if (access("/usr/bin/etcd", X_OK) != 0) GTEST_SKIP() << "etcd is not installed";
  }

  // The tables of etcd's one run.
  static nlohmann::json Run(const Bench& bench, const std::string& line) {
    const std::vector<std::string> args = absl::StrSplit(
        line + " --local-etcd 1 -w json --warmup 100ms --data-dir-root " + testing::TempDir(), ' ',
        absl::SkipEmpty());
    const ParseResult parsed = ParseCommandLine(args);
    if (!parsed.run) {
      ADD_FAILURE() << parsed.text;
      return {};
    }
    const absl::StatusOr<BenchReport> report = bench(parsed.options, kGoOn);
    if (!report.ok()) {
      ADD_FAILURE() << report.status();
      return {};
    }
    EXPECT_TRUE(report->passed) << report->text;
    return nlohmann::json::parse(report->text)["sides"]["etcd"]["runs"][0]["tables"];
  }
};

double ValueOf(const nlohmann::json& tables, const std::string& title, const std::string& name) {
  if (!tables.contains(title) || !tables[title].contains(name)) {
    ADD_FAILURE() << title << " has no " << name;
    return -1;
  }
  return tables[title][name]["value"];
}

TEST_F(SuiteTest, WatchersOfRangesGetTheirEvents) {
  const auto tables = Run(WatchBench,
                          "watch --watchers 40 --streams 4 --fan-out 2 --rate 200 "
                          "--duration 500ms");
  EXPECT_GE(ValueOf(tables, "events", "delivered"), 2 * 90);
  EXPECT_EQ(ValueOf(tables, "events", "missed"), 0);
  EXPECT_GT(ValueOf(tables, "events", "p99"), 0);
}

TEST_F(SuiteTest, WatchersOfThePrefixGetThemAll) {
  const auto tables =
      Run(WatchBench, "watch --watch prefix --streams 5 --rate 100 --duration 500ms");
  EXPECT_GE(ValueOf(tables, "events", "delivered"), 5 * 45);
}

TEST_F(SuiteTest, ScaleMeasuresEverySize) {
  const auto tables = Run(ScaleBench,
                          "scale --keys 500,1000 --duration 1s --range-keys 200 --page 50 "
                          "--clients 8");
  for (const char* title : {"500 keys", "1000 keys"}) {
    for (const char* name : {"load", "put_rate", "get_rate", "range_in_one", "range_in_pages",
                             "count_all", "after_stop_read", "after_kill_own_read"}) {
      EXPECT_GT(ValueOf(tables, title, name), 0) << title << " " << name;
    }
  }
}

TEST_F(SuiteTest, CompactionTellsThePutsBeforeDuringAndAfter) {
  const auto tables =
      Run(CompactionBench, "compaction --revisions 3000 --rate 100 --duration 300ms");
  EXPECT_GT(ValueOf(tables, "puts", "during_max"), 0);
  EXPECT_GT(ValueOf(tables, "puts, physical", "after_p99"), 0);
  EXPECT_GT(ValueOf(tables, "compact, physical", "rpc"), 0);
}

TEST_F(SuiteTest, LeasesLiveAndDie) {
  const auto tables = Run(LeaseBench,
                          "lease --leases 300 --expire 100 --expire-ttl 1s --revoke 50 "
                          "--duration 300ms --rate 100 --streams 3 --clients 8");
  EXPECT_GT(ValueOf(tables, "keep-alive", "rate"), 0);
  EXPECT_EQ(ValueOf(tables, "expire", "remained"), 0);
  EXPECT_EQ(ValueOf(tables, "expire", "early"), 0);
  EXPECT_GT(ValueOf(tables, "revoke", "rate"), 0);
}

}  // namespace
}  // namespace holdfast::bench
