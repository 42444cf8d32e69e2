// The commands of a scenario: reading their arguments, refusing what cannot be done, doing it.
// README.md says what each means.
#include <algorithm>

#include "base/strings.h"
#include "describe.h"
#include "member.h"
#include "world.h"

namespace holdfast::raft::test {
namespace {

constexpr uint64_t kMaxMembers = 9;
constexpr uint64_t kMaxTicks = 10'000;
constexpr uint64_t kMaxIndex = 1'000'000;
constexpr uint64_t kMaxGivenEntries = 10'000;
constexpr uint64_t kMaxPayloadBytes = 1 << 20;
constexpr uint64_t kMaxStabilizeSteps = 20'000;
constexpr uint64_t kMaxLimit = uint64_t{1} << 40;

std::vector<std::string> UrlsOf(uint64_t id) { return {fmt::format("http://node{}", id)}; }

// "1,1,2" or "1x2,2": the terms of entries 1, 2, 3.
std::vector<uint64_t> TermsOf(Args& args) {
  std::vector<uint64_t> terms;
  const auto spec = args.Named("log");
  if (!spec) return terms;
  std::string_view rest = *spec;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    uint64_t term = 0, count = 1;
    const size_t times = item.find('x');
    const auto number = [&](std::string_view text, uint64_t& value) {
      Command one;
      one.words = {std::string(text)};
      Args word(one);
      value = word.Number("an entry's term or count", kMaxGivenEntries);
      if (!word.Done().ok()) args.Fail("log= must be like 1,1,2 or 1x2,2");
    };
    number(item.substr(0, times), term);
    if (times != std::string_view::npos) number(item.substr(times + 1), count);
    if (term == 0 || (!terms.empty() && term < terms.back())) args.Fail("terms rise from 1 on");
    if (terms.size() + count > kMaxGivenEntries) {
      args.Fail("the log is too long");
      return {};
    }
    terms.insert(terms.end(), count, term);
  }
  return terms;
}

std::optional<MessageType> TypeNamed(std::string_view name) {
  for (int type = 1; type <= static_cast<int>(MessageType::kSnapshot); ++type) {
    if (TypeName(static_cast<MessageType>(type)) == name) return static_cast<MessageType>(type);
  }
  return std::nullopt;
}

absl::Status Impossible(std::string_view why) {
  return absl::FailedPreconditionError(base::ToAbsl(why));
}

}  // namespace

const std::vector<World::CommandRow>& World::Table() {
  static const std::vector<CommandRow> kTable = {
      {"cluster", "VOTERS [learners=N] [spares=N] [OPTION=N ...]", &World::Cluster},
      {"given", "ID [log=TERMS] [term=N] [vote=N] [commit=N] [applied=N]", &World::Given},
      {"campaign", "ID", &World::Campaign},
      {"tick", "IDS [N|timeout]", &World::Tick},
      {"deliver", "LINK [N] [type=TYPE]", &World::Deliver},
      {"drop", "LINK [N] [type=TYPE]", &World::Drop},
      {"repeat", "LINK [type=TYPE]", &World::Repeat},
      {"stabilize", "[IDS]", &World::Stabilize},
      {"cut", "LINK", &World::Cut},
      {"isolate", "ID", &World::Isolate},
      {"heal", "", &World::Heal},
      {"hold", "ready|disk|apply|fetch IDS", &World::Hold},
      {"release", "ready|disk|apply|fetch IDS", &World::Release},
      {"process-ready", "ID", &World::ProcessReady},
      {"process-log", "ID [N]", &World::ProcessLog},
      {"process-apply", "ID [N]", &World::ProcessApply},
      {"process-fetch", "ID [N]", &World::ProcessFetch},
      {"propose", "ID PAYLOAD... | ID bytes=N", &World::Propose},
      {"read", "ID", &World::Read},
      {"probe", "ID [urgent]", &World::Probe},
      {"change-members",
       "ID add|add-learner|remove|promote|demote|update MEMBER | ID replace OLD NEW",
       &World::ChangeMembers},
      {"set-members", "ID voters=IDS [learners=IDS] [promote=IDS]", &World::SetMembers},
      {"transfer", "ID TO", &World::Transfer},
      {"unreachable", "ID PEER", &World::Unreachable},
      {"compact", "ID INDEX", &World::Compact},
      {"snapshot", "FROM->TO [index=N]", &World::Snapshot},
      {"report", "FROM->TO INDEX ok|failed", &World::Report},
      {"crash", "ID", &World::Crash},
      {"restart", "ID [applied=N]", &World::Restart},
      {"status", "[IDS]", &World::Status},
      {"log", "[IDS]", &World::Log},
      {"members", "[IDS]", &World::Members},
      {"progress", "ID", &World::ShowProgress},
      {"network", "", &World::Network},
  };
  return kTable;
}

