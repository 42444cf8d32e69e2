// One address of the store.
#pragma once

#include <bitset>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace holdfast::internal {

// Of one client (ClientOptions::Validate).
inline constexpr size_t kEndpointsMax = 32;
// Some of them, by their order in the client.
using EndpointFlags = std::bitset<kEndpointsMax>;

struct Endpoint {
  std::string name;    // "host:port", as error texts show it
  std::string target;  // for gRPC
};

// Accepts "host:port", "1.2.3.4:port", "[v6]:port", each with or without "http://" and a trailing
// "/". InvalidArgument with what is wrong and what to write instead.
absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text);

}  // namespace holdfast::internal
