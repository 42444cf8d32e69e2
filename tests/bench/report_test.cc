#include "bench/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace holdfast::bench {
namespace {

using testing::HasSubstr;

constexpr int64_t kMs = 1'000'000;

RunResult SomeRun() {
  RunResult result{.stats = RunStats({.start_ns = 0, .begin_ns = 0, .end_ns = 1000 * kMs}),
                   .bench_cpu_seconds = 0.001,
                   .other_cores = 0.5,
                   .servers = {{.pid = 7, .cpu_seconds = 0.003, .end = {3, 64 << 20, 32 << 20}},
                               {.pid = 8, .cpu_seconds = 0.001, .end = {1, 64 << 20, 16 << 20}}}};
  for (int i = 1; i <= 99; ++i) result.stats.Record(OpKind::kPut, 0, i * kMs, {});
  result.stats.Record(OpKind::kPut, 0, kMs,
                      {.code = 14, .message = "gone", .found = true, .bytes = 0});
  return result;
}

double ValueOf(const std::vector<Metric>& metrics, const std::string& name) {
  for (const Metric& metric : metrics) {
    if (metric.name == name) return metric.value;
  }
  ADD_FAILURE() << "no metric " << name;
  return -1;
}

TEST(MetricsTest, SumServersAndDivideByCalls) {
  const std::vector<Metric> metrics = MetricsOf(SomeRun());
  EXPECT_DOUBLE_EQ(ValueOf(metrics, "throughput"), 99);
  EXPECT_NEAR(ValueOf(metrics, "latency_p50"), 50, 0.5);
  EXPECT_EQ(ValueOf(metrics, "latency_max"), 99);
  EXPECT_EQ(ValueOf(metrics, "errors"), 1);
  // Of 100 calls; the failed one cost CPU too.
  EXPECT_NEAR(ValueOf(metrics, "bench_cpu"), 10, 1e-9);
  EXPECT_NEAR(ValueOf(metrics, "server_cpu"), 40, 1e-9);
  EXPECT_DOUBLE_EQ(ValueOf(metrics, "server_rss"), 128);
  EXPECT_DOUBLE_EQ(ValueOf(metrics, "server_rss_anon"), 48);
}

TEST(SpreadTest, MedianAndExtremes) {
  const auto run = [](double value) {
    return std::vector<Metric>{{.name = "x", .unit = "s", .value = value}};
  };
  const std::vector<Spread> odd = SpreadOf({run(3), run(100), run(1)});
  EXPECT_EQ(odd[0].median.value, 3);
  EXPECT_EQ(odd[0].min, 1);
  EXPECT_EQ(odd[0].max, 100);
  EXPECT_EQ(SpreadOf({run(4), run(2)})[0].median.value, 3);
}

TEST(RunTextTest, NamesErrorsAndServers) {
  const std::string text = RunText("put 1/1", SomeRun());
  EXPECT_THAT(text, HasSubstr("1 x UNAVAILABLE, first: gone"));
  EXPECT_THAT(text, HasSubstr("pid 8"));
  EXPECT_THAT(text, HasSubstr("rss 128.0 MiB"));
  EXPECT_THAT(text, HasSubstr("0.50 cores: they disturbed"));
}

TEST(RunJsonTest, HoldsTheSameFigures) {
  const nlohmann::json json = RunJson(SomeRun());
  EXPECT_EQ(json["metrics"]["throughput"], 99);
  EXPECT_EQ(json["errors"]["UNAVAILABLE"]["count"], 1);
  EXPECT_EQ(json["servers"][1]["pid"], 8);
  EXPECT_EQ(json["ok"], 99);
}

TEST(CodeNameTest, KnowsAllAndMore) {
  EXPECT_EQ(CodeName(0), "OK");
  EXPECT_EQ(CodeName(14), "UNAVAILABLE");
  EXPECT_EQ(CodeName(16), "UNAUTHENTICATED");
  EXPECT_EQ(CodeName(17), "CODE_17");
}

}  // namespace
}  // namespace holdfast::bench
