// Snapshots: sending, pausing, installing (contract C7), compaction, crash points.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "member.h"

namespace holdfast::raft::test {
namespace {

Message SnapshotFrom(uint64_t from, uint64_t term, uint64_t index, uint64_t index_term) {
  Message m;
  m.type = MessageType::kSnapshot;
  m.from = NodeId(from);
  m.term = Term(term);
  m.prev_index = Index(index);
  m.prev_term = Term(index_term);
  m.payloads = {MembersOf(3).Encode(), "directory"};
  return m;
}

// Led by 1; 2 has everything, 3 nothing; the log is compacted to 4 of 5.
Member CompactedLeader() {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1, 1, 1}));
  m.Lead();
  m.Step(AckFrom(2, 2, 5));
  CHECK(m->applied() == Index(5));
  const storage::LogMark mark = m->CompactTo(Index(4));
  CHECK(m.disk().Compact(mark).empty());
  return m;
}

const Progress& Of3(Member& m) { return m->progress().at(NodeId(3)); }

TEST(SnapshotSend, APeerBehindTheLogNeedsOne) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  ASSERT_EQ(m.snapshots_wanted, std::vector<NodeId>{NodeId(3)});
  EXPECT_EQ(Of3(m).state, ProgressState::kSnapshot);
}

TEST(SnapshotSend, NothingIsAppendedWhileItIsOnItsWay) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  for (const Message& append : OfType(m.Propose("x"), MessageType::kAppend)) {
    EXPECT_NE(append.to, NodeId(3));
  }
  m.Step(RoundReplyFrom(3, 2, 1));
  m.Tick(3);
  EXPECT_EQ(Of3(m).state, ProgressState::kSnapshot);
  EXPECT_EQ(m.snapshots_wanted.size(), 1u);  // and it is asked for once
}

TEST(SnapshotSend, ASilentPeerGetsNone) {
  Member m = CompactedLeader();
  m.Tick(11);  // 3 has said nothing for an election timeout
  m.Step(RoundReplyFrom(2, 2, 1));
  m->OnPeerUnreachable(NodeId(3));
  m.Run();
  EXPECT_TRUE(m.snapshots_wanted.empty());
}

TEST(SnapshotSend, SuccessLeadsBackToProbing) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  m->OnSnapshotSent(NodeId(3), Index(5), true);
  const auto out = OfType(m.Run(), MessageType::kAppend);
  EXPECT_EQ(Of3(m).state, ProgressState::kProbe);
  EXPECT_EQ(Of3(m).match_index, Index(0));  // that it arrived proves nothing about its disk
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].prev_index, Index(5));
  m.Step(AckFrom(3, 2, 5));
  EXPECT_EQ(Of3(m).state, ProgressState::kReplicate);
}

TEST(SnapshotSend, TheAcknowledgementAloneIsEnough) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  m.Step(AckFrom(3, 2, 5));
  EXPECT_EQ(Of3(m).state, ProgressState::kReplicate);
  EXPECT_EQ(Of3(m).next_index, Index(6));
  m->OnSnapshotSent(NodeId(3), Index(5), true);  // late news
  EXPECT_EQ(Of3(m).state, ProgressState::kReplicate);
}

TEST(SnapshotSend, AnOlderOneThatReachesTheLogIsEnough) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  m.Step(AckFrom(3, 2, 4));  // 4 is the mark: the log goes on from there
  EXPECT_EQ(Of3(m).state, ProgressState::kReplicate);
  EXPECT_EQ(Of3(m).match_index, Index(4));
}

TEST(SnapshotSend, AFailureIsTriedAgainAfterAnElectionTimeout) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  m.snapshots_wanted.clear();
  m->OnSnapshotSent(NodeId(3), Index(5), false);
  m.Run();
  EXPECT_EQ(Of3(m).state, ProgressState::kProbe);
  EXPECT_TRUE(m.snapshots_wanted.empty());
  // A checkpoint costs a flush, so not at once, however often the peer is heard.
  const uint32_t pause = StoryOptions(1).election_ticks;
  for (uint32_t tick = 1; tick < pause; ++tick) {
    m.Tick();
    m.Step(RoundReplyFrom(3, 2, m.rounds_started.back()));
    EXPECT_TRUE(m.snapshots_wanted.empty()) << tick;
  }
  m.Tick();
  m.Step(RoundReplyFrom(3, 2, m.rounds_started.back()));
  EXPECT_EQ(m.snapshots_wanted, std::vector<NodeId>{NodeId(3)});
}

TEST(SnapshotSend, NewsForAFormerLeaderIsIgnored) {
  Member m = CompactedLeader();
  m.Step(RejectFrom(3, 2, 4, 0, 0));
  m.Step(HeartbeatFrom(2, 3));
  m->OnSnapshotSent(NodeId(3), Index(5), true);
  EXPECT_TRUE(OfType(m.Run(), MessageType::kAppend).empty());
}

// ---------------------------------------------------------------- installing

TEST(SnapshotInstall, ReplacesTheLogInOneBatch) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1, 1}));
  m.hold_disk = true;
  EXPECT_TRUE(m.Step(SnapshotFrom(1, 4, 10, 3)).empty());
  ASSERT_EQ(m.batches.size(), 1u);
  const AppendBatch& batch = m.batches[0];
  ASSERT_TRUE(batch.log.reset);
  EXPECT_EQ(batch.log.reset->index, Index(10));
  EXPECT_EQ(batch.log.reset->term, Term(3));
  EXPECT_EQ(batch.log.reset->membership, MembersOf(3).Encode());
  EXPECT_EQ(batch.snapshot_dir, "directory");
  EXPECT_TRUE(batch.log.must_sync);
  EXPECT_EQ(m->commit(), Index(10));
  EXPECT_EQ(m->log().mark_index(), Index(10));
  EXPECT_EQ(m->membership(), MembersOf(3));
  const auto out = m.FinishWrites();
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].type, MessageType::kAppendReply);
  EXPECT_FALSE(out[0].reject);
  EXPECT_EQ(out[0].match_index, Index(10));
  EXPECT_TRUE(m.applied.empty());
}

