#include "member.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "world.h"

namespace holdfast::sim {

using raft::Role;

Member::Member(World* world, NodeId id, const raft::Membership& bootstrap)
    : world_(*world),
      id_(id),
      bootstrap_(bootstrap),
      disk_(id, world->options.segment_entries, &world->rng, &world->witness),
      machine_(id, &world->checkpoints, &world->witness,
               [this](const Command& command, const OpResult& result) {
                 world_.clients.OnApplied(*this, command, result);
               }) {
  world_.witness.AddDisk(id, &disk_, bootstrap);
}

Member::~Member() = default;

// ---------------------------------------------------------------- lives

// Freshness A1 trusts the better of two clocks: which one that is, is drawn for each boot.
void Member::NewClock() {
  Drift drift{SimClock::kSlowestTrustedPpm + world_.Uniform(12'000),
              SimClock::kSlowestTrustedPpm + world_.Uniform(12'000)};
  if (world_.rng.OneIn(3)) {
    (world_.rng.OneIn(2) ? drift.slewed_ppm : drift.raw_ppm) -= world_.Uniform(40'000);
  }
  clock_ =
      std::make_unique<SimClock>(&world_.now_ns, world_.Uniform(1'000'000) * kMillisecond, drift);
}

raft::NodeOptions Member::DrawOptions() {
  const SimOptions& o = world_.options;
  slow_ticker_ = world_.faulty() && world_.Chance(o.slow_ticker);
  if (slow_ticker_) ++world_.figures.slow_tickers;
  raft::NodeOptions options;
  options.core = o.core;
  options.core.id = id_;
  options.tick = absl::Milliseconds(o.tick_ms * (slow_ticker_ ? 4 : 1));
  options.seed = world_.rng.Next();
  options.boot = world_.rng.Next();
  options.clock = clock_.get();
  options.max_queued_bytes = o.max_queued_bytes;
  options.snapshot_count = o.snapshot_count;
  options.snapshot_log_bytes = o.snapshot_log_bytes;
  options.catch_up_entries = o.catch_up_entries;
  options.freshness_record = this;
  options.on_fatal = [this](const absl::Status& status) {
    failed_ = true;
    fatal_text_ = status.ToString();
  };
  return options;
}

void Member::Start() {
  if (up() || gone_) return;
  CHECK(!disk_.rotten());
  if (clock_ == nullptr) NewClock();
  ++life_;
  const storage::HardState before = disk_.hard_state();
  const auto installed = machine_.installed_mark();
  if (installed && !disk_.Holds(installed->index, installed->term)) {
    ++world_.figures.half_installed;
  }
  disk_.Open();
  machine_.Restart();
  failed_ = fatal_expected_ = paused_ = suspended_ = false;
  started_ns_ = world_.now_ns;
  auto started = raft::SteppedNode::Start(DrawOptions(), bootstrap_, &disk_, &machine_, this);
  if (!started.ok()) {
    return world_.witness.Fail(
        fmt::format("member {} does not start: {}", id_.value, started.status().ToString()));
  }
  node_ = *std::move(started);
  if (core().term() < before.term ||
      (core().term() == before.term && before.vote && core().vote() != before.vote)) {
    world_.witness.Fail(
        fmt::format("member {} forgot its term or its vote over a restart", id_.value));
  }
  if (core().role() == Role::kLeader) world_.witness.Fail("a member started as a leader");
  seen_term_ = core().term();
  seen_vote_ = core().vote();
  seen_commit_ = Index(0);
  seen_applied_ = machine_.applied();
  seen_role_ = Role::kFollower;
  seen_durable_ = Index(0);
  seen_config_ = nullptr;
  seen_claim_boot_ns_ = INT64_MIN;
  installs_seen_ = machine_.installs();
  held_until_ns_ = disk_stalled_until_ns_ = apply_stalled_until_ns_ = 0;
  scheduled_ = 0;
  wake_at_ns_ = kNever;
  world_.Trace(this, fmt::format("starts: log ({}, {}] applied {}", disk_.mark().index.value,
                                 disk_.last().value, machine_.applied().value));
  world_.network.RestoreConnections(id_);
  Observe();
  ScheduleWorkers();
  ScheduleNextTurn();
}

void Member::EndLife() {
  world_.figures.member_ns += static_cast<uint64_t>(world_.now_ns - started_ns_);
  node_.reset();
  if (suspended_) clock_->Wake();
  paused_ = suspended_ = failed_ = false;
  put_off_.clear();
  ++life_;  // nothing that was on its way to this life may reach the next
  world_.network.ForgetSender(id_);
  world_.clients.OnMemberDown(*this);
  world_.network.BreakConnections(id_);
}

void Member::Crash(bool power) {
  if (!up()) return;
  world_.Trace(this, power ? "loses power" : "crashes");
  ++(power ? world_.figures.power_cuts : world_.figures.crashes);
  EndLife();
  machine_.Crash();
  const SimDisk::Lost lost = disk_.Crash(power);
  world_.figures.lost_hints += lost.hint ? 1 : 0;
  world_.figures.lost_compactions += lost.compaction ? 1 : 0;
  if (power) {
    clock_.reset();
    record_.reset();
  }
  if (!gone_)
    world_.AtHost(
        world_.now_ns + kMillisecond + world_.Uniform(world_.options.down_ms_max * kMillisecond),
        EventKind::kStart, id_);
}

void Member::Stop(bool for_good) {
  if (for_good) {
    gone_ = true;
    ++world_.figures.stopped;
  }
  if (!up()) return;
  world_.Trace(this, for_good ? "is stopped for good" : "is stopped");
  ++world_.figures.graceful_stops;
  if (paused_) Resume();
  machine_.BeginFlush();
  node_->Stop();
  if (failed_) return Crash(false);
  world_.clients.CheckAllAnswered(*this);
  EndLife();
  machine_.Crash();  // Stop() has flushed
  if (!gone_)
    world_.AtHost(
        world_.now_ns + kMillisecond + world_.Uniform(world_.options.down_ms_max * kMillisecond),
        EventKind::kStart, id_);
}

void Member::Die() {
  gone_ = true;
  Crash(/*power=*/true);
  disk_.Rot();
}

void Member::Pause(bool suspend) {
  if (!up() || paused_) return;
  world_.Trace(this, suspend ? "sleeps" : "stands still");
  paused_ = true;
  suspended_ = suspend;
  if (suspend) clock_->Suspend();
}

void Member::Resume() {
  if (!paused_) return;
  world_.Trace(this, "goes on");
  paused_ = false;
  if (std::exchange(suspended_, false)) clock_->Wake();
  // What it missed comes in bit by bit: for a while it may believe what it believed before.
  int64_t at_ns = world_.now_ns;
  for (Event event : std::exchange(put_off_, {})) {
    if (event.kind == EventKind::kWake) continue;
    at_ns += 1 + world_.Uniform(kMillisecond);
    event.at_ns = at_ns;
    world_.events.Add(event);
  }
  wake_at_ns_ = kNever;
  ScheduleNextTurn();
}

void Member::Calm() {
  if (gone_) return;
  Resume();
  held_until_ns_ = disk_stalled_until_ns_ = apply_stalled_until_ns_ = 0;
  if (up() && slow_ticker_) Crash(false);
  Start();
  NeedTurn();
}

// ---------------------------------------------------------------- scheduling

void Member::Handle(const Event& event) {
  switch (event.kind) {
    case EventKind::kWake:
      if (event.at_ns == wake_at_ns_) Turn();
      return;
    case EventKind::kLog:
      return Work(event.kind, &raft::SteppedNode::RunLog);
    case EventKind::kApply:
      return Work(event.kind, &raft::SteppedNode::RunApply);
    case EventKind::kFetch:
      return Work(event.kind, &raft::SteppedNode::RunFetch);
    case EventKind::kMaintenance:
      return Work(event.kind, &raft::SteppedNode::RunMaintenance);
    case EventKind::kPeerLost:
      ++world_.figures.peer_lost;
      node_->OnPeerLost(NodeId(event.argument));
      return NeedTurn();
    case EventKind::kPeerUp:
      node_->OnPeerConnected(NodeId(event.argument));
      return NeedTurn();
    case EventKind::kCrash:
      if (world_.faulty()) Crash(event.argument != 0);
      return;
    default:
      CHECK_MSG(false, "not an event of a member");
  }
}

void Member::Receive(std::vector<raft::Message> messages) {
  if (world_.tracing()) {
    for (const raft::Message& m : messages) {
      world_.Trace(this, fmt::format("<- {} {} term {} prev ({}, {}) commit {} n {} match {} {}{}",
                                     m.from.value, static_cast<int>(m.type), m.term.value,
                                     m.prev_index.value, m.prev_term.value, m.commit.value,
                                     m.entries.size(), m.match_index.value,
                                     m.reject ? "reject " : "", m.pre_vote ? "pre " : ""));
    }
  }
  node_->Receive(std::move(messages));
  NeedTurn();
}

void Member::NeedTurn() {
  if (!up()) return;
  constexpr int64_t kWakeUpNs = 20 * kMicrosecond;
  if (wake_at_ns_ <= world_.now_ns + kWakeUpNs) return;
  ScheduleWake(std::max(world_.now_ns + 1 + world_.Uniform(kWakeUpNs), held_until_ns_));
}

void Member::ScheduleWake(int64_t at_ns) {
  if (at_ns >= wake_at_ns_) return;
  wake_at_ns_ = at_ns;
  world_.AtMember(at_ns, EventKind::kWake, *this);
}

void Member::ScheduleNextTurn() {
  const int64_t tick_ns = clock_->TrueTimeOf(node_->next_tick_ns()) + SimClock::kInverseErrorNs;
  ScheduleWake(std::max({tick_ns, world_.now_ns + 1, held_until_ns_}));
  if (node_->HasInput()) NeedTurn();
}

void Member::Turn() {
  wake_at_ns_ = kNever;
  ++world_.figures.turns;
  node_->RunRaft();
  AfterWork();
  if (!up()) return;
  if (machine_.installs() != std::exchange(installs_seen_, machine_.installs()) &&
      world_.Chance(world_.options.crash_at_install)) {
    world_.AtMember(world_.now_ns + 1, EventKind::kCrash, *this, world_.rng.OneIn(2) ? 1 : 0);
  }
  constexpr uint64_t kLookOneIn = 16;
  if (world_.rng.OneIn(kLookOneIn)) CheckPublished();
  held_until_ns_ = 0;
  if (world_.Chance(world_.options.turn_hold)) {
    held_until_ns_ = world_.now_ns + world_.Uniform(world_.options.turn_hold_ms_max * kMillisecond);
  }
  ScheduleWorkers();
  ScheduleNextTurn();
}

void Member::ScheduleWorkers() {
  if (node_->HasLogWork()) WorkLater(EventKind::kLog);
  if (node_->HasApplyWork()) WorkLater(EventKind::kApply);
  if (node_->HasFetchWork()) WorkLater(EventKind::kFetch);
  if (!node_->HasMaintenanceWork()) return;
  if (WorkLater(EventKind::kMaintenance)) machine_.BeginFlush();
}

bool Member::WorkLater(EventKind kind) {
  const auto bit = static_cast<uint8_t>(1u << static_cast<unsigned>(kind));
  if ((scheduled_ & bit) != 0) return false;
  scheduled_ |= bit;
  world_.AtMember(world_.now_ns + WorkDelay(kind), kind, *this);
  return true;
}

int64_t Member::WorkDelay(EventKind kind) {
  const SimOptions& o = world_.options;
  const auto held = [&](uint64_t chance, int64_t usual_ns) {
    int64_t delay = 1 + world_.Uniform(usual_ns);
    if (world_.Chance(chance)) delay += world_.Uniform(o.hold_ms_max * kMillisecond);
    return delay;
  };
  switch (kind) {
    case EventKind::kLog: {
      int64_t delay = 1 + world_.Uniform(o.fsync_us_max * kMicrosecond);
      if (world_.Chance(o.slow_fsync)) delay += world_.Uniform(o.slow_fsync_ms_max * kMillisecond);
      return delay;
    }
    case EventKind::kApply:
      return held(o.apply_hold, 100 * kMicrosecond);
    case EventKind::kFetch:
      return held(o.fetch_hold, 500 * kMicrosecond);
    default:
      return held(o.maintenance_hold, 5 * kMillisecond);
  }
}

void Member::Work(EventKind kind, bool (raft::SteppedNode::*run)()) {
  scheduled_ &= static_cast<uint8_t>(~(1u << static_cast<unsigned>(kind)));
  const int64_t stalled_until_ns = kind == EventKind::kLog     ? disk_stalled_until_ns_
                                   : kind == EventKind::kApply ? apply_stalled_until_ns_
                                                               : 0;
  if (stalled_until_ns > world_.now_ns) {
    scheduled_ |= static_cast<uint8_t>(1u << static_cast<unsigned>(kind));
    return world_.AtMember(stalled_until_ns, kind, *this);
  }
  (void)(node_.get()->*run)();
  AfterWork();
  if (!up()) return;
  ScheduleWorkers();
  if (node_->HasInput()) NeedTurn();
}

// A member that found its disk or its data wanting must stop, and nobody else may.
void Member::AfterWork() {
  if (!failed_) {
    Observe();
    return ObserveClaim();
  }
  if (!fatal_expected_) {
    world_.witness.Fail(
        fmt::format("member {} stopped itself without a reason: {}", id_.value, fatal_text_));
  }
  const bool power = std::exchange(power_goes_at_write_, false);
  ++(power ? world_.figures.torn_writes : world_.figures.disk_errors);
  Crash(power);
}

void Member::TearNextWrite() {
  disk_.FailNextAppend(SimDisk::Trouble::kTorn);
  power_goes_at_write_ = fatal_expected_ = true;
}

}  // namespace holdfast::sim
