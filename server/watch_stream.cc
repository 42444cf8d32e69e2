// A stream's side of the hub: what clients ask, what time brings about, and the queue of answers.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "server/etcd_errors.h"
#include "server/watch_hub_impl.h"

namespace holdfast::server::watch {
namespace {

using etcdserverpb::WatchCreateRequest;
using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;

// etcd's id of what concerns no watch, or all of a stream.
constexpr int64_t kNoWatch = -1;
// A progress interval is stretched by up to a tenth (etcd's), so that streams spread.
constexpr int64_t kJitterPart = 10;

}  // namespace

// --- Outbox ---

size_t Outbox::Cost(const WatchMessage& message) {
  return message.bytes() + kMessageOverheadBytes + message.events.size() * sizeof(SharedBytes);
}

bool Outbox::HasRoom(size_t bytes) const {
  absl::MutexLock lock(&mutex_);
  if (bytes_ == 0) return true;
  return bytes_ + bytes <= limits_.stream_bytes && total_->load() + bytes <= limits_.total_bytes;
}

bool Outbox::IsDrained() const {
  absl::MutexLock lock(&mutex_);
  if (bytes_ == 0) return true;
  return bytes_ <= limits_.stream_bytes / 2 && total_->load() < limits_.total_bytes;
}

bool Outbox::IsOverLimit() const {
  absl::MutexLock lock(&mutex_);
  return bytes_ > limits_.stream_bytes;
}

void Outbox::Push(WatchMessage message) {
  absl::MutexLock lock(&mutex_);
  if (closed_) return;
  const size_t cost = Cost(message);
  bytes_ += cost;
  total_->fetch_add(cost);
  messages_.push_back(std::move(message));
}

bool Outbox::Next(WatchMessage* message) {
  absl::MutexLock lock(&mutex_);
  Release(std::exchange(taken_, 0));
  if (messages_.empty()) return false;
  *message = std::move(messages_.front());
  messages_.pop_front();
  taken_ = Cost(*message);
  return true;
}

void Outbox::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  messages_.clear();
  Release(bytes_);
  taken_ = 0;
}

size_t Outbox::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

void Outbox::Release(size_t bytes) {
  CHECK(bytes <= bytes_);
  bytes_ -= bytes;
  total_->fetch_sub(bytes);
}

// --- StreamState ---

StreamState::StreamState(WatchHubImpl* h, std::shared_ptr<WatchSink> s, bool leader)
    : hub(h), needs_leader(leader), outbox(h->limits(), h->queued_bytes()), sink(std::move(s)) {}

void StreamState::Handle(const WatchRequest& request) {
  switch (request.request_union_case()) {
    case WatchRequest::kCreateRequest:
      return hub->Create(*this, request.create_request());
    case WatchRequest::kCancelRequest:
      return hub->Cancel(*this, request.cancel_request().watch_id());
    case WatchRequest::kProgressRequest:
      return hub->RequestProgress(*this);
    case WatchRequest::kHoldfastMark:
      return hub->Mark(*this, request.holdfast_mark());
    case WatchRequest::REQUEST_UNION_NOT_SET:
      return;  // of a newer client
  }
}

void StreamState::Refuse(const absl::Status& why) { hub->Refuse(*this, why); }

bool StreamState::Next(WatchMessage* message) {
  const bool found = outbox.Next(message);
  if (has_lagging && outbox.IsDrained()) hub->WakeCatchUp();
  return found;
}

void StreamState::Close() { hub->Close(*this); }

// --- requests ---

absl::Status WatchHubImpl::CheckCreate(const StreamState& stream, const WatchRange& range,
                                       const WatchCreateRequest& request) const {
  // etcd's texts, which have no prefix here.
  if (range.empty()) return absl::InvalidArgumentError("mvcc: watcher range is empty");
  if (request.watch_id() != 0 && stream.watches.contains(request.watch_id())) {
    return absl::InvalidArgumentError("mvcc: duplicate watch ID provided on the WatchStream");
  }
  if (request.watch_id() == kNoWatch) {
    return absl::InvalidArgumentError("holdfast: watch ID -1 is not for watches");
  }
  if (request.start_revision() < 0) return ErrCompacted();
  if (stream.watches.size() >= limits().watches_per_stream) {
    return absl::ResourceExhaustedError("holdfast: too many watches on this stream");
  }
  if (watches_.load() >= limits().watches) {
    return absl::ResourceExhaustedError("holdfast: too many watches on this member");
  }
  const size_t key_bytes = range.begin.size() + range.end.size();
  if (stream.key_bytes + key_bytes > limits().key_bytes_per_stream) {
    return absl::ResourceExhaustedError("holdfast: too many bytes of keys watched on this stream");
  }
  return absl::OkStatus();
}

