// Membership changes in the core (thesis 4): one at a time, joint where more than one voter
// changes, counted when appended, left by whoever leads; promotion of learners; the leader that
// leaves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "member.h"
#include "replication/member_change.h"

namespace holdfast::raft::test {
namespace {

using absl::StatusCode;
using Kind = MemberChange::Kind;

Membership After(const Membership& now, Kind kind, uint64_t id, uint64_t replaces = 0) {
  MemberChange change;
  change.kind = kind;
  change.id = NodeId(id);
  change.replaces = NodeId(replaces);
  change.peer_urls = {"http://node" + std::to_string(id)};
  if (kind == Kind::kUpdate) change.peer_urls[0] += ":moved";
  const auto target = TargetOf(now, change);
  CHECK_OK(target.status());
  return *target;
}

Membership WithVoters(Membership m, std::initializer_list<uint64_t> voters) {
  const std::vector<NodeId> before = m.All();
  m.voters.clear();
  for (const uint64_t id : voters) {
    m.voters.insert(NodeId(id));
    m.learners.erase(NodeId(id));
    m.peer_urls[NodeId(id)] = {"http://node" + std::to_string(id)};
  }
  for (const NodeId id : before) {
    if (m.Contains(id)) continue;
    m.peer_urls.erase(id);
    m.removed.push_back(id);
  }
  return m;
}

// A cluster of `voters` and `learners`, led by 1, with spares that are no members yet.
struct Led : Group {
  explicit Led(size_t voters, size_t learners = 0, size_t spares = 0)
      : Group(std::vector<Past>(voters + learners + spares, Past(MembersOf(voters, learners)))) {
    CHECK(Elect(1));
    Tick();
  }
  StatusCode ProposeTo(uint64_t leader, const Membership& target) {
    return (*this)[leader]->ProposeMembers(target).status().code();
  }
  // What the members ask of `leader`, carried through.
  void ChangeTo(uint64_t leader, const Membership& target) {
    ASSERT_EQ(ProposeTo(leader, target), StatusCode::kOk);
    Settle();
    EXPECT_TRUE((*this)[Leader()]->membership_settled());
  }
  const Membership& Of(uint64_t id) { return (*this)[id]->membership(); }
};

// 1 leads `members`; everybody has its first entry, so that all progress replicates.
Member LeaderOf(const Membership& members) {
  Member m(StoryOptions(1), Past(members));
  m.Lead();
  for (const NodeId peer : members.All()) {
    if (peer != NodeId(1)) m.Step(AckFrom(peer.value, 1, m->log().last().value));
  }
  CHECK(m->own_term_committed());
  return m;
}

EntryRef ConfigEntry(uint64_t index, uint64_t term, const Membership& members) {
  auto entry = std::make_shared<Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  entry->type = EntryType::kConfig;
  entry->payload = members.Encode();
  return entry;
}

// ---------------------------------------------------------------- the rules of asking

// RawNodeProposeAndConfChange: each kind of change, and what everybody has in the end.
TEST(Members, EveryKindOfChangeReachesEverybody) {
  struct Case {
    Kind kind;
    uint64_t id;
    std::set<uint64_t> voters, learners;
  };
  for (const Case& c :
       {Case{Kind::kAddLearner, 5, {1, 2, 3}, {4, 5}}, Case{Kind::kRemove, 3, {1, 2}, {4}},
        Case{Kind::kRemove, 4, {1, 2, 3}, {}}, Case{Kind::kPromote, 4, {1, 2, 3, 4}, {}},
        Case{Kind::kDemote, 3, {1, 2}, {3, 4}}, Case{Kind::kUpdate, 2, {1, 2, 3}, {4}}}) {
    Led group(3, 1, 1);
    const Membership target = After(group.Of(1), c.kind, c.id);
    group.ChangeTo(1, target);
    for (const NodeId id : target.All()) EXPECT_EQ(group.Of(id.value), target) << id.value;
    std::set<uint64_t> voters, learners;
    for (const NodeId id : group.Of(1).voters) voters.insert(id.value);
    for (const NodeId id : group.Of(1).learners) learners.insert(id.value);
    EXPECT_EQ(voters, c.voters);
    EXPECT_EQ(learners, c.learners);
    // Whoever is in has the log, and writes go on.
    group.Propose(1, "after");
    for (const NodeId id : target.All()) {
      EXPECT_EQ(group[id.value].applied.back()->payload, "after") << id.value;
    }
  }
}

TEST(Members, AreChangedByTheLeaderOnly) {
  Led group(3);
  EXPECT_EQ(group.ProposeTo(2, MembersOf(2)), StatusCode::kUnavailable);
}

// The correction to thesis 4.1: two leaders that each change one voter before they have committed
// anything could commit with majorities that do not meet.
TEST(Members, NothingIsChangedBeforeAnEntryOfTheOwnTermIsCommitted) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 1, {1}));
  m.Lead();
  EXPECT_EQ(m->ProposeMembers(MembersOf(2)).status().code(), StatusCode::kUnavailable);
  m.Step(AckFrom(2, 2, 1));  // of an older term: no
  EXPECT_EQ(m->ProposeMembers(MembersOf(2)).status().code(), StatusCode::kUnavailable);
  m.Step(AckFrom(2, 2, 2));
  EXPECT_TRUE(m->ProposeMembers(WithVoters(MembersOf(3), {1, 2})).ok());
}

