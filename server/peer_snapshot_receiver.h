// The receiving end of InstallSnapshot.
//
// A synchronous gRPC method on purpose: it writes and syncs files, and gRPC 1.51 has only two
// threads on a small machine for all callbacks of the process; heartbeats must not wait for a disk.
//
// What had arrived when a transfer broke is kept (peer_snapshot_partials.h), and told to the sender
// when it comes again with the same snapshot; so is a snapshot that is being installed, or is.
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
#include "absl/status/statusor.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/peer_snapshot_partials.h"
#include "server/peer_transport.h"

namespace holdfast::server {

inline constexpr size_t kMaxIncomingSnapshots = 8;

class SnapshotReceiver {
 public:
  using Stream = grpc::ServerReaderWriter<raft::v1::SnapshotAnswer, raft::v1::SnapshotChunk>;

  explicit SnapshotReceiver(const PeerTransport::Options& options)
      : options_(options),
        partials_(storage::PosixFileSystem(), options.snapshot_dir, options.snapshot_retry_for) {}

  // Once, before all else: makes the directory ready.
  absl::Status Open() { return partials_.Open(SteadyNow()); }
  void SetNode(raft::RaftNode* node) { node_.store(node); }

  // The method's handler: blocks until the snapshot is installed, or failed.
  grpc::Status Receive(grpc::ServerContext* context, Stream* stream);
  // To be called about once a second: removes what nobody went on with.
  void Tend(SteadyTime now) { partials_.Expire(now); }
  // Cancels what is being received and waits for it; no call into the node afterwards.
  void Stop();

 private:
  struct Installation;

  absl::Status ReceiveAll(grpc::ServerContext* context, Stream* stream);
  absl::Status CheckSender(const raft::v1::SnapshotMeta& meta) const;
  // The directory, complete.
  absl::StatusOr<std::string> ReceiveFiles(grpc::ServerContext* context, Stream* stream,
                                           const raft::v1::SnapshotMeta& meta);
  // Null if this very snapshot is not being installed, nor was.
  std::shared_ptr<Installation> Find(const raft::v1::SnapshotMeta& meta);
  std::shared_ptr<Installation> Install(const raft::v1::SnapshotMeta& meta, std::string dir);
  absl::Status Await(grpc::ServerContext* context, Installation* installation) const;
  // Makes `context` the one snapshot of this sender: cancels an older one, and waits for its end.
  // False: `context` is over itself.
  bool Replace(NodeId from, grpc::ServerContext* context);
  bool Enter(grpc::ServerContext* context, absl::Status* refused);
  void Leave(grpc::ServerContext* context);

  const PeerTransport::Options options_;
  SnapshotPartials partials_;
  std::atomic<raft::RaftNode*> node_{nullptr};

  // std, not absl: waits on it must not depend on the wall clock.
  std::mutex mutex_;
  std::condition_variable left_;
  bool stopping_ = false;                             // guarded by mutex_
  std::set<grpc::ServerContext*> active_;             // guarded by mutex_
  std::map<NodeId, grpc::ServerContext*> by_sender_;  // guarded by mutex_; subset of active_
  std::shared_ptr<Installation> installation_;        // guarded by mutex_; the newest
};

}  // namespace holdfast::server
