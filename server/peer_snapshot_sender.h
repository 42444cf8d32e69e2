// The sending end of InstallSnapshot: one thread and one connection a snapshot.
//
// Limits: kMaxOutgoingSnapshots at once, one a peer; one chunk in memory each. A snapshot ends at
// the latest after snapshot_timeout, and after snapshot_stall_timeout without a byte going out.
#pragma once

#include <atomic>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/peer_channel.h"
#include "server/peer_transport.h"

namespace holdfast::server {

inline constexpr size_t kMaxOutgoingSnapshots = 4;

class SnapshotSender {
 public:
  using Done = absl::AnyInvocable<void(absl::Status) &&>;

  explicit SnapshotSender(const PeerTransport::Options& options) : options_(options) {}

  // Any thread, does not block. Calls `done` exactly once: on a thread of ours, or at once with
  // ResourceExhausted, AlreadyExists (one is on its way to this peer) or Unavailable (stopping).
  void Send(raft::Transport::SnapshotToSend snapshot, std::vector<std::string> urls, Done done);
  // To be called about once a second: gives up what does not move, joins what has ended.
  void Tend(SteadyTime now);
  // Cancels everything and waits; every `done` has been called when it returns.
  void Stop();

 private:
  struct Job {
    raft::Transport::SnapshotToSend snapshot;
    std::vector<std::string> urls;
    Done done;
    std::thread thread;
    std::atomic<SteadyTime> progress;        // when a chunk last went out
    std::atomic<bool> sending{false};        // chunks are going out: progress counts
    std::atomic<bool> stalled{false};        // given up by Tend
    grpc::ClientContext* context = nullptr;  // guarded by mutex_; while its call runs
    bool finished = false;                   // guarded by mutex_; about to call `done`
    bool exited = false;                     // guarded by mutex_; the thread may be joined
  };

  void Run(Job* job);
  absl::Status SendToAnyUrl(Job* job);
  absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(const Job& job);
  absl::Status SendOver(const std::shared_ptr<grpc::Channel>& channel, Job* job);
  // Null: the call is over. False, with nothing done, if a call would begin while we are stopping.
  bool SetContext(Job* job, grpc::ClientContext* context);
  bool stopping() const;

  const PeerTransport::Options options_;
  mutable std::mutex mutex_;
  bool stopping_ = false;                 // guarded by mutex_
  std::list<std::unique_ptr<Job>> jobs_;  // guarded by mutex_
};

}  // namespace holdfast::server
