// holdfast-bench compare: Holdfast and etcd side by side on this machine.
//
// The sides take turns (A, B, A, B...) and only one cluster runs at a time, so that a slow hour of
// the machine or of its disk hits both, and neither takes CPU from the other. Every turn starts
// from an empty data directory.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/statusor.h"
#include "bench/options.h"

namespace holdfast::bench {

// Returns the report; progress goes to stderr.
absl::StatusOr<std::string> Compare(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
