// One test for each rule of the Raft paper; its section is in the name of the group.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "member.h"

namespace holdfast::raft::test {
namespace {

using testing::Each;
using testing::Field;

std::vector<uint64_t> TermsOf(RaftCore& core) {
  std::vector<uint64_t> terms;
  for (Index i = core.log().mark_index() + 1; i <= core.log().last(); ++i) {
    terms.push_back(core.log().TermAt(i)->value);
  }
  return terms;
}

std::vector<uint64_t> IndexesOf(const std::vector<EntryRef>& entries) {
  std::vector<uint64_t> out;
  for (const EntryRef& entry : entries) out.push_back(entry->index.value);
  return out;
}

Member Fresh(size_t voters = 3) { return Member(StoryOptions(1), Past(MembersOf(voters))); }

// ---------------------------------------------------------------- 5.1 terms

TEST(Paper51, AnyRoleTakesAHigherTermAndFollows) {
  for (const int role : {0, 1, 2}) {
    Member m = Fresh();
    if (role == 1) m->Campaign(), m.Run();
    if (role == 2) m.Lead();
    const uint64_t higher = m->term().value + 3;
    m.Step(AppendFrom(2, higher, 0, 0));
    EXPECT_EQ(m->term(), Term(higher));
    EXPECT_EQ(m->role(), Role::kFollower);
    EXPECT_EQ(m->leader(), NodeId(2));
    EXPECT_EQ(m->vote(), NodeId(0));
  }
}

TEST(Paper51, ALeaderThatIsRefusedForAHigherTermFollows) {
  Member m = Fresh();
  m.Lead();
  m.Step(RejectFrom(2, 9, 0, 0, 0));
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->term(), Term(9));
  EXPECT_EQ(m->leader(), NodeId(0));
}

TEST(Paper51, AStaleAppendChangesNothing) {
  Member m(StoryOptions(1), Past(MembersOf(3), 5, 0, 0, {1, 2}));
  const auto out = m.Step(AppendFrom(2, 4, 2, 2, {MakeEntry(3, 4)}, 3));
  EXPECT_EQ(m->log().last(), Index(2));
  EXPECT_EQ(m->commit(), Index(0));
  EXPECT_EQ(m->leader(), NodeId(0));
  // The stale leader is told the term, and nothing that could count as an acknowledgement.
  ASSERT_EQ(out.size(), 1u);
  EXPECT_TRUE(out[0].reject);
  EXPECT_EQ(out[0].term, Term(5));
}

TEST(Paper51, StaleRepliesChangeNothing) {
  Member m(StoryOptions(1), Past(MembersOf(5), 3));
  m.Lead();  // term 4
  m.Step(AckFrom(2, 3, 1));
  m.Step(AckFrom(3, 3, 1));
  m.Step(RoundReplyFrom(2, 3, 1));
  m.Step(RoundReplyFrom(3, 3, 1));
  EXPECT_EQ(m->commit(), Index(0));
  EXPECT_TRUE(m.rounds_confirmed.empty());
}

// ---------------------------------------------------------------- 5.2 elections

TEST(Paper52, EveryNodeStartsAsFollower) {
  Member m(StoryOptions(1), Past(MembersOf(3), 7, 1, 0, {7}));
  EXPECT_EQ(m->role(), Role::kFollower);
  EXPECT_EQ(m->term(), Term(7));
  EXPECT_EQ(m->vote(), NodeId(1));
  EXPECT_EQ(m->leader(), NodeId(0));
}

TEST(Paper52, ALeaderSendsHeartbeatsOnEachHeartbeatTickAndOnlyThen) {
  CoreOptions options = StoryOptions(1);
  options.heartbeat_ticks = 3;
  Member m(options, Past(MembersOf(5)));
  m.Lead();
  for (int beat = 0; beat < 2; ++beat) {
    EXPECT_TRUE(OfType(m.Tick(2), MessageType::kHeartbeat).empty());
    std::set<NodeId> to;
    for (const Message& h : OfType(m.Tick(), MessageType::kHeartbeat)) to.insert(h.to);
    EXPECT_EQ(to, (std::set<NodeId>{NodeId(2), NodeId(3), NodeId(4), NodeId(5)}));
  }
}

TEST(Paper52, ATimeoutMakesAFollowerACandidateOfTheNextTerm) {
  Member m(StoryOptions(1), Past(MembersOf(3), 4));
  // Thesis 9.6 comes first: nobody's term moves for it.
  const auto asked = OfType(m.Tick(20), MessageType::kVote);
  ASSERT_GE(asked.size(), 2u);
  EXPECT_TRUE(asked[0].pre_vote);
  EXPECT_EQ(asked[0].term, Term(5));
  EXPECT_EQ(m->role(), Role::kPreCandidate);
  EXPECT_EQ(m->term(), Term(4));
  // Then term + 1, our own vote, and a request to everybody.
  const auto out = OfType(m.Step(VoteReplyFrom(2, 5, false, true)), MessageType::kVote);
  EXPECT_EQ(m->role(), Role::kCandidate);
  EXPECT_EQ(m->term(), Term(5));
  EXPECT_EQ(m->vote(), NodeId(1));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_THAT(out, Each(Field(&Message::pre_vote, false)));
  EXPECT_THAT(out, Each(Field(&Message::term, Term(5))));
}

TEST(Paper52, ACandidateThatTimesOutStartsANewElection) {
  Member m = Fresh();
  m->Campaign();
  m.Run();
  m.Step(VoteReplyFrom(2, 1, false, true));
  ASSERT_EQ(m->role(), Role::kCandidate);
  m.Tick(20);
  EXPECT_EQ(m->role(), Role::kPreCandidate);
  m.Step(VoteReplyFrom(2, 2, false, true));
  EXPECT_EQ(m->role(), Role::kCandidate);
  EXPECT_EQ(m->term(), Term(2));
}

TEST(Paper52, AnElectionIsWonLostOrOpenByTheMajority) {
  struct Case {
    size_t voters;
    std::vector<std::pair<uint64_t, bool>> votes;  // who, granted
    Role role;
  };
  const std::vector<Case> cases = {
      {1, {}, Role::kLeader},
      {3, {{2, true}, {3, true}}, Role::kLeader},
      {3, {{2, true}}, Role::kLeader},
      {5, {{2, true}, {3, true}}, Role::kLeader},
      {5, {{2, true}, {3, true}, {4, false}, {5, false}}, Role::kLeader},
      {3, {{2, false}, {3, false}}, Role::kFollower},
      {5, {{2, false}, {3, false}, {4, false}}, Role::kFollower},
      {5, {{2, true}, {3, false}, {4, false}, {5, false}}, Role::kFollower},
      {3, {}, Role::kCandidate},
      {5, {{2, true}}, Role::kCandidate},
      {5, {{2, false}, {3, false}}, Role::kCandidate},
      // The same voter twice is one vote.
      {5, {{2, true}, {2, true}, {2, true}}, Role::kCandidate},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    const Case& c = cases[i];
    Member m = Fresh(c.voters);
    m->Campaign();
    m.Run();
    for (uint64_t peer = 2; peer <= c.voters / 2 + 1; ++peer) {
      m.Step(VoteReplyFrom(peer, 1, false, true));
    }
    for (const auto& [peer, granted] : c.votes) m.Step(VoteReplyFrom(peer, 1, !granted));
    EXPECT_EQ(m->role(), c.role);
    EXPECT_EQ(m->term(), Term(1));
  }
}

TEST(Paper52, OneVoteATermFirstComeFirstServed) {
  struct Case {
    uint64_t vote, asked_by;
    bool granted;
  };
  for (const Case& c : {Case{0, 2, true}, Case{0, 3, true}, Case{2, 2, true}, Case{3, 3, true},
                        Case{2, 3, false}, Case{3, 2, false}}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 1, c.vote));
    const auto out = m.Step(VoteFrom(c.asked_by, 1, 0, 0));
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].type, MessageType::kVoteReply);
    EXPECT_EQ(out[0].reject, !c.granted);
    EXPECT_EQ(m->vote(), NodeId(c.granted ? c.asked_by : c.vote));
  }
}

