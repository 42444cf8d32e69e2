// Membership as values: what a change leads to, through which steps, and that every step is safe.
#include "replication/member_change.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "base/strings.h"
#include "member.h"

namespace holdfast::raft::test {
namespace {

using Kind = MemberChange::Kind;
using testing::ElementsAre;

constexpr uint64_t kSeed = 20'261'121;

std::vector<std::string> UrlOf(uint64_t id) { return {fmt::format("http://node{}", id)}; }

MemberChange Change(Kind kind, uint64_t id, uint64_t replaces = 0) {
  MemberChange change;
  change.kind = kind;
  change.id = NodeId(id);
  change.replaces = NodeId(replaces);
  if (kind != Kind::kRemove && kind != Kind::kPromote && kind != Kind::kDemote) {
    change.peer_urls = UrlOf(id);
  }
  return change;
}

absl::StatusCode CodeOf(const Membership& now, const MemberChange& change) {
  return TargetOf(now, change).status().code();
}

std::set<NodeId> Ids(std::initializer_list<uint64_t> ids) {
  std::set<NodeId> out;
  for (const uint64_t id : ids) out.insert(NodeId(id));
  return out;
}

// An empty text, or what no membership may be.
std::string WhatIsWrong(const Membership& m) {
  if (m.voters.empty()) return "no voters";
  for (const NodeId id : m.learners) {
    if (m.IsVoter(id)) return "a learner votes";
  }
  for (const NodeId id : m.learners_next) {
    if (!m.voters_outgoing.contains(id)) return "a learner to be is no outgoing voter";
    if (m.voters.contains(id)) return "a learner to be is an incoming voter";
  }
  if (!m.joint() && !m.learners_next.empty()) return "learners to be without a joint";
  for (const auto& [learner, replaces] : m.promotions) {
    if (!m.learners.contains(learner)) return "somebody is promoted who is no learner";
    if (replaces && !m.IsVoter(replaces)) return "a promotion replaces who is no voter";
  }
  std::vector<NodeId> named;
  for (const auto& [id, urls] : m.peer_urls) named.push_back(id);
  if (named != m.All()) return "addresses and members differ";
  for (const NodeId id : m.removed) {
    if (m.Contains(id)) return "a member is removed";
  }
  if (m.removed.size() > Membership::kMaxRemoved) return "too many removed";
  if (std::set<NodeId>(m.removed.begin(), m.removed.end()).size() != m.removed.size()) {
    return "somebody was removed twice";
  }
  return {};
}

// ---------------------------------------------------------------- one change

TEST(MemberChange, AddBeginsAsALearnerThatIsPromoted) {
  const auto target = TargetOf(MembersOf(3), Change(Kind::kAdd, 4));
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->voters, Ids({1, 2, 3}));
  EXPECT_EQ(target->learners, Ids({4}));
  EXPECT_EQ(target->promotions.at(NodeId(4)), NodeId(0));
  EXPECT_EQ(target->peer_urls.at(NodeId(4)), UrlOf(4));
  const Membership promoted = Promoted(*target, {NodeId(4)});
  EXPECT_EQ(promoted.voters, Ids({1, 2, 3, 4}));
  EXPECT_TRUE(promoted.learners.empty());
  EXPECT_TRUE(promoted.promotions.empty());
}

TEST(MemberChange, AddLearnerStaysALearnerUntilItIsPromotedByHand) {
  const auto target = TargetOf(MembersOf(3), Change(Kind::kAddLearner, 4));
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->learners, Ids({4}));
  EXPECT_TRUE(target->promotions.empty());
  const auto promoted = TargetOf(*target, Change(Kind::kPromote, 4));
  ASSERT_TRUE(promoted.ok());
  EXPECT_EQ(promoted->voters, Ids({1, 2, 3, 4}));
}

TEST(MemberChange, RemoveTakesVoterOrLearnerAndRemembersTheId) {
  Membership m = MembersOf(3, 1);
  for (const uint64_t id : {4, 2}) {
    const auto target = TargetOf(m, Change(Kind::kRemove, id));
    ASSERT_TRUE(target.ok());
    EXPECT_FALSE(target->Contains(NodeId(id)));
    EXPECT_FALSE(target->peer_urls.contains(NodeId(id)));
    EXPECT_TRUE(target->Removed(NodeId(id)));
    m = *target;
  }
  EXPECT_THAT(m.removed, ElementsAre(NodeId(4), NodeId(2)));
}

