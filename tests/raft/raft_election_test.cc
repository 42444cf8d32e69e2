// Elections beyond the paper: pre-vote (thesis 9.6), check-quorum (6.2), stickiness (4.2.3), late
// and repeated messages, learners.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "member.h"

namespace holdfast::raft::test {
namespace {

Member Fresh(size_t voters = 3, size_t learners = 0) {
  return Member(StoryOptions(1), Past(MembersOf(voters, learners)));
}

Member Candidate(size_t voters = 3) {
  Member m = Fresh(voters);
  m->Campaign();
  m.Run();
  for (uint64_t peer = 2; m->role() != Role::kCandidate; ++peer) {
    m.Step(VoteReplyFrom(peer, 1, false, true));
  }
  return m;
}

std::vector<Past> Logs(const std::vector<std::vector<uint64_t>>& logs) {
  std::vector<Past> out;
  uint64_t term = 0;  // whoever led the newest term had a majority's vote
  for (const auto& log : logs) term = std::max(term, log.back());
  for (const auto& log : logs) out.push_back(Past(MembersOf(logs.size()), term, 0, 0, log));
  return out;
}

// ---------------------------------------------------------------- whole elections

TEST(Election, ASingleMemberElectsItselfAndCommits) {
  Member m = Fresh(1);
  m.Tick(20);
  EXPECT_EQ(m->role(), Role::kLeader);
  EXPECT_EQ(m->term(), Term(1));
  EXPECT_EQ(m->commit(), Index(1));
  m.Propose("x");
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_EQ(m->applied(), Index(2));
}

TEST(Election, AnElectedLeaderReplicatesAndCommitsItsEmptyEntry) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  for (const uint64_t id : {1, 2, 3}) {
    EXPECT_EQ(group[id]->term(), Term(1));
    EXPECT_EQ(group[id]->leader(), NodeId(1));
    EXPECT_EQ(group[id]->commit(), Index(1));
    ASSERT_EQ(group[id].applied.size(), 1u);
    EXPECT_EQ(group[id].applied[0]->type, EntryType::kEmpty);
  }
}

TEST(Election, EveryMemberCanLeadInTurn) {
  Group group(3);
  uint64_t term = 0;
  for (const uint64_t id : {1, 2, 3, 1}) {
    group.Isolate(group.Leader());
    for (const uint64_t other : {1, 2, 3}) group[other].Tick(20);  // all forget their leader
    group.Heal();
    for (int tries = 0; tries < 3 && group.Leader() != id; ++tries) group.Elect(id);
    ASSERT_EQ(group.Leader(), id);
    EXPECT_GT(group[id]->term(), Term(term));
    term = group[id]->term().value;
    for (const uint64_t other : {1, 2, 3}) EXPECT_EQ(group[other]->leader(), NodeId(id));
  }
}

TEST(Election, DuelingCandidatesEndWithOneLeader) {
  Group group(3);
  group.Cut(1, 3);
  group[1]->Campaign();
  group[3]->Campaign();
  group.Settle();
  // One has 2's vote; the other gives up or stays alone.
  const uint64_t winner = group.Leader();
  ASSERT_TRUE(winner == 1 || winner == 3);
  group.Heal();
  group.Tick(30);
  const uint64_t leader = group.Leader();
  ASSERT_NE(leader, 0u);
  for (const uint64_t id : {1, 2, 3}) EXPECT_EQ(group[id]->leader(), NodeId(leader));
}

TEST(Election, ASplitVoteEndsInALaterElection) {
  Group group(4);
  group.Cut(1, 3), group.Cut(1, 4), group.Cut(2, 3), group.Cut(2, 4);
  group.Tick(40);
  EXPECT_EQ(group.Leader(), 0u);
  group.Heal();
  group.Tick(100);
  EXPECT_NE(group.Leader(), 0u);
}

TEST(Election, TheLeaderOverwritesEntriesThatNeverWereCommitted) {
  // 3 led term 2, 5 led term 3, and neither got an entry to anybody.
  Group group(Logs({{1}, {1}, {1, 2}, {1}, {1, 3}}));
  group.Isolate(5);
  group.Isolate(3);
  for (int tries = 0; tries < 3 && group.Leader() != 1; ++tries) group.Elect(1);
  ASSERT_EQ(group.Leader(), 1u);
  group.Propose(1, "kept");
  group.Heal();
  group.Tick(30);
  for (const uint64_t id : {2, 3, 4, 5}) {
    for (Index i(1); i <= group[1]->commit(); ++i) {
      EXPECT_EQ(group[id]->log().TermAt(i), group[1]->log().TermAt(i));
    }
  }
}

TEST(Election, AMemberWithASmallerTermCompletesTheElection) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.Isolate(3);
  group.Tick(2);
  // The others move on to a later term without 3.
  group[1].Step(RejectFrom(2, 5, 0, 0, 0));
  group[2].Step(VoteFrom(1, 5, 0, 0));
  group[2].Tick(20);
  for (int tries = 0; tries < 3 && group.Leader() != 2; ++tries) group.Elect(2);
  ASSERT_EQ(group.Leader(), 2u);
  group.Heal();
  group.Cut(2, 1);
  group.Tick(3);
  EXPECT_EQ(group[3]->leader(), NodeId(2));
  EXPECT_EQ(group[3]->term(), group[2]->term());
}

