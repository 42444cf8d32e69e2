// gRPC servers: what a port for clients or for peers allows, and the plain way to open one.
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
#include "server/listen_socket.h"
#include "server/url.h"

namespace holdfast::server {

// What a request may be larger than --max-request-bytes, as etcd's: so that one a little too large
// gets etcd's own refusal.
inline constexpr size_t kMessageOverheadBytes = 512 * 1024;

// Limits, keepalive and health service of a server for clients.
// REQUIRES: PrepareClientBuilder() was called before the builder was made.
void PrepareClientBuilder();
void ConfigureClientServer(size_t max_request_bytes, grpc::ServerBuilder* builder);

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
// gRPC and nothing else. Clients that may also speak HTTP/1.1: server/client_port.h.
absl::StatusOr<Listener> Listen(const ListenerOptions& options);

}  // namespace holdfast::server
