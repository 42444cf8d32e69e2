// Linearizable reads (thesis 6.4) and the leader's half of the age protocol (freshness L1 to L5).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "member.h"

namespace holdfast::raft::test {
namespace {

Member LeaderOf(size_t voters, void (*change)(CoreOptions&) = nullptr) {
  CoreOptions options = StoryOptions(1);
  if (change != nullptr) change(options);
  Member m(options, Past(MembersOf(voters)));
  m.Lead();
  return m;
}

Member Established(size_t voters, void (*change)(CoreOptions&) = nullptr) {
  Member m = LeaderOf(voters, change);
  for (uint64_t peer = 2; peer <= voters; ++peer) m.Step(AckFrom(peer, 1, 1));
  return m;
}

Message ReadIndexFrom(uint64_t from, uint64_t term, uint64_t id) {
  Message m;
  m.type = MessageType::kReadIndex;
  m.from = NodeId(from);
  m.term = Term(term);
  m.read_id = id;
  return m;
}

Message ProbeFrom(uint64_t from, uint64_t term, uint64_t nonce, bool urgent) {
  Message m;
  m.type = MessageType::kProbe;
  m.from = NodeId(from);
  m.term = Term(term);
  m.nonce = nonce;
  m.boot = 77;
  m.urgent = urgent;
  return m;
}

uint64_t NewestRound(const Member& m) { return m.rounds_started.back(); }

// ---------------------------------------------------------------- reads

TEST(Read, AtTheLeaderWaitsForARoundThatAQuorumAnswered) {
  Member m = Established(5);
  m->StartRead(10);
  const auto out = OfType(m.Run(), MessageType::kHeartbeat);
  EXPECT_EQ(out.size(), 4u);  // at once, not at the next tick
  m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  EXPECT_TRUE(m.reads.empty());
  m.Step(RoundReplyFrom(2, 1, NewestRound(m)));  // one voter twice is one voter
  EXPECT_TRUE(m.reads.empty());
  m.Step(RoundReplyFrom(3, 1, NewestRound(m)));
  ASSERT_EQ(m.reads.size(), 1u);
  EXPECT_EQ(m.reads[0].read_id, 10u);
  EXPECT_EQ(m.reads[0].index, Index(1));
}

TEST(Read, AnAnswerToAnEarlierRoundDoesNotCount) {
  Member m = Established(3);
  m.Tick();
  const uint64_t before = NewestRound(m);
  m->StartRead(10);
  m.Run();
  ASSERT_GT(NewestRound(m), before);
  m.Step(RoundReplyFrom(2, 1, before));
  m.Step(RoundReplyFrom(3, 1, before));
  EXPECT_TRUE(m.reads.empty());
  m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  EXPECT_EQ(m.reads.size(), 1u);
}

TEST(Read, ARoundThatWasNeverSentProvesNothing) {
  Member m = Established(3);
  m->StartRead(10);
  m.Run();
  m.Step(RoundReplyFrom(2, 1, NewestRound(m) + 5));
  EXPECT_TRUE(m.reads.empty());
  m->CheckInvariants();
}

TEST(Read, LearnersConfirmNothing) {
  Member m(StoryOptions(1), Past(MembersOf(3, 2)));
  m.Lead();
  m.Step(AckFrom(2, 1, 1));
  m->StartRead(10);
  m.Run();
  m.Step(RoundReplyFrom(4, 1, NewestRound(m)));
  m.Step(RoundReplyFrom(5, 1, NewestRound(m)));
  EXPECT_TRUE(m.reads.empty());
}

TEST(Read, GetsTheCommitIndexOfAtLeastItsStart) {
  Member m = Established(3);
  m.Propose("x");
  m.Step(AckFrom(2, 1, 2));
  m->StartRead(10);
  m.Run();
  m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  ASSERT_EQ(m.reads.size(), 1u);
  EXPECT_EQ(m.reads[0].index, Index(2));
}

// Thesis 6.4, step 1: a new leader does not know yet what is committed.
TEST(Read, WaitsUntilAnEntryOfTheOwnTermIsCommitted) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 1, {1, 1}));
  m.Lead();
  m->StartRead(10);
  m.Run();
  m.Step(ReadIndexFrom(2, 2, 20));
  for (int i = 0; i < 3; ++i) {
    m.Tick();
    m.Step(RoundReplyFrom(2, 2, NewestRound(m)));
    m.Step(RoundReplyFrom(3, 2, NewestRound(m)));
  }
  EXPECT_TRUE(m.reads.empty());
  // Rounds from before the commit do not count afterwards either.
  m.Step(AckFrom(2, 2, 3));
  EXPECT_TRUE(m.reads.empty());
  const auto out = m.Step(RoundReplyFrom(2, 2, NewestRound(m)));
  ASSERT_EQ(m.reads.size(), 1u);
  EXPECT_EQ(m.reads[0].index, Index(3));
  const auto replies = OfType(out, MessageType::kReadIndexReply);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].read_id, 20u);
  EXPECT_EQ(replies[0].read_index, Index(3));
}

