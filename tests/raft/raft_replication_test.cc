// Replication, flow control, commit, asynchronous storage (contracts C1 to C5), proposals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "member.h"

namespace holdfast::raft::test {
namespace {

Member LeaderOf(size_t voters, void (*change)(CoreOptions&) = nullptr, const Past* past = nullptr) {
  CoreOptions options = StoryOptions(1);
  if (change != nullptr) change(options);
  Member m(options, past != nullptr ? *past : Past(MembersOf(voters)));
  m.Lead();
  return m;
}

// Everybody has the leader's first entry: all progress is in kReplicate.
Member Established(size_t voters, void (*change)(CoreOptions&) = nullptr) {
  Member m = LeaderOf(voters, change);
  for (uint64_t peer = 2; peer <= voters; ++peer) {
    m.Step(AckFrom(peer, m->term().value, m->log().last().value));
  }
  return m;
}

std::vector<Message> To(uint64_t to, const std::vector<Message>& messages) {
  std::vector<Message> out;
  for (const Message& m : messages) {
    if (m.to == NodeId(to) && m.type == MessageType::kAppend) out.push_back(m);
  }
  return out;
}

// ---------------------------------------------------------------- log replication and commit

TEST(Replication, EntriesReachEveryMemberInOrder) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  for (const char* payload : {"a", "b", "c"}) group.Propose(1, payload);
  for (const uint64_t id : {1, 2, 3}) {
    ASSERT_EQ(group[id].applied.size(), 4u);
    EXPECT_EQ(group[id].applied[1]->payload, "a");
    EXPECT_EQ(group[id].applied[2]->payload, "b");
    EXPECT_EQ(group[id].applied[3]->payload, "c");
  }
}

TEST(Replication, ProposalsCommitWithAQuorumOnly) {
  for (const size_t alive : {2u, 3u, 4u, 5u}) {
    Group group(5);
    ASSERT_TRUE(group.Elect(1));
    for (uint64_t id = alive + 1; id <= 5; ++id) group.Isolate(id);
    group.Propose(1, "x");
    EXPECT_EQ(group[1]->commit(), Index(alive >= 3 ? 2 : 1));
  }
}

TEST(Replication, CommitFollowsTheMajority) {
  struct Case {
    std::vector<uint64_t> matches;  // of the others; the leader has 4 entries
    uint64_t commit;
  };
  for (const Case& c : std::vector<Case>{{{}, 4},
                                         {{4}, 4},
                                         {{2}, 2},
                                         {{2, 3}, 3},
                                         {{1, 2}, 2},
                                         {{1, 1, 4, 4}, 4},
                                         {{1, 1, 2, 4}, 2},
                                         {{1, 2, 3}, 2}}) {
    Member m = LeaderOf(c.matches.size() + 1);
    for (int i = 0; i < 3; ++i) m.Propose("x");
    for (size_t i = 0; i < c.matches.size(); ++i) m.Step(AckFrom(i + 2, 1, c.matches[i]));
    EXPECT_EQ(m->commit(), Index(c.commit)) << testing::PrintToString(c.matches);
  }
}

TEST(Replication, ANewLeaderCommitsOldEntriesWithItsFirst) {
  Group group(5);
  ASSERT_TRUE(group.Elect(1));
  group.Cut(1, 3), group.Cut(1, 4), group.Cut(1, 5);
  group.Propose(1, "a");
  group.Propose(1, "b");
  EXPECT_EQ(group[1]->commit(), Index(1));
  group.Heal();
  group.lets_through = [](const Message& m) { return m.from != NodeId(1); };
  for (const uint64_t id : {2, 3, 4, 5}) group[id].Tick(20);
  for (int tries = 0; tries < 3 && group.Leader() != 2; ++tries) group.Elect(2);
  ASSERT_EQ(group.Leader(), 2u);
  group.lets_through = nullptr;
  group.Tick(3);
  EXPECT_EQ(group[2]->commit(), Index(4));  // first, a, b, its own
  EXPECT_EQ(group[5].applied[1]->payload, "a");
}

TEST(Replication, AFollowersCommitIsCappedByWhatItKnowsToMatch) {
  struct Case {
    uint64_t prev_index, entries, leader_commit, commit, last;
  };
  // The follower has two entries of term 1.
  for (const Case& c : {Case{2, 0, 3, 2, 2}, Case{1, 0, 4, 1, 2}, Case{2, 1, 4, 3, 3},
                        Case{2, 2, 3, 3, 4}, Case{1, 1, 9, 2, 2}, Case{0, 0, 2, 0, 2}}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1}));
    m.Step(AppendFrom(2, 1, c.prev_index, c.prev_index == 0 ? 0 : 1,
                      EntriesOf(c.prev_index + 1, std::vector<uint64_t>(c.entries, 1)),
                      c.leader_commit));
    EXPECT_EQ(m->commit(), Index(c.commit));
    EXPECT_EQ(m->log().last(), Index(c.last));
  }
}

