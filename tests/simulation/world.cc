#include "world.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.h"

namespace holdfast::sim {
namespace {

constexpr int64_t kLookEveryNs = 50 * kMillisecond;

raft::Membership FirstMembership(const SimOptions& options) {
  raft::Membership m;
  for (uint64_t i = 1; i <= options.voters + options.learners; ++i) {
    (i <= options.voters ? m.voters : m.learners).insert(NodeId(i));
    m.peer_urls[NodeId(i)] = {fmt::format("http://member{}", i)};
  }
  return m;
}

bool OfProcess(EventKind kind) { return kind <= EventKind::kStop; }

}  // namespace

World::World(const SimOptions& asked, bool trace)
    : options(asked),
      rng(asked.seed),
      witness(FirstMembership(asked)),
      network(this),
      clients(this),
      operators(this),
      faults(this),
      trace_(trace) {
  const raft::Membership first = FirstMembership(options);
  for (const NodeId id : first.All()) AddMember(id, first);
  for (Member* member : members_) member->Start();
  clients.Begin();
  operators.Begin();
  faults.Begin();
}

World::~World() = default;

Member& World::AddMember(NodeId id, const raft::Membership& bootstrap) {
  CHECK(!Exists(id));
  if (by_id_.size() <= id.value) by_id_.resize(id.value + 1);
  by_id_[id.value] = std::make_unique<Member>(this, id, bootstrap);
  members_.push_back(by_id_[id.value].get());
  return *members_.back();
}

Member* World::RandomRunning() {
  Member* member = members_[rng.Below(members_.size())];
  return member->runs() ? member : nullptr;
}

Member* World::Leader() {
  Member* leader = nullptr;
  for (Member* member : members_) {
    if (!member->leads()) continue;
    if (leader == nullptr || member->core().term() > leader->core().term()) leader = member;
  }
  return leader;
}

// ---------------------------------------------------------------- events

void World::RunUntil(int64_t until_ns) {
  while (witness.ok() && !events.empty() && events.front().at_ns <= until_ns) {
    const Event event = events.Take();
    now_ns = std::max(now_ns, event.at_ns);
    ++figures.events;
    Dispatch(event);
  }
  now_ns = std::max(now_ns, until_ns);
}

void World::Dispatch(const Event& event) {
  Member* member = event.member == 0 ? nullptr : &this->member(NodeId(event.member));
  if (event.life != 0 && event.life != member->life()) return;
  const bool waits = member != nullptr && member->paused() && OfProcess(event.kind);
  if (waits && event.kind != EventKind::kCrash && event.kind != EventKind::kStop) {
    return member->PutOff(event);
  }
  switch (event.kind) {
    case EventKind::kDeliver:
      return network.Deliver(event.argument);
    case EventKind::kClientCall:
      return clients.Arrive(*member, event.argument);
    case EventKind::kSnapshotHere:
      return network.SnapshotHere(event.argument);
    case EventKind::kSnapshotDone:
      return network.SnapshotDoneAt(event.argument);
    case EventKind::kSnapshotLost:
      return network.SnapshotLost(event.argument);
    case EventKind::kStart:
      return member->Start();
    case EventKind::kResume:
      return member->Resume();
    case EventKind::kStop:
      return member->Stop(event.argument != 0);
    case EventKind::kClientNext:
      return clients.Next(event.argument);
    case EventKind::kClientDeadline:
      return clients.Deadline(event.argument);
    case EventKind::kFault:
      return faults.Strike(static_cast<FaultKind>(event.argument));
    case EventKind::kHeal:
      return network.EndCut(event.argument);
    case EventKind::kOperator:
      return operators.Change();
    case EventKind::kOperatorDeadline:
      return operators.ChangeDeadline(event.argument);
    case EventKind::kTransfer:
      return operators.Transfer();
    case EventKind::kJanitor:
      return operators.CleanUp();
    default:
      return member->Handle(event);
  }
}

void World::Trace(const Member* member, const std::string& what) {
  if (!trace_) return;
  fmt::print(stderr, "{:>11.3f} ms", static_cast<double>(now_ns) / 1e6);
  if (member != nullptr) fmt::print(stderr, " member {}", member->id().value);
  if (member != nullptr && member->up()) {
    const raft::RaftCore& core = member->core();
    fmt::print(stderr, " [{} t{} lead {} last {} dur {} commit {} applied {}]",
               raft::RoleName(core.role()), core.term().value, core.leader().value,
               core.log().last().value, core.durable().value, core.commit().value,
               core.applied().value);
  }
  fmt::print(stderr, " {}\n", what);
}

// ---------------------------------------------------------------- the two phases

bool World::Run() {
  ++figures.runs;
  const int64_t began_ns = now_ns;
  RunUntil(now_ns + options.safety_ms * kMillisecond);
  const bool recovered = witness.ok() && Recover();
  figures.simulated_ns = static_cast<uint64_t>(now_ns - began_ns);
  Account();
  if (recovered) clients.CheckHistory();
  return witness.ok();
}

void World::Heal() {
  faulty_ = false;
  healed_ns_ = now_ns;
  SimOptions& o = options;
  o.loss = o.duplicate = o.reorder = o.slow = o.slow_fsync = o.slow_ticker = 0;
  o.turn_hold = o.apply_hold = o.fetch_hold = o.maintenance_hold = 0;
  o.snapshot_fail = o.snapshot_late = o.crash_at_install = 0;
  o.delay_us_max = std::min<int64_t>(o.delay_us_max, 1000);
  o.fsync_us_max = std::min<int64_t>(o.fsync_us_max, 1000);
  o.snapshot_ms_max = std::min<int64_t>(o.snapshot_ms_max, 300);
  o.down_ms_max = 1;
  Trace(nullptr, "everything heals");
  network.HealEverything();
  clients.Rest();
  operators.Calm();
  for (Member* member : members_) member->Calm();
}

// With one entry a message, a fetch for each and a window of one, an entry may take two heartbeats.
int64_t World::RecoveryLimitNs() {
  uint64_t last = 0;
  uint64_t applied = UINT64_MAX;
  for (const Member* member : members_) {
    if (!member->up()) continue;
    last = std::max(last, member->core().log().last().value);
    applied = std::min(applied, member->machine().applied().value);
  }
  constexpr int64_t kElections = 20;
  const int64_t backlog = static_cast<int64_t>(last - std::min(last, applied));
  return 10 * kSecond + kElections * options.election_ms() * kMillisecond +
         2 * backlog * options.heartbeat_ms() * kMillisecond;
}

bool World::Recover() {
  Heal();
  const int64_t deadline_ns = now_ns + RecoveryLimitNs();
  std::string lacking = "nothing was looked at";
  while (witness.ok() && now_ns < deadline_ns) {
    RunUntil(now_ns + kLookEveryNs);
    if (!witness.ok()) return false;
    const std::string before = std::exchange(lacking, WhatIsLacking());
    if (lacking != before) Trace(nullptr, "lacking: " + lacking);
    if (lacking.empty()) break;
  }
  const auto ms = static_cast<uint64_t>((now_ns - healed_ns_) / kMillisecond);
  figures.recovery_ms_max = std::max(figures.recovery_ms_max, ms);
  if (!lacking.empty()) {
    witness.Fail(fmt::format("liveness: {} ms after everything had healed, {}", ms, lacking));
  }
  return witness.ok();
}

// A new write, and a read at every member: asked for again while there is no answer.
void World::AskAround() {
  if (now_ns < next_ask_ns_) return;
  next_ask_ns_ = now_ns + 2 * options.election_ms() * kMillisecond;
  std::vector<Member*> there;
  for (const NodeId id : witness.committed_config().membership.All()) {
    if (Exists(id) && member(id).runs()) there.push_back(&member(id));
  }
  if (there.empty()) return;
  if (!write_asked_ || !witness.WasApplied(*write_asked_)) {
    write_asked_ = clients.Ask(*there[rng.Below(there.size())], OpKind::kPut);
  }
  for (Member* member : there) {
    const auto it = reads_asked_.find(member->id());
    if (it != reads_asked_.end() && clients.op(it->second).outcome == Outcome::kOk) continue;
    reads_asked_[member->id()] = clients.Ask(*member, OpKind::kRead);
  }
}

// Empty: the cluster has recovered.
std::string World::WhatIsLacking() {
  AskAround();
  const Member* leader = Leader();
  if (leader == nullptr) return "there is no leader";
  const raft::Membership& config = witness.committed_config().membership;
  if (config.joint()) return "the joint configuration is still in force";
  if (!config.promotions.empty()) return "a promotion is still pending";
  if (operators.has_dead()) return "the dead member is not yet replaced";
  if (!(leader->core().membership() == config)) return "a membership change is not committed";
  if (!write_asked_ || !witness.WasApplied(*write_asked_)) return "a new write is not applied";
  for (const NodeId id : config.All()) {
    if (!Exists(id) || !member(id).runs()) return fmt::format("member {} is not up", id.value);
    std::string lacking = WhatMemberLacks(member(id), *leader);
    if (!lacking.empty()) return fmt::format("member {} {}", id.value, lacking);
  }
  return {};
}

std::string World::WhatMemberLacks(Member& member, const Member& leader) {
  const raft::NodeStatus status = member.node().status();
  if (status.leader != leader.id()) return "does not know the leader";
  const MachineState& mine = member.machine().state();
  const MachineState& theirs = leader.machine().state();
  if (mine.applied != theirs.applied) {
    return fmt::format("has applied {} of {}", mine.applied.value, theirs.applied.value);
  }
  if (mine.Digest() != theirs.Digest()) witness.Fail("members differ at the same applied index");
  const auto read = reads_asked_.find(member.id());
  if (read == reads_asked_.end() || clients.op(read->second).outcome != Outcome::kOk) {
    return "has not answered a read";
  }
  // With room for one question only, most of them are dropped.
  if (options.core.max_pending_probes < witness.committed_config().membership.All().size()) {
    return {};
  }
  const auto claim = member.node().claim();
  if (!claim) return "does not know its age";
  if (member.clock().TrueTimeOf(claim->at.boot_ns) < healed_ns_) return "knows no recent state";
  const int64_t age_ns = absl::ToInt64Nanoseconds(claim->AgeAt(member.clock().Sample()));
  const int64_t usual_ns = (4 * options.heartbeat_ms() + 100) * kMillisecond;
  return age_ns <= usual_ns ? "" : fmt::format("is {} ms old", age_ns / kMillisecond);
}

void World::Account() {
  figures.elections = witness.elections();
  figures.commits = witness.commits();
  figures.configs = witness.configs();
  figures.joint_configs = witness.joint_configs();
  figures.promotions = witness.promotions();
  for (Member* member : members_) {
    if (member->up()) figures.member_ns += static_cast<uint64_t>(now_ns - member->started_ns());
    figures.truncations += member->disk().truncations();
    figures.compactions += member->disk().compactions();
    figures.applied += member->machine().applied_entries();
    figures.flushes += member->machine().flushes();
    figures.snapshots_installed += member->machine().installs();
  }
}

uint64_t World::Digest() {
  uint64_t digest = rng.Next();
  for (Member* member : members_) {
    digest = digest * 31 + member->machine().state().Digest();
    digest = digest * 31 + member->disk().hard_state().term.value;
  }
  return digest * 31 + static_cast<uint64_t>(now_ns) + figures.events;
}

}  // namespace holdfast::sim