TEST(MemberChange, DemoteAndPromoteLeadBack) {
  const auto demoted = TargetOf(MembersOf(3), Change(Kind::kDemote, 3));
  ASSERT_TRUE(demoted.ok());
  EXPECT_EQ(demoted->voters, Ids({1, 2}));
  EXPECT_EQ(demoted->learners, Ids({3}));
  const auto promoted = TargetOf(*demoted, Change(Kind::kPromote, 3));
  ASSERT_TRUE(promoted.ok());
  EXPECT_EQ(*promoted, MembersOf(3));
}

TEST(MemberChange, UpdateChangesTheAddressAndNothingElse) {
  MemberChange update = Change(Kind::kUpdate, 2);
  update.peer_urls = {"http://elsewhere:1", "http://elsewhere:2"};
  const auto target = TargetOf(MembersOf(3), update);
  ASSERT_TRUE(target.ok());
  Membership want = MembersOf(3);
  want.peer_urls[NodeId(2)] = update.peer_urls;
  EXPECT_EQ(*target, want);
}

TEST(MemberChange, ReplaceTakesEffectInTheStepOfThePromotion) {
  MemberChange replace = Change(Kind::kReplace, 4, 3);
  replace.peer_urls = UrlOf(3);  // the new member lives where the old one did
  const auto target = TargetOf(MembersOf(3), replace);
  ASSERT_TRUE(target.ok());
  EXPECT_EQ(target->voters, Ids({1, 2, 3}));
  EXPECT_EQ(target->promotions.at(NodeId(4)), NodeId(3));
  const Membership promoted = Promoted(*target, {NodeId(4)});
  EXPECT_EQ(promoted.voters, Ids({1, 2, 4}));
  EXPECT_TRUE(promoted.Removed(NodeId(3)));
  EXPECT_EQ(WhatIsWrong(promoted), "");
  const Membership joint = FirstStep(*target, promoted);
  EXPECT_TRUE(joint.joint());
  EXPECT_FALSE(joint.Removed(NodeId(3)));  // it still counts in the outgoing half
  EXPECT_EQ(LeaveJoint(joint), promoted);
}

TEST(MemberChange, AReplacementThatNeverCameUpGivesWayToTheNext) {
  const auto first = TargetOf(MembersOf(3), Change(Kind::kReplace, 4, 3));
  ASSERT_TRUE(first.ok());
  const auto second = TargetOf(*first, Change(Kind::kReplace, 5, 3));
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(second->learners, Ids({5}));
  EXPECT_EQ(second->promotions.at(NodeId(5)), NodeId(3));
  EXPECT_TRUE(second->Removed(NodeId(4)));
  EXPECT_EQ(WhatIsWrong(*second), "");
}

TEST(MemberChange, WhoeverWasToBeReplacedMayLeaveBefore) {
  const auto replacing = TargetOf(MembersOf(3), Change(Kind::kReplace, 4, 3));
  ASSERT_TRUE(replacing.ok());
  for (const Kind kind : {Kind::kRemove, Kind::kDemote}) {
    const auto target = TargetOf(*replacing, Change(kind, 3));
    ASSERT_TRUE(target.ok());
    EXPECT_EQ(target->promotions.at(NodeId(4)), NodeId(0));  // beside the others, then
    EXPECT_EQ(Promoted(*target, {NodeId(4)}).voters, Ids({1, 2, 4}));
  }
}