// StepConfig, StepIgnoreConfig: one at a time, and the next when the last is committed.
TEST(Members, OnlyOneChangeIsUnderWay) {
  Member m = LeaderOf(MembersOf(3, 1));
  const auto index = m->ProposeMembers(After(m->membership(), Kind::kRemove, 3));
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(*index, m->log().last());
  EXPECT_FALSE(m->membership_settled());
  m.Run();
  const Membership next = After(m->membership(), Kind::kRemove, 4);
  EXPECT_EQ(m->ProposeMembers(next).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(m->log().last(), *index);
  m.Step(AckFrom(2, 1, index->value));
  EXPECT_TRUE(m->membership_settled());
  EXPECT_TRUE(m->ProposeMembers(next).ok());
}

// NewLeaderPendingConfig: what a former leader left in the log is still under way.
TEST(Members, ANewLeaderWaitsForTheChangeOfTheOldOne) {
  Led group(3, 1);
  group.Cut(1, 3);
  const Membership target = After(group.Of(1), Kind::kRemove, 4);
  ASSERT_TRUE(group[1]->ProposeMembers(target).ok());
  group.lets_through = [](const Message& m) { return m.from == NodeId(1); };  // no ack comes back
  group.Settle();
  group.lets_through = nullptr;
  ASSERT_EQ(group.Of(2), target);
  group.Isolate(1);
  group[2].Tick(30), group[3].Tick(30);
  group.lets_through = [](const Message& m) { return m.type != MessageType::kAppend; };
  ASSERT_TRUE(group.Elect(2) || group.Elect(2));
  EXPECT_EQ(group.ProposeTo(2, MembersOf(3)), StatusCode::kUnavailable);
  EXPECT_FALSE(group[2]->membership_settled());
  group.lets_through = nullptr;
  group.Tick(2);
  EXPECT_TRUE(group[2]->membership_settled());
  EXPECT_EQ(group.Of(3), target);
}

// ---------------------------------------------------------------- counted when appended

TEST(Members, ANewVoterCountsFromTheMomentItIsAppended) {
  Member m = LeaderOf(MembersOf(1));
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(1), {1, 2})).ok());
  m.Run();
  EXPECT_EQ(m->durable(), Index(2));
  EXPECT_EQ(m->commit(), Index(1));  // one of two
  m.Step(AckFrom(2, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
}

// CommitAfterRemoveNode: entries that waited for a quorum commit when the quorum is smaller.
TEST(Members, WhatIsPendingCommitsWhenTheQuorumShrinks) {
  Member m = LeaderOf(MembersOf(2));
  m.Propose("waits");
  ASSERT_EQ(m->commit(), Index(1));
  // 2 is dead. To remove it the entry must be committed without it: it counts at once.
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(2), {1})).ok());
  m.Run();
  EXPECT_EQ(m->commit(), Index(3));
  ASSERT_EQ(m.applied.size(), 3u);
  EXPECT_EQ(m.applied[1]->payload, "waits");
  EXPECT_TRUE(m->progress().empty());
}

