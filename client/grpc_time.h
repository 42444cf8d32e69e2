// Durations for gRPC. A timespan counts from now on the monotonic clock, so that a step of the wall
// clock moves no deadline.
#pragma once

#include <algorithm>

#include <grpc/support/time.h>
#include <grpcpp/support/time.h>

#include "absl/time/time.h"

namespace holdfast::internal {

// Longer than anything we wait for, and far from gRPC's overflow.
inline constexpr absl::Duration kLongestWait = absl::Hours(24);

inline gpr_timespec ToGrpcTimespan(absl::Duration d) {
  const absl::Duration clamped = std::clamp(d, absl::ZeroDuration(), kLongestWait);
  return gpr_time_from_micros(absl::ToInt64Microseconds(clamped), GPR_TIMESPAN);
}

}  // namespace holdfast::internal