// ---------------------------------------------------------------- pre-vote

TEST(PreVote, AskingChangesNobodysTermOrVote) {
  for (const int role : {0, 1, 2}) {
    Member m = role == 2 ? Candidate() : Fresh();
    if (role == 1) m->Campaign(), m.Run();
    const Term term = m->term();
    const NodeId vote = m->vote();
    const auto out = m.Step(VoteFrom(2, 9, 0, 0, /*pre_vote=*/true));
    ASSERT_EQ(out.size(), 1u);
    EXPECT_FALSE(out[0].reject);
    EXPECT_TRUE(out[0].pre_vote);
    EXPECT_EQ(out[0].term, Term(9));  // the term asked for
    EXPECT_EQ(m->term(), term);
    EXPECT_EQ(m->vote(), vote);
  }
}

TEST(PreVote, ARefusalCarriesTheVotersOwnTerm) {
  Member m(StoryOptions(1), Past(MembersOf(3), 4, 0, 0, {1, 4}));
  const auto out = m.Step(VoteFrom(2, 9, 1, 1, /*pre_vote=*/true));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(out[0].reject);
  EXPECT_EQ(out[0].term, Term(4));
}

TEST(PreVote, ALaggingMemberGathersNoneAndRaisesNoTerm) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.Isolate(3);
  group.Propose(1, "x");
  group[3].Tick(100);
  EXPECT_EQ(group[3]->term(), Term(1));
  // Even when the others have no leader any more, a stale log wins nothing.
  group[1].Step(RejectFrom(2, 2, 0, 0, 0));
  group[2].Tick(20);
  group.Heal();
  EXPECT_FALSE(group.Elect(3));
  EXPECT_TRUE(group.Elect(2) || group.Elect(2));
}

TEST(PreVote, AMemberThatComesBackDoesNotDisturbALiveLeader) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.Isolate(3);
  for (int i = 0; i < 100; ++i) {
    group.Tick();
  }
  group.Heal();
  group.Tick(5);
  EXPECT_EQ(group.Leader(), 1u);
  EXPECT_EQ(group[1]->term(), Term(1));
  EXPECT_EQ(group[3]->leader(), NodeId(1));
  EXPECT_EQ(group[3]->role(), Role::kFollower);
}

TEST(PreVote, AnswersToAnEarlierQuestionDoNotCount) {
  Member m(StoryOptions(1), Past(MembersOf(3), 4));
  m->Campaign();
  m.Run();
  m.Step(VoteReplyFrom(2, 4, false, true));  // asked for term 4, long ago
  EXPECT_EQ(m->role(), Role::kPreCandidate);
  m.Step(VoteReplyFrom(2, 4));  // a real vote, but we ask for none
  EXPECT_EQ(m->role(), Role::kPreCandidate);
  EXPECT_EQ(m->term(), Term(4));
}