TEST(Members, AMemberThatLeftIsNotSentToAndItsAnswersMeanNothing) {
  Member m = LeaderOf(MembersOf(3));
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(3), {1, 2})).ok());
  for (const Message& sent : m.Run()) EXPECT_NE(sent.to, NodeId(3));
  m.Step(AckFrom(3, 1, 2));
  EXPECT_EQ(m->commit(), Index(1));
  m.Step(RoundReplyFrom(3, 1, 1));
  m.Step(AckFrom(2, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
}

// C8: membership is derived from the log.
TEST(Members, AnOverwrittenChangeIsUndone) {
  const Membership before = MembersOf(3, 1);
  Member m(StoryOptions(2), Past(before, 1, 0, 0, {1}));
  m.Step(AppendFrom(1, 1, 1, 1, {ConfigEntry(2, 1, After(before, Kind::kRemove, 3))}));
  EXPECT_FALSE(m->membership().Contains(NodeId(3)));
  EXPECT_EQ(m->MembershipAt(Index(1)), before);
  m.Step(AppendFrom(3, 2, 1, 1, EntriesOf(2, {2})));
  EXPECT_EQ(m->membership(), before);
  m.Restart();
  EXPECT_EQ(m->membership(), before);
}

TEST(Members, ComeBackFromTheLogAndFromTheMark) {
  Led group(3, 1);
  const Membership target = After(group.Of(1), Kind::kRemove, 4);
  group.ChangeTo(1, target);
  group[2].Restart(0);
  EXPECT_EQ(group.Of(2), target);
  EXPECT_TRUE(group[2]->membership_settled() || group[2]->commit() < group[2]->log().last());
  group[2].Run();
  const Index applied = group[2]->applied();
  const storage::LogMark mark = group[2]->CompactTo(applied);
  ASSERT_EQ(group[2].disk().Compact(mark), "");
  group[2].Restart(applied.value);
  EXPECT_EQ(group.Of(2), target);
}

// ConfChangeCheckBeforeCampaign: a configuration counts when appended, so there is none to be
// applied before a campaign. Whoever knows that it is out for good does not ask.
TEST(Members, AMemberThatKnowsItsRemovalDoesNotCampaign) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1}));
  m.Step(AppendFrom(1, 1, 1, 1, {ConfigEntry(2, 1, After(MembersOf(3), Kind::kRemove, 3))}, 2));
  ASSERT_EQ(m->commit(), Index(2));
  m->Campaign();
  EXPECT_TRUE(OfType(m.Tick(60), MessageType::kVote).empty());
  EXPECT_EQ(m->role(), Role::kFollower);
}

// Thesis 4.2.2: while its removal is not committed it may be the only one that has the newest log,
// and must still be electable; it just does not count itself.
TEST(Members, AMemberOutsideAnUncommittedConfigurationCampaignsUncounted) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1}));
  m.Step(AppendFrom(1, 1, 1, 1, {ConfigEntry(2, 1, After(MembersOf(3), Kind::kRemove, 3))}, 1));
  m->Campaign();
  EXPECT_EQ(OfType(m.Run(), MessageType::kVote).size(), 2u);
  m.Step(VoteReplyFrom(1, 2, false, true));
  EXPECT_EQ(m->role(), Role::kPreCandidate);  // itself and 1: one of {1, 2}
  m.Step(VoteReplyFrom(2, 2, false, true));
  EXPECT_EQ(m->role(), Role::kCandidate);
}

// The same as a story: without that, neither of two could ever be elected again.
TEST(Members, ALeaderThatWasAloneWithItsRemovalFinishesIt) {
  Led group(2);
  group.Cut(1, 2);
  ASSERT_EQ(group.ProposeTo(1, WithVoters(group.Of(1), {2})), StatusCode::kOk);
  group.Tick(25);
  ASSERT_EQ(group.Leader(), 0u);  // 1 is alone with the entry, 2 needs its vote
  group.Heal();
  group.Tick(60);
  EXPECT_EQ(group.Leader(), 2u);
  EXPECT_EQ(group.Of(2).voters, std::set<NodeId>{NodeId(2)});
  EXPECT_TRUE(group[2]->membership_settled());
}

