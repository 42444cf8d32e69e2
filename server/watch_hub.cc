#include "server/watch_hub.h"

#include <sys/prctl.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/log.h"
#include "server/etcd_errors.h"
#include "server/watch_hub_impl.h"

namespace holdfast::server {

std::unique_ptr<WatchHub> WatchHub::Create(Options options) {
  return std::make_unique<watch::WatchHubImpl>(std::move(options));
}

namespace watch {
namespace {

// How late what time alone brings about may be.
constexpr auto kTick = std::chrono::milliseconds(100);
// Freshness F3 needs those of the claims that the node keeps (64), which are a heartbeat or more
// apart. A batch more often than every few milliseconds is rare: this covers seconds.
constexpr size_t kIndexesMax = 4096;

}  // namespace

WatchHubImpl::WatchHubImpl(Options options) : options_(std::move(options)), rng_(options_.seed) {}

// --- the apply thread ---

bool WatchHubImpl::WantsEvents() {
  // For the whole batch, so that a revision is not half of one kind.
  collecting_previous_ = previous_watches_.load(std::memory_order_relaxed) > 0;
  return watches_.load(std::memory_order_relaxed) > 0;
}

void WatchHubImpl::OnEvent(const storage::EventView& event) {
  if (collecting_overflow_) return;
  collecting_.emplace_back(event, collecting_previous_);
  collecting_bytes_ += collecting_.back().bytes();
  // More would not be kept anyway.
  if (collecting_bytes_ > options_.limits.pending_bytes) {
    collecting_overflow_ = true;
    collecting_.clear();
  }
}

void WatchHubImpl::OnApplied(const storage::AppliedState& state, const ApplyEffects& /*effects*/,
                             bool events) {
  AddPending(state, /*kept=*/events && !collecting_overflow_);
}

void WatchHubImpl::OnReplaced(const storage::AppliedState& state) {
  CHECK(collecting_.empty());
  AddPending(state, /*kept=*/false);
}

void WatchHubImpl::AddPending(const storage::AppliedState& state, bool kept) {
  const bool watched = watches_.load(std::memory_order_relaxed) > 0;
  {
    std::lock_guard lock(pending_mutex_);
    const bool changed = state.revision != pending_.state.revision;
    if (kept && pending_.bytes + collecting_bytes_ <= options_.limits.pending_bytes) {
      std::move(collecting_.begin(), collecting_.end(), std::back_inserter(pending_.events));
      pending_.bytes += collecting_bytes_;
    } else if (changed) {
      // The history has them.
      if (watched) gaps_.fetch_add(1, std::memory_order_relaxed);
      pending_.events.clear();
      pending_.bytes = 0;
      pending_.gap_through = state.revision;
    }
    pending_.state = state;
    if (watched || progress_waiting_.load(std::memory_order_relaxed) > 0) {
      if (!wake_dispatch_) pending_ready_.notify_one();
      wake_dispatch_ = true;
    }
  }
  collecting_.clear();
  collecting_bytes_ = 0;
  collecting_overflow_ = false;
}

// --- life ---

void WatchHubImpl::Start(const MemberView& member, bool threads) {
  member_ = member;
  RefreshTerm();
  {
    absl::MutexLock lock(&mutex_);
    const storage::AppliedState state = member_.machine->applied_state();
    dispatched_ = state.revision;
    recent_from_ = recent_previous_from_ = dispatched_ + 1;
    NoteState(state);
  }
  if (!threads) return;
  std::lock_guard lock(stop_mutex_);
  dispatcher_ = std::thread([this] { DispatchLoop(); });
  catcher_ = std::thread([this] { CatchUpLoop(); });
}

void WatchHubImpl::Stop() {
  Sinks sinks;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    for (auto& [key, stream] : streams_) {
      if (!stream->ended) sinks.push_back(stream->sink);
      stream->ended = true;
    }
  }
  for (const auto& sink : sinks) sink->OnEnd(ErrStopped());
  stopping_ = true;
  WakeDispatch();
  WakeCatchUp();
  std::lock_guard lock(stop_mutex_);
  if (dispatcher_.joinable()) dispatcher_.join();
  if (catcher_.joinable()) catcher_.join();
}

absl::StatusOr<std::shared_ptr<WatchStream>> WatchHubImpl::Open(std::shared_ptr<WatchSink> sink,
                                                                bool needs_leader) {
  auto stream = std::make_shared<StreamState>(this, std::move(sink), needs_leader);
  absl::MutexLock lock(&mutex_);
  if (closed_) return ErrStopped();
  if (streams_.size() >= limits().streams) return ErrTooManyRequests();
  streams_[stream.get()] = stream;
  return stream;
}

void WatchHubImpl::Close(StreamState& stream) {
  std::shared_ptr<StreamState> last;  // it may be the only reference
  std::shared_ptr<WatchSink> sink;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = streams_.find(&stream);
    if (it == streams_.end()) return;
    while (!stream.watches.empty()) Forget(stream, stream.watches.begin()->first);
    if (progress_owed_.erase(&stream) > 0) progress_waiting_.fetch_sub(1);
    progress_plan_.erase({stream.next_progress_ns, &stream});
    last = std::move(it->second);
    streams_.erase(it);
    sink = std::move(stream.sink);
    stream.outbox.Close();
  }
}