void WatchHubImpl::Create(StreamState& stream, const WatchCreateRequest& request) {
  WatchRange range = WatchRange::Of(request.key(), request.range_end());
  WatchTerms terms = {.prev_kv = request.prev_kv(),
                      .fragment = request.fragment(),
                      .progress_notify = request.progress_notify()};
  for (const int filter : request.filters()) {
    terms.no_put |= filter == WatchCreateRequest::NOPUT;
    terms.no_delete |= filter == WatchCreateRequest::NODELETE;
  }
  const int64_t applied = member_.machine->applied_state().revision;
  Sinks sinks;
  {
    absl::MutexLock lock(&mutex_);
    if (stream.sink == nullptr) return;
    const absl::Status checked = CheckCreate(stream, range, request);
    if (checked.ok()) {
      terms.id = request.watch_id();
      if (terms.id == 0) {
        while (stream.watches.contains(stream.next_id)) ++stream.next_id;
        terms.id = stream.next_id++;
      }
      auto watch = std::make_shared<Watch>(std::move(range), terms, &stream);
      stream.watches[terms.id] = watch;
      stream.key_bytes += watch->key_bytes();
      watches_.fetch_add(1);
      if (terms.prev_kv) previous_watches_.fetch_add(1);
      // Not below what any answer of this member has shown: that is the past.
      const int64_t now = std::max(applied, dispatched_);
      WatchResponse created;
      created.set_created(true);
      PushControl(stream, terms.id, now, created);
      if (request.start_revision() == 0) watch->caught_up = now;
      Place(*watch, request.start_revision() == 0 ? now + 1 : request.start_revision());
      if (terms.progress_notify && stream.notified_watches++ == 0) PlanProgress(stream);
    } else {
      PushRefusal(stream, checked);
    }
    sinks = TakeSinks();
  }
  Wake(sinks);
}

void WatchHubImpl::Refuse(StreamState& stream, const absl::Status& why) {
  Sinks sinks;
  {
    absl::MutexLock lock(&mutex_);
    PushRefusal(stream, why);
    sinks = TakeSinks();
  }
  Wake(sinks);
}

void WatchHubImpl::PushRefusal(StreamState& stream, const absl::Status& why) {
  WatchResponse response;
  response.set_created(true);
  response.set_canceled(true);
  response.set_cancel_reason(std::string(base::Message(why)));
  PushControl(stream, kNoWatch, dispatched_, response);
}

void WatchHubImpl::Cancel(StreamState& stream, int64_t watch_id) {
  Sinks sinks;
  {
    absl::MutexLock lock(&mutex_);
    if (!stream.watches.contains(watch_id)) return;
    Forget(stream, watch_id);
    WatchResponse response;
    response.set_canceled(true);
    PushControl(stream, watch_id, dispatched_, response);
    AnswerProgress();
    sinks = TakeSinks();
  }
  Wake(sinks);
}

void WatchHubImpl::RequestProgress(StreamState& stream) {
  // What the client may have seen before it asked is covered by the answer.
  const int64_t applied = member_.machine->applied_state().revision;
  Sinks sinks;
  bool owed = false;
  {
    absl::MutexLock lock(&mutex_);
    if (stream.sink == nullptr) return;
    stream.progress_owed = std::max(stream.progress_owed, applied);
    if (progress_owed_.insert(&stream).second) progress_waiting_.fetch_add(1);
    AnswerProgress();
    owed = stream.progress_owed != 0;
    sinks = TakeSinks();
  }
  Wake(sinks);
  if (owed) WakeDispatch();
}

void WatchHubImpl::AnswerProgress() {
  for (auto it = progress_owed_.begin(); it != progress_owed_.end();) {
    StreamState& stream = **it;
    if (!TryProgress(stream)) {
      ++it;
      continue;
    }
    it = progress_owed_.erase(it);
    progress_waiting_.fetch_sub(1);
  }
}

// With the answer the client may resume every watch behind `dispatched_`: so none may lag, and none
// may start behind it (it would then hear of events that it did not ask for).
bool WatchHubImpl::TryProgress(StreamState& stream) {
  if (!stream.lagging.empty() || dispatched_ < stream.progress_owed) return false;
  for (const auto& [id, watch] : stream.watches) {
    // Looked at again when it can be.
    stream.progress_owed = std::max(stream.progress_owed, watch->next - 1);
  }
  if (dispatched_ < stream.progress_owed) return false;
  stream.progress_owed = 0;
  WatchMessage message;
  message.head = EncodeHead(Head(kNoWatch, dispatched_));
  Push(stream, std::move(message));
  return true;
}