TEST(SnapshotInstall, TheLogGoesOnBehindIt) {
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.Step(SnapshotFrom(1, 4, 10, 3));
  m.Step(AppendFrom(1, 4, 10, 3, EntriesOf(11, {4, 4}), 12));
  EXPECT_EQ(m->commit(), Index(12));
  ASSERT_EQ(m.applied.size(), 2u);
  EXPECT_EQ(m.applied[0]->index, Index(11));
  EXPECT_EQ(m.disk().last(), Index(12));
  EXPECT_EQ(m.disk().mark().index, Index(10));
  m.Restart(12);
  EXPECT_EQ(m->log().last(), Index(12));
  EXPECT_EQ(m->term(), Term(4));
}

TEST(SnapshotInstall, AnOlderOneIsIgnored) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.Step(AppendFrom(1, 1, 3, 1, {}, 3));
  const auto out = m.Step(SnapshotFrom(1, 1, 2, 1));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].match_index, Index(3));  // what is committed matches the leader
  EXPECT_EQ(m->log().mark_index(), Index(0));
  EXPECT_EQ(m->log().last(), Index(3));
}

// What the log has already only moves the commit index.
TEST(SnapshotInstall, OneThatTheLogContainsOnlyCommits) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.Step(SnapshotFrom(1, 1, 2, 1));
  EXPECT_EQ(m->commit(), Index(2));
  EXPECT_EQ(m->log().mark_index(), Index(0));
  EXPECT_EQ(m->log().last(), Index(3));
  EXPECT_EQ(m.applied.size(), 2u);
}

TEST(SnapshotInstall, OfAFormerLeaderIsIgnored) {
  Member m(StoryOptions(3), Past(MembersOf(3), 5));
  m.Step(SnapshotFrom(1, 4, 10, 3));
  EXPECT_EQ(m->commit(), Index(0));
  EXPECT_EQ(m->log().last(), Index(0));
  EXPECT_EQ(m->term(), Term(5));
}

TEST(SnapshotInstall, WritesOfBeforeDoNotCountAfterIt) {
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.hold_disk = true;
  m.Step(AppendFrom(1, 1, 0, 0, EntriesOf(1, {1, 1, 1})));
  m.Step(SnapshotFrom(2, 4, 10, 3));
  m.Step(AppendFrom(2, 4, 10, 3, EntriesOf(11, {4}), 11));
  m.FinishWrites();
  EXPECT_EQ(m->durable(), Index(10));
  EXPECT_TRUE(m.applied.empty());
  m.FinishWrites(5);
  ASSERT_EQ(m.applied.size(), 1u);
  EXPECT_EQ(m.applied[0]->index, Index(11));
}

TEST(SnapshotInstall, LateNewsFromTheStateMachineIsIgnored) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.hold_apply = true;
  m.Step(AppendFrom(1, 1, 3, 1, {}, 3));
  ASSERT_EQ(m.applied.size(), 3u);
  m.Step(SnapshotFrom(1, 4, 10, 3));
  m->OnApplied(Index(3));
  m->OnApplied(Index(10));
  m->CheckInvariants();
  EXPECT_EQ(m->applied(), Index(10));
}

// ---------------------------------------------------------------- compaction

TEST(Compaction, MovesTheMarkAndKeepsTheRest) {
  Member m(StoryOptions(1), Past(MembersOf(3), 3, 0, 0, {1, 1, 2, 3}));
  m.Step(AppendFrom(2, 3, 4, 3, {}, 4));
  const storage::LogMark mark = m->CompactTo(Index(3));
  EXPECT_EQ(mark.index, Index(3));
  EXPECT_EQ(mark.term, Term(2));
  EXPECT_EQ(*Membership::Decode(mark.membership), MembersOf(3));
  EXPECT_EQ(m->log().mark_index(), Index(3));
  EXPECT_EQ(m->log().last(), Index(4));
  EXPECT_EQ(m->log().TermAt(Index(3)), Term(2));
  EXPECT_EQ(m->log().TermAt(Index(2)), std::nullopt);
  // Everything: the mark alone answers for the last term.
  EXPECT_EQ(m->CompactTo(Index(4)).term, Term(3));
  EXPECT_EQ(m->log().last(), Index(4));
  EXPECT_EQ(m->log().last_term(), Term(3));
  m.Step(AppendFrom(2, 3, 4, 3, EntriesOf(5, {3}), 5));
  EXPECT_EQ(m->applied(), Index(5));
}

TEST(Compaction, NeverPassesWhatIsApplied) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1}));
  EXPECT_DEATH(m->CompactTo(Index(1)), "CHECK");
}

TEST(Compaction, AnOldAppendBehindTheMarkIsAcknowledged) {
  Member m(StoryOptions(1), Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.Step(AppendFrom(2, 1, 3, 1, {}, 3));
  m->CompactTo(Index(3));
  const auto out = m.Step(AppendFrom(2, 1, 1, 1, EntriesOf(2, {1, 1}), 3));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_FALSE(out[0].reject);
  EXPECT_EQ(out[0].match_index, Index(3));
}

}  // namespace
}  // namespace holdfast::raft::test
