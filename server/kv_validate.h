// What is wrong with a request on its face: checked at the member that takes it, before anything is
// proposed, in etcd's order and with etcd's texts. What depends on the data (leases, ignore_value
// on a missing key, revisions) is checked at apply, by apply_command.
//
// Never repeated at apply: `max_txn_ops` is a member's own setting, and members must not disagree
// about a committed entry.
// Threads: any (pure functions).
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "etcd/rpc.pb.h"

namespace holdfast::server {

// How deep transactions may nest; a transaction with none inside has depth 1. Two reasons: no
// request may exhaust a stack, and a Command (one message deeper than the request) must stay below
// protobuf's parse limit of 100 levels on every member, at two levels a nesting: an entry that does
// not parse stops the cluster.
inline constexpr int kMaxTxnDepth = 32;

struct TxnLimits {
  // etcd's --max-txn-ops: the longest of compare, success and failure; a nested transaction gets
  // what its parent left.
  size_t max_ops = 128;
};

absl::Status CheckRange(const etcdserverpb::RangeRequest& request);
absl::Status CheckPut(const etcdserverpb::PutRequest& request);
absl::Status CheckDeleteRange(const etcdserverpb::DeleteRangeRequest& request);
// Also refuses what etcd takes and then answers arbitrarily: an unknown compare target or result.
absl::Status CheckTxn(const etcdserverpb::TxnRequest& request, const TxnLimits& limits);

// True if no operation of either branch, at any depth, writes: such a transaction is not proposed.
// REQUIRES: accepted by CheckTxn.
bool IsReadOnly(const etcdserverpb::TxnRequest& request);
// True if an operation of either branch, at any depth, is a put: as etcd counts what a transaction
// may add, whichever branch it will take.
bool Puts(const etcdserverpb::TxnRequest& request);
// True if there is a range and all of them ask for a serializable read. Unlike in etcd, one without
// any range (compares only) is not: nobody asked for a stale answer.
// REQUIRES: IsReadOnly(request).
bool IsSerializable(const etcdserverpb::TxnRequest& request);

}  // namespace holdfast::server