WatchStats WatchHubImpl::stats() const {
  absl::MutexLock lock(&mutex_);
  return {.streams = streams_.size(),
          .watches = watches_.load(),
          .lagging_watches = lagging_,
          .events_delivered = events_delivered_,
          .bytes_queued = queued_bytes_.load(),
          .catch_up_passes = passes_,
          .gaps = gaps_.load()};
}

// --- dispatch ---

void WatchHubImpl::WakeDispatch() {
  std::lock_guard lock(pending_mutex_);
  wake_dispatch_ = true;
  pending_ready_.notify_one();
}

void WatchHubImpl::DispatchLoop() {
  prctl(PR_SET_NAME, "hf-watch");
  auto next_tick = std::chrono::steady_clock::now() + kTick;
  while (!stopping_) {
    {
      std::unique_lock lock(pending_mutex_);
      pending_ready_.wait_until(lock, next_tick, [this] { return wake_dispatch_; });
      wake_dispatch_ = false;
    }
    bool more = true;
    while (more && !stopping_) {
      more = StepDispatch();
      if (std::chrono::steady_clock::now() < next_tick) continue;
      Tick();
      next_tick = std::chrono::steady_clock::now() + kTick;
    }
  }
}

void WatchHubImpl::RefreshTerm() {
  if (member_.node != nullptr) term_ = member_.node->status().term.value;
}

bool WatchHubImpl::TakePending() {
  if (current_.state.revision != 0) return true;
  std::lock_guard lock(pending_mutex_);
  std::swap(current_, pending_);
  return current_.state.revision != 0;
}

bool WatchHubImpl::StepDispatch() {
  if (!TakePending()) return false;
  RefreshTerm();
  Sinks sinks;
  {
    absl::MutexLock lock(&mutex_);
    DispatchChunk();
    AnswerProgress();
    sinks = TakeSinks();
  }
  Wake(sinks);
  return true;
}

// As many whole revisions as one hold of the lock may take.
void WatchHubImpl::DispatchChunk() {
  SkipGap(current_.gap_through);
  size_t events = 0, deliveries = 0;
  int64_t through = std::max(current_.state.revision, dispatched_);
  int64_t last = dispatched_;
  std::deque<EncodedEvent>& queue = current_.events;
  while (!queue.empty()) {
    const int64_t revision = queue.front().revision();
    const bool full = events >= limits().chunk_events || deliveries >= limits().chunk_deliveries;
    if (full && revision != last) {
      through = last;
      break;
    }
    CHECK(revision > dispatched_);
    CHECK(revision >= last);
    last = revision;
    EncodedEvent event = std::move(queue.front());
    queue.pop_front();
    deliveries += Collect(event);
    ++events;
    KeepRecent(std::move(event));
  }
  FlushTouched(through);
  dispatched_ = through;
  if (!queue.empty()) return;
  NoteState(current_.state);
  current_ = PendingBatch();
}

// Synced watches that need what was not kept find it in the history.
void WatchHubImpl::SkipGap(int64_t through) {
  if (through <= dispatched_) return;
  for (const auto& [key, stream] : streams_) {
    for (const auto& [id, watch] : stream->watches) {
      if (watch->state != Watch::State::kSynced || watch->next > through) continue;
      MakeLagging(*watch, std::max(watch->next, dispatched_ + 1));
    }
  }
  recent_.clear();
  recent_bytes_ = 0;
  recent_from_ = recent_previous_from_ = through + 1;
  dispatched_ = through;
}

