// The lifetime rule, on which everything here rests:
//
//   gRPC calls OnDone last, once every reaction has returned and
//     - the client's hold was removed (we start operations from outside of reactions, so we hold),
//     - or the server's Finish was called.
//   So: an object of ours is alive until OnDone at least; EndCall (RemoveHold or Finish) is called
//   exactly once; and after EndCall nothing is started outside of a reaction.
//
// Writes are started without the lock (encoding and serializing megabytes under it would block the
// raft thread), and that is safe because `writing_` is a token: while it is held nobody calls
// EndCall; its holder does, when the write is done and the stream is ending. kOpening is such a
// token too. Reads are started under the lock and only while not ending.
//
// How an end always comes: Close cancels the call; a cancelled call fails the read and the write
// in flight; HandleWriteDone gives the token back and calls EndCall; OnDone follows. A stream that
// has neither a read nor a write in flight (it waits for its owner) is ended by Close itself.
#include "server/peer_stream.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

// As in raft.proto; frames are encoded and decoded by peer_codec.h, not by generated code.
constexpr char kStreamMethod[] = "/holdfast.raft.v1.Peer/Stream";
constexpr absl::Duration kWarnInterval = absl::Seconds(10);

absl::Status Refusal(const std::string& text) {
  return absl::FailedPreconditionError(base::ToAbsl(text));
}

}  // namespace

PeerStream::PeerStream(const PeerTransport::Options& options, Owner* owner, bool dialed,
                       NodeId peer, std::string remote)
    : self_(options.self),
      cluster_id_(options.cluster_id),
      disk_id_(options.disk_id),
      incarnation_of_cluster_(options.incarnation),
      max_queued_bytes_(options.max_queued_bytes),
      max_frame_bytes_(options.max_frame_bytes),
      owner_(owner),
      dialed_(dialed),
      peer_(peer),
      remote_(std::move(remote)),
      // The dialing end writes its Hello first, and nothing may come before that.
      writing_(dialed) {}

bool PeerStream::greeting() const {
  absl::MutexLock lock(&mutex_);
  return state_ == State::kGreeting;
}

bool PeerStream::opened() const {
  absl::MutexLock lock(&mutex_);
  return state_ == State::kOpening || state_ == State::kOpen;
}

bool PeerStream::refused_by_peer() const {
  absl::MutexLock lock(&mutex_);
  return refused_by_peer_;
}

void PeerStream::Send(std::vector<raft::Message> messages) {
  std::deque<Queued> batch;
  size_t dropped = 0, too_long = 0;
  bool warn = false;
  {
    absl::MutexLock lock(&mutex_);
    if (ending_ || (state_ != State::kOpening && state_ != State::kOpen)) return;
    for (raft::Message& message : messages) {
      const size_t bytes = MaxEncodedBytes(message);
      if (bytes > max_frame_bytes_) {
        ++too_long;
      } else if (outbox_bytes_ + bytes > max_queued_bytes_ && !outbox_.empty()) {
        ++dropped;
      } else {
        outbox_bytes_ += bytes;
        outbox_.push_back({std::move(message), bytes});
      }
    }
    warn = (dropped > 0 || too_long > 0) && MayWarn();
    batch = TakeBatch();
  }
  if (warn && dropped > 0) {
    LOG_WARN("dropped {} messages to member {:x}: {} bytes are queued already", dropped,
             peer_.value, max_queued_bytes_);
  }
  if (warn && too_long > 0) {
    LOG_ERROR(
        "a message to member {:x} is longer than max_frame_bytes ({}) and is never sent: raise it",
        peer_.value, max_frame_bytes_);
  }
  if (!batch.empty()) WriteBatch(std::move(batch));
}

bool PeerStream::MayWarn() {
  const SteadyTime now = SteadyNow();
  if (now < next_warning_) return false;
  next_warning_ = now + ToSteady(kWarnInterval);
  return true;
}

std::deque<PeerStream::Queued> PeerStream::TakeBatch() {
  std::deque<Queued> batch;
  if (writing_ || ending_ || state_ != State::kOpen || outbox_.empty()) return batch;
  writing_ = true;
  if (outbox_bytes_ <= max_frame_bytes_) {
    batch.swap(outbox_);
    outbox_bytes_ = 0;
    return batch;
  }
  size_t bytes = 0;
  while (!outbox_.empty() && bytes + outbox_.front().bytes <= max_frame_bytes_) {
    bytes += outbox_.front().bytes;
    batch.push_back(std::move(outbox_.front()));
    outbox_.pop_front();
  }
  outbox_bytes_ -= bytes;
  CHECK(!batch.empty());  // Send lets no message in that is longer than a frame
  return batch;
}

