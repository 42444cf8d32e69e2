// Channels between members, and the few settings that both ends of them must agree on.
#pragma once

#include <grpc/support/time.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/grpc_status.h"
#include "server/peer_transport.h"

namespace holdfast::server {

// Spoken in Hello; members of different numbers refuse each other. 1: release 0.1, before members
// could be changed.
inline constexpr uint32_t kPeerProtocol = 2;
// What a gRPC message may be longer than max_frame_bytes: a Hello, a snapshot chunk's header.
inline constexpr size_t kFrameSlackBytes = size_t{64} << 10;
// How long one attempt to reach one URL may take, TCP and HTTP/2 handshake together.
inline constexpr absl::Duration kConnectTimeout = absl::Seconds(1);

// "http://host:port" or "host:port" -> a gRPC target. InvalidArgument for anything else.
absl::StatusOr<std::string> PeerTarget(std::string_view url);

// A channel with a connection of its own: never shared with another channel to the same address,
// so that a snapshot's bytes do not queue in front of heartbeats.
// Never let the last reference go on a gRPC callback thread: releasing the process's last channel
// joins those threads.
absl::StatusOr<std::shared_ptr<grpc::Channel>> CreatePeerChannel(
    const PeerTransport::Options& options, std::string_view url);

// Monotonic, because absl's and gRPC's default deadlines move when the wall clock is set.
using SteadyTime = std::chrono::steady_clock::time_point;
inline SteadyTime SteadyNow() { return std::chrono::steady_clock::now(); }
inline std::chrono::steady_clock::duration ToSteady(absl::Duration d) {
  return absl::ToChronoNanoseconds(d);
}

inline gpr_timespec GrpcDeadline(absl::Duration from_now) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_micros(absl::ToInt64Microseconds(from_now), GPR_TIMESPAN));
}

}  // namespace holdfast::server
