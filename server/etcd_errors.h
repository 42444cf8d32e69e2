// etcd's errors: the exact texts are the contract, for etcd's clients map them by string (etcd's
// rpctypes). The codes are the gRPC codes of the same number; ToGrpc puts them on the wire.
#pragma once

#include "absl/status/status.h"
#include "server/grpc_status.h"

namespace holdfast::server {

absl::Status ErrEmptyKey();
absl::Status ErrKeyNotFound();
absl::Status ErrValueProvided();
absl::Status ErrLeaseProvided();
absl::Status ErrTooManyOps();
absl::Status ErrDuplicateKey();
absl::Status ErrInvalidSortOption();
absl::Status ErrRequestTooLarge();
absl::Status ErrCompacted();
absl::Status ErrFutureRev();
absl::Status ErrLeaseNotFound();
absl::Status ErrLeaseExist();
absl::Status ErrLeaseTtlTooLarge();
absl::Status ErrNoLeader();
absl::Status ErrLeaderChanged();
absl::Status ErrTooManyRequests();
absl::Status ErrStopped();
absl::Status ErrTimeout();
absl::Status ErrTimeoutDueToLeaderFail();
absl::Status ErrTimeoutDueToConnectionLost();
absl::Status ErrCorrupt();
absl::Status ErrNoSpace();

// Of the Cluster service and MoveLeader.
absl::Status ErrMemberExist();
absl::Status ErrPeerUrlExist();
absl::Status ErrMemberNotEnoughStarted();
absl::Status ErrMemberBadUrls();
absl::Status ErrMemberNotFound();
absl::Status ErrMemberNotLearner();
absl::Status ErrLearnerNotReady();
absl::Status ErrTooManyLearners();
absl::Status ErrUnhealthy();
absl::Status ErrNotLeader();
absl::Status ErrBadLeaderTransferee();
absl::Status ErrTimeoutLeaderTransfer();

// Of Downgrade.
absl::Status ErrWrongDowngradeVersionFormat();
absl::Status ErrInvalidDowngradeTargetVersion();
absl::Status ErrDowngradeInProcess();
absl::Status ErrNoInflightDowngrade();
absl::Status ErrUnknownMethod();  // etcd has no gRPC code for it: Unknown

}  // namespace holdfast::server