// ---------------------------------------------------------------- arguments

World::Actor* World::TakeAlive(Args& args, std::string_view what) {
  const uint64_t id = args.Number(what, kMaxMembers * 3);
  const auto it = actors_.find(id);
  if (it == actors_.end()) {
    args.Fail(fmt::format("there is no member {}", id));
    return nullptr;
  }
  if (!it->second->core) {
    args.Fail(fmt::format("member {} is crashed", id));
    return nullptr;
  }
  return it->second.get();
}

std::vector<World::Actor*> World::Resolve(Args& args, const IdList& list, bool alive) {
  std::vector<Actor*> out;
  if (list.all) {
    for (auto& [id, actor] : actors_) {
      if (actor->core || !alive) out.push_back(actor.get());
    }
    return out;
  }
  for (const uint64_t id : list.ids) {
    const auto it = actors_.find(id);
    if (it == actors_.end()) {
      args.Fail(fmt::format("there is no member {}", id));
    } else if (alive && !it->second->core) {
      args.Fail(fmt::format("member {} is crashed", id));
    } else {
      out.push_back(it->second.get());
    }
  }
  return out;
}

std::function<bool(const Message&)> World::TakeFilter(Args& args) {
  const Link link = args.TakeLink("LINK");
  const auto type_name = args.Named("type");
  std::optional<MessageType> type;
  if (type_name) {
    type = TypeNamed(*type_name);
    if (!type) args.Fail(fmt::format("'{}' is no type of message", *type_name));
  }
  return [link, type](const Message& m) {
    return (link.from == 0 || m.from.value == link.from) &&
           (link.to == 0 || m.to.value == link.to) && (!type || m.type == *type);
  };
}

CoreOptions World::TakeOptions(Args& args) {
  CoreOptions options = StoryOptions(1);
  options.heartbeat_ticks = static_cast<uint32_t>(args.NamedNumber("heartbeat", kMaxTicks, 1));
  options.election_ticks = static_cast<uint32_t>(args.NamedNumber("election", kMaxTicks, 10));
  const auto limit = [&](std::string_view name, auto& value) {
    value = args.NamedNumber(name, kMaxLimit, value);
  };
  limit("append-bytes", options.max_append_bytes);
  limit("inflight", options.max_inflight_messages);
  limit("inflight-bytes", options.max_inflight_bytes);
  limit("uncommitted-bytes", options.max_uncommitted_bytes);
  limit("apply-bytes", options.max_apply_bytes);
  limit("unapplied-bytes", options.max_unapplied_bytes);
  limit("unapplied", options.max_unapplied_entries);
  limit("cached-bytes", options.cached_entry_bytes);
  if (const absl::Status valid = options.Validate(); !valid.ok()) {
    args.Fail(std::string(base::Message(valid)));
  }
  return options;
}

absl::StatusOr<MemberChange> World::TakeChange(Args& args) {
  using Kind = MemberChange::Kind;
  static const std::map<std::string, Kind> kKinds = {
      {"add", Kind::kAdd},         {"add-learner", Kind::kAddLearner}, {"remove", Kind::kRemove},
      {"promote", Kind::kPromote}, {"demote", Kind::kDemote},          {"update", Kind::kUpdate},
      {"replace", Kind::kReplace}};
  const std::string word = args.Word("the change");
  const auto kind = kKinds.find(word);
  if (kind == kKinds.end()) args.Fail(fmt::format("'{}' is no change", word));
  MemberChange change;
  if (kind != kKinds.end()) change.kind = kind->second;
  if (change.kind == Kind::kReplace) change.replaces = NodeId(args.Number("OLD", 99));
  change.id = NodeId(args.Number("MEMBER", 99));
  if (!change.id) args.Fail("a member id is not 0");
  change.peer_urls = UrlsOf(change.id.value);
  if (change.kind == Kind::kUpdate) change.peer_urls[0] += "-moved";
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  return change;
}

