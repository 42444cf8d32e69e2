// One bidirectional gRPC stream to one peer: greeting, outbox, batching, orderly end.
//
// Life, as the owner sees it:
//   greeting -> OnGreeted -> BeginOpen -> FinishOpen -> OnMessages* -> OnStreamDone
// OnStreamDone is called exactly once, from wherever the life ends, and nothing of this stream
// follows it. The owner decides when a greeted stream opens (not before the peer's previous stream
// is done), so a peer never has two streams that deliver.
//
// Threads: Send, Close and BeginOpen from any thread; the rest as said. The caller keeps the stream
// alive meanwhile (a reference, or a lock without which it cannot go). The owner is called on
// gRPC's threads, never under a lock of ours. gRPC never calls a reaction from inside a Start*,
// Finish, RemoveHold or TryCancel, so these are safe under a lock.
//
// Why no queue can grow: the outbox holds at most max_queued_bytes (plus one message when empty),
// one frame is being written, and one is being read.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "holdfast/raft.pb.h"
#include "replication/messages.h"
#include "server/peer_channel.h"
#include "server/peer_codec.h"
#include "server/peer_transport.h"

namespace holdfast::server {

class PeerStream {
 public:
  class Owner {
   public:
    // The peer said who it is, and may talk to us. The owner now, or later on any thread, calls
    // BeginOpen; or it calls Close or Refuse.
    virtual void OnGreeted(PeerStream* stream) = 0;
    // Only between FinishOpen and OnStreamDone; one call at a time, in the order sent.
    virtual void OnMessages(std::vector<raft::Message> messages) = 0;
    // The stream touches nothing of its own after this call: the owner may hand it to another
    // thread for destruction.
    virtual void OnStreamDone(PeerStream* stream, const absl::Status& why) = 0;

   protected:
    ~Owner() = default;
  };

  virtual ~PeerStream() = default;
  PeerStream(const PeerStream&) = delete;
  PeerStream& operator=(const PeerStream&) = delete;

  // Whom it talks to; for an accepted stream, from OnGreeted on.
  NodeId peer() const { return peer_; }
  // For log lines: the URL dialed, or the address it came from.
  const std::string& remote() const { return remote_; }
  bool dialed() const { return dialed_; }
  // As it said of itself, from OnGreeted on; 0: it has none.
  uint64_t peer_disk() const { return peer_disk_; }
  SteadyTime created() const { return created_; }
  bool greeting() const;
  // BeginOpen has succeeded.
  bool opened() const;
  // In OnStreamDone: `why` is what the peer that we dialed answered.
  bool refused_by_peer() const;

  // Never blocks. Drops what does not fit, and everything unless opened and not ending.
  void Send(std::vector<raft::Message> messages);
  // Cancels the stream; OnStreamDone follows.
  void Close(const absl::Status& why);
  // In OnGreeted, instead of BeginOpen: the same, but a peer that dialed us is told why.
  void Refuse(const absl::Status& why);

  // False if the stream is ending. After true it cannot be done before FinishOpen, which must be
  // called; between the two the owner announces the peer.
  bool BeginOpen();
  void FinishOpen();

 protected:
  PeerStream(const PeerTransport::Options& options, Owner* owner, bool dialed, NodeId peer,
             std::string remote);

  // Reactions of the call, forwarded by the two kinds of reactors.
  void HandleReadDone(bool ok);
  void HandleWriteDone(bool ok);
  void HandleDone(const absl::Status& why);

  // The call itself. EndCall is called once, with no write in flight, and starts nothing after it.
  virtual void StartReadCall(grpc::ByteBuffer* in) = 0;
  virtual void StartWriteCall(const grpc::ByteBuffer* out) = 0;
  virtual void CancelCall() = 0;
  virtual void EndCall(const absl::Status& why) = 0;

  grpc::ByteBuffer OwnHello() const;

