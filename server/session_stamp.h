// A write's stamp, as its metadata has it (kv_service.h; docs/sessions.md).
//
// Threads: any (pure functions).
#pragma once

#include <optional>
#include <string_view>

#include <grpcpp/server_context.h>

#include "absl/status/statusor.h"
#include "holdfast/command.pb.h"

namespace holdfast::server {

// <session hex>-<sequence>-<lowest unacknowledged>-<digest hex>, as in "5f3a-17-16-9c01".
// InvalidArgument: not of this form, or of numbers that no session could have.
absl::StatusOr<command::v1::SessionStamp> ParseSessionStamp(std::string_view text);

// The same for one that came as a message.
absl::Status CheckSessionStamp(const command::v1::SessionStamp& stamp);

// nullopt: the caller sent none. InvalidArgument: malformed, or more than one.
absl::StatusOr<std::optional<command::v1::SessionStamp>> SessionStampOf(
    const grpc::CallbackServerContext& context);

}  // namespace holdfast::server
