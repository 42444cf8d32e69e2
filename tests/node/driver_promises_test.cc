// What the driver promises, one promise a test: the order of effects between core, disk, data and
// network, and what callers are told. Without threads: each test says who runs when.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/strings.h"
#include "replication/freshness_record.h"
#include "replication/proposal_queue.h"
#include "replication/read_queue.h"
#include "replication/stepped_node.h"
#include "replication/workers.h"
#include "storage/memory_log.h"

namespace holdfast::raft {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Effects = std::vector<std::string>;

// Tells its effects; fails where it is told to.
class ToldLog : public storage::MemoryLog {
 public:
  explicit ToldLog(Effects* effects) : effects_(effects) {}
  absl::Status Append(absl::Span<const storage::LogBatch> batches) override {
    if (std::exchange(fail_next, false)) {
      effects_->push_back("append fails");
      return absl::DataLossError("fsync failed");
    }
    for (const storage::LogBatch& batch : batches) {
      if (batch.reset) effects_->push_back("reset to " + std::to_string(batch.reset->index.value));
    }
    ++appends;
    return MemoryLog::Append(batches);
  }
  absl::Status Compact(const storage::LogMark& mark) override {
    effects_->push_back("compact to " + std::to_string(mark.index.value));
    return MemoryLog::Compact(mark);
  }

  bool fail_next = false;
  int appends = 0;

 private:
  Effects* const effects_;
};

class ToldMachine : public StateMachine {
 public:
  explicit ToldMachine(Effects* effects) : effects_(effects) {}
  absl::Status Apply(absl::Span<const EntryRef> entries) override {
    if (std::exchange(fail_next, false)) return absl::DataLossError("apply failed");
    ++applies;
    index_ = entries.back()->index;
    term_ = entries.back()->term;
    return absl::OkStatus();
  }
  Index applied() const override { return index_; }
  absl::StatusOr<Index> Flush() override { return std::min(index_, flushes_to); }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override {
    return Checkpoint{testing::TempDir() + "no-such-checkpoint", index_, term_};
  }
  absl::Status InstallCheckpoint(const std::string&, const storage::LogMark& mark) override {
    if (std::exchange(fail_next, false)) return absl::DataLossError("install failed");
    effects_->push_back("install " + std::to_string(mark.index.value));
    index_ = mark.index;
    term_ = mark.term;
    return absl::OkStatus();
  }
  std::optional<storage::LogMark> installed_mark() const override { return std::nullopt; }

  bool fail_next = false;
  int applies = 0;
  Index flushes_to{UINT64_MAX};

 private:
  Effects* const effects_;
  Index index_;
  Term term_;
};

class ToldTransport : public Transport {
 public:
  void Send(std::vector<Message> messages) override {
    for (Message& m : messages) sent.push_back(std::move(m));
  }
  void SendSnapshot(SnapshotToSend snapshot,
                    absl::AnyInvocable<void(absl::Status) &&> done) override {
    snapshots.emplace_back(std::move(snapshot), std::move(done));
  }
  void SetMembership(const Membership&) override {}

  std::vector<Message> OfType(MessageType type) const {
    std::vector<Message> out;
    for (const Message& m : sent) {
      if (m.type == type) out.push_back(m);
    }
    return out;
  }