// Gives the event to the batches of those who watch it; to how many.
size_t WatchHubImpl::Collect(const EncodedEvent& event) {
  found_.clear();
  index_.Find(event.key(), &found_);
  for (WatchIndex::Entry* entry : found_) {
    Watch& watch = static_cast<Watch&>(*entry);
    if (event.revision() < watch.next || watch.lag_from != 0) continue;
    if (!watch.terms.Wants(event.is_delete())) continue;
    if (watch.batch.empty()) touched_.push_back(&watch);
    if (watch.terms.prev_kv && !event.knows_previous()) {
      // Of a batch from before anybody asked for it; the history knows.
      watch.lag_from = event.revision();
      if (watch.batch.empty()) watch.batch.reserve(1);
      continue;
    }
    watch.batch.push_back(
        {event.revision(), watch.terms.prev_kv ? event.with_previous() : event.plain()});
  }
  return found_.size();
}

void WatchHubImpl::FlushTouched(int64_t through) {
  for (Watch* watch : touched_) {
    const int64_t lag_from = std::exchange(watch->lag_from, 0);
    std::optional<int64_t> stopped =
        Deliver(*watch, watch->batch, lag_from != 0 ? lag_from - 1 : through);
    if (!stopped.has_value() && lag_from != 0) stopped = lag_from;
    // Ten thousand watches that keep room for their busiest moment would add up.
    std::vector<Delivery>().swap(watch->batch);
    if (stopped.has_value()) MakeLagging(*watch, *stopped);
  }
  touched_.clear();
}

std::optional<int64_t> WatchHubImpl::Deliver(Watch& watch, const std::vector<Delivery>& events,
                                             int64_t through) {
  const Delivery* const all_end = events.data() + events.size();
  const Delivery* begin = events.data();
  while (begin != all_end) {
    const Delivery* end = begin;
    size_t bytes = 0;
    // Whole revisions, one at least.
    while (end != all_end) {
      const Delivery* next = end;
      size_t more = 0;
      for (; next != all_end && next->revision == end->revision; ++next) {
        more += next->bytes->size();
      }
      if (end != begin && bytes + more > limits().response_bytes) break;
      bytes += more;
      end = next;
    }
    if (!watch.stream->outbox.HasRoom(bytes)) return begin->revision;
    PushEvents(watch, begin, end, bytes, end == all_end ? through : (end - 1)->revision);
    begin = end;
  }
  return std::nullopt;
}

void WatchHubImpl::PushEvents(Watch& watch, const Delivery* begin, const Delivery* end,
                              size_t bytes, int64_t revision) {
  watch.had_events = true;
  events_delivered_ += static_cast<uint64_t>(end - begin);
  ResponseHead head = Head(watch.terms.id, revision);
  const bool split = watch.terms.fragment && bytes >= options_.max_request_bytes;
  while (begin != end) {
    WatchMessage message;
    const Delivery* part = begin;
    for (; part != end; ++part) {
      const size_t next = part->bytes->size();
      if (split && part != begin && message.event_bytes + next >= options_.max_request_bytes) break;
      message.events.push_back(part->bytes);
      message.event_bytes += next;
    }
    head.fragment = part != end;
    message.head = EncodeHead(head);
    Push(*watch.stream, std::move(message));
    begin = part;
  }
}

void WatchHubImpl::KeepRecent(EncodedEvent event) {
  if (event.revision() < recent_from_) return;  // of a revision that is too large to be kept
  if (!event.knows_previous()) {
    recent_previous_from_ = std::max(recent_previous_from_, event.revision() + 1);
  }
  recent_bytes_ += event.bytes();
  recent_.push_back(std::move(event));
  while (recent_bytes_ > limits().recent_bytes && !recent_.empty()) {
    const int64_t revision = recent_.front().revision();
    // No revision stays in part.
    while (!recent_.empty() && recent_.front().revision() == revision) {
      recent_bytes_ -= recent_.front().bytes();
      recent_.pop_front();
    }
    recent_from_ = revision + 1;
    recent_previous_from_ = std::max(recent_previous_from_, recent_from_);
  }
}

