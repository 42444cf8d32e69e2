// The hub itself (internal). watch_hub.cc takes what is applied and dispatches it,
// watch_catch_up.cc serves those who lag, watch_stream.cc answers what clients ask.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "server/watch_state.h"

namespace holdfast::server::watch {

class WatchHubImpl : public WatchHub {
 public:
  explicit WatchHubImpl(Options options);
  ~WatchHubImpl() override { Stop(); }

  // --- ApplyListener ---
  bool WantsEvents() override;
  void OnEvent(const storage::EventView& event) override;
  void OnApplied(const storage::AppliedState& state, const ApplyEffects& effects,
                 bool events) override;
  void OnReplaced(const storage::AppliedState& state) override;

  // --- WatchHub ---
  void Start(const MemberView& member, bool threads) override;
  absl::StatusOr<std::shared_ptr<WatchStream>> Open(std::shared_ptr<WatchSink> sink,
                                                    bool needs_leader) override;
  WatchStats stats() const override;
  void Stop() override;
  bool StepDispatch() override;
  bool StepCatchUp() override;
  void Tick() override;
  void CheckInvariants() const override;

  // --- of streams, any thread ---
  void Create(StreamState& stream, const etcdserverpb::WatchCreateRequest& request);
  void Refuse(StreamState& stream, const absl::Status& why);
  void Cancel(StreamState& stream, int64_t watch_id);
  void RequestProgress(StreamState& stream);
  void Mark(StreamState& stream, const etcdserverpb::WatchMark& mark);
  void Close(StreamState& stream);
  void WakeCatchUp();
  const WatchLimits& limits() const { return options_.limits; }
  std::atomic<size_t>* queued_bytes() { return &queued_bytes_; }

 private:
  using Sinks = std::vector<std::shared_ptr<WatchSink>>;

  // watch_hub.cc: dispatch.
  void AddPending(const storage::AppliedState& state, bool kept);
  void DispatchLoop();
  void RefreshTerm();
  bool TakePending();
  void DispatchChunk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SkipGap(int64_t through) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  size_t Collect(const EncodedEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FlushTouched(int64_t through) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void KeepRecent(EncodedEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteState(const storage::AppliedState& state) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AnswerProgress() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Queues as much as there is room for; the first revision that it had none for, if any.
  // `through`: with the last event the watch has everything up to there.
  std::optional<int64_t> Deliver(Watch& watch, const std::vector<Delivery>& events, int64_t through)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PushEvents(Watch& watch, const Delivery* begin, const Delivery* end, size_t bytes,
                  int64_t revision) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Push(StreamState& stream, WatchMessage message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PushControl(StreamState& stream, int64_t watch_id, int64_t revision,
                   const etcdserverpb::WatchResponse& response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The sinks to wake after the lock is given back.
  Sinks TakeSinks() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void Wake(const Sinks& sinks);

  // States of a watch.
  void AddSynced(Watch& watch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddLagging(Watch& watch, int64_t next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeOut(Watch& watch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void MakeLagging(Watch& watch, int64_t next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Place(Watch& watch, int64_t next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(StreamState& stream, int64_t watch_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t Delivered(const Watch& watch) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // watch_catch_up.cc.
  void CatchUpLoop();
  bool PlanPass() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static bool IsReady(const StreamState& stream);
  StreamState* NextReady() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t RecentFloor(const WatchTerms& terms) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void JoinPass(Pass& pass, bool recent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadRecent(Pass& pass) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadHistory(Pass& pass) const;
  void FinishPass(Pass& pass) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelCompacted(Watch& watch, int64_t compact_revision)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // watch_stream.cc.
  absl::Status CheckCreate(const StreamState& stream, const WatchRange& range,
                           const etcdserverpb::WatchCreateRequest& request) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PushRefusal(StreamState& stream, const absl::Status& why)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // True: nothing is owed any more.
  bool TryProgress(StreamState& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PlanProgress(StreamState& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NotifyProgress(StreamState& stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<Index> IndexFor(int64_t delivered) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WakeDispatch();
  ResponseHead Head(int64_t watch_id, int64_t revision) const;

  const Options options_;
  MemberView member_;  // set by Start

  // --- the apply thread's ---
  std::deque<EncodedEvent> collecting_;
  size_t collecting_bytes_ = 0;
  bool collecting_previous_ = false;
  bool collecting_overflow_ = false;

  // Hints for the apply thread, which must not take mutex_.
  std::atomic<size_t> watches_ = 0;
  std::atomic<size_t> previous_watches_ = 0;  // with prev_kv
  std::atomic<size_t> progress_waiting_ = 0;
  std::atomic<size_t> queued_bytes_ = 0;
  std::atomic<uint64_t> term_ = 0;
  std::atomic<uint64_t> gaps_ = 0;

  std::mutex pending_mutex_;
  std::condition_variable pending_ready_;
  PendingBatch pending_;  // pending_mutex_
  bool wake_dispatch_ = false;
  std::mutex catch_up_mutex_;
  std::condition_variable catch_up_ready_;
  bool wake_catch_up_ = false;
  std::atomic<bool> stopping_ = false;

  // --- the dispatch thread's ---
  PendingBatch current_;

  // --- the catch-up thread's ---
  std::unique_ptr<Pass> pass_;

  mutable absl::Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<const StreamState*, std::shared_ptr<StreamState>> streams_ ABSL_GUARDED_BY(mutex_);
  WatchIndex index_ ABSL_GUARDED_BY(mutex_);  // the synced watches
  int64_t dispatched_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t compact_revision_ ABSL_GUARDED_BY(mutex_) = 0;
  // Invariant: every event of a revision in [recent_from_, dispatched_] is here, in order.
  std::deque<EncodedEvent> recent_ ABSL_GUARDED_BY(mutex_);
  size_t recent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t recent_from_ ABSL_GUARDED_BY(mutex_) = 1;
  int64_t recent_previous_from_ ABSL_GUARDED_BY(mutex_) = 1;  // from here with what was before
  // Freshness F3: dispatched revisions, and the newest index at which each was the newest one.
  std::deque<std::pair<int64_t, Index>> indexes_ ABSL_GUARDED_BY(mutex_);
  // Streams with lagging watches, in the order of their turns. Invariant: exactly those.
  std::deque<StreamState*> lagging_streams_ ABSL_GUARDED_BY(mutex_);
  size_t lagging_ ABSL_GUARDED_BY(mutex_) = 0;
  std::set<StreamState*> progress_owed_ ABSL_GUARDED_BY(mutex_);
  std::set<std::pair<int64_t, StreamState*>> progress_plan_ ABSL_GUARDED_BY(mutex_);
  Sinks waking_ ABSL_GUARDED_BY(mutex_);
  std::vector<StreamState*> waking_streams_ ABSL_GUARDED_BY(mutex_);
  base::Rng rng_ ABSL_GUARDED_BY(mutex_);
  uint64_t events_delivered_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t passes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Scratch of DispatchChunk.
  std::vector<WatchIndex::Entry*> found_ ABSL_GUARDED_BY(mutex_);
  std::vector<Watch*> touched_ ABSL_GUARDED_BY(mutex_);

  std::mutex stop_mutex_;
  std::thread dispatcher_, catcher_;  // stop_mutex_
};

}  // namespace holdfast::server::watch
