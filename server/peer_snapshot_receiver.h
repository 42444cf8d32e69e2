// The receiving end of InstallSnapshot.
//
// A synchronous gRPC method on purpose: it writes and syncs files, and gRPC 1.51 has only two
// threads on a small machine for all callbacks of the process; heartbeats must not wait for a disk.
//
// Limits: kMaxIncomingSnapshots at once, one a sender (a newer one replaces the older), one chunk
// in memory each.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/sync_stream.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/peer_transport.h"

namespace holdfast::server {

inline constexpr size_t kMaxIncomingSnapshots = 8;

class SnapshotReceiver {
 public:
  explicit SnapshotReceiver(const PeerTransport::Options& options) : options_(options) {}

  void SetNode(raft::RaftNode* node) { node_.store(node); }

  // The method's handler: blocks until the snapshot is installed, or failed.
  grpc::Status Receive(grpc::ServerContext* context,
                       grpc::ServerReader<raft::v1::SnapshotChunk>* reader,
                       raft::v1::SnapshotReceipt* receipt);
  // Cancels what is being received and waits for it; no call into the node afterwards.
  void Stop();

 private:
  absl::Status ReceiveAll(grpc::ServerContext* context,
                          grpc::ServerReader<raft::v1::SnapshotChunk>* reader,
                          raft::v1::SnapshotReceipt* receipt);
  absl::Status CheckSender(const raft::v1::SnapshotMeta& meta) const;
  absl::Status Install(grpc::ServerContext* context, const raft::v1::SnapshotMeta& meta,
                       std::string dir);
  // Makes `context` the one snapshot of this sender, cancelling an older one.
  void Replace(NodeId from, grpc::ServerContext* context);
  bool Enter(grpc::ServerContext* context, absl::Status* refused);
  void Leave(grpc::ServerContext* context);

  const PeerTransport::Options options_;
  std::atomic<raft::RaftNode*> node_{nullptr};
  std::atomic<uint64_t> next_dir_{1};

  // std, not absl: waits on it must not depend on the wall clock.
  std::mutex mutex_;
  std::condition_variable left_;
  bool stopping_ = false;                             // guarded by mutex_
  std::set<grpc::ServerContext*> active_;             // guarded by mutex_
  std::map<NodeId, grpc::ServerContext*> by_sender_;  // guarded by mutex_; subset of active_
};

}  // namespace holdfast::server
