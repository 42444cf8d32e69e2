// What a read asks for in its metadata, and what its answer says of its age (kv_service.h lists the
// keys).
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <optional>

#include <grpcpp/server_context.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace holdfast::server {

struct ReadTerms {
  std::optional<absl::Duration> max_age;
  int64_t min_revision = 0;
};

// InvalidArgument: a value that is no such number.
absl::StatusOr<ReadTerms> ParseReadTerms(const grpc::CallbackServerContext& context);

// True if the caller sent `hasleader: true`.
bool WantsLeader(const grpc::CallbackServerContext& context);

// How long the caller still waits; infinite without a deadline.
absl::Duration TimeLeft(const grpc::CallbackServerContext& context);

// `age`: nullopt if unknown. Before Finish.
void AddFreshness(grpc::CallbackServerContext* context, std::optional<absl::Duration> age,
                  bool is_leader);

// Which incarnation of the cluster answers. 0 (none yet): nothing is added. Before Finish.
void AddIncarnation(grpc::CallbackServerContext* context, uint64_t incarnation);

// Whole milliseconds, never less than the age.
int64_t RoundUpToMs(absl::Duration age);

// FailedPrecondition, with what the caller can do.
absl::Status TooStale(std::optional<absl::Duration> age, absl::Duration max_age);
absl::Status Behind(int64_t revision, int64_t min_revision);

}  // namespace holdfast::server
