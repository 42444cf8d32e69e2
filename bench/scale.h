// holdfast-bench scale: what does a server cost, and how fast is it, at growing numbers of keys?
//
// For each size in turn a fresh cluster is loaded. Then, once it is quiet: memory of each member,
// puts and gets on uniform keys in a closed loop, a range read in one and in pages, the count of
// all keys, disk, and how soon a member serves again after a stop and after a kill. Sizes are
// compared with the first one of the same side.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// What a cluster of `members` needs on the disk for `keys`, its peak while loading included.
uint64_t ScaleDiskBytes(uint64_t keys, int members, size_t pair_bytes);
// ResourceExhausted, with both figures, if less is free where `root` (empty: the temp dir) lies.
absl::Status CheckDiskSpace(uint64_t needed_bytes, const std::string& root);

// What became of the figures of the first table in the later ones ("puts at 1000000 keys: 0.97 of
// those at 100000: within 20 %"). Pure.
std::vector<std::string> ScaleNotes(const std::vector<Table>& tables);

// Progress goes to stderr. When --time-limit is over, the report has the sizes that were done, and
// is not passed.
absl::StatusOr<BenchReport> ScaleBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
