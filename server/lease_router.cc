#include "server/lease_router.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/peer_channel.h"

namespace holdfast::server {
namespace {

// Of renewals and of questions: the index of each lane.
enum Kind : size_t { kRenew = 0, kTimes = 1, kKinds = 2 };

using Batch = absl::StatusOr<std::vector<LeaseTime>>;

LeaseTime FromWire(int64_t ttl_s) {
  if (ttl_s == 0) return {};
  return {
      .granted_s = ttl_s, .left_ms = std::max<int64_t>(ttl_s, 0) * 1000, .ask_again = ttl_s < 0};
}

// One call to the leader, kept by itself until its callback.
struct Call {
  grpc::ClientContext context;
  std::unique_ptr<raft::v1::PeerLeases::Stub> stub;
  raft::v1::RenewLeasesRequest renew;
  raft::v1::RenewLeasesReply renewed;
  raft::v1::LeaseTimesRequest ask;
  raft::v1::LeaseTimesReply told;
};

Batch ResultOf(Kind kind, const Call& call, const grpc::Status& status) {
  if (!status.ok()) return absl::UnavailableError(status.error_message());
  const uint32_t code = kind == kRenew ? call.renewed.code() : call.told.code();
  if (code != 0) {
    return absl::Status(static_cast<absl::StatusCode>(code),
                        kind == kRenew ? call.renewed.text() : call.told.text());
  }
  std::vector<LeaseTime> times;
  if (kind == kRenew) {
    for (const int64_t ttl_s : call.renewed.ttl_s()) times.push_back(FromWire(ttl_s));
  } else {
    for (const auto& one : call.told.times()) {
      times.push_back({.granted_s = one.granted_s(), .left_ms = one.left_ms()});
    }
  }
  return times;
}

}  // namespace

struct LeaseRouter::State {
  struct Item {
    int64_t id = 0;
    Done done;
    SteadyTime start;
    SteadyTime not_before = {};
  };
  struct Ended {
    Kind kind;
    std::vector<Item> items;
    Batch result;
    bool over_the_wire = false;
  };

  State(const MemberView& member, Lessor* lessor, const Options& options)
      : member(member), lessor(lessor), options(options) {}

  const MemberView member;
  Lessor* const lessor;
  const Options options;

  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  bool awake = false;
  size_t waiting = 0;  // not answered yet, wherever they are
  std::array<std::vector<Item>, kKinds> added;
  std::vector<Ended> ended;

  void End(Ended end) {
    const std::lock_guard lock(mutex);
    ended.push_back(std::move(end));
    awake = true;
    wake.notify_one();
  }
};

// What the thread owns.
class LeaseRouter::Loop {
 public:
  explicit Loop(std::shared_ptr<State> state) : state_(std::move(state)) {}
  void Run();

 private:
  using Item = State::Item;

  bool TakeInbox();  // false: stopping
  SteadyTime::duration Pause() const;
  void Dispatch(Kind kind, const raft::NodeStatus& status);
  std::vector<Item> TakeDue(Kind kind);
  void AskHere(Kind kind, std::vector<Item> items);
  void AskLeader(Kind kind, NodeId leader, std::vector<Item> items);
  bool Connect(const raft::NodeStatus& status);
  void Finish(State::Ended ended);
  void GiveUpLate(Kind kind, const raft::NodeStatus& status);
  void Answer(Item item, absl::StatusOr<LeaseTime> result);
  void AnswerAllStopped();

  const std::shared_ptr<State> state_;
  // In the order of their coming, those to be tried again in front.
  std::array<std::deque<Item>, kKinds> queues_;
  std::array<bool, kKinds> in_flight_ = {};
  // Theirs is perhaps the last reference to a channel, which must not go on a gRPC thread
  // (peer_channel.h).
  std::array<std::unique_ptr<Call>, kKinds> calls_;
  std::shared_ptr<grpc::Channel> channel_;
  std::string url_;        // of channel_
  size_t url_number_ = 0;  // which of the leader's URLs is tried
};

LeaseRouter::LeaseRouter(const MemberView& member, Lessor* lessor, const Options& options)
    : state_(std::make_shared<State>(member, lessor, options)),
      thread_([state = state_] { Loop(state).Run(); }) {}

void LeaseRouter::Renew(int64_t id, Done done) { Add(/*renew=*/true, id, std::move(done)); }
void LeaseRouter::Times(int64_t id, Done done) { Add(/*renew=*/false, id, std::move(done)); }

void LeaseRouter::Add(bool renew, int64_t id, Done done) {
  absl::Status refusal;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) {
      refusal = ErrStopped();
    } else if (state_->waiting >= kQueuedMax) {
      refusal = ErrTooManyRequests();
    } else {
      ++state_->waiting;
      state_->added[renew ? kRenew : kTimes].push_back({id, std::move(done), SteadyNow()});
      if (!std::exchange(state_->awake, true)) state_->wake.notify_one();
      return;
    }
  }
  std::move(done)(refusal);
}