TEST(PreVote, IsRefusedWhileALeaderIsHeardAndGrantedAfterItsTimeout) {
  for (const bool pre_vote : {true, false}) {
    Member m = Fresh();
    m.Step(HeartbeatFrom(2, 1));
    m.Tick(9);
    EXPECT_TRUE(m.Step(VoteFrom(3, 2, 9, 1, pre_vote)).empty());
    EXPECT_EQ(m->term(), Term(1));
    m.Tick(1);
    const auto out = OfType(m.Step(VoteFrom(3, 2, 9, 1, pre_vote)), MessageType::kVoteReply);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_FALSE(out[0].reject);
  }
}

TEST(PreVote, AForcedRequestIsAnsweredAlthoughALeaderIsHeard) {
  Member m = Fresh();
  m.Step(HeartbeatFrom(2, 1));
  Message vote = VoteFrom(3, 2, 9, 1);
  vote.forced = true;
  const auto out = m.Step(vote);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_FALSE(out[0].reject);
  EXPECT_EQ(m->vote(), NodeId(3));
}

TEST(PreVote, AQuorumOfPreCandidatesReplacesALeaderThatOnlyTheyCanNotHear) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  // 1's messages get lost, the others' do not.
  group.lets_through = [](const Message& m) { return m.from != NodeId(1); };
  group.Tick(40);
  const uint64_t leader = group.Leader();
  EXPECT_TRUE(leader == 2 || leader == 3);
}

TEST(PreVote, ABrokenConnectionMakesAFollowerAskEarlyButNotWin) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group[3]->OnPeerUnreachable(NodeId(1));
  EXPECT_EQ(group[3]->leader(), NodeId(0));
  // It asks within the shortened timer; 2 still hears the leader.
  const auto asked = OfType(group[3].Tick(3), MessageType::kVote);
  ASSERT_FALSE(asked.empty());
  for (const Message& vote : asked) EXPECT_TRUE(vote.pre_vote);
  EXPECT_TRUE(group[2].Step(VoteFrom(3, 2, 1, 1, true)).empty());
  group.Tick(2);
  EXPECT_EQ(group.Leader(), 1u);
  EXPECT_EQ(group[3]->leader(), NodeId(1));
  EXPECT_EQ(group[1]->term(), Term(1));
}

TEST(PreVote, ForgettingALeaderNeverHelpsAStaleLog) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1}));
  m.Step(HeartbeatFrom(2, 1));
  m->OnPeerUnreachable(NodeId(2));
  const auto stale = m.Step(VoteFrom(3, 2, 1, 1, true));
  ASSERT_EQ(stale.size(), 1u);
  EXPECT_TRUE(stale[0].reject);
  const auto fresh = m.Step(VoteFrom(3, 2, 2, 1, true));
  ASSERT_EQ(fresh.size(), 1u);
  EXPECT_FALSE(fresh[0].reject);
  // A heartbeat brings the leader back.
  m.Step(HeartbeatFrom(2, 1, 2));
  EXPECT_EQ(m->leader(), NodeId(2));
}

TEST(PreVote, ForgettingIsForFollowersOnly) {
  Member leader = Fresh();
  leader.Lead();
  leader->OnPeerUnreachable(NodeId(2));
  EXPECT_EQ(leader->role(), Role::kLeader);
  Member candidate = Candidate();
  candidate->OnPeerUnreachable(NodeId(2));
  EXPECT_EQ(candidate->role(), Role::kCandidate);
  // Of somebody who is not our leader, it says nothing.
  Member follower = Fresh();
  follower.Step(HeartbeatFrom(2, 1));
  follower->OnPeerUnreachable(NodeId(3));
  EXPECT_EQ(follower->leader(), NodeId(2));
}

TEST(PreVote, CampaigningWhileLeadingDoesNothing) {
  Member m = Fresh();
  m.Lead();
  m->Campaign();
  EXPECT_TRUE(OfType(m.Run(), MessageType::kVote).empty());
  EXPECT_EQ(m->role(), Role::kLeader);
  EXPECT_EQ(m->term(), Term(1));
}

// ---------------------------------------------------------------- votes

