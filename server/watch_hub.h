// Carries what the state machine applies to everybody who watches: ordered, unique, nothing left
// out, a revision never torn; in bounded memory, however slow a consumer is.
//
//   apply thread --copy--> pending batch --[dispatch thread]--> streams' queues --> WatchSink
//                          history, recent --[catch-up thread]--^
//
// A watch is *synced* or *lagging*. A synced one lies in an index of keys, and every event of a
// dispatched batch that concerns it goes into its stream's queue. If the queue is full, the watch
// becomes lagging: all that is kept of it is the next revision that it needs. Once its stream has
// drained below half, the catch-up thread reads on from there: from the events that were
// dispatched last (`recent`), or else from the store's history, a bounded chunk at a time, several
// watches with nearby revisions in one pass, streams taking turns. A new watch begins in the same
// way.
//
// Why nothing is lost or doubled: `dispatched` is the revision up to which synced watches have
// everything in their queues. Under the one lock, a watch moves from lagging to synced exactly
// when its next revision is behind `dispatched`; the dispatcher skips events below a watch's next
// revision. A batch that could not be kept (the pending batch is bounded, and events are not
// collected while nobody watches) becomes a *gap*: synced watches that need revisions in it
// become lagging, and find them in the history.
//
// Why no queue can grow: pending batch, recent events, each stream's queue and all queues together
// have limits in bytes. Answers to requests are not refused, but a stream whose queue is over its
// limit says so (MayRead), and its reader then takes no further request. A stream whose queue is
// empty may always take one response, so the sum of all may pass its limit by one response
// (max_response_bytes, or one revision) a stream.
//
// Locks: mutex_ (watches and who lags), then a stream's queue; pending_mutex_ alone. Sinks are
// called without any. The apply thread takes only pending_mutex_, for a few moves of pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "etcd/rpc.pb.h"
#include "server/apply_listener.h"
#include "server/member_view.h"
#include "server/watch_codec.h"

namespace holdfast::server {

struct WatchLimits {
  // Beyond these a create is answered created and canceled, with a reason.
  size_t watches_per_stream = 100'000;
  size_t watches = 1'000'000;
  size_t streams = 100'000;
  // Keys and range ends of one stream's watches.
  size_t key_bytes_per_stream = size_t{16} << 20;
  // Encoded responses that wait in one stream's queue, and in all together.
  size_t stream_bytes = size_t{4} << 20;
  size_t total_bytes = size_t{256} << 20;
  // Responses are cut at the first revision behind this.
  size_t response_bytes = size_t{1} << 20;
  // What is applied and not yet dispatched; beyond it: a gap.
  size_t pending_bytes = size_t{64} << 20;
  // Dispatched events kept for those who are a little behind.
  size_t recent_bytes = size_t{16} << 20;
  // One hold of the lock: events, and deliveries.
  size_t chunk_events = 1024;
  size_t chunk_deliveries = 16'384;
  // One pass through the history: events read, and bytes kept for delivery.
  size_t pass_events = 10'000;
  size_t pass_bytes = size_t{4} << 20;
  // Who joins a pass: watches whose next revision is at most so far behind the first one's.
  int64_t pass_near_revisions = 10'000;
  size_t pass_watches = 16'384;
};

struct WatchStats {
  uint64_t streams = 0;
  uint64_t watches = 0;
  uint64_t lagging_watches = 0;
  uint64_t events_delivered = 0;  // put into queues, ever
  uint64_t bytes_queued = 0;
  uint64_t catch_up_passes = 0;  // ever; through the history
  uint64_t gaps = 0;             // ever; batches that were not kept while somebody watched
};

// One encoded WatchResponse: `head`, then `events`.
struct WatchMessage {
  std::string head;
  std::vector<SharedBytes> events;
  size_t event_bytes = 0;
  size_t bytes() const { return head.size() + event_bytes; }
};

// A consumer. Both are called on any thread, one after the other or at once, never under a lock of
// the hub, and must not block.
class WatchSink {
 public:
  virtual ~WatchSink() = default;
  // WatchStream::Next has something, or may have.
  virtual void OnReady() = 0;
  // The hub wants the stream to end with this status: the consumer stops and calls Close.
  virtual void OnEnd(const absl::Status& why) = 0;
};

// A consumer's end of one stream. Threads: all methods from any thread.
class WatchStream {
 public:
  virtual ~WatchStream() = default;
  // One message of the client. Its answer, if it has one, comes by Next; unknown kinds have none.
  virtual void Handle(const etcdserverpb::WatchRequest& request) = 0;
  // Answers a create without watching: created, canceled, watch_id -1.
  virtual void Refuse(const absl::Status& why) = 0;
  // The oldest waiting response; false: none. The one before it is now out of memory.
  virtual bool Next(WatchMessage* message) = 0;
  // False: what waits is beyond the limit; take no further request from the client before Next was
  // called.
  virtual bool MayRead() const = 0;
  // Ends all watches; the sink may hear of it no more soon after. Idempotent.
  virtual void Close() = 0;
};

class WatchHub : public ApplyListener {
 public:
  struct Options {
    WatchLimits limits = {};
    // A response of one revision that is larger is sent in fragments to those who asked for that.
    size_t max_request_bytes = 1536 * 1024;
    absl::Duration progress_interval = absl::Minutes(10);
    absl::Duration election_timeout = absl::Seconds(1);
    // Why no stream may go on on this member; OK: it may. Asked on the dispatch thread.
    std::function<absl::Status()> fence = nullptr;
    // The history could not be read: damage, or a disk that fails.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
    uint64_t seed = 0;  // of the jitter
  };
  // etcd's least; smaller values are raised to it.
  static constexpr absl::Duration kProgressIntervalMin = absl::Milliseconds(100);
  // How long an open stream with `hasleader` bears no leader, in election timeouts (etcd's).
  static constexpr int kLeaderlessElections = 3;

  static std::unique_ptr<WatchHub> Create(Options options);

  // Once, before the first Open: whose state is watched. Add the hub to the state machine's
  // listeners before that. With `threads`, runs the two; without, the Step functions below are
  // called by the test.
  virtual void Start(const MemberView& member, bool threads = true) = 0;

  // ResourceExhausted: too many streams. Unavailable: stopped.
  // `needs_leader`: ended with "etcdserver: no leader" once this member has long known none.
  virtual absl::StatusOr<std::shared_ptr<WatchStream>> Open(std::shared_ptr<WatchSink> sink,
                                                            bool needs_leader) = 0;

  virtual WatchStats stats() const = 0;

  // Ends every stream (ErrStopped) and the threads. Idempotent. Nothing is opened any more.
  virtual void Stop() = 0;

  // One turn of the dispatch thread: one chunk of a batch. False: nothing to do.
  virtual bool StepDispatch() = 0;
  // One part of a pass of the catch-up thread: choose, then read, then hand over. False: nothing to
  // do.
  virtual bool StepCatchUp() = 0;
  // What time alone brings about: progress notifications, leaders missed, fences.
  virtual void Tick() = 0;
  // Checks every invariant that can be seen from within; for tests.
  virtual void CheckInvariants() const = 0;
};

}  // namespace holdfast::server
