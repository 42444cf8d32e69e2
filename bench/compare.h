// holdfast-bench compare: Holdfast, by its client library (native) and by etcd's unary API, and
// etcd, side by side on this machine.
//
// The targets take turns and only one cluster runs at a time, so that a slow hour of the machine or
// of its disk hits all, and none takes CPU from another; who comes first goes round from run to
// run. Every turn starts from empty data directories. Memory is compared in turns of its own.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/goals.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

std::string TargetName(Target target);  // "holdfast native", "holdfast unary", "etcd"

// One thing that a turn measures.
struct Step {
  Workload workload = {};
  std::optional<Probe> probe = std::nullopt;  // it is one of the goals'
  uint32_t clients = 0;
  bool exactly_once = false;
};
// In their order: reads first, for they leave no compaction behind.
std::vector<Step> StepsOf(const Options& options, Target target);
// The targets of one run, in the order of their turns.
std::vector<Target> TurnsOf(const Options& options, uint32_t run);

// Progress goes to stderr. A side that fails ends it.
absl::StatusOr<BenchReport> Compare(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
