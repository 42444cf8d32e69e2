// The checkers of the simulation, shown by hand what must never happen: each must say so. A checker
// that swallows what it found makes every test of the simulation worthless, and none of them fail.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/rng.h"
#include "sim_disk.h"
#include "sim_machine.h"
#include "sim_options.h"
#include "witness.h"
#include "world.h"

namespace holdfast::sim {
namespace {

using ::testing::HasSubstr;

raft::Membership Voters(uint64_t count) {
  raft::Membership m;
  for (uint64_t i = 1; i <= count; ++i) {
    m.voters.insert(NodeId(i));
    m.peer_urls[NodeId(i)] = {"http://member" + std::to_string(i)};
  }
  return m;
}

storage::EntryRef EntryOf(uint64_t index, uint64_t term, uint32_t op = 0) {
  auto entry = std::make_shared<storage::Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  Command command;
  command.op = op;
  entry->payload = command.Encode(/*padding=*/0);
  return entry;
}

storage::EntryRef ConfigOf(uint64_t index, uint64_t term, const raft::Membership& membership) {
  auto entry = std::make_shared<storage::Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  entry->type = storage::EntryType::kConfig;
  entry->payload = membership.Encode();
  return entry;
}

// Three members whose disks hold what each test writes there.
class WitnessTest : public ::testing::Test {
 protected:
  WitnessTest() : witness_(Voters(3)) {
    for (uint64_t i = 1; i <= 3; ++i) {
      disks_.push_back(std::make_unique<SimDisk>(NodeId(i), 10, &rng_, &witness_));
      witness_.AddDisk(NodeId(i), disks_.back().get(), Voters(3));
    }
  }
  void Write(uint64_t member, const std::vector<storage::EntryRef>& entries) {
    storage::LogBatch batch;
    batch.entries = entries;
    batch.must_sync = true;
    EXPECT_TRUE(disks_[member - 1]->Append({batch}).ok());
  }
  void Elect(uint64_t leader, uint64_t term) {
    for (uint64_t i = 1; i <= 2; ++i) {
      witness_.SawDurableVote(NodeId(i), Term(term), NodeId(leader));
    }
    witness_.SawLeader(NodeId(leader), Term(term));
  }
  void Commit(uint64_t leader, uint64_t term, uint64_t index) {
    witness_.SawCommitted(NodeId(leader), Index(index), Term(term));
    witness_.SawLeaderCommit(NodeId(leader), Term(term), Index(index), Term(term), {}, 1);
  }
  void ExpectFailure(const std::string& text) {
    EXPECT_FALSE(witness_.ok());
    EXPECT_THAT(witness_.failure(), HasSubstr(text));
  }

