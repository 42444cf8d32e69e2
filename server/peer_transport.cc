// Who is connected to whom, and who dials.
//
// The member with the smaller id dials. One exception keeps a cluster from being stuck: a member
// that has been away does not know of members added meanwhile and so cannot dial them, yet one of
// those may be the leader that has to tell it. So the larger id dials too when it has had no stream
// for kReverseDialAfter; the smaller accepts that unless its own stream stands.
//
// Lifetimes. Every stream is in live_ from its creation until the last line of OnStreamDone, which
// moves it to dead_; the housekeeping thread destroys what is there (never a gRPC thread, see
// CreatePeerChannel). A stream is only touched under mutex_ while in live_, from one of its own
// reactions, between its BeginOpen and FinishOpen, or by a holder of a shared_ptr. Stop closes all
// of live_, lets no new stream in, and waits until live_ is empty: the node is called only from
// within those reactions, so it is not called afterwards.
//
// A peer's streams never overlap: a newer one waits as `next` until the older one's OnStreamDone
// has told the node that the peer is lost. So OnPeerConnected, Receive and OnPeerLost of one peer
// come in order and in pairs without any lock held while the node is called.
//
// Locks: mutex_ before a stream's own mutex; never held while calling the node.
#include "server/peer_transport.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/peer_channel.h"
#include "server/peer_snapshot_receiver.h"
#include "server/peer_snapshot_sender.h"
#include "server/peer_stream.h"

namespace holdfast::server {
namespace {

using raft::v1::Frame;

constexpr absl::Duration kReverseDialAfter = absl::Seconds(2);
// From the creation of a stream to the peer's Hello, connecting included.
constexpr absl::Duration kGreetingTimeout = absl::Seconds(3);
constexpr absl::Duration kHousekeepingInterval = absl::Seconds(1);
constexpr absl::Duration kWarnInterval = absl::Seconds(10);
// Streams of all kinds, and peers that are not in our membership: what strangers could otherwise
// make us keep.
constexpr size_t kMaxStreams = 256;
constexpr size_t kMaxStrangers = 64;
constexpr size_t kMaxRemovedRemembered = 1024;

// Wakes one thread. std, not absl: the wait must not depend on the wall clock.
class Wakeup {
 public:
  void Wake() {
    std::lock_guard lock(mutex_);
    woken_ = true;
    changed_.notify_one();
  }
  void WaitUntil(SteadyTime deadline) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [this] { return woken_; });
    woken_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool woken_ = false;
};

// One line in kWarnInterval for each peer; a cluster that is set up wrongly redials for ever.
class WarnLimiter {
 public:
  bool Allow(NodeId peer) {
    const SteadyTime now = SteadyNow();
    absl::MutexLock lock(&mutex_);
    if (next_.size() >= kMaxRemovedRemembered) next_.clear();
    SteadyTime& next = next_[peer];
    if (now < next) return false;
    next = now + ToSteady(kWarnInterval);
    return true;
  }

 private:
  absl::Mutex mutex_;
  std::map<NodeId, SteadyTime> next_ ABSL_GUARDED_BY(mutex_);
};

// A stream that is refused before anything is known of it; deletes itself.
class RefusedStream final : public grpc::ServerBidiReactor<Frame, Frame> {
 public:
  explicit RefusedStream(const grpc::Status& why) { Finish(why); }
  void OnDone() override { delete this; }
};

class PeerTransportImpl final : public PeerTransport, public PeerStream::Owner {
 public:
  explicit PeerTransportImpl(const Options& options)
      : options_(options), receiver_(options), sender_(options), service_(this) {
    housekeeper_ = std::thread([this] { HousekeepingLoop(); });
  }
  ~PeerTransportImpl() override { Stop(); }

  void SetNode(raft::RaftNode* node) override;
  grpc::Service* service() override { return &service_; }
  void Stop() override {
    std::call_once(stop_once_, [this] { StopOnce(); });
  }

  void Send(std::vector<raft::Message> messages) override;
  void SendSnapshot(SnapshotToSend snapshot,
                    absl::AnyInvocable<void(absl::Status) &&> done) override;
  void SetMembership(const raft::Membership& membership) override;

 private:
  using StreamRef = std::shared_ptr<PeerStream>;

