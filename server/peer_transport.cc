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
#include "server/peer_disks.h"
#include "server/peer_snapshot_receiver.h"
#include "server/peer_snapshot_sender.h"
#include "server/peer_stream.h"

namespace holdfast::server {
namespace {

// A frame as it stands on the wire (peer_codec.h).
using Frame = grpc::ByteBuffer;

constexpr absl::Duration kReverseDialAfter = absl::Seconds(2);
// From the creation of a stream to the peer's Hello, connecting included.
constexpr absl::Duration kGreetingTimeout = absl::Seconds(3);
constexpr absl::Duration kHousekeepingInterval = absl::Seconds(1);
constexpr absl::Duration kWarnInterval = absl::Seconds(10);
constexpr absl::Duration kSameRefusalInterval = absl::Minutes(10);
// Begins the answer to a member that was removed, and is known by it.
constexpr std::string_view kRemovedText = "this member was removed from the cluster";
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

// One line in kWarnInterval for each peer that cannot be reached, and one for each new reason to be
// refused; a cluster that is set up wrongly redials for ever.
class WarnLimiter {
 public:
  // `refusal`: empty if there was none.
  bool Allow(NodeId peer, std::string_view refusal) {
    const SteadyTime now = SteadyNow();
    absl::MutexLock lock(&mutex_);
    if (last_.size() >= kMaxRemovedRemembered) last_.clear();
    Last& last = last_[peer];
    if (now < last.next && last.refusal == refusal) return false;
    last.next = now + ToSteady(refusal.empty() ? kWarnInterval : kSameRefusalInterval);
    last.refusal = refusal;
    return true;
  }

 private:
  struct Last {
    SteadyTime next;
    std::string refusal;
  };
  absl::Mutex mutex_;
  std::map<NodeId, Last> last_ ABSL_GUARDED_BY(mutex_);
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
      : options_(options),
        disks_(options.peer_disks_path),
        receiver_(options),
        sender_(options, {.urls = [this](NodeId to) { return UrlsOf(to); },
                          .leads_in = [this](Term term) { return LeadsIn(term); }}),
        service_(this) {
    housekeeper_ = std::thread([this] { HousekeepingLoop(); });
  }
  ~PeerTransportImpl() override { Stop(); }

  absl::Status OpenReceiver() { return receiver_.Open(); }

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

  class Service final
      : public raft::v1::Peer::WithRawCallbackMethod_Stream<raft::v1::Peer::Service> {
   public:
    explicit Service(PeerTransportImpl* transport) : transport_(transport) {}
    grpc::ServerBidiReactor<Frame, Frame>* Stream(grpc::CallbackServerContext* context) override {
      return transport_->Accept(context);
    }
    grpc::Status InstallSnapshot(grpc::ServerContext* context,
                                 SnapshotReceiver::Stream* stream) override {
      return transport_->receiver_.Receive(context, stream);
    }

   private:
    PeerTransportImpl* const transport_;
  };

  void OnGreeted(PeerStream* stream) override;
  void OnMessages(std::vector<raft::Message> messages) override;
  void OnStreamDone(PeerStream* stream, const absl::Status& why) override;

