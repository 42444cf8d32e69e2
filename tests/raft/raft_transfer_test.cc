// Leadership transfer (thesis 3.10): the target is caught up, told to campaign at once, and heard
// although everybody knows a leader; nothing is proposed meanwhile, and not for long.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "member.h"
#include "replication/member_change.h"

namespace holdfast::raft::test {
namespace {

using absl::StatusCode;

Message TimeoutNowFrom(uint64_t from, uint64_t term) {
  Message m;
  m.type = MessageType::kTimeoutNow;
  m.from = NodeId(from);
  m.term = Term(term);
  return m;
}

// 1 leads; everybody has everything.
struct Led : Group {
  explicit Led(size_t voters = 3, size_t learners = 0)
      : Group(std::vector<Past>(voters + learners, Past(MembersOf(voters, learners)))) {
    CHECK(Elect(1));
    Tick();
  }
  StatusCode Transfer(uint64_t from, uint64_t to) {
    return (*this)[from]->TransferLeadership(NodeId(to)).code();
  }
  void ExpectLeader(uint64_t id, uint64_t term) {
    for (uint64_t each = 1; each <= size(); ++each) {
      EXPECT_EQ((*this)[each]->leader(), NodeId(id)) << each;
      EXPECT_EQ((*this)[each]->term(), Term(term)) << each;
    }
  }
};

Member Leader(size_t voters = 3, size_t learners = 0) {
  Member m(StoryOptions(1), Past(MembersOf(voters, learners)));
  m.Lead();
  for (uint64_t peer = 2; peer <= voters + learners; ++peer) m.Step(AckFrom(peer, 1, 1));
  return m;
}

ProposeOutcome Proposing(Member& m) { return m->Propose(7, {"x"}); }

// ---------------------------------------------------------------- it works

TEST(Transfer, ToAnUpToDateMemberTakesNoTimeAtAll) {
  Led group;
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  group.Settle();  // not one tick
  group.ExpectLeader(2, 2);
  group.Propose(2, "x");
  EXPECT_EQ(group[3].applied.back()->payload, "x");
}

TEST(Transfer, AsksForNoPreVotesAndIsHeardInSpiteOfALiveLeader) {
  Led group;
  group.sent.clear();
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  group.Settle();
  const auto votes = OfType(group.sent, MessageType::kVote);
  ASSERT_EQ(votes.size(), 2u);
  for (const Message& vote : votes) {
    EXPECT_FALSE(vote.pre_vote);
    EXPECT_TRUE(vote.forced);
  }
  // 3 had heard its leader in the same tick: without the word "forced" it would not have answered.
  Message plain = votes.back();
  plain.forced = false;
  plain.term = Term(9);
  EXPECT_TRUE(group[3].Step(plain).empty());
}

TEST(Transfer, ThereAndBack) {
  Led group;
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  group.Settle();
  EXPECT_EQ(group.Transfer(2, 1), StatusCode::kOk);
  group.Settle();
  group.ExpectLeader(1, 3);
}

TEST(Transfer, ASlowMemberIsCaughtUpFirst) {
  Led group;
  group.Cut(1, 3);
  group.Propose(1, "x");
  group.Heal();
  EXPECT_EQ(group.Transfer(1, 3), StatusCode::kOk);
  group.sent.clear();
  group.Tick(3);
  group.ExpectLeader(3, 2);
  EXPECT_EQ(group[3]->log().TermAt(Index(2)), Term(1));
  // It was told only when it had everything.
  const auto first = [&](MessageType type, uint64_t from, uint64_t match) {
    return std::find_if(group.sent.begin(), group.sent.end(), [&](const Message& m) {
      return m.type == type && m.from == NodeId(from) && m.match_index == Index(match);
    });
  };
  EXPECT_LT(first(MessageType::kAppendReply, 3, 2), first(MessageType::kTimeoutNow, 1, 0));
}

TEST(Transfer, ToAMemberThatNeedsASnapshot) {
  Led group;
  group.Cut(1, 3);
  group.Propose(1, "x");
  group.Heal();
  const storage::LogMark mark = group[1]->CompactTo(Index(2));
  CHECK(group[1].disk().Compact(mark).empty());
  EXPECT_EQ(group.Transfer(1, 3), StatusCode::kOk);
  group.Tick(3);
  ASSERT_EQ(group[1].snapshots_wanted, std::vector<NodeId>{NodeId(3)});
  EXPECT_EQ(group.Leader(), 1u);
  Message snapshot;
  snapshot.type = MessageType::kSnapshot;
  snapshot.from = NodeId(1);
  snapshot.to = NodeId(3);
  snapshot.term = Term(1);
  snapshot.prev_index = mark.index;
  snapshot.prev_term = mark.term;
  snapshot.payloads = {mark.membership, "directory"};
  group[3]->Step(snapshot);
  group.Settle();
  group.ExpectLeader(3, 2);
}

TEST(Transfer, TakesAMajorityNotEverybody) {
  Led group(5);
  group.Isolate(4);
  group.Isolate(5);
  group.Propose(1, "x");
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  group.Settle();
  EXPECT_EQ(group.Leader(), 2u);
  group.Heal();
  group.Tick(3);
  group.ExpectLeader(2, 2);
}

TEST(Transfer, InAGroupOfTwo) {
  Led group(2);
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  group.Settle();
  group.ExpectLeader(2, 2);
}

// ---------------------------------------------------------------- to whom it cannot go

TEST(Transfer, ToItselfIsDoneAlready) {
  Led group;
  EXPECT_EQ(group.Transfer(1, 1), StatusCode::kOk);
  group.Settle();
  EXPECT_EQ(group[1]->transferring_to(), NodeId(0));
  group.ExpectLeader(1, 1);
}

TEST(Transfer, ToAStrangerOrALearnerIsRefused) {
  Led group(3, 1);
  EXPECT_EQ(group.Transfer(1, 9), StatusCode::kNotFound);
  EXPECT_EQ(group.Transfer(1, 4), StatusCode::kNotFound);
  EXPECT_EQ(group.Transfer(1, 0), StatusCode::kNotFound);
  EXPECT_EQ(Proposing(group[1]), ProposeOutcome::kAppended);
}

// ...FromFollower: the core of a follower refuses; its driver names the leader to the caller.
TEST(Transfer, IsTheLeadersToStart) {
  Led group;
  EXPECT_EQ(group.Transfer(2, 3), StatusCode::kUnavailable);
  EXPECT_EQ(group.Transfer(2, 2), StatusCode::kUnavailable);
  group.Settle();
  group.ExpectLeader(1, 1);
}

TEST(Transfer, ToASilentMemberIsNotBegun) {
  Led group;
  group.Isolate(3);
  group.Tick(10);
  EXPECT_EQ(group.Transfer(1, 3), StatusCode::kUnavailable);
  EXPECT_EQ(Proposing(group[1]), ProposeOutcome::kAppended);
  group.Heal();
  group.Tick();
  EXPECT_EQ(group.Transfer(1, 3), StatusCode::kOk);
}

// ---------------------------------------------------------------- while it lasts

TEST(Transfer, NothingIsProposedWhileItLasts) {
  Member m = Leader();
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  m.Run();
  const Index last = m->log().last();
  EXPECT_EQ(Proposing(m), ProposeOutcome::kNoLeader);
  // Nor by a follower, who is told so.
  Message forwarded;
  forwarded.type = MessageType::kPropose;
  forwarded.from = NodeId(3);
  forwarded.term = Term(1);
  forwarded.propose_id = 5;
  forwarded.payloads = {"y"};
  const auto answers = OfType(m.Step(forwarded), MessageType::kProposeReply);
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(answers[0].reject);
  EXPECT_EQ(answers[0].propose_id, 5u);
  EXPECT_EQ(m->log().last(), last);
  // Nor a change of members.
  EXPECT_EQ(m->ProposeMembers(MembersOf(3)).status().code(), StatusCode::kUnavailable);
}

TEST(Transfer, ReadsGoOnWhileItLasts) {
  Member m = Leader();
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  m->StartRead(1);
  m.Run();
  m.Step(RoundReplyFrom(3, 1, m.rounds_started.back()));
  ASSERT_EQ(m.reads.size(), 1u);
}

TEST(Transfer, IsGivenUpAfterAnElectionTimeoutAndProposalsResume) {
  Member m = Leader();
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  for (uint32_t tick = 1; tick < StoryOptions(1).election_ticks; ++tick) {
    m.Tick();
    m.Step(RoundReplyFrom(3, 1, m.rounds_started.back()));
    ASSERT_EQ(m->transferring_to(), NodeId(2)) << tick;
    ASSERT_EQ(Proposing(m), ProposeOutcome::kNoLeader) << tick;
  }
  m.Tick();
  EXPECT_EQ(m->role(), Role::kLeader);
  EXPECT_EQ(m->transferring_to(), NodeId(0));
  EXPECT_EQ(Proposing(m), ProposeOutcome::kAppended);
}

TEST(Transfer, TheWordIsRepeatedBecauseItMayBeLost) {
  Led group;
  bool lost = false;
  group.lets_through = [&](const Message& m) {
    if (m.type != MessageType::kTimeoutNow || lost) return true;
    lost = true;
    return false;
  };
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  group.Settle();
  EXPECT_EQ(group.Leader(), 1u);
  group.Tick();
  EXPECT_TRUE(lost);
  group.ExpectLeader(2, 2);
}

TEST(Transfer, ASecondOneToTheSameMemberIsTheSameOneAndNotLonger) {
  Member m = Leader();
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  m.Tick(5);
  EXPECT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  m.Step(RoundReplyFrom(3, 1, m.rounds_started.back()));
  m.Tick(5);
  EXPECT_EQ(m->transferring_to(), NodeId(0));
}

// The field ends the first and begins the second; here the first must end by itself: its target may
// have begun to campaign already.
TEST(Transfer, ASecondOneToSomebodyElseIsRefused) {
  Led group;
  group.Cut(1, 2);
  EXPECT_EQ(group.Transfer(1, 2), StatusCode::kOk);
  EXPECT_EQ(group.Transfer(1, 3), StatusCode::kFailedPrecondition);
  group.Tick(10);
  EXPECT_EQ(group.Transfer(1, 3), StatusCode::kOk);
  group.Settle();
  EXPECT_EQ(group.Leader(), 3u);
}

TEST(Transfer, AHigherTermEndsIt) {
  Member m = Leader();
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  Message vote = VoteFrom(3, 5, 9, 4);
  vote.forced = true;
  m.Step(vote);
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->term(), Term(5));
  EXPECT_EQ(m->vote(), NodeId(3));
  EXPECT_EQ(m->transferring_to(), NodeId(0));
  m.Step(HeartbeatFrom(3, 5));
  EXPECT_EQ(Proposing(m), ProposeOutcome::kForwarded);
}

TEST(Transfer, EndsWhenTheLeaderStepsDown) {
  Member m = Leader();
  m.Tick(5);
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  m.Tick(20);  // nobody answers: check-quorum
  EXPECT_NE(m->role(), Role::kLeader);
  EXPECT_EQ(m->transferring_to(), NodeId(0));
}

// ---------------------------------------------------------------- and membership

// RemoveNode, DemoteNode: no change begins while leadership is handed over, and when one is under
// way only those that stay voters are taken, so a target never leaves in the middle.
TEST(Transfer, GoesToVotersThatStayNotToThoseOnTheirWayOut) {
  for (const bool demote : {false, true}) {
    Led group(3, 1);
    Membership target = group[1]->membership();
    target.voters = {NodeId(1), NodeId(3), NodeId(4)};
    target.learners.clear();
    if (demote) {
      target.learners.insert(NodeId(2));
    } else {
      target.peer_urls.erase(NodeId(2));
      target.removed.push_back(NodeId(2));
    }
    ASSERT_TRUE(group[1]->ProposeMembers(target).ok());
    ASSERT_TRUE(group[1]->membership().joint());
    EXPECT_EQ(group.Transfer(1, 2), StatusCode::kNotFound);  // it is on its way out already
    EXPECT_EQ(group.Transfer(1, 4), StatusCode::kOk);        // and 4 is on its way in
    group.Settle();
    EXPECT_EQ(group.Leader(), 4u);
    EXPECT_FALSE(group[4]->membership().joint());
    EXPECT_EQ(group[4]->membership().voters, target.voters);
  }
}

TEST(Transfer, WaitsUntilAChangeOfMembersIsSettled) {
  Member m = Leader(3, 1);
  Membership target = m->membership();
  target.voters.insert(NodeId(4));
  target.learners.clear();
  ASSERT_TRUE(m->ProposeMembers(target).ok());
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  auto out = m.Run();
  const auto acked = m.Step(AckFrom(2, 1, 2));  // it has everything, but two of four decide nothing
  out.insert(out.end(), acked.begin(), acked.end());
  EXPECT_TRUE(OfType(out, MessageType::kTimeoutNow).empty());
  EXPECT_EQ(OfType(m.Step(AckFrom(3, 1, 2)), MessageType::kTimeoutNow).size(), 1u);
}

TEST(Transfer, LearnersAreNotPromotedWhileItLasts) {
  Member m = Leader(3, 1);
  Membership target = m->membership();
  target.promotions[NodeId(4)] = NodeId(0);
  ASSERT_TRUE(m->ProposeMembers(target).ok());
  m.Run();
  for (const uint64_t peer : {2, 3, 4}) m.Step(AckFrom(peer, 1, 2));
  ASSERT_TRUE(m->membership_settled());
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  for (int i = 0; i < 5; ++i) {
    m.Tick();
    for (const uint64_t peer : {3, 4}) m.Step(RoundReplyFrom(peer, 1, m.rounds_started.back()));
  }
  EXPECT_TRUE(m->KeepsUp(NodeId(4)));
  EXPECT_EQ(m->membership().learners.size(), 1u);
  m.Tick(5);  // given up
  ASSERT_EQ(m->transferring_to(), NodeId(0));
  m.Step(RoundReplyFrom(4, 1, m.rounds_started.back()));
  m.Tick(1);
  EXPECT_TRUE(m->membership().voters.contains(NodeId(4)));
}

// ---------------------------------------------------------------- at the target

TEST(TimeoutNow, MakesAFollowerACandidateAtOnce) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(2, 3));
  const auto out = m.Step(TimeoutNowFrom(2, 3));
  EXPECT_EQ(m->role(), Role::kCandidate);
  EXPECT_EQ(m->term(), Term(4));
  EXPECT_EQ(OfType(out, MessageType::kVote).size(), 2u);
}

