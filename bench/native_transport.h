// Calls through libholdfast's public Client, as a service makes them: many callers, few clients.
//
// A caller is a slot, not a thread. The client's own thread runs the callback of a call that has
// ended, and the next call of that caller is made from there; so thousands of callers cost nothing
// but their calls.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/keys.h"
#include "bench/transport.h"

namespace holdfast {
class Client;
}  // namespace holdfast

namespace holdfast::bench {

struct NativeClientOptions {
  std::vector<std::string> endpoints = {};
  uint32_t clients = 1;
  bool exactly_once = false;
  std::string mirrored_prefix = {};  // "": none
  uint64_t seed = 1;
};

// Threads: all.
class NativeClients {
 public:
  // Waits until each client has been answered a read (or has its mirror).
  static absl::StatusOr<std::unique_ptr<NativeClients>> Open(const NativeClientOptions& options,
                                                             absl::Duration timeout);
  ~NativeClients();
  NativeClients(const NativeClients&) = delete;
  NativeClients& operator=(const NativeClients&) = delete;

  size_t size() const { return clients_.size(); }
  Client& client(size_t i) const { return *clients_[i]; }

 private:
  NativeClients();
  std::vector<std::unique_ptr<Client>> clients_;
};

struct NativeTransportOptions {
  uint32_t slots = 1;
  ReadLevel read = ReadLevel::kLinearizable;
  absl::Duration timeout =
      absl::Seconds(10);  // the deadline of one call, the library's tries in it
};

// Calls in flight end at their deadline: CancelAll() can not hurry them. `client` and `shape` must
// live longer.
std::unique_ptr<Transport> NewNativeTransport(Client& client, const DataShape& shape,
                                              const NativeTransportOptions& options);

}  // namespace holdfast::bench