void WatchHubImpl::NoteState(const storage::AppliedState& state) {
  compact_revision_ = std::max(compact_revision_, state.compact_revision);
  if (state.revision < dispatched_) return;  // of before Start
  if (!indexes_.empty() && indexes_.back().first == state.revision) {
    indexes_.back().second = std::max(indexes_.back().second, state.index);
    return;
  }
  indexes_.emplace_back(state.revision, state.index);
  if (indexes_.size() > kIndexesMax) indexes_.pop_front();
}

// --- queues ---

void WatchHubImpl::Push(StreamState& stream, WatchMessage message) {
  stream.outbox.Push(std::move(message));
  if (stream.waking || stream.sink == nullptr) return;
  stream.waking = true;
  waking_streams_.push_back(&stream);
  waking_.push_back(stream.sink);
}

void WatchHubImpl::PushControl(StreamState& stream, int64_t watch_id, int64_t revision,
                               const etcdserverpb::WatchResponse& response) {
  // Answers to requests come between batches, where nothing else has looked at the term yet.
  RefreshTerm();
  WatchMessage message;
  message.head = EncodeControl(Head(watch_id, revision), response);
  Push(stream, std::move(message));
}

WatchHubImpl::Sinks WatchHubImpl::TakeSinks() {
  for (StreamState* stream : waking_streams_) stream->waking = false;
  waking_streams_.clear();
  return std::exchange(waking_, {});
}

void WatchHubImpl::Wake(const Sinks& sinks) {
  for (const auto& sink : sinks) sink->OnReady();
}

ResponseHead WatchHubImpl::Head(int64_t watch_id, int64_t revision) const {
  return {.cluster_id = member_.cluster_id,
          .member_id = member_.self.value,
          .raft_term = term_.load(std::memory_order_relaxed),
          .revision = revision,
          .watch_id = watch_id};
}

// --- states of a watch ---

void WatchHubImpl::AddSynced(Watch& watch) {
  watch.state = Watch::State::kSynced;
  index_.Insert(&watch);
}

void WatchHubImpl::AddLagging(Watch& watch, int64_t next) {
  StreamState& stream = *watch.stream;
  watch.state = Watch::State::kLagging;
  watch.next = next;
  stream.lagging.insert({next, watch.terms.id});
  stream.has_lagging = true;
  ++lagging_;
  if (!stream.in_lagging_streams) lagging_streams_.push_back(&stream);
  stream.in_lagging_streams = true;
  WakeCatchUp();
}

void WatchHubImpl::TakeOut(Watch& watch) {
  StreamState& stream = *watch.stream;
  if (watch.state == Watch::State::kSynced) index_.Remove(&watch);
  if (watch.state == Watch::State::kLagging) {
    CHECK(stream.lagging.erase({watch.next, watch.terms.id}) == 1);
    --lagging_;
    if (stream.lagging.empty()) {
      stream.has_lagging = false;
      stream.in_lagging_streams = false;
      lagging_streams_.erase(std::find(lagging_streams_.begin(), lagging_streams_.end(), &stream));
    }
  }
  watch.state = Watch::State::kGone;
}

void WatchHubImpl::MakeLagging(Watch& watch, int64_t next) {
  CHECK(watch.state == Watch::State::kSynced);
  TakeOut(watch);
  AddLagging(watch, next);
}

// REQUIRES: kGone. The hand-over: everything below `next` is queued.
void WatchHubImpl::Place(Watch& watch, int64_t next) {
  watch.next = next;
  if (next > dispatched_) {
    AddSynced(watch);
  } else {
    AddLagging(watch, next);
  }
}

void WatchHubImpl::Forget(StreamState& stream, int64_t watch_id) {
  const auto it = stream.watches.find(watch_id);
  CHECK(it != stream.watches.end());
  Watch& watch = *it->second;
  TakeOut(watch);
  stream.key_bytes -= watch.key_bytes();
  if (watch.terms.progress_notify) --stream.notified_watches;
  if (watch.terms.prev_kv) previous_watches_.fetch_sub(1);
  watches_.fetch_sub(1);
  stream.watches.erase(it);
}

int64_t WatchHubImpl::Delivered(const Watch& watch) const {
  if (watch.state == Watch::State::kLagging) return watch.next - 1;
  return std::max(dispatched_, watch.caught_up);
}

}  // namespace watch
}  // namespace holdfast::server
