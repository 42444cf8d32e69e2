// holdfast-bench drill: see docs/drills.md.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// Runs what options.drill.names asks for, one after the other, each on a store of its own, and
// leaves a plot of each in options.drill.out. Not passed: a goal was missed, or a drill could not
// be carried out. InvalidArgument: an unknown name, or the directory cannot be made.
absl::StatusOr<BenchReport> RunDrills(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
