#include "server/request_pipeline.h"

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
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

  void Propose(Command command, Done done) override {
    ProposeOne(std::move(command), Waiter{.done = std::move(done)});
  }
  void ProposeShort(Command command, Done done) override {
    ProposeOne(std::move(command), Waiter{.done = std::move(done), .is_short = true});
  }
  void ProposeBatch(absl::Span<Command* const> commands, BatchDone done) override;
  void LinearizableRead(ReadDone done) override;
  void FreshClaim(absl::Duration max_age, absl::Duration timeout,
                  absl::AnyInvocable<void() &&> done) override;
  void Complete(std::vector<Completion> completions) override;
  void Stop() override;

 private:
  struct Waiter {
    Done done = {};
    bool is_short = false;  // see ProposeShort
    base::ClockSample start = {};
  };
  // Requests by sequence, which is by age: the sweeper stops at the first that is young enough.
  struct Shard {
    absl::Mutex mutex;
    absl::btree_map<uint64_t, Waiter> waiting ABSL_GUARDED_BY(mutex);
    bool closed ABSL_GUARDED_BY(mutex) = false;
  };
  // A batch under way: sequences first, first + 1 ... one for each slot.
  struct Group {
    uint64_t first = 0;
    base::ClockSample start = {};
    BatchDone done = {};          // on the responder thread that `first` selects
    std::vector<bool> told = {};  // by slot; under groups_mutex_, as the next
    size_t left = 0;
  };
  struct GroupResults {
    std::shared_ptr<Group> group = nullptr;
    std::vector<SlotResult> results = {};
  };
  // Enough that gRPC's threads seldom meet the apply thread at one lock.
  static constexpr size_t kShards = 16;

  Shard& ShardOf(uint64_t sequence) { return shards_[sequence % kShards]; }
  raft::RaftNode* node() const {
    raft::RaftNode* node = node_.load(std::memory_order_acquire);
    CHECK(node != nullptr);
    return node;
  }

  // True, and the slot counts as told, if a group waits for it.
  bool TakeSlot(uint64_t sequence, GroupResults* of) ABSL_EXCLUSIVE_LOCKS_REQUIRED(groups_mutex_);
  bool Register(const std::shared_ptr<Group>& group);
  void PostGroup(GroupResults results);
  void TellAll(const std::shared_ptr<Group>& group, const absl::Status& status);
  static std::vector<SlotResult> TakeRest(Group& group, const absl::Status& status);
  // What a refusal by the node is told.
  absl::Status RefusalOf(const absl::Status& status) const;
  absl::Status GivenUp(const LeaderHistory& history, Verdict verdict,
                       const base::ClockSample& start) const {
    return verdict == Verdict::kLate ? history.TimeoutOf(start) : ErrTimeoutDueToConnectionLost();
  }

  void ProposeOne(Command command, Waiter waiter);
  // Registers a request; answers it at once, and returns false, if that can not be.
  bool Register(uint64_t sequence, Waiter waiter);
  // The request, if it still waits: whoever gets it calls its callback.
  std::optional<Waiter> Take(uint64_t sequence, bool only_short = false);
  // Apply thread. True: it was a short one, and is told.
  bool TellHere(Completion& completion);
  void Answer(uint64_t sequence, ApplyResult result);
  void Post(uint64_t sequence, Done done, ApplyResult result);
  // What certainly was not proposed.
  void OnRefused(uint64_t sequence, const absl::Status& status);
  void OnReadIndex(uint64_t sequence, const absl::StatusOr<Index>& index);

  void Sweep();
  void SweepShards(const LeaderHistory& history, const base::ClockSample& now,
                   absl::Duration leaderless);
  void SweepGroups(const LeaderHistory& history, const base::ClockSample& now,
                   absl::Duration leaderless);
  Verdict Judge(const base::ClockSample& start, const base::ClockSample& now,
                absl::Duration leaderless) const;
  void WakeSweeper();

  const Options options_;
  std::atomic<raft::RaftNode*> node_ = nullptr;
  std::atomic<uint64_t> last_sequence_ = 0;
  std::atomic<size_t> waiting_ = 0;
  std::atomic<bool> stopped_ = false;
  std::array<Shard, kShards> shards_;
  absl::Mutex groups_mutex_;
  // By `first`, which is by age.
  absl::btree_map<uint64_t, std::shared_ptr<Group>> groups_ ABSL_GUARDED_BY(groups_mutex_);
  bool groups_closed_ ABSL_GUARDED_BY(groups_mutex_) = false;
  Responders responders_;
  absl::Mutex telling_here_;  // held by the apply thread while it tells a result itself

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

