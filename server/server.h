// The composition root: one member, from its configuration to its open ports.
//
// A member whose log or data is damaged never starts with it: it is replaced by itself first, under
// a new id (server/repair.h).
// Order of start: identity (from the data directory, else from the flags, or from the cluster that
// is to be joined: server/join.h) -> data directory (lock) -> state machine -> log -> node -> peer
// port -> client port. The client port opens before the node has a quorum or a leader: a member
// restarted alone answers serializable reads at once.
// A broken promise of the disk ends the process (server/fatal.h), whatever else goes on.
#pragma once

#include <functional>
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

  // How long a leader that is stopped looks for a successor.
  static constexpr absl::Duration kHandOverMax = absl::Seconds(1);

  // REQUIRES: config.Validate().ok(). Errors: a text for the operator; nothing is left running.
  // `on_removed` is called once, from any thread, when the others say that this member was removed
  // from the cluster for good: it must not block, and have the server stopped.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config,
                                                       std::function<void()> on_removed = nullptr);
  virtual ~Server() = default;
  // Hands leadership over, refuses new calls, flushes, closes. Any thread; idempotent; returns when
  // all is closed.
  virtual void Stop() = 0;
  // host:port actually bound (a configured port 0 is replaced).
  virtual std::string client_address() const = 0;
};

}  // namespace holdfast::server