  base::Rng rng_{1};
  Witness witness_;
  std::vector<std::unique_ptr<SimDisk>> disks_;
};

TEST_F(WitnessTest, HasNothingAgainstAGoodHistory) {
  Elect(1, 1);
  witness_.SawAppendOfLeader(Term(1), Term(0), {EntryOf(1, 1, 7)});
  Write(1, {EntryOf(1, 1, 7)});
  Write(2, {EntryOf(1, 1, 7)});
  Commit(1, 1, 1);
  witness_.SawApplied(NodeId(2), *EntryOf(1, 1, 7));
  witness_.SawState(NodeId(2), Index(1), 42);
  EXPECT_TRUE(witness_.ok()) << witness_.failure();
  EXPECT_EQ(witness_.acked(), Index(1));
}

TEST_F(WitnessTest, TwoVotesInATerm) {
  witness_.SawDurableVote(NodeId(1), Term(5), NodeId(2));
  witness_.SawDurableVote(NodeId(1), Term(5), NodeId(3));
  ExpectFailure("voted for 2 and for 3");
}

TEST_F(WitnessTest, ALeaderWithoutAMajorityOfVotes) {
  witness_.SawDurableVote(NodeId(1), Term(5), NodeId(1));
  witness_.SawLeader(NodeId(1), Term(5));
  ExpectFailure("no majority of durable votes");
}

TEST_F(WitnessTest, TwoLeadersOfATerm) {
  Elect(1, 5);
  witness_.SawLeader(NodeId(2), Term(5));
  ExpectFailure("election safety");
}

TEST_F(WitnessTest, ALeaderThatLacksWhatIsCommitted) {
  Elect(1, 1);
  Write(1, {EntryOf(1, 1)});
  Write(2, {EntryOf(1, 1)});
  Commit(1, 1, 1);
  for (const uint64_t voter : {2, 3}) {
    witness_.SawDurableVote(NodeId(voter), Term(2), NodeId(3));
  }
  witness_.SawLeader(NodeId(3), Term(2));
  ExpectFailure("leader completeness");
}

TEST_F(WitnessTest, AnEntryWithTwoContents) {
  Write(1, {EntryOf(1, 1, 7)});
  Write(2, {EntryOf(1, 1, 8)});
  ExpectFailure("two contents");
}

TEST_F(WitnessTest, AnEntryBehindTwoOthers) {
  Write(1, {EntryOf(1, 1), EntryOf(2, 3)});
  Write(2, {EntryOf(1, 2), EntryOf(2, 3)});
  ExpectFailure("follows term 1 and term 2");
}

TEST_F(WitnessTest, ACommitWithoutAMajorityOfDisks) {
  Elect(1, 1);
  Write(1, {EntryOf(1, 1)});
  Commit(1, 1, 1);
  ExpectFailure("without a majority of disks");
}

TEST_F(WitnessTest, ACommitOfAnOlderTermByCounting) {
  Write(1, {EntryOf(1, 1)});
  Write(2, {EntryOf(1, 1)});
  Elect(1, 2);
  witness_.SawLeaderCommit(NodeId(1), Term(2), Index(1), Term(1), {}, 1);
  ExpectFailure("thesis 3.6.2");
}

TEST_F(WitnessTest, TwoCommitsAtOneIndex) {
  witness_.SawCommitted(NodeId(1), Index(1), Term(1));
  witness_.SawCommitted(NodeId(2), Index(1), Term(2));
  ExpectFailure("state machine safety");
}

TEST_F(WitnessTest, ACommittedEntryThatIsCutOff) {
  Write(1, {EntryOf(1, 1)});
  witness_.SawCommitted(NodeId(1), Index(1), Term(1));
  Write(1, {EntryOf(1, 2)});
  ExpectFailure("which is committed");
}

TEST_F(WitnessTest, AnEntryAppliedBeforeItIsCommitted) {
  Write(1, {EntryOf(1, 1)});
  witness_.SawApplied(NodeId(1), *EntryOf(1, 1));
  ExpectFailure("which is not committed");
}

TEST_F(WitnessTest, AnEntryAppliedBeforeTheDiskHasIt) {
  Write(1, {EntryOf(1, 1)});
  witness_.SawCommitted(NodeId(1), Index(1), Term(1));
  witness_.SawApplied(NodeId(2), *EntryOf(1, 1));
  ExpectFailure("C4");
}

TEST_F(WitnessTest, MembersThatDiffer) {
  Write(1, {EntryOf(1, 1, 7)});
  witness_.SawCommitted(NodeId(1), Index(1), Term(1));
  witness_.SawState(NodeId(1), Index(1), 42);
  witness_.SawState(NodeId(2), Index(1), 43);
  ExpectFailure("another state");
}

TEST_F(WitnessTest, AnOperationCommittedTwice) {
  Write(1, {EntryOf(1, 1, 7), EntryOf(2, 1, 7)});
  for (const uint64_t index : {1, 2}) {
    witness_.SawCommitted(NodeId(1), Index(index), Term(1));
    witness_.SawState(NodeId(1), Index(index), index);
  }
  ExpectFailure("committed twice");
}

TEST_F(WitnessTest, ARefusedOperationThatIsCommitted) {
  witness_.SawRefusal(7);
  Write(1, {EntryOf(1, 1, 7)});
  witness_.SawCommitted(NodeId(1), Index(1), Term(1));
  witness_.SawState(NodeId(1), Index(1), 42);
  ExpectFailure("certainly refused");
}

TEST_F(WitnessTest, TwoVotersThatLeaveInOneStep) {
  Write(1, {ConfigOf(1, 1, Voters(1))});
  ExpectFailure("more than one voter");
}

TEST_F(WitnessTest, AVoterThatNeverLearned) {
  Write(1, {ConfigOf(1, 1, Voters(4))});
  ExpectFailure("never learned");
}

TEST_F(WitnessTest, AChangeBeforeAnOwnCommit) {
  Elect(1, 1);
  raft::Membership with_learner = Voters(3);
  with_learner.learners.insert(NodeId(4));
  with_learner.peer_urls[NodeId(4)] = {"http://member4"};
  witness_.SawAppendOfLeader(Term(1), Term(0), {ConfigOf(1, 1, with_learner)});
  ExpectFailure("thesis 4.1");
}

TEST_F(WitnessTest, AMembershipThatTheLogDoesNotSay) {
  witness_.SawMembership(NodeId(1), Index(0), Term(0), Voters(2));
  ExpectFailure("C8");
}

TEST_F(WitnessTest, AVoteThatIsForgottenAndGivenAgain) {
  storage::LogBatch vote;
  vote.must_sync = true;
  vote.hard_state = {Term(3), NodeId(2), Index(0)};
  EXPECT_TRUE(disks_[0]->Append({vote}).ok());
  vote.hard_state->vote = NodeId(3);
  EXPECT_TRUE(disks_[0]->Append({vote}).ok());
  ExpectFailure("the vote changed within a term");
}

TEST(WorldVerdict, OfABrokenRuleIsFailure) {
  World world(SimOptions::FromSeed(1), /*trace=*/false);
  world.witness.Fail("planted");
  EXPECT_FALSE(world.Run());
  EXPECT_EQ(world.failure(), "planted");
}

TEST(WorldVerdict, OfAnHonestRunIsSuccess) {
  spdlog::set_level(spdlog::level::off);
  SimOptions options = SimOptions::FromSeed(1);
  options.safety_ms = 1000;
  World world(options, /*trace=*/false);
  EXPECT_TRUE(world.Run()) << world.failure();
}

}  // namespace
}  // namespace holdfast::sim
