#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

absl::StatusOr<BenchReport> ScaleBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
