// The catch-up thread: who lags reads on from what was dispatched last, or from the history.
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/strings.h"
#include "server/etcd_errors.h"
#include "server/watch_hub_impl.h"

namespace holdfast::server::watch {
namespace {

// A wake-up is never missed; this is a second line.
constexpr auto kLookAgain = std::chrono::milliseconds(100);

}  // namespace

void WatchHubImpl::WakeCatchUp() {
  std::lock_guard lock(catch_up_mutex_);
  if (wake_catch_up_) return;
  wake_catch_up_ = true;
  catch_up_ready_.notify_one();
}

void WatchHubImpl::CatchUpLoop() {
  prctl(PR_SET_NAME, "hf-catchup");
  while (!stopping_) {
    {
      std::unique_lock lock(catch_up_mutex_);
      catch_up_ready_.wait_for(lock, kLookAgain, [this] { return wake_catch_up_; });
      wake_catch_up_ = false;
    }
    while (!stopping_ && StepCatchUp()) {
    }
  }
  pass_.reset();
}

bool WatchHubImpl::StepCatchUp() {
  // Reading takes long and needs no lock.
  if (pass_ != nullptr && !pass_->read) {
    ReadHistory(*pass_);
    pass_->read = true;
    return true;
  }
  Sinks sinks;
  bool did = pass_ == nullptr || !pass_->failed;
  std::unique_ptr<Pass> done;
  {
    absl::MutexLock lock(&mutex_);
    if (pass_ != nullptr) {
      FinishPass(*pass_);
      done = std::move(pass_);
    } else {
      did = PlanPass();
    }
    AnswerProgress();
    sinks = TakeSinks();
  }
  Wake(sinks);
  return did;
}

bool WatchHubImpl::IsReady(const StreamState& stream) {
  return stream.wants_empty ? stream.outbox.bytes() == 0 : stream.outbox.IsDrained();
}

// The next stream, in turn, that lags and has room.
StreamState* WatchHubImpl::NextReady() {
  for (size_t i = lagging_streams_.size(); i > 0; --i) {
    StreamState* stream = lagging_streams_.front();
    lagging_streams_.pop_front();
    lagging_streams_.push_back(stream);
    if (IsReady(*stream)) return stream;
  }
  return nullptr;
}

int64_t WatchHubImpl::RecentFloor(const WatchTerms& terms) const {
  return terms.prev_kv ? recent_previous_from_ : recent_from_;
}

// Whether the recent events have all that the watch needs or not decides how it is read for.
bool WatchHubImpl::PlanPass() {
  StreamState* const stream = NextReady();
  if (stream == nullptr) return false;
  const auto& [next, id] = *stream->lagging.begin();
  const Watch& first = *stream->watches.at(id);
  const bool recent = next >= RecentFloor(first.terms);
  auto pass = std::make_unique<Pass>();
  pass->from = next;
  JoinPass(*pass, recent);
  CHECK(!pass->items.empty());
  CHECK(pass->items.front()->next == next);
  if (recent) {
    ReadRecent(*pass);
    FinishPass(*pass);
  } else {
    ++passes_;
    pass_ = std::move(pass);
  }
  return true;
}

// Whoever lags nearby, on any stream with room. The stream whose turn it is stands last, and is
// taken first: a pass that others fill would not move the one that it begins at.
void WatchHubImpl::JoinPass(Pass& pass, bool recent) {
  for (auto turn = lagging_streams_.rbegin(); turn != lagging_streams_.rend(); ++turn) {
    StreamState* const stream = *turn;
    if (!IsReady(*stream)) continue;
    for (auto it = stream->lagging.lower_bound({pass.from, INT64_MIN});
         it != stream->lagging.end() && it->first <= pass.from + limits().pass_near_revisions;
         ++it) {
      if (pass.items.size() >= limits().pass_watches) return;
      const std::shared_ptr<Watch>& watch = stream->watches.at(it->second);
      if (recent && it->first < RecentFloor(watch->terms)) continue;
      pass.items.push_back(std::make_unique<PassItem>(watch));
      pass.index.Insert(pass.items.back().get());
    }
  }
}

namespace {

// Gives the event to those of `found` who want it; the bytes that are kept for that.
size_t Give(const EncodedEvent& event, const std::vector<WatchIndex::Entry*>& found) {
  bool plain = false, full = false;
  for (WatchIndex::Entry* entry : found) {
    PassItem& item = static_cast<PassItem&>(*entry);
    if (event.revision() < item.next || !item.terms.Wants(event.is_delete())) continue;
    (item.terms.prev_kv ? full : plain) = true;
    item.events.push_back(
        {event.revision(), item.terms.prev_kv ? event.with_previous() : event.plain()});
  }
  return (plain ? event.plain()->size() : 0) + (full ? event.with_previous()->size() : 0) +
         found.size() * sizeof(Delivery);
}

}  // namespace

void WatchHubImpl::ReadRecent(Pass& pass) {
  std::vector<WatchIndex::Entry*> found;
  size_t events = 0, bytes = 0;
  pass.through = pass.from - 1;
  auto it = std::lower_bound(
      recent_.begin(), recent_.end(), pass.from,
      [](const EncodedEvent& event, int64_t revision) { return event.revision() < revision; });
  for (; it != recent_.end(); ++it, ++events) {
    const bool full = events >= limits().chunk_events || bytes >= limits().response_bytes;
    if (full && it->revision() != pass.through) return;
    found.clear();
    pass.index.Find(it->key(), &found);
    bytes += Give(*it, found);
    pass.through = it->revision();
  }
  pass.through = dispatched_;
}

void WatchHubImpl::ReadHistory(Pass& pass) const {
  const std::shared_ptr<storage::MvccStore> store = member_.machine->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  bool any_previous = false;
  for (const auto& item : pass.items) any_previous |= item->terms.prev_kv;
  std::vector<WatchIndex::Entry*> found;
  size_t events = 0, bytes = 0;
  bool cut = false;
  pass.through = pass.from - 1;
  const absl::Status status = view->ScanHistory(pass.from, [&](const storage::EventView& event) {
    const bool full = events >= limits().pass_events || bytes >= limits().pass_bytes;
    if (full && event.revision != pass.through) {
      cut = true;
      return false;
    }
    pass.through = event.revision;
    ++events;
    found.clear();
    pass.index.Find(event.kv.key, &found);
    if (!found.empty()) bytes += Give(EncodedEvent(event, any_previous), found);
    return true;
  });
  if (absl::IsOutOfRange(status)) {
    pass.compacted = view->applied().compact_revision;
    return;
  }
  if (!status.ok()) {
    // Nothing is known of what was not read: the watches go on waiting, and this member stops.
    pass.through = pass.from - 1;
    pass.failed = true;
    if (options_.on_fatal) options_.on_fatal(status);
    return;
  }
  if (!cut) pass.through = view->applied().revision;
}

void WatchHubImpl::FinishPass(Pass& pass) {
  for (const auto& item : pass.items) {
    if (item->watch->state != Watch::State::kLagging) continue;
    item->watch->stream->pass_outcome = StreamState::PassOutcome::kNothing;
  }
  for (const auto& item : pass.items) {
    Watch& watch = *item->watch;
    if (watch.state != Watch::State::kLagging) continue;  // cancelled meanwhile
    CHECK(watch.next == item->next);
    if (pass.compacted > item->next) {
      CancelCompacted(watch, pass.compacted);
      continue;
    }
    if (pass.through < item->next) continue;
    const std::optional<int64_t> stopped = Deliver(watch, item->events, pass.through);
    const int64_t next = stopped.value_or(pass.through + 1);
    NoteOutcome(*watch.stream, /*moved=*/next != watch.next);
    if (next == watch.next) continue;
    TakeOut(watch);
    watch.caught_up = next - 1;
    Place(watch, next);
  }
}

// A stream whose room was too little for even one response waits until it is empty; or else the
// same would be read, in vain, again and again.
void WatchHubImpl::NoteOutcome(StreamState& stream, bool moved) {
  using Outcome = StreamState::PassOutcome;
  if (moved) stream.pass_outcome = Outcome::kMoved;
  if (!moved && stream.pass_outcome == Outcome::kNothing) stream.pass_outcome = Outcome::kBlocked;
  stream.wants_empty = stream.pass_outcome == Outcome::kBlocked;
}

void WatchHubImpl::CancelCompacted(Watch& watch, int64_t compact_revision) {
  etcdserverpb::WatchResponse response;
  response.set_canceled(true);
  response.set_compact_revision(compact_revision);
  response.set_cancel_reason(std::string(base::Message(ErrCompacted())));
  StreamState& stream = *watch.stream;
  PushControl(stream, watch.terms.id, std::max(dispatched_, compact_revision), response);
  Forget(stream, watch.terms.id);
}

}  // namespace holdfast::server::watch
