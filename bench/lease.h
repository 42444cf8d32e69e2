// holdfast-bench lease: many leases, from their grant to their end.
//
//   grant      --leases of a long TTL, --clients calls in flight; the leader's memory before and
//              after, and the CPU of servers that only hold them
//   attach     a key for a share of them
//   keep-alive over --streams for --duration, a closed loop
//   expire     --expire leases of a short TTL, a key each: how late are the keys gone (a watch
//              tells), and how do other puts fare meanwhile?
//   revoke     some of the first, with their keys
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

// Not passed if a key went before its lease's TTL was over, or did not go at all. Progress goes to
// stderr.
absl::StatusOr<BenchReport> LeaseBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
