// What a call that is made for somebody takes over from that caller's own call.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include "absl/status/status.h"

namespace holdfast::server {

struct CallerTerms {
  // Who the caller is, and whether he wants a leader: etcd's keys `token`, `authorization`,
  // `hasleader` and `client-api-version`, as they came.
  std::vector<std::pair<std::string, std::string>> metadata;
  std::chrono::system_clock::time_point deadline = std::chrono::system_clock::time_point::max();

  static CallerTerms Of(const grpc::CallbackServerContext& context);

  bool wants_leader() const;
  // For a call that must be made although the caller has gone: his identity alone.
  CallerTerms Detached() const;
  // A context for one inner call, which ends by the caller's deadline and after `max` at most;
  // max <= 0: by the deadline alone.
  std::shared_ptr<grpc::ClientContext> NewContext(std::chrono::milliseconds max) const;
};

// Why the call of `context` was cancelled: its deadline has passed, or the caller went.
absl::Status WhyCancelled(const grpc::CallbackServerContext& context);

}  // namespace holdfast::server