// ---------------------------------------------------------------- the cluster

absl::Status World::Cluster(Args& args) {
  const uint64_t voters = args.Number("VOTERS", kMaxMembers);
  const uint64_t learners = args.NamedNumber("learners", kMaxMembers, 0);
  const uint64_t spares = args.NamedNumber("spares", kMaxMembers, 0);
  const CoreOptions options = TakeOptions(args);
  if (voters == 0) args.Fail("a cluster has voters");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  actors_.clear();
  network_.clear();
  cut_.clear();
  leaders_.clear();
  applied_.clear();
  const Membership members = MembersOf(voters, learners);
  for (uint64_t id = 1; id <= voters + learners + spares; ++id) {
    CoreOptions own = options;
    own.id = NodeId(id);
    // A spare begins with the members that it is to join, and is none of them.
    actors_[id] = std::make_unique<Actor>(own, members);
    Boot(*actors_[id], Index(0));
  }
  return absl::OkStatus();
}

absl::Status World::Given(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const std::vector<uint64_t> terms = TermsOf(args);
  const uint64_t last_term = terms.empty() ? 0 : terms.back();
  const uint64_t term = args.NamedNumber("term", kMaxIndex, last_term);
  const uint64_t vote = args.NamedNumber("vote", kMaxMembers, 0);
  const uint64_t commit = args.NamedNumber("commit", terms.size(), 0);
  const uint64_t applied = args.NamedNumber("applied", commit, 0);
  if (term < last_term) args.Fail("term= is below the log's last term");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (actor->lives != 1 || actor->core->term() || actor->core->log().last()) {
    return Impossible("the member has a past already");
  }
  storage::LogBatch past;
  for (uint64_t i = 0; i < terms.size(); ++i) {
    auto entry = std::make_shared<Entry>();
    entry->index = Index(i + 1);
    entry->term = Term(terms[i]);
    past.entries.push_back(std::move(entry));
  }
  past.hard_state = storage::HardState{Term(term), NodeId(vote), Index(commit)};
  if (const std::string broken = actor->disk.Write(past); !broken.empty()) {
    return Impossible(broken);
  }
  for (uint64_t i = 0; i < applied; ++i) CheckApplied(*actor, {past.entries[i]});
  Boot(*actor, Index(applied));
  Pump(*actor);
  return absl::OkStatus();
}

absl::Status World::Crash(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  actor->core.reset();
  actor->batches.clear();
  actor->applies.clear();
  actor->fetches.clear();
  actor->disk.LoseUnsynced();
  return absl::OkStatus();
}

