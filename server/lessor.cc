#include "server/lessor.h"

#include <chrono>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/etcd_errors.h"
#include "server/lease_record.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using Remaining = LessorCore::Proposals::Remaining;

absl::Status NotTheLeader() {
  return absl::FailedPreconditionError("holdfast: this member does not keep the leases' time");
}

}  // namespace

struct Lessor::State {
  // What callbacks of the node and the pipeline bring; run on the lessor's thread.
  using Event = absl::AnyInvocable<void() &&>;
  struct Asked {
    std::vector<int64_t> ids;
    bool renew = false;
    Done done;
  };

  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;
  bool awake = false;  // something came since the thread looked last
  bool gathering = false;
  bool replaced = false;
  size_t queued_ids = 0;  // in `asks` and in the core
  std::vector<LeaseChange> changes;
  std::vector<Event> events;
  std::vector<Asked> asks;

  // False: stopped; the event is dropped, for nobody is left whom it concerns.
  void Post(Event event) {
    const std::lock_guard lock(mutex);
    if (stopping) return;
    events.push_back(std::move(event));
    Wake();
  }
  // REQUIRES: mutex is held.
  void Wake() {
    awake = true;
    wake.notify_one();
  }
};

// What the thread owns. All of it runs there.
class Lessor::Loop {
 public:
  explicit Loop(Lessor* lessor)
      : lessor_(*lessor), state_(lessor->state_), core_(lessor->options_.election_timeout) {}

  void Run();

 private:
  enum class Phase { kIdle, kConfirming, kLeading };

  bool TakeInbox(std::vector<State::Asked>* asks);  // false: stopping
  void FollowLeadership();
  void OnTermConfirmed(Term term, bool confirmed);
  absl::Status Load();
  void EndTerm();
  void Propose(const LessorCore::Proposals& proposals);
  void ProposeExpiry(const std::vector<int64_t>& ids);
  void ProposeCheckpoint(const std::vector<Remaining>& leases);
  void StartRound();
  bool Leads(Term term) const;
  bool Alive(const base::ClockSample& now) const;
  void Deliver();
  void PublishStats();

  base::ClockSample Now() const { return lessor_.options_.clock->Sample(); }

  Lessor& lessor_;
  const std::shared_ptr<State> state_;
  LessorCore core_;
  Phase phase_ = Phase::kIdle;
  uint64_t last_tag_ = 0;
  absl::flat_hash_map<uint64_t, Done> waiting_;  // by the tag of its ask; never iterated for order
  bool more_ = false;
};

Lessor::Lessor(const Options& options) : options_(options), state_(std::make_shared<State>()) {}

void Lessor::Start(raft::RaftNode* node, RequestPipeline* pipeline, KvStateMachine* machine) {
  CHECK(node_ == nullptr);
  node_ = node;
  pipeline_ = pipeline;
  machine_ = machine;
  thread_ = std::thread([this] { Loop(this).Run(); });
}

void Lessor::Stop() {
  const std::lock_guard stopping(stop_mutex_);
  std::vector<State::Asked> asks;
  {
    const std::lock_guard lock(state_->mutex);
    state_->stopping = true;
    state_->gathering = false;
    state_->Wake();
    if (!thread_.joinable()) asks.swap(state_->asks);
  }
  if (thread_.joinable()) thread_.join();
  for (State::Asked& ask : asks) std::move(ask.done)(ErrStopped());
}

void Lessor::Ask(std::vector<int64_t> ids, bool renew, Done done) {
  CHECK(ids.size() <= kAskIdsMax);
  absl::Status refusal;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) {
      refusal = ErrStopped();
    } else if (state_->queued_ids + ids.size() > kQueuedIdsMax) {
      refusal = ErrTooManyRequests();
    } else {
      state_->queued_ids += ids.size();
      state_->asks.push_back({std::move(ids), renew, std::move(done)});
      state_->Wake();
      return;
    }
  }
  std::move(done)(refusal);
}

LeaseStats Lessor::stats() const {
  return {.leases = leases_.load(),
          .granted = granted_.load(),
          .revoked = revoked_.load(),
          .renewed = renewed_.load(),
          .expired = expired_.load(),
          .checkpoints = checkpoints_.load()};
}