TEST(Replication, AHeartbeatMovesTheCommitIndexAndNeverBack) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  const auto out = m.Step(HeartbeatFrom(2, 1, 7, 2));
  EXPECT_EQ(m->commit(), Index(2));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].type, MessageType::kHeartbeatReply);
  EXPECT_EQ(out[0].round, 7u);
  m.Step(HeartbeatFrom(2, 1, 8, 1));
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_TRUE(m.Step(HeartbeatFrom(2, 1, 0, 3)).empty());  // round 0 wants no answer
  EXPECT_EQ(m->commit(), Index(3));
}

TEST(Replication, HeartbeatsToldAboutNoMoreThanTheReceiverHas) {
  Member m = Established(3);
  m.Propose("x");
  m.Step(AckFrom(2, 1, 2));
  ASSERT_EQ(m->commit(), Index(2));
  for (const Message& h : OfType(m.Tick(), MessageType::kHeartbeat)) {
    EXPECT_EQ(h.commit, Index(h.to == NodeId(2) ? 2 : 1));
  }
}

TEST(Replication, ALostCommitMessageIsMadeUpByTheNextHeartbeat) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.lets_through = [](const Message& m) { return m.to != NodeId(3) || m.commit < Index(2); };
  group.Propose(1, "x");
  EXPECT_EQ(group[3]->log().last(), Index(2));
  EXPECT_EQ(group[3]->commit(), Index(1));
  group.lets_through = nullptr;
  group.Tick();
  EXPECT_EQ(group[3]->commit(), Index(2));
}

TEST(Replication, RepeatedAndReorderedAppendsDoNoHarm) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  const auto entries = EntriesOf(1, {1, 1, 1, 1});
  const Message first = AppendFrom(2, 1, 0, 0, {entries[0], entries[1]}, 1);
  const Message second = AppendFrom(2, 1, 2, 1, {entries[2], entries[3]}, 3);
  const auto early = m.Step(second);
  ASSERT_EQ(early.size(), 1u);
  EXPECT_TRUE(early[0].reject);
  m.Step(first);
  m.Step(second);
  EXPECT_EQ(m->commit(), Index(3));
  // A late repetition of the first must not cut what follows it.
  const auto late = m.Step(first);
  ASSERT_EQ(late.size(), 1u);
  EXPECT_FALSE(late[0].reject);
  EXPECT_EQ(m->log().last(), Index(4));
  EXPECT_EQ(m.disk().last(), Index(4));
  EXPECT_EQ(m->commit(), Index(3));
}

TEST(Replication, ACommittedEntryIsNeverReplaced) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1}));
  m.Step(HeartbeatFrom(2, 1, 1, 2));
  m.Step(AppendFrom(3, 2, 0, 0, EntriesOf(1, {2, 2, 2})));
  EXPECT_EQ(m->log().TermAt(Index(1)), Term(1));
  EXPECT_EQ(m->log().TermAt(Index(2)), Term(1));
  EXPECT_EQ(m->commit(), Index(2));
}

// ---------------------------------------------------------------- conflict hints