void RequestPipelineImpl::ProposeOne(Command command, Waiter waiter) {
  const uint64_t sequence = ++last_sequence_;
  command.set_origin(options_.origin);
  command.set_sequence(sequence);
  std::string payload = command.SerializeAsString();
  if (payload.size() > options_.max_request_bytes) {
    Post(sequence, std::move(waiter.done), {ErrRequestTooLarge(), nullptr});
    return;
  }
  // Text that is no UTF-8 is written and then not read back, and an entry that nobody can read
  // stops every member. Only this operation has text fields of its own.
  if (command.has_member_attributes() && !Command().ParseFromString(payload)) {
    Post(sequence, std::move(waiter.done),
         {absl::InvalidArgumentError("holdfast: name and client URLs must be UTF-8"), nullptr});
    return;
  }
  if (!Register(sequence, std::move(waiter))) return;
  node()->Propose(std::move(payload),
                  [this, sequence](absl::Status status) { OnRefused(sequence, status); });
}

void RequestPipelineImpl::ProposeBatch(absl::Span<Command* const> commands, BatchDone done) {
  if (commands.empty()) return;
  const auto group = std::make_shared<Group>();
  group->first = last_sequence_.fetch_add(commands.size()) + 1;
  group->start = options_.clock->Sample();
  group->done = std::move(done);
  group->told.resize(commands.size());
  group->left = commands.size();
  if (!Register(group)) return;
  // Too large ones are told apart first: what is proposed must lie close together.
  std::vector<std::string> payloads;
  std::vector<size_t> slots;  // of each payload
  payloads.reserve(commands.size());
  slots.reserve(commands.size());
  GroupResults too_large{group};
  for (size_t slot = 0; slot < commands.size(); ++slot) {
    Command& command = *commands[slot];
    command.set_origin(options_.origin);
    command.set_sequence(group->first + slot);
    CHECK(!command.has_member_attributes());  // see Propose
    std::string payload = command.SerializeAsString();
    if (payload.size() <= options_.max_request_bytes) {
      payloads.push_back(std::move(payload));
      slots.push_back(slot);
      continue;
    }
    absl::MutexLock lock(&groups_mutex_);
    if (!TakeSlot(group->first + slot, &too_large)) continue;
    too_large.results.push_back({slot, {ErrRequestTooLarge(), nullptr}});
  }
  if (!too_large.results.empty()) PostGroup(std::move(too_large));
  if (payloads.empty()) return;
  node()->ProposeMany(std::move(payloads), [this, first = group->first, slots = std::move(slots)](
                                               size_t payload, const absl::Status& status) {
    GroupResults refused;
    {
      absl::MutexLock lock(&groups_mutex_);
      if (!TakeSlot(first + slots[payload], &refused)) return;
    }
    refused.results.push_back({slots[payload], {RefusalOf(status), nullptr}});
    PostGroup(std::move(refused));
  });
}

bool RequestPipelineImpl::Register(const std::shared_ptr<Group>& group) {
  const size_t count = group->left;
  if (waiting_.fetch_add(count) + count > options_.max_waiting) {
    waiting_.fetch_sub(count);
    TellAll(group, ErrTooManyRequests());
    return false;
  }
  bool closed = false;
  {
    absl::MutexLock lock(&groups_mutex_);
    closed = groups_closed_;
    if (!closed) groups_.emplace(group->first, group);
  }
  if (closed) {
    waiting_.fetch_sub(count);
    TellAll(group, ErrStopped());
    return false;
  }
  if (!sweeping_.load()) WakeSweeper();
  return true;
}

bool RequestPipelineImpl::TakeSlot(uint64_t sequence, GroupResults* of) {
  const auto holds = [sequence](const Group& group) {
    return sequence >= group.first && sequence - group.first < group.told.size();
  };
  if (of->group == nullptr || !holds(*of->group)) {
    auto it = groups_.upper_bound(sequence);
    if (it == groups_.begin()) return false;
    --it;
    if (!holds(*it->second)) return false;
    of->group = it->second;
  }
  Group& group = *of->group;
  const size_t slot = sequence - group.first;
  if (group.told[slot]) return false;
  group.told[slot] = true;
  waiting_.fetch_sub(1, std::memory_order_relaxed);
  if (--group.left == 0) groups_.erase(group.first);
  return true;
}