void Lessor::OnApplied(const storage::AppliedState&, const ApplyEffects& effects, bool) {
  if (effects.leases.empty()) return;
  for (const LeaseChange& change : effects.leases) {
    switch (change.kind) {
      case LeaseChange::Kind::kGranted:
        ++granted_;
        break;
      case LeaseChange::Kind::kGone:
        ++revoked_;
        break;
      case LeaseChange::Kind::kCheckpoint:
        ++checkpoints_;
        break;
    }
  }
  const std::lock_guard lock(state_->mutex);
  if (!state_->gathering) return;
  // Not woken for it: at the next tick is early enough, and a renewal wakes the thread by itself.
  state_->changes.insert(state_->changes.end(), effects.leases.begin(), effects.leases.end());
}

void Lessor::OnReplaced(const storage::AppliedState&) {
  const std::lock_guard lock(state_->mutex);
  state_->replaced = true;
  state_->Wake();
}

// ---------------------------------------------------------------- the thread

void Lessor::Loop::Run() {
  std::vector<State::Asked> asks;
  while (TakeInbox(&asks)) {
    FollowLeadership();
    for (State::Asked& asked : std::exchange(asks, {})) {
      waiting_.emplace(++last_tag_, std::move(asked.done));
      core_.Submit({.tag = last_tag_, .renew = asked.renew, .ids = std::move(asked.ids)});
    }
    const base::ClockSample now = Now();
    const LessorCore::Proposals proposals = core_.Turn(now, Alive(now));
    more_ = proposals.more;
    Propose(proposals);
    StartRound();
    Deliver();
    PublishStats();
  }
  core_.EndTerm();
  for (auto& [tag, done] : std::exchange(waiting_, {})) std::move(done)(ErrStopped());
  for (State::Asked& asked : asks) std::move(asked.done)(ErrStopped());
}

bool Lessor::Loop::TakeInbox(std::vector<State::Asked>* asks) {
  std::vector<LeaseChange> changes;
  std::vector<State::Event> events;
  bool stopping = false, replaced = false;
  {
    std::unique_lock lock(state_->mutex);
    if (!more_) {
      state_->wake.wait_for(lock, absl::ToChronoNanoseconds(LessorCore::kTick),
                            [this] { return state_->awake; });
    }
    state_->awake = false;
    stopping = state_->stopping;
    replaced = std::exchange(state_->replaced, false);
    changes.swap(state_->changes);
    events.swap(state_->events);
    asks->swap(state_->asks);
  }
  if (stopping) return false;
  // The log went on without this member: whatever it led, it leads no more.
  if (replaced) EndTerm();
  const base::ClockSample now = Now();
  // Before the events: what was applied before an event came is in.
  for (const LeaseChange& change : changes) core_.OnChange(change, now);
  for (State::Event& event : events) std::move(event)();
  return true;
}

bool Lessor::Loop::Leads(Term term) const {
  const raft::NodeStatus status = lessor_.node_->status();
  return status.role == raft::Role::kLeader && status.term == term;
}

bool Lessor::Loop::Alive(const base::ClockSample& now) const {
  if (!core_.leads() || !Leads(core_.term())) return false;
  // A claim needs a round that a quorum answered, and everything applied that was committed when it
  // began: it grows old when this process, the apply queue or the quorum stands still.
  const std::optional<raft::Claim> claim = lessor_.node_->claim();
  return claim.has_value() && claim->AgeAt(now) < lessor_.options_.election_timeout;
}

void Lessor::Loop::FollowLeadership() {
  const raft::NodeStatus status = lessor_.node_->status();
  const bool leads = status.role == raft::Role::kLeader;
  if (phase_ != Phase::kIdle && !(leads && status.term == core_.term())) EndTerm();
  if (phase_ != Phase::kIdle || !leads) return;
  phase_ = Phase::kConfirming;
  core_.BeginTerm(status.term);
  {
    const std::lock_guard lock(state_->mutex);
    state_->gathering = true;
  }
  lessor_.node_->ReadIndex(
      kRoundTimeout, [this, state = state_, term = status.term](absl::StatusOr<Index> index) {
        state->Post([this, term, ok = index.ok()] { OnTermConfirmed(term, ok); });
      });
}

void Lessor::Loop::OnTermConfirmed(Term term, bool confirmed) {
  if (phase_ != Phase::kConfirming || term != core_.term()) return;
  if (!confirmed || !Leads(term)) return EndTerm();  // the next turn begins anew
  if (absl::Status status = Load(); !status.ok()) {
    LOG_ERROR("cannot load the leases: {}", base::Message(status));
    EndTerm();
    if (lessor_.options_.on_fatal) lessor_.options_.on_fatal(status);
    return;
  }
  phase_ = Phase::kLeading;
  LOG_INFO("keeping the time of {} leases in term {}", core_.size(), term.value);
}

