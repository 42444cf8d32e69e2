#include "server/request_pipeline.h"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "server/etcd_errors.h"
#include "server/responders.h"

namespace holdfast::server {
namespace {

using command::v1::Command;

// Why a request that waits is given up.
enum class Verdict { kWait, kLate, kLeaderless };

// What the sweeper knows of the leader over time, to choose among etcd's three timeout texts.
class LeaderHistory {
 public:
  // `first`: nothing waited until now, so whatever changed before concerns nobody.
  void Observe(const raft::NodeStatus& status, const base::ClockSample& now, bool first) {
    if (!first && (status.leader != leader_ || status.term != term_)) changed_at_ = now;
    leader_ = status.leader;
    term_ = status.term;
  }

  absl::Status TimeoutOf(const base::ClockSample& start) const {
    if (!leader_) return ErrTimeoutDueToConnectionLost();
    if (changed_at_.has_value() && changed_at_->boot_ns >= start.boot_ns) {
      return ErrTimeoutDueToLeaderFail();
    }
    return ErrTimeout();
  }

 private:
  NodeId leader_;
  Term term_;
  std::optional<base::ClockSample> changed_at_;
};

class RequestPipelineImpl : public RequestPipeline {
 public:
  explicit RequestPipelineImpl(const Options& options)
      : options_(options), responders_(options.responder_threads), sweeper_([this] { Sweep(); }) {}

  ~RequestPipelineImpl() override { Stop(); }

  void SetNode(raft::RaftNode* node) override {
    CHECK(node != nullptr);
    CHECK(node_.exchange(node) == nullptr);
  }
  uint64_t origin() const override { return options_.origin; }

  void Propose(Command command, Done done) override;
  void LinearizableRead(ReadDone done) override;
  void FreshClaim(absl::Duration max_age, absl::Duration timeout,
                  absl::AnyInvocable<void() &&> done) override;
  void Complete(std::vector<Completion> completions) override;
  void Stop() override;

 private:
  struct Waiter {
    Done done;
    base::ClockSample start;
  };
  // Requests by sequence, which is by age: the sweeper stops at the first that is young enough.
  struct Shard {
    absl::Mutex mutex;
    absl::btree_map<uint64_t, Waiter> waiting ABSL_GUARDED_BY(mutex);
    bool closed ABSL_GUARDED_BY(mutex) = false;
  };
  // Enough that gRPC's threads seldom meet the apply thread at one lock.
  static constexpr size_t kShards = 16;

  Shard& ShardOf(uint64_t sequence) { return shards_[sequence % kShards]; }
  raft::RaftNode* node() const {
    raft::RaftNode* node = node_.load(std::memory_order_acquire);
    CHECK(node != nullptr);
    return node;
  }

  // Registers a request; answers it at once, and returns false, if that can not be.
  bool Register(uint64_t sequence, Done* done);
  // The request's callback, if it still waits: whoever gets it calls it.
  std::optional<Done> Take(uint64_t sequence);
  void Answer(uint64_t sequence, ApplyResult result);
  void Post(uint64_t sequence, Done done, ApplyResult result);
  // What certainly was not proposed.
  void OnRefused(uint64_t sequence, const absl::Status& status);
  void OnReadIndex(uint64_t sequence, const absl::StatusOr<Index>& index);

  void Sweep();
  void SweepShards(const LeaderHistory& history, const base::ClockSample& now,
                   absl::Duration leaderless);
  Verdict Judge(const Waiter& waiter, const base::ClockSample& now,
                absl::Duration leaderless) const;
  void WakeSweeper();

  const Options options_;
  std::atomic<raft::RaftNode*> node_ = nullptr;
  std::atomic<uint64_t> last_sequence_ = 0;
  std::atomic<size_t> waiting_ = 0;
  std::atomic<bool> stopped_ = false;
  std::array<Shard, kShards> shards_;
  Responders responders_;

