#include "operators.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/strings.h"
#include "world.h"

namespace holdfast::sim {

using raft::MemberChange;
using raft::Membership;
using Kind = raft::MemberChange::Kind;

namespace {

constexpr int64_t kCleanUpEveryNs = 400 * kMillisecond;
constexpr int64_t kChangeEveryCalmMs = 500;
constexpr uint64_t kMaxLearners = 2;

NodeId OneOf(World& world, const std::set<NodeId>& ids) {
  if (ids.empty()) return NodeId(0);
  return *std::next(ids.begin(), static_cast<ptrdiff_t>(world.rng.Below(ids.size())));
}

bool AddsSomebody(Kind kind) {
  return kind == Kind::kAdd || kind == Kind::kAddLearner || kind == Kind::kReplace;
}

}  // namespace

void Operators::Begin() {
  const SimOptions& o = world_.options;
  next_id_ = o.voters + o.learners + 1;
  if (o.change_every_ms > 0 || o.rot_every_ms > 0) {
    world_.At(world_.NextAfterMs(std::max<int64_t>(o.change_every_ms, kChangeEveryCalmMs)),
              EventKind::kOperator);
  }
  if (o.transfer_every_ms > 0) {
    world_.At(world_.NextAfterMs(o.transfer_every_ms), EventKind::kTransfer);
  }
  world_.At(world_.now_ns + kCleanUpEveryNs, EventKind::kJanitor);
}

void Operators::Calm() {
  calm_ = true;
  world_.At(world_.NextAfterMs(kChangeEveryCalmMs), EventKind::kOperator);
}

bool Operators::has_dead() const {
  return dead_ && world_.witness.committed_config().membership.Contains(dead_);
}

bool Operators::ReplacementUnderWay() const {
  const Membership& now = world_.witness.committed_config().membership;
  return now.joint() || std::any_of(now.promotions.begin(), now.promotions.end(),
                                    [&](const auto& p) { return p.second == dead_; });
}

bool Operators::MayKill() const {
  const Membership& now = world_.witness.committed_config().membership;
  return !in_flight_ && !uncertain_ && !has_dead() && !now.joint() && now.promotions.empty() &&
         now.voters.size() >= 3 && world_.witness.NoChangeInTheAir();
}

// ---------------------------------------------------------------- changes

void Operators::Change() {
  const SimOptions& o = world_.options;
  const int64_t every_ms = calm_ || o.change_every_ms == 0 ? kChangeEveryCalmMs : o.change_every_ms;
  world_.At(world_.NextAfterMs(every_ms), EventKind::kOperator);
  // While somebody is dead nothing else is changed, and its replacement, once asked for, comes by
  // itself: one more voter away could be one too many.
  const bool needed = has_dead();
  if (in_flight_ || (needed && ReplacementUnderWay())) return;
  if (!needed && (calm_ || o.change_every_ms == 0)) return;
  Member* at = world_.Leader();
  if (!calm_ && world_.rng.OneIn(10)) at = world_.RandomRunning();
  if (at == nullptr || !at->runs()) return;
  const Membership& now = at->core().membership();
  if (now.joint()) return;
  const MemberChange change = needed ? PlanForDead(now) : Plan(now);
  if (!change.id) return;
  in_flight_ = true;
  const uint32_t number = ++number_;
  const int64_t timeout_ms = 500 + world_.Uniform(6000);
  world_.At(world_.now_ns + (timeout_ms + 2000) * kMillisecond, EventKind::kOperatorDeadline,
            number);
  world_.Trace(
      at, fmt::format("is asked for change {} of member {} for {}", static_cast<int>(change.kind),
                      change.id.value, change.replaces.value));
  at->node().ChangeMembers(change, absl::Milliseconds(timeout_ms),
                           [=, this](absl::StatusOr<Membership> result) {
                             at->Observe();
                             OnDone(number, change, result);
                           });
  at->NeedTurn();
}

MemberChange Operators::WithNewId(MemberChange change) {
  if (next_id_ > Network::kMaxMembers) return {};
  change.id = NodeId(next_id_++);
  change.peer_urls = {fmt::format("http://member{}", change.id.value)};
  return change;
}

MemberChange Operators::PlanForDead(const Membership& now) {
  MemberChange change;
  if (now.learners.contains(dead_) || (now.voters.size() > 3 && world_.rng.OneIn(4))) {
    change.kind = Kind::kRemove;
    change.id = dead_;
    return change;
  }
  change.kind = Kind::kReplace;
  change.replaces = dead_;
  change = WithNewId(change);
  // A new machine may have the address of the old one.
  if (world_.rng.OneIn(2) && now.peer_urls.contains(dead_)) {
    change.peer_urls = now.peer_urls.at(dead_);
  }
  return change;
}

bool Operators::MayShrink(const Membership& now) const {
  return now.voters.size() > 3 || (now.voters.size() > 1 && world_.rng.OneIn(6));
}

MemberChange Operators::Plan(const Membership& now) {
  MemberChange change;
  const bool full = now.voters.size() + now.promotions.size() >= world_.options.voters_max;
  const NodeId voter = OneOf(world_, now.voters);
  const NodeId learner = OneOf(world_, now.learners);
  switch (world_.rng.Below(9)) {
    case 0:
    case 1:
      change.kind = Kind::kAdd;
      return full ? MemberChange() : WithNewId(change);
    case 2:
      change.kind = Kind::kAddLearner;
      return now.learners.size() >= kMaxLearners ? MemberChange() : WithNewId(change);
    case 3:
      change.kind = Kind::kRemove;
      if (world_.rng.OneIn(3)) change.id = learner;
      if (!change.id && MayShrink(now)) change.id = voter;
      return change;
    case 4:
      change.kind = Kind::kPromote;
      change.id = full ? NodeId(0) : learner;
      return change;
    case 5:
      change.kind = Kind::kDemote;
      if (MayShrink(now) && now.learners.size() < kMaxLearners) change.id = voter;
      return change;
    case 6:
      change.kind = Kind::kUpdate;
      change.id = world_.rng.OneIn(2) ? voter : learner;
      change.peer_urls = {fmt::format("http://member{}-{}", change.id.value, ++url_version_)};
      return change;
    case 7:
      change.kind = Kind::kReplace;
      change.replaces = voter;
      return WithNewId(change);
    default:
      return PlanNonsense(now, voter, learner);
  }
}

// What must be refused, whatever the state.
MemberChange Operators::PlanNonsense(const Membership& now, NodeId voter, NodeId learner) {
  MemberChange change;
  change.peer_urls = {"http://nowhere"};
  switch (world_.rng.Below(4)) {
    case 0:
      change.kind = Kind::kAdd;  // somebody who is here, or was
      change.id = now.removed.empty() ? voter : now.removed.front();
      break;
    case 1:
      change.kind = Kind::kPromote;
      change.id = voter;
      break;
    case 2:
      change.kind = Kind::kRemove;
      change.id = NodeId(Network::kMaxMembers + 1);
      break;
    default:
      change.kind = Kind::kReplace;
      change.replaces = learner ? learner : NodeId(Network::kMaxMembers + 1);
      return WithNewId(change);
  }
  nonsense_ = number_ + 1;
  return change;
}

void Operators::ChangeDeadline(uint32_t number) {
  if (number != number_ || !in_flight_) return;
  in_flight_ = false;
  uncertain_ = true;
  ++world_.figures.changes_unknown;
}

void Operators::OnDone(uint32_t number, const MemberChange& change,
                       const absl::StatusOr<Membership>& result) {
  if (!told_.insert(number).second) {
    return world_.witness.Fail("a membership change was answered twice");
  }
  const bool in_time = number == number_ && in_flight_;
  if (in_time) in_flight_ = false;
  const absl::Status& status = result.status();
  world_.Trace(nullptr, fmt::format("change {}: {}", number, status.ToString()));
  if (result.ok()) {
    if (number == nonsense_) world_.witness.Fail("nonsense was carried out as a change");
    CheckDone(change, *result);
    ++world_.figures.changes_ok;
    if (in_time) uncertain_ = false;
    return CountDone(change);
  }
  if (absl::IsDeadlineExceeded(status)) {
    if (in_time) {
      uncertain_ = true;
      ++world_.figures.changes_unknown;
    }
    return;
  }
  // Everything else means: certainly not done.
  const bool known = absl::IsFailedPrecondition(status) || absl::IsUnavailable(status) ||
                     absl::IsResourceExhausted(status) || absl::IsNotFound(status) ||
                     absl::IsAlreadyExists(status) || absl::IsInvalidArgument(status);
  if (!known) world_.witness.Fail("a change was refused with " + status.ToString());
  if (AddsSomebody(change.kind) && number != nonsense_) world_.witness.SawRefusedMember(change.id);
  if (in_time) ++world_.figures.changes_refused;
}

void Operators::CheckDone(const MemberChange& change, const Membership& now) {
  const auto broken = [&](const char* what) {
    world_.witness.Fail(fmt::format("membership: change {} of member {} was reported as done, {}",
                                    static_cast<int>(change.kind), change.id.value, what));
  };
  if (now.joint()) broken("with a joint configuration in force");
  if (!world_.witness.WasCommitted(now)) broken("with a membership that is not committed");
  switch (change.kind) {
    case Kind::kAdd:
    case Kind::kAddLearner:
    case Kind::kReplace:
      if (!now.Contains(change.id)) broken("and it is not there");
      break;
    case Kind::kRemove:
      if (now.Contains(change.id)) broken("and it is still there");
      break;
    case Kind::kPromote:
      if (!now.voters.contains(change.id)) broken("and it does not vote");
      break;
    case Kind::kDemote:
      if (!now.learners.contains(change.id)) broken("and it is no learner");
      break;
    case Kind::kUpdate:
      if (!now.peer_urls.contains(change.id) || now.peer_urls.at(change.id) != change.peer_urls) {
        broken("and has another address");
      }
      break;
  }
}

void Operators::CountDone(const MemberChange& change) {
  Figures& f = world_.figures;
  switch (change.kind) {
    case Kind::kAdd:
      ++f.adds;
      break;
    case Kind::kAddLearner:
      ++f.learner_adds;
      break;
    case Kind::kRemove:
      ++f.removes;
      break;
    case Kind::kPromote:
      ++f.promotes;
      break;
    case Kind::kDemote:
      ++f.demotes;
      break;
    case Kind::kUpdate:
      ++f.updates;
      break;
    case Kind::kReplace:
      ++f.replaces;
      break;
  }
}

// ---------------------------------------------------------------- leadership

void Operators::Transfer() {
  if (!world_.faulty()) return;
  world_.At(world_.NextAfterMs(world_.options.transfer_every_ms), EventKind::kTransfer);
  Member* leader = world_.Leader();
  if (leader == nullptr || !leader->runs()) return;
  const Membership& now = leader->core().membership();
  NodeId to = OneOf(world_, now.voters);
  if (world_.rng.OneIn(4)) to = NodeId(0);
  if (world_.rng.OneIn(10)) to = OneOf(world_, now.learners);
  world_.Trace(leader, fmt::format("is to hand over to {}", to.value));
  auto told = std::make_shared<bool>(false);
  leader->node().TransferLeadership(
      to, absl::Milliseconds(200 + world_.Uniform(3000)), [=, this](absl::Status status) {
        if (std::exchange(*told, true)) world_.witness.Fail("a transfer was answered twice");
        ++(status.ok() ? world_.figures.transfers_ok : world_.figures.transfers_failed);
        if (status.ok() && to && leader->core().leader() != to) {
          world_.witness.Fail(fmt::format("a transfer to {} was reported as done, {} leads",
                                          to.value, leader->core().leader().value));
        }
      });
  leader->NeedTurn();
}

// ---------------------------------------------------------------- processes

void Operators::CleanUp() {
  world_.At(world_.now_ns + kCleanUpEveryNs, EventKind::kJanitor);
  const Membership& now = world_.witness.committed_config().membership;
  for (const NodeId id : now.All()) {
    if (world_.Exists(id)) continue;
    ++world_.figures.joiners;
    world_.AddMember(id, now);
    world_.AtHost(world_.now_ns + world_.Uniform(kSecond), EventKind::kStart, id);
  }
  for (Member* member : world_.members()) {
    const bool leaves = !now.Contains(member->id()) && now.Removed(member->id());
    if (!leaves || member->leaving() || member->gone()) continue;
    member->MarkLeaving();
    if (member->up()) ++world_.figures.removed_still_running;
    world_.AtHost(world_.now_ns + world_.Uniform(8 * kSecond), EventKind::kStop, member->id(), 1);
  }
}

}  // namespace holdfast::sim