TEST(Votes, AreGivenFromEveryRoleForAHigherTerm) {
  for (const int role : {0, 1, 2, 3}) {
    Member m = role == 2 ? Candidate() : Fresh();
    if (role == 1) m->Campaign(), m.Run();
    if (role == 3) m.Lead();
    Message vote = VoteFrom(2, 9, 99, 8);
    vote.forced = true;  // else a leader, or who hears one, does not listen
    const auto out = OfType(m.Step(vote), MessageType::kVoteReply);
    ASSERT_EQ(out.size(), 1u);
    EXPECT_FALSE(out[0].reject);
    EXPECT_EQ(out[0].term, Term(9));
    EXPECT_EQ(m->role(), Role::kFollower);
    EXPECT_EQ(m->term(), Term(9));
    EXPECT_EQ(m->vote(), NodeId(2));
  }
}

TEST(Votes, GoByLogAndByWhomWeVotedFor) {
  struct Case {
    uint64_t last_index, last_term, voted_for;
    bool granted;
  };
  // The voter's log: two entries of term 2.
  for (const Case& c :
       {Case{0, 0, 0, false}, Case{1, 0, 0, false}, Case{3, 0, 0, false}, Case{1, 1, 0, false},
        Case{2, 1, 0, false}, Case{3, 1, 0, false}, Case{1, 2, 0, false}, Case{2, 2, 0, true},
        Case{3, 2, 0, true}, Case{1, 3, 0, true}, Case{2, 3, 0, true}, Case{3, 2, 2, true},
        Case{3, 2, 3, false}, Case{2, 3, 3, false}}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 5, c.voted_for, 0, {2, 2}));
    const auto out = m.Step(VoteFrom(2, 5, c.last_index, c.last_term));
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].reject, !c.granted)
        << c.last_index << " " << c.last_term << " " << c.voted_for;
  }
}

TEST(Votes, ACandidateLearnsFromARefusalThatItsTermIsOld) {
  Member m(StoryOptions(1), Past(MembersOf(3), 7));
  const auto out = m.Step(VoteFrom(2, 3, 9, 9));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(out[0].reject);
  EXPECT_EQ(out[0].term, Term(7));
}

TEST(Votes, ARestartedVoterRemembersWhatItsDiskHas) {
  Member m = Fresh();
  m.Step(VoteFrom(2, 1, 0, 0));
  m.Restart();
  EXPECT_EQ(m->vote(), NodeId(2));
  const auto out = m.Step(VoteFrom(3, 1, 0, 0));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(out[0].reject);
}

// J: the vote leaves only after the disk has it; a crash before that has told nobody.
TEST(Votes, LeaveOnlyAfterTheDiskHasThem) {
  Member m = Fresh();
  m.hold_disk = true;
  EXPECT_TRUE(m.Step(VoteFrom(2, 1, 0, 0)).empty());
  ASSERT_EQ(m.batches.size(), 1u);
  ASSERT_TRUE(m.batches[0].log.hard_state);
  EXPECT_TRUE(m.batches[0].log.must_sync);
  EXPECT_EQ(m.batches[0].log.hard_state->vote, NodeId(2));
  const auto out = m.FinishWrites();
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].type, MessageType::kVoteReply);
  EXPECT_FALSE(out[0].reject);
}

TEST(Votes, ACandidateAsksAndCountsItselfOnlyAfterItsDiskHasTheVote) {
  Member m = Fresh(1);
  m.hold_disk = true;
  m->Campaign();
  m.Run();
  EXPECT_EQ(m->role(), Role::kCandidate);
  m.FinishWrites();
  EXPECT_EQ(m->role(), Role::kLeader);

  Member of3 = Fresh(3);
  of3.hold_disk = true;
  of3->Campaign();
  of3.Run();
  EXPECT_TRUE(of3.Step(VoteReplyFrom(2, 1, false, true)).empty());
  of3.Step(VoteReplyFrom(2, 1));
  EXPECT_EQ(of3->role(), Role::kCandidate);
  EXPECT_EQ(OfType(of3.FinishWrites(), MessageType::kVote).size(), 2u);
  EXPECT_EQ(of3->role(), Role::kLeader);
}

