// Members talk over gRPC: one bidirectional stream per pair (the smaller id dials), carrying frames
// of everything one raft turn had to say; snapshots on a call of their own.
//
// Threads: raft::Transport's methods on the raft thread; gRPC's threads call back into the node.
// Who is let in: members, and members-to-be that this one has not heard of yet. Refused for good
// are members that were removed (they are told, and stop: on_removed), members of another cluster
// or incarnation, and whoever comes under a member's id without that member's data (disk_id): it
// may have voted and acknowledged, and has forgotten it. Limits: `max_queued_bytes` a peer, beyond
// it messages are dropped (Raft repeats them); one frame in flight a stream, everything queued
// meanwhile goes into the next (natural batching), cut at `max_frame_bytes`.
#pragma once

#include <cstdint>
#include <functional>
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
    uint64_t disk_id = 0;  // of this member's data directory; 0: unknown
    // What this member knows, 0 if it does not; any thread, cheap. Null: never known.
    std::function<uint64_t()> incarnation = nullptr;
    std::function<uint64_t(NodeId)> published_disk = nullptr;
    // Where the disk ids of peers are kept (peer_disks.h); empty: nowhere.
    std::string peer_disks_path = {};
    // Another member says that this one was removed, and the removal is committed. Called once, on
    // a gRPC thread; must not block.
    std::function<void()> on_removed = nullptr;
    // Where received snapshots are assembled; emptied at start but for one that broke off.
    std::string snapshot_dir;
    size_t max_queued_bytes = size_t{64} << 20;
    // Above the largest request (8 MiB) with room for its wrapping.
    size_t max_frame_bytes = size_t{16} << 20;
    size_t snapshot_chunk_bytes = size_t{256} << 10;
    absl::Duration reconnect_min = absl::Milliseconds(50);
    absl::Duration reconnect_max = absl::Milliseconds(500);
    // A refusal does not pass by itself: somebody has to act, and dialing often does not help. Two
    // members at one URL, one of them replacing the other, are such a case.
    absl::Duration refused_redial = absl::Seconds(3);
    // All outgoing snapshots together; 0: as fast as it goes.
    uint64_t snapshot_bytes_per_second = 0;
    // Of all tries to send one snapshot, and longer for a large one.
    absl::Duration snapshot_timeout = absl::Minutes(30);
    // A call of which no byte went out for so long is broken off, and tried again.
    absl::Duration snapshot_stall_timeout = absl::Seconds(30);
    // For so long without progress is a snapshot tried again and its checkpoint kept (and with it
    // the log behind it), and what the receiver has of it.
    absl::Duration snapshot_retry_for = absl::Minutes(3);
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
