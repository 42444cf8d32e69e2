#include "world.h"

#include <algorithm>

#include "base/check.h"
#include "base/strings.h"
#include "describe.h"

namespace holdfast::raft::test {
namespace {

// A core that always has something to do, or a cluster that always has something to say, is broken.
constexpr int kMaxTurns = 10'000;
constexpr uint64_t kSeedsOfOneMember = 1'000;

}  // namespace

absl::StatusOr<std::vector<std::string>> World::Run(const Command& command) {
  const auto& table = Table();
  const auto row = std::find_if(table.begin(), table.end(),
                                [&](const CommandRow& r) { return r.name == command.name; });
  if (row == table.end()) {
    return absl::InvalidArgumentError(fmt::format("'{}' is no command", command.name));
  }
  trace_.clear();
  silent_ = command.silent;
  Args args(command);
  if (const absl::Status status = (this->*row->handler)(args); !status.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("{} {}: {}", row->name, row->usage, base::Message(status)));
  }
  if (!violation_.empty()) return absl::InternalError(violation_);
  return std::exchange(trace_, {});
}

std::vector<std::pair<std::string_view, std::string_view>> World::Commands() {
  std::vector<std::pair<std::string_view, std::string_view>> out;
  for (const CommandRow& row : Table()) out.emplace_back(row.name, row.usage);
  return out;
}

void World::Violation(std::string text) {
  if (violation_.empty()) violation_ = std::move(text);
}

// ---------------------------------------------------------------- members

void World::Boot(Actor& actor, Index applied) {
  const uint64_t seed = actor.options.id.value * kSeedsOfOneMember + actor.lives++;
  actor.core = std::make_unique<RaftCore>(actor.options, actor.disk.Recover(applied), seed);
  actor.machine = applied;
  actor.seen = Seen();
  actor.seen.term = actor.core->term();
  actor.seen.commit = actor.core->commit();
  actor.seen.members = actor.core->membership();
}

void World::Pump(Actor& actor) {
  for (int turns = 0; actor.core && !actor.hold_ready && actor.core->HasReady(); ++turns) {
    if (turns == kMaxTurns) return Violation("a core never stops having something to do");
    TakeReady(actor);
  }
  if (actor.core) ReportChanges(actor);
}

void World::TakeReady(Actor& actor) {
  ReportChanges(actor);
  Ready ready = actor.core->TakeReady();
  actor.core->CheckInvariants();
  Carry(actor, std::move(ready));
  CheckSafety(actor);
}

void World::Carry(Actor& actor, Ready ready) {
  const uint64_t id = actor.options.id.value;
  ReportChanges(actor);
  ReportOutcomes(actor, ready);
  for (Message& m : ready.messages) Post(std::move(m));
  if (!ready.append.empty()) {
    Say("{} {} {}", id, actor.hold_disk ? "holds write" : "writes", DescribeBatch(ready.append));
    actor.batches.push_back(std::move(ready.append));
    if (!actor.hold_disk) FinishWrite(actor);
  }
  if (!ready.apply.empty()) {
    Say("{} {} {}", id, actor.hold_apply ? "holds apply of" : "applies",
        DescribeEntries(ready.apply));
    CheckApplied(actor, ready.apply);
    actor.applies.push_back(ready.apply.back()->index);
    if (!actor.hold_apply) FinishApply(actor);
  }
  for (const FetchRequest& fetch : ready.fetches) {
    Say("{} {} {}..{}", id, actor.hold_fetch ? "holds fetch of" : "fetches", fetch.first.value,
        fetch.last.value);
    actor.fetches.push_back(fetch);
    if (!actor.hold_fetch) FinishFetch(actor);
  }
}

void World::ReportOutcomes(const Actor& actor, const Ready& ready) {
  const uint64_t id = actor.options.id.value;
  if (!ready.damage.empty()) Say("{} must stop: {}", id, ready.damage);
  for (const ReadGrant& read : ready.reads) {
    Say("{} may answer read {} at {}", id, read.read_id, read.index.value);
  }
  for (const uint64_t read : ready.reads_dropped) Say("{} drops read {}", id, read);
  for (const uint64_t propose : ready.proposals_refused) {
    Say("{} knows that proposal {} was refused", id, propose);
  }
  for (const Message& m : ready.confirms) {
    Say("{} is fresh at {} by probe {}", id, m.read_index.value, m.nonce);
  }
  for (const NodeId peer : ready.snapshots_wanted) {
    Say("{} wants a snapshot for {}", id, peer.value);
  }
}

void World::FinishWrite(Actor& actor) {
  AppendBatch batch = std::move(actor.batches.front());
  actor.batches.pop_front();
  if (batch.log.reset) actor.machine = std::max(actor.machine, batch.log.reset->index);
  const std::string broken = actor.disk.Write(batch.log);
  if (!broken.empty()) return Violation(broken);
  for (Message& m : batch.after_durable) {
    if (m.to != actor.options.id) {
      Post(std::move(m));
      continue;
    }
    Say("{0} <- {0} {1}", actor.options.id.value, DescribeArrival(m));
    actor.core->Step(std::move(m));
    ReportChanges(actor);
  }
  actor.core->OnDurable(batch.seq);
}