TEST(Hints, OneProbeForEachTermIsEnough) {
  struct Case {
    std::vector<uint64_t> leader, follower;
  };
  for (const Case& c :
       std::vector<Case>{{{1, 2, 2, 4, 4, 4, 4}, {1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3}},
                         {{1, 2, 2, 3, 4, 4, 4, 5}, {1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3}},
                         {{1, 1, 1, 1, 5}, {1, 1, 1, 1, 4, 4, 4, 4, 4}},
                         {{1, 3, 3, 3, 3, 3}, {1, 2, 2, 2, 2}},
                         {{1, 1, 1, 3, 4}, {1, 3, 3, 4, 4}},
                         {{1, 1, 1, 4, 5}, {1, 3, 3, 4, 4}},
                         {{1, 3, 3, 3, 3}, {1, 2}},
                         {{6, 6, 6}, {1, 2, 3, 4, 5}}}) {
    SCOPED_TRACE(testing::PrintToString(c.leader) + testing::PrintToString(c.follower));
    const Membership two = MembersOf(3);
    Group group({Past(two, 6, 0, 0, c.leader), Past(two, 6, 0, 0, c.follower), Past(two, 6)});
    group.Cut(1, 2);
    ASSERT_TRUE(group.Elect(1));
    group.Heal();
    group.sent.clear();
    group.Tick(3);
    int refusals = 0;
    for (const Message& m : group.sent) refusals += m.reject ? 1 : 0;
    std::set<uint64_t> terms(c.follower.begin(), c.follower.end());
    EXPECT_LE(refusals, static_cast<int>(terms.size()));
    EXPECT_EQ(group[2]->log().last(), group[1]->log().last());
    EXPECT_EQ(group[2]->log().last_term(), Term(7));
    EXPECT_EQ(group[2]->commit(), group[1]->commit());
  }
}

// ---------------------------------------------------------------- progress and flow control

TEST(Progress, ALeaderProbesThenReplicates) {
  Member m = LeaderOf(3);
  const auto& p = m->progress().at(NodeId(2));
  EXPECT_EQ(p.state, ProgressState::kProbe);
  EXPECT_TRUE(To(2, m.Propose("x")).empty());  // one probe is out
  const auto out = To(2, m.Step(AckFrom(2, 1, 1)));
  EXPECT_EQ(p.state, ProgressState::kReplicate);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].prev_index, Index(1));
  EXPECT_EQ(out[0].entries.size(), 1u);
  EXPECT_EQ(p.next_index, Index(3));  // optimistic
  EXPECT_EQ(p.match_index, Index(1));
}

TEST(Progress, AProbeIsRepeatedAfterAHeartbeatReply) {
  Member m = LeaderOf(3);
  EXPECT_TRUE(To(2, m.Tick()).empty());
  // The round that left with the probe is answered first: the probe's own answer is on its way.
  EXPECT_TRUE(To(2, m.Step(RoundReplyFrom(2, 1, 1))).empty());
  const auto out = To(2, m.Step(RoundReplyFrom(2, 1, 2)));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].prev_index, Index(0));
}

TEST(Progress, ALogThatIsCutBehindWhatWasSentIsProbedAnew) {
  CoreOptions options = StoryOptions(1);
  options.max_inflight_messages = 1;
  options.max_append_bytes = 1;
  Member m(options, Past());
  m.Lead();
  m.Step(AckFrom(2, 1, 1));
  m.Step(AckFrom(3, 1, 1));
  for (int i = 0; i < 4; ++i) {
    m.Propose("x");
    m.Step(AckFrom(2, 1, 2 + static_cast<uint64_t>(i)));
  }
  // Member 3 was sent entry 2, never answered, and its window is full; the log is cut behind it.
  ASSERT_EQ(m->progress().at(NodeId(3)).next_index, Index(3));
  m->CompactTo(Index(4));
  m.Tick(2);
  EXPECT_EQ(OfType(m.Tick(), MessageType::kAppend).size(), 0u);
  EXPECT_EQ(m.snapshots_wanted, std::vector<NodeId>{NodeId(3)});
}