absl::Status World::Restart(Args& args) {
  const uint64_t id = args.Number("ID", kMaxMembers * 3);
  const auto it = actors_.find(id);
  if (it == actors_.end()) {
    args.Fail(fmt::format("there is no member {}", id));
    return args.Done();
  }
  Actor& actor = *it->second;
  const Index mark = actor.disk.mark().index;
  const Index applied(args.NamedNumber("applied", kMaxIndex, mark.value));
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (actor.core) return Impossible("the member is running");
  if (applied < mark || applied > actor.machine) {
    return Impossible(
        "applied= must be what the state machine may have: from the log's mark on, "
        "up to what was applied");
  }
  Boot(actor, applied);
  const RaftCore& core = *actor.core;
  Say("{} is back: term={} vote={} commit={} last={}@{}", id, core.term().value, core.vote().value,
      core.commit().value, core.log().last().value, core.log().last_term().value);
  Pump(actor);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- time and network

absl::Status World::Campaign(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  actor->core->Campaign();
  Pump(*actor);
  return absl::OkStatus();
}

absl::Status World::Tick(Args& args) {
  const IdList ids = args.Ids("IDS");
  const std::string count_word = args.more() ? args.Word("N") : "1";
  const bool to_timeout = count_word == "timeout";
  uint64_t count = 0;
  if (!to_timeout) {
    Command one;
    one.words = {count_word};
    Args number(one);
    count = number.Number("N", kMaxTicks);
    if (const absl::Status done = number.Done(); !done.ok()) return done;
  }
  const std::vector<Actor*> actors = Resolve(args, ids, /*alive=*/true);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (Actor* actor : actors) {
    // Until it asks for votes: twice the longest election timeout is enough for everybody.
    const uint64_t limit = to_timeout ? uint64_t{4} * actor->options.election_ticks : count;
    const Role before = actor->core->role();
    const Term term_before = actor->core->term();
    for (uint64_t i = 0; i < limit; ++i) {
      actor->core->Tick();
      Pump(*actor);
      const bool acted = actor->core->role() != before || actor->core->term() != term_before;
      if (to_timeout && acted) break;
    }
  }
  return absl::OkStatus();
}

absl::Status World::Deliver(Args& args) {
  const auto wanted = TakeFilter(args);
  const uint64_t most = args.NumberOr("N", kMaxStabilizeSteps, kMaxStabilizeSteps);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  // What the deliveries themselves cause waits for the next command.
  const auto in_flight =
      static_cast<uint64_t>(std::count_if(network_.begin(), network_.end(), wanted));
  for (uint64_t i = std::min(most, in_flight); i > 0; --i) {
    if (auto m = TakeMessage(wanted)) Arrive(*std::move(m));
  }
  return absl::OkStatus();
}

absl::Status World::Drop(Args& args) {
  const auto wanted = TakeFilter(args);
  const uint64_t most = args.NumberOr("N", kMaxStabilizeSteps, kMaxStabilizeSteps);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (uint64_t i = 0; i < most; ++i) {
    const auto m = TakeMessage(wanted);
    if (!m) break;
    Say("lost: {} -> {} {}", m->from.value, m->to.value, DescribeArrival(*m));
  }
  return absl::OkStatus();
}

absl::Status World::Repeat(Args& args) {
  const auto wanted = TakeFilter(args);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  const auto it = std::find_if(network_.begin(), network_.end(), wanted);
  if (it == network_.end()) return Impossible("no such message is in flight");
  network_.push_back(Message(*it));
  return absl::OkStatus();
}

absl::Status World::Stabilize(Args& args) {
  const IdList ids = args.IdsOrAll("IDS");
  const std::vector<Actor*> actors = Resolve(args, ids, /*alive=*/false);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  std::set<NodeId> inside;
  for (const Actor* actor : actors) inside.insert(actor->options.id);
  const auto wanted = [&](const Message& m) {
    return inside.contains(m.from) && inside.contains(m.to);
  };
  for (uint64_t i = 0; i < kMaxStabilizeSteps; ++i) {
    auto m = TakeMessage(wanted);
    if (!m) return absl::OkStatus();
    Arrive(*std::move(m));
  }
  Violation("the cluster never has nothing to say");
  return absl::OkStatus();
}

absl::Status World::Cut(Args& args) {
  const Link link = args.TakeLink("LINK");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const auto& [from, from_actor] : actors_) {
    for (const auto& [to, to_actor] : actors_) {
      const bool hit = (link.from == 0 || link.from == from) && (link.to == 0 || link.to == to);
      if (hit && from != to) cut_.emplace(from, to);
    }
  }
  return absl::OkStatus();
}

absl::Status World::Isolate(Args& args) {
  const uint64_t id = args.Number("ID", kMaxMembers * 3);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const auto& [other, actor] : actors_) {
    cut_.emplace(id, other);
    cut_.emplace(other, id);
  }
  return absl::OkStatus();
}

absl::Status World::Heal(Args& args) {
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  cut_.clear();
  return absl::OkStatus();
}

absl::Status World::Network(Args& args) {
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const Message& m : network_) {
    Say("in flight: {} -> {} {}", m.from.value, m.to.value, DescribeArrival(m));
  }
  return absl::OkStatus();
}

