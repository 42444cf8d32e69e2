#include "bench/run_stats.h"

#include <gtest/gtest.h>

namespace holdfast::bench {
namespace {

constexpr int64_t kMs = 1'000'000;

Outcome Failure(int code, const std::string& message) {
  return {.code = code, .message = message, .found = true, .bytes = 0};
}

TEST(RunStatsTest, OnlyTheWindowIsMeasured) {
  RunStats stats({.start_ns = 0, .begin_ns = 100 * kMs, .end_ns = 200 * kMs});
  stats.Record(OpKind::kGet, 90 * kMs, 95 * kMs, {});    // warm-up
  stats.Record(OpKind::kGet, 99 * kMs, 101 * kMs, {});   // ends inside: throughput alone
  stats.Record(OpKind::kGet, 150 * kMs, 152 * kMs, {});  // inside
  stats.Record(OpKind::kGet, 199 * kMs, 205 * kMs, {});  // starts inside: latency alone
  stats.Record(OpKind::kGet, 200 * kMs, 205 * kMs, {});  // behind
  EXPECT_EQ(stats.latency(OpKind::kGet).count(), 2u);
  EXPECT_EQ(stats.latency(OpKind::kGet).max_ns(), 6 * kMs);
  EXPECT_EQ(stats.CompletedInWindow(), 2u);
  EXPECT_DOUBLE_EQ(stats.Throughput(), 20);
}

TEST(RunStatsTest, AWindowWithoutEndEndsWithTheLastCompletion) {
  RunStats stats({.start_ns = 0, .begin_ns = 100 * kMs, .end_ns = kNever, .total = 2});
  stats.Record(OpKind::kPut, 99 * kMs, 101 * kMs, {});
  stats.Record(OpKind::kPut, 101 * kMs, 110 * kMs, {});
  stats.Record(OpKind::kPut, 110 * kMs, 600 * kMs, {});
  EXPECT_DOUBLE_EQ(stats.Seconds(), 0.5);
  EXPECT_DOUBLE_EQ(stats.Throughput(), 4);
}

TEST(RunStatsTest, ErrorsAreCountedByCodeAndHaveNoLatency) {
  RunStats stats(Window{});
  stats.Record(OpKind::kPut, 0, 5, Failure(14, "first"));
  stats.Record(OpKind::kPut, 0, 5, Failure(14, "second"));
  stats.Record(OpKind::kPut, 0, 5, Failure(4, "late"));
  stats.Record(OpKind::kPut, 0, 5, {});
  EXPECT_EQ(stats.ok(), 1u);
  EXPECT_EQ(stats.failed(), 3u);
  EXPECT_EQ(stats.errors().at(14).count, 2u);
  EXPECT_EQ(stats.errors().at(14).example, "first");
  EXPECT_EQ(stats.errors().at(4).count, 1u);
}

TEST(RunStatsTest, MergeAddsEverything) {
  const Window window = {.start_ns = 0, .begin_ns = 0, .end_ns = 1000 * kMs};
  RunStats a(window);
  RunStats b(window);
  a.Record(OpKind::kGet, 0, kMs, {.code = 0, .message = {}, .found = false, .bytes = 10});
  b.Record(OpKind::kGet, 0, kMs, {.code = 0, .message = {}, .found = false, .bytes = 0});
  b.Record(OpKind::kPut, 0, 3 * kMs, {.code = 0, .message = {}, .found = true, .bytes = 32});
  b.Record(OpKind::kPut, 0, kMs, Failure(8, "full"));
  a.AddBacklog({.max = 1, .dropped = 2, .not_sent = 3});
  b.AddBacklog({.max = 10, .dropped = 20, .not_sent = 30});
  a.Merge(b);
  EXPECT_EQ(a.ok(), 3u);
  EXPECT_EQ(a.failed(), 1u);
  EXPECT_EQ(a.errors().at(8).example, "full");
  EXPECT_EQ(a.not_found(), 2u);
  EXPECT_EQ(a.bytes(), 42u);
  EXPECT_EQ(a.CompletedInWindow(), 4u);
  EXPECT_DOUBLE_EQ(a.Throughput(), 3);
  EXPECT_EQ(a.AllLatencies().count(), 3u);
  EXPECT_EQ(a.AllLatencies().max_ns(), 3 * kMs);
  EXPECT_EQ(a.backlog().max, 11u);
  EXPECT_EQ(a.backlog().dropped, 22u);
  EXPECT_EQ(a.backlog().not_sent, 33u);
}

}  // namespace
}  // namespace holdfast::bench