// AddNodeCheckQuorum: somebody who has just come in is not held against the leader at once.
TEST(Members, ANewVoterDoesNotMakeTheLeaderStepDown) {
  Member m = LeaderOf(MembersOf(1, 1));
  m.Tick(9);
  m.Step(RoundReplyFrom(2, 1, m.rounds_started.back()));
  ASSERT_TRUE(m->ProposeMembers(After(m->membership(), Kind::kPromote, 2)).ok());
  m.Run();
  m.Tick();  // the check falls right after the change
  EXPECT_EQ(m->role(), Role::kLeader);
  m.Tick(9);
  EXPECT_EQ(m->role(), Role::kLeader);
  m.Tick();  // a whole interval of silence is another matter
  EXPECT_EQ(m->role(), Role::kFollower);
}

// ---------------------------------------------------------------- joint consensus

// Joint from {1, 2, 3} to {1, 4, 5}: entry 2, in the log of all that ack it.
Member JointLeader() {
  Member m = LeaderOf(MembersOf(3, 2));
  CHECK_OK(m->ProposeMembers(WithVoters(m->membership(), {1, 4, 5})).status());
  m.Run();
  CHECK(m->membership().joint());
  return m;
}

TEST(Joint, CommitsByBothMajorities) {
  for (const auto& [acks, commits] : std::vector<std::pair<std::vector<uint64_t>, bool>>{
           {{2}, false}, {{2, 3}, false}, {{4, 5}, false}, {{2, 4}, true}, {{3, 5}, true}}) {
    Member m = JointLeader();
    for (const uint64_t peer : acks) m.Step(AckFrom(peer, 1, 2));
    EXPECT_EQ(m->commit() >= Index(2), commits) << testing::PrintToString(acks);
    EXPECT_EQ(m->membership().joint(), !commits);
  }
}

TEST(Joint, IsElectedByBothMajorities) {
  Membership joint = MembersOf(5);
  joint.voters = {NodeId(1), NodeId(4), NodeId(5)};
  joint.voters_outgoing = {NodeId(1), NodeId(2), NodeId(3)};
  for (const auto& [votes, wins] : std::vector<std::pair<std::vector<uint64_t>, bool>>{
           {{2, 3}, false}, {{4, 5}, false}, {{2, 4}, true}, {{3, 5}, true}}) {
    Member m(StoryOptions(1), Past(joint));
    m->Campaign();
    EXPECT_EQ(m.Run().size(), 4u);  // it asks both halves
    for (const uint64_t peer : votes) m.Step(VoteReplyFrom(peer, 1, false, true));
    EXPECT_EQ(m->role() == Role::kCandidate, wins) << testing::PrintToString(votes);
    if (!wins) continue;
    for (const uint64_t peer : votes) m.Step(VoteReplyFrom(peer, 1));
    EXPECT_EQ(m->role(), Role::kLeader);
  }
}

TEST(Joint, ReadsAndCheckQuorumNeedBothMajorities) {
  for (const auto& [answers, enough] : std::vector<std::pair<std::vector<uint64_t>, bool>>{
           {{2, 3}, false}, {{4, 5}, false}, {{2, 4}, true}}) {
    Member m = JointLeader();
    m.Tick(9);
    for (const uint64_t peer : {2, 3, 4, 5}) m.Step(RoundReplyFrom(peer, 1, 1));
    m.Tick();  // the first interval is over
    m->StartRead(1);
    m.Run();
    for (const uint64_t peer : answers) m.Step(RoundReplyFrom(peer, 1, m.rounds_started.back()));
    EXPECT_EQ(m.reads.size(), enough ? 1u : 0u) << testing::PrintToString(answers);
    m.Tick(10);
    EXPECT_EQ(m->role() == Role::kLeader, enough) << testing::PrintToString(answers);
  }
}

// joint_safety, and "second change refused while joint".
TEST(Joint, NothingElseIsChangedWhileItLasts) {
  Member m = JointLeader();
  EXPECT_EQ(m->ProposeMembers(MembersOf(3)).status().code(), StatusCode::kFailedPrecondition);
  m.Step(AckFrom(2, 1, 2));
  m.Step(AckFrom(4, 1, 2));
  ASSERT_FALSE(m->membership().joint());  // left, but not committed
  EXPECT_FALSE(m->membership_settled());
  EXPECT_EQ(m->ProposeMembers(MembersOf(3)).status().code(), StatusCode::kFailedPrecondition);
  m.Step(AckFrom(4, 1, 3));  // {1, 4, 5} decides alone now
  EXPECT_TRUE(m->membership_settled());
}

