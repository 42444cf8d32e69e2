#include "member.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace holdfast::raft::test {

// A core that always has something to do never gets anything done.
constexpr int kMaxTurns = 10'000;

CoreOptions StoryOptions(uint64_t id) {
  CoreOptions options;
  options.id = NodeId(id);
  options.heartbeat_ticks = 1;
  options.election_ticks = 10;
  options.election_spread_ticks = 10;  // the paper's range: few ticks would often fall together
  return options;
}

Membership MembersOf(size_t voters, size_t learners) {
  Membership m;
  for (uint64_t i = 1; i <= voters + learners; ++i) {
    (i <= voters ? m.voters : m.learners).insert(NodeId(i));
    m.peer_urls[NodeId(i)] = {fmt::format("http://node{}", i)};
  }
  return m;
}

EntryRef MakeEntry(uint64_t index, uint64_t term, std::string payload) {
  auto entry = std::make_shared<Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  entry->payload = payload.empty() ? fmt::format("entry {}.{}", index, term) : std::move(payload);
  return entry;
}

std::vector<EntryRef> EntriesOf(uint64_t first, const std::vector<uint64_t>& terms) {
  std::vector<EntryRef> out;
  for (const uint64_t term : terms) out.push_back(MakeEntry(first++, term));
  return out;
}

namespace {

Message MessageFrom(MessageType type, uint64_t from, uint64_t term) {
  Message m;
  m.type = type;
  m.from = NodeId(from);
  m.term = Term(term);
  return m;
}

}  // namespace

Message AppendFrom(uint64_t from, uint64_t term, uint64_t prev_index, uint64_t prev_term,
                   std::vector<EntryRef> entries, uint64_t commit) {
  Message m = MessageFrom(MessageType::kAppend, from, term);
  m.prev_index = Index(prev_index);
  m.prev_term = Term(prev_term);
  m.entries = std::move(entries);
  m.commit = Index(commit);
  return m;
}

Message HeartbeatFrom(uint64_t from, uint64_t term, uint64_t round, uint64_t commit) {
  Message m = MessageFrom(MessageType::kHeartbeat, from, term);
  m.round = round;
  m.commit = Index(commit);
  return m;
}

Message VoteFrom(uint64_t from, uint64_t term, uint64_t last_index, uint64_t last_term,
                 bool pre_vote) {
  Message m = MessageFrom(MessageType::kVote, from, term);
  m.prev_index = Index(last_index);
  m.prev_term = Term(last_term);
  m.pre_vote = pre_vote;
  return m;
}

Message VoteReplyFrom(uint64_t from, uint64_t term, bool reject, bool pre_vote) {
  Message m = MessageFrom(MessageType::kVoteReply, from, term);
  m.reject = reject;
  m.pre_vote = pre_vote;
  return m;
}

Message AckFrom(uint64_t from, uint64_t term, uint64_t match) {
  Message m = MessageFrom(MessageType::kAppendReply, from, term);
  m.match_index = Index(match);
  return m;
}

Message RejectFrom(uint64_t from, uint64_t term, uint64_t prev_index, uint64_t hint_index,
                   uint64_t hint_term) {
  Message m = MessageFrom(MessageType::kAppendReply, from, term);
  m.reject = true;
  m.prev_index = Index(prev_index);
  m.hint_index = Index(hint_index);
  m.hint_term = Term(hint_term);
  return m;
}

Message RoundReplyFrom(uint64_t from, uint64_t term, uint64_t round) {
  Message m = MessageFrom(MessageType::kHeartbeatReply, from, term);
  m.round = round;
  return m;
}

// ---------------------------------------------------------------- one member

Member::Member(const CoreOptions& options, const Past& past, uint64_t seed)
    : options_(options), disk_(past.members), seed_(seed) {
  storage::LogBatch batch;
  batch.entries = EntriesOf(1, past.log);
  const uint64_t last_term = past.log.empty() ? 0 : past.log.back();
  batch.hard_state = storage::HardState{Term(std::max(past.term, last_term)), NodeId(past.vote),
                                        Index(past.commit)};
  CHECK(disk_.Write(batch).empty());
  Restart();
}

void Member::Restart(uint64_t applied_index) {
  batches.clear();
  core_ = std::make_unique<RaftCore>(options_, disk_.Recover(Index(applied_index)), seed_++);
}

Ready Member::Take() {
  Ready ready = core_->TakeReady();
  core_->CheckInvariants();
  const auto add = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  add(applied, ready.apply);
  if (!ready.apply.empty()) apply_batches.push_back(ready.apply.size());
  add(reads, ready.reads);
  add(reads_dropped, ready.reads_dropped);
  add(refused, ready.proposals_refused);
  add(confirms, ready.confirms);
  add(snapshots_wanted, ready.snapshots_wanted);
  add(fetches, ready.fetches);
  if (ready.round_started) rounds_started.push_back(*ready.round_started);
  if (ready.round_confirmed) rounds_confirmed.push_back(*ready.round_confirmed);
  return ready;
}