  grpc::ServerBidiReactor<Frame, Frame>* Accept(grpc::CallbackServerContext* context);
  // OK: `stream` is now its peer's stream or its next one; true if it is to be opened at once.
  absl::StatusOr<bool> Admit(PeerStream* stream, const raft::NodeStatus& status,
                             const absl::Status& disk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckNotRemoved(NodeId id, const raft::NodeStatus& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // May write to the disk.
  absl::Status CheckDisk(const PeerStream& stream);
  void Announce(PeerStream* stream);
  // The peer's stream is over; returns the one that takes its place, with BeginOpen done.
  StreamRef Succeed(PeerStream* stream, bool refused) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ScheduleDial(NodeId id, const PeerStream& stream, bool refused, Peer* peer)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LogEnd(const PeerStream& stream, const absl::Status& why);
  void AddMember(NodeId id, const std::vector<std::string>& urls)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DropMember(NodeId id, bool removed, Peer* peer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseRemoved(const raft::NodeStatus& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseForgetful() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t CountStrangers() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What the snapshot sender asks, on its threads.
  std::vector<std::string> UrlsOf(NodeId to);
  bool LeadsIn(Term term) const;

  void StopOnce();
  void HousekeepingLoop();
  void Housekeep(SteadyTime now);
  std::vector<std::shared_ptr<DialedStream>> DialDue(SteadyTime now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  SteadyTime NextWake(SteadyTime now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those that nobody else holds: whoever sends at this moment may be a gRPC thread, and must not
  // be the last to let go.
  std::vector<StreamRef> TakeDead() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::atomic<raft::RaftNode*> node_{nullptr};
  PeerDisks disks_;
  SnapshotReceiver receiver_;
  SnapshotSender sender_;
  Service service_;
  WarnLimiter warnings_;
  std::once_flag stop_once_;
  std::atomic<bool> told_removed_{false};

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  PeerMap peers_ ABSL_GUARDED_BY(mutex_);
  // Members once and no more: they are not let in again.
  std::set<NodeId> removed_ ABSL_GUARDED_BY(mutex_);
  // Where the log ended when a removal was first seen here: committed up to there, the removal is.
  std::map<NodeId, Index> removal_seen_ ABSL_GUARDED_BY(mutex_);
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

// --- whoever has the node's turn, and the log thread ---

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
  sender_.Send(std::move(snapshot), std::move(done));
}

std::vector<std::string> PeerTransportImpl::UrlsOf(NodeId to) {
  absl::MutexLock lock(&mutex_);
  const auto it = peers_.find(to);
  if (it == peers_.end()) return {};
  std::vector<std::string> urls = it->second.urls;
  // The address that works comes first.
  const StreamRef& stream = it->second.stream;
  if (stream != nullptr && stream->dialed() && stream->opened()) {
    std::stable_partition(urls.begin(), urls.end(),
                          [&stream](const std::string& url) { return url == stream->remote(); });
  }
  return urls;
}

bool PeerTransportImpl::LeadsIn(Term term) const {
  const raft::RaftNode* node = node_.load();
  if (node == nullptr) return true;  // it has asked, and will be set in a moment
  const raft::NodeStatus status = node->status();
  return status.role == raft::Role::kLeader && status.term == term;
}

void PeerTransportImpl::SetMembership(const raft::Membership& membership) {
  {
    absl::MutexLock lock(&mutex_);
    const auto own = membership.peer_urls.find(options_.self);
    for (const auto& [id, urls] : membership.peer_urls) {
      if (id == options_.self || !membership.Contains(id)) continue;
      std::vector<std::string> others = urls;
      // A member that this one replaces at its own address: nobody is there but we.
      std::erase_if(others, [&](const std::string& url) {
        return own != membership.peer_urls.end() &&
               std::count(own->second.begin(), own->second.end(), url) > 0;
      });
      AddMember(id, others);
    }
    for (auto it = peers_.begin(); it != peers_.end();) {
      auto& [id, peer] = *it;
      if (peer.member && !membership.Contains(id)) DropMember(id, membership.Removed(id), &peer);
      const bool unused = !peer.member && peer.stream == nullptr;
      it = unused ? peers_.erase(it) : std::next(it);
    }
    // A removal that was cut off the log again.
    std::erase_if(removal_seen_,
                  [&membership](const auto& seen) { return !membership.Removed(seen.first); });
  }
  disks_.Forget(membership.removed);
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
      LOG_WARN("member {:x} cannot be dialed there: {}", id.value, base::Message(target.status()));
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
  if (peer.stream == nullptr && options_.self < id) peer.dial_at = SteadyNow();
  if (peer.stream != nullptr && peer.stream->dialed() &&
      std::count(peer.urls.begin(), peer.urls.end(), peer.stream->remote()) == 0) {
    peer.stream->Close(absl::AbortedError("the member's peer URL has changed"));
  }
}

// The streams of a member that was removed stand until the removal is committed (CloseRemoved): a
// leader that leaves has to bring about just that.
void PeerTransportImpl::DropMember(NodeId id, bool removed, Peer* peer) {
  peer->member = false;
  peer->urls.clear();
  if (removed) return;
  if (removed_.size() < kMaxRemovedRemembered) removed_.insert(id);
  const absl::Status why = absl::AbortedError("it is no longer a member");
  if (peer->next != nullptr) peer->next->Close(why);
  if (peer->stream != nullptr) peer->stream->Close(why);
}

void PeerTransportImpl::CloseRemoved(const raft::NodeStatus& status) {
  for (const auto& [id, peer] : peers_) {
    if (peer.member) continue;
    const absl::Status why = CheckNotRemoved(id, status);
    if (!absl::IsPermissionDenied(why)) continue;
    if (peer.next != nullptr) peer.next->Close(why);
    if (peer.stream != nullptr) peer.stream->Close(why);
  }
}

// The log was replayed since they greeted, and the store tells another disk now.
void PeerTransportImpl::CloseForgetful() {
  if (!options_.published_disk) return;
  for (const auto& [id, peer] : peers_) {
    if (peer.stream == nullptr || !peer.stream->opened()) continue;
    const uint64_t published = options_.published_disk(id);
    if (published == 0 || peer.stream->peer_disk() == published) continue;
    peer.stream->Close(absl::FailedPreconditionError(
        base::ToAbsl(fmt::format("member {:x} has lost its data", id.value))));
  }
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

// A membership counts from the moment it is in the log, but a member must not stop for good over a
// removal that may yet be undone: only a committed one is told as final.
absl::Status PeerTransportImpl::CheckNotRemoved(NodeId id, const raft::NodeStatus& status) {
  if (status.membership != nullptr && status.membership->Removed(id)) {
    const Index seen = removal_seen_.try_emplace(id, status.last).first->second;
    if (status.commit >= seen) {
      return absl::PermissionDeniedError(
          base::ToAbsl(fmt::format("{}, says member {:x}", kRemovedText, options_.self.value)));
    }
    return absl::OkStatus();  // the change may still need it, and may be undone
  }
  if (!removed_.contains(id)) return absl::OkStatus();
  // Its coming was cut off the log, perhaps to come again.
  return absl::UnavailableError(
      base::ToAbsl(fmt::format("member {:x} is no longer a member of the cluster", id.value)));
}

// What a member has published counts; before that, or before it is known here, what it had when it
// was first met.
absl::Status PeerTransportImpl::CheckDisk(const PeerStream& stream) {
  const NodeId id = stream.peer();
  const uint64_t published = options_.published_disk ? options_.published_disk(id) : 0;
  const uint64_t known = published != 0 ? published : disks_.Of(id);
  if (known != 0 && stream.peer_disk() != known) {
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "member {:x} has lost its data (disk id {:x} instead of {:x}) and must not take part under "
        "its old id, for it may have forgotten a vote: run `holdfastctl member replace {:x}`",
        id.value, stream.peer_disk(), known, id.value)));
  }
  return stream.peer_disk() == 0 ? absl::OkStatus() : disks_.Note(id, stream.peer_disk());
}

absl::StatusOr<bool> PeerTransportImpl::Admit(PeerStream* stream, const raft::NodeStatus& status,
                                              const absl::Status& disk) {
  const NodeId id = stream->peer();
  if (stopping_) return absl::UnavailableError("this member is stopping");
  if (absl::Status removed = CheckNotRemoved(id, status); !removed.ok()) return removed;
  if (!disk.ok()) return disk;
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
        fmt::format("member {:x} has dialed member {:x} itself", options_.self.value, id.value)));
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
  const raft::NodeStatus status = node_.load()->status();
  const absl::Status disk = CheckDisk(*stream);
  {
    absl::MutexLock lock(&mutex_);
    admitted = Admit(stream, status, disk);
    open = admitted.ok() && *admitted && stream->BeginOpen();
  }
  if (!admitted.ok()) {
    stream->Refuse(admitted.status());
  } else if (open) {
    Announce(stream);
  }
}

void PeerTransportImpl::Announce(PeerStream* stream) {
  LOG_INFO("connected to member {:x} ({} {})", stream->peer().value,
           stream->dialed() ? "dialed" : "accepted from", stream->remote());
  node_.load()->OnPeerConnected(stream->peer());
  stream->FinishOpen();
}

void PeerTransportImpl::OnMessages(std::vector<raft::Message> messages) {
  node_.load()->Receive(std::move(messages));
}

void PeerTransportImpl::OnStreamDone(PeerStream* stream, const absl::Status& why) {
  LogEnd(*stream, why);
  const bool removed = stream->refused_by_peer() && absl::IsPermissionDenied(why) &&
                       base::Message(why).starts_with(kRemovedText);
  if (removed && !told_removed_.exchange(true) && options_.on_removed) options_.on_removed();
  if (stream->opened()) node_.load()->OnPeerLost(stream->peer());
  StreamRef successor;  // an accepted one, which any thread may destroy
  {
    absl::MutexLock lock(&mutex_);
    successor = Succeed(stream, removed || absl::IsFailedPrecondition(why));
  }
  if (successor != nullptr) Announce(successor.get());
  wakeup_.Wake();
  absl::MutexLock lock(&mutex_);
  auto it = live_.find(stream);
  dead_.push_back(std::move(it->second));
  live_.erase(it);
}

PeerTransportImpl::StreamRef PeerTransportImpl::Succeed(PeerStream* stream, bool refused) {
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
    ScheduleDial(it->first, *stream, refused, &peer);
  }
  return nullptr;
}

void PeerTransportImpl::ScheduleDial(NodeId id, const PeerStream& stream, bool refused,
                                     Peer* peer) {
  absl::Duration wait;
  if (stream.opened()) {
    wait = peer->backoff = options_.reconnect_min;
  } else {
    wait = peer->backoff =
        std::clamp(peer->backoff * 2, options_.reconnect_min, options_.reconnect_max);
    // Another of its URLs may be the right one; only when all were tried it is time to wait.
    ++peer->next_url;
    if (refused && peer->next_url % std::max<size_t>(1, peer->urls.size()) == 0) {
      wait = options_.refused_redial;
    }
  }
  if (id < options_.self) wait = std::max(wait, kReverseDialAfter);
  peer->dial_at = SteadyNow() + ToSteady(wait);
}

void PeerTransportImpl::LogEnd(const PeerStream& stream, const absl::Status& why) {
  if (stream.opened()) {
    LOG_INFO("lost member {:x}: {}", stream.peer().value, base::Message(why));
    return;
  }
  // An accepted stream that has not said who it is ends with its connection: no news.
  if (stream.peer() == NodeId() && why.code() == absl::StatusCode::kUnavailable) return;
  const bool unreachable = why.code() == absl::StatusCode::kUnavailable;
  if (!warnings_.Allow(stream.peer(), unreachable ? "" : base::Message(why))) return;
  if (stream.dialed()) {
    LOG_WARN("no stream to member {:x} at {}: {}", stream.peer().value, stream.remote(),
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
  const raft::RaftNode* const node = node_.load();
  const raft::NodeStatus status = node != nullptr ? node->status() : raft::NodeStatus();
  std::vector<StreamRef> dead;
  std::vector<std::shared_ptr<DialedStream>> dialing;
  {
    absl::MutexLock lock(&mutex_);
    dead = TakeDead();
    for (const auto& [stream, ref] : live_) {
      if (stream->greeting() && now - stream->created() > ToSteady(kGreetingTimeout)) {
        stream->Close(absl::DeadlineExceededError("no hello came in time"));
      }
    }
    CloseRemoved(status);
    CloseForgetful();
    if (!stopping_ && node != nullptr) dialing = DialDue(now);
  }
  dead.clear();
  // In live_ already: Stop waits for them. A stream closed meanwhile ends by itself.
  for (const std::shared_ptr<DialedStream>& stream : dialing) stream->Start();
  sender_.Tend(now);
  receiver_.Tend(now);
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

std::vector<PeerTransportImpl::StreamRef> PeerTransportImpl::TakeDead() {
  const auto held = std::stable_partition(
      dead_.begin(), dead_.end(), [](const StreamRef& ref) { return ref.use_count() == 1; });
  std::vector<StreamRef> dead(std::make_move_iterator(dead_.begin()),
                              std::make_move_iterator(held));
  dead_.erase(dead_.begin(), held);
  return dead;
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
  {
    absl::MutexLock lock(&mutex_);
    dead.swap(dead_);
  }
  // Whoever is still within Send (it never waits) must not be the last to let go: see TakeDead.
  for (const StreamRef& ref : dead) {
    while (ref.use_count() > 1) std::this_thread::yield();
  }
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

}  // namespace

absl::StatusOr<std::unique_ptr<PeerTransport>> PeerTransport::Create(const Options& options) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  auto transport = std::make_unique<PeerTransportImpl>(options);
  if (absl::Status status = transport->OpenReceiver(); !status.ok()) return status;
  return transport;
}

}  // namespace holdfast::server
