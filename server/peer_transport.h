// Members talk over gRPC: one bidirectional stream per pair (the smaller id dials), carrying frames
// of everything one raft turn had to say; snapshots on a call of their own.
//
// Threads: raft::Transport's methods on the raft thread; gRPC's threads call back into the node.
// Limits: `max_queued_bytes` a peer, beyond it messages are dropped (Raft repeats them); one frame
// in flight a stream, everything queued meanwhile goes into the next (natural batching), cut at
// `max_frame_bytes`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "replication/raft_node.h"

namespace grpc {
class ServerBuilder;
class Service;
}  // namespace grpc

namespace holdfast::server {

class PeerTransport : public raft::Transport {
 public:
  struct Options {
    NodeId self;
    uint64_t cluster_id = 0;
    std::string snapshot_dir;  // where received snapshots are assembled; emptied at start
    size_t max_queued_bytes = size_t{64} << 20;
    // Above the largest request (8 MiB) with room for its wrapping.
    size_t max_frame_bytes = size_t{16} << 20;
    size_t snapshot_chunk_bytes = size_t{256} << 10;
    absl::Duration reconnect_min = absl::Milliseconds(50);
    absl::Duration reconnect_max = absl::Milliseconds(500);
    absl::Duration snapshot_timeout = absl::Minutes(30);
    // A snapshot of which no byte went out for so long is given up, and sent anew later.
    absl::Duration snapshot_stall_timeout = absl::Seconds(30);
    // Keepalive so that a half-open connection is noticed: one ping an interval.
    absl::Duration keepalive = absl::Seconds(2);
  };
  // InvalidArgument, or what went wrong with snapshot_dir.
  static absl::StatusOr<std::unique_ptr<PeerTransport>> Create(const Options& options);
  // Message limits and keepalive of the server that will carry service(): gRPC's defaults refuse
  // our frames and our pings. REQUIRES: called for every such server, before BuildAndStart.
  static void ConfigureServer(const Options& options, grpc::ServerBuilder* builder);

  // Once. Until then nobody is dialed and incoming streams are refused, so that the node may be
  // started with this transport first. The node must outlive the transport's Stop().
  virtual void SetNode(raft::RaftNode* node) = 0;
  // To be registered with the server that listens on the peer address. That server must be shut
  // down after Stop() (it waits for streams to end) and before the transport is destroyed.
  virtual grpc::Service* service() = 0;
  // Ends all streams and snapshots; no call into the node after it returns. Idempotent; never on a
  // gRPC callback thread. Later incoming calls are refused.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
