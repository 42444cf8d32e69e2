// The simulator in CI: a fixed set of seeds, and fresh ones, whose first is printed.
// HOLDFAST_SIM_SEEDS: how many of each.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "base/log.h"
#include "base/rng.h"
#include "runner.h"

namespace holdfast::sim {
namespace {

constexpr uint64_t kDefaultSeeds = 500;

uint64_t SeedCount() {
  const char* value = std::getenv("HOLDFAST_SIM_SEEDS");
  return value == nullptr ? kDefaultSeeds : std::strtoull(value, nullptr, 10);
}

void ExpectNoViolation(uint64_t first_seed) {
  spdlog::set_level(spdlog::level::off);
  Batch batch;
  batch.first_seed = first_seed;
  batch.count = SeedCount();
  batch.quiet = true;
  std::cout << "seeds from " << first_seed << " on" << std::endl;
  const BatchResult result = RunBatch(batch);
  EXPECT_TRUE(result.failed.empty()) << result.report;
  for (const std::string& name : MissingFigures(result)) {
    ADD_FAILURE() << "never met: " << name;
  }
  std::cout << result.figures.ToString(result.seconds, result.processor_seconds) << std::endl;
}

TEST(Simulation, KeepsEveryPromiseOnTheFixedSeeds) { ExpectNoViolation(1); }

TEST(Simulation, KeepsEveryPromiseOnFreshSeeds) {
  ExpectNoViolation(1'000'000 + base::RandomSeed() % 1'000'000'000);
}

}  // namespace
}  // namespace holdfast::sim