// simple_idempotency, simple_safety, zero, NodeProposeAddDuplicateNode.
TEST(MemberChange, WhatCannotBeIsRefusedWithItsCode) {
  Membership m = MembersOf(3, 1);
  m.removed = {NodeId(9)};
  using absl::StatusCode;
  EXPECT_EQ(CodeOf(m, Change(Kind::kAdd, 2)), StatusCode::kAlreadyExists);
  EXPECT_EQ(CodeOf(m, Change(Kind::kAdd, 4)), StatusCode::kAlreadyExists);
  EXPECT_EQ(CodeOf(m, Change(Kind::kAddLearner, 4)), StatusCode::kAlreadyExists);
  EXPECT_EQ(CodeOf(m, Change(Kind::kReplace, 2, 3)), StatusCode::kAlreadyExists);
  EXPECT_EQ(CodeOf(m, Change(Kind::kAdd, 9)), StatusCode::kAlreadyExists);  // it left for good
  EXPECT_EQ(CodeOf(m, Change(Kind::kAdd, 0)), StatusCode::kAlreadyExists);  // no id at all
  for (const Kind kind : {Kind::kRemove, Kind::kPromote, Kind::kDemote, Kind::kUpdate}) {
    EXPECT_EQ(CodeOf(m, Change(kind, 7)), StatusCode::kNotFound);
  }
  EXPECT_EQ(CodeOf(m, Change(Kind::kReplace, 5, 7)), StatusCode::kNotFound);
  EXPECT_EQ(CodeOf(m, Change(Kind::kReplace, 5, 4)), StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(m, Change(Kind::kPromote, 1)), StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(m, Change(Kind::kDemote, 4)), StatusCode::kFailedPrecondition);
  MemberChange add = Change(Kind::kAdd, 5);
  add.peer_urls = UrlOf(1);
  EXPECT_EQ(CodeOf(m, add), StatusCode::kInvalidArgument);
  add.peer_urls.clear();
  EXPECT_EQ(CodeOf(m, add), StatusCode::kInvalidArgument);
  MemberChange update = Change(Kind::kUpdate, 2);
  update.peer_urls = UrlOf(4);
  EXPECT_EQ(CodeOf(m, update), StatusCode::kInvalidArgument);
  update.peer_urls = UrlOf(2);  // its own may stay
  EXPECT_EQ(CodeOf(m, update), StatusCode::kOk);
}

TEST(MemberChange, TheLastVoterStays) {
  const Membership one = MembersOf(1, 2);
  EXPECT_EQ(CodeOf(one, Change(Kind::kRemove, 1)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(one, Change(Kind::kDemote, 1)), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CodeOf(one, Change(Kind::kRemove, 2)), absl::StatusCode::kOk);
  // In the place of the last voter somebody else may come.
  EXPECT_EQ(CodeOf(one, Change(Kind::kReplace, 5, 1)), absl::StatusCode::kOk);
}

TEST(MemberChange, RemovedIdsAreForgottenOnlyBeyondTheLimit) {
  Membership m = MembersOf(3);
  for (uint64_t id = 10; id < 10 + Membership::kMaxRemoved + 5; ++id) {
    const auto in = TargetOf(m, Change(Kind::kAddLearner, id));
    ASSERT_TRUE(in.ok()) << in.status();
    const auto out = TargetOf(*in, Change(Kind::kRemove, id));
    ASSERT_TRUE(out.ok());
    m = *out;
  }
  ASSERT_EQ(m.removed.size(), Membership::kMaxRemoved);
  EXPECT_EQ(m.removed.front(), NodeId(15));  // the oldest went first
  EXPECT_EQ(WhatIsWrong(m), "");
}

// ---------------------------------------------------------------- steps

TEST(Steps, OneVoterMoreOrLessIsOneStep) {
  for (const MemberChange& change :
       {Change(Kind::kRemove, 3), Change(Kind::kDemote, 2), Change(Kind::kPromote, 4),
        Change(Kind::kRemove, 4), Change(Kind::kAdd, 5), Change(Kind::kUpdate, 1)}) {
    const Membership now = MembersOf(3, 1);
    const auto target = TargetOf(now, change);
    ASSERT_TRUE(target.ok());
    EXPECT_EQ(FirstStep(now, *target), *target);
  }
}

TEST(Steps, TwoVotersTakeAJointConfiguration) {
  const Membership now = MembersOf(3, 1);
  Membership target = now;
  target.voters = Ids({1, 2, 4});
  target.learners.clear();
  target.peer_urls.erase(NodeId(3));
  target.removed = {NodeId(3)};
  const Membership joint = FirstStep(now, target);
  EXPECT_EQ(joint.voters, Ids({1, 2, 4}));
  EXPECT_EQ(joint.voters_outgoing, Ids({1, 2, 3}));
  EXPECT_TRUE(joint.peer_urls.contains(NodeId(3)));  // it must be reached to the end
  EXPECT_EQ(WhatIsWrong(joint), "");
  EXPECT_EQ(LeaveJoint(joint), target);
}

// joint_learners_next: who is demoted goes on voting in the outgoing half.
TEST(Steps, ADemotionWaitsForTheEndOfTheJointConfiguration) {
  const Membership now = MembersOf(3, 1);
  Membership target = now;
  target.voters = Ids({1, 2, 4});
  target.learners = Ids({3});
  const Membership joint = FirstStep(now, target);
  EXPECT_EQ(joint.learners_next, Ids({3}));
  EXPECT_FALSE(joint.learners.contains(NodeId(3)));
  EXPECT_TRUE(joint.IsVoter(NodeId(3)));
  EXPECT_EQ(WhatIsWrong(joint), "");
  EXPECT_EQ(LeaveJoint(joint), target);
}

// ---------------------------------------------------------------- quick checks

// `members` is a set of ids below 32, as bits.
bool IsQuorum(const Membership& m, uint32_t members) {
  std::map<NodeId, bool> votes;
  for (uint64_t id = 0; id < 32; ++id) votes[NodeId(id)] = (members >> id & 1) != 0;
  return CountVotes(m, votes) == VoteOutcome::kWon;
}

// Nobody can decide without the old configuration while the old can decide without the new.
bool QuorumsMeet(const Membership& before, const Membership& after) {
  std::vector<NodeId> all = before.All();
  for (const NodeId id : after.All()) all.push_back(id);
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  CHECK(all.size() <= 16);
  for (uint32_t pick = 0; pick < (uint32_t{1} << all.size()); ++pick) {
    uint32_t some = 0, others = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const uint32_t bit = uint32_t{1} << all[i].value;
      ((pick >> i & 1) != 0 ? some : others) |= bit;
    }
    if (IsQuorum(before, some) && IsQuorum(after, others)) return false;
  }
  return true;
}