TEST(Paper52, ACandidateFollowsWhoeverLeadsItsTermOrALaterOne) {
  for (const uint64_t term : {1, 2}) {
    Member m = Fresh();
    m->Campaign();
    m.Run();
    m.Step(VoteReplyFrom(2, 1, false, true));
    ASSERT_EQ(m->role(), Role::kCandidate);
    m.Step(AppendFrom(3, term, 0, 0));
    EXPECT_EQ(m->role(), Role::kFollower);
    EXPECT_EQ(m->term(), Term(term));
    EXPECT_EQ(m->leader(), NodeId(3));
  }
}

// The ticks after which a member of a group first asks for votes.
uint32_t TimeoutOf(Member& m) {
  for (uint32_t ticks = 1; ticks <= 200; ++ticks) {
    for (const Message& out : m.Tick()) {
      if (out.type == MessageType::kVote) return ticks;
    }
  }
  return 0;
}

// A (pre-)candidate that nobody answers, past its first, short waits.
void TryInVain(Member& m) {
  for (int attempt = 0; attempt < 5; ++attempt) TimeoutOf(m);
}

TEST(Paper52, ElectionTimeoutsTakeEveryValueOfTheirRange) {
  for (const bool candidate : {false, true}) {
    std::set<uint32_t> seen;
    Member m = Fresh();
    if (candidate) TryInVain(m);
    for (int round = 0; round < 500; ++round) {
      if (!candidate) {
        m.Step(HeartbeatFrom(2, 100 + static_cast<uint64_t>(round)));
      }
      seen.insert(TimeoutOf(m));
    }
    // [T, 2T) with the spread of StoryOptions; [T/2, 3T/2) for a candidate.
    EXPECT_EQ(seen.size(), 10u);
    EXPECT_EQ(*seen.begin(), candidate ? 5u : 10u);
    EXPECT_EQ(*seen.rbegin(), candidate ? 14u : 19u);
  }
}