// RawNodeJointAutoLeave, joint_autoleave.
TEST(Joint, IsLeftByTheLeaderAsSoonAsItIsCommitted) {
  Led group(3, 2);
  const Membership target = WithVoters(group.Of(1), {1, 4, 5});
  ASSERT_EQ(group.ProposeTo(1, target), StatusCode::kOk);
  group.Settle();  // without a tick
  for (const uint64_t id : {1, 4, 5}) {
    EXPECT_EQ(group.Of(id), target);
    EXPECT_TRUE(group[id]->membership_settled());
  }
  // Once: one entry in, one out.
  size_t changes = 0;
  for (const EntryRef& entry : group[4].applied) changes += entry->type == EntryType::kConfig;
  EXPECT_EQ(changes, 2u);
}

// ... also if leadership is lost in between: whoever comes next leaves it.
TEST(Joint, IsLeftByTheNextLeader) {
  for (const uint64_t next : {2u, 4u}) {
    Led group(3, 2);
    ASSERT_EQ(group.ProposeTo(1, WithVoters(group.Of(1), {1, 4, 5})), StatusCode::kOk);
    group.lets_through = [](const Message& m) { return m.to != NodeId(1); };
    group.Settle();
    group.lets_through = nullptr;
    ASSERT_TRUE(group.Of(next).joint());
    group.Isolate(1);
    for (const uint64_t id : {2, 3, 4, 5}) group[id].Tick(30);
    group.sent.clear();
    group.Elect(next);
    ASSERT_TRUE(std::any_of(group.sent.begin(), group.sent.end(), [&](const Message& m) {
      return m.type == MessageType::kAppend && m.from == NodeId(next);
    })) << next;
    group.Tick(3);
    for (const uint64_t id : {4, 5}) {
      EXPECT_FALSE(group.Of(id).joint()) << next;
      EXPECT_TRUE(group.Of(id).Removed(NodeId(2)));
    }
    // If the next leader was an outgoing voter, it has handed over by now.
    const uint64_t leader = group.Leader();
    EXPECT_TRUE(leader == 4 || leader == 5) << leader;
  }
}

// The next leader must commit something of its own first; until then the joint configuration, which
// is in its log and not known to be committed, stays.
TEST(Joint, IsNotLeftBeforeItIsCommitted) {
  Member m = JointLeader();
  m.Step(AckFrom(4, 1, 2));
  m.Step(AckFrom(5, 1, 2));
  m.Tick(3);
  EXPECT_TRUE(m->membership().joint());
  EXPECT_EQ(m->log().last(), Index(2));
}

// What commits may be an entry before it.
TEST(Joint, IsNotLeftWhenAnOlderEntryCommits) {
  Member m = LeaderOf(MembersOf(3, 2));
  m.Propose("before");
  ASSERT_TRUE(m->ProposeMembers(WithVoters(m->membership(), {1, 4, 5})).ok());
  m.Run();
  m.Step(AckFrom(2, 1, 2));
  m.Step(AckFrom(4, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_TRUE(m->membership().joint());
  m.Step(AckFrom(2, 1, 3));
  m.Step(AckFrom(4, 1, 3));
  EXPECT_FALSE(m->membership().joint());
}

TEST(Joint, SurvivesARestart) {
  Member m = JointLeader();
  m.Restart();
  EXPECT_TRUE(m->membership().joint());
  EXPECT_FALSE(m->membership_settled());
}

// ---------------------------------------------------------------- a leader that leaves

TEST(LeaderLeaves, ItGoesOnUncountedUntilThatIsCommitted) {
  Member m = LeaderOf(MembersOf(3));
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(3), {2, 3})).ok());
  m.Propose("still");
  m.Step(AckFrom(2, 1, 3));
  EXPECT_EQ(m->commit(), Index(1));  // its own disk does not count: one of {2, 3}
  EXPECT_EQ(m->role(), Role::kLeader);
  const auto out = m.Step(AckFrom(3, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_EQ(m->role(), Role::kFollower);
  const auto told = OfType(out, MessageType::kTimeoutNow);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].to, NodeId(2));  // it has more than 3
}