// Our own vote, on its way through the disk, must not count in a later term or role.
TEST(Votes, ALateSelfVoteIsIgnored) {
  Member m = Fresh(3);
  m.hold_disk = true;
  m->Campaign();
  m.Run();
  m.Step(VoteReplyFrom(2, 1, false, true));
  ASSERT_EQ(m->role(), Role::kCandidate);
  m.Step(HeartbeatFrom(3, 2));  // somebody else leads a later term
  m.FinishWrites(5);
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->leader(), NodeId(3));
  EXPECT_EQ(m->term(), Term(2));

  Member again = Fresh(3);
  again.hold_disk = true;
  again->Campaign();
  again.Run();
  again.Step(VoteReplyFrom(2, 1, false, true));
  again.Tick(20);  // the first election came to nothing
  ASSERT_EQ(again->role(), Role::kPreCandidate);
  again.FinishWrites(5);
  EXPECT_EQ(again->role(), Role::kPreCandidate);
}

TEST(Votes, LateAnswersAfterALostElectionAreIgnored) {
  Member m = Candidate();
  m.Step(HeartbeatFrom(3, 1));
  m.Step(VoteReplyFrom(2, 1));
  m.Step(VoteReplyFrom(3, 1));
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->leader(), NodeId(3));
}

// ---------------------------------------------------------------- check-quorum

TEST(CheckQuorum, ALeaderWithoutAnswersStepsDownAfterAnElectionTimeout) {
  Member m = Fresh(5);
  m.Lead();
  m.Tick(9);
  EXPECT_EQ(m->role(), Role::kLeader);
  m.Step(RoundReplyFrom(2, 1, 1));  // one of four is no quorum
  m.Tick(11);
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->leader(), NodeId(0));
  EXPECT_EQ(m->term(), Term(1));
}

TEST(CheckQuorum, AnswersOfAQuorumKeepALeader) {
  Member m = Fresh(5);
  m.Lead();
  for (int i = 0; i < 5; ++i) {
    m.Step(RoundReplyFrom(2, 1, 1));
    m.Step(AckFrom(3, 1, 1));
    m.Tick(10);
    EXPECT_EQ(m->role(), Role::kLeader);
  }
}

TEST(CheckQuorum, LearnersDoNotKeepALeader) {
  Member m = Fresh(3, 2);
  m.Lead();
  for (int i = 0; i < 25; ++i) {
    m.Step(RoundReplyFrom(4, 1, 1));
    m.Step(RoundReplyFrom(5, 1, 1));
    m.Tick();
  }
  EXPECT_NE(m->role(), Role::kLeader);
}

TEST(CheckQuorum, AnIsolatedLeaderStepsDownAndAnotherTakesOver) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group.Isolate(1);
  group.Tick(45);
  EXPECT_NE(group[1]->role(), Role::kLeader);
  const uint64_t leader = group.Leader();
  EXPECT_TRUE(leader == 2 || leader == 3);
  group.Heal();
  group.Tick(3);
  EXPECT_EQ(group[1]->leader(), NodeId(leader));
}

// A candidate that is stuck at a higher term is freed by the refusal that its leader gets from it.
TEST(CheckQuorum, AStuckCandidateIsFreed) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  group[3].Step(RejectFrom(2, 4, 0, 0, 0));  // only 3 has term 4
  ASSERT_EQ(group[3]->term(), Term(4));
  group.Tick(60);
  const uint64_t leader = group.Leader();
  ASSERT_NE(leader, 0u);
  EXPECT_GT(group[leader]->term(), Term(4));
  for (const uint64_t id : {1, 2, 3}) EXPECT_EQ(group[id]->leader(), NodeId(leader));
}

// Freshness L5.
TEST(CheckQuorum, ALeaderWhoseDiskStandsStillStepsDown) {
  Member m = Fresh();
  m.Lead();
  m.hold_disk = true;
  m.Propose("x");
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(m->role(), Role::kLeader);
    m.Step(RoundReplyFrom(2, 1, 1));
    m.Tick();
  }
  EXPECT_EQ(m->role(), Role::kFollower);
}

TEST(CheckQuorum, ASlowDiskThatGetsOnKeepsItsLeader) {
  Member m = Fresh();
  m.Lead();
  m.hold_disk = true;
  m.Propose("x");
  for (int i = 0; i < 40; ++i) {
    m.Step(RoundReplyFrom(2, 1, 1));
    m.Propose("y");
    m.Tick();
    if (i % 8 == 7) m.FinishWrites();
    EXPECT_EQ(m->role(), Role::kLeader);
  }
}