TEST(Paper52, ASilentLeaderCostsLittleMoreThanOneTimeout) {
  CoreOptions options;
  options.id = NodeId(1);  // the defaults: 100 ticks, a quarter of spread
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Member m(options, Past(), seed);
    uint32_t first = 0;
    while (m->role() == Role::kFollower) {
      m.Tick();
      ++first;
    }
    EXPECT_GE(first, 100u);
    EXPECT_LT(first, 125u);
    // Nobody answers: it asks again soon, and then less and less often.
    for (const auto& [least, most] : {std::pair{10u, 30u}, {20u, 60u}, {40u, 120u}, {50u, 150u}}) {
      const uint32_t wait = TimeoutOf(m);
      EXPECT_GE(wait, least);
      EXPECT_LT(wait, most);
    }
    EXPECT_EQ(m->term(), Term(0)) << "asking costs nobody a term";
  }
}

TEST(Paper52, TwoOfFiveSeldomTimeOutTogether) {
  constexpr int kRounds = 1000;
  for (const bool candidates : {false, true}) {
    std::vector<Member> members;
    for (uint64_t id = 1; id <= 5; ++id) {
      members.emplace_back(StoryOptions(id), Past(MembersOf(5)), id * 7919);
      if (candidates) TryInVain(members.back());
    }
    int conflicts = 0;
    for (int round = 0; round < kRounds; ++round) {
      std::vector<uint32_t> timeouts;
      for (Member& m : members) {
        const uint64_t leader = m.id() == 1 ? 2 : 1;
        if (!candidates) m.Step(HeartbeatFrom(leader, 100 + static_cast<uint64_t>(round)));
        timeouts.push_back(TimeoutOf(m));
      }
      std::sort(timeouts.begin(), timeouts.end());
      if (timeouts[0] == timeouts[1]) ++conflicts;
    }
    EXPECT_LT(conflicts, kRounds * 3 / 10);
  }
}

// ---------------------------------------------------------------- 5.3 replication

// A leader of `voters` whose first entry everybody has.
Member EstablishedLeader(size_t voters = 3) {
  Member m = Fresh(voters);
  m.Lead();
  for (uint64_t peer = 2; peer <= voters; ++peer) m.Step(AckFrom(peer, 1, 1));
  CHECK(m->commit() == Index(1));
  return m;
}

