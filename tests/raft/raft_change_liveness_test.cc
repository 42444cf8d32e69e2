// Changes that are cut short: somebody must still be able to lead, and nobody may wait for ever.
#include <gtest/gtest.h>

#include "member.h"
#include "replication/member_change.h"

namespace holdfast::raft::test {
namespace {

Membership Without(const Membership& now, uint64_t id) {
  MemberChange change;
  change.kind = MemberChange::Kind::kRemove;
  change.id = NodeId(id);
  return *TargetOf(now, change);
}

// Thesis 4.2.2: the only one that has the newest configuration is not in it.
TEST(ChangeLiveness, AMemberOutsideItsUncommittedConfigurationCanStillBeElected) {
  Group g(2);
  ASSERT_TRUE(g.Elect(1));
  // The entry that removes the leader reaches nobody but its own disk.
  g.Isolate(1);
  ASSERT_TRUE(g[1]->ProposeMembers(Without(g[1]->membership(), 1)).ok());
  g.Settle();
  g[1].Restart(1);
  ASSERT_FALSE(g[1]->membership().IsVoter(NodeId(1)));
  g.Heal();
  for (int i = 0; i < 200 && g.Leader() != 2; ++i) g.Tick();
  // Member 1 was elected by member 2, committed its own removal, and handed over.
  EXPECT_EQ(g.Leader(), 2u);
  EXPECT_TRUE(g[2]->membership_settled());
  EXPECT_EQ(g[2]->membership().voters, std::set<NodeId>{NodeId(2)});
  EXPECT_EQ(g[1]->role(), Role::kFollower);
}

TEST(ChangeLiveness, ALeaverIsReachableUntilItsRemovalIsCommitted) {
  Group g(3);
  ASSERT_TRUE(g.Elect(1));
  g.Isolate(1);
  ASSERT_TRUE(g[1]->ProposeMembers(Without(g[1]->membership(), 3)).ok());
  EXPECT_TRUE(g[1]->Reachable().Contains(NodeId(3)));
  EXPECT_FALSE(g[1]->Reachable().Removed(NodeId(3)));
  EXPECT_TRUE(g[1]->membership().Removed(NodeId(3)));
  g.Heal();
  g.Tick(2);
  ASSERT_TRUE(g[1]->membership_settled());
  EXPECT_FALSE(g[1]->Reachable().Contains(NodeId(3)));
  EXPECT_TRUE(g[1]->Reachable().Removed(NodeId(3)));
}

TEST(ChangeLiveness, ATransferWaitsForTheJointConfigurationToBeLeft) {
  Group g(std::vector<Past>(4, Past(MembersOf(3, 1))));
  ASSERT_TRUE(g.Elect(1));
  g.Tick(2);
  Membership target = g[1]->membership();
  target.voters = {NodeId(1), NodeId(2), NodeId(4)};
  target.learners.clear();
  ASSERT_TRUE(g[1]->ProposeMembers(target).ok());
  ASSERT_TRUE(g[1]->membership().joint());
  ASSERT_TRUE(g[1]->TransferLeadership(NodeId(2)).ok());
  g.Settle();
  g.Tick(2);
  // At once, not after an election that the target could not win.
  EXPECT_EQ(g.Leader(), 2u);
  EXPECT_EQ(g[2]->term(), Term(2));
}

TEST(ChangeLiveness, ALearnerForgetsASilentLeaderAndWhatItAsked) {
  Group g(std::vector<Past>(4, Past(MembersOf(3, 1))));
  ASSERT_TRUE(g.Elect(1));
  g.Tick(2);
  ASSERT_EQ(g[4]->leader(), NodeId(1));
  g.Isolate(4);
  g[4]->StartRead(7);
  g[4].Run();
  g.Tick(25);
  EXPECT_EQ(g[4]->leader(), NodeId(0));
  EXPECT_EQ(g[4].reads_dropped, std::vector<uint64_t>{7});
  EXPECT_EQ(g[4]->role(), Role::kFollower);
}

TEST(ChangeLiveness, QuestionsWithoutAnAnswerAreBounded) {
  CoreOptions options = StoryOptions(2);
  options.max_pending_reads = 3;
  Member m(options, Past());
  m.Step(HeartbeatFrom(1, 1));
  for (uint64_t id = 1; id <= 5; ++id) {
    m->StartRead(id);
    m.Run();
  }
  EXPECT_EQ(m.reads_dropped, (std::vector<uint64_t>{1, 2}));  // the oldest are asked anew
}

TEST(ChangeLiveness, AMemberThatLacksWhatItAcknowledgedSaysSo) {
  Member m(StoryOptions(2), Past());
  m.core().Step(HeartbeatFrom(1, 1, 1, /*commit=*/5));
  const Ready ready = m.Take();
  EXPECT_NE(ready.damage, "");
}

}  // namespace
}  // namespace holdfast::raft::test
