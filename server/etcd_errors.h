// etcd's errors: the exact texts are the contract, clients map them by string (docs/design:
// etcd-api section 9). The codes are the gRPC codes of the same number.
#pragma once

#include "absl/status/status.h"
#include <grpcpp/support/status.h>

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
absl::Status ErrNoLeader();
absl::Status ErrLeaderChanged();
absl::Status ErrTooManyRequests();
absl::Status ErrStopped();
absl::Status ErrTimeout();
absl::Status ErrTimeoutDueToLeaderFail();
absl::Status ErrTimeoutDueToConnectionLost();
absl::Status ErrCorrupt();
absl::Status ErrNoSpace();

// The same code and text on the wire.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace holdfast::server