TEST(Progress, ARefusalOfAnOptimisticAppendLeadsBackToProbing) {
  Member m = Established(3);
  m.Propose("x");
  m.Propose("y");
  const auto& p = m->progress().at(NodeId(2));
  EXPECT_EQ(p.next_index, Index(4));
  const auto out = To(2, m.Step(RejectFrom(2, 1, 2, 1, 1)));
  EXPECT_EQ(p.state, ProgressState::kProbe);
  EXPECT_EQ(p.next_index, Index(2));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].prev_index, Index(1));
}

TEST(Progress, AStaleRefusalChangesNothing) {
  Member m = Established(3);
  m.Propose("x");
  m.Step(AckFrom(2, 1, 2));
  const auto& p = m->progress().at(NodeId(2));
  m.Step(RejectFrom(2, 1, 1, 0, 0));  // of before: we know that 2 matches
  EXPECT_EQ(p.state, ProgressState::kReplicate);
  EXPECT_EQ(p.match_index, Index(2));
  EXPECT_EQ(p.next_index, Index(3));
}

TEST(Progress, AnUnreachablePeerIsProbed) {
  Member m = Established(3);
  m.Propose("x");
  m->OnPeerUnreachable(NodeId(2));
  const auto& p = m->progress().at(NodeId(2));
  EXPECT_EQ(p.state, ProgressState::kProbe);
  EXPECT_EQ(p.next_index, Index(2));
  EXPECT_EQ(p.match_index, Index(1));
  // One probe, and no more until it is answered.
  EXPECT_EQ(To(2, m.Run()).size(), 1u);
  EXPECT_TRUE(To(2, m.Propose("y")).empty());
  // A caught-up peer returns with any answer.
  m.Step(AckFrom(2, 1, 3));
  EXPECT_EQ(p.state, ProgressState::kReplicate);
}

TEST(FlowControl, TheWindowInMessagesFillsAndMoves) {
  Member m = Established(3, [](CoreOptions& o) { o.max_inflight_messages = 3; });
  size_t sent = 0;
  for (int i = 0; i < 6; ++i) sent += To(2, m.Propose("x")).size();
  EXPECT_EQ(sent, 3u);
  const auto& p = m->progress().at(NodeId(2));
  EXPECT_EQ(p.inflight.size(), 3u);
  // One place free: all that waited goes in one message (natural batching).
  const auto out = To(2, m.Step(AckFrom(2, 1, 2)));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].entries.size(), 3u);
  EXPECT_EQ(out[0].prev_index, Index(4));
  // An old acknowledgement frees nothing twice.
  m.Propose("y");
  EXPECT_TRUE(To(2, m.Step(AckFrom(2, 1, 2))).empty());
  EXPECT_EQ(p.inflight.size(), 3u);
  m.Step(AckFrom(2, 1, 7));
  EXPECT_EQ(p.match_index, Index(7));
}

TEST(FlowControl, TheWindowInBytesFills) {
  Member m = Established(3, [](CoreOptions& o) { o.max_inflight_bytes = 3000; });
  size_t sent = 0;
  for (int i = 0; i < 6; ++i) sent += To(2, m.Propose(std::string(1000, 'x'))).size();
  EXPECT_EQ(sent, 3u);
  EXPECT_EQ(To(2, m.Step(AckFrom(2, 1, 4))).size(), 1u);
}

TEST(FlowControl, OneMessageHoldsSoManyBytesButAtLeastOneEntry) {
  Member m = Established(3, [](CoreOptions& o) { o.max_append_bytes = 400; });
  m->Propose(1, {std::string(100, 'a'), std::string(100, 'b'), std::string(1000, 'c'), "d"});
  const auto out = To(2, m.Run());
  ASSERT_EQ(out.size(), 3u);
  EXPECT_EQ(out[0].entries.size(), 2u);
  EXPECT_EQ(out[1].entries.size(), 1u);
  EXPECT_EQ(out[1].entries[0]->payload.size(), 1000u);
  EXPECT_EQ(out[2].prev_index, Index(4));
}

TEST(FlowControl, LostAppendsAreMadeUp) {
  Group group(std::vector<Past>(3, Past(MembersOf(3))),
              [](CoreOptions& o) { o.max_inflight_messages = 2; });
  ASSERT_TRUE(group.Elect(1));
  group.lets_through = [](const Message& m) {
    return m.to != NodeId(3) || m.type != MessageType::kAppend;
  };
  for (int i = 0; i < 5; ++i) group.Propose(1, "x");
  EXPECT_EQ(group[3]->log().last(), Index(1));
  group.lets_through = nullptr;
  group.Tick(5);
  EXPECT_EQ(group[3]->applied(), Index(6));
}