  std::vector<Message> sent;
  std::vector<std::pair<SnapshotToSend, absl::AnyInvocable<void(absl::Status) &&>>> snapshots;
};

Membership MembersOf(std::vector<uint64_t> voters, std::vector<uint64_t> learners) {
  Membership m;
  for (const uint64_t id : voters) m.voters.insert(NodeId(id));
  for (const uint64_t id : learners) m.learners.insert(NodeId(id));
  for (const NodeId id : m.All()) m.peer_urls[id] = {"http://member" + std::to_string(id.value)};
  return m;
}

EntryRef EntryAt(uint64_t index, uint64_t term) {
  auto entry = std::make_shared<storage::Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  entry->payload = "entry";
  return entry;
}

// Member 1, alone with the test.
class Driver : public ::testing::Test {
 protected:
  void Start(const Membership& membership) {
    NodeOptions options;
    options.core.id = NodeId(1);
    options.clock = &clock_;
    options.boot = 77;
    options.snapshot_count = 5;
    options.catch_up_entries = 0;
    options.on_fatal = [this](const absl::Status& status) { fatal_.push_back(status); };
    auto node = SteppedNode::Start(options, membership, &log_, &machine_, &transport_);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
    Settle();
  }
  // Everybody works until nothing is left to do, or nobody may go on.
  void Settle() {
    bool busy = true;
    while (busy && fatal_.empty()) {
      node_->RunRaft();
      busy = node_->RunLog();
      busy = node_->RunApply() || busy;
      busy = node_->RunFetch() || busy;
      busy = node_->RunMaintenance() || busy;
      busy = node_->HasInput() || busy;
    }
  }
  Message From(uint64_t peer, uint64_t term, MessageType type) const {
    Message m;
    m.type = type;
    m.from = NodeId(peer);
    m.to = NodeId(1);
    m.term = Term(term);
    return m;
  }
  void Receive(Message message) { node_->Receive({std::move(message)}); }
  void ReceiveEntries(uint64_t peer, uint64_t term, std::vector<EntryRef> entries,
                      uint64_t commit) {
    Message m = From(peer, term, MessageType::kAppend);
    m.prev_index = entries.front()->index - 1;
    m.prev_term = Term(0);
    if (m.prev_index.value > 0) m.prev_term = *node_->core().log().TermAt(m.prev_index);
    m.entries = std::move(entries);
    m.commit = Index(commit);
    Receive(std::move(m));
  }
  // By the wish of member 2, the leader of `term`, and with its vote.
  void TakeOver(uint64_t term) {
    Receive(From(2, term, MessageType::kHeartbeat));
    Receive(From(2, term, MessageType::kTimeoutNow));
    Settle();
    Receive(From(2, term + 1, MessageType::kVoteReply));
    Settle();
    ASSERT_EQ(node_->core().role(), Role::kLeader);
    Acknowledge(2);
  }
  void LeadThree() {
    Start(MembersOf({1, 2, 3}, {}));
    TakeOver(1);
  }
  // Until the next round has left; returns its number.
  uint64_t NextRound() {
    transport_.sent.clear();
    while (transport_.OfType(MessageType::kHeartbeat).empty()) {
      clock_.Advance(absl::Milliseconds(10));
      node_->RunRaft();
    }
    return transport_.OfType(MessageType::kHeartbeat)[0].round;
  }
  // `peer` has everything.
  void Acknowledge(uint64_t peer) {
    Message ack = From(peer, node_->core().term().value, MessageType::kAppendReply);
    ack.match_index = node_->core().log().last();
    Receive(std::move(ack));
    Settle();
  }
  void ProposeAndApply(int count) {
    for (int i = 0; i < count; ++i) {
      node_->Propose("payload", [](absl::Status) { FAIL(); });
    }
    Settle();
  }
  // A learner that has nothing refuses whatever the leader sends it.
  void RefuseAsEmpty(uint64_t peer) {
    for (int i = 0; i < 2; ++i) {
      Message refusal = From(peer, node_->core().term().value, MessageType::kAppendReply);
      refusal.reject = true;
      refusal.prev_index = node_->core().progress().at(NodeId(peer)).next_index - 1;
      Receive(std::move(refusal));
      node_->RunRaft();
    }
  }