  struct Peer {
    // Of a member; a stranger (connected, but not in our membership) has none.
    bool member = false;
    std::vector<std::string> urls;
    StreamRef stream;  // dialing, open, or ending
    StreamRef next;    // accepted; opens when `stream` is done
    // When to dial, if there is no stream by then.
    SteadyTime dial_at;
    size_t next_url = 0;
    absl::Duration backoff = absl::ZeroDuration();
  };
  using PeerMap = std::map<NodeId, Peer>;

  class Service final : public raft::v1::Peer::WithCallbackMethod_Stream<raft::v1::Peer::Service> {
   public:
    explicit Service(PeerTransportImpl* transport) : transport_(transport) {}
    grpc::ServerBidiReactor<Frame, Frame>* Stream(grpc::CallbackServerContext* context) override {
      return transport_->Accept(context);
    }
    grpc::Status InstallSnapshot(grpc::ServerContext* context,
                                 grpc::ServerReader<raft::v1::SnapshotChunk>* reader,
                                 raft::v1::SnapshotReceipt* receipt) override {
      return transport_->receiver_.Receive(context, reader, receipt);
    }

   private:
    PeerTransportImpl* const transport_;
  };

  void OnGreeted(PeerStream* stream) override;
  void OnMessages(std::vector<raft::Message> messages) override;
  void OnStreamDone(PeerStream* stream, const absl::Status& why) override;