// ---------------------------------------------------------------- what members wait for

absl::Status World::Hold(Args& args) {
  const std::string what = args.Word("what to hold");
  const std::vector<Actor*> actors = Resolve(args, args.Ids("IDS"), /*alive=*/false);
  static const std::map<std::string, bool Actor::*> kHolds = {{"ready", &Actor::hold_ready},
                                                              {"disk", &Actor::hold_disk},
                                                              {"apply", &Actor::hold_apply},
                                                              {"fetch", &Actor::hold_fetch}};
  const auto hold = kHolds.find(what);
  if (hold == kHolds.end()) args.Fail(fmt::format("'{}' cannot be held", what));
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (Actor* actor : actors) actor->*hold->second = true;
  return absl::OkStatus();
}

absl::Status World::Release(Args& args) {
  const std::string what = args.Word("what to release");
  const std::vector<Actor*> actors = Resolve(args, args.Ids("IDS"), /*alive=*/false);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (Actor* actor : actors) {
    if (what == "ready") {
      actor->hold_ready = false;
    } else if (what == "disk") {
      actor->hold_disk = false;
      while (!actor->batches.empty()) FinishWrite(*actor);
    } else if (what == "apply") {
      actor->hold_apply = false;
      while (!actor->applies.empty()) FinishApply(*actor);
    } else if (what == "fetch") {
      actor->hold_fetch = false;
      while (!actor->fetches.empty()) FinishFetch(*actor);
    } else {
      return absl::InvalidArgumentError(base::ToAbsl(fmt::format("'{}' cannot be held", what)));
    }
    Pump(*actor);
  }
  return absl::OkStatus();
}

absl::Status World::ProcessReady(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (!actor->core->HasReady()) return Impossible("the member has nothing to do");
  TakeReady(*actor);
  ReportChanges(*actor);
  return absl::OkStatus();
}

absl::Status World::ProcessLog(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  uint64_t count = args.NumberOr("N", kMaxTicks, 1);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (count > actor->batches.size()) return Impossible("so many writes are not held");
  for (; count > 0; --count) {
    Say("{} has written #{}", actor->options.id.value, actor->batches.front().seq);
    FinishWrite(*actor);
    Pump(*actor);
  }
  return absl::OkStatus();
}

absl::Status World::ProcessApply(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  uint64_t count = args.NumberOr("N", kMaxTicks, 1);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (count > actor->applies.size()) return Impossible("so many applies are not held");
  for (; count > 0; --count) {
    Say("{} has applied {}", actor->options.id.value, actor->applies.front().value);
    FinishApply(*actor);
    Pump(*actor);
  }
  return absl::OkStatus();
}

