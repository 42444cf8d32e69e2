#include "bench/scale.h"

namespace holdfast::bench {

absl::StatusOr<BenchReport> ScaleBench(const Options& options, const std::atomic<bool>& cancelled) {
  return absl::UnimplementedError("not there yet");
}

}  // namespace holdfast::bench
