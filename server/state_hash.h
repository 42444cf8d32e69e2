// The numbers that Maintenance.Hash and HashKV answer with.
//
// What they promise: members with the same state give the same number, whatever lies on their
// disks; members with another one almost surely another. What they are not: etcd's numbers, which
// are checksums of etcd's own file format (docs/maintenance.md).
//
// A CRC-32C over every live record of the revision that is asked for, in key order, each field with
// its length; HashState also has the state machine's own records (members, leases, alarms) in it.
// Threads: any; both scan everything, one record in memory at a time.
#pragma once

#include <atomic>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

// Asked every few records; true ends the scan with Cancelled.
using StopScan = absl::FunctionRef<bool()>;

// Errors: ErrCompacted, ErrFutureRev (etcd_errors.h), and the store's.
// `revision` 0: the view's newest.
absl::StatusOr<uint32_t> HashRecords(const storage::MvccStore::View& view, int64_t revision,
                                     StopScan stop);
absl::StatusOr<uint32_t> HashState(const storage::MvccStore::View& view, StopScan stop);

}  // namespace holdfast::server