TEST(Read, OfManyShareOneRound) {
  Member m = Established(3);
  for (uint64_t id = 1; id <= 50; ++id) m->StartRead(id);
  EXPECT_EQ(OfType(m.Run(), MessageType::kHeartbeat).size(), 2u);
  // Those that come while a round is out wait for the next one.
  for (uint64_t id = 51; id <= 60; ++id) m->StartRead(id);
  EXPECT_TRUE(OfType(m.Run(), MessageType::kHeartbeat).empty());
  const auto next = m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  EXPECT_EQ(m.reads.size(), 50u);
  EXPECT_EQ(OfType(next, MessageType::kHeartbeat).size(), 2u);
  m.Step(RoundReplyFrom(3, 1, NewestRound(m)));
  EXPECT_EQ(m.reads.size(), 60u);
}

// A round that was sent before the question proves nothing about the time after it.
TEST(Read, OfAFollowerWaitsForARoundThatBeginsAfterIt) {
  Member m = Established(3);
  m.Tick();
  const uint64_t out_already = NewestRound(m);
  m.Step(ReadIndexFrom(3, 1, 20));
  const auto early = m.Step(RoundReplyFrom(2, 1, out_already));
  EXPECT_TRUE(OfType(early, MessageType::kReadIndexReply).empty());
  ASSERT_GT(NewestRound(m), out_already);
  const auto out = m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  EXPECT_EQ(OfType(out, MessageType::kReadIndexReply).size(), 1u);
}

TEST(Read, ALostRoundIsMadeUpByTheNextHeartbeatTick) {
  Member m = Established(3);
  m->StartRead(1);
  m.Run();
  m->StartRead(2);
  m.Run();
  m.Tick();
  m.Step(RoundReplyFrom(3, 1, NewestRound(m)));
  EXPECT_EQ(m.reads.size(), 2u);
}

TEST(Read, OfASingleMemberNeedsNobody) {
  Member m = LeaderOf(1);
  m->StartRead(1);
  m.Run();
  ASSERT_EQ(m.reads.size(), 1u);
  EXPECT_EQ(m.reads[0].index, Index(1));
}

TEST(Read, AtAFollowerAsksTheLeader) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.Propose(1, "x");
  group[2]->StartRead(5);
  group.Settle();
  ASSERT_EQ(group[2].reads.size(), 1u);
  EXPECT_EQ(group[2].reads[0].read_id, 5u);
  EXPECT_EQ(group[2].reads[0].index, Index(2));
}

TEST(Read, AtALearnerAsksTheLeader) {
  Group group(std::vector<Past>(4, Past(MembersOf(3, 1))));
  ASSERT_TRUE(group.Elect(1));
  group[4]->StartRead(5);
  group.Settle();
  EXPECT_EQ(group[4].reads.size(), 1u);
}