void Member::Write(AppendBatch batch, std::vector<Message>& out) {
  const std::string broken = disk_.Write(batch.log);
  CHECK_MSG(broken.empty(), broken);
  for (Message& m : batch.after_durable) {
    if (m.to == options_.id) {
      core_->Step(std::move(m));
    } else {
      out.push_back(std::move(m));
    }
  }
  core_->OnDurable(batch.seq);
}

void Member::Carry(Ready ready, std::vector<Message>& out) {
  for (Message& m : ready.messages) out.push_back(std::move(m));
  if (!ready.append.empty()) {
    if (hold_disk) {
      batches.push_back(std::move(ready.append));
    } else {
      Write(std::move(ready.append), out);
    }
  }
  if (!hold_apply && !ready.apply.empty()) core_->OnApplied(ready.apply.back()->index);
  if (hold_fetch) return;
  for (const FetchRequest& f : ready.fetches) {
    core_->OnFetched(f.id, disk_.Read(f.first, f.last, f.max_bytes));
  }
}

std::vector<Message> Member::Run() {
  std::vector<Message> out;
  for (int turns = 0; core_->HasReady(); ++turns) {
    CHECK(turns < kMaxTurns);
    Carry(Take(), out);
  }
  return out;
}

std::vector<Message> Member::FinishWrites(size_t count) {
  std::vector<Message> out;
  for (; count > 0 && !batches.empty(); --count) {
    AppendBatch batch = std::move(batches.front());
    batches.pop_front();
    Write(std::move(batch), out);
  }
  for (Message& m : Run()) out.push_back(std::move(m));
  return out;
}

std::vector<Message> Member::FinishApply() {
  if (!applied.empty()) core_->OnApplied(applied.back()->index);
  return Run();
}

std::vector<Message> Member::Step(Message message) {
  message.to = options_.id;
  core_->Step(std::move(message));
  return Run();
}

std::vector<Message> Member::Tick(uint32_t ticks) {
  std::vector<Message> out;
  for (; ticks > 0; --ticks) {
    core_->Tick();
    for (Message& m : Run()) out.push_back(std::move(m));
  }
  return out;
}

std::vector<Message> Member::Propose(const std::string& payload) {
  CHECK(core_->Propose(1, {payload}) == ProposeOutcome::kAppended);
  return Run();
}

void Member::Lead() {
  core_->Campaign();
  Run();
  const std::vector<NodeId> all = core_->membership().All();
  for (const bool pre_vote : {true, false}) {
    const uint64_t term = core_->term().value + (pre_vote ? 1 : 0);
    for (const NodeId peer : all) {
      if (peer == options_.id || core_->role() == Role::kLeader) continue;
      Step(VoteReplyFrom(peer.value, term, /*reject=*/false, pre_vote));
    }
  }
  CHECK(core_->role() == Role::kLeader);
}

std::vector<Message> OfType(const std::vector<Message>& messages, MessageType type) {
  std::vector<Message> out;
  for (const Message& m : messages) {
    if (m.type == type) out.push_back(m);
  }
  return out;
}

// ---------------------------------------------------------------- a group

Group::Group(const std::vector<Past>& pasts, const std::function<void(CoreOptions&)>& change) {
  for (uint64_t id = 1; id <= pasts.size(); ++id) {
    CoreOptions options = StoryOptions(id);
    if (change) change(options);
    members_[id] = std::make_unique<Member>(options, pasts[id - 1], id);
  }
}

void Group::Cut(uint64_t a, uint64_t b) { cut_[{a, b}] = cut_[{b, a}] = true; }

void Group::Isolate(uint64_t id) {
  for (const auto& [other, member] : members_) Cut(id, other);
}

void Group::Post(std::vector<Message> messages) {
  for (Message& m : messages) {
    sent.push_back(m);
    if (cut_.contains({m.from.value, m.to.value}) || !members_.contains(m.to.value)) continue;
    if (lets_through && !lets_through(m)) continue;
    network_.push_back(std::move(m));
  }
}

void Group::Settle() {
  bool busy = true;
  while (busy) {
    busy = false;
    for (auto& [id, member] : members_) {
      std::vector<Message> out = member->Run();
      busy = busy || !out.empty();
      Post(std::move(out));
    }
    while (!network_.empty()) {
      busy = true;
      Message m = std::move(network_.front());
      network_.pop_front();
      Member& to = *members_.at(m.to.value);
      Post(to.Step(std::move(m)));
    }
  }
}

void Group::Tick(uint32_t ticks) {
  for (; ticks > 0; --ticks) {
    for (auto& [id, member] : members_) Post(member->Tick());
    Settle();
  }
}

bool Group::Elect(uint64_t id) {
  (*this)[id]->Campaign();
  Settle();
  return (*this)[id]->role() == Role::kLeader;
}

uint64_t Group::Leader() {
  uint64_t leader = 0;
  Term newest;
  for (auto& [id, member] : members_) {
    if ((*member)->role() == Role::kLeader && (*member)->term() > newest) {
      leader = id;
      newest = (*member)->term();
    }
  }
  return leader;
}

void Group::Propose(uint64_t id, const std::string& payload) {
  (*this)[id]->Propose(1, {payload});
  Settle();
}

}  // namespace holdfast::raft::test
