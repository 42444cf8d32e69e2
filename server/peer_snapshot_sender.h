// The sending end of InstallSnapshot: one thread and one connection a snapshot.
//
// A transfer that breaks is tried again, from where the receiver's last synced byte is, with the
// same checkpoint: a new one would cost a flush, and share no byte with what is there already. It
// is given up when this member no longer leads in that term, when the receiver is no longer a
// member, when nothing more arrived for snapshot_retry_for (the checkpoint and the log behind it
// take room), and when its time is over (see Budget). Then the caller makes a new one.
//
// Limits: kMaxOutgoingSnapshots at once, one a peer; one chunk in memory each; all together no
// faster than snapshot_bytes_per_second.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/peer_channel.h"
#include "server/peer_snapshot_rate.h"
#include "server/peer_transport.h"

namespace holdfast::server {

inline constexpr size_t kMaxOutgoingSnapshots = 4;

class SnapshotSender {
 public:
  using Done = absl::AnyInvocable<void(absl::Status) &&>;
  // What the world is like, asked again and again. Called without a lock of ours.
  struct World {
    // The best first; none: it is no member.
    std::function<std::vector<std::string>(NodeId)> urls;
    std::function<bool(Term)> leads_in;
  };

  SnapshotSender(const PeerTransport::Options& options, World world)
      : options_(options), world_(std::move(world)), rate_(options.snapshot_bytes_per_second) {}

  // Any thread, does not block. Calls `done` exactly once: on a thread of ours, or at once with
  // ResourceExhausted, AlreadyExists (one is on its way to this peer) or Unavailable (stopping).
  void Send(raft::Transport::SnapshotToSend snapshot, Done done);
  // To be called about once a second: gives up what does not move or has lost its sense, joins what
  // has ended.
  void Tend(SteadyTime now);
  // Cancels everything and waits; every `done` has been called when it returns.
  void Stop();

 private:
  using Stream = grpc::ClientReaderWriter<raft::v1::SnapshotChunk, raft::v1::SnapshotAnswer>;

  struct Job {
    raft::Transport::SnapshotToSend snapshot;
    Done done;
    std::thread thread;
    // When Tend cancels the call, unless it moves before.
    std::atomic<SteadyTime> stall_at{SteadyTime::max()};
    std::atomic<bool> stalled{false};
    grpc::ClientContext* context = nullptr;  // guarded by mutex_; while its call runs
    absl::Status over;                       // guarded by mutex_; not OK: give up, and why
    bool finished = false;                   // guarded by mutex_; about to call `done`
    bool exited = false;                     // guarded by mutex_; the thread may be joined

    // The thread's own.
    raft::v1::SnapshotMeta meta;
    uint64_t bytes = 0;
    SteadyTime deadline;
    uint64_t furthest = 0;  // where the best try got to
    uint64_t sent = 0;      // by all tries
    SteadyTime next_report;
  };

  void Run(Job* job);
  absl::Status SendWithRetries(Job* job);
  absl::Status Try(Job* job);
  absl::StatusOr<std::shared_ptr<grpc::Channel>> Connect(Job* job);
  // An error of ours. OK: everything was sent and answered with `installed`, or the call is over
  // and its status tells why.
  absl::Status Push(Job* job, Stream* stream, uint64_t* installed);
  // False, with `*error` still OK, when the receiver has ended the call.
  bool SendFiles(Job* job, uint64_t have_bytes, Stream* stream, absl::Status* error);
  bool SendFile(Job* job, int number, uint64_t skip, uint64_t before, Stream* stream,
                absl::Status* error);
  void Report(Job* job, uint64_t at, SteadyTime now) const;
  // Until `moment`, or until the job is over, whose reason is returned then.
  absl::Status WaitUntil(Job* job, SteadyTime moment);
  // Null: the call is over. Not OK, with nothing done, if the job is over.
  absl::Status SetContext(Job* job, grpc::ClientContext* context);
  // REQUIRES: mutex_ is held.
  void GiveUp(Job* job, absl::Status why);

  const PeerTransport::Options options_;
  const World world_;
  SnapshotRate rate_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;                 // guarded by mutex_
  std::list<std::unique_ptr<Job>> jobs_;  // guarded by mutex_
};

}  // namespace holdfast::server