TEST(Paper53, AProposalIsAppendedSentAndWritten) {
  Member m = EstablishedLeader();
  const auto out = OfType(m.Propose("x"), MessageType::kAppend);
  EXPECT_EQ(m->log().last(), Index(2));
  EXPECT_EQ(m.disk().last(), Index(2));
  EXPECT_EQ(m->commit(), Index(1));
  ASSERT_EQ(out.size(), 2u);
  for (const Message& append : out) {
    EXPECT_EQ(append.prev_index, Index(1));
    EXPECT_EQ(append.prev_term, Term(1));
    EXPECT_EQ(append.commit, Index(1));
    ASSERT_EQ(append.entries.size(), 1u);
    EXPECT_EQ(append.entries[0]->payload, "x");
    EXPECT_EQ(append.entries[0]->term, Term(1));
  }
}

TEST(Paper53, AnEntryOfAMajorityIsCommittedAppliedAndAnnounced) {
  Member m = EstablishedLeader();
  m.applied.clear();
  m.Propose("x");
  const auto out = m.Step(AckFrom(2, 1, 2));
  EXPECT_EQ(m->commit(), Index(2));
  ASSERT_EQ(m.applied.size(), 1u);
  EXPECT_EQ(m.applied[0]->payload, "x");
  // At once, without a further proposal or a tick.
  EXPECT_TRUE(std::any_of(out.begin(), out.end(), [](const Message& s) {
    return s.to == NodeId(2) && s.commit == Index(2);
  }));
}

TEST(Paper53, CommitNeedsAMajorityWithTheLeader) {
  struct Case {
    size_t voters;
    std::set<uint64_t> acks;
    bool committed;
  };
  for (const Case& c : std::vector<Case>{{1, {}, true},
                                         {3, {}, false},
                                         {3, {2}, true},
                                         {3, {2, 3}, true},
                                         {5, {}, false},
                                         {5, {2}, false},
                                         {5, {2, 3}, true},
                                         {5, {2, 3, 4, 5}, true}}) {
    Member m = EstablishedLeader(c.voters);
    m.Propose("x");
    for (const uint64_t peer : c.acks) m.Step(AckFrom(peer, 1, 2));
    EXPECT_EQ(m->commit() == Index(2), c.committed);
  }
}

TEST(Paper53, CommittingAnEntryCommitsWhatIsBeforeIt) {
  for (const std::vector<uint64_t>& log :
       std::vector<std::vector<uint64_t>>{{}, {2}, {1, 2}, {1}, {1, 1, 2}}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 2, 0, 0, log));
    m.Lead();
    const uint64_t last = m->log().last().value;
    m.Step(AckFrom(2, 3, last));
    std::vector<uint64_t> want;
    for (uint64_t i = 1; i <= last; ++i) want.push_back(i);
    EXPECT_EQ(IndexesOf(m.applied), want);
    EXPECT_EQ(m->commit(), Index(last));
  }
}

TEST(Paper53, AFollowerAppliesWhatTheLeaderHasCommittedAndNoMore) {
  struct Case {
    size_t entries;
    uint64_t leader_commit, commit;
  };
  for (const Case& c :
       {Case{1, 1, 1}, Case{2, 2, 2}, Case{2, 1, 1}, Case{1, 9, 1}, Case{0, 3, 0}}) {
    Member m = Fresh();
    m.Step(
        AppendFrom(2, 1, 0, 0, EntriesOf(1, std::vector<uint64_t>(c.entries, 1)), c.leader_commit));
    EXPECT_EQ(m->commit(), Index(c.commit));
    ASSERT_EQ(m.applied.size(), c.commit);
    for (size_t i = 0; i < m.applied.size(); ++i) EXPECT_EQ(m.applied[i]->index, Index(i + 1));
  }
}

TEST(Paper53, AnAppendThatDoesNotFitIsRefusedWithAHint) {
  struct Case {
    uint64_t prev_index, prev_term;
    bool reject;
    uint64_t hint_index, hint_term;
  };
  for (const Case& c : {Case{0, 0, false, 0, 0}, Case{1, 1, false, 0, 0}, Case{2, 2, false, 0, 0},
                        Case{1, 2, true, 1, 1}, Case{3, 3, true, 2, 2}, Case{3, 1, true, 1, 1}}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 2, 0, 1, {1, 2}));
    const auto out = m.Step(AppendFrom(2, 3, c.prev_index, c.prev_term));
    ASSERT_EQ(out.size(), 1u);
    EXPECT_EQ(out[0].type, MessageType::kAppendReply);
    EXPECT_EQ(out[0].term, Term(3));
    EXPECT_EQ(out[0].reject, c.reject);
    EXPECT_EQ(out[0].hint_index, Index(c.hint_index));
    EXPECT_EQ(out[0].hint_term, Term(c.hint_term));
    EXPECT_EQ(out[0].prev_index, Index(c.reject ? c.prev_index : 0));
  }
}

