// holdfast-sim: whole clusters under faults, by seed, in virtual time.
//
// Exit code 0: every promise was kept. 1: one was broken, or a whole batch never met a kind of
// trouble that it is there for. 2: wrong flags.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/log.h"
#include "base/rng.h"
#include "runner.h"
#include "sim_options.h"

namespace holdfast::sim {
namespace {

constexpr uint64_t kSmallSeeds = 1'000'000'000'000;  // a seed is to be read out and typed

struct Flags {
  uint64_t seed = 0;
  uint64_t first = 0;
  uint64_t count = 0;
  double minutes = 0;
  uint64_t recovery_ms = UINT64_MAX;
  unsigned jobs = 1;
  bool trace = false;
  bool until_failure = false;
  bool log = false;
};

int Run(const Flags& flags) {
  if (!flags.log) spdlog::set_level(spdlog::level::off);
  Batch batch;
  batch.until_failure = flags.until_failure;
  batch.trace = flags.trace;
  batch.recovery_ms = flags.recovery_ms;
  if (flags.seed != 0) {
    batch.first_seed = flags.seed;
    batch.count = 1;
    fmt::print("{}\n", SimOptions::FromSeed(flags.seed).ToString());
  } else {
    batch.first_seed = flags.first != 0 ? flags.first : 1 + base::RandomSeed() % kSmallSeeds;
    batch.seconds = flags.minutes * 60;
    if (flags.count != 0) batch.count = flags.count;
    if (flags.count == 0 && flags.minutes == 0 && !flags.until_failure) batch.count = 200;
    fmt::print("seeds from {} on\n", batch.first_seed);
  }
  std::fflush(stdout);
  const BatchResult result = RunBatches(batch, flags.seed != 0 ? 1 : flags.jobs);
  fmt::print("{}\n", result.figures.ToString(result.seconds, result.processor_seconds));
  const std::vector<std::string> missing = MissingFigures(result);
  if (!missing.empty()) {
    fmt::print("FAILED: never met: {}\n", fmt::join(missing, ", "));
  }
  if (result.failed.empty()) {
    fmt::print("{} seeds, no violation\n", result.seeds);
    return missing.empty() ? 0 : 1;
  }
  fmt::print("{}{} of {} seeds failed: {}\n", result.report, result.failed.size(), result.seeds,
             fmt::join(result.failed, " "));
  return 1;
}

}  // namespace
}  // namespace holdfast::sim

int main(int argc, char** argv) {
  holdfast::sim::Flags flags;
  CLI::App app("Whole Holdfast clusters under faults, by seed, in virtual time.");
  app.add_option("--seed", flags.seed, "only this seed, once (every 20th: twice)");
  app.add_option("--first", flags.first, "begin with this seed; default: a random one");
  app.add_option("--count", flags.count, "how many seeds; default 200 without --minutes");
  app.add_option("--minutes", flags.minutes, "for how long")->check(CLI::NonNegativeNumber);
  app.add_option("--jobs", flags.jobs, "processes at once")->check(CLI::Range(1, 64));
  app.add_option("--recovery-ms", flags.recovery_ms, "a slower recovery is a failure, to look at");
  app.add_flag("--until-failure", flags.until_failure, "stop at the first seed that fails");
  app.add_flag("--trace", flags.trace, "tell the story on stderr");
  app.add_flag("--log", flags.log, "show the members' own log lines");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  return holdfast::sim::Run(flags);
}