  grpc::ByteBuffer in_;   // the read in flight
  grpc::ByteBuffer out_;  // the write in flight: belongs to whoever set writing_

 private:
  enum class State {
    kGreeting,  // waits for the peer's Hello
    kGreeted,   // waits for the owner
    kOpening,   // the owner is announcing the peer
    kOpen,
  };
  struct Queued {
    raft::Message message;
    size_t bytes;
  };

  void End(const absl::Status& why, bool cancel);
  void EndIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint64_t incarnation() const;
  absl::Status CheckCluster(const raft::v1::Hello& hello) const;
  absl::Status TakeHello(const PeerFrame& frame);
  absl::Status TakeMessages(PeerFrame frame);
  // Takes the write if it is free and there is something to write; the caller then calls
  // WriteBatch without the lock.
  std::deque<Queued> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteBatch(std::deque<Queued> batch);
  bool MayWarn() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const NodeId self_;
  const uint64_t cluster_id_;
  const uint64_t disk_id_;
  const std::function<uint64_t()> incarnation_of_cluster_;
  const size_t max_queued_bytes_;
  const size_t max_frame_bytes_;
  Owner* const owner_;
  const bool dialed_;
  const SteadyTime created_ = SteadyNow();
  NodeId peer_;             // written once, before OnGreeted
  uint64_t peer_disk_ = 0;  // likewise
  const std::string remote_;

  mutable absl::Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kGreeting;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;  // nothing new is started
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;   // EndCall was called
  bool done_ ABSL_GUARDED_BY(mutex_) = false;    // the call is over: not even a cancel
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  bool refused_by_peer_ ABSL_GUARDED_BY(mutex_) = false;
  // One owner of `out_` at a time: from before encoding until the write is done.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Queued> outbox_ ABSL_GUARDED_BY(mutex_);
  size_t outbox_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  SteadyTime next_warning_ ABSL_GUARDED_BY(mutex_);
};

// The end that dials. Created, then Start()ed once; never destroyed on a gRPC thread (see
// CreatePeerChannel).
class DialedStream final : public PeerStream,
                           private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // REQUIRES: PeerTarget(url) is OK.
  DialedStream(const PeerTransport::Options& options, Owner* owner, NodeId peer, std::string url);
  // REQUIRES: the stream is kept alive until this has returned.
  void Start();

 private:
  void OnReadDone(bool ok) override { HandleReadDone(ok); }
  void OnWriteDone(bool ok) override { HandleWriteDone(ok); }
  void OnDone(const grpc::Status& status) override { HandleDone(FromGrpc(status)); }

  void StartReadCall(grpc::ByteBuffer* in) override { StartRead(in); }
  void StartWriteCall(const grpc::ByteBuffer* out) override { StartWrite(out); }
  void CancelCall() override { context_.TryCancel(); }
  void EndCall(const absl::Status& why) override { RemoveHold(); }

  const PeerTransport::Options options_;
  std::unique_ptr<grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>> stub_;
  grpc::ClientContext context_;
};

// The end that is dialed.
class AcceptedStream final : public PeerStream,
                             public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  AcceptedStream(const PeerTransport::Options& options, Owner* owner,
                 grpc::CallbackServerContext* context);
  // In the method's handler, once the owner knows the stream.
  void Start() { StartReadCall(&in_); }

 private:
  void OnReadDone(bool ok) override { HandleReadDone(ok); }
  void OnWriteDone(bool ok) override { HandleWriteDone(ok); }
  void OnDone() override { HandleDone(absl::OkStatus()); }

  void StartReadCall(grpc::ByteBuffer* in) override { StartRead(in); }
  void StartWriteCall(const grpc::ByteBuffer* out) override { StartWrite(out); }
  void CancelCall() override { context_->TryCancel(); }
  void EndCall(const absl::Status& why) override { Finish(ToGrpc(why)); }

  grpc::CallbackServerContext* const context_;  // lives until OnDone
};

}  // namespace holdfast::server
