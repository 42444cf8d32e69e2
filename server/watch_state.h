// What the watch hub keeps (internal to it; watch_hub.h tells the whole).
//
// Threads: as each says; "hub's lock" is WatchHubImpl::mutex_.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/watch_codec.h"
#include "server/watch_hub.h"
#include "server/watch_index.h"

namespace holdfast::server::watch {

class WatchHubImpl;
class StreamState;

// An event on its way to one watch.
struct Delivery {
  int64_t revision;
  SharedBytes bytes;
};

// What a watch asked for; never changes.
struct WatchTerms {
  int64_t id = 0;
  bool no_put = false;
  bool no_delete = false;
  bool prev_kv = false;
  bool fragment = false;
  bool progress_notify = false;

  bool Wants(bool is_delete) const { return is_delete ? !no_delete : !no_put; }
};

// Guarded by the hub's lock, but for what is const.
struct Watch : WatchIndex::Entry {
  enum class State { kSynced, kLagging, kGone };

  Watch(WatchRange watched, WatchTerms asked, StreamState* owner)
      : Entry(std::move(watched)), terms(asked), stream(owner) {}
  size_t key_bytes() const { return range.begin.size() + range.end.size(); }

  const WatchTerms terms;
  StreamState* const stream;  // of a watch that is kGone: perhaps gone too
  State state = State::kGone;
  // kSynced: events below it are skipped. kLagging: everything below it is queued.
  // Invariant: kLagging <=> next <= dispatched, outside of StepDispatch.
  int64_t next = 0;
  // Everything up to here is queued, though it may not be dispatched yet.
  int64_t caught_up = 0;
  bool had_events = false;  // since the last progress notification was due
  // Of the chunk that is being dispatched.
  std::vector<Delivery> batch;
  int64_t lag_from = 0;  // the chunk's event that it can not take from the batch; 0: none
};

// Encoded responses that wait for the consumer. Threads: all.
class Outbox {
 public:
  // `total`: of all outboxes; must outlive this.
  Outbox(const WatchLimits& limits, std::atomic<size_t>* total) : limits_(limits), total_(total) {}
  ~Outbox() { Close(); }

  // Whether an event response of `bytes` may go in.
  bool HasRoom(size_t bytes) const;
  // Whether catching up is worth its while: half of it is free.
  bool IsDrained() const;
  bool IsOverLimit() const;
  void Push(WatchMessage message);
  // False: empty. What Next gave before counts until the following call.
  bool Next(WatchMessage* message);
  void Close();
  size_t bytes() const;

 private:
  // What a message costs beside its bytes, so that empty ones have a bound too.
  static constexpr size_t kMessageOverheadBytes = 128;
  static size_t Cost(const WatchMessage& message);
  void Release(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const WatchLimits& limits_;
  std::atomic<size_t>* const total_;
  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<WatchMessage> messages_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t taken_ ABSL_GUARDED_BY(mutex_) = 0;  // part of bytes_: given out, and not yet sent
};

class StreamState : public WatchStream, public std::enable_shared_from_this<StreamState> {
 public:
  StreamState(WatchHubImpl* hub, std::shared_ptr<WatchSink> sink, bool needs_leader);

  void Handle(const etcdserverpb::WatchRequest& request) override;
  void Refuse(const absl::Status& why) override;
  bool Next(WatchMessage* message) override;
  bool MayRead() const override { return !outbox.IsOverLimit(); }
  void Close() override;

  WatchHubImpl* const hub;
  const bool needs_leader;
  Outbox outbox;
  // lagging is not empty; a hint for Next, which takes no lock of the hub.
  std::atomic<bool> has_lagging = false;

  // Guarded by the hub's lock.
  std::shared_ptr<WatchSink> sink;  // null: closed
  bool ended = false;               // the sink was told to end
  bool waking = false;              // in the list of sinks to wake
  std::map<int64_t, std::shared_ptr<Watch>> watches;
  std::set<std::pair<int64_t, int64_t>> lagging;  // (next, id)
  bool in_lagging_streams = false;
  // What comes next is too large for the room that was there: wait for all of it.
  bool wants_empty = false;
  int64_t next_id = 0;
  size_t key_bytes = 0;
  // Progress was asked for, and is owed as soon as this is dispatched; 0: not.
  int64_t progress_owed = 0;
  size_t notified_watches = 0;   // with progress_notify
  int64_t next_progress_ns = 0;  // on the member's clock; 0: none planned
};

// What is applied and not yet dispatched.
struct PendingBatch {
  std::deque<EncodedEvent> events;
  size_t bytes = 0;
  // Events up to here are not in `events`, nor need they be in the one before; 0: no gap.
  int64_t gap_through = 0;
  // The newest state: it ends there. revision 0: nothing is pending.
  storage::AppliedState state = {.index = {}, .term = {}, .revision = 0, .compact_revision = 0};
};

// One pass of the catch-up thread.
struct PassItem : WatchIndex::Entry {
  explicit PassItem(const std::shared_ptr<Watch>& w)
      : Entry(w->range), watch(w), terms(w->terms), next(w->next) {}
  const std::shared_ptr<Watch> watch;
  const WatchTerms terms;
  const int64_t next;
  std::vector<Delivery> events;
};
struct Pass {
  std::vector<std::unique_ptr<PassItem>> items;
  WatchIndex index;
  int64_t from = 0;
  bool read = false;
  int64_t through = 0;    // read up to here; below `from`: nothing was
  int64_t compacted = 0;  // the compact revision, if `from` is not above it
};

}  // namespace holdfast::server::watch