// ---------------------------------------------------------------- old messages, learners

TEST(OldMessages, OfAFormerLeaderAreIgnored) {
  Group group(3);
  ASSERT_TRUE(group.Elect(1));
  const std::vector<EntryRef> old_entry = {MakeEntry(2, 1)};
  group[1].Step(RejectFrom(2, 2, 0, 0, 0));
  group[3].Tick(20), group[2].Tick(20);
  for (int tries = 0; tries < 3 && group.Leader() != 2; ++tries) group.Elect(2);
  ASSERT_EQ(group.Leader(), 2u);
  group[3].Step(AppendFrom(1, 1, 1, 1, old_entry, 2));
  group.Propose(2, "new");
  EXPECT_EQ(group[3].applied.back()->payload, "new");
  for (const EntryRef& entry : group[3].applied) EXPECT_NE(entry, old_entry[0]);
}

TEST(Learners, NeverCampaign) {
  CoreOptions options = StoryOptions(4);
  Member m(options, Past(MembersOf(3, 1)));
  EXPECT_TRUE(m.Tick(50).empty());
  m->Campaign();
  EXPECT_TRUE(m.Run().empty());
  EXPECT_EQ(m->role(), Role::kFollower);
}

// It may have missed its own promotion; without its answer there might be no leader at all.
TEST(Learners, AnswerAVoteRequest) {
  CoreOptions options = StoryOptions(4);
  Member m(options, Past(MembersOf(3, 1)));
  const auto out = m.Step(VoteFrom(1, 2, 5, 1));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_FALSE(out[0].reject);
}

TEST(Learners, VotesAndAcksOfLearnersDoNotCount) {
  Member m = Fresh(3, 2);
  m->Campaign();
  m.Run();
  m.Step(VoteReplyFrom(4, 1, false, true));
  m.Step(VoteReplyFrom(5, 1, false, true));
  EXPECT_EQ(m->role(), Role::kPreCandidate);
  m.Step(VoteReplyFrom(2, 1, false, true));
  m.Step(VoteReplyFrom(4, 1));
  m.Step(VoteReplyFrom(5, 1));
  EXPECT_EQ(m->role(), Role::kCandidate);
  m.Step(VoteReplyFrom(2, 1));
  ASSERT_EQ(m->role(), Role::kLeader);
  m.Step(AckFrom(4, 1, 1));
  m.Step(AckFrom(5, 1, 1));
  EXPECT_EQ(m->commit(), Index(0));
  m.Step(AckFrom(3, 1, 1));
  EXPECT_EQ(m->commit(), Index(1));
}

TEST(Learners, ReceiveTheLog) {
  std::vector<Past> pasts(4, Past(MembersOf(3, 1)));
  Group group(pasts);
  ASSERT_TRUE(group.Elect(1));
  group.Propose(1, "x");
  EXPECT_EQ(group[4].applied.back()->payload, "x");
}

TEST(Options, AreValidated) {
  const auto broken = [](void (*change)(CoreOptions&)) {
    CoreOptions options = StoryOptions(1);
    change(options);
    return absl::IsInvalidArgument(options.Validate());
  };
  EXPECT_TRUE(StoryOptions(1).Validate().ok());
  EXPECT_TRUE(broken([](CoreOptions& o) { o.id = NodeId(0); }));
  EXPECT_TRUE(broken([](CoreOptions& o) { o.heartbeat_ticks = 0; }));
  EXPECT_TRUE(broken([](CoreOptions& o) { o.election_ticks = o.heartbeat_ticks; }));
  EXPECT_TRUE(broken([](CoreOptions& o) { o.max_append_bytes = 0; }));
  EXPECT_TRUE(broken([](CoreOptions& o) { o.max_inflight_messages = 0; }));
  EXPECT_TRUE(broken([](CoreOptions& o) { o.max_inflight_bytes = 0; }));
  EXPECT_TRUE(broken([](CoreOptions& o) { o.max_apply_bytes = 0; }));
}

}  // namespace
}  // namespace holdfast::raft::test
