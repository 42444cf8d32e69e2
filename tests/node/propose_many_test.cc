// Many proposals in one call: told for each slot, whole in the inbox, cut only by size, kept
// together on their way to the leader.
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "replication/proposal_queue.h"
#include "replication/raft_node.h"
#include "replication/stepped_node.h"
#include "storage/memory_log.h"

namespace holdfast::raft {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

constexpr size_t kBig = size_t{600} << 10;  // two of these are more than one piece

// What a caller was told, by slot.
class Refusals {
 public:
  ProposalBatch::Refused Take() {
    return [this](size_t slot, const absl::Status& why) {
      EXPECT_TRUE(told_.emplace(slot, why.code()).second) << "slot " << slot << " told twice";
    };
  }
  const std::map<size_t, absl::StatusCode>& told() const { return told_; }

 private:
  std::map<size_t, absl::StatusCode> told_;
};

std::vector<std::string> Payloads(size_t count, size_t bytes) {
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) out.emplace_back(bytes, static_cast<char>('a' + i));
  return out;
}

RaftCore Core(CoreOptions options, uint64_t members) {
  options.id = NodeId(1);
  Membership membership;
  for (uint64_t id = 1; id <= members; ++id) membership.voters.insert(NodeId(id));
  RaftCore::Recovered nothing;
  nothing.mark.membership = membership.Encode();
  return RaftCore(options, nothing, 1);
}

RaftCore FollowerOfTwo() {
  RaftCore core = Core({}, 3);
  Message heartbeat;
  heartbeat.type = MessageType::kHeartbeat;
  heartbeat.from = NodeId(2);
  heartbeat.to = NodeId(1);
  heartbeat.term = Term(1);
  core.Step(heartbeat);
  core.TakeReady();
  return core;
}

// Carries everything out at once, until nothing is left.
void Settle(RaftCore& core) {
  while (core.HasReady()) {
    Ready ready = core.TakeReady();
    if (!ready.append.empty()) core.OnDurable(ready.append.seq);
    for (Message& m : ready.append.after_durable) core.Step(std::move(m));
    if (!ready.apply.empty()) core.OnApplied(ready.apply.back()->index);
  }
}

std::vector<Message> ProposalsOf(Ready ready) {
  std::vector<Message> out;
  for (Message& m : ready.messages) {
    if (m.type == MessageType::kPropose) out.push_back(std::move(m));
  }
  return out;
}

// ---------------------------------------------------------------- the queue

TEST(ProposeManyQueue, TheLeaderTakesThemInOrderWithoutCopies) {
  RaftCore core = Core({}, 1);
  core.Campaign();
  Settle(core);
  const Index before = core.log().last();
  std::vector<std::string> payloads = Payloads(3, 1000);
  std::vector<const char*> where;
  for (const std::string& payload : payloads) where.push_back(payload.data());
  Refusals refusals;
  ProposalQueue queue(77, 1000);
  queue.Add({std::move(payloads), refusals.Take()}, 0);
  queue.OfferTo(core, 0);
  const Ready ready = core.TakeReady();
  ASSERT_EQ(ready.append.log.entries.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const Entry& entry = *ready.append.log.entries[i];
    EXPECT_EQ(entry.index, before + i + 1);
    EXPECT_EQ(entry.payload, std::string(1000, static_cast<char>('a' + i)));
    EXPECT_EQ(entry.payload.data(), where[i]);
  }
  EXPECT_THAT(refusals.told(), IsEmpty());
}

TEST(ProposeManyQueue, AFullLogTakesOnePieceAndRefusesTheSlotsOfTheRest) {
  CoreOptions options;
  options.max_uncommitted_bytes = 1;
  RaftCore core = Core(options, 1);
  core.Campaign();
  Settle(core);
  const Index before = core.log().last();
  Refusals refusals;
  ProposalQueue queue(77, 1000);
  queue.Add({Payloads(3, kBig), refusals.Take()}, 0);
  queue.OfferTo(core, 0);
  EXPECT_EQ(core.log().last(), before + 1);
  EXPECT_THAT(refusals.told(), ElementsAre(Pair(1, absl::StatusCode::kResourceExhausted),
                                           Pair(2, absl::StatusCode::kResourceExhausted)));
}