  grpc::ServerBidiReactor<Frame, Frame>* Accept(grpc::CallbackServerContext* context);
  // OK: `stream` is now its peer's stream or its next one; true if it is to be opened at once.
  absl::StatusOr<bool> Admit(PeerStream* stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Announce(PeerStream* stream);
  // The peer's stream is over; returns the one that takes its place, with BeginOpen done.
  StreamRef Succeed(PeerStream* stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ScheduleDial(NodeId id, const PeerStream& stream, Peer* peer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogEnd(const PeerStream& stream, const absl::Status& why);
  void AddMember(NodeId id, const std::vector<std::string>& urls)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropMember(NodeId id, Peer* peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t CountStrangers() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void StopOnce();
  void HousekeepingLoop();
  void Housekeep(SteadyTime now);
  std::vector<std::shared_ptr<DialedStream>> DialDue(SteadyTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  SteadyTime NextWake(SteadyTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::atomic<raft::RaftNode*> node_{nullptr};
  SnapshotReceiver receiver_;
  SnapshotSender sender_;
  Service service_;
  WarnLimiter warnings_;
  std::once_flag stop_once_;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  PeerMap peers_ ABSL_GUARDED_BY(mutex_);
  // Members once and no more: they are not let in again.
  std::set<NodeId> removed_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<PeerStream*, StreamRef> live_ ABSL_GUARDED_BY(mutex_);
  std::vector<StreamRef> dead_ ABSL_GUARDED_BY(mutex_);

  Wakeup wakeup_;
  std::atomic<bool> housekeeping_{true};
  std::thread housekeeper_;
};

void PeerTransportImpl::SetNode(raft::RaftNode* node) {
  CHECK(node != nullptr);
  CHECK(node_.load() == nullptr);
  receiver_.SetNode(node);
  node_.store(node);
  wakeup_.Wake();
}

// --- raft thread ---

void PeerTransportImpl::Send(std::vector<raft::Message> messages) {
  struct Outgoing {
    NodeId to;
    StreamRef stream;
    std::vector<raft::Message> messages;
  };
  std::vector<Outgoing> outgoing;  // a handful of peers: a linear search is the fastest
  for (raft::Message& message : messages) {
    auto it = std::find_if(outgoing.begin(), outgoing.end(),
                           [&message](const Outgoing& o) { return o.to == message.to; });
    if (it == outgoing.end()) it = outgoing.insert(it, {message.to, nullptr, {}});
    it->messages.push_back(std::move(message));
  }
  {
    absl::MutexLock lock(&mutex_);
    for (Outgoing& o : outgoing) {
      if (auto it = peers_.find(o.to); it != peers_.end()) o.stream = it->second.stream;
    }
  }
  // Without a connection everything is dropped at once: Raft repeats what still matters.
  for (Outgoing& o : outgoing) {
    if (o.stream != nullptr) o.stream->Send(std::move(o.messages));
  }
}

void PeerTransportImpl::SendSnapshot(SnapshotToSend snapshot,
                                     absl::AnyInvocable<void(absl::Status) &&> done) {
  std::vector<std::string> urls;
  {
    absl::MutexLock lock(&mutex_);
    if (auto it = peers_.find(snapshot.to); it != peers_.end()) {
      urls = it->second.urls;
      // The address that works comes first.
      const StreamRef& stream = it->second.stream;
      if (stream != nullptr && stream->dialed() && stream->opened()) {
        std::stable_partition(urls.begin(), urls.end(), [&stream](const std::string& url) {
          return url == stream->remote();
        });
      }
    }
  }
  sender_.Send(std::move(snapshot), std::move(urls), std::move(done));
}

void PeerTransportImpl::SetMembership(const raft::Membership& membership) {
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, urls] : membership.peer_urls) {
      if (id != options_.self && membership.Contains(id)) AddMember(id, urls);
    }
    for (auto it = peers_.begin(); it != peers_.end();) {
      auto& [id, peer] = *it;
      if (peer.member && !membership.Contains(id)) DropMember(id, &peer);
      const bool unused = !peer.member && peer.stream == nullptr;
      it = unused ? peers_.erase(it) : std::next(it);
    }
  }
  wakeup_.Wake();
}

void PeerTransportImpl::AddMember(NodeId id, const std::vector<std::string>& urls) {
  removed_.erase(id);
  Peer& peer = peers_[id];
  std::vector<std::string> usable;
  for (const std::string& url : urls) {
    const absl::StatusOr<std::string> target = PeerTarget(url);
    if (target.ok()) {
      usable.push_back(url);
    } else {
      LOG_WARN("member {} cannot be dialed there: {}", id.value, base::Message(target.status()));
    }
  }
  if (!peer.member) {
    peer.member = true;
    peer.dial_at = SteadyNow() + (options_.self < id ? SteadyTime::duration::zero()
                                                     : ToSteady(kReverseDialAfter));
  }
  if (peer.urls == usable) return;
  peer.urls = std::move(usable);
  peer.next_url = 0;
  if (peer.stream != nullptr && peer.stream->dialed() &&
      std::count(peer.urls.begin(), peer.urls.end(), peer.stream->remote()) == 0) {
    peer.stream->Close(absl::AbortedError("the member's peer URL has changed"));
  }
}

void PeerTransportImpl::DropMember(NodeId id, Peer* peer) {
  if (removed_.size() < kMaxRemovedRemembered) removed_.insert(id);
  peer->member = false;
  peer->urls.clear();
  const absl::Status why = absl::AbortedError("it is no longer a member");
  if (peer->next != nullptr) peer->next->Close(why);
  if (peer->stream != nullptr) peer->stream->Close(why);
}

// --- streams ---

grpc::ServerBidiReactor<Frame, Frame>* PeerTransportImpl::Accept(
    grpc::CallbackServerContext* context) {
  if (node_.load() == nullptr) {
    return new RefusedStream(ToGrpc(absl::UnavailableError("this member is starting")));
  }
  absl::MutexLock lock(&mutex_);
  if (stopping_) {
    return new RefusedStream(ToGrpc(absl::UnavailableError("this member is stopping")));
  }
  if (live_.size() >= kMaxStreams) {
    return new RefusedStream(ToGrpc(absl::ResourceExhaustedError("too many peer streams")));
  }
  auto stream = std::make_shared<AcceptedStream>(options_, this, context);
  live_.emplace(stream.get(), stream);
  stream->Start();
  return stream.get();
}

absl::StatusOr<bool> PeerTransportImpl::Admit(PeerStream* stream) {
  const NodeId id = stream->peer();
  if (stopping_) return absl::UnavailableError("this member is stopping");
  if (removed_.contains(id)) {
    return absl::FailedPreconditionError(
        base::ToAbsl(fmt::format("member {} was removed from the cluster", id.value)));
  }
  if (stream->dialed()) return true;  // it has been its peer's stream since it was dialed
  if (!peers_.contains(id) && CountStrangers() >= kMaxStrangers) {
    return absl::ResourceExhaustedError("too many streams of members that are not known here");
  }
  Peer& peer = peers_[id];
  const StreamRef& ref = live_.at(stream);
  if (peer.stream == nullptr) {
    peer.stream = ref;
    return true;
  }
  if (options_.self < id && peer.stream->dialed() && peer.stream->opened()) {
    return absl::AlreadyExistsError(base::ToAbsl(
        fmt::format("member {} has dialed member {} itself", options_.self.value, id.value)));
  }
  const absl::Status why = absl::AbortedError("replaced by a newer stream of the same member");
  if (peer.next != nullptr) peer.next->Close(why);
  peer.next = ref;
  peer.stream->Close(why);
  return false;
}

void PeerTransportImpl::OnGreeted(PeerStream* stream) {
  absl::StatusOr<bool> admitted = false;
  bool open = false;
  {
    absl::MutexLock lock(&mutex_);
    admitted = Admit(stream);
    open = admitted.ok() && *admitted && stream->BeginOpen();
  }
  if (!admitted.ok()) {
    stream->Refuse(admitted.status());
  } else if (open) {
    Announce(stream);
  }
}

void PeerTransportImpl::Announce(PeerStream* stream) {
  LOG_INFO("connected to member {} ({} {})", stream->peer().value,
           stream->dialed() ? "dialed" : "accepted from", stream->remote());
  node_.load()->OnPeerConnected(stream->peer());
  stream->FinishOpen();
}

void PeerTransportImpl::OnMessages(std::vector<raft::Message> messages) {
  node_.load()->Receive(std::move(messages));
}

void PeerTransportImpl::OnStreamDone(PeerStream* stream, const absl::Status& why) {
  LogEnd(*stream, why);
  if (stream->opened()) node_.load()->OnPeerLost(stream->peer());
  StreamRef successor;  // an accepted one, which any thread may destroy
  {
    absl::MutexLock lock(&mutex_);
    successor = Succeed(stream);
  }
  if (successor != nullptr) Announce(successor.get());
  wakeup_.Wake();
  absl::MutexLock lock(&mutex_);
  auto it = live_.find(stream);
  dead_.push_back(std::move(it->second));
  live_.erase(it);
}

PeerTransportImpl::StreamRef PeerTransportImpl::Succeed(PeerStream* stream) {
  auto it = peers_.find(stream->peer());
  if (it == peers_.end()) return nullptr;
  Peer& peer = it->second;
  if (peer.next.get() == stream) peer.next = nullptr;
  if (peer.stream.get() != stream) return nullptr;
  peer.stream = std::exchange(peer.next, nullptr);
  // One that is ending already has its own OnStreamDone, which comes here again.
  if (peer.stream != nullptr) return peer.stream->BeginOpen() ? peer.stream : nullptr;
  if (!peer.member) {
    peers_.erase(it);
  } else {
    ScheduleDial(it->first, *stream, &peer);
  }
  return nullptr;
}

void PeerTransportImpl::ScheduleDial(NodeId id, const PeerStream& stream, Peer* peer) {
  if (stream.opened()) {
    peer->backoff = options_.reconnect_min;
  } else {
    peer->backoff = std::clamp(peer->backoff * 2, options_.reconnect_min, options_.reconnect_max);
    ++peer->next_url;
  }
  peer->dial_at = SteadyNow() + ToSteady(options_.self < id ? peer->backoff : kReverseDialAfter);
}

void PeerTransportImpl::LogEnd(const PeerStream& stream, const absl::Status& why) {
  if (stream.opened()) {
    LOG_INFO("lost member {}: {}", stream.peer().value, base::Message(why));
    return;
  }
  // An accepted stream that has not said who it is ends with its connection: no news.
  if (stream.peer() == NodeId() && why.code() == absl::StatusCode::kUnavailable) return;
  if (!warnings_.Allow(stream.peer())) return;
  if (stream.dialed()) {
    LOG_WARN("no stream to member {} at {}: {}", stream.peer().value, stream.remote(),
             base::Message(why));
  } else {
    LOG_WARN("peer stream from {} refused: {}", stream.remote(), base::Message(why));
  }
}

size_t PeerTransportImpl::CountStrangers() const {
  return std::count_if(peers_.begin(), peers_.end(),
                       [](const auto& item) { return !item.second.member; });
}

// --- housekeeping thread ---

void PeerTransportImpl::HousekeepingLoop() {
  while (housekeeping_.load()) {
    const SteadyTime now = SteadyNow();
    Housekeep(now);
    SteadyTime next;
    {
      absl::MutexLock lock(&mutex_);
      next = NextWake(now);
    }
    wakeup_.WaitUntil(next);
  }
}

void PeerTransportImpl::Housekeep(SteadyTime now) {
  std::vector<StreamRef> dead;
  std::vector<std::shared_ptr<DialedStream>> dialing;
  {
    absl::MutexLock lock(&mutex_);
    dead.swap(dead_);
    for (const auto& [stream, ref] : live_) {
      if (stream->greeting() && now - stream->created() > ToSteady(kGreetingTimeout)) {
        stream->Close(absl::DeadlineExceededError("no hello came in time"));
      }
    }
    if (!stopping_ && node_.load() != nullptr) dialing = DialDue(now);
  }
  dead.clear();
  // In live_ already: Stop waits for them. A stream closed meanwhile ends by itself.
  for (const std::shared_ptr<DialedStream>& stream : dialing) stream->Start();
  sender_.Tend(now);
}

std::vector<std::shared_ptr<DialedStream>> PeerTransportImpl::DialDue(SteadyTime now) {
  std::vector<std::shared_ptr<DialedStream>> dialing;
  for (auto& [id, peer] : peers_) {
    if (!peer.member || peer.urls.empty() || peer.stream != nullptr || now < peer.dial_at) continue;
    const std::string& url = peer.urls[peer.next_url % peer.urls.size()];
    auto stream = std::make_shared<DialedStream>(options_, this, id, url);
    peer.stream = stream;
    live_.emplace(stream.get(), stream);
    dialing.push_back(std::move(stream));
  }
  return dialing;
}

SteadyTime PeerTransportImpl::NextWake(SteadyTime now) const {
  SteadyTime next = now + ToSteady(kHousekeepingInterval);
  if (stopping_ || node_.load() == nullptr) return next;
  for (const auto& [id, peer] : peers_) {
    const bool waits_to_dial = peer.member && !peer.urls.empty() && peer.stream == nullptr;
    if (waits_to_dial) next = std::min(next, peer.dial_at);
  }
  return next;
}

void PeerTransportImpl::StopOnce() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (const auto& [stream, ref] : live_) {
      stream->Close(absl::AbortedError("this member is stopping"));
    }
  }
  receiver_.Stop();
  sender_.Stop();
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](PeerTransportImpl* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->live_.empty(); },
        this));
    for (auto& [id, peer] : peers_) peer.stream = peer.next = nullptr;
  }
  housekeeping_.store(false);
  wakeup_.Wake();
  housekeeper_.join();
  std::vector<StreamRef> dead;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  dead.swap(dead_);
}

