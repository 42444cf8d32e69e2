// holdfast-bench mirror: copies of a prefix in this process, and how well they keep up.
//
//   idle       --idle-rate puts a second, one mirror: put to visible
//   one        --rate, one mirror
//   many       --many-rate, first one mirror, then --mirrors of them, each a client of its own
//   large      a mirror of --large keys: loading it, its memory, then changes in a closed loop
//   disk       a mirror of --disk-bytes starts from its copy on disk while no server can be reached
//
// A change is visible when a reader of the mirror can see it; its latency counts from the moment
// when its put was due.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// Not passed if a mirror missed a change, or did not have what was loaded. Progress goes to stderr.
absl::StatusOr<BenchReport> MirrorBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