  Effects effects_;
  base::FakeClock clock_;
  ToldLog log_{&effects_};
  ToldMachine machine_{&effects_};
  ToldTransport transport_;
  std::vector<absl::Status> fatal_;
  std::unique_ptr<SteppedNode> node_;
};

// ---------------------------------------------------------------- after a broken promise

TEST(LogWorkerPromise, AfterAFailedWriteTheNextIsNotEvenTried) {
  Effects effects;
  ToldLog log(&effects);
  int acknowledged = 0;
  LogWorker worker(
      &log, [&](uint64_t, std::vector<Message>) { ++acknowledged; }, [](const absl::Status&) {});
  log.fail_next = true;
  for (uint64_t seq = 1; seq <= 2; ++seq) {
    AppendBatch batch;
    batch.seq = seq;
    batch.log.entries = {EntryAt(seq, 1)};
    worker.Append(std::move(batch));
    worker.RunOnce();
  }
  EXPECT_EQ(acknowledged, 0);
  EXPECT_EQ(log.appends, 0);
}

TEST(ApplyWorkerPromise, AfterAFailedApplyNothingIsApplied) {
  Effects effects;
  ToldMachine machine(&effects);
  int applied = 0;
  ApplyWorker worker(
      &machine, [&](Index) { ++applied; }, [](const absl::Status&) {});
  machine.fail_next = true;
  for (uint64_t index = 1; index <= 2; ++index) {
    worker.Apply({EntryAt(index, 1)});
    worker.RunOnce();
  }
  EXPECT_EQ(applied, 0);
  EXPECT_EQ(machine.applies, 0);
}

TEST_F(Driver, SaysNothingMoreOnceItsDiskHasFailed) {
  Start(MembersOf({1, 2, 3}, {}));
  log_.fail_next = true;
  ReceiveEntries(2, 1, {EntryAt(1, 1)}, 0);
  node_->RunRaft();
  transport_.sent.clear();
  node_->RunLog();
  ASSERT_EQ(fatal_.size(), 1u);
  Message round = From(2, 1, MessageType::kHeartbeat);
  round.round = 1;
  Receive(round);
  node_->RunRaft();
  EXPECT_THAT(transport_.sent, IsEmpty());
}

TEST_F(Driver, StopsIfItsDiskLacksWhatTheLeaderCountsOn) {
  Start(MembersOf({1, 2, 3}, {}));
  Message heartbeat = From(2, 1, MessageType::kHeartbeat);
  heartbeat.commit = Index(5);
  Receive(heartbeat);
  node_->RunRaft();
  ASSERT_EQ(fatal_.size(), 1u);
  EXPECT_EQ(fatal_[0].code(), absl::StatusCode::kDataLoss);
}

// ---------------------------------------------------------------- snapshots (C7)

TEST_F(Driver, InstallsASnapshotBeforeItResetsTheLog) {
  const Membership members = MembersOf({1, 2, 3}, {});
  Start(members);
  effects_.clear();
  bool done = false;
  node_->OnSnapshotReceived(NodeId(2), Term(1), {Index(10), Term(1), members.Encode()},
                            testing::TempDir() + "no-such-snapshot",
                            [&](absl::Status status) { done = status.ok(); });
  Settle();
  EXPECT_THAT(effects_, ElementsAre("install 10", "reset to 10"));
  EXPECT_TRUE(done);
}

TEST_F(Driver, LeavesTheLogAloneIfASnapshotCanNotBeInstalled) {
  const Membership members = MembersOf({1, 2, 3}, {});
  Start(members);
  effects_.clear();
  machine_.fail_next = true;
  absl::Status done;
  node_->OnSnapshotReceived(NodeId(2), Term(1), {Index(10), Term(1), members.Encode()},
                            testing::TempDir() + "no-such-snapshot",
                            [&](absl::Status status) { done = status; });
  Settle();
  EXPECT_THAT(effects_, IsEmpty());
  EXPECT_EQ(fatal_.size(), 1u);
  EXPECT_FALSE(done.ok());
}

TEST_F(Driver, KeepsTheLogBehindASnapshotThatIsOnItsWay) {
  Start(MembersOf({1}, {2}));
  ProposeAndApply(10);
  const Index cut = node_->core().log().mark_index();
  ASSERT_GT(cut, Index(0));
  RefuseAsEmpty(2);
  Settle();
  ASSERT_EQ(transport_.snapshots.size(), 1u);
  const Index on_its_way = transport_.snapshots[0].first.mark.index;
  ProposeAndApply(10);
  ProposeAndApply(10);
  EXPECT_LE(node_->core().log().mark_index(), on_its_way);
  std::move(transport_.snapshots[0].second)(absl::OkStatus());
  Settle();
  ProposeAndApply(10);
  EXPECT_GT(node_->core().log().mark_index(), on_its_way);
}

TEST_F(Driver, CutsTheLogOnlyUpToWhatTheDataHasFlushed) {
  Start(MembersOf({1}, {}));
  machine_.flushes_to = Index(8);
  ProposeAndApply(10);
  ASSERT_GT(machine_.applied(), Index(8));
  EXPECT_EQ(node_->core().log().mark_index(), Index(8));
}

TEST_F(Driver, SendsASnapshotWithTheMembershipAtItsIndex) {
  Start(MembersOf({1}, {2}));
  ProposeAndApply(10);
  MemberChange add;
  add.kind = MemberChange::Kind::kAddLearner;
  add.id = NodeId(3);
  add.peer_urls = {"http://member3"};
  node_->ChangeMembers(add, absl::Seconds(5), [](absl::StatusOr<Membership>) {});
  // Committed, and not applied.
  for (int i = 0; i < 3; ++i) {
    node_->RunRaft();
    node_->RunLog();
  }
  ASSERT_TRUE(node_->core().membership().Contains(NodeId(3)));
  RefuseAsEmpty(2);
  node_->RunMaintenance();
  node_->RunRaft();
  ASSERT_EQ(transport_.snapshots.size(), 1u);
  const auto carried = Membership::Decode(transport_.snapshots[0].first.mark.membership);
  ASSERT_TRUE(carried.ok());
  EXPECT_FALSE(carried->Contains(NodeId(3)));
}

// ---------------------------------------------------------------- freshness

TEST_F(Driver, StampsAClaimWithTheTimeBeforeTheProbeWasSent) {
  Start(MembersOf({1, 2, 3}, {}));
  clock_.Advance(absl::Milliseconds(300));
  Message round = From(2, 1, MessageType::kHeartbeat);
  round.round = 1;
  Receive(round);
  node_->RunRaft();
  const base::ClockSample asked = clock_.Sample();
  const auto probes = transport_.OfType(MessageType::kProbe);
  ASSERT_EQ(probes.size(), 1u);
  clock_.Advance(absl::Milliseconds(40));
  Message confirm = From(2, 1, MessageType::kConfirm);
  confirm.nonce = probes[0].nonce;
  confirm.boot = probes[0].boot;
  Receive(confirm);
  node_->RunRaft();
  ASSERT_TRUE(node_->claim().has_value());
  EXPECT_EQ(node_->claim()->at.boot_ns, asked.boot_ns);
}

TEST_F(Driver, StampsALeadersClaimWithARoundOfThisReign) {
  LeadThree();
  const uint64_t unanswered = NextRound();
  TakeOver(3);
  const uint64_t round = NextRound();
  ASSERT_EQ(round, unanswered);  // rounds are named within a term
  const base::ClockSample sent = clock_.Sample();
  clock_.Advance(absl::Milliseconds(3));
  Message reply = From(2, 4, MessageType::kHeartbeatReply);
  reply.round = round;
  Receive(reply);
  Settle();
  ASSERT_TRUE(node_->claim().has_value());
  EXPECT_EQ(node_->claim()->at.boot_ns, sent.boot_ns);
}

TEST(FreshnessRecordPromise, WithAnotherNumberThanItsChecksumIsWorthNothing) {
  const std::string path = testing::TempDir() + "holdfast_freshness_promise";
  const Claim claim{base::RealClock::Get()->Sample(), absl::Milliseconds(3), Index(42)};
  ASSERT_TRUE(WriteFreshnessRecord(path, claim).ok());
  std::string line;
  std::getline(std::ifstream(path) >> std::ws, line);
  const size_t at = line.rfind(" 42 ");
  ASSERT_NE(at, std::string::npos);
  line.replace(at, 4, " 12 ");
  std::ofstream(path) << line << '\n';
  EXPECT_FALSE(ReadFreshnessRecord(path).has_value());
  std::filesystem::remove(path);
}

// ---------------------------------------------------------------- what callers are told

TEST(ReadQueuePromise, AnAnswerIsForThoseWhoHadAsked) {
  ReadQueue queue(/*ask_again_ns=*/500, /*boot=*/77);
  std::vector<int> answered;
  const auto waiter = [&](int name) {
    return ReadWaiter{1'000'000'000,
                      [&answered, name](absl::StatusOr<Index>) { answered.push_back(name); }};
  };
  queue.Add(waiter(1));
  const uint64_t id = *queue.Ask(0);
  queue.Add(waiter(2));
  queue.Grant(id, Index(5));
  queue.OnApplied(Index(5));
  EXPECT_THAT(answered, ElementsAre(1));
}

TEST(ProposalQueuePromise, ARefusedBatchIsOfferedAgainWithItsContent) {
  CoreOptions options;
  options.id = NodeId(1);
  RaftCore::Recovered nothing;
  nothing.mark.membership = MembersOf({1, 2, 3}, {}).Encode();
  RaftCore core(options, nothing, 1);
  Message heartbeat;
  heartbeat.type = MessageType::kHeartbeat;
  heartbeat.from = NodeId(2);
  heartbeat.term = Term(1);
  core.Step(heartbeat);
  core.TakeReady();
  ProposalQueue queue(77, 1'000'000);
  queue.Add({"what the client wrote", [](absl::Status) { FAIL(); }}, 0);
  for (int i = 0; i < 2; ++i) {
    queue.OfferTo(core, i);
    const Ready ready = core.TakeReady();
    ASSERT_EQ(ready.messages.size(), 1u);
    EXPECT_THAT(ready.messages[0].payloads, ElementsAre("what the client wrote"));
    queue.Refused(ready.messages[0].propose_id);
    queue.ReleaseRefused();
  }
}

TEST_F(Driver, TellsOfAMembershipChangeOnceItIsCommitted) {
  LeadThree();
  MemberChange add;
  add.kind = MemberChange::Kind::kAddLearner;
  add.id = NodeId(4);
  add.peer_urls = {"http://member4"};
  int told = 0;
  node_->ChangeMembers(add, absl::Seconds(5), [&](absl::StatusOr<Membership> done) {
    EXPECT_TRUE(done.ok()) << done.status();
    ++told;
  });
  Settle();
  EXPECT_EQ(told, 0);
  Acknowledge(2);
  EXPECT_EQ(told, 1);
}

TEST_F(Driver, TellsThatAMembershipChangeIsUnknownOnceAnotherLeaderOverwroteIt) {
  LeadThree();
  MemberChange add;
  add.kind = MemberChange::Kind::kAddLearner;
  add.id = NodeId(4);
  add.peer_urls = {"http://member4"};
  std::vector<absl::StatusCode> told;
  node_->ChangeMembers(add, absl::Seconds(5), [&](absl::StatusOr<Membership> done) {
    told.push_back(done.status().code());
  });
  Settle();
  const uint64_t at = node_->core().log().last().value;
  ReceiveEntries(3, 3, {EntryAt(at, 3)}, at);
  Settle();
  EXPECT_THAT(told, ElementsAre(absl::StatusCode::kDeadlineExceeded));
}

// The mark moves behind the change, but with another leader's snapshot: it says nothing of ours.
TEST_F(Driver, TellsThatAMembershipChangeIsUnknownOnceAnotherLeadersSnapshotCoversIt) {
  LeadThree();
  MemberChange add;
  add.kind = MemberChange::Kind::kAddLearner;
  add.id = NodeId(4);
  add.peer_urls = {"http://member4"};
  std::vector<absl::StatusCode> told;
  node_->ChangeMembers(add, absl::Seconds(5), [&](absl::StatusOr<Membership> done) {
    told.push_back(done.status().code());
  });
  Settle();
  node_->OnSnapshotReceived(NodeId(3), Term(3),
                            {Index(30), Term(3), MembersOf({1, 2, 3}, {}).Encode()},
                            testing::TempDir() + "no-such-snapshot", [](absl::Status) {});
  Settle();
  ASSERT_EQ(node_->core().log().mark_index(), Index(30));
  EXPECT_THAT(told, ElementsAre(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(Driver, RefusesAChangeThatWouldLeaveMostVotersSilent) {
  LeadThree();
  // Member 3 is not heard for longer than an election timeout (a second); member 2 is.
  for (int i = 0; i < 30; ++i) {
    clock_.Advance(absl::Milliseconds(40));
    Settle();
    Acknowledge(2);
  }
  ASSERT_EQ(node_->core().role(), Role::kLeader);
  const Index last = node_->core().log().last();
  const auto ask = [&](MemberChange::Kind kind, uint64_t id) {
    MemberChange change;
    change.kind = kind;
    change.id = NodeId(id);
    const auto told = std::make_shared<absl::Status>();
    node_->ChangeMembers(change, absl::Seconds(5),
                         [told](absl::StatusOr<Membership> done) { *told = done.status(); });
    node_->RunRaft();
    return *told;
  };
  for (const auto kind : {MemberChange::Kind::kRemove, MemberChange::Kind::kDemote}) {
    const absl::Status refused = ask(kind, 2);
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_TRUE(base::Message(refused).starts_with(RaftNode::kUnhealthyText)) << refused;
  }
  EXPECT_EQ(node_->core().log().last(), last);
  // The silent one may go.
  EXPECT_TRUE(ask(MemberChange::Kind::kRemove, 3).ok());
  EXPECT_GT(node_->core().log().last(), last);
}

TEST_F(Driver, TellsOfAHandOverOnceTheOtherLeads) {
  LeadThree();
  std::vector<absl::Status> told;
  node_->TransferLeadership(NodeId(2), absl::Seconds(5),
                            [&](absl::Status done) { told.push_back(done); });
  Settle();
  EXPECT_THAT(told, IsEmpty());
  Receive(From(2, 3, MessageType::kHeartbeat));
  Settle();
  EXPECT_THAT(told, ElementsAre(absl::OkStatus()));
}

}  // namespace
}  // namespace holdfast::raft