TEST(FlowControl, ATurnWithManyProposalsMakesOneMessageForEachPeer) {
  Member m = Established(3);
  for (int i = 0; i < 100; ++i) m->Propose(1, {"x"});
  const auto out = OfType(m.Run(), MessageType::kAppend);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].entries.size(), 100u);
}

// ---------------------------------------------------------------- proposals

TEST(Proposals, WithoutALeaderAreRefusedAtOnce) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  EXPECT_EQ(m->Propose(1, {"x"}), ProposeOutcome::kNoLeader);
  m->Campaign();
  EXPECT_EQ(m->Propose(2, {"x"}), ProposeOutcome::kNoLeader);
  EXPECT_EQ(m->log().last(), Index(0));
}

TEST(Proposals, AtAFollowerGoToTheLeader) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  EXPECT_EQ(group[2]->Propose(7, {"x", "y"}), ProposeOutcome::kForwarded);
  group.Settle();
  EXPECT_EQ(group[3].applied.back()->payload, "y");
  EXPECT_TRUE(group[2].refused.empty());
}

TEST(Proposals, ThatReachNoLeaderAreRefusedNotPassedOn) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(3, 1));  // 3 leads
  Message propose;
  propose.type = MessageType::kPropose;
  propose.from = NodeId(2);
  propose.term = Term(1);
  propose.propose_id = 7;
  propose.payloads = {"x"};
  const auto out = m.Step(propose);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].type, MessageType::kProposeReply);
  EXPECT_EQ(out[0].to, NodeId(2));
  EXPECT_TRUE(out[0].reject);
  EXPECT_EQ(out[0].propose_id, 7u);

  Member asker(StoryOptions(2), Past(MembersOf(3)));
  asker.Step(HeartbeatFrom(1, 1));
  asker->Propose(7, {"x"});
  asker.Run();
  asker.Step(out[0]);
  EXPECT_EQ(asker.refused, std::vector<uint64_t>{7});
}

TEST(Proposals, AreAppendedOrRefusedNeverBoth) {
  Member m = Established(3, [](CoreOptions& o) { o.max_uncommitted_bytes = 3000; });
  Message propose;
  propose.type = MessageType::kPropose;
  propose.from = NodeId(2);
  propose.term = Term(1);
  size_t refused = 0;
  for (uint64_t id = 1; id <= 20; ++id) {
    propose.propose_id = id;
    propose.payloads = {std::string(200, 'x')};
    const Index before = m->log().last();
    const auto replies = OfType(m.Step(propose), MessageType::kProposeReply);
    EXPECT_EQ(replies.size(), m->log().last() == before ? 1u : 0u);
    refused += replies.size();
  }
  EXPECT_GT(refused, 0u);
  EXPECT_LT(refused, 15u);
}

TEST(Proposals, BeyondTheUncommittedLimitAreRefused) {
  Member m = Established(3, [](CoreOptions& o) { o.max_uncommitted_bytes = 1000; });
  int appended = 0;
  while (m->Propose(1, {std::string(200, 'x')}) == ProposeOutcome::kAppended) ++appended;
  EXPECT_GE(appended, 3);
  EXPECT_LE(appended, 5);
  EXPECT_EQ(m->Propose(1, {"small"}), ProposeOutcome::kFull);
  m.Run();
  m.Step(AckFrom(2, 1, m->log().last().value));
  EXPECT_EQ(m->Propose(1, {std::string(200, 'x')}), ProposeOutcome::kAppended);
}

TEST(Proposals, OneLargeProposalFitsIntoAnEmptyLimit) {
  Member m = Established(3, [](CoreOptions& o) { o.max_uncommitted_bytes = 10; });
  EXPECT_EQ(m->Propose(1, {std::string(1000, 'x')}), ProposeOutcome::kAppended);
}