void PeerStream::WriteBatch(std::deque<Queued> batch) {
  size_t bytes = 0;
  for (const Queued& queued : batch) bytes += queued.bytes;
  FrameWriter frame(bytes);
  for (const Queued& queued : batch) frame.Add(queued.message);
  out_ = std::move(frame).Finish();
  batch.clear();
  StartWriteCall(&out_);
}

void PeerStream::HandleWriteDone(bool ok) {
  // Of our own Hello that failed, the read will tell more: see HandleReadDone.
  if (!ok) End(absl::UnavailableError("connection lost while writing"), /*cancel=*/!greeting());
  out_.Clear();
  std::deque<Queued> batch;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    batch = TakeBatch();
    EndIfIdle();
  }
  if (!batch.empty()) WriteBatch(std::move(batch));
}

void PeerStream::HandleReadDone(bool ok) {
  if (!ok) {
    // The peer ended the call, or the connection is gone. Cancelling now could hide the status
    // text with which it refused us, so that is done only for the sake of a write in flight. Not of
    // our own Hello: a peer may refuse before it has read that, and the greeting's timeout closes
    // what it does not end.
    bool cancel;
    {
      absl::MutexLock lock(&mutex_);
      cancel = writing_ && state_ != State::kGreeting;
    }
    End(absl::UnavailableError("connection lost"), cancel);
    return;
  }
  const bool hello = greeting();
  absl::StatusOr<PeerFrame> frame = DecodeFrame(&in_);
  in_.Clear();
  const absl::Status status = !frame.ok() ? frame.status()
                              : hello     ? TakeHello(*frame)
                                          : TakeMessages(*std::move(frame));
  if (!status.ok()) {
    // An accepted stream that was never open has nothing in flight: its refusal reaches the peer.
    End(status, /*cancel=*/dialed_ || !hello);
    return;
  }
  if (hello) {
    owner_->OnGreeted(this);
    return;  // FinishOpen reads on
  }
  absl::MutexLock lock(&mutex_);
  if (!ending_) StartReadCall(&in_);
}

grpc::ByteBuffer PeerStream::OwnHello() const {
  raft::v1::Hello hello;
  hello.set_protocol(kPeerProtocol);
  hello.set_cluster_id(cluster_id_);
  hello.set_from(self_.value);
  hello.set_to(peer_.value);
  hello.set_disk_id(disk_id_);
  hello.set_incarnation(incarnation());
  return EncodeHello(hello);
}

// Asked anew for each greeting: a member learns it while it runs.
uint64_t PeerStream::incarnation() const {
  return incarnation_of_cluster_ ? incarnation_of_cluster_() : 0;
}

absl::Status PeerStream::CheckCluster(const raft::v1::Hello& hello) const {
  if (hello.cluster_id() != cluster_id_) {
    return Refusal(
        fmt::format("member {:x} belongs to cluster {:x}, member {:x} to cluster {:x}: "
                    "check the peer URLs and the initial cluster of both",
                    hello.from(), hello.cluster_id(), self_.value, cluster_id_));
  }
  const uint64_t ours = incarnation();
  if (hello.incarnation() != 0 && ours != 0 && hello.incarnation() != ours) {
    return Refusal(fmt::format(
        "member {:x} belongs to incarnation {:x} of the cluster, member {:x} to incarnation {:x}: "
        "the "
        "cluster was made anew from one member (--force-new-cluster), and whoever was not part of "
        "that has to be added as a new member, without its old data",
        hello.from(), hello.incarnation(), self_.value, ours));
  }
  return absl::OkStatus();
}