void LeaseRouter::Stop() {
  const std::lock_guard stopping(stop_mutex_);
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->awake = true;
    state_->wake.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

// ---------------------------------------------------------------- the thread

void LeaseRouter::Loop::Run() {
  while (TakeInbox()) {
    const raft::NodeStatus status = state_->member.node->status();
    for (const Kind kind : {kRenew, kTimes}) {
      GiveUpLate(kind, status);
      Dispatch(kind, status);
    }
  }
  AnswerAllStopped();
}

SteadyTime::duration LeaseRouter::Loop::Pause() const {
  const bool waiting = !queues_[kRenew].empty() || !queues_[kTimes].empty();
  return waiting ? ToSteady(kRetryInterval) : ToSteady(absl::Seconds(10));
}

bool LeaseRouter::Loop::TakeInbox() {
  std::array<std::vector<Item>, kKinds> added;
  std::vector<State::Ended> ended;
  {
    std::unique_lock lock(state_->mutex);
    state_->wake.wait_for(lock, Pause(), [this] { return state_->awake; });
    state_->awake = false;
    added.swap(state_->added);
    ended.swap(state_->ended);
  }
  for (const Kind kind : {kRenew, kTimes}) {
    std::move(added[kind].begin(), added[kind].end(), std::back_inserter(queues_[kind]));
  }
  for (State::Ended& one : ended) Finish(std::move(one));
  const std::lock_guard lock(state_->mutex);
  return !state_->stopping;
}

void LeaseRouter::Loop::GiveUpLate(Kind kind, const raft::NodeStatus& status) {
  const SteadyTime now = SteadyNow();
  const Options& options = state_->options;
  const bool leaderless = !status.leader && status.leaderless >= options.leaderless_max;
  std::deque<Item>& queue = queues_[kind];
  if (leaderless) {
    for (Item& item : std::exchange(queue, {})) Answer(std::move(item), ErrNoLeader());
    return;
  }
  // By age, but for those that were put back in front, which are older.
  while (!queue.empty() && now - queue.front().start >= ToSteady(options.timeout)) {
    Answer(std::move(queue.front()), ErrTimeout());
    queue.pop_front();
  }
}

void LeaseRouter::Loop::Dispatch(Kind kind, const raft::NodeStatus& status) {
  if (in_flight_[kind] || !status.leader) return;
  const bool here = status.leader == state_->member.self;
  if (!here && !Connect(status)) return;
  std::vector<Item> items = TakeDue(kind);
  if (items.empty()) return;
  in_flight_[kind] = true;
  if (here) {
    AskHere(kind, std::move(items));
  } else {
    AskLeader(kind, status.leader, std::move(items));
  }
}

std::vector<LeaseRouter::State::Item> LeaseRouter::Loop::TakeDue(Kind kind) {
  const SteadyTime now = SteadyNow();
  std::deque<Item>& queue = queues_[kind];
  std::vector<Item> items;
  std::deque<Item> later;
  while (!queue.empty() && items.size() < Lessor::kAskIdsMax) {
    Item item = std::move(queue.front());
    queue.pop_front();
    if (item.not_before > now) {
      later.push_back(std::move(item));
    } else {
      items.push_back(std::move(item));
    }
  }
  queue.insert(queue.begin(), std::make_move_iterator(later.begin()),
               std::make_move_iterator(later.end()));
  return items;
}

void LeaseRouter::Loop::AskHere(Kind kind, std::vector<Item> items) {
  std::vector<int64_t> ids;
  ids.reserve(items.size());
  for (const Item& item : items) ids.push_back(item.id);
  state_->lessor->Ask(std::move(ids), kind == kRenew,
                      [state = state_, kind, items = std::move(items)](Batch result) mutable {
                        state->End({kind, std::move(items), std::move(result)});
                      });
}

bool LeaseRouter::Loop::Connect(const raft::NodeStatus& status) {
  const auto urls = status.membership->peer_urls.find(status.leader);
  if (urls == status.membership->peer_urls.end() || urls->second.empty()) return false;
  const std::string& url = *std::next(urls->second.begin(), url_number_ % urls->second.size());
  if (channel_ != nullptr && url == url_) return true;
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
      CreatePeerChannel(PeerTransport::Options(), url);
  if (!channel.ok()) {
    LOG_WARN("cannot ask the leader for leases: {}", base::Message(channel.status()));
    ++url_number_;
    return false;
  }
  channel_ = *std::move(channel);
  url_ = url;
  return true;
}

void LeaseRouter::Loop::AskLeader(Kind kind, NodeId leader, std::vector<Item> items) {
  calls_[kind] = std::make_unique<Call>();
  Call* const call = calls_[kind].get();
  call->stub = raft::v1::PeerLeases::NewStub(channel_);
  call->context.set_deadline(GrpcDeadline(kCallTimeout));
  const auto fill = [&](auto* request) {
    request->set_cluster_id(state_->member.cluster_id);
    request->set_to(leader.value);
    for (const Item& item : items) request->add_ids(item.id);
  };
  kind == kRenew ? fill(&call->renew) : fill(&call->ask);
  // Shared, because gRPC wants a function that can be copied.
  auto done = [state = state_, kind, call,
               items = std::make_shared<std::vector<Item>>(std::move(items))](
                  const grpc::Status& status) {
    state->End({kind, std::move(*items), ResultOf(kind, *call, status), /*over_the_wire=*/true});
  };
  if (kind == kRenew) {
    call->stub->async()->Renew(&call->context, &call->renew, &call->renewed, std::move(done));
  } else {
    call->stub->async()->Times(&call->context, &call->ask, &call->told, std::move(done));
  }
}

void LeaseRouter::Loop::Finish(State::Ended ended) {
  const Kind kind = ended.kind;
  in_flight_[kind] = false;
  calls_[kind].reset();
  const bool whole = ended.result.ok() && ended.result->size() == ended.items.size();
  // The leader's refusal for too much is the caller's answer; everything else is tried again.
  if (absl::IsResourceExhausted(ended.result.status())) {
    for (Item& item : ended.items) Answer(std::move(item), ended.result.status());
    return;
  }
  if (!whole && ended.over_the_wire) {
    // Another URL of the leader, or a new connection to the one it has.
    ++url_number_;
    channel_.reset();
  }
  const SteadyTime again = SteadyNow() + ToSteady(kRetryInterval);
  std::vector<Item> later;
  for (size_t i = 0; i < ended.items.size(); ++i) {
    Item& item = ended.items[i];
    if (whole && !(*ended.result)[i].ask_again) {
      Answer(std::move(item), (*ended.result)[i]);
    } else {
      item.not_before = again;
      later.push_back(std::move(item));
    }
  }
  queues_[kind].insert(queues_[kind].begin(), std::make_move_iterator(later.begin()),
                       std::make_move_iterator(later.end()));
}

void LeaseRouter::Loop::Answer(Item item, absl::StatusOr<LeaseTime> result) {
  {
    const std::lock_guard lock(state_->mutex);
    --state_->waiting;
  }
  std::move(item.done)(std::move(result));
}

void LeaseRouter::Loop::AnswerAllStopped() {
  for (const std::unique_ptr<Call>& call : calls_) {
    if (call != nullptr) call->context.TryCancel();
  }
  // A cancelled call ends at once; what the lessor has, it answers at its own Stop at the latest.
  while (in_flight_[kRenew] || in_flight_[kTimes]) TakeInbox();
  TakeInbox();
  for (std::deque<Item>& queue : queues_) {
    for (Item& item : std::exchange(queue, {})) Answer(std::move(item), ErrStopped());
  }
}

}  // namespace holdfast::server
