// Sockets to listen on, and plain words if that fails.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/url.h"

namespace holdfast::server {

// Why `url` of --`flag` can not be listened on, from errno.
absl::Status ExplainListen(int error, std::string_view flag, const Url& url);

// OK if all of them can be listened on now. `flag` names where they come from.
// FailedPrecondition: in use. PermissionDenied. NotFound: no such host or address here.
absl::Status CheckCanListen(std::string_view flag, const std::vector<Url>& urls);

// The listening sockets of one URL, one for each address behind its host; they close with it.
// Non-blocking. A wildcard of either family takes the other family too, as in Go and gRPC.
class ListenSockets {
 public:
  ListenSockets() = default;
  ~ListenSockets();
  ListenSockets(ListenSockets&& other) noexcept : fds_(std::exchange(other.fds_, {})) {}
  ListenSockets& operator=(ListenSockets&& other) noexcept {
    std::swap(fds_, other.fds_);
    return *this;
  }

  // Port 0 is replaced in `url` by the one that the system chose, the same for all addresses.
  // Errors as CheckCanListen.
  static absl::StatusOr<ListenSockets> Open(std::string_view flag, Url* url);

  const std::vector<int>& fds() const { return fds_; }

 private:
  std::vector<int> fds_;
};

}  // namespace holdfast::server