absl::Status Lessor::Loop::Load() {
  const std::shared_ptr<storage::MvccStore> store = lessor_.machine_->store();
  const std::unique_ptr<storage::MvccStore::View> view = store->NewView();
  absl::Status bad;
  const absl::Status scanned =
      view->ScanMeta(kMetaLeasePrefix, [&](std::string_view key, std::string_view value) {
        int64_t id = 0;
        LeaseRecord record;
        if (!ParseLeaseMetaKey(key, &id) || !DecodeLeaseRecord(value, &record)) {
          bad = absl::DataLossError("a lease is not in a form this program ever wrote");
          return false;
        }
        core_.Load(id, record);
        return true;
      });
  if (!scanned.ok()) return scanned;
  if (!bad.ok()) return bad;
  core_.EndLoad(view->applied().index, Now());
  return absl::OkStatus();
}

void Lessor::Loop::EndTerm() {
  phase_ = Phase::kIdle;
  {
    const std::lock_guard lock(state_->mutex);
    state_->gathering = false;
    state_->changes.clear();
  }
  core_.EndTerm();
}

void Lessor::Loop::Propose(const LessorCore::Proposals& proposals) {
  for (const std::vector<int64_t>& ids : proposals.expiries) ProposeExpiry(ids);
  if (!proposals.checkpoint.empty()) ProposeCheckpoint(proposals.checkpoint);
}

void Lessor::Loop::ProposeExpiry(const std::vector<int64_t>& ids) {
  Command command;
  command.mutable_lease_expiry()->set_term(core_.term().value);
  command.mutable_lease_expiry()->set_as_of(core_.as_of().value);
  command.mutable_lease_expiry()->mutable_ids()->Assign(ids.begin(), ids.end());
  lessor_.pipeline_->Propose(std::move(command),
                             [this, state = state_, term = core_.term(), ids](ApplyResult result) {
                               state->Post([this, term, ids, ok = result.status.ok()] {
                                 core_.OnExpiryDone(term, ids, ok, Now());
                               });
                             });
}

void Lessor::Loop::ProposeCheckpoint(const std::vector<Remaining>& leases) {
  Command command;
  command.mutable_lease_checkpoint()->set_term(core_.term().value);
  command.mutable_lease_checkpoint()->set_as_of(core_.as_of().value);
  for (const Remaining& one : leases) {
    auto* remaining = command.mutable_lease_checkpoint()->add_leases();
    remaining->set_id(one.id);
    remaining->set_ms(one.ms);
  }
  lessor_.pipeline_->Propose(
      std::move(command), [this, state = state_, term = core_.term(), leases](ApplyResult result) {
        state->Post([this, term, leases, ok = result.status.ok()] {
          core_.OnCheckpointDone(term, leases, ok, Now());
        });
      });
}

void Lessor::Loop::StartRound() {
  // The sample before the round: nothing of the round happens before it.
  const std::optional<uint64_t> round = core_.StartRound(Now());
  if (!round.has_value()) return;
  lessor_.node_->ReadIndex(kRoundTimeout, [this, state = state_, round = *round,
                                           term = core_.term()](absl::StatusOr<Index> index) {
    state->Post([this, round, term, ok = index.ok()] {
      // A round that another leader answered, because this member had ceased to lead, is told from
      // one of its own: by the time of its answer the node has told that it follows.
      core_.OnRound(round, ok && Leads(term), Now());
    });
  });
}

void Lessor::Loop::Deliver() {
  size_t ids = 0;
  for (LessorCore::Answer& answer : core_.TakeAnswers()) {
    ids += answer.ask.ids.size();
    const auto waiting = waiting_.find(answer.ask.tag);
    CHECK(waiting != waiting_.end());
    Done done = std::move(waiting->second);
    waiting_.erase(waiting);
    if (answer.led) {
      std::move(done)(std::move(answer.times));
    } else {
      std::move(done)(NotTheLeader());
    }
  }
  if (ids == 0) return;
  const std::lock_guard lock(state_->mutex);
  state_->queued_ids -= ids;
}

void Lessor::Loop::PublishStats() {
  lessor_.leases_ = core_.leads() ? core_.size() : 0;
  lessor_.renewed_ = core_.renewed();
  lessor_.expired_ = core_.expired();
}

}  // namespace holdfast::server