absl::Status World::ProcessFetch(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  uint64_t count = args.NumberOr("N", kMaxTicks, 1);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (count > actor->fetches.size()) return Impossible("so many fetches are not held");
  for (; count > 0; --count) FinishFetch(*actor);
  Pump(*actor);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- requests

absl::Status World::Propose(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const uint64_t bytes = args.NamedNumber("bytes", kMaxPayloadBytes, 0);
  std::vector<std::string> payloads;
  if (bytes > 0) {
    payloads.push_back(std::string(bytes, 'x'));
  } else {
    payloads = args.Rest("PAYLOAD");
  }
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  const uint64_t id = ++next_id_;
  const ProposeOutcome outcome = actor->core->Propose(id, std::move(payloads));
  switch (outcome) {
    case ProposeOutcome::kAppended:
      break;  // the write shows it
    case ProposeOutcome::kForwarded:
      Say("{} forwards proposal {}", actor->options.id.value, id);
      break;
    case ProposeOutcome::kNoLeader:
      Say("{} refuses: no leader", actor->options.id.value);
      break;
    case ProposeOutcome::kFull:
      Say("{} refuses: full", actor->options.id.value);
      break;
  }
  Pump(*actor);
  return absl::OkStatus();
}

absl::Status World::Read(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  const uint64_t id = ++next_id_;
  Say("{} asks read {}", actor->options.id.value, id);
  actor->core->StartRead(id);
  Pump(*actor);
  return absl::OkStatus();
}

absl::Status World::Probe(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const std::string urgent = args.more() ? args.Word("urgent") : "";
  if (!urgent.empty() && urgent != "urgent") args.Fail("only 'urgent' may follow");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  if (!actor->core->leader()) return Impossible("the member knows no leader to ask");
  Message m;
  m.type = MessageType::kProbe;
  m.from = actor->options.id;
  m.to = actor->core->leader();
  m.term = actor->core->term();
  m.nonce = ++next_id_;
  m.urgent = !urgent.empty();
  if (m.to != m.from) {
    Post(std::move(m));
    return absl::OkStatus();
  }
  actor->core->Step(std::move(m));
  Pump(*actor);
  return absl::OkStatus();
}

void World::ProposeTarget(Actor& actor, const Membership& target) {
  const auto index = actor.core->ProposeMembers(target);
  if (!index.ok()) Say("{} refuses: {}", actor.options.id.value, CodeName(index.status()));
  Pump(actor);
}

absl::Status World::ChangeMembers(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const auto change = TakeChange(args);
  if (!change.ok()) return change.status();
  // While the configuration is joint the core must refuse whatever is asked.
  const Membership& now = actor->core->membership();
  const auto target = TargetOf(now.joint() ? LeaveJoint(now) : now, *change);
  if (!target.ok()) {
    Say("{} refuses: {}", actor->options.id.value, CodeName(target.status()));
    return absl::OkStatus();
  }
  ProposeTarget(*actor, *target);
  return absl::OkStatus();
}

absl::Status World::SetMembers(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  Membership target;
  for (const uint64_t id : args.NamedIds("voters")) target.voters.insert(NodeId(id));
  for (const uint64_t id : args.NamedIds("learners")) target.learners.insert(NodeId(id));
  for (const uint64_t id : args.NamedIds("promote")) target.promotions[NodeId(id)] = NodeId(0);
  for (const NodeId id : target.All()) {
    target.peer_urls[id] = UrlsOf(id.value);
    if (!id) args.Fail("a member id is not 0");
    if (target.voters.contains(id) && target.learners.contains(id)) {
      args.Fail(fmt::format("{} cannot be both", id.value));
    }
    if (actor != nullptr && actor->core->membership().Removed(id)) {
      args.Fail(fmt::format("{} was removed for good", id.value));
    }
  }
  for (const auto& [id, replaces] : target.promotions) {
    if (!target.learners.contains(id)) args.Fail("only learners are promoted");
  }
  if (target.voters.empty()) args.Fail("a membership has voters");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  target.removed = actor->core->membership().removed;
  ProposeTarget(*actor, target);
  return absl::OkStatus();
}

absl::Status World::Transfer(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const NodeId to(args.Number("TO", 99));
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  const absl::Status status = actor->core->TransferLeadership(to);
  if (!status.ok()) Say("{} refuses: {}", actor->options.id.value, CodeName(status));
  Pump(*actor);
  return absl::OkStatus();
}

absl::Status World::Unreachable(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const NodeId peer(args.Number("PEER", 99));
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  actor->core->OnPeerUnreachable(peer);
  Pump(*actor);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- compaction and snapshots

absl::Status World::Compact(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  const Index index(args.Number("INDEX", kMaxIndex));
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  const RaftCore& core = *actor->core;
  if (index < core.log().mark_index() || index > core.applied() || index > core.durable() ||
      !actor->batches.empty()) {
    return Impossible("only what is applied and written can be compacted");
  }
  const storage::LogMark mark = actor->core->CompactTo(index);
  if (const std::string broken = actor->disk.Compact(mark); !broken.empty()) Violation(broken);
  Say("{} has its mark at {}@{}", actor->options.id.value, mark.index.value, mark.term.value);
  Pump(*actor);
  return absl::OkStatus();
}

absl::Status World::Snapshot(Args& args) {
  const Link link = args.TakeLink("FROM->TO");
  const auto from = actors_.find(link.from), to = actors_.find(link.to);
  const bool alive = from != actors_.end() && to != actors_.end() && from != to &&
                     from->second->core && to->second->core;
  if (!alive) args.Fail("FROM and TO are two members that run");
  const uint64_t applied = alive ? from->second->core->applied().value : 0;
  const Index index(args.NamedNumber("index", kMaxIndex, applied));
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  const RaftCore& core = *from->second->core;
  if (core.role() != Role::kLeader) return Impossible("only a leader sends a snapshot");
  if (index < core.log().mark_index() || index > core.applied() || !index) {
    return Impossible("a snapshot holds what is applied, and not what is behind the mark");
  }
  Message m;
  m.type = MessageType::kSnapshot;
  m.from = core.id();
  m.to = NodeId(link.to);
  m.term = core.term();
  m.prev_index = index;
  m.prev_term = *core.log().TermAt(index);
  m.payloads = {core.MembershipAt(index).Encode(), "directory"};
  Arrive(std::move(m));
  return absl::OkStatus();
}

absl::Status World::Report(Args& args) {
  const Link link = args.TakeLink("FROM->TO");
  const Index index(args.Number("INDEX", kMaxIndex));
  const std::string how = args.Word("ok or failed");
  const auto from = actors_.find(link.from);
  if (from == actors_.end() || !from->second->core) args.Fail("FROM is no member that runs");
  if (how != "ok" && how != "failed") args.Fail("a report says ok or failed");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  from->second->core->OnSnapshotSent(NodeId(link.to), index, how == "ok");
  Pump(*from->second);
  return absl::OkStatus();
}

// ---------------------------------------------------------------- looking

absl::Status World::Status(Args& args) {
  const std::vector<Actor*> actors = Resolve(args, args.IdsOrAll("IDS"), /*alive=*/false);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const Actor* actor : actors) {
    const uint64_t id = actor->options.id.value;
    if (!actor->core) {
      Say("{} crashed", id);
      continue;
    }
    const RaftCore& core = *actor->core;
    Say("{} {} term={} vote={} leader={} commit={} applied={} durable={} last={}@{}", id,
        RoleName(core.role()), core.term().value, core.vote().value, core.leader().value,
        core.commit().value, core.applied().value, core.durable().value, core.log().last().value,
        core.log().last_term().value);
  }
  return absl::OkStatus();
}

absl::Status World::Log(Args& args) {
  const std::vector<Actor*> actors = Resolve(args, args.IdsOrAll("IDS"), /*alive=*/true);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const Actor* actor : actors) {
    const CoreLog& log = actor->core->log();
    std::string entries;
    for (Index i = log.mark_index() + 1; i <= log.last(); ++i) {
      if (!entries.empty()) entries += ", ";
      const Term term = *log.TermAt(i);
      const bool written = actor->disk.TermAt(i) == term;
      entries += written ? DescribeEntry(*actor->disk.Read(i, i, 0).front())
                         : fmt::format("{}@{} (not written)", i.value, term.value);
    }
    const std::string mark =
        fmt::format(" from {}@{}", log.mark_index().value, log.TermAt(log.mark_index())->value);
    Say("{}{}: {}", actor->options.id.value, log.mark_index() ? mark : "", entries);
  }
  return absl::OkStatus();
}

absl::Status World::Members(Args& args) {
  const std::vector<Actor*> actors = Resolve(args, args.IdsOrAll("IDS"), /*alive=*/true);
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const Actor* actor : actors) {
    const RaftCore& core = *actor->core;
    Say("{} {}{}", actor->options.id.value, DescribeMembers(core.membership()),
        core.membership_settled() ? "" : " (not settled)");
  }
  return absl::OkStatus();
}

absl::Status World::ShowProgress(Args& args) {
  Actor* actor = TakeAlive(args, "ID");
  if (const absl::Status done = args.Done(); !done.ok()) return done;
  for (const auto& [peer, progress] : actor->core->progress()) {
    Say("{}: {}{}", peer.value, DescribeProgress(progress),
        actor->core->KeepsUp(peer) ? " keeps-up" : "");
  }
  return absl::OkStatus();
}

}  // namespace holdfast::raft::test