TEST(TimeoutNow, TheForcedVoteStillWaitsForTheDisk) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(2, 3));
  m.hold_disk = true;
  EXPECT_TRUE(OfType(m.Step(TimeoutNowFrom(2, 3)), MessageType::kVote).empty());
  EXPECT_EQ(OfType(m.FinishWrites(), MessageType::kVote).size(), 2u);
}

TEST(TimeoutNow, OfSomebodyWhoDoesNotLeadIsIgnored) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(2, 3));
  m.Step(TimeoutNowFrom(3, 3));  // not our leader
  m.Step(TimeoutNowFrom(2, 2));  // of an older term
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->term(), Term(3));
  EXPECT_EQ(m->leader(), NodeId(2));
}

TEST(TimeoutNow, ALaterOneFindsACandidateOrALeader) {
  Member m = Leader();
  m.Step(TimeoutNowFrom(2, 1));
  EXPECT_EQ(m->role(), Role::kLeader);
  Member candidate(StoryOptions(1), Past(MembersOf(3)));
  candidate.Step(HeartbeatFrom(2, 3));
  candidate.Step(TimeoutNowFrom(2, 3));
  candidate.Step(TimeoutNowFrom(2, 3));  // it may be sent more than once
  EXPECT_EQ(candidate->term(), Term(4));
}