// Freshness W1: behind every matching event up to its delivered revision, because it goes into the
// same queue under the lock under which those did.
void WatchHubImpl::Mark(StreamState& stream, const etcdserverpb::WatchMark& mark) {
  Sinks sinks;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = stream.watches.find(mark.watch_id());
    if (it == stream.watches.end()) return;
    const int64_t delivered = Delivered(*it->second);
    WatchResponse response;
    etcdserverpb::WatchBookmark* bookmark = response.mutable_holdfast_bookmark();
    bookmark->set_nonce(mark.nonce());
    bookmark->set_delivered_revision(delivered);
    bookmark->set_incarnation(member_.machine->incarnation());
    // Freshness F3: a claim of an index that is delivered. Evaluated now; what comes after, the
    // client counts itself.
    std::optional<raft::Claim> claim;
    if (const auto index = IndexFor(delivered)) claim = member_.node->ClaimFor(*index);
    if (claim.has_value()) {
      const absl::Duration age = claim->AgeAt(member_.clock->Sample());
      bookmark->set_age_us(
          static_cast<uint64_t>(absl::ToInt64Microseconds(absl::Ceil(age, absl::Microseconds(1)))));
    }
    PushControl(stream, mark.watch_id(), delivered, response);
    sinks = TakeSinks();
  }
  Wake(sinks);
}

std::optional<Index> WatchHubImpl::IndexFor(int64_t delivered) const {
  const auto behind =
      std::upper_bound(indexes_.begin(), indexes_.end(), delivered,
                       [](int64_t revision, const auto& pair) { return revision < pair.first; });
  if (behind == indexes_.begin()) return std::nullopt;
  return (behind - 1)->second;
}

// --- time ---

void WatchHubImpl::PlanProgress(StreamState& stream) {
  progress_plan_.erase({stream.next_progress_ns, &stream});
  const int64_t interval = absl::ToInt64Nanoseconds(
      std::max(options_.progress_interval, WatchHub::kProgressIntervalMin));
  const auto jitter =
      static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(interval / kJitterPart) + 1));
  stream.next_progress_ns = member_.clock->Sample().boot_ns + interval + jitter;
  progress_plan_.insert({stream.next_progress_ns, &stream});
}

void WatchHubImpl::NotifyProgress(StreamState& stream) {
  for (const auto& [id, watch] : stream.watches) {
    if (!watch->terms.progress_notify) continue;
    // Events told as much. One that lags, or starts later, has no progress to tell of.
    if (std::exchange(watch->had_events, false)) continue;
    if (watch->state != Watch::State::kSynced || watch->next > dispatched_ + 1) continue;
    WatchMessage message;
    message.head = EncodeHead(Head(id, dispatched_));
    if (!stream.outbox.HasRoom(message.bytes())) return;
    Push(stream, std::move(message));
  }
}

void WatchHubImpl::Tick() {
  RefreshTerm();
  const raft::NodeStatus status = member_.node->status();
  const bool leaderless = status.leaderless >= kLeaderlessElections * options_.election_timeout;
  const absl::Status fence = options_.fence ? options_.fence() : absl::OkStatus();
  Sinks sinks;
  std::vector<std::pair<std::shared_ptr<WatchSink>, absl::Status>> ends;
  {
    absl::MutexLock lock(&mutex_);
    const int64_t now = member_.clock->Sample().boot_ns;
    while (!progress_plan_.empty() && progress_plan_.begin()->first <= now) {
      StreamState& stream = *progress_plan_.begin()->second;
      progress_plan_.erase(progress_plan_.begin());
      if (stream.notified_watches == 0) continue;
      NotifyProgress(stream);
      PlanProgress(stream);
    }
    if (leaderless || !fence.ok()) {
      for (const auto& [key, stream] : streams_) {
        if (stream->ended || (fence.ok() && !stream->needs_leader)) continue;
        stream->ended = true;
        ends.emplace_back(stream->sink, fence.ok() ? ErrNoLeader() : fence);
      }
    }
    sinks = TakeSinks();
  }
  for (const auto& [sink, why] : ends) sink->OnEnd(why);
  Wake(sinks);
}

// --- tests ---

void WatchHubImpl::CheckInvariants() const {
  absl::MutexLock lock(&mutex_);
  size_t watches = 0, lagging = 0, lagging_streams = 0, synced = 0, queued = 0;
  for (const auto& [key, stream] : streams_) {
    watches += stream->watches.size();
    lagging += stream->lagging.size();
    lagging_streams += stream->lagging.empty() ? 0 : 1;
    queued += stream->outbox.bytes();
    CHECK(stream->has_lagging == !stream->lagging.empty());
    CHECK(stream->in_lagging_streams == !stream->lagging.empty());
    for (const auto& [id, watch] : stream->watches) {
      CHECK(watch->state != Watch::State::kGone);
      if (watch->state == Watch::State::kSynced) ++synced;
      if (watch->state != Watch::State::kLagging) continue;
      CHECK(watch->next <= dispatched_);
      CHECK(stream->lagging.contains({watch->next, id}));
    }
  }
  CHECK(watches == watches_);
  CHECK(lagging == lagging_);
  CHECK(lagging_streams == lagging_streams_.size());
  CHECK(synced == index_.size());
  CHECK(queued == queued_bytes_);
  CHECK(recent_bytes_ <= limits().recent_bytes);
}

}  // namespace holdfast::server::watch
