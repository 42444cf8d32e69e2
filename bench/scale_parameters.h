// The model's costs: fitted to what `holdfast-bench stages` measured, or those of this release.
// Pure. Threads: functions without state.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/scale_model.h"
#include "bench/stage_cost.h"

namespace holdfast::bench {

struct ScaleParameters {
  PathCosts unary_put = {}, unary_get = {};
  std::optional<PathCosts> native_put = {}, native_get = {};
  double fsync_us = 0;  // the measured disk's own wait, on the idle machine
  std::string source = {};
};

// cost = per operation + per batch / batch, by least squares of relative errors, neither below 0.
struct Line {
  double op = 0;
  double batch = 0;
};
struct LinePoint {
  double batches_per_op = 0;
  double cost = 0;
};
// One point alone is all per operation.
Line FitLine(const std::vector<LinePoint>& points);

// InvalidArgument if a needed workload has no point. Points of a second value size give the costs
// of a byte.
absl::StatusOr<ScaleParameters> FitParameters(const std::vector<StagePoint>& points);
// Reads files of `stages -w json`, all their points together.
absl::StatusOr<std::vector<StagePoint>> ReadStages(const std::vector<std::string>& files);
ScaleParameters BuiltInParameters();

}  // namespace holdfast::bench
