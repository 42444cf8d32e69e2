// The composition root: one member, from its configuration to its open ports.
//
// Order of start: data directory (lock, identity) -> state machine -> log -> node -> peer port ->
// client port. The client port opens before the node has a quorum or a leader: a member restarted
// alone answers serializable reads at once.
// A broken promise of the disk ends the process (server/fatal.h), whatever else goes on.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/config.h"

namespace holdfast::server {

class Server {
 public:
  // How long calls under way may take to finish once Stop was called, before they are answered
  // "etcdserver: server stopped".
  static constexpr absl::Duration kStopGrace = absl::Milliseconds(500);

  // REQUIRES: config.Validate().ok(). Errors: a text for the operator; nothing is left running.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config);
  virtual ~Server() = default;
  // Refuses new calls, flushes, closes. Any thread; idempotent; returns when all is closed.
  virtual void Stop() = 0;
  // host:port actually bound (a configured port 0 is replaced).
  virtual std::string client_address() const = 0;
};

}  // namespace holdfast::server
