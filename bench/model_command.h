// holdfast-bench model: the tables and figures of docs/scaling.md, computed.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// Needs no cluster. With --out, writes scaling-*.svg (and .png) there.
absl::StatusOr<BenchReport> ModelBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