TEST(Proposals, AnEmptyListIsNoEntry) {
  Member m = Established(3);
  m->Propose(1, {});
  Message propose;
  propose.type = MessageType::kPropose;
  propose.from = NodeId(2);
  propose.term = Term(1);
  m.Step(propose);
  EXPECT_EQ(m->log().last(), Index(1));
}

// A partitioned leader's log does not grow without limit.
TEST(Proposals, AreBoundedUnderAPartition) {
  Group group(std::vector<Past>(3, Past(MembersOf(3))),
              [](CoreOptions& o) { o.max_uncommitted_bytes = 2000; });
  ASSERT_TRUE(group.Elect(1));
  group.Isolate(1);
  for (int i = 0; i < 100; ++i) group.Propose(1, std::string(100, 'x'));
  EXPECT_LT(group[1]->log().last(), Index(20));
  group.Heal();
  group.Tick(2);
  group.Propose(1, "after");
  EXPECT_EQ(group[2].applied.back()->payload, "after");
}

// ---------------------------------------------------------------- asynchronous storage

// C2.
TEST(AsyncStorage, ALeaderSendsBesideItsWriteAndCountsItselfAfterIt) {
  Member m = Established(3);
  m.hold_disk = true;
  EXPECT_EQ(OfType(m.Propose("x"), MessageType::kAppend).size(), 2u);
  m.Step(AckFrom(2, 1, 2));
  EXPECT_EQ(m->commit(), Index(1));  // one of three
  m.FinishWrites();
  EXPECT_EQ(m->commit(), Index(2));
}

// C2, C4: the others may commit it first; applying still waits for our disk.
TEST(AsyncStorage, NothingIsAppliedBeforeItIsDurableHere) {
  Member m = Established(3);
  m.hold_disk = true;
  m.applied.clear();
  m.Propose("x");
  m.Step(AckFrom(2, 1, 2));
  m.Step(AckFrom(3, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_TRUE(m.applied.empty());
  m.FinishWrites();
  ASSERT_EQ(m.applied.size(), 1u);

  Member follower(StoryOptions(1), Past(MembersOf(3)));
  follower.hold_disk = true;
  follower.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1, 1}), 2));
  EXPECT_EQ(follower->commit(), Index(2));
  EXPECT_TRUE(follower.applied.empty());
  follower.FinishWrites(5);
  EXPECT_EQ(follower.applied.size(), 2u);
}

// C1.
TEST(AsyncStorage, AnAcknowledgementWaitsForTheDisk) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.hold_disk = true;
  EXPECT_TRUE(m.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1}))).empty());
  // The same again while it is on its way: still no answer.
  EXPECT_TRUE(m.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1}))).empty());
  EXPECT_TRUE(m.Step(AppendFrom(2, 1, 1, 1)).empty());
  const auto out = m.FinishWrites(5);
  ASSERT_EQ(out.size(), 3u);
  for (const Message& ack : out) {
    EXPECT_FALSE(ack.reject);
    EXPECT_EQ(ack.match_index, Index(1));
  }
}

TEST(AsyncStorage, WritesArePipelined) {
  Member m = Established(3);
  m.hold_disk = true;
  for (int i = 0; i < 3; ++i) m.Propose("x");
  ASSERT_EQ(m.batches.size(), 3u);
  EXPECT_LT(m.batches[0].seq, m.batches[1].seq);
  EXPECT_LT(m.batches[1].seq, m.batches[2].seq);
  EXPECT_EQ(m.batches[2].log.entries.front()->index, Index(4));
  m.Step(AckFrom(2, 1, 4));
  // One word about the last batch covers those before it.
  for (AppendBatch& batch : m.batches) EXPECT_EQ(m.disk().Write(batch.log), "");
  m->OnDurable(m.batches[2].seq);
  EXPECT_EQ(m->durable(), Index(4));
  EXPECT_EQ(m->commit(), Index(4));
}