// C6: ids rise, so one answer is good for every older question.
TEST(Read, OneAnswerConfirmsTheOlderQuestions) {
  Member m(StoryOptions(2), Past(MembersOf(3), 1, 0, 0, {1, 1}));
  m.Step(HeartbeatFrom(1, 1));
  for (const uint64_t id : {5, 6, 7}) m->StartRead(id);
  EXPECT_EQ(OfType(m.Run(), MessageType::kReadIndex).size(), 3u);
  Message reply = ReadIndexFrom(1, 1, 6);
  reply.type = MessageType::kReadIndexReply;
  reply.read_index = Index(2);
  m.Step(reply);
  ASSERT_EQ(m.reads.size(), 2u);
  EXPECT_EQ(m.reads[0].read_id, 5u);
  EXPECT_EQ(m.reads[1].read_id, 6u);
  // The same answer again finds nobody.
  m.Step(reply);
  EXPECT_EQ(m.reads.size(), 2u);
}

TEST(Read, AnAnswerToAFormerLifeConfirmsNothing) {
  Member m(StoryOptions(2), Past(MembersOf(3), 1, 0, 0, {1, 1}));
  m.Step(HeartbeatFrom(1, 1));
  m->StartRead(5);
  m.Run();
  Message reply = ReadIndexFrom(1, 1, 900);
  reply.type = MessageType::kReadIndexReply;
  m.Step(reply);
  EXPECT_TRUE(m.reads.empty());
}

TEST(Read, IsDroppedWithoutALeader) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m->StartRead(5);
  m.Run();
  EXPECT_EQ(m.reads_dropped, std::vector<uint64_t>{5});
}

TEST(Read, IsDroppedWhenTheLeaderChanges) {
  Member m(StoryOptions(2), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(1, 1));
  m->StartRead(5);
  m.Run();
  m.Step(HeartbeatFrom(3, 2));
  EXPECT_EQ(m.reads_dropped, std::vector<uint64_t>{5});

  Member leader = Established(3);
  leader->StartRead(6);
  leader.Run();
  leader->StartRead(7);
  leader.Run();
  leader.Step(HeartbeatFrom(3, 2));
  EXPECT_EQ(leader.reads_dropped, (std::vector<uint64_t>{6, 7}));
  leader.Step(RoundReplyFrom(2, 1, NewestRound(leader)));
  EXPECT_TRUE(leader.reads.empty());
}

TEST(Read, AQuestionToAFormerLeaderGetsNoAnswer) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(3, 1));
  EXPECT_TRUE(m.Step(ReadIndexFrom(2, 1, 5)).empty());
}

// The stale leader behind a partition: never an answer from old state.
TEST(Read, AtALeaderBehindAPartitionIsNeverGranted) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.Isolate(1);
  group[1]->StartRead(5);
  group.Tick(40);
  EXPECT_TRUE(group[1].reads.empty());
  EXPECT_EQ(group[1].reads_dropped, std::vector<uint64_t>{5});
}

TEST(Read, QuestionsOfFollowersAreBounded) {
  Member m = LeaderOf(3, [](CoreOptions& o) { o.max_pending_reads = 3; });
  for (uint64_t id = 1; id <= 10; ++id) m.Step(ReadIndexFrom(2, 1, id));
  m.Step(AckFrom(2, 1, 1));
  const auto out = m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  EXPECT_EQ(OfType(out, MessageType::kReadIndexReply).size(), 3u);
}

TEST(Read, WithABacklogToApplyGetsTheCommitIndexNotTheAppliedOne) {
  Member m = Established(3);
  m.hold_apply = true;
  for (int i = 0; i < 5; ++i) m.Propose("x");
  m.Step(AckFrom(2, 1, 6));
  m->StartRead(1);
  m.Run();
  m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  ASSERT_EQ(m.reads.size(), 1u);
  EXPECT_EQ(m.reads[0].index, Index(6));
  EXPECT_LT(m->applied(), Index(6));
}

// ---------------------------------------------------------------- freshness, leader's half

