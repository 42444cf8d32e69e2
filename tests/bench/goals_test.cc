// The goals' verdicts and compare's report, from made-up figures.
#include "bench/goals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "bench/compare.h"

namespace holdfast::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::vector<Metric> Figures(double rate, double p50_ms, double server_cpu_us, double bench_cpu_us) {
  return {{.name = "throughput", .unit = "op/s", .value = rate, .better = Better::kHigher},
          {.name = "latency_p50", .unit = "ms", .value = p50_ms, .better = Better::kLower},
          {.name = "bench_cpu", .unit = "us/op", .value = bench_cpu_us},
          {.name = "server_cpu", .unit = "us/op", .value = server_cpu_us}};
}

Measurement Rates(Probe probe, Target target, uint32_t clients, const std::vector<double>& rates) {
  Measurement measured{.probe = probe, .target = target, .clients = clients};
  for (const double rate : rates) measured.runs.push_back(Figures(rate, 1, 100, 10));
  return measured;
}

const GoalRow& Row(const std::vector<GoalRow>& rows, const std::string& name) {
  for (const GoalRow& row : rows) {
    if (row.name == name) return row;
  }
  ADD_FAILURE() << "no row " << name;
  static const auto& none = *new GoalRow();
  return none;
}

TEST(GoalsTest, ARatioIsThatOfTheMediansAndOfEachRun) {
  const auto rows = GoalRows({Rates(Probe::kPut, Target::kUnary, 100, {30'000, 36'000, 33'000}),
                              Rates(Probe::kPut, Target::kEtcd, 100, {10'000, 9'000, 11'000})},
                             100);
  const GoalRow& row = Row(rows, "put_unary");
  EXPECT_DOUBLE_EQ(row.ratio, 3.3);
  EXPECT_DOUBLE_EQ(row.ratio_min, 3);
  EXPECT_DOUBLE_EQ(row.ratio_max, 4);
  EXPECT_EQ(row.verdict, GoalVerdict::kMet);
  EXPECT_EQ(row.holdfast->spread.min, 30'000);
  EXPECT_EQ(row.etcd->spread.max, 11'000);
  EXPECT_EQ(row.holdfast_bench_cpu, 10);
}

TEST(GoalsTest, JustAtTheGoalIsMetAndJustBelowIsMissed) {
  const auto verdict = [](double ours) {
    return Row(GoalRows({Rates(Probe::kPut, Target::kUnary, 100, {ours}),
                         Rates(Probe::kPut, Target::kEtcd, 100, {1000})},
                        100),
               "put_unary")
        .verdict;
  };
  EXPECT_EQ(verdict(3000), GoalVerdict::kMet);
  EXPECT_EQ(verdict(2999), GoalVerdict::kMissed);
}

TEST(GoalsTest, WhereLessIsBetterTheRatioMustBeAtMostTheGoal) {
  const auto verdict = [](double ours_ms) {
    Measurement holdfast{.probe = Probe::kOnePut, .target = Target::kUnary, .clients = 1};
    holdfast.runs = {Figures(1000, ours_ms, 1, 1)};
    Measurement etcd{.probe = Probe::kOnePut, .target = Target::kEtcd, .clients = 1};
    etcd.runs = {Figures(1000, 1.0, 1, 1)};
    return Row(GoalRows({holdfast, etcd}, 100), "one_put_p50").verdict;
  };
  EXPECT_EQ(verdict(0.4), GoalVerdict::kMet);
  EXPECT_EQ(verdict(0.6), GoalVerdict::kMissed);
}

TEST(GoalsTest, NativeRowsStandAgainstEtcdsBestNumberOfClients) {
  const std::vector<Measurement> measured = {Rates(Probe::kPut, Target::kNative, 4000, {100'000}),
                                             Rates(Probe::kPut, Target::kUnary, 100, {20'000}),
                                             Rates(Probe::kPut, Target::kEtcd, 100, {4'000}),
                                             Rates(Probe::kPut, Target::kEtcd, 300, {8'000}),
                                             Rates(Probe::kPut, Target::kEtcd, 1000, {7'000})};
  const auto rows = GoalRows(measured, 100);
  const GoalRow& native = Row(rows, "put_native");
  EXPECT_DOUBLE_EQ(native.ratio, 12.5);
  EXPECT_EQ(native.etcd->clients, 300u);
  EXPECT_EQ(native.holdfast->clients, 4000u);
  EXPECT_EQ(native.verdict, GoalVerdict::kMissed);
  EXPECT_THAT(CellsOf(native).etcd, HasSubstr("at 300, best"));
  // The unary row compares like with like: the same number of clients.
  const GoalRow& unary = Row(rows, "put_unary");
  EXPECT_DOUBLE_EQ(unary.ratio, 5);
  EXPECT_EQ(unary.etcd->clients, 100u);
}

TEST(GoalsTest, EtcdsBestCpuIsItsLeast) {
  Measurement holdfast{.probe = Probe::kPut, .target = Target::kNative, .clients = 4000};
  holdfast.runs = {Figures(100'000, 1, 15, 1)};
  Measurement few{.probe = Probe::kPut, .target = Target::kEtcd, .clients = 100};
  few.runs = {Figures(4'000, 1, 400, 1)};
  Measurement many{.probe = Probe::kPut, .target = Target::kEtcd, .clients = 1000};
  many.runs = {Figures(9'000, 1, 300, 1)};
  const auto rows = GoalRows({holdfast, few, many}, 100);
  EXPECT_DOUBLE_EQ(Row(rows, "put_cpu").ratio, 0.05);
  EXPECT_EQ(Row(rows, "put_cpu").verdict, GoalVerdict::kMet);
  EXPECT_EQ(CellsOf(Row(rows, "put_cpu")).ratio, "1/20");
}

TEST(GoalsTest, AFailedRunIsNotLeftOutSilently) {
  Measurement holdfast = Rates(Probe::kPut, Target::kUnary, 100, {30'000, 36'000});
  holdfast.runs.emplace_back();
  const auto rows =
      GoalRows({holdfast, Rates(Probe::kPut, Target::kEtcd, 100, {1'000, 1'000, 1'000})}, 100);
  EXPECT_EQ(Row(rows, "put_unary").verdict, GoalVerdict::kNotMeasured);
  EXPECT_FALSE(Row(rows, "put_unary").holdfast.has_value());
  EXPECT_THAT(GoalsSummary(rows), HasSubstr("not measured: puts, unary"));
}

TEST(GoalsTest, RowsWithoutAGoalDoNotCount) {
  const auto rows = GoalRows({Rates(Probe::kStampedPut, Target::kNative, 4000, {50'000}),
                              Rates(Probe::kPut, Target::kUnary, 100, {50'000}),
                              Rates(Probe::kPut, Target::kEtcd, 100, {1'000})},
                             100);
  EXPECT_EQ(Row(rows, "stamped_put_native").verdict, GoalVerdict::kNoGoal);
  EXPECT_DOUBLE_EQ(Row(rows, "stamped_put_native").ratio, 50);
  EXPECT_THAT(GoalsSummary(rows), HasSubstr("1 of 7 goals met"));
  EXPECT_THAT(GoalsText(rows), HasSubstr("exactly once"));
  for (const nlohmann::json& row : GoalsJson(rows)) {
    EXPECT_EQ(row.contains("goal"), row.contains("verdict"));
  }
}

Options CompareOptionsOf(const std::string& line) {
  const ParseResult parsed = ParseCommandLine(absl::StrSplit(line, ' '));
  EXPECT_TRUE(parsed.run) << parsed.text;
  return parsed.options;
}

std::vector<std::string> TitlesOf(const std::vector<Step>& steps) {
  std::vector<std::string> titles;
  for (const Step& step : steps) titles.push_back(step.Title());
  return titles;
}

TEST(CompareTest, EachTargetMeasuresWhatItsRowsNeed) {
  const Options options = CompareOptionsOf("compare --native-callers 2000 --etcd-clients 300,30");
  EXPECT_THAT(TitlesOf(StepsOf(options, Target::kNative)),
              ElementsAre("get at 2000 clients", "one_put at 1 client", "put at 2000 clients",
                          "stamped_put at 2000 clients"));
  EXPECT_THAT(TitlesOf(StepsOf(options, Target::kUnary)),
              ElementsAre("get at 100 clients", "one_put at 1 client", "put at 100 clients"));
  // 100 are not in the list, and the unary rows need them.
  EXPECT_THAT(TitlesOf(StepsOf(options, Target::kEtcd)),
              ElementsAre("get at 30 clients", "get at 100 clients", "get at 300 clients",
                          "one_put at 1 client", "put at 30 clients", "put at 100 clients",
                          "put at 300 clients"));
  for (const Step& step : StepsOf(options, Target::kNative)) {
    EXPECT_EQ(step.exactly_once, step.probe == Probe::kStampedPut) << step.Title();
  }
}

TEST(CompareTest, WorkloadsTakeThePlaceOfTheGoalsAndLargeValuesComeLast) {
  const Options options = CompareOptionsOf("compare --workloads large-64k,get-mirror,ycsb-a");
  EXPECT_FALSE(options.compare.goals);
  EXPECT_THAT(TitlesOf(StepsOf(options, Target::kNative)),
              ElementsAre("get-mirror", "ycsb-a", "large-64k"));
  EXPECT_THAT(TitlesOf(StepsOf(options, Target::kEtcd)), ElementsAre("ycsb-a", "large-64k"));
  EXPECT_TRUE(CompareOptionsOf("compare --goals --workloads put").compare.goals);
}

TEST(CompareTest, WhoComesFirstGoesRound) {
  const Options options = CompareOptionsOf("compare");
  EXPECT_THAT(TurnsOf(options, 0), ElementsAre(Target::kNative, Target::kUnary, Target::kEtcd));
  EXPECT_THAT(TurnsOf(options, 1), ElementsAre(Target::kUnary, Target::kEtcd, Target::kNative));
  EXPECT_THAT(TurnsOf(options, 3), ElementsAre(Target::kNative, Target::kUnary, Target::kEtcd));
}

// Every step of every target, three runs each, at 1000 op/s; Holdfast at `factor` times that.
Comparison MadeUp(const Options& options, double factor) {
  Comparison comparison;
  for (const Target target : options.compare.targets) {
    ComparedTarget compared{.target = target, .version = "1.2"};
    compared.load.runs = {{{.name = "load", .unit = "keys/s", .value = 5}}};
    for (const Step& step : StepsOf(options, target)) {
      StepRuns runs{.step = step};
      for (int run = 0; run < 3; ++run) {
        runs.runs.push_back(Figures(target == Target::kEtcd ? 1000 : 1000 * factor, 1, 1, 1));
      }
      compared.steps.push_back(std::move(runs));
    }
    comparison.targets.push_back(std::move(compared));
  }
  return comparison;
}

TEST(CompareTest, TheReportHoldsTheTableAndWhatIsFairAboutIt) {
  const Options options = CompareOptionsOf("compare --no-memory --seed 5");
  const BenchReport report = CompareReportOf(options, {}, MadeUp(options, 30));
  EXPECT_TRUE(report.passed);
  for (const char* text : {"puts, unary", "30x", ">= 25x", ">= 60x", "MISSED", "met", "fsync",
                           "own CPU", "etcd's best", "exactly once", "not measured: resident"}) {
    EXPECT_THAT(report.text, HasSubstr(text));
  }
}

TEST(CompareTest, AFlagAgainstFsyncIsToldInPlaceOfThePromise) {
  const Options options = CompareOptionsOf("compare --etcd-arg=--unsafe-no-fsync");
  const std::string text = CompareReportOf(options, {}, MadeUp(options, 3)).text;
  EXPECT_THAT(text, HasSubstr("WAS GIVEN A FLAG"));
  EXPECT_THAT(text, Not(HasSubstr("after fsync on a majority")));
}

TEST(CompareTest, AMachineThatWasNotLeftAloneIsTold) {
  const Options options = CompareOptionsOf("compare --no-memory");
  Comparison comparison = MadeUp(options, 3);
  EXPECT_THAT(CompareReportOf(options, {}, comparison).text, Not(HasSubstr("DISTURBED")));
  for (auto& run : comparison.targets[1].steps[0].runs) {
    run.push_back({.name = "others_cpu", .unit = "cores", .value = 0.1});
  }
  comparison.targets[1].steps[0].runs[2].back().value = 0.7;
  const std::string text = CompareReportOf(options, {}, comparison).text;
  EXPECT_THAT(text, HasSubstr("DISTURBED"));
  EXPECT_THAT(text, HasSubstr("in 1 of 3 measurements, at most 0.70 cores"));
}

TEST(CompareTest, AFailedTurnFailsTheReportAndKeepsTheRest) {
  const Options options = CompareOptionsOf("compare --workloads put,get");
  Comparison comparison = MadeUp(options, 3);
  comparison.targets[0].steps[1].runs[2].clear();
  comparison.wrong = {"run 3, holdfast native: it ended"};
  const BenchReport report = CompareReportOf(options, {}, comparison);
  EXPECT_FALSE(report.passed);
  EXPECT_THAT(report.text, HasSubstr("WRONG     run 3, holdfast native"));
  EXPECT_THAT(report.text, HasSubstr("unary/etcd"));
}

TEST(CompareTest, JsonHasEverySideStepAndGoal) {
  const Options options = CompareOptionsOf("compare -w json --seed 5");
  const auto json = nlohmann::json::parse(CompareReportOf(options, {}, MadeUp(options, 30)).text);
  EXPECT_EQ(json["sides"]["native"]["version"], "1.2");
  EXPECT_EQ(json["sides"]["etcd"]["steps"]["put at 300 clients"]["summary"]["throughput"]["median"],
            1000);
  EXPECT_EQ(json["sides"]["native"]["steps"]["stamped_put at 4000 clients"]["exactly_once"], true);
  EXPECT_EQ(json["goals"][0]["name"], "put_unary");
  EXPECT_EQ(json["goals"][0]["ratio"]["median"], 30);
  EXPECT_EQ(json["goals"][0]["verdict"], "met");
  EXPECT_EQ(json["goals"][0]["goal"]["at_least"], 3);
}

}  // namespace
}  // namespace holdfast::bench
