#include "bench/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <vector>

#include "bench/run_stats.h"

namespace holdfast::bench {
namespace {

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kSecond = 1000 * kMs;

// One server that serves calls in order, on virtual time. While `stalled` says so at the moment
// at which a call would begin, the call waits.
class FakeServer {
 public:
  FakeServer(int64_t service_ns, std::function<int64_t(int64_t)> stalled_until)
      : service_ns_(service_ns), stalled_until_(std::move(stalled_until)) {}

  void Send(uint32_t slot, int64_t now_ns) {
    const int64_t begin_ns = stalled_until_(std::max(now_ns, busy_until_ns_));
    busy_until_ns_ = begin_ns + service_ns_;
    calls_.push_back({slot, busy_until_ns_});
  }
  bool Idle() const { return calls_.empty(); }
  int64_t NextEndNs() const { return calls_.empty() ? kNever : calls_.front().second; }
  uint32_t Pop() {
    const uint32_t slot = calls_.front().first;
    calls_.pop_front();
    return slot;
  }
  size_t InFlight() const { return calls_.size(); }

 private:
  const int64_t service_ns_;
  const std::function<int64_t(int64_t)> stalled_until_;
  int64_t busy_until_ns_ = 0;
  std::deque<std::pair<uint32_t, int64_t>> calls_;
};

int64_t NeverStalled(int64_t now_ns) { return now_ns; }

// Drives `schedule` against `server` until `until_ns` or the end; returns the most in flight.
size_t Simulate(Schedule& schedule, FakeServer& server, RunStats& stats,
                int64_t until_ns = kNever) {
  size_t most_in_flight = 0;
  std::vector<Issue> due;
  while (!schedule.Done()) {
    const int64_t now_ns = std::min(schedule.NextArrivalNs(), server.NextEndNs());
    if (now_ns >= until_ns) break;
    if (server.NextEndNs() == now_ns) {
      const uint32_t slot = server.Pop();
      stats.Record(OpKind::kPut, schedule.IntendedNs(slot), now_ns, Outcome{});
      const auto next = schedule.Complete(slot, false, now_ns);
      if (next.has_value()) server.Send(next->slot, now_ns);
    } else {
      due.clear();
      schedule.Arrive(now_ns, due);
      for (const Issue& issue : due) server.Send(issue.slot, now_ns);
    }
    most_in_flight = std::max(most_in_flight, server.InFlight());
  }
  stats.AddBacklog(schedule.backlog());
  return most_in_flight;
}

TEST(ClosedScheduleTest, EveryClientHasOneCallInFlightAndTheTotalIsExact) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = kNever, .total = 1000};
  const auto schedule = NewClosedSchedule(7, window);
  FakeServer server(kMs, NeverStalled);
  RunStats stats(window);
  EXPECT_EQ(Simulate(*schedule, server, stats), 7u);
  EXPECT_EQ(stats.ok(), 1000u);
  EXPECT_TRUE(server.Idle());
  // One server at 1 ms a call, seven waiting clients.
  EXPECT_NEAR(stats.Throughput(), 1000, 10);
  EXPECT_NEAR(stats.latency(OpKind::kPut).mean_ns(), 7e6, 1e5);
}

TEST(ClosedScheduleTest, TheWarmUpIsNotMeasured) {
  const Window window = {.start_ns = 0, .begin_ns = kSecond, .end_ns = 3 * kSecond};
  const auto schedule = NewClosedSchedule(1, window);
  // Slow in the first second alone.
  FakeServer server(kMs, [](int64_t now) { return now < kSecond ? now + 50 * kMs : now; });
  RunStats stats(window);
  Simulate(*schedule, server, stats);
  EXPECT_NEAR(double(stats.ok()), 2000, 60);
  EXPECT_EQ(stats.latency(OpKind::kPut).max_ns(), kMs);
  EXPECT_DOUBLE_EQ(stats.Seconds(), 2);
}

TEST(ClosedScheduleTest, AClientPausesAfterAnError) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = kSecond};
  const auto schedule = NewClosedSchedule(1, window);
  std::vector<Issue> due;
  schedule->Arrive(0, due);
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(schedule->Complete(0, /*failed=*/true, 5 * kMs), std::nullopt);
  EXPECT_FALSE(schedule->Done());
  EXPECT_EQ(schedule->NextArrivalNs(), 5 * kMs + kErrorPauseNs);
  due.clear();
  schedule->Arrive(5 * kMs + kErrorPauseNs - 1, due);
  EXPECT_TRUE(due.empty());
  schedule->Arrive(5 * kMs + kErrorPauseNs, due);
  ASSERT_EQ(due.size(), 1u);
  EXPECT_EQ(due[0].intended_ns, 5 * kMs + kErrorPauseNs);
}

TEST(ClosedScheduleTest, StopLetsCallsInFlightEnd) {
  const auto schedule = NewClosedSchedule(2, Window{});
  std::vector<Issue> due;
  schedule->Arrive(0, due);
  schedule->Stop();
  EXPECT_FALSE(schedule->Done());
  EXPECT_EQ(schedule->Complete(0, false, 1), std::nullopt);
  EXPECT_EQ(schedule->Complete(1, true, 1), std::nullopt);
  EXPECT_TRUE(schedule->Done());
}

