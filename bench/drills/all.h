// The drills themselves: see registry.cc and docs/drills.md.
#pragma once

#include "absl/status/status.h"
#include "bench/drills/drill_run.h"

namespace holdfast::bench {

absl::Status LeaderKilled(DrillRun& run);
absl::Status QuorumLost(DrillRun& run);
absl::Status AllGone(DrillRun& run);
absl::Status ColdStart(DrillRun& run);
absl::Status Reboot(DrillRun& run);
absl::Status DeposedLeader(DrillRun& run);
absl::Status Paused(DrillRun& run);
absl::Status BadConfig(DrillRun& run);
absl::Status Revoked(DrillRun& run);
absl::Status Herd(DrillRun& run);
absl::Status HalfOpen(DrillRun& run);
absl::Status AlwaysUnavailable(DrillRun& run);
absl::Status Restore(DrillRun& run);
absl::Status DiskDamage(DrillRun& run);
absl::Status Fork(DrillRun& run);
absl::Status June12(DrillRun& run);
absl::Status November18(DrillRun& run);

}  // namespace holdfast::bench