// C3: the ABA race. (2, term 1) is on its way to the disk, gets overwritten by term 2, and comes
// back in term 3; "done" for the first write must not count for what stands there now.
TEST(AsyncStorage, AWriteThatWasOverwrittenNeverCounts) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.hold_disk = true;
  m.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1, 1})));     // batch 0
  m.Step(AppendFrom(3, 2, 1, 1, EntriesOf(2, {2})));        // batch 1 replaces entry 2
  m.Step(AppendFrom(2, 3, 1, 1, EntriesOf(2, {3, 3}), 3));  // batch 2 replaces it again
  ASSERT_EQ(m.batches.size(), 3u);
  m.FinishWrites();
  EXPECT_EQ(m->durable(), Index(1));
  for (const EntryRef& entry : m.applied) EXPECT_LE(entry->index, Index(1));
  m.FinishWrites();
  EXPECT_EQ(m->durable(), Index(1));
  m.FinishWrites();
  EXPECT_EQ(m->durable(), Index(3));
  EXPECT_EQ(m.applied.back()->index, Index(3));
  EXPECT_EQ(m.applied.back()->term, Term(3));
}

// An acknowledgement of an older term, released late, does not count for its former leader.
TEST(AsyncStorage, LateAcksNameTheTermInWhichTheyWereEarned) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.hold_disk = true;
  m.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1, 1})));
  m.Step(AppendFrom(3, 2, 0, 0, EntriesOf(1, {2})));
  const auto out = OfType(m.FinishWrites(5), MessageType::kAppendReply);
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].to, NodeId(2));
  EXPECT_EQ(out[0].term, Term(1));
  EXPECT_EQ(out[1].to, NodeId(3));
  EXPECT_EQ(out[1].term, Term(2));
  EXPECT_EQ(out[1].match_index, Index(1));
}

TEST(AsyncStorage, ALeadersSelfCountIsVoidAfterItsTerm) {
  Member m = Established(3);
  m.hold_disk = true;
  m.Propose("x");
  m.Step(AppendFrom(2, 2, 1, 1, EntriesOf(2, {2})));
  m.FinishWrites(5);
  EXPECT_EQ(m->commit(), Index(1));
  EXPECT_EQ(m->log().TermAt(Index(2)), Term(2));
}

// ---------------------------------------------------------------- apply

TEST(Apply, IsHandedOutInPiecesOfALimit) {
  CoreOptions options = StoryOptions(1);
  options.max_apply_bytes = 2 * MakeEntry(1, 1)->bytes();
  Member m(options, Past(MembersOf(3)));
  m.hold_apply = true;
  m.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1, 1, 1, 1, 1}), 5));
  EXPECT_EQ(m.applied.size(), 2u);
  m.FinishApply();
  EXPECT_EQ(m.applied.size(), 4u);
  m.FinishApply();
  EXPECT_EQ(m.applied.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(m.applied[i]->index, Index(i + 1));
}

TEST(Apply, AnEntryLargerThanTheLimitIsStillApplied) {
  CoreOptions options = StoryOptions(1);
  options.max_apply_bytes = 1;
  Member m(options, Past(MembersOf(3)));
  m.Step(AppendFrom(2, 1, 0, 0, EntriesOf(1, {1, 1, 1}), 3));
  EXPECT_EQ(m->applied(), Index(3));
}

// The bug that loses a write: paging after a restart must not skip an entry.
TEST(Apply, PagingAfterARestartSkipsNothing) {
  for (const uint64_t applied : {0, 1, 3, 5}) {
    CoreOptions options = StoryOptions(1);
    options.max_apply_bytes = 2 * MakeEntry(1, 1)->bytes();
    options.cached_entry_bytes = 0;
    Member m(options, Past(MembersOf(3), 1, 0, 5, {1, 1, 1, 1, 1}));
    m.Restart(applied);
    m.Run();
    ASSERT_EQ(m.applied.size(), 5 - applied);
    for (size_t i = 0; i < m.applied.size(); ++i) {
      EXPECT_EQ(m.applied[i]->index, Index(applied + i + 1));
    }
    EXPECT_EQ(m->applied(), Index(5));
  }
}