absl::Status PeerStream::TakeHello(const PeerFrame& frame) {
  if (!frame.hello || !frame.messages.empty()) {
    return Refusal("the first frame of a peer stream must be a hello and nothing else");
  }
  const raft::v1::Hello& hello = *frame.hello;
  if (hello.protocol() != kPeerProtocol) {
    return Refusal(fmt::format(
        "member {:x} speaks peer protocol {}, member {:x} speaks {}: upgrade the older one",
        hello.from(), hello.protocol(), self_.value, kPeerProtocol));
  }
  if (absl::Status status = CheckCluster(hello); !status.ok()) return status;
  if (hello.to() != self_.value) {
    return Refusal(
        fmt::format("member {:x} looks for member {:x} at the address of member {:x}: "
                    "check the peer URL of member {:x}",
                    hello.from(), hello.to(), self_.value, hello.to()));
  }
  if (hello.from() == 0 || hello.from() == self_.value ||
      (dialed_ && hello.from() != peer_.value)) {
    return Refusal(fmt::format("member {:x} answers as member {:x}", peer_.value, hello.from()));
  }
  peer_ = NodeId(hello.from());
  peer_disk_ = hello.disk_id();
  absl::MutexLock lock(&mutex_);
  state_ = State::kGreeted;
  return absl::OkStatus();
}

absl::Status PeerStream::TakeMessages(PeerFrame frame) {
  if (frame.hello) return Refusal("a second hello on one stream");
  for (const raft::Message& message : frame.messages) {
    if (message.from != peer_ || message.to != self_) {
      return absl::InvalidArgumentError(base::ToAbsl(
          fmt::format("a message from {} to {} on the stream of members {} and {}",
                      message.from.value, message.to.value, peer_.value, self_.value)));
    }
  }
  if (!frame.messages.empty()) owner_->OnMessages(std::move(frame.messages));
  return absl::OkStatus();
}

bool PeerStream::BeginOpen() {
  absl::MutexLock lock(&mutex_);
  CHECK(state_ == State::kGreeted);
  if (ending_) return false;
  state_ = State::kOpening;
  return true;
}

void PeerStream::FinishOpen() {
  std::deque<Queued> batch;
  {
    absl::MutexLock lock(&mutex_);
    CHECK(state_ == State::kOpening);
    state_ = State::kOpen;
    if (ending_) {
      EndIfIdle();
      return;
    }
    StartReadCall(&in_);
    if (dialed_) {
      batch = TakeBatch();
    } else {
      CHECK(!writing_);
      writing_ = true;
    }
  }
  if (!dialed_) {
    out_ = OwnHello();
    StartWriteCall(&out_);
  } else if (!batch.empty()) {
    WriteBatch(std::move(batch));
  }
}

void PeerStream::Close(const absl::Status& why) { End(why, /*cancel=*/true); }

void PeerStream::Refuse(const absl::Status& why) { End(why, /*cancel=*/dialed_); }

void PeerStream::End(const absl::Status& why, bool cancel) {
  std::deque<Queued> unsent;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  if (!ending_) {
    ending_ = true;
    why_ = why;
    unsent.swap(outbox_);
    outbox_bytes_ = 0;
  }
  if (cancel && !done_) CancelCall();
  EndIfIdle();
}

void PeerStream::EndIfIdle() {
  if (!ending_ || ended_ || writing_ || state_ == State::kOpening) return;
  ended_ = true;
  EndCall(why_);
}

void PeerStream::HandleDone(const absl::Status& why) {
  absl::Status reason;
  {
    absl::MutexLock lock(&mutex_);
    CHECK(ended_);
    done_ = true;
    // What we found out ourselves says more than the CANCELLED it led to; what the peer answered
    // says more than that the connection is lost.
    const bool peer_knows = !why.ok() && why.code() != absl::StatusCode::kCancelled &&
                            why_.code() == absl::StatusCode::kUnavailable;
    reason = peer_knows ? why : why_;
    refused_by_peer_ = dialed_ && peer_knows;
  }
  owner_->OnStreamDone(this, reason);
}

DialedStream::DialedStream(const PeerTransport::Options& options, Owner* owner, NodeId peer,
                           std::string url)
    : PeerStream(options, owner, /*dialed=*/true, peer, std::move(url)), options_(options) {}

void DialedStream::Start() {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = CreatePeerChannel(options_, remote());
  CHECK_OK(channel.status());
  stub_ = std::make_unique<grpc::TemplatedGenericStub<grpc::ByteBuffer, grpc::ByteBuffer>>(
      *std::move(channel));
  stub_->PrepareBidiStreamingCall(&context_, kStreamMethod, {}, this);
  AddHold();
  StartRead(&in_);
  out_ = OwnHello();
  StartWrite(&out_);
  StartCall();
}

AcceptedStream::AcceptedStream(const PeerTransport::Options& options, Owner* owner,
                               grpc::CallbackServerContext* context)
    : PeerStream(options, owner, /*dialed=*/false, NodeId(), context->peer()), context_(context) {}

}  // namespace holdfast::server