TEST(Paper53, AConflictReplacesTheSuffixAndNothingElse) {
  struct Case {
    uint64_t prev_index, prev_term;
    std::vector<uint64_t> sent, log, written;  // terms; indexes that reach the disk
  };
  // The follower has terms 1, 2, 2.
  for (const Case& c : std::vector<Case>{{3, 2, {3}, {1, 2, 2, 3}, {4}},
                                         {1, 1, {3, 4}, {1, 3, 4}, {2, 3}},
                                         {0, 0, {1}, {1, 2, 2}, {}},
                                         {0, 0, {1, 2}, {1, 2, 2}, {}},
                                         {0, 0, {3}, {3}, {1}},
                                         {1, 1, {2, 3}, {1, 2, 3}, {3}}}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 2, 0, 0, {1, 2, 2}));
    Message append =
        AppendFrom(2, 4, c.prev_index, c.prev_term, EntriesOf(c.prev_index + 1, c.sent));
    append.to = NodeId(1);
    m->Step(std::move(append));
    const Ready ready = m.Take();
    EXPECT_EQ(TermsOf(m.core()), c.log);
    EXPECT_EQ(IndexesOf(ready.append.log.entries), c.written);
  }
}

// Figure 7: the leader of term 8 and six followers.
TEST(Paper53, Figure7FollowersConvergeToTheLeader) {
  const std::vector<uint64_t> leader = {1, 1, 1, 4, 4, 5, 5, 6, 6, 6};
  const std::vector<std::vector<uint64_t>> followers = {
      {1, 1, 1, 4, 4, 5, 5, 6, 6},           // a
      {1, 1, 1, 4},                          // b
      {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6},     // c
      {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7},  // d
      {1, 1, 1, 4, 4, 4, 4},                 // e
      {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3},     // f
  };
  for (const auto& log : followers) {
    SCOPED_TRACE(testing::PrintToString(log));
    const Membership three = MembersOf(3);
    Group group({Past(three, 7, 0, 0, leader), Past(three, 7, 0, 0, log), Past(three, 7)});
    // The third has an empty log and votes for the first.
    ASSERT_TRUE(group.Elect(1));
    group.Propose(1, "of term 8");
    group.Tick(3);
    const auto want = TermsOf(group[1].core());
    EXPECT_EQ(want.size(), 12u);
    for (const uint64_t id : {2, 3}) {
      EXPECT_EQ(TermsOf(group[id].core()), want);
      EXPECT_EQ(group[id]->applied(), Index(12));
      EXPECT_EQ(group[id].disk().last(), Index(12));
    }
  }
}

// ---------------------------------------------------------------- 5.4 safety

TEST(Paper541, AVoteRequestNamesTheLastEntryAndGoesToAllOthers) {
  Member m(StoryOptions(1), Past(MembersOf(5), 3, 0, 0, {1, 3}));
  m->Campaign();
  auto pre = OfType(m.Run(), MessageType::kVote);
  m.Step(VoteReplyFrom(2, 4, false, true));
  auto real = OfType(m.Step(VoteReplyFrom(3, 4, false, true)), MessageType::kVote);
  for (const auto& asked : {pre, real}) {
    std::set<NodeId> to;
    for (const Message& vote : asked) {
      to.insert(vote.to);
      EXPECT_EQ(vote.prev_index, Index(2));
      EXPECT_EQ(vote.prev_term, Term(3));
      EXPECT_EQ(vote.term, Term(4));
    }
    EXPECT_EQ(to.size(), 4u);
    EXPECT_FALSE(to.contains(NodeId(1)));
  }
}