// The heart of the open loop. The server stalls for one second of ten; at 1000 arrivals a second
// a thousand calls are late, by half a second on average: ten per cent of all. A closed loop with
// the same stall has one slow call for each client and reports a splendid p99.
TEST(OpenScheduleTest, AStallIsSeenByAllThatShouldHaveBeenSentDuringIt) {
  const auto stall = [](int64_t now) {
    return now >= 2 * kSecond && now < 3 * kSecond ? 3 * kSecond : now;
  };
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = 10 * kSecond};

  RunStats open_stats(window);
  FakeServer open_server(kMs / 10, stall);
  const auto open = NewOpenSchedule({.clients = 4, .rate = 1000}, window);
  EXPECT_EQ(Simulate(*open, open_server, open_stats), 4u);
  const LatencyHistogram& open_latency = open_stats.latency(OpKind::kPut);
  EXPECT_EQ(open_stats.ok(), 10'000u);
  EXPECT_NEAR(double(open_latency.max_ns()), 1e9, 5e6);
  EXPECT_GT(open_latency.QuantileNs(0.95), 300 * kMs);
  EXPECT_LT(open_latency.QuantileNs(0.5), kMs);
  // Arrivals in the stall, less the clients' own; some more wait while the backlog drains.
  EXPECT_NEAR(double(open_stats.backlog().max), 1000, 10);
  EXPECT_EQ(open_stats.backlog().dropped, 0u);

  RunStats closed_stats(window);
  FakeServer closed_server(kMs / 10, stall);
  const auto closed = NewClosedSchedule(4, window);
  Simulate(*closed, closed_server, closed_stats);
  EXPECT_LT(closed_stats.latency(OpKind::kPut).QuantileNs(0.99), kMs);
}

TEST(OpenScheduleTest, ArrivalsAreEvenAndDoNotDrift) {
  const Window window = {.start_ns = 77, .begin_ns = 77, .end_ns = kNever, .total = 30'001};
  const auto schedule = NewOpenSchedule({.clients = 1, .rate = 3000}, window);
  int64_t last_ns = 0;
  std::vector<Issue> due;
  for (int i = 0; schedule->NextArrivalNs() != kNever; ++i) {
    last_ns = schedule->NextArrivalNs();
    ASSERT_NEAR(double(last_ns), 77 + i * 1e9 / 3000, 2);
    due.clear();
    schedule->Arrive(last_ns, due);
    ASSERT_EQ(due.size(), 1u);
    EXPECT_EQ(schedule->Complete(due[0].slot, false, last_ns), std::nullopt);
  }
  EXPECT_NEAR(double(last_ns), 77 + 10.0 * kSecond, 2);
  EXPECT_TRUE(schedule->Done());
}

TEST(OpenScheduleTest, TwoWorkersInterleave) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = kSecond};
  const auto first = NewOpenSchedule({.clients = 1, .rate = 50, .phase = 0}, window);
  const auto second = NewOpenSchedule({.clients = 1, .rate = 50, .phase = 0.5}, window);
  EXPECT_EQ(first->NextArrivalNs(), 0);
  EXPECT_EQ(second->NextArrivalNs(), 10 * kMs);
}

TEST(OpenScheduleTest, PoissonGapsHaveTheRightMeanAndSpread) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = kNever, .total = 50'000};
  const auto schedule =
      NewOpenSchedule({.clients = 1, .rate = 1000, .poisson = true, .seed = 5}, window);
  int64_t last_ns = 0;
  double sum_ms = 0;
  double squares = 0;
  std::vector<Issue> due;
  int arrivals = 0;
  for (; schedule->NextArrivalNs() != kNever; ++arrivals) {
    const double gap_ms = double(schedule->NextArrivalNs() - last_ns) / kMs;
    last_ns = schedule->NextArrivalNs();
    sum_ms += gap_ms;
    squares += gap_ms * gap_ms;
    due.clear();
    schedule->Arrive(last_ns, due);
    for (const Issue& issue : due) schedule->Complete(issue.slot, false, last_ns);
  }
  EXPECT_EQ(arrivals, 50'000);
  const double mean = sum_ms / arrivals;
  EXPECT_NEAR(mean, 1, 0.03);
  // Of exponential gaps, standard deviation and mean are the same.
  EXPECT_NEAR(std::sqrt(squares / arrivals - mean * mean), 1, 0.05);
}

TEST(OpenScheduleTest, TheBacklogIsBoundedAndWhatIsLostIsCounted) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = kSecond};
  const auto schedule = NewOpenSchedule({.clients = 2, .rate = 1000, .max_backlog = 100}, window);
  std::vector<Issue> due;
  schedule->Arrive(kSecond, due);  // a server that answers nothing
  EXPECT_EQ(due.size(), 2u);
  EXPECT_EQ(schedule->NextArrivalNs(), kNever);
  EXPECT_EQ(schedule->backlog().max, 100u);
  EXPECT_EQ(schedule->backlog().dropped, 1000u - 100 - 2);
  // A call ends: the oldest of the backlog follows, late by its whole wait.
  const auto next = schedule->Complete(due[0].slot, false, kSecond);
  ASSERT_TRUE(next.has_value());
  EXPECT_EQ(next->intended_ns, 2 * kMs);
  schedule->Stop();
  EXPECT_EQ(schedule->backlog().not_sent, 99u);
  EXPECT_FALSE(schedule->Done());
  schedule->Complete(0, false, kSecond);
  schedule->Complete(1, false, kSecond);
  EXPECT_TRUE(schedule->Done());
}

}  // namespace
}  // namespace holdfast::bench