// Both have everything; without the wish it would be 3.
TEST(LeaderLeaves, ToWhomTheOperatorNamed) {
  Member m = LeaderOf(MembersOf(3));
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(3), {2, 3})).ok());
  ASSERT_TRUE(m->TransferLeadership(NodeId(2)).ok());
  m.Run();
  m.Step(AckFrom(2, 1, 2));
  const auto told = OfType(m.Step(AckFrom(3, 1, 2)), MessageType::kTimeoutNow);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].to, NodeId(2));
}

TEST(LeaderLeaves, NotWhenAnOlderEntryCommits) {
  Member m = LeaderOf(MembersOf(3));
  m.Propose("before");
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(3), {2, 3})).ok());
  m.Run();
  m.Step(AckFrom(2, 1, 2));
  m.Step(AckFrom(3, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_EQ(m->role(), Role::kLeader);
}

TEST(LeaderLeaves, SomebodyElseLeadsAtOnce) {
  Led group(3);
  ASSERT_EQ(group.ProposeTo(1, WithVoters(group.Of(1), {2, 3})), StatusCode::kOk);
  group.Settle();  // no tick
  const uint64_t leader = group.Leader();
  EXPECT_TRUE(leader == 2 || leader == 3);
  EXPECT_EQ(group[1]->role(), Role::kFollower);
  group.Propose(leader, "on");
  EXPECT_EQ(group[5 - leader].applied.back()->payload, "on");
  // It never comes back.
  group.Tick(40);
  EXPECT_EQ(group.Leader(), leader);
  EXPECT_EQ(group[leader]->term(), Term(2));
}

TEST(LeaderLeaves, AsALearnerItHandsOverToo) {
  Led group(3);
  ASSERT_EQ(group.ProposeTo(1, After(group.Of(1), Kind::kDemote, 1)), StatusCode::kOk);
  group.Settle();
  const uint64_t leader = group.Leader();
  EXPECT_TRUE(leader == 2 || leader == 3);
  group.Propose(leader, "on");
  EXPECT_EQ(group[1].applied.back()->payload, "on");
  EXPECT_TRUE(group.Of(1).learners.contains(NodeId(1)));
}

TEST(LeaderLeaves, ThroughAJointConfiguration) {
  Led group(3, 1);
  ASSERT_EQ(group.ProposeTo(1, WithVoters(group.Of(1), {2, 3, 4})), StatusCode::kOk);
  group.Settle();
  const uint64_t leader = group.Leader();
  ASSERT_NE(leader, 1u);
  for (const uint64_t id : {2, 3, 4}) {
    EXPECT_FALSE(group.Of(id).joint());
    EXPECT_TRUE(group.Of(id).Removed(NodeId(1)));
    EXPECT_EQ(group[id]->leader(), NodeId(leader));
  }
}

TEST(LeaderLeaves, ItDoesNotAnswerReadsItCanNotConfirm) {
  Member m = LeaderOf(MembersOf(3));
  ASSERT_TRUE(m->ProposeMembers(WithVoters(MembersOf(3), {2, 3})).ok());
  m->StartRead(1);
  m.Run();
  m.Step(RoundReplyFrom(2, 1, m.rounds_started.back()));
  EXPECT_TRUE(m.reads.empty());  // itself and 2: one of {2, 3}
  m.Step(RoundReplyFrom(3, 1, m.rounds_started.back()));
  EXPECT_EQ(m.reads.size(), 1u);
}

// ---------------------------------------------------------------- learners and their promotion

// Ticks, with an answer of `peers` after each.
void TickAnswered(Member& m, uint32_t ticks, std::initializer_list<uint64_t> peers) {
  for (; ticks > 0; --ticks) {
    m.Tick();
    for (const uint64_t peer : peers) {
      m.Step(RoundReplyFrom(peer, 1, m.rounds_started.back()));
      if (m->role() != Role::kLeader) return;
    }
  }
}

TEST(Promotion, FollowsByItselfOnceTheLearnerKeepsUp) {
  Led group(3, 0, 1);
  ASSERT_EQ(group.ProposeTo(1, After(group.Of(1), Kind::kAdd, 4)), StatusCode::kOk);
  group.Settle();
  EXPECT_TRUE(group.Of(4).learners.contains(NodeId(4)));
  group.Tick(3);
  for (const uint64_t id : {1, 2, 3, 4}) {
    EXPECT_EQ(group.Of(id).voters.size(), 4u);
    EXPECT_TRUE(group.Of(id).promotions.empty());
  }
  // LearnerPromotion: it can lead now.
  ASSERT_TRUE(group[1]->TransferLeadership(NodeId(4)).ok());
  group.Settle();
  EXPECT_EQ(group.Leader(), 4u);
}

TEST(Promotion, ALearnerThatStaysOneIsNotPromoted) {
  Led group(3, 0, 1);
  group.ChangeTo(1, After(group.Of(1), Kind::kAddLearner, 4));
  group.Tick(20);
  EXPECT_TRUE(group[1]->KeepsUp(NodeId(4)));
  EXPECT_EQ(group.Of(1).learners.size(), 1u);
}

TEST(Promotion, AReplacementVotesInTheStepInWhichTheOldVoterLeaves) {
  Led group(3, 0, 1);
  group.Isolate(3);
  ASSERT_EQ(group.ProposeTo(1, After(group.Of(1), Kind::kReplace, 4, 3)), StatusCode::kOk);
  group.Settle();
  group.sent.clear();
  group.Tick(3);
  for (const uint64_t id : {1, 2, 4}) {
    EXPECT_EQ(group.Of(id).voters, (std::set<NodeId>{NodeId(1), NodeId(2), NodeId(4)}));
    EXPECT_TRUE(group.Of(id).Removed(NodeId(3)));
  }
  // Never four voters, and never two: every configuration on the way was joint or final.
  for (const Message& m : group.sent) {
    for (const EntryRef& entry : m.entries) {
      if (entry->type != EntryType::kConfig) continue;
      EXPECT_EQ(Membership::Decode(entry->payload)->voters.size(), 3u);
    }
  }
}

TEST(Promotion, SeveralThatAreReadyGoTogether) {
  Led group(3, 0, 2);
  Membership target = After(group.Of(1), Kind::kAdd, 4);
  target = After(target, Kind::kAdd, 5);
  group.ChangeTo(1, target);
  group.Tick(3);
  EXPECT_EQ(group.Of(5).voters.size(), 5u);
  EXPECT_FALSE(group.Of(5).joint());
}

// Thesis 4.2.1: who needs longer than an election timeout for what was written meanwhile would hold
// commits up.
TEST(Promotion, WhoFallsBehindIsNotPromoted) {
  Member m = LeaderOf(MembersOf(3, 1));
  Membership target = m->membership();
  target.promotions[NodeId(4)] = NodeId(0);
  ASSERT_TRUE(m->ProposeMembers(target).ok());
  m.Run();
  m.Step(AckFrom(2, 1, 2)), m.Step(AckFrom(3, 1, 2));
  // It answers, but its log stays where it was.
  for (int i = 0; i < 30; ++i) {
    m.Propose("x");
    m.Step(AckFrom(2, 1, m->log().last().value));
    TickAnswered(m, 1, {2, 3, 4});
    ASSERT_FALSE(m->KeepsUp(NodeId(4)));
  }
  // In one round it gets all of that, late; only the next round counts.
  m.Step(AckFrom(4, 1, m->log().last().value));
  TickAnswered(m, 1, {2, 3, 4});
  EXPECT_FALSE(m->KeepsUp(NodeId(4)));
  EXPECT_TRUE(m->membership().learners.contains(NodeId(4)));
  TickAnswered(m, 1, {2, 3, 4});
  EXPECT_TRUE(m->membership().voters.contains(NodeId(4)));
}

TEST(Promotion, WhoIsSilentDoesNotKeepUp) {
  Member m = LeaderOf(MembersOf(3, 1));
  TickAnswered(m, 3, {2, 3, 4});
  ASSERT_TRUE(m->KeepsUp(NodeId(4)));
  TickAnswered(m, 11, {2, 3});
  EXPECT_FALSE(m->KeepsUp(NodeId(4)));
  EXPECT_FALSE(m->KeepsUp(NodeId(2)));  // a voter is asked no such thing
  EXPECT_FALSE(m->KeepsUp(NodeId(9)));
}

TEST(Promotion, ANewLeaderGoesOnWithIt) {
  Led group(3, 0, 1);
  group.Isolate(4);
  ASSERT_EQ(group.ProposeTo(1, After(group.Of(1), Kind::kAdd, 4)), StatusCode::kOk);
  group.Tick(3);
  EXPECT_EQ(group.Of(1).learners.size(), 1u);  // nobody hears of it
  ASSERT_TRUE(group[1]->TransferLeadership(NodeId(2)).ok());
  group.Settle();
  ASSERT_EQ(group.Leader(), 2u);
  group.Heal();
  group.Tick(5);
  EXPECT_EQ(group.Of(4).voters.size(), 4u);
}

TEST(Promotion, OfSomebodyThatIsRemovedFirstIsForgotten) {
  Led group(3, 0, 1);
  group.Isolate(4);
  group.ChangeTo(1, After(group.Of(1), Kind::kAdd, 4));
  group.ChangeTo(1, After(group.Of(1), Kind::kRemove, 4));
  group.Heal();
  group.Tick(5);
  EXPECT_EQ(group.Of(1).All().size(), 3u);
  EXPECT_TRUE(group.Of(1).promotions.empty());
}

// ---------------------------------------------------------------- snapshots bring membership along

Message SnapshotWith(const Membership& members, uint64_t index, uint64_t index_term,
                     uint64_t term = 4) {
  Message m;
  m.type = MessageType::kSnapshot;
  m.from = NodeId(1);
  m.term = Term(term);
  m.prev_index = Index(index);
  m.prev_term = Term(index_term);
  m.payloads = {members.Encode(), "directory"};
  return m;
}

// RestoreWithLearner.
TEST(SnapshotMembers, LearnersComeAlong) {
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.Step(SnapshotWith(MembersOf(2, 1), 10, 3));
  EXPECT_EQ(m->membership(), MembersOf(2, 1));
  m->Campaign();
  EXPECT_EQ(m->role(), Role::kFollower);
}

// RestoreWithVotersOutgoing.
TEST(SnapshotMembers, AJointConfigurationComesAlong) {
  Membership joint = MembersOf(4);
  joint.voters = {NodeId(1), NodeId(2), NodeId(4)};
  joint.voters_outgoing = {NodeId(1), NodeId(2), NodeId(3)};
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.Step(SnapshotWith(joint, 10, 3));
  EXPECT_EQ(m->membership(), joint);
  EXPECT_FALSE(m->membership_settled());
  m.Restart(10);
  EXPECT_EQ(m->membership(), joint);
  // It still votes, in the outgoing half, and asks both.
  m.Tick(40);
  m->Campaign();
  EXPECT_EQ(m->role(), Role::kPreCandidate);
}

// RestoreVoterToLearner: the field forbids it; here a demotion that was missed may well come by
// snapshot, and the member just stops to vote for itself.
TEST(SnapshotMembers, AVoterMayFindItselfALearner) {
  Membership demoted = MembersOf(2);
  demoted.learners.insert(NodeId(3));
  demoted.peer_urls[NodeId(3)] = {"http://node3"};
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.Step(SnapshotWith(demoted, 10, 3));
  EXPECT_EQ(m->membership(), demoted);
  EXPECT_TRUE(OfType(m.Tick(60), MessageType::kVote).empty());
}

// RestoreLearnerPromotion.
TEST(SnapshotMembers, ALearnerMayFindItselfAVoter) {
  Member m(StoryOptions(3), Past(MembersOf(2, 1)));
  m.Step(SnapshotWith(MembersOf(3), 10, 3));
  EXPECT_EQ(m->membership(), MembersOf(3));
  EXPECT_FALSE(OfType(m.Tick(60), MessageType::kVote).empty());
}

TEST(SnapshotMembers, PromotionsAndTheRemovedComeAlong) {
  Membership members = MembersOf(3, 1);
  members.promotions[NodeId(4)] = NodeId(2);
  members.removed = {NodeId(9)};
  Member m(StoryOptions(4), Past(MembersOf(3)));
  m.Step(SnapshotWith(members, 10, 3));
  EXPECT_EQ(m->membership(), members);
}

}  // namespace
}  // namespace holdfast::raft::test
