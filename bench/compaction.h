// holdfast-bench compaction: how do puts fare while much history is compacted away?
//
// Twice: --revisions versions of keys are written, a load of puts begins, and after --duration the
// history is compacted at the head: first with a Compact that answers once the compaction is agreed
// on, then with one that waits until it is done (`physical`). The puts before, during and after it
// are told apart. "During" lasts until the answer and at least for --duration, since a server goes
// on with its work behind the answer of the first kind.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// Not passed if a Compact failed. Progress goes to stderr.
absl::StatusOr<BenchReport> CompactionBench(const Options& options,
                                            const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