TEST(FreshnessL1, AProbeIsHeldUntilAnOwnEntryIsCommitted) {
  Member m = LeaderOf(3);
  EXPECT_TRUE(OfType(m.Step(ProbeFrom(2, 1, 5, true)), MessageType::kConfirm).empty());
  m.Tick();
  EXPECT_TRUE(OfType(m.Step(RoundReplyFrom(2, 1, NewestRound(m))), MessageType::kConfirm).empty());
  m.Step(AckFrom(2, 1, 1));
  const auto out = m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  const auto confirms = OfType(out, MessageType::kConfirm);
  ASSERT_EQ(confirms.size(), 1u);
  EXPECT_EQ(confirms[0].to, NodeId(2));
  EXPECT_EQ(confirms[0].nonce, 5u);
  EXPECT_EQ(confirms[0].boot, 77u);
  EXPECT_EQ(confirms[0].read_index, Index(1));
}

TEST(FreshnessL1, AProbeRidesOnTheNextRoundNotOnOneThatIsOut) {
  Member m = Established(3);
  m.Tick();
  const uint64_t out_already = NewestRound(m);
  m.Step(ProbeFrom(2, 1, 5, false));
  m.Step(RoundReplyFrom(3, 1, out_already));
  EXPECT_TRUE(OfType(m.Step(RoundReplyFrom(2, 1, out_already)), MessageType::kConfirm).empty());
  m.Tick();
  const auto out = m.Step(RoundReplyFrom(3, 1, NewestRound(m)));
  EXPECT_EQ(OfType(out, MessageType::kConfirm).size(), 1u);
}

TEST(FreshnessL1, AnUrgentProbeStartsARoundAndAPatientOneWaitsForTheTick) {
  Member m = Established(3);
  EXPECT_TRUE(OfType(m.Step(ProbeFrom(2, 1, 5, false)), MessageType::kHeartbeat).empty());
  EXPECT_EQ(OfType(m.Step(ProbeFrom(2, 1, 6, true)), MessageType::kHeartbeat).size(), 2u);
  const auto out = m.Step(RoundReplyFrom(3, 1, NewestRound(m)));
  EXPECT_EQ(OfType(out, MessageType::kConfirm).size(), 2u);
}

TEST(FreshnessL2, AnAnswerOfAnotherTermNeverCounts) {
  Member m = Established(3);
  m.Step(ProbeFrom(2, 1, 5, true));
  Message refusal = RoundReplyFrom(3, 2, NewestRound(m));
  EXPECT_TRUE(OfType(m.Step(refusal), MessageType::kConfirm).empty());
  EXPECT_EQ(m->role(), Role::kFollower);
}

TEST(FreshnessL2, AVoterOfALaterTermDoesNotEchoARound) {
  Member m(StoryOptions(2), Past(MembersOf(3), 5));
  for (const Message& reply : m.Step(HeartbeatFrom(1, 4, 9))) {
    EXPECT_NE(reply.type, MessageType::kHeartbeatReply);
    EXPECT_EQ(reply.term, Term(5));
  }
}

// L2: whether the logs match does not matter for a round.
TEST(FreshnessL2, AVoterWithAnotherLogEchoesARound) {
  Member m(StoryOptions(2), Past(MembersOf(3), 3, 0, 0, {1, 2, 3}));
  const auto out = m.Step(HeartbeatFrom(1, 4, 9));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].type, MessageType::kHeartbeatReply);
  EXPECT_EQ(out[0].round, 9u);
}

TEST(FreshnessL3, TheConfirmNamesTheCommitIndexOfItsSending) {
  Member m = Established(3);
  m.Propose("x");
  m.Step(ProbeFrom(2, 1, 5, true));
  m.Step(AckFrom(3, 1, 2));  // committed while the round is out
  const auto confirms = OfType(m.Step(RoundReplyFrom(3, 1, NewestRound(m))), MessageType::kConfirm);
  ASSERT_EQ(confirms.size(), 1u);
  EXPECT_EQ(confirms[0].read_index, Index(2));
}