TEST(Paper541, AVoterRefusesAnOlderLog) {
  struct Case {
    std::vector<uint64_t> log;
    uint64_t last_term, last_index;
    bool granted;
  };
  for (const bool pre_vote : {false, true}) {
    for (const Case& c : std::vector<Case>{{{1}, 1, 1, true},
                                           {{1}, 1, 2, true},
                                           {{1, 1}, 1, 1, false},
                                           {{1}, 2, 1, true},
                                           {{1}, 2, 2, true},
                                           {{1, 1}, 2, 1, true},
                                           {{2}, 1, 1, false},
                                           {{2}, 1, 2, false},
                                           {{2, 1}, 1, 9, false},
                                           {{1}, 0, 0, false},
                                           {{}, 0, 0, true}}) {
      if (!std::is_sorted(c.log.begin(), c.log.end())) continue;
      Member m(StoryOptions(1), Past(MembersOf(3), 2, 0, 0, c.log));
      const auto out = m.Step(VoteFrom(2, 3, c.last_index, c.last_term, pre_vote));
      ASSERT_EQ(out.size(), 1u);
      EXPECT_EQ(out[0].reject, !c.granted);
      EXPECT_EQ(out[0].pre_vote, pre_vote);
      EXPECT_EQ(m->term(), Term(pre_vote ? 2 : 3));
      EXPECT_EQ(m->vote(), NodeId(c.granted && !pre_vote ? 2 : 0));
    }
  }
}

// Figure 8: an entry of an older term is never committed by counting.
TEST(Paper542, OnlyEntriesOfTheOwnTermAreCommittedByCounting) {
  for (const uint64_t acked : {1, 2}) {
    Member m(StoryOptions(1), Past(MembersOf(3), 2, 0, 0, {1, 2}));
    m.Lead();  // term 3; its own entry is 3
    m.Step(AckFrom(2, 3, acked));
    m.Step(AckFrom(3, 3, acked));
    EXPECT_EQ(m->commit(), Index(0));
    m.Step(AckFrom(2, 3, 3));
    EXPECT_EQ(m->commit(), Index(3));
  }
}

TEST(Paper542, Figure8TheWholeStory) {
  const Membership five = MembersOf(5);
  // (a) S1 leads term 2 and gives entry 2 to S2 alone; (b) S5 leads term 3 with another entry 2.
  Group group({Past(five, 3, 0, 0, {1, 2}), Past(five, 3, 0, 0, {1, 2}), Past(five, 3, 0, 0, {1}),
               Past(five, 3, 0, 0, {1}), Past(five, 3, 0, 0, {1, 3})});
  // (c) S1 leads term 4, but its own entry gets to nobody; entry 2 gets to S3: a majority has it.
  group.Isolate(5);
  group.lets_through = [](const Message& m) {
    return m.type != MessageType::kAppend || m.entries.empty() || m.entries.back()->term < Term(4);
  };
  ASSERT_TRUE(group.Elect(1));
  for (const Message& ack : group[2].Step(AppendFrom(1, 4, 2, 2))) group[1].Step(ack);
  for (const Message& ack : group[3].Step(AppendFrom(1, 4, 1, 1, {MakeEntry(2, 2)}))) {
    group[1].Step(ack);
  }
  EXPECT_EQ(group[1]->progress().at(NodeId(2)).match_index, Index(2));
  EXPECT_EQ(group[1]->progress().at(NodeId(3)).match_index, Index(2));
  EXPECT_EQ(group[1]->commit(), Index(0));
  // (d) S5 may still win with the votes of S3 and S4, and overwrites it: so it was never committed.
  group.lets_through = nullptr;
  group.Heal();
  group.Isolate(1);
  group.Isolate(2);
  group[3].Tick(20);
  group[4].Tick(20);
  for (int i = 0; i < 3 && group.Leader() != 5; ++i) {
    group.Elect(5);
  }
  EXPECT_EQ(group.Leader(), 5u);
  EXPECT_EQ(TermsOf(group[3].core()), (std::vector<uint64_t>{1, 3, group[5]->term().value}));
  for (const uint64_t id : {1, 2, 3, 4, 5}) {
    for (const EntryRef& entry : group[id].applied) EXPECT_NE(entry->term, Term(2));
  }
}

}  // namespace
}  // namespace holdfast::raft::test