TEST(ProposeManyQueue, AFollowerForwardsBatchesTogetherAndCutsLargeOnes) {
  RaftCore core = FollowerOfTwo();
  Refusals small, large;
  ProposalQueue queue(77, 1000);
  queue.Add({Payloads(3, 10), small.Take()}, 0);
  queue.Add({Payloads(4, kBig), large.Take()}, 0);
  queue.OfferTo(core, 0);
  std::vector<Message> sent = ProposalsOf(core.TakeReady());
  std::vector<size_t> sizes;
  for (const Message& m : sent) {
    for (const std::string& payload : m.payloads) sizes.push_back(payload.size());
    EXPECT_LE(m.payloads.size(), 5u);
  }
  EXPECT_THAT(sizes, ElementsAre(10, 10, 10, kBig, kBig, kBig, kBig));
  EXPECT_GT(sent.size(), 1u);

  // The last message is refused: its slots, and no others, are offered again with their content.
  const Message last = sent.back();
  queue.Refused(last.propose_id);
  queue.OfferTo(core, 10);
  EXPECT_TRUE(ProposalsOf(core.TakeReady()).empty());  // not before the next tick
  queue.ReleaseRefused();
  queue.OfferTo(core, 20);
  sent = ProposalsOf(core.TakeReady());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].payloads, last.payloads);
  EXPECT_NE(sent[0].propose_id, last.propose_id);

  // Then nobody takes them in time.
  queue.Refused(sent[0].propose_id);
  queue.ReleaseRefused();
  queue.OfferTo(core, 5000);
  EXPECT_THAT(small.told(), IsEmpty());
  ASSERT_EQ(large.told().size(), last.payloads.size());
  EXPECT_EQ(large.told().rbegin()->first, 3u);
  for (const auto& [slot, code] : large.told()) EXPECT_EQ(code, absl::StatusCode::kUnavailable);
}

TEST(ProposeManyQueue, WhatWaitsForALeaderIsBoundedAndRefusedBySlot) {
  Refusals first, second, third;
  ProposalQueue queue(77, 1000);
  queue.Add({Payloads(2, size_t{40} << 20), first.Take()}, 0);
  queue.Add({Payloads(2, 1), second.Take()}, 0);  // beyond kMaxWaitingBytes: at once
  EXPECT_THAT(first.told(), IsEmpty());
  EXPECT_THAT(second.told(), UnorderedElementsAre(Pair(0, absl::StatusCode::kResourceExhausted),
                                                  Pair(1, absl::StatusCode::kResourceExhausted)));
  queue.RefuseWaiting(absl::UnavailableError("no leader"));
  EXPECT_THAT(first.told(), UnorderedElementsAre(Pair(0, absl::StatusCode::kUnavailable),
                                                 Pair(1, absl::StatusCode::kUnavailable)));
  queue.Add({Payloads(1, 1), third.Take()}, 0);  // there is room again
  EXPECT_THAT(third.told(), IsEmpty());
}

// ---------------------------------------------------------------- the node

class NoTransport : public Transport {
 public:
  void Send(std::vector<Message> messages) override {
    for (Message& m : messages) sent.push_back(std::move(m));
  }
  void SendSnapshot(SnapshotToSend, absl::AnyInvocable<void(absl::Status) &&> done) override {
    std::move(done)(absl::UnavailableError("not here"));
  }
  void SetMembership(const Membership&) override {}
  std::vector<Message> sent;
};

