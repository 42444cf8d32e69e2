// Opens a port for gRPC, and says plainly why if that fails.
//
// gRPC alone would be content if one of several addresses behind a name could be bound, and tells
// no reason: so every address is tried with a plain socket first.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/url.h"

namespace holdfast::server {

// OK if all of them can be listened on now. `flag` names where they come from.
// FailedPrecondition: in use. PermissionDenied. NotFound: no such host or address here.
absl::Status CheckCanListen(std::string_view flag, const std::vector<Url>& urls);

enum class Callers { kClients, kPeers };

struct Listener {
  std::unique_ptr<grpc::Server> server;
  std::vector<Url> bound;  // port 0 replaced
};
struct ListenerOptions {
  std::string_view flag;
  std::vector<Url> urls;
  Callers callers = Callers::kClients;
  std::vector<grpc::Service*> services;  // outlive the listener
  size_t max_request_bytes = 0;          // clients only
  // Peers only: what their transport asks of the server (PeerTransport::ConfigureServer).
  std::function<void(grpc::ServerBuilder*)> configure_peers = nullptr;
};
absl::StatusOr<Listener> Listen(const ListenerOptions& options);

}  // namespace holdfast::server