MemberChange RandomChange(base::Rng& rng, uint64_t max_id) {
  const Kind kind = static_cast<Kind>(rng.Below(7));
  const uint64_t id = 1 + rng.Below(max_id);
  return Change(kind, id, kind == Kind::kReplace ? 1 + rng.Below(max_id) : 0);
}

std::vector<NodeId> RandomReady(const Membership& m, base::Rng& rng) {
  std::vector<NodeId> ready;
  for (const auto& [learner, replaces] : m.promotions) {
    if (rng.OneIn(2)) ready.push_back(learner);
  }
  return ready;
}

// What one random change leads to; `now` if it cannot be.
Membership RandomTarget(const Membership& now, base::Rng& rng, uint64_t max_id) {
  const std::vector<NodeId> ready = RandomReady(now, rng);
  if (!ready.empty() && rng.OneIn(2)) return Promoted(now, ready);
  const auto target = TargetOf(now, RandomChange(rng, max_id));
  return target.ok() ? *target : now;
}

// Who left in which order is the one thing that a single step cannot tell.
Membership WithSortedRemoved(Membership m) {
  std::sort(m.removed.begin(), m.removed.end());
  return m;
}

TEST(QuickCheck, EveryStepKeepsTheQuorumsTogether) {
  size_t steps = 0, joints = 0;
  for (uint64_t seed = kSeed; seed < kSeed + 150; ++seed) {
    base::Rng rng(seed);
    Membership now = MembersOf(1 + rng.Below(5), rng.Below(3));
    for (int i = 0; i < 8; ++i) {
      Membership target = now;  // up to three changes at once
      for (uint64_t n = 1 + rng.Below(3); n > 0; --n) target = RandomTarget(target, rng, 12);
      ASSERT_EQ(WhatIsWrong(target), "") << "seed " << seed;
      Membership step = FirstStep(now, target);
      ASSERT_EQ(WhatIsWrong(step), "") << "seed " << seed;
      ASSERT_TRUE(QuorumsMeet(now, step)) << "seed " << seed;
      if (step.joint()) {
        ++joints;
        const Membership left = LeaveJoint(step);
        ASSERT_EQ(WhatIsWrong(left), "") << "seed " << seed;
        ASSERT_TRUE(QuorumsMeet(step, left)) << "seed " << seed;
        step = left;
      }
      ASSERT_EQ(WithSortedRemoved(step), WithSortedRemoved(target)) << "seed " << seed;
      now = step;
      ++steps;
    }
  }
  EXPECT_GT(joints, steps / 40);
}