class ListedMachine : public StateMachine {
 public:
  absl::Status Apply(absl::Span<const EntryRef> entries) override {
    for (const EntryRef& entry : entries) {
      if (entry->type == EntryType::kNormal) payloads.push_back(entry->payload);
    }
    applied_ = entries.back()->index;
    return absl::OkStatus();
  }
  Index applied() const override { return applied_; }
  absl::StatusOr<Index> Flush() override { return applied_; }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override {
    return absl::UnavailableError("not here");
  }
  absl::Status InstallCheckpoint(const std::string&, const storage::LogMark&) override {
    return absl::UnavailableError("not here");
  }
  std::optional<storage::LogMark> installed_mark() const override { return std::nullopt; }
  std::vector<std::string> payloads;

 private:
  Index applied_;
};

class ProposeManyNode : public testing::Test {
 protected:
  void Start(uint64_t members) {
    NodeOptions options;
    options.core.id = NodeId(1);
    options.clock = &clock_;
    options.boot = 77;
    options.max_queued_bytes = 100'000;
    Membership membership;
    for (uint64_t id = 1; id <= members; ++id) membership.voters.insert(NodeId(id));
    auto node = SteppedNode::Start(options, membership, &log_, &machine_, &transport_);
    ASSERT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
    Settle();
  }
  void Settle() {
    do {
      node_->RunRaft();
    } while (node_->RunLog() | node_->RunApply() | int{node_->HasInput()});
  }
  base::FakeClock clock_;
  storage::MemoryLog log_;
  ListedMachine machine_;
  NoTransport transport_;
  std::unique_ptr<SteppedNode> node_;
};

TEST_F(ProposeManyNode, AreAppliedInOrderBetweenOthers) {
  Start(1);
  Refusals refusals;
  node_->Propose("before", [](absl::Status) { FAIL(); });
  node_->ProposeMany({"a", "b", "c"}, refusals.Take());
  node_->ProposeMany({}, refusals.Take());
  node_->Propose("after", [](absl::Status) { FAIL(); });
  Settle();
  EXPECT_THAT(machine_.payloads, ElementsAre("before", "a", "b", "c", "after"));
  EXPECT_THAT(refusals.told(), IsEmpty());
}

TEST_F(ProposeManyNode, AFullInboxRefusesEverySlotAtOnceAndTakesNothingOfTheBatch) {
  Start(1);
  Refusals fits, too_many;
  node_->ProposeMany(Payloads(2, 40'000), fits.Take());
  node_->ProposeMany(Payloads(3, 10'000), too_many.Take());
  EXPECT_THAT(too_many.told(), ElementsAre(Pair(0, absl::StatusCode::kResourceExhausted),
                                           Pair(1, absl::StatusCode::kResourceExhausted),
                                           Pair(2, absl::StatusCode::kResourceExhausted)));
  Settle();
  EXPECT_THAT(fits.told(), IsEmpty());
  EXPECT_EQ(machine_.payloads, Payloads(2, 40'000));
}

TEST_F(ProposeManyNode, ManyEmptyPayloadsAreNotFree) {
  Start(1);
  Refusals first, second;
  node_->ProposeMany(std::vector<std::string>(3000), first.Take());
  node_->ProposeMany(std::vector<std::string>(3000), second.Take());
  EXPECT_THAT(first.told(), IsEmpty());
  EXPECT_EQ(second.told().size(), 3000u);
}

TEST_F(ProposeManyNode, StopRefusesEverySlotThatWaitsAndEveryOneAfterIt) {
  Start(3);  // nobody leads
  Refusals waiting, unread, late;
  node_->ProposeMany({"a", "b"}, waiting.Take());
  node_->RunRaft();
  node_->ProposeMany({"c"}, unread.Take());
  node_->Stop();
  node_->ProposeMany({"d", "e"}, late.Take());
  EXPECT_THAT(waiting.told(), ElementsAre(Pair(0, absl::StatusCode::kUnavailable),
                                          Pair(1, absl::StatusCode::kUnavailable)));
  EXPECT_THAT(unread.told(), ElementsAre(Pair(0, absl::StatusCode::kUnavailable)));
  EXPECT_THAT(late.told(), ElementsAre(Pair(0, absl::StatusCode::kUnavailable),
                                       Pair(1, absl::StatusCode::kUnavailable)));
}

}  // namespace
}  // namespace holdfast::raft