TEST(Apply, ARestartedMemberKnowsItsCommitHintAndNoMore) {
  Member m(StoryOptions(1), Past(MembersOf(3), 2, 3, 3, {1, 1, 2, 2}));
  EXPECT_EQ(m->commit(), Index(3));
  EXPECT_EQ(m->term(), Term(2));
  EXPECT_EQ(m->vote(), NodeId(3));
  EXPECT_EQ(m->durable(), Index(4));
  m.Run();
  EXPECT_EQ(m->applied(), Index(3));
}

TEST(Apply, TheCommitHintIsWrittenByTheNextHeartbeatTick) {
  Member m = Established(1);
  m.Propose("x");
  m.Tick(2);
  EXPECT_EQ(m.disk().hard_state().commit, Index(2));
  // Nothing new: no write at all.
  m.hold_disk = true;
  m.Tick(5);
  EXPECT_TRUE(m.batches.empty());
}

// ---------------------------------------------------------------- fetching evicted entries

TEST(Fetch, EntriesThatAreNoLongerCachedComeFromTheDisk) {
  Member m = Established(3, [](CoreOptions& o) { o.cached_entry_bytes = 0; });
  m->OnPeerUnreachable(NodeId(3));
  for (int i = 0; i < 5; ++i) {
    m.Propose("x");
    m.Step(AckFrom(2, 1, m->log().last().value));
  }
  ASSERT_EQ(m->applied(), Index(6));
  m.fetches.clear();
  const auto out = To(3, m.Step(RejectFrom(3, 1, 1, 1, 1)));
  const auto more = To(3, m.Step(AckFrom(3, 1, 1)));
  EXPECT_FALSE(m.fetches.empty());
  size_t entries = 0;
  for (const auto& messages : {out, more}) {
    for (const Message& append : messages) entries += append.entries.size();
  }
  EXPECT_GE(entries, 5u);
}

TEST(Fetch, AnAnswerForAFormerTermIsIgnored) {
  CoreOptions options = StoryOptions(1);
  options.cached_entry_bytes = 0;
  Member m(options, Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.Lead();
  m.hold_fetch = true;
  m.Step(RejectFrom(2, 2, 3, 0, 0));
  ASSERT_EQ(m.fetches.size(), 1u);
  const FetchRequest fetch = m.fetches[0];
  EXPECT_EQ(fetch.first, Index(1));
  const auto entries = m.disk().Read(fetch.first, fetch.last, fetch.max_bytes);
  m.Step(AppendFrom(3, 5, 0, 0, EntriesOf(1, {5})));
  m->OnFetched(fetch.id, entries);
  EXPECT_TRUE(OfType(m.Run(), MessageType::kAppend).empty());
  m->OnFetched(999, entries);  // nobody asked
  EXPECT_TRUE(m.Run().empty());
}

// It leads again, and waits for a fetch of its own: the old answer holds entries that were
// overwritten meanwhile and must not go out under the new term.
TEST(Fetch, AnAnswerForAFormerReignIsIgnoredInTheNext) {
  CoreOptions options = StoryOptions(1);
  options.cached_entry_bytes = 0;
  Member m(options, Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.Lead();
  m.hold_fetch = true;
  m.Step(RejectFrom(2, 2, 3, 0, 0));
  ASSERT_EQ(m.fetches.size(), 1u);
  const FetchRequest old_fetch = m.fetches[0];
  const auto old_entries = m.disk().Read(old_fetch.first, old_fetch.last, old_fetch.max_bytes);
  ASSERT_EQ(old_entries.size(), 4u);  // its own of term 2 among them
  m.Step(AppendFrom(3, 5, 1, 1, EntriesOf(2, {5})));
  m.Lead();
  m.Step(RejectFrom(2, 6, 2, 0, 0));
  ASSERT_EQ(m.fetches.size(), 2u);
  m->OnFetched(old_fetch.id, old_entries);
  EXPECT_TRUE(OfType(m.Run(), MessageType::kAppend).empty());
  const FetchRequest fetch = m.fetches[1];
  m->OnFetched(fetch.id, m.disk().Read(fetch.first, fetch.last, fetch.max_bytes));
  const auto out = OfType(m.Run(), MessageType::kAppend);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].entries[1]->term, Term(5));
}

}  // namespace
}  // namespace holdfast::raft::test
