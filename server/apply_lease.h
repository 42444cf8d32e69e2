// The commands about leases, executed. See apply_command.h for the rules.
//
// A lease that goes takes its keys along: in key order, in one revision of its own; a lease without
// keys uses none. Nothing here looks at a clock: that a lease's time is over is the leader's word,
// and only in the leader's own term.
#pragma once

#include "absl/status/statusor.h"
#include "holdfast/command.pb.h"
#include "server/apply_command.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

absl::StatusOr<ApplyResult> ApplyLeaseGrant(const command::v1::LeaseGrant& request,
                                            const ApplyContext& context,
                                            storage::MvccStore::Writer& writer);
absl::StatusOr<ApplyResult> ApplyLeaseRevoke(const command::v1::LeaseRevoke& request,
                                             const ApplyContext& context,
                                             storage::MvccStore::Writer& writer);
absl::StatusOr<ApplyResult> ApplyLeaseExpiry(const command::v1::LeaseExpiry& request,
                                             const ApplyContext& context,
                                             storage::MvccStore::Writer& writer);
absl::StatusOr<ApplyResult> ApplyLeaseCheckpoint(const command::v1::LeaseCheckpoint& request,
                                                 const ApplyContext& context,
                                                 storage::MvccStore::Writer& writer);

}  // namespace holdfast::server
