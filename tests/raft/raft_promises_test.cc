// Promises of the core that its other tests leave room to break: each of these was found missing by
// a planted bug (tests/mutants).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

#include "member.h"

namespace holdfast::raft::test {
namespace {

EntryRef ConfigEntry(uint64_t index, uint64_t term, const Membership& membership) {
  auto entry = std::make_shared<Entry>();
  entry->index = Index(index);
  entry->term = Term(term);
  entry->type = EntryType::kConfig;
  entry->payload = membership.Encode();
  return entry;
}

Message SnapshotOf(const Membership& membership, uint64_t index) {
  Message m;
  m.type = MessageType::kSnapshot;
  m.from = NodeId(1);
  m.term = Term(4);
  m.prev_index = Index(index);
  m.prev_term = Term(3);
  m.payloads = {membership.Encode(), "a directory"};
  return m;
}

TEST(VotePromise, AForcedRequestGetsNoSecondVoteOfATerm) {
  Member m(StoryOptions(1), Past(MembersOf(3), /*term=*/5, /*vote=*/2));
  Message request = VoteFrom(3, 5, 0, 0);
  request.forced = true;
  const auto replies = OfType(m.Step(request), MessageType::kVoteReply);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_TRUE(replies[0].reject);
  EXPECT_EQ(m->vote(), NodeId(2));
}

TEST(SnapshotPromise, NewsOfAnEarlierApplyNeverMovesTheAppliedIndexBack) {
  Member m(StoryOptions(3), Past(MembersOf(3), 1, 0, 0, {1, 1, 1}));
  m.hold_apply = true;
  m.Step(AppendFrom(1, 1, 3, 1, {}, 3));
  m.Step(SnapshotOf(MembersOf(3), 10));
  m->OnApplied(Index(3));
  EXPECT_EQ(m->applied(), Index(10));
}

TEST(SnapshotPromise, ConfigurationsOfTheLogItReplacesAreForgotten) {
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.Step(AppendFrom(1, 1, 0, 0, {MakeEntry(1, 1), ConfigEntry(2, 1, MembersOf(3, 1))}));
  ASSERT_TRUE(m->membership().Contains(NodeId(4)));
  m.Step(SnapshotOf(MembersOf(3), 10));
  EXPECT_EQ(m->membership(), MembersOf(3));
}

TEST(CompactionPromise, TheMarkHasTheMembershipAtItsIndex) {
  Member m(StoryOptions(3), Past(MembersOf(3)));
  m.Step(AppendFrom(1, 1, 0, 0,
                    {MakeEntry(1, 1), MakeEntry(2, 1), ConfigEntry(3, 1, MembersOf(3, 1))}, 3));
  ASSERT_EQ(m->applied(), Index(3));
  const auto before = Membership::Decode(m->CompactTo(Index(2)).membership);
  ASSERT_TRUE(before.ok());
  EXPECT_EQ(*before, MembersOf(3));
  const auto after = Membership::Decode(m->CompactTo(Index(3)).membership);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(*after, MembersOf(3, 1));
}

}  // namespace
}  // namespace holdfast::raft::test
