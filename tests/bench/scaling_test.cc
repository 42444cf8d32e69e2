// What the kernel tells of threads, the costs fitted from it, and the model: formulas against the
// simulation, and both against what must be so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "absl/synchronization/notification.h"
#include "bench/fan_out_model.h"
#include "bench/scale_model.h"
#include "bench/scale_parameters.h"
#include "bench/scale_simulation.h"
#include "bench/stage_cost.h"
#include "bench/thread_usage.h"

namespace holdfast::bench {
namespace {

using testing::DoubleNear;
using testing::HasSubstr;

// ---------------------------------------------------------------- what the kernel says

constexpr pid_t kNoProcess = (1 << 22) + 1;  // above the greatest that Linux gives

TEST(StatLineTest, NamesMayHoldSpacesAndParentheses) {
  const auto plain =
      ParseStatLine("4711 (hf-raft) S 1 2 3 0 -1 4194368 9 0 0 0 123 45 0 0 20 0 50 0 777 1 2 3\n");
  ASSERT_TRUE(plain.has_value());
  EXPECT_EQ(plain->id, 4711);
  EXPECT_EQ(plain->name, "hf-raft");
  EXPECT_EQ(plain->user_ticks, 123u);
  EXPECT_EQ(plain->system_ticks, 45u);
  const auto odd = ParseStatLine("7 (a) b (c) 1 2) R 1 2 3 0 -1 4194368 9 0 0 0 6 7 0 0");
  ASSERT_TRUE(odd.has_value());
  EXPECT_EQ(odd->name, "a) b (c) 1 2");
  EXPECT_EQ(odd->user_ticks, 6u);
  EXPECT_EQ(odd->system_ticks, 7u);
  EXPECT_EQ(ParseStatLine("7 () R 1 2 3 0 -1 4194368 9 0 0 0 6 7")->name, "");
}

TEST(StatLineTest, WhatIsNoLineGivesNothing) {
  EXPECT_FALSE(ParseStatLine("").has_value());
  EXPECT_FALSE(ParseStatLine("7 hf-raft S 1 2").has_value());
  EXPECT_FALSE(ParseStatLine(")7 (").has_value());
  EXPECT_FALSE(ParseStatLine("x (hf-raft) S 1 2 3 0 -1 4194368 9 0 0 0 6 7").has_value());
  EXPECT_FALSE(ParseStatLine("7 (hf-raft) S 1 2 3 0 -1 4194368 9 0 0 0 6").has_value());
}

TEST(ThreadUsageTest, ThreadsAreFoundByTheirName) {
  absl::Notification named, seen;
  std::thread thread([&] {
    prctl(PR_SET_NAME, "odd (name) x");
    named.Notify();
    seen.WaitForNotification();
  });
  named.WaitForNotification();
  const auto detail = ReadProcessDetail(getpid());
  seen.Notify();
  thread.join();
  ASSERT_TRUE(detail.ok()) << detail.status();
  ASSERT_TRUE(detail->threads.contains("odd (name) x"));
  EXPECT_EQ(detail->threads.at("odd (name) x").threads, 1);
  EXPECT_GT(detail->cpu_seconds, 0);
  EXPECT_TRUE(absl::IsNotFound(ReadProcessDetail(kNoProcess).status()));
}

TEST(TcpBetweenTest, ConnectionsThatComeAndGoTakeNothingFromOthers) {
  const std::vector<TcpEnd> begin = {{.local_port = 1,
                                      .remote_port = 9,
                                      .sent_bytes = 100,
                                      .received_bytes = 10,
                                      .sent_segments = 5},
                                     {.local_port = 1,
                                      .remote_port = 8,
                                      .sent_bytes = 5000,
                                      .received_bytes = 5000,
                                      .sent_segments = 50},
                                     {.local_port = 1,
                                      .remote_port = 6,
                                      .sent_bytes = 70,
                                      .received_bytes = 70,
                                      .sent_segments = 7}};
  const std::vector<TcpEnd> end = {{.local_port = 1,
                                    .remote_port = 9,
                                    .sent_bytes = 150,
                                    .received_bytes = 30,
                                    .sent_segments = 7},
                                   {.local_port = 1,
                                    .remote_port = 7,
                                    .sent_bytes = 40,
                                    .received_bytes = 4,
                                    .sent_segments = 1},
                                   {.local_port = 1,
                                    .remote_port = 6,
                                    .sent_bytes = 3,
                                    .received_bytes = 2,
                                    .sent_segments = 1}};
  const auto carried = TcpBetween(begin, end);
  ASSERT_EQ(carried.size(), 3u);
  EXPECT_EQ(carried[0].sent_bytes, 50u);
  EXPECT_EQ(carried[0].received_bytes, 20u);
  EXPECT_EQ(carried[0].sent_segments, 2u);
  EXPECT_EQ(carried[1].sent_bytes, 40u);
  EXPECT_EQ(carried[2].sent_bytes, 3u);
}

TEST(StageCostTest, KnownThreadsHaveAStage) {
  EXPECT_EQ(StageOf("hf-raft"), "raft");
  EXPECT_EQ(StageOf("hf-log"), "log");
  EXPECT_EQ(StageOf("hf-apply"), "apply");
  EXPECT_EQ(StageOf("hf-answer"), "answer");
  EXPECT_EQ(StageOf("rocksdb:low"), "store");
  EXPECT_EQ(StageOf("nexting_thread"), "grpc");
  EXPECT_EQ(StageOf("grpc_global_tim"), "grpc");
  EXPECT_EQ(StageOf("holdfastd"), "other");
}

MemberSample SampleWith(double cpu, double raft_cpu, double committed, double fsyncs) {
  MemberSample sample;
  sample.process.cpu_seconds = cpu;
  sample.process.threads["hf-raft"] = {.threads = 1, .cpu_seconds = raft_cpu, .waits = 100};
  sample.committed = committed;
  sample.fsyncs = fsyncs;
  sample.fsync_seconds = fsyncs * 0.001;
  sample.applies = fsyncs / 2;
  return sample;
}

TEST(StageCostTest, CostsAreOfTheWindowAloneAndForOneOperation) {
  MemberSample begin = SampleWith(10, 4, 1000, 100);
  MemberSample end = SampleWith(12, 5, 3000, 300);
  end.process.threads["hf-raft"].waits = 1100;
  // A thread that came in between counts whole; one that has ended is not there.
  end.process.threads["rocksdb:low"] = {.threads = 1, .cpu_seconds = 0.5};
  const MemberUse use = MemberUseBetween(begin, end, 2000);
  EXPECT_THAT(use.cpu_us, DoubleNear(1000, 1e-6));
  EXPECT_THAT(use.stages.at("raft").cpu_us, DoubleNear(500, 1e-6));
  EXPECT_THAT(use.stages.at("raft").waits, DoubleNear(0.5, 1e-9));
  EXPECT_THAT(use.stages.at("store").cpu_us, DoubleNear(250, 1e-6));
  EXPECT_THAT(use.entries_per_fsync, DoubleNear(10, 1e-9));
  EXPECT_THAT(use.entries_per_apply, DoubleNear(20, 1e-9));
  EXPECT_THAT(use.fsync_us, DoubleNear(1000, 1e-6));
  EXPECT_THAT(use.fsyncs, DoubleNear(0.1, 1e-9));
}

TEST(StageCostTest, JsonComesBackAsItWas) {
  StagePoint point{.workload = "put", .transport = "native", .clients = 7, .rate = 1234.5};
  point.members.push_back({.leader = true, .cpu_us = 9, .entries_per_fsync = 3});
  point.members[0].stages["log"] = {.cpu_us = 1, .system_us = 2, .waited_us = 3, .waits = 4};
  const auto back = PointOf(PointJson(point));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(PointJson(*back), PointJson(point));
  EXPECT_TRUE(absl::IsInvalidArgument(PointOf(nlohmann::json{{"workload", "put"}}).status()));
}

// ---------------------------------------------------------------- fitting

TEST(FitTest, ALineIsFoundAndNothingIsBelowZero) {
  const Line line = FitLine({{1, 107}, {0.1, 17}, {0.01, 8}});
  EXPECT_THAT(line.op, DoubleNear(7, 1e-6));
  EXPECT_THAT(line.batch, DoubleNear(100, 1e-6));
  const Line falling = FitLine({{1, 5}, {0.1, 10}});
  EXPECT_EQ(falling.batch, 0);
  EXPECT_GT(falling.op, 0);
  const Line through_zero = FitLine({{1, 100}, {0.5, 20}});
  EXPECT_EQ(through_zero.op, 0);
  EXPECT_GT(through_zero.batch, 0);
  EXPECT_EQ(FitLine({{0.5, 3}}).op, 3);
  EXPECT_EQ(FitLine({}).op, 0);
}

StagePoint PointWith(const std::string& workload, double batch) {
  StagePoint point{
      .workload = workload, .transport = "unary", .clients = 100, .value_bytes = 256, .rate = 1000};
  point.bench_cpu_us = 20;
  for (const bool leader : {true, false, false}) {
    MemberUse member{
        .leader = leader, .fsyncs = 1 / batch, .fsync_us = 300, .entries_per_fsync = batch};
    member.stages["grpc"].cpu_us = (leader ? 30 : 3) + (leader ? 90 : 30) / batch;
    member.stages["raft"] = {.cpu_us = 2 + 60 / batch, .waits = 1 / batch};
    member.stages["log"].cpu_us = 1 + 100 / batch;
    member.stages["apply"].cpu_us = 6 + 40 / batch;
    point.members.push_back(member);
  }
  return point;
}

TEST(FitTest, CostsComeOutOfPointsThatWereMadeOfThem) {
  std::vector<StagePoint> points;
  for (const std::string workload : {"put", "get"}) {
    for (const double batch : {1.0, 10.0, 50.0}) points.push_back(PointWith(workload, batch));
  }
  const auto fitted = FitParameters(points);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  const PathCosts& put = fitted->unary_put;
  EXPECT_THAT(put.log.op_us, DoubleNear(1, 0.01));
  EXPECT_THAT(put.log.batch_us, DoubleNear(100, 0.1));
  EXPECT_THAT(put.apply.op_us, DoubleNear(6, 0.01));
  EXPECT_THAT(put.receive.op_us, DoubleNear(3, 0.01));
  EXPECT_THAT(put.receive.batch_us, DoubleNear(30, 0.1));
  // What the leader does beyond sending to two: half before, half behind.
  EXPECT_THAT(put.door.op_us, DoubleNear(12, 0.05));
  EXPECT_THAT(put.answer.op_us, DoubleNear(12, 0.05));
  EXPECT_THAT(put.client.op_us, DoubleNear(20, 0.01));
  // The wait alone: 300 us, of which 100 and one for each entry were the thread's own.
  EXPECT_THAT(fitted->fsync_us, DoubleNear(150, 60));
  EXPECT_TRUE(absl::IsInvalidArgument(FitParameters({PointWith("put", 1)}).status()));
}

// ---------------------------------------------------------------- the model

PathCosts SomeCosts() {
  return {.client = {.op_us = 20},
          .door = {.op_us = 10},
          .raft = {.batch_us = 15, .op_us = 1},
          .send = {.batch_us = 30, .op_us = 1},
          .receive = {.batch_us = 30, .op_us = 1},
          .follower_raft = {.batch_us = 20, .op_us = 0.5},
          .log = {.batch_us = 40, .op_us = 0.6},
          .apply = {.batch_us = 30, .op_us = 5},
          .answer = {.op_us = 10},
          .store = {.op_us = 2}};
}

LoadModel Callers(int callers, bool read = false, bool batched = false) {
  return {.read = read, .batched = batched, .streams = 4, .callers = callers};
}

struct Situation {
  double cores, fsync_us, rtt_us;
  int callers;
  bool read, batched;
};

std::vector<Situation> Situations() {
  std::vector<Situation> all;
  for (const double cores : {2.0, 8.0}) {
    for (const double rtt_us : {100.0, 1000.0, 30'000.0}) {
      for (const int callers : {1, 30, 1000}) {
        for (const bool read : {false, true}) {
          for (const bool batched : {false, true}) {
            all.push_back({cores, 100, rtt_us, callers, read, batched});
          }
        }
      }
    }
  }
  return all;
}

TEST(ScaleModelTest, FormulasAndSimulationAgree) {
  double worst = 1;
  for (const Situation& s : Situations()) {
    const ClusterModel cluster = EvenCluster(3, s.cores, s.fsync_us, s.rtt_us);
    const LoadModel load = Callers(s.callers, s.read, s.batched);
    const double formula = Predict(SomeCosts(), cluster, load).rate;
    const SimulationResult played = Simulate(SomeCosts(), cluster, load, 20'000, 1);
    const double ratio = formula / played.rate;
    worst = std::max({worst, ratio, 1 / ratio});
    // Within a few per cent where nothing waits for anything else.
    const double bound = s.callers == 1 ? 1.1 : 2.0;
    EXPECT_LT(ratio, bound) << s.cores << " cores, " << s.rtt_us << " us, " << s.callers
                            << (s.read ? " gets" : " puts") << (s.batched ? " batched" : "");
    EXPECT_GT(ratio, 1 / bound) << s.cores << " cores, " << s.rtt_us << " us, " << s.callers
                                << (s.read ? " gets" : " puts") << (s.batched ? " batched" : "");
  }
  RecordProperty("worst_ratio", std::to_string(worst));
}

TEST(ScaleModelTest, OneCallerAloneWaitsForItsOwnStagesOnly) {
  const ClusterModel cluster = EvenCluster(3, 8, 100, 1000);
  // client, door, turn, message, its way, receipt, turn, log, disk, turn, apply, answer, own way.
  const double sum = 20 + 10 + 16 + 31 + 1000 + 31 + 20.5 + 40.6 + 100 + 16 + 35 + 10 + 1000;
  EXPECT_THAT(Simulate(SomeCosts(), cluster, Callers(1), 1000, 1).mean_us,
              DoubleNear(sum, 0.05 * sum));
  EXPECT_THAT(Predict(SomeCosts(), cluster, Callers(1)).mean_us, DoubleNear(sum, 0.05 * sum));
}

TEST(ScaleModelTest, ABetterMachineIsNeverSlower) {
  for (const bool batched : {false, true}) {
    for (const int callers : {1, 100, 2000}) {
      const LoadModel load = Callers(callers, false, batched);
      double before = 0;
      for (const double fsync_us : {10'000.0, 1000.0, 100.0, 20.0, 1.0}) {
        const double rate = Predict(SomeCosts(), EvenCluster(3, 4, fsync_us, 100), load).rate;
        EXPECT_GE(rate, before * 0.999) << "fsync " << fsync_us << ", " << callers;
        before = rate;
      }
      before = 0;
      for (const double cores : {1, 2, 4, 8, 16, 64}) {
        const double rate = Predict(SomeCosts(), EvenCluster(3, cores, 100, 100), load).rate;
        EXPECT_GE(rate, before * 0.999) << cores << " cores, " << callers;
        before = rate;
      }
      before = 0;
      for (const double rtt_us : {80'000.0, 30'000.0, 1000.0, 100.0}) {
        const double rate = Predict(SomeCosts(), EvenCluster(3, 4, 100, rtt_us), load).rate;
        EXPECT_GE(rate, before * 0.999) << rtt_us << " us, " << callers;
        before = rate;
      }
    }
  }
}

TEST(ScaleModelTest, WhatComesAlsoGoesAndASeedIsARun) {
  const ClusterModel cluster = EvenCluster(5, 2, 200, 500);
  for (const bool read : {false, true}) {
    const LoadModel load = Callers(50, read, true);
    const SimulationResult one = Simulate(SomeCosts(), cluster, load, 10'000, 7);
    EXPECT_EQ(one.arrivals, 10'000u);
    EXPECT_EQ(one.completions, one.arrivals);
    EXPECT_EQ(one.p99_us, Simulate(SomeCosts(), cluster, load, 10'000, 7).p99_us);
    EXPECT_NE(one.mean_us, Simulate(SomeCosts(), cluster, load, 10'000, 8).mean_us);
    EXPECT_LE(one.p50_us, one.p99_us);
    EXPECT_LE(one.p99_us, one.p999_us);
    // Little: what is under way is the rate times its time.
    EXPECT_THAT(one.rate * one.mean_us / 1e6, DoubleNear(50, 5));
  }
}

TEST(ScaleModelTest, TheSlowestOfThreeDoesNotHoldUpAWrite) {
  ClusterModel near = EvenCluster(3, 8, 100, 1000);
  ClusterModel one_far = near;
  one_far.rtt_us[0][2] = 80'000;
  EXPECT_THAT(Predict(SomeCosts(), one_far, Callers(1)).mean_us,
              DoubleNear(Predict(SomeCosts(), near, Callers(1)).mean_us, 1));
  EXPECT_LT(Simulate(SomeCosts(), one_far, Callers(1), 500, 1).mean_us, 4000);
  one_far.rtt_us[0][1] = 80'000;
  EXPECT_GT(Predict(SomeCosts(), one_far, Callers(1)).mean_us, 80'000);
  EXPECT_GT(Simulate(SomeCosts(), one_far, Callers(1), 500, 1).mean_us, 80'000);
}

TEST(ScaleModelTest, TheLowestCeilingIsNamed) {
  PathCosts costs = SomeCosts();
  costs.apply.op_us = 50;
  const Prediction slow_apply = Predict(costs, EvenCluster(3, 64, 20, 100), Callers(20'000));
  EXPECT_EQ(slow_apply.limit, "apply thread");
  EXPECT_THAT(slow_apply.resources.front().ceiling, DoubleNear(20'000, 1));
  EXPECT_EQ(Predict(SomeCosts(), EvenCluster(3, 1, 20, 100), Callers(20'000)).limit,
            "cores of the leader");
  EXPECT_EQ(Predict(SomeCosts(), EvenCluster(3, 64, 20, 80'000), Callers(10)).limit, "callers");
  LoadModel large = Callers(20'000);
  large.value_bytes = 1 << 20;
  EXPECT_THAT(Predict(SomeCosts(), EvenCluster(3, 64, 20, 100), large).limit, HasSubstr("disk"));
  // A learner is one more copy out of the leader.
  ClusterModel fed = EvenCluster(3, 2, 100, 100);
  const double before = Predict(SomeCosts(), fed, Callers(5000)).rate;
  fed.learners = 40;
  EXPECT_LT(Predict(SomeCosts(), fed, Callers(5000)).rate, before * 0.8);
}

// ---------------------------------------------------------------- crowds

TEST(FanOutTest, TheScarcestSetsTheNumberOfMembers) {
  const CrowdCosts costs{.event_us = 10, .mark_us = 10, .client_bytes = 50'000};
  const FanOut quiet = FanOutOf(costs, {.clients = 100'000, .changes_a_second = 0},
                                {.cores = 4, .busy = 0.5, .memory_bytes = 1e9});
  EXPECT_EQ(quiet.limit, "memory");
  EXPECT_EQ(quiet.members, 5);
  const FanOut busy = FanOutOf(costs, {.clients = 100'000, .changes_a_second = 99},
                               {.cores = 4, .busy = 0.5, .memory_bytes = 1e12});
  EXPECT_EQ(busy.limit, "cores");
  EXPECT_THAT(busy.a_member, DoubleNear(2000, 1e-6));
  EXPECT_EQ(busy.members, 50);
  EXPECT_THAT(busy.cores_used, DoubleNear(2, 1e-6));
}

StormModel SmallStorm(double copy_bytes) {
  StormModel storm;
  storm.clients = 3000;
  storm.members = 3;
  storm.longest_back_off = absl::Seconds(10);
  storm.classes = {{{.share = 0.1, .copy_bytes = copy_bytes},
                    {.share = 0.6, .copy_bytes = copy_bytes},
                    {.share = 0.3, .copy_bytes = copy_bytes}}};
  return storm;
}

TEST(StormTest, AllAreBackWithinTheLongestWaitWhenTheyCanGoOn) {
  const StormResult result = Storm({}, SmallStorm(0), 1);
  EXPECT_EQ(result.live, 3000u);
  EXPECT_EQ(result.asked, 3000u);
  EXPECT_LT(result.together.all, 11);
  EXPECT_EQ(result.live_at.back(), 3000);
}

TEST(StormTest, WholeCopiesAreRationedAuthFirstAndNobodyIsLost) {
  const StormResult result = Storm({}, SmallStorm(4e6), 1);
  EXPECT_EQ(result.live, 3000u);
  EXPECT_GT(result.asked, 3000u);
  // 12 GB at 128 MiB/s from each of three.
  EXPECT_GT(result.together.all, 12e9 / 3 / (128 << 20));
  EXPECT_LT(result.of_class[0].all, result.of_class[1].all);
  EXPECT_LT(result.of_class[1].all, result.of_class[2].all);
  EXPECT_EQ(result.together.all, Storm({}, SmallStorm(4e6), 1).together.all);
}

TEST(StormTest, AMemberTakesOnNoMoreThanItsAdmissionLets) {
  StormModel storm = SmallStorm(0);
  storm.limits.resumes_per_second = 100;
  const StormResult result = Storm({}, storm, 1);
  EXPECT_EQ(result.live, 3000u);
  EXPECT_GT(result.asked, 3000u);
  // A second's worth at once, then 100 a second at each of three.
  EXPECT_GT(result.together.all, 8);
}

}  // namespace
}  // namespace holdfast::bench
