// Whole clusters under faults, by seed. HOLDFAST_SEEDS: how many; HOLDFAST_SEED: only this one
// (HOLDFAST_SIM_TRACE=1 then tells the story).
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "cluster.h"

namespace holdfast::raft::test {
namespace {

constexpr uint64_t kDefaultSeeds = 2000;

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* value = std::getenv(name);
  return value == nullptr ? fallback : std::strtoull(value, nullptr, 10);
}

uint64_t RunSeed(uint64_t seed, Figures& figures) {
  NameSeedOnAbort(seed);
  const SimOptions options = SimOptions::FromSeed(seed);
  Cluster cluster(options);
  EXPECT_TRUE(cluster.RunSteps() && cluster.Recover())
      << cluster.failure() << "\nreplay: HOLDFAST_SEED=" << seed
      << " raft_test --gtest_filter=RaftSimulation.*\n"
      << options.ToString();
  figures.Add(cluster.figures());
  return cluster.Digest();
}

void ExpectEverythingHappened(const Figures& f) {
  EXPECT_GT(f.elections, 0u);
  EXPECT_GT(f.commits, 0u);
  EXPECT_GT(f.refused, 0u);
  EXPECT_GT(f.reads_granted, 0u);
  EXPECT_GT(f.follower_reads, 0u);
  EXPECT_GT(f.reads_dropped, 0u);
  EXPECT_GT(f.claims, 0u);
  EXPECT_GT(f.claims_checked, 0u);
  EXPECT_GT(f.claims_restored, 0u);
  EXPECT_GT(f.leader_claims, 0u);
  EXPECT_GT(f.crashes, 0u);
  EXPECT_GT(f.pauses, 0u);
  EXPECT_GT(f.cuts, 0u);
  EXPECT_GT(f.lost, 0u);
  EXPECT_GT(f.duplicated, 0u);
  EXPECT_GT(f.snapshots_installed, 0u);
  EXPECT_GT(f.half_installed, 0u);
  EXPECT_GT(f.compactions, 0u);
  EXPECT_GT(f.fetches, 0u);
  EXPECT_GT(f.truncations, 0u);
  EXPECT_GT(f.commit_hints, 0u);
  EXPECT_GT(f.transfers, 0u);
}

TEST(RaftSimulation, KeepsEveryPromiseUnderFaults) {
  const uint64_t only = FromEnvironment("HOLDFAST_SEED", 0);
  const uint64_t first = only != 0 ? only : 1;
  const uint64_t last = only != 0 ? only : FromEnvironment("HOLDFAST_SEEDS", kDefaultSeeds);
  Figures figures;
  for (uint64_t seed = first; seed <= last && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RunSeed(seed, figures);
  }
  std::cout << figures.ToString() << std::endl;
  if (only == 0 && last >= 200) ExpectEverythingHappened(figures);
}

TEST(RaftSimulation, TheSameSeedGivesTheSameRun) {
  Figures figures;
  for (const uint64_t seed : {3, 77, 1001, 123456, 9999999}) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    EXPECT_EQ(RunSeed(seed, figures), RunSeed(seed, figures));
  }
}

}  // namespace
}  // namespace holdfast::raft::test
