#include "clients.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "world.h"

namespace holdfast::sim {
namespace {

constexpr uint16_t kNobody = UINT16_MAX;  // of operations outside the clients' own round

bool IsWrite(OpKind kind) {
  return kind == OpKind::kPut || kind == OpKind::kDelete || kind == OpKind::kCompareAndSet;
}

// The refusals that raft_node.h names for each call.
bool IsRefusal(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
}

}  // namespace

void Clients::Begin() {
  clients_.resize(world_.options.clients);
  last_seen_rev_.resize(world_.options.keys);
  for (uint32_t i = 0; i < clients_.size(); ++i) {
    world_.At(world_.NextAfterMs(world_.options.think_ms), EventKind::kClientNext, i);
  }
}

Member* Clients::PickMember(Client& client) {
  const bool stays = client.member && world_.Exists(client.member) &&
                     world_.member(client.member).up() && !world_.rng.OneIn(4);
  if (stays) return &world_.member(client.member);
  Member* leader = world_.Leader();
  if (leader != nullptr && world_.rng.OneIn(3)) return leader;
  const auto& all = world_.members();
  return all[world_.rng.Below(all.size())];
}

void Clients::Next(uint32_t number) {
  if (resting_) return;
  Client& client = clients_[number];
  Member* member = PickMember(client);
  if (!member->up()) {  // connection refused: somebody else, a little later
    client.member = NodeId(0);
    return world_.At(world_.NextAfterMs(world_.options.think_ms), EventKind::kClientNext, number);
  }
  client.member = member->id();
  client.op = Start(DrawOp(static_cast<uint16_t>(number)), *member);
}

ClientOp Clients::DrawOp(uint16_t client) {
  const SimOptions& o = world_.options;
  ClientOp op;
  op.client = client;
  op.key = static_cast<uint16_t>(world_.rng.Below(o.keys));
  const uint64_t dice = world_.rng.Below(1000);
  if (dice < o.write) {
    const uint64_t kind = world_.rng.Below(10);
    op.kind = kind < 6 ? OpKind::kPut : kind < 8 ? OpKind::kCompareAndSet : OpKind::kDelete;
    if (op.kind == OpKind::kCompareAndSet) op.expected_rev = last_seen_rev_[op.key];
  } else if (dice < o.write + o.linearizable) {
    op.kind = OpKind::kRead;
  } else if (dice < o.write + o.linearizable + o.serializable) {
    op.kind = OpKind::kSerializableRead;
  } else {
    op.kind = OpKind::kFreshRead;
    op.max_age_ns = (5 + world_.Uniform(500)) * kMillisecond;
  }
  return op;
}

uint32_t Clients::Start(ClientOp op, Member& member) {
  const auto number = static_cast<uint32_t>(ops_.size());
  op.member = member.id();
  op.life = member.life();
  op.value = number + uint64_t{1};
  op.start_ns = world_.Instant();
  ops_.push_back(op);
  ++world_.figures.operations;
  world_.AtMember(world_.now_ns + 1 + world_.Uniform(300 * kMicrosecond), EventKind::kClientCall,
                  member, number);
  const int64_t patience_ns =
      (world_.options.deadline_ms / 2 + world_.Uniform(world_.options.deadline_ms)) * kMillisecond;
  world_.At(world_.now_ns + patience_ns, EventKind::kClientDeadline, number);
  return number;
}

uint32_t Clients::Ask(Member& member, OpKind kind) {
  ClientOp op;
  op.client = kNobody;
  op.kind = kind;
  return Start(op, member);
}

void Clients::Arrive(Member& member, uint32_t number) {
  ClientOp& op = ops_[number];
  if (op.outcome != Outcome::kOpen) return;
  op.at_member = true;
  op.acked_at_start = world_.witness.acked();
  switch (op.kind) {
    case OpKind::kRead:
      ReadLinearizable(member, number);
      break;
    case OpKind::kSerializableRead:
      ReadWithClaim(member, number);
      break;
    case OpKind::kFreshRead:
      ReadFresh(member, number);
      break;
    default:
      ProposeWrite(member, number);
  }
  member.NeedTurn();
}

// ---------------------------------------------------------------- writes

void Clients::ProposeWrite(Member& member, uint32_t number) {
  const ClientOp& op = ops_[number];
  const Command command{number, op.kind, op.key, op.value, op.expected_rev};
  const auto refused = [this, number](const absl::Status& status) {
    if (!IsRefusal(status)) {
      world_.witness.Fail(fmt::format("a proposal was refused with {}", base::Message(status)));
    }
    // Also when the client has given up: the word is "certainly not".
    world_.witness.SawRefusal(number);
    if (ops_[number].outcome == Outcome::kOpen) Finish(number, Outcome::kRefused);
  };
  member.node().Propose(command.Encode(world_.rng.Below(world_.options.padding_max + 1)), refused);
}

void Clients::OnApplied(const Member& member, const Command& command, const OpResult& result) {
  CHECK(command.op < ops_.size());
  ClientOp& op = ops_[command.op];
  last_seen_rev_[op.key] = result.cell.mod_revision;
  const bool waits =
      op.outcome == Outcome::kOpen && op.member == member.id() && op.life == member.life();
  if (!waits) return;
  op.result = result;
  Finish(command.op, Outcome::kOk);
}

// ---------------------------------------------------------------- reads

void Clients::ReadLinearizable(Member& member, uint32_t number) {
  const absl::Duration timeout = absl::Milliseconds(world_.options.deadline_ms);
  member.node().ReadIndex(timeout, [this, &member, number](absl::StatusOr<Index> index) {
    OnReadIndex(member, number, index);
  });
}

void Clients::OnReadIndex(Member& member, uint32_t number, const absl::StatusOr<Index>& index) {
  ClientOp& op = ops_[number];
  if (!std::exchange(op.at_member, false)) {
    return world_.witness.Fail(fmt::format("read {} was answered twice", number));
  }
  if (!index.ok()) {
    if (!IsRefusal(index.status()) && !absl::IsDeadlineExceeded(index.status())) {
      world_.witness.Fail(fmt::format("a read was refused with {}", index.status().ToString()));
    }
    if (op.outcome == Outcome::kOpen) Finish(number, Outcome::kRefused);
    return;
  }
  const MachineState& state = member.machine().state();
  if (*index < op.acked_at_start || state.applied < *index) {
    world_.witness.Fail(
        fmt::format("a linearizable read at member {} got index {} with {} "
                    "applied; {} was acknowledged before it began",
                    member.id().value, index->value, state.applied.value, op.acked_at_start.value));
  }
  if (op.outcome != Outcome::kOpen) return;  // the client has given up
  op.result.revision = state.revision;
  op.result.cell = state.Get(op.key);
  ++world_.figures.linearizable_reads;
  if (!member.leads()) ++world_.figures.follower_reads;
  Finish(number, Outcome::kOk);
}

// Freshness 1: the claim is asked for first, the data is looked at after it.
void Clients::ReadWithClaim(Member& member, uint32_t number) {
  ClientOp& op = ops_[number];
  const std::optional<raft::Claim> claim = member.node().claim();
  const MachineState& state = member.machine().state();
  if (claim) member.CheckClaim(*claim, state.applied);
  op.result.revision = state.revision;
  op.result.cell = state.Get(op.key);
  op.at_member = false;
  ++world_.figures.serializable_reads;
  if (op.outcome == Outcome::kOpen) Finish(number, Outcome::kOk);
}

void Clients::ReadFresh(Member& member, uint32_t number) {
  const ClientOp& op = ops_[number];
  const absl::Duration max_age = absl::Nanoseconds(op.max_age_ns);
  const absl::Duration timeout = absl::Milliseconds(world_.options.deadline_ms);
  member.node().FreshClaim(max_age, timeout, [this, &member, number] {
    ClientOp& read = ops_[number];
    if (!read.at_member) {
      return world_.witness.Fail(fmt::format("a fresh read, {}, was answered twice", number));
    }
    const std::optional<raft::Claim> claim = member.node().claim();
    const bool fresh =
        claim && absl::ToInt64Nanoseconds(claim->AgeAt(member.clock().Sample())) <= read.max_age_ns;
    ++(fresh ? world_.figures.fresh_reads : world_.figures.stale_answers);
    ReadWithClaim(member, number);
  });
}

// ---------------------------------------------------------------- ends

void Clients::Finish(uint32_t number, Outcome outcome) {
  ClientOp& op = ops_[number];
  op.outcome = outcome;
  if (IsWrite(op.kind)) op.at_member = false;
  op.end_ns = world_.Instant();
  CountOutcome(op);
  if (op.client == kNobody || resting_) return;
  clients_[op.client].op = kNone;
  if (outcome != Outcome::kOk) clients_[op.client].member = NodeId(0);
  world_.At(world_.NextAfterMs(world_.options.think_ms), EventKind::kClientNext, op.client);
}

void Clients::CountOutcome(const ClientOp& op) {
  Figures& figures = world_.figures;
  if (!IsWrite(op.kind)) {
    figures.refused_reads += op.outcome == Outcome::kOk ? 0 : 1;
    return;
  }
  switch (op.outcome) {
    case Outcome::kOk:
      ++figures.writes_ok;
      figures.failed_cas += op.result.succeeded ? 0 : 1;
      break;
    case Outcome::kRefused:
      ++figures.refused;
      break;
    default:
      ++figures.unknown;
  }
}

void Clients::Deadline(uint32_t number) {
  if (ops_[number].outcome != Outcome::kOpen) return;
  // A read that is not answered has no effect: its outcome does not matter.
  Finish(number, IsWrite(ops_[number].kind) ? Outcome::kUnknown : Outcome::kRefused);
}

void Clients::OnMemberDown(const Member& member) {
  for (const Client& client : clients_) {
    if (client.op == kNone) continue;
    const ClientOp& op = ops_[client.op];
    if (op.outcome == Outcome::kOpen && op.member == member.id()) Deadline(client.op);
  }
}

void Clients::CheckAllAnswered(const Member& member) {
  for (const Client& client : clients_) {
    if (client.op == kNone) continue;
    const ClientOp& op = ops_[client.op];
    const bool waits = op.outcome == Outcome::kOpen && op.at_member && !IsWrite(op.kind) &&
                       op.member == member.id() && op.life == member.life();
    if (waits) world_.witness.Fail("a member stopped and left a reader without an answer");
  }
}

}  // namespace holdfast::sim