void RequestPipelineImpl::PostGroup(GroupResults results) {
  const uint64_t lane = results.group->first;
  responders_.Post(lane, [results = std::move(results)]() mutable {
    results.group->done(absl::MakeSpan(results.results));
  });
}

std::vector<RequestPipeline::SlotResult> RequestPipelineImpl::TakeRest(Group& group,
                                                                       const absl::Status& status) {
  std::vector<SlotResult> rest;
  rest.reserve(group.left);
  for (size_t slot = 0; slot < group.told.size(); ++slot) {
    if (group.told[slot]) continue;
    group.told[slot] = true;
    rest.push_back({slot, {status, nullptr}});
  }
  group.left = 0;
  return rest;
}

// Of one that no other thread knows.
void RequestPipelineImpl::TellAll(const std::shared_ptr<Group>& group, const absl::Status& status) {
  PostGroup({group, TakeRest(*group, status)});
}

void RequestPipelineImpl::LinearizableRead(ReadDone done) {
  const uint64_t sequence = ++last_sequence_;
  Done wrapped = [done = std::move(done)](ApplyResult result) mutable {
    std::move(done)(std::move(result.status));
  };
  if (!Register(sequence, Waiter{.done = std::move(wrapped)})) return;
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

bool RequestPipelineImpl::Register(uint64_t sequence, Waiter waiter) {
  if (waiting_.fetch_add(1) >= options_.max_waiting) {
    waiting_.fetch_sub(1);
    Post(sequence, std::move(waiter.done), {ErrTooManyRequests(), nullptr});
    return false;
  }
  bool closed = false;
  {
    Shard& shard = ShardOf(sequence);
    absl::MutexLock lock(&shard.mutex);
    closed = shard.closed;
    if (!closed) {
      waiter.start = options_.clock->Sample();
      shard.waiting.emplace(sequence, std::move(waiter));
    }
  }
  if (closed) {
    waiting_.fetch_sub(1);
    Post(sequence, std::move(waiter.done), {ErrStopped(), nullptr});
    return false;
  }
  if (!sweeping_.load()) WakeSweeper();
  return true;
}

std::optional<RequestPipelineImpl::Waiter> RequestPipelineImpl::Take(uint64_t sequence,
                                                                     bool only_short) {
  Shard& shard = ShardOf(sequence);
  absl::MutexLock lock(&shard.mutex);
  const auto it = shard.waiting.find(sequence);
  if (it == shard.waiting.end() || (only_short && !it->second.is_short)) return std::nullopt;
  Waiter waiter = std::move(it->second);
  shard.waiting.erase(it);
  waiting_.fetch_sub(1);
  return waiter;
}

void RequestPipelineImpl::Post(uint64_t sequence, Done done, ApplyResult result) {
  responders_.Post(sequence, [done = std::move(done), result = std::move(result)]() mutable {
    std::move(done)(std::move(result));
  });
}

void RequestPipelineImpl::Answer(uint64_t sequence, ApplyResult result) {
  std::optional<Waiter> waiter = Take(sequence);
  if (waiter.has_value()) Post(sequence, std::move(waiter->done), std::move(result));
}

void RequestPipelineImpl::OnRefused(uint64_t sequence, const absl::Status& status) {
  Answer(sequence, {RefusalOf(status), nullptr});
}

absl::Status RequestPipelineImpl::RefusalOf(const absl::Status& status) const {
  CHECK(!status.ok());
  if (absl::IsResourceExhausted(status)) return ErrTooManyRequests();
  return stopped_.load() ? ErrStopped() : ErrNoLeader();
}

void RequestPipelineImpl::OnReadIndex(uint64_t sequence, const absl::StatusOr<Index>& index) {
  if (index.ok()) return Answer(sequence, {});
  if (absl::IsDeadlineExceeded(index.status())) {
    const bool leaderless = !node()->status().leader;
    return Answer(sequence, {leaderless ? ErrTimeoutDueToConnectionLost() : ErrTimeout(), nullptr});
  }
  OnRefused(sequence, index.status());
}

bool RequestPipelineImpl::TellHere(Completion& completion) {
  absl::MutexLock telling(&telling_here_);  // before it is taken: Stop waits for this
  std::optional<Waiter> waiter = Take(completion.sequence, /*only_short=*/true);
  if (!waiter.has_value()) return false;
  std::move(waiter->done)(std::move(completion.result));
  return true;
}

void RequestPipelineImpl::Complete(std::vector<Completion> completions) {
  if (completions.size() == 1 && TellHere(completions.front())) return;
  std::vector<std::vector<Responders::Job>> jobs(responders_.threads());
  // A group's results lie close together, in their order: it is looked up once for each run.
  std::vector<GroupResults> groups;
  std::vector<Completion*> single;
  {
    absl::MutexLock lock(&groups_mutex_);
    GroupResults of;
    for (Completion& completion : completions) {
      if (groups_.empty() && of.group == nullptr) {
        single.push_back(&completion);
        continue;
      }
      if (!TakeSlot(completion.sequence, &of)) {
        single.push_back(&completion);
        continue;
      }
      if (groups.empty() || groups.back().group != of.group) groups.push_back({of.group});
      groups.back().results.push_back(
          {completion.sequence - of.group->first, std::move(completion.result)});
    }
  }
  for (GroupResults& of : groups) {
    jobs[of.group->first % jobs.size()].push_back(
        [of = std::move(of)]() mutable { of.group->done(absl::MakeSpan(of.results)); });
  }
  for (Completion* one : single) {
    Completion& completion = *one;
    std::optional<Waiter> waiter = Take(completion.sequence);
    if (!waiter.has_value()) continue;  // given up before: its outcome was told as unknown
    jobs[completion.sequence % jobs.size()].push_back(
        [done = std::move(waiter->done), result = std::move(completion.result)]() mutable {
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
      const absl::Duration leaderless = status.leader ? absl::ZeroDuration() : status.leaderless;
      SweepShards(history, now, leaderless);
      SweepGroups(history, now, leaderless);
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
      while (it != shard.waiting.end() &&
             Judge(it->second.start, now, leaderless) != Verdict::kWait) {
        given_up.emplace_back(it->first, std::move(it->second));
        it = shard.waiting.erase(it);
      }
    }
    waiting_.fetch_sub(given_up.size());
    for (auto& [sequence, waiter] : given_up) {
      const Verdict verdict = Judge(waiter.start, now, leaderless);
      Post(sequence, std::move(waiter.done), {GivenUp(history, verdict, waiter.start), nullptr});
    }
  }
}

void RequestPipelineImpl::SweepGroups(const LeaderHistory& history, const base::ClockSample& now,
                                      absl::Duration leaderless) {
  std::vector<GroupResults> given_up;
  {
    absl::MutexLock lock(&groups_mutex_);
    while (!groups_.empty()) {
      const std::shared_ptr<Group> group = groups_.begin()->second;
      const Verdict verdict = Judge(group->start, now, leaderless);
      if (verdict == Verdict::kWait) break;
      waiting_.fetch_sub(group->left);
      given_up.push_back({group, TakeRest(*group, GivenUp(history, verdict, group->start))});
      groups_.erase(groups_.begin());
    }
  }
  for (GroupResults& of : given_up) PostGroup(std::move(of));
}

Verdict RequestPipelineImpl::Judge(const base::ClockSample& start, const base::ClockSample& now,
                                   absl::Duration leaderless) const {
  const absl::Duration age = base::Elapsed(start, now);
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
  std::vector<GroupResults> stopped;
  {
    absl::MutexLock lock(&groups_mutex_);
    groups_closed_ = true;
    for (const auto& [first, group] : std::exchange(groups_, {})) {
      waiting_.fetch_sub(group->left);
      stopped.push_back({group, TakeRest(*group, ErrStopped())});
    }
  }
  for (GroupResults& of : stopped) PostGroup(std::move(of));
  responders_.Stop();
  // Nothing is left to be taken; what was taken before is told when this is free.
  absl::MutexLock told(&telling_here_);
}

}  // namespace

std::unique_ptr<RequestPipeline> RequestPipeline::Create(const Options& options) {
  CHECK(options.origin != 0);
  return std::make_unique<RequestPipelineImpl>(options);
}

}  // namespace holdfast::server
