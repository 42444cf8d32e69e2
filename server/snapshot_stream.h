// Maintenance.Snapshot: a backup of this member's store (snapshot_export.h) as etcd's clients
// expect it: messages with the bytes, in which remaining_bytes falls to 0, then one with the 32
// bytes of their SHA-256.
//
// Flow control is the call's own: the next piece is read when the one before has been taken. A
// caller that takes nothing for kStallMax is cut off, because the view that is held for it keeps
// compacted history on the disk.
// Threads: each stream has one of its own while it lasts, at most kStreamsMax at a time.
#pragma once

#include <array>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/snapshot_export.h"

namespace holdfast::server {

class SnapshotStreams {
 public:
  static constexpr size_t kStreamsMax = 4;
  // etcd sends 32 KiB: the time of a message is hardly longer for more.
  static constexpr size_t kPieceBytes = size_t{128} << 10;

  using Reactor = grpc::ServerWriteReactor<etcdserverpb::SnapshotResponse>;
  struct Options {
    std::string version;  // SnapshotResponse.version
    absl::Duration stall_max = absl::Seconds(60);
    // The store could not be read: must not return to business as usual. Null: the error is told.
    std::function<void(const absl::Status&)> on_damage = nullptr;
  };
  explicit SnapshotStreams(Options options) : options_(std::move(options)) {}
  ~SnapshotStreams() { Stop(); }

  // ErrTooManyRequests and ErrStopped are the answer of the reactor, too.
  Reactor* Start(grpc::CallbackServerContext* context,
                 const std::function<std::unique_ptr<SnapshotExport>()>& make);
  // Ends all streams with ErrStopped. Before the gRPC server is shut down. Idempotent.
  void Stop();

  // A stream that ends with a status before its first message.
  static Reactor* Refuse(const absl::Status& status);

 private:
  class Stream;
  struct Slot {
    std::shared_ptr<Stream> stream;
    std::thread thread;
    bool busy = false;
  };

  const Options options_;
  std::mutex mutex_;
  bool stopping_ = false;                     // under mutex_
  std::array<Slot, kStreamsMax> slots_ = {};  // under mutex_
};

}  // namespace holdfast::server