// TransferNonMember.
TEST(TimeoutNow, MovesNeitherALearnerNorWhoWasRemoved) {
  Member removed(StoryOptions(4), Past(MembersOf(3)));
  removed.Step(HeartbeatFrom(1, 3));
  EXPECT_TRUE(removed.Step(TimeoutNowFrom(1, 3)).empty());
  EXPECT_EQ(removed->role(), Role::kFollower);
  Member learner(StoryOptions(4), Past(MembersOf(3, 1)));
  learner.Step(HeartbeatFrom(1, 3));
  EXPECT_TRUE(learner.Step(TimeoutNowFrom(1, 3)).empty());
  EXPECT_EQ(learner->term(), Term(3));
}

// A target whose log is not good enough after all wins nothing: force is about stickiness only.
TEST(TimeoutNow, AForcedRequestOfAnOlderLogIsRefused) {
  Member m(StoryOptions(1), Past(MembersOf(3), 2, 0, 0, {1, 2}));
  m.Step(HeartbeatFrom(2, 2));
  Message vote = VoteFrom(3, 3, 5, 1);
  vote.forced = true;
  const auto out = OfType(m.Step(vote), MessageType::kVoteReply);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(out[0].reject);
}

// If the forced election is lost, the target is a candidate like any other, and asks first.
TEST(TimeoutNow, TheNextAttemptAsksForPreVotesAgain) {
  Member m(StoryOptions(1), Past(MembersOf(3)));
  m.Step(HeartbeatFrom(2, 3));
  m.Step(TimeoutNowFrom(2, 3));
  const auto later = OfType(m.Tick(30), MessageType::kVote);
  ASSERT_FALSE(later.empty());
  for (const Message& vote : later) {
    EXPECT_TRUE(vote.pre_vote);
    EXPECT_FALSE(vote.forced);
  }
  EXPECT_EQ(m->term(), Term(4));
}

}  // namespace
}  // namespace holdfast::raft::test
