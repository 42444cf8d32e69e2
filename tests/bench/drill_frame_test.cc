// What all drills stand on: the command line, the list, the timeline, the report, and the feature
// files of november-18.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "bench/drills/drill_run.h"
#include "bench/drills/drills.h"
#include "bench/drills/features.h"
#include "bench/drills/load.h"
#include "bench/drills/request_rate.h"
#include "bench/drills/service.h"
#include "bench/options.h"

namespace holdfast::bench {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// --- the command line ---

TEST(DrillOptionsTest, HaveDefaults) {
  const ParseResult parsed = ParseCommandLine({"drill", "june-12"});
  ASSERT_TRUE(parsed.run) << parsed.text;
  const Options& o = parsed.options;
  EXPECT_EQ(o.command, Command::kDrill);
  EXPECT_THAT(o.drill.names, ElementsAre("june-12"));
  EXPECT_EQ(o.drill.out, "drills");
  EXPECT_EQ(o.drill.length, absl::ZeroDuration());
  EXPECT_TRUE(o.drill.beside_etcd);
  EXPECT_EQ(o.local, 3);
  EXPECT_NE(o.seed, 0u);
}

TEST(DrillOptionsTest, TakeEveryFlag) {
  const ParseResult parsed = ParseCommandLine({"drill", "1", "herd", "--out", "x", "--duration",
                                               "30s", "--simulated-clients", "500",
                                               "--without-etcd", "--seed", "7", "-w", "json"});
  ASSERT_TRUE(parsed.run) << parsed.text;
  const Options& o = parsed.options;
  EXPECT_THAT(o.drill.names, ElementsAre("1", "herd"));
  EXPECT_EQ(o.drill.out, "x");
  EXPECT_EQ(o.drill.length, absl::Seconds(30));
  EXPECT_EQ(o.drill.simulated_clients, 500u);
  EXPECT_FALSE(o.drill.beside_etcd);
  EXPECT_EQ(o.seed, 7u);
  EXPECT_TRUE(o.json);
}

TEST(DrillOptionsTest, ListMayBeWrittenLarge) {
  const ParseResult parsed = ParseCommandLine({"drill", "LIST"});
  ASSERT_TRUE(parsed.run) << parsed.text;
  EXPECT_THAT(parsed.options.drill.names, ElementsAre("list"));
}

TEST(DrillOptionsTest, RefuseWhatMakesNoSense) {
  EXPECT_THAT(ParseCommandLine({"drill"}).text, HasSubstr("names"));
  EXPECT_THAT(ParseCommandLine({"drill", "all", "--out", ""}).text, HasSubstr("--out"));
  EXPECT_THAT(ParseCommandLine({"drill", "list", "all"}).text, HasSubstr("'list' stands alone"));
  EXPECT_THAT(ParseCommandLine({"drill", "all", "--duration", "11m"}).text,
              HasSubstr("at most 10m"));
  EXPECT_THAT(ParseCommandLine({"drill", "herd", "--simulated-clients", "20001"}).text,
              HasSubstr("at most 20000"));
}

TEST(DrillsNamedTest, AreFoundByNameAndNumberOnceEachInTheirOrder) {
  const auto drills = DrillsNamed({"june-12", "2", "leader-killed", "1"});
  ASSERT_TRUE(drills.ok());
  ASSERT_EQ(drills->size(), 3u);
  EXPECT_STREQ((*drills)[0]->name, "leader-killed");
  EXPECT_STREQ((*drills)[1]->name, "quorum-lost");
  EXPECT_STREQ((*drills)[2]->name, "june-12");
  EXPECT_EQ(DrillsNamed({"all"})->size(), AllDrills().size());
  EXPECT_THAT(std::string(DrillsNamed({"0"}).status().message()), HasSubstr("'0' is no drill"));
}

TEST(DrillsNamedTest, TheListTellsEach) {
  Options options;
  options.command = Command::kDrill;
  options.drill.names = {"list"};
  const std::atomic<bool> cancelled{false};
  const auto report = RunDrills(options, cancelled);
  ASSERT_TRUE(report.ok());
  for (const DrillEntry& entry : AllDrills()) EXPECT_THAT(report->text, HasSubstr(entry.name));
}

// --- the timeline ---

TEST(TrackTest, CountsBySlotAndClass) {
  constexpr int64_t kBegin = 1'000'000'000'000;
  Track track("config", kBegin);
  track.Add(kBegin + 1, CallOutcome::kServed, 3);
  track.Add(kBegin + kSlotNs, CallOutcome::kReduced);
  track.Add(kBegin + kSlotNs, CallOutcome::kRefused, 3);
  track.Add(kBegin + 3 * kSlotNs, CallOutcome::kFailed);
  track.AddAge(kBegin + 1, absl::Seconds(2));
  track.AddAge(kBegin + 2, absl::Seconds(1));
  track.AddAge(kBegin + 2, absl::InfiniteDuration());

  const Track::Totals all = track.All();
  EXPECT_EQ(all.served, 4u);
  EXPECT_EQ(all.reduced, 1u);
  EXPECT_EQ(all.refused, 3u);
  EXPECT_EQ(all.failed, 1u);
  EXPECT_DOUBLE_EQ(all.age_s_max, 2);
  EXPECT_DOUBLE_EQ(all.ServedPercent(), 50);
  // Only whole slots: the first is cut.
  EXPECT_EQ(track.Between(kBegin + 5, kBegin + 2 * kSlotNs).served, 1u);
  EXPECT_EQ(track.FirstNs(CallOutcome::kFailed, kBegin, kBegin + 10 * kSlotNs),
            kBegin + 3 * kSlotNs);
  EXPECT_EQ(track.FirstNs(CallOutcome::kFailed, kBegin, kBegin + 2 * kSlotNs), -1);

  const auto served = track.ServedPercent(kBegin + 4 * kSlotNs);
  ASSERT_EQ(served.size(), 3u);  // nothing was asked in the third slot
  EXPECT_DOUBLE_EQ(served[0].y, 100);
  EXPECT_DOUBLE_EQ(served[1].y, 25);
  EXPECT_DOUBLE_EQ(served[2].y, 0);
  EXPECT_DOUBLE_EQ(served[2].x, 0.35);
  EXPECT_EQ(track.AgeMax(kBegin + 4 * kSlotNs).size(), 1u);
  EXPECT_EQ(track.AgeMedian(kBegin + 4 * kSlotNs).size(), 1u);
}

TEST(TimelineTest, PhasesFollowEachOther) {
  Timeline timeline;
  timeline.Begin("well");
  timeline.Begin("fault", true);
  timeline.End();
  const std::vector<Phase> phases = timeline.phases();
  ASSERT_EQ(phases.size(), 2u);
  EXPECT_EQ(phases[0].to_ns, phases[1].from_ns);
  EXPECT_EQ(timeline.end_ns(), phases[1].to_ns);
  EXPECT_TRUE(timeline.PhaseOf("fault").fault);
  const Plot plot = timeline.NewPlot("t", "s");
  ASSERT_EQ(plot.shades.size(), 2u);
  EXPECT_EQ(plot.shades[1].label, "fault");
}

// --- the report ---

TEST(DrillReportTest, TellsEachGoalAndFailsIfOneIsMissed) {
  Options options;
  const std::atomic<bool> cancelled{false};
  DrillRun run(options, cancelled);
  EXPECT_FALSE(run.passed());  // nothing was shown
  run.SetFactor(30, "30 times as fast as life");
  run.AddGoal("served", true, "100 %", "100 %");
  EXPECT_TRUE(run.passed());
  run.AddGoal("refused", false, "3", "0");
  EXPECT_FALSE(run.passed());
  run.AddTable(
      {.title = "by product", .columns = {"product", "served"}, .rows = {{"Access", "1"}}});
  run.Note("mind this");
  const DrillEntry entry = {7, "paused", "somebody is stopped", nullptr};
  const std::string text = DrillText(entry, run, "out/paused.svg");
  EXPECT_THAT(text, HasSubstr("drill 7 paused: somebody is stopped"));
  EXPECT_THAT(text, HasSubstr("ok    served"));
  EXPECT_THAT(text, HasSubstr("FAIL  refused"));
  EXPECT_THAT(text, HasSubstr("30 times as fast as life"));
  EXPECT_THAT(text, HasSubstr("Access"));
  EXPECT_THAT(text, HasSubstr("mind this"));
  EXPECT_THAT(text, HasSubstr("FAILED"));
  const nlohmann::json json = DrillJson(entry, run);
  EXPECT_EQ(json["goals"].size(), 2u);
  EXPECT_EQ(json["goals"][1]["met"], false);
  EXPECT_EQ(json["factor"], 30);
  EXPECT_EQ(run.Played(absl::Minutes(5)), absl::Seconds(10));
}

TEST(DrillReportTest, AViolationFailsTheDrill) {
  Options options;
  const std::atomic<bool> cancelled{false};
  DrillRun run(options, cancelled);
  DrillOracle::History* const history = run.oracle().AddHistory();
  history->Acked(2, 100);
  run.oracle().AddReader(history, "r")->Read(1, 200, absl::ZeroDuration(), Proof::kProven);
  run.Judge(false);
  EXPECT_FALSE(run.passed());
  ASSERT_EQ(run.notes().size(), 1u);
  EXPECT_THAT(run.notes()[0], HasSubstr("VIOLATION: r: was shown revision 1"));
}

// --- what comes of a call ---

TEST(OutcomeOfTest, TypedRefusalsAreNoFailures) {
  EXPECT_EQ(OutcomeOf(absl::OkStatus()), CallOutcome::kServed);
  EXPECT_EQ(OutcomeOf(absl::UnavailableError("no quorum")), CallOutcome::kRefused);
  EXPECT_EQ(OutcomeOf(absl::FailedPreconditionError("too old")), CallOutcome::kRefused);
  EXPECT_EQ(OutcomeOf(absl::ResourceExhaustedError("later")), CallOutcome::kRefused);
  EXPECT_EQ(OutcomeOf(absl::UnknownError("maybe")), CallOutcome::kFailed);
  EXPECT_EQ(OutcomeOf(absl::DeadlineExceededError("hung")), CallOutcome::kFailed);
}

TEST(CallerTest, CallsThatAreDueWhileOneHangsShareItsFate) {
  Timeline timeline;
  Track* const track = timeline.AddTrack("t");
  std::atomic<int> calls{0};
  std::atomic<bool> done{false};
  Caller caller(1000, track, [&](int64_t) {
    // The second call hangs for 50 ms, and is refused.
    if (++calls == 2) {
      const int64_t until_ns = BootNs() + 50'000'000;
      while (BootNs() < until_ns) {
      }
      return absl::UnavailableError("");
    }
    done = calls > 5;
    return absl::OkStatus();
  });
  while (!done) {
  }
  caller.Stop();
  EXPECT_GE(track->All().refused, 50u);
  const auto made = caller.Between(0, BootNs());
  // The hanging call took 50 ms; its clock began a moment after the call did.
  EXPECT_GE(LongestSeconds(made, CallOutcome::kRefused), 0.04);
  EXPECT_EQ(caller.last_error().code(), absl::StatusCode::kUnavailable);
}

TEST(QuantileSecondsTest, IsTheNearestRank) {
  std::vector<Caller::Made> calls;
  for (int i = 1; i <= 10; ++i) calls.push_back({.at_ns = 0, .took_ns = i * 1'000'000'000LL});
  EXPECT_DOUBLE_EQ(QuantileSeconds(calls, 0.5), 5);
  EXPECT_DOUBLE_EQ(QuantileSeconds(calls, 1), 10);
  EXPECT_DOUBLE_EQ(QuantileSeconds({}, 0.5), 0);
}

TEST(SumOfMetricTest, AddsTheSamplesOfThatNameAlone) {
  const std::string text =
      "# HELP rpc_total x\n# TYPE rpc_total counter\nrpc_total{m=\"a b\"} 3\nrpc_total 4\n"
      "rpc_total_created 100\nother 7\nrpc_total{m=\"c\"} 2.5";
  EXPECT_DOUBLE_EQ(SumOfMetric(text, "rpc_total"), 9.5);
  EXPECT_DOUBLE_EQ(SumOfMetric(text, "none"), 0);
}

TEST(SeenCounterTest, CountsOnOverRestarts) {
  SeenCounter counter;
  EXPECT_DOUBLE_EQ(counter.At(100), 0);
  counter.Saw(100, 1000, 1);  // what was before the first look is not ours
  counter.Saw(200, 1100, 1);
  EXPECT_DOUBLE_EQ(counter.At(150), 50);
  counter.SawNobody(300);
  counter.SawNobody(400);
  counter.Saw(500, 1200, 2);  // another process, that has counted further than the one before
  EXPECT_DOUBLE_EQ(counter.At(400), 100);
  EXPECT_DOUBLE_EQ(counter.At(450), 700);
  EXPECT_DOUBLE_EQ(counter.At(500), 1300);
  counter.SawNobody(600);  // only slow: the same life goes on
  counter.Saw(700, 1300, 2);
  EXPECT_DOUBLE_EQ(counter.At(600), 1350);
  EXPECT_DOUBLE_EQ(counter.At(900), 1400);
}

// --- november-18 ---

TEST(FeaturesTest, AGoodFileParsesAndScores) {
  const std::string file = FeatureFile("v1", Poison::kNone);
  const auto features = ParseFeatures(file);
  ASSERT_TRUE(features.ok()) << features.status();
  EXPECT_EQ(features->id, "v1");
  EXPECT_EQ(features->weights.size(), kGoodFeatures);
  EXPECT_GT(features->Score(1000), 0);
  EXPECT_FALSE(IsPoisoned(file));
}

TEST(FeaturesTest, EveryPoisonIsWhatItIsSaidToBe) {
  EXPECT_THAT(std::string(ParseFeatures(FeatureFile("v", Poison::kDoubled)).status().message()),
              HasSubstr("300 features, at most 200"));
  EXPECT_THAT(std::string(ParseFeatures(FeatureFile("v", Poison::kUnparsable)).status().message()),
              HasSubstr("is no feature"));
  const auto crashing = ParseFeatures(FeatureFile("v", Poison::kCrashing));
  ASSERT_TRUE(crashing.ok());
  EXPECT_DEATH((void)crashing->Score(1), "feature of weight 0");
  for (const Poison poison : {Poison::kDoubled, Poison::kUnparsable, Poison::kCrashing}) {
    EXPECT_TRUE(IsPoisoned(FeatureFile("v", poison)));
  }
  EXPECT_FALSE(ParseFeatures("").ok());
}

// --- services in processes of their own ---

TEST(ServiceTermsTest, SurviveTheCommandLine) {
  ServiceTerms terms;
  terms.role = ServiceRole::kFeatures;
  terms.endpoints = {"127.0.0.1:1", "127.0.0.1:2"};
  terms.name = "bot";
  terms.disk_dir = "/tmp/x y";
  terms.prefix = "/bot/";
  terms.key = "/bot/features";
  terms.bound = absl::Milliseconds(1500);
  terms.probation = absl::Seconds(3);
  terms.reads_per_second = 12.5;
  const auto parsed = ServiceTerms::Parse(terms.Args());
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->Args(), terms.Args());
  EXPECT_EQ(parsed->bound, terms.bound);
  EXPECT_EQ(ServiceTerms::Parse(ServiceTerms(terms).Args())->disk_dir, "/tmp/x y");
  terms.name = "";
  terms.disk_dir = "";
  EXPECT_TRUE(ServiceTerms::Parse(terms.Args()).ok());
  EXPECT_FALSE(ServiceTerms::Parse({"--role=cook"}).ok());
}

}  // namespace
}  // namespace holdfast::bench