void World::FinishApply(Actor& actor) {
  const Index index = actor.applies.front();
  actor.applies.pop_front();
  actor.machine = std::max(actor.machine, index);
  actor.core->OnApplied(index);
}

void World::FinishFetch(Actor& actor) {
  const FetchRequest fetch = actor.fetches.front();
  actor.fetches.pop_front();
  actor.core->OnFetched(fetch.id, actor.disk.Read(fetch.first, fetch.last, fetch.max_bytes));
}

// ---------------------------------------------------------------- the network

void World::Post(Message m) {
  const std::pair<uint64_t, uint64_t> link(m.from.value, m.to.value);
  const bool lost = cut_.contains(link) || !actors_.contains(link.second);
  Say("{} -> {} {}{}", link.first, link.second, DescribeMessage(m), lost ? " (lost)" : "");
  if (!lost) network_.push_back(std::move(m));
}

std::optional<Message> World::TakeMessage(const std::function<bool(const Message&)>& wanted) {
  const auto it = std::find_if(network_.begin(), network_.end(), wanted);
  if (it == network_.end()) return std::nullopt;
  Message m = std::move(*it);
  network_.erase(it);
  return m;
}

void World::Arrive(Message m) {
  Actor& to = *actors_.at(m.to.value);
  if (!to.core) {
    Say("{} <- {} {} (lost)", m.to.value, m.from.value, DescribeArrival(m));
    return;
  }
  Say("{} <- {} {}", m.to.value, m.from.value, DescribeArrival(m));
  to.core->Step(std::move(m));
  Pump(to);
}

// ---------------------------------------------------------------- what changed

void World::ReportChanges(Actor& actor) {
  const RaftCore& core = *actor.core;
  Seen& seen = actor.seen;
  const uint64_t id = actor.options.id.value;
  if (core.role() != seen.role || core.term() != seen.term || core.leader() != seen.leader) {
    const bool follows = core.role() == Role::kFollower && core.leader();
    Say("{} is {}{} at term {}", id, RoleName(core.role()),
        follows ? fmt::format(" of {}", core.leader().value) : "", core.term().value);
    if (core.role() == Role::kLeader && seen.role != Role::kLeader) seen.peers.clear();
    seen.role = core.role();
    seen.term = core.term();
    seen.leader = core.leader();
  }
  if (core.membership() != seen.members) {
    Say("{} has members({})", id, DescribeMembers(core.membership()));
    seen.members = core.membership();
  }
  if (core.commit() != seen.commit) {
    Say("{} commits {}", id, core.commit().value);
    seen.commit = core.commit();
  }
  if (core.transferring_to() != seen.transferring_to) {
    seen.transferring_to = core.transferring_to();
    if (seen.transferring_to) {
      Say("{} hands leadership to {}", id, seen.transferring_to.value);
    } else {
      Say("{} ends its hand-over", id);
    }
  }
  ReportPeers(actor);
  CheckSafety(actor);
}

void World::ReportPeers(Actor& actor) {
  const uint64_t id = actor.options.id.value;
  std::map<NodeId, ProgressState>& known = actor.seen.peers;
  const auto& progress = actor.core->progress();
  std::erase_if(known, [&](const auto& peer) { return !progress.contains(peer.first); });
  for (const auto& [peer, p] : progress) {
    const auto [it, is_new] = known.emplace(peer, p.state);
    if (is_new || it->second == p.state) continue;
    Say("{} sees {} {} -> {}", id, peer.value, StateName(it->second), StateName(p.state));
    it->second = p.state;
  }
}

// ---------------------------------------------------------------- safety

// Paper, figure 3: election safety.
void World::CheckSafety(const Actor& actor) {
  if (actor.core->role() != Role::kLeader) return;
  const auto [it, first] = leaders_.emplace(actor.core->term(), actor.core->id());
  if (!first && it->second != actor.core->id()) {
    Violation(fmt::format("{} and {} both lead term {}", it->second.value, actor.core->id().value,
                          actor.core->term().value));
  }
}

// Paper, figure 3: state machine safety.
void World::CheckApplied(const Actor& actor, const std::vector<EntryRef>& entries) {
  for (const EntryRef& entry : entries) {
    const auto [it, first] = applied_.emplace(entry->index, entry);
    const Entry& other = *it->second;
    if (first || (other.term == entry->term && other.payload == entry->payload)) continue;
    Violation(fmt::format("{} applies {}, another member applied {}", actor.options.id.value,
                          DescribeEntry(*entry), DescribeEntry(other)));
  }
}

// ---------------------------------------------------------------- a script

absl::StatusOr<std::vector<std::vector<std::string>>> RunScript(const Script& script) {
  World world;
  std::vector<std::vector<std::string>> traces;
  for (const Block& block : script.blocks) {
    if (!block.is_command) continue;
    auto trace = world.Run(block.command);
    if (!trace.ok()) {
      return absl::Status(trace.status().code(),
                          base::ToAbsl(fmt::format("{}:{}: {}", script.file, block.command.line,
                                                   base::Message(trace.status()))));
    }
    traces.push_back(*std::move(trace));
  }
  return traces;
}

}  // namespace holdfast::raft::test