  // The standard library's, and not Abseil's: its timed wait goes by the steady clock, so that a
  // step of the wall clock can not put the sweeper to sleep.
  std::mutex sweep_mutex_;
  std::condition_variable sweep_wake_;
  bool sweep_needed_ = false;  // both guarded by sweep_mutex_
  bool sweep_stop_ = false;
  // False while the sweeper sleeps because nothing waits.
  std::atomic<bool> sweeping_ = false;
  std::mutex stop_mutex_;
  std::thread sweeper_;  // last: it uses everything above
};

void RequestPipelineImpl::Propose(Command command, Done done) {
  const uint64_t sequence = ++last_sequence_;
  command.set_origin(options_.origin);
  command.set_sequence(sequence);
  std::string payload = command.SerializeAsString();
  if (payload.size() > options_.max_request_bytes) {
    Post(sequence, std::move(done), {ErrRequestTooLarge(), nullptr});
    return;
  }
  // Text that is no UTF-8 is written and then not read back, and an entry that nobody can read
  // stops every member. Only this operation has text fields of its own.
  if (command.has_member_attributes() && !Command().ParseFromString(payload)) {
    Post(sequence, std::move(done),
         {absl::InvalidArgumentError("holdfast: name and client URLs must be UTF-8"), nullptr});
    return;
  }
  if (!Register(sequence, &done)) return;
  node()->Propose(std::move(payload),
                  [this, sequence](absl::Status status) { OnRefused(sequence, status); });
}

void RequestPipelineImpl::LinearizableRead(ReadDone done) {
  const uint64_t sequence = ++last_sequence_;
  Done wrapped = [done = std::move(done)](ApplyResult result) mutable {
    std::move(done)(std::move(result.status));
  };
  if (!Register(sequence, &wrapped)) return;
  node()->ReadIndex(options_.request_timeout, [this, sequence](absl::StatusOr<Index> index) {
    OnReadIndex(sequence, index);
  });
}

void RequestPipelineImpl::FreshClaim(absl::Duration max_age, absl::Duration timeout,
                                     absl::AnyInvocable<void() &&> done) {
  const uint64_t lane = ++last_sequence_;
  node()->FreshClaim(max_age, timeout, [this, lane, done = std::move(done)]() mutable {
    responders_.Post(lane, std::move(done));
  });
}

bool RequestPipelineImpl::Register(uint64_t sequence, Done* done) {
  if (waiting_.fetch_add(1) >= options_.max_waiting) {
    waiting_.fetch_sub(1);
    Post(sequence, std::move(*done), {ErrTooManyRequests(), nullptr});
    return false;
  }
  bool closed = false;
  {
    Shard& shard = ShardOf(sequence);
    absl::MutexLock lock(&shard.mutex);
    closed = shard.closed;
    if (!closed) {
      shard.waiting.emplace(sequence, Waiter{std::move(*done), options_.clock->Sample()});
    }
  }
  if (closed) {
    waiting_.fetch_sub(1);
    Post(sequence, std::move(*done), {ErrStopped(), nullptr});
    return false;
  }
  if (!sweeping_.load()) WakeSweeper();
  return true;
}

std::optional<RequestPipeline::Done> RequestPipelineImpl::Take(uint64_t sequence) {
  Shard& shard = ShardOf(sequence);
  absl::MutexLock lock(&shard.mutex);
  const auto it = shard.waiting.find(sequence);
  if (it == shard.waiting.end()) return std::nullopt;
  Done done = std::move(it->second.done);
  shard.waiting.erase(it);
  waiting_.fetch_sub(1);
  return done;
}

void RequestPipelineImpl::Post(uint64_t sequence, Done done, ApplyResult result) {
  responders_.Post(sequence, [done = std::move(done), result = std::move(result)]() mutable {
    std::move(done)(std::move(result));
  });
}

void RequestPipelineImpl::Answer(uint64_t sequence, ApplyResult result) {
  std::optional<Done> done = Take(sequence);
  if (done.has_value()) Post(sequence, *std::move(done), std::move(result));
}

void RequestPipelineImpl::OnRefused(uint64_t sequence, const absl::Status& status) {
  CHECK(!status.ok());
  if (absl::IsResourceExhausted(status)) return Answer(sequence, {ErrTooManyRequests(), nullptr});
  Answer(sequence, {stopped_.load() ? ErrStopped() : ErrNoLeader(), nullptr});
}

void RequestPipelineImpl::OnReadIndex(uint64_t sequence, const absl::StatusOr<Index>& index) {
  if (index.ok()) return Answer(sequence, {});
  if (absl::IsDeadlineExceeded(index.status())) {
    const bool leaderless = !node()->status().leader;
    return Answer(sequence, {leaderless ? ErrTimeoutDueToConnectionLost() : ErrTimeout(), nullptr});
  }
  OnRefused(sequence, index.status());
}

void RequestPipelineImpl::Complete(std::vector<Completion> completions) {
  std::vector<std::vector<Responders::Job>> jobs(responders_.threads());
  for (Completion& completion : completions) {
    std::optional<Done> done = Take(completion.sequence);
    if (!done.has_value()) continue;  // given up before: its outcome was told as unknown
    jobs[completion.sequence % jobs.size()].push_back(
        [done = *std::move(done), result = std::move(completion.result)]() mutable {
          std::move(done)(std::move(result));
        });
  }
  responders_.PostAll(std::move(jobs));
}

void RequestPipelineImpl::WakeSweeper() {
  const std::lock_guard<std::mutex> lock(sweep_mutex_);
  sweep_needed_ = true;
  sweep_wake_.notify_one();
}

void RequestPipelineImpl::Sweep() {
  std::unique_lock<std::mutex> lock(sweep_mutex_);
  for (;;) {
    sweeping_ = false;
    // Looked at after the flag is down: who registers later sees the flag, and wakes us.
    if (waiting_.load() == 0) {
      sweep_wake_.wait(lock, [this] { return sweep_needed_ || sweep_stop_; });
    }
    sweeping_ = true;
    sweep_needed_ = false;
    LeaderHistory history;
    bool first = true;
    // Once awake, for an interval at least: at one request at a time a wake each would cost more
    // than the request.
    do {
      if (sweep_stop_) return;
      lock.unlock();
      const raft::NodeStatus status = node()->status();
      const base::ClockSample now = options_.clock->Sample();
      history.Observe(status, now, first);
      first = false;
      SweepShards(history, now, status.leader ? absl::ZeroDuration() : status.leaderless);
      lock.lock();
      sweep_wake_.wait_for(lock, absl::ToChronoNanoseconds(options_.sweep_interval),
                           [this] { return sweep_stop_; });
    } while (waiting_.load() != 0);
  }
}

void RequestPipelineImpl::SweepShards(const LeaderHistory& history, const base::ClockSample& now,
                                      absl::Duration leaderless) {
  for (Shard& shard : shards_) {
    std::vector<std::pair<uint64_t, Waiter>> given_up;
    {
      absl::MutexLock lock(&shard.mutex);
      auto it = shard.waiting.begin();
      while (it != shard.waiting.end() && Judge(it->second, now, leaderless) != Verdict::kWait) {
        given_up.emplace_back(it->first, std::move(it->second));
        it = shard.waiting.erase(it);
      }
    }
    waiting_.fetch_sub(given_up.size());
    for (auto& [sequence, waiter] : given_up) {
      const bool late = Judge(waiter, now, leaderless) == Verdict::kLate;
      Post(sequence, std::move(waiter.done),
           {late ? history.TimeoutOf(waiter.start) : ErrTimeoutDueToConnectionLost(), nullptr});
    }
  }
}

Verdict RequestPipelineImpl::Judge(const Waiter& waiter, const base::ClockSample& now,
                                   absl::Duration leaderless) const {
  const absl::Duration age = base::Elapsed(waiter.start, now);
  if (age >= options_.request_timeout) return Verdict::kLate;
  const absl::Duration grace = options_.election_timeout * options_.leaderless_grace;
  return leaderless > grace && age > grace ? Verdict::kLeaderless : Verdict::kWait;
}

void RequestPipelineImpl::Stop() {
  const std::lock_guard<std::mutex> stopping(stop_mutex_);
  if (stopped_.exchange(true)) return;
  {
    const std::lock_guard<std::mutex> lock(sweep_mutex_);
    sweep_stop_ = true;
    sweep_wake_.notify_one();
  }
  sweeper_.join();
  for (Shard& shard : shards_) {
    absl::btree_map<uint64_t, Waiter> waiting;
    {
      absl::MutexLock lock(&shard.mutex);
      shard.closed = true;
      waiting.swap(shard.waiting);
    }
    waiting_.fetch_sub(waiting.size());
    for (auto& [sequence, waiter] : waiting) {
      Post(sequence, std::move(waiter.done), {ErrStopped(), nullptr});
    }
  }
  responders_.Stop();
}

}  // namespace

std::unique_ptr<RequestPipeline> RequestPipeline::Create(const Options& options) {
  CHECK(options.origin != 0);
  return std::make_unique<RequestPipelineImpl>(options);
}

}  // namespace holdfast::server