TEST(FreshnessL3, ALaterRoundConfirmsTheEarlier) {
  Member m = Established(3);
  m.Step(ProbeFrom(2, 1, 5, true));
  m.Tick();
  const auto out = m.Step(RoundReplyFrom(3, 1, NewestRound(m)));
  EXPECT_EQ(OfType(out, MessageType::kConfirm).size(), 1u);
}

TEST(FreshnessL4, TheLeadersOwnClaimIsTheCommitIndexAtSending) {
  Member m = Established(3);
  m.rounds_confirmed.clear();
  m.Propose("x");
  m.Tick();
  const uint64_t round = NewestRound(m);
  m.Step(AckFrom(3, 1, 2));
  m.Step(RoundReplyFrom(3, 1, round));
  ASSERT_FALSE(m.rounds_confirmed.empty());
  EXPECT_EQ(m.rounds_confirmed.back().round, round);
  EXPECT_EQ(m.rounds_confirmed.back().index, Index(1));
}

TEST(FreshnessL4, ARoundSentBeforeTheGateMakesNoClaim) {
  Member m = LeaderOf(3);
  m.Tick();
  const uint64_t before = NewestRound(m);
  m.Step(AckFrom(2, 1, 1));
  m.Step(RoundReplyFrom(2, 1, before));
  EXPECT_TRUE(m.rounds_confirmed.empty());
  m.Tick();
  m.Step(RoundReplyFrom(2, 1, NewestRound(m)));
  EXPECT_EQ(m.rounds_confirmed.size(), 1u);
}

TEST(FreshnessL4, LosingLeadershipDropsTheProbes) {
  Member m = Established(3);
  m.Step(ProbeFrom(2, 1, 5, true));
  m.Step(ProbeFrom(3, 1, 6, false));
  m.Step(HeartbeatFrom(2, 2));
  // It leads again, later: the probes of then are gone.
  m->Campaign();
  m.Run();
  m.Step(VoteReplyFrom(3, 3, false, true));
  m.Step(VoteReplyFrom(3, 3));
  ASSERT_EQ(m->role(), Role::kLeader);
  m.Step(AckFrom(3, 3, 2));
  m.Tick();
  const auto out = m.Step(RoundReplyFrom(3, 3, NewestRound(m)));
  EXPECT_TRUE(OfType(out, MessageType::kConfirm).empty());
}

TEST(FreshnessL5, RoundsGoOnWhenTheClusterIsIdle) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group[1].rounds_confirmed.clear();
  group.Tick(20);
  EXPECT_GE(group[1].rounds_confirmed.size(), 19u);
}

TEST(FreshnessL, ProbesAtAFollowerGetNoAnswer) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(3, 1));
  EXPECT_TRUE(m.Step(ProbeFrom(2, 1, 5, true)).empty());
}

TEST(FreshnessL, ProbesAreBounded) {
  Member m = LeaderOf(3, [](CoreOptions& o) { o.max_pending_probes = 4; });
  for (uint64_t nonce = 1; nonce <= 20; ++nonce) m.Step(ProbeFrom(2, 1, nonce, false));
  m.Step(AckFrom(2, 1, 1));
  m.Tick();
  const auto confirms = OfType(m.Step(RoundReplyFrom(2, 1, NewestRound(m))), MessageType::kConfirm);
  ASSERT_EQ(confirms.size(), 4u);
  EXPECT_EQ(confirms.back().nonce, 20u);  // the newest make the best claims
}

TEST(FreshnessF2, AConfirmIsHandedToTheTracker) {
  Member m(StoryOptions(2), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(1, 1));
  Message confirm = ProbeFrom(1, 1, 5, false);
  confirm.type = MessageType::kConfirm;
  confirm.read_index = Index(3);
  m.Step(confirm);
  ASSERT_EQ(m.confirms.size(), 1u);
  EXPECT_EQ(m.confirms[0].nonce, 5u);
  EXPECT_EQ(m.confirms[0].read_index, Index(3));
}

}  // namespace
}  // namespace holdfast::raft::test
