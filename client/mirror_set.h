// All mirrors of one client, and the one connection that feeds them.
//
//   attempt ──► [Load each prefix, by class] ──► [one watch stream, a watch per prefix] ──► marks
//      ▲                                                                              │
//      └── full jitter, 50 ms to 30 s, reset after 60 s healthy ◄── broken, silent, behind, too old
//
// One endpoint at a time, whichever answers; a member that is cut off serves as well as any until
// another one is fresher. Everything here runs on the scheduler's thread. While nothing can be
// reached, nothing happens but one attempt every 15 s on average, whatever the reads do.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/rng.h"
#include "client/disk_keeper.h"
#include "client/endpoint.h"
#include "client/mirror_impl.h"
#include "client/scheduler.h"
#include "client/uplink.h"
#include "holdfast/options.h"

namespace holdfast::internal {

struct MirrorTiming {
  absl::Duration mark_every = absl::Seconds(1);  // Freshness W1
  absl::Duration jeopardy_after = absl::Seconds(3);
  absl::Duration lost_after = absl::Seconds(10);
  absl::Duration tick = absl::Milliseconds(250);
  absl::Duration retry_first = absl::Milliseconds(50);
  absl::Duration retry_max = absl::Seconds(30);
  absl::Duration load_retry_first = absl::Milliseconds(250);
  absl::Duration load_retry_max = absl::Seconds(10);
  absl::Duration healthy_after = absl::Seconds(60);
  // A member whose data grows older than this is left for another one, if there is one.
  absl::Duration leave_when_older = absl::Seconds(5);
  absl::Duration leave_first = absl::Seconds(10);  // between two such moves; doubles
  absl::Duration leave_max = absl::Seconds(60);
  absl::Duration report_every = absl::Seconds(30);
};

class MirrorSet : public UplinkSink, public std::enable_shared_from_this<MirrorSet> {
 public:
  struct Options {
    std::vector<Endpoint> endpoints;  // shuffled
    std::vector<PrefixOptions> prefixes;
    std::string disk_dir;  // where a prefix's policy names none; empty: no disk
    bool handle_termination = false;
    std::string name;
    std::shared_ptr<Observer> observer;
    std::shared_ptr<const base::Clock> clock;
    double max_clock_slow = base::kDefaultMaxClockSlow;
    uint64_t seed = 0;
    MirrorTiming timing = {};
    Surroundings surroundings = {};  // of the copies on disk
  };

  // `uplinks` and `scheduler` are shared with whoever wants to.
  MirrorSet(Options options, std::shared_ptr<Scheduler> scheduler,
            std::shared_ptr<UplinkFactory> uplinks);
  ~MirrorSet() override;

  // Loads what is on disk, starts to connect, and waits for what has no copy. DATA_LOSS: a prefix
  // has nothing to serve. REQUIRES: not on the scheduler's thread.
  absl::Status Open();
  // Ends everything; mirrors keep what they have. Blocks until the disk has what it should.
  // REQUIRES: not on the scheduler's thread.
  void Close();

  // Any thread.
  MirrorImpl* Find(std::string_view key_or_prefix) const;
  // Whether the key (or the range up to `range_end`, as RangeQuery has it) has a part that is never
  // served stale.
  bool NeverStaleIn(std::string_view key, std::string_view range_end) const;
  std::string Dump() const;
  std::string Metrics() const;

  // --- UplinkSink ---
  void OnLoadPart(uint64_t connection, size_t feed, v1::LoadResponse part) override;
  void OnLoadEnd(uint64_t connection, size_t feed, const absl::Status& status,
                 std::optional<absl::Duration> retry_after) override;
  void OnWatch(uint64_t connection, etcdserverpb::WatchResponse response) override;
  void OnWatchEnd(uint64_t connection, const absl::Status& status) override;

 private:
  static constexpr size_t kMarksMax = 64;
  static constexpr int kLoadsAtOnce = 2;
  static constexpr size_t kUnprovenBytesMax = size_t{64} << 20;

  struct Feed {
    enum class Phase { kIdle, kLoading, kWatching };
    std::shared_ptr<MirrorImpl> mirror;
    Phase phase = Phase::kIdle;
    absl::Duration load_after;                         // not before; the server's push-back
    int load_failures = 0;                             // in a row
    std::optional<LastGood::Override> first_override;  // as of Open
    std::vector<v1::LoadResponse> parts;
    std::optional<v1::LoadHead> head;
    bool last = false;
    size_t bytes = 0;
    bool flush = false;  // has events that no head shows yet
    // Events before the first bookmark, which tells whose they are: between the load and the watch
    // the member may have become another incarnation of the store.
    std::vector<etcdserverpb::WatchResponse> unproven;
    size_t unproven_bytes = 0;
    // Marks on their way.
    std::map<uint64_t, base::ClockSample> marks;
    absl::Duration heard;  // the last bookmark of this connection
    bool live = false;     // one has come
    std::optional<absl::Duration> old_since;
    uint64_t refusals_reported = 0;
  };

  void Attempt();
  void ScheduleAttempt();
  void Break(const absl::Status& why);
  void LoadNext();
  void StartWatch(Feed& feed);
  void FinishLoad(Feed& feed);
  void SendMark(Feed& feed);
  void ApplyUnproven(Feed& feed);
  void OnBookmark(Feed& feed, const etcdserverpb::WatchBookmark& bookmark);
  void ConsiderLeaving(Feed& feed, absl::Duration now, bool old);
  void FlushSoon();
  void ScheduleTick();
  void Tick();
  void UpdateLinks(absl::Duration now, const absl::Status& why);
  void Report();
  size_t IndexOf(const Feed& feed) const { return static_cast<size_t>(&feed - feeds_.data()); }
  absl::Duration Jittered(absl::Duration most) {
    return most * (static_cast<double>(rng_.Below(1'000'000)) / 1e6);
  }
  bool current(uint64_t connection) const {
    return connection == connection_ && uplink_ != nullptr;
  }

  const Options options_;
  const std::shared_ptr<Scheduler> scheduler_;
  const std::shared_ptr<UplinkFactory> uplinks_;
  const std::string client_id_;
  std::unique_ptr<DiskKeeper> disk_;
  std::vector<Feed> feeds_;  // as long as this, in the order of classes
  std::vector<std::pair<std::string, MirrorImpl*>> by_prefix_;  // sorted; null: never stale

  // --- the scheduler's ---
  base::Rng rng_;
  bool closed_ = false;
  std::unique_ptr<Uplink> uplink_;
  uint64_t connection_ = 0;
  size_t endpoint_ = 0;
  absl::Duration connected_at_;
  int failures_ = 0;             // in a row; endpoints tried without a wait count too
  int free_attempts_ = 0;        // left of the first round
  bool etcd_ = false;            // this server has no bookmarks
  absl::Duration silent_since_;  // etcd: the last message
  absl::Duration next_mark_;
  absl::Duration next_leave_;
  absl::Duration leave_wait_;
  absl::Duration next_report_;
  bool flush_posted_ = false;
  absl::Status why_broken_;
  std::atomic<uint64_t> attempts_{0}, breaks_{0}, moves_{0};
  mutable std::mutex told_mutex_;
  std::string told_endpoint_;
  absl::Status told_why_;
};

}  // namespace holdfast::internal