absl::Status Validate(const PeerTransport::Options& options) {
  constexpr size_t kMaxFrameBytes = size_t{1} << 30;
  if (options.self == NodeId()) return absl::InvalidArgumentError("peer transport: self is 0");
  if (options.snapshot_dir.empty()) {
    return absl::InvalidArgumentError("peer transport: snapshot_dir is empty");
  }
  if (options.max_frame_bytes == 0 || options.max_frame_bytes > kMaxFrameBytes) {
    return absl::InvalidArgumentError("peer transport: max_frame_bytes must be in (0, 1 GiB]");
  }
  if (options.snapshot_chunk_bytes == 0 || options.snapshot_chunk_bytes > options.max_frame_bytes) {
    return absl::InvalidArgumentError(
        "peer transport: snapshot_chunk_bytes must be in (0, max_frame_bytes]");
  }
  if (options.reconnect_min <= absl::ZeroDuration() ||
      options.reconnect_max < options.reconnect_min) {
    return absl::InvalidArgumentError("peer transport: 0 < reconnect_min <= reconnect_max");
  }
  if (options.keepalive < absl::Milliseconds(10)) {
    return absl::InvalidArgumentError("peer transport: keepalive must be at least 10 ms");
  }
  return absl::OkStatus();
}

// What lies there was being received when the process ended: nobody will ask for it.
absl::Status EmptyDirectory(const std::string& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    std::filesystem::remove_all(it->path(), error);
    if (error) break;
  }
  if (!error) return absl::OkStatus();
  return absl::InternalError(base::ToAbsl(
      fmt::format("cannot create or empty the snapshot directory {}: {}", dir, error.message())));
}

}  // namespace

absl::StatusOr<std::unique_ptr<PeerTransport>> PeerTransport::Create(const Options& options) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  if (absl::Status status = EmptyDirectory(options.snapshot_dir); !status.ok()) return status;
  return std::make_unique<PeerTransportImpl>(options);
}

}  // namespace holdfast::server
