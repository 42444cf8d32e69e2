// How much history automatic compaction keeps (server/compactor.h), and etcd's two flags for it.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace holdfast::server {

struct CompactionPolicy {
  enum class Mode { kDefault, kOff, kPeriodic, kRevision };
  static constexpr absl::Duration kDefaultPeriod = absl::Minutes(15);
  static constexpr int64_t kDefaultRevisions = 100'000;
  // A tenth of it is the distance of two looks at the clock; and the samples of a longer one would
  // only take memory.
  static constexpr absl::Duration kPeriodMin = absl::Seconds(1);
  static constexpr absl::Duration kPeriodMax = absl::Hours(24 * 366);

  Mode mode = Mode::kDefault;
  absl::Duration period = kDefaultPeriod;  // of kPeriodic, and of the default
  int64_t revisions = kDefaultRevisions;   // of kRevision, and of the default
  friend bool operator==(const CompactionPolicy&, const CompactionPolicy&) = default;
};

// As etcd reads --auto-compaction-mode and --auto-compaction-retention: a whole number is hours
// (periodic) or revisions (revision), anything else a duration as Go writes it; 0 is off. Empty:
// the flag was not given. InvalidArgument: a text for the operator.
absl::StatusOr<CompactionPolicy> ParseCompactionPolicy(std::string_view mode,
                                                       std::string_view retention);

}  // namespace holdfast::server
