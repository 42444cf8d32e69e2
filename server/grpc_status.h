// absl::Status on gRPC's wire and back: the same code, the same text.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace holdfast::server {

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace holdfast::server