// The check above can fail: two voters at once, without a joint configuration, do not meet.
TEST(QuickCheck, ItWouldSeeAStepThatIsTooLarge) {
  EXPECT_FALSE(QuorumsMeet(MembersOf(3), MembersOf(5)));
  EXPECT_FALSE(QuorumsMeet(MembersOf(1), MembersOf(3)));
  EXPECT_TRUE(QuorumsMeet(MembersOf(3), MembersOf(4)));
}

// Any row of simple changes leads where one joint change does.
TEST(QuickCheck, SimpleChangesEqualTheSameThroughAJointConfiguration) {
  for (uint64_t seed = kSeed; seed < kSeed + 1000; ++seed) {
    base::Rng rng(seed);
    const Membership start = MembersOf(1 + rng.Below(5), rng.Below(4));
    Membership simple = start;
    for (uint64_t n = 1 + rng.Below(8); n > 0; --n) {
      const Membership target = RandomTarget(simple, rng, 12);
      const Membership step = FirstStep(simple, target);
      simple = step.joint() ? LeaveJoint(step) : step;
    }
    const Membership step = FirstStep(start, simple);
    const Membership joint = step.joint() ? LeaveJoint(step) : step;
    ASSERT_EQ(WhatIsWrong(joint), "") << "seed " << seed;
    ASSERT_EQ(WithSortedRemoved(joint), WithSortedRemoved(simple)) << "seed " << seed;
  }
}

// ---------------------------------------------------------------- encoding

TEST(Encoding, RoundTripsEveryReachableMembership) {
  base::Rng rng(kSeed);
  Membership now = MembersOf(3, 2);
  for (int i = 0; i < 2000; ++i) {
    const Membership step = FirstStep(now, RandomTarget(now, rng, 30));
    const auto back = Membership::Decode(step.Encode());
    ASSERT_TRUE(back.ok());
    ASSERT_EQ(*back, step);
    now = step.joint() ? LeaveJoint(step) : step;
  }
  EXPECT_FALSE(now.removed.empty());
}

TEST(Encoding, KeepsPromotionsAndTheRemovedInTheirOrder) {
  Membership m = MembersOf(3, 2);
  m.promotions = {{NodeId(4), NodeId(2)}, {NodeId(5), NodeId(0)}};
  m.removed = {NodeId(9), NodeId(7), NodeId(8)};
  const auto back = Membership::Decode(m.Encode());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(*back, m);
}

// Release 0.1 wrote format 1: addresses, voters, outgoing voters, learners, learners next.
TEST(Encoding, ReadsWhatRelease01Wrote) {
  std::string old(1, '\1');
  base::AppendBigEndian32(old, 2);
  for (const uint64_t id : {1, 4}) {
    base::AppendBigEndian64(old, id);
    base::AppendBigEndian32(old, 1);
    const std::string url = UrlOf(id)[0];
    base::AppendBigEndian32(old, static_cast<uint32_t>(url.size()));
    old += url;
  }
  const auto add_set = [&](std::initializer_list<uint64_t> ids) {
    base::AppendBigEndian32(old, static_cast<uint32_t>(ids.size()));
    for (const uint64_t id : ids) base::AppendBigEndian64(old, id);
  };
  add_set({1});
  add_set({});
  add_set({4});
  add_set({});
  Membership want;
  want.voters = Ids({1});
  want.learners = Ids({4});
  want.peer_urls = {{NodeId(1), UrlOf(1)}, {NodeId(4), UrlOf(4)}};
  const auto read = Membership::Decode(old);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(*read, want);
  EXPECT_FALSE(Membership::Decode(old + "x").ok());
  EXPECT_FALSE(Membership::Decode(old.substr(0, old.size() - 1)).ok());
  old[0] = '\3';  // nobody knows what this is
  EXPECT_FALSE(Membership::Decode(old).ok());
}

}  // namespace
}  // namespace holdfast::raft::test
