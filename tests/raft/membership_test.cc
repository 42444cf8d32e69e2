#include "replication/membership.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/rng.h"
#include "member.h"

namespace holdfast::raft::test {
namespace {

Membership Joint(const std::set<uint64_t>& incoming, const std::set<uint64_t>& outgoing) {
  Membership m;
  for (const uint64_t id : incoming) m.voters.insert(NodeId(id));
  for (const uint64_t id : outgoing) m.voters_outgoing.insert(NodeId(id));
  return m;
}

uint64_t Reached(const Membership& m, const std::map<uint64_t, uint64_t>& values) {
  return QuorumValue(m, [&](NodeId id) {
    const auto it = values.find(id.value);
    return it == values.end() ? uint64_t{0} : it->second;
  });
}

TEST(Quorum, IsTheLargestValueOfAMajority) {
  EXPECT_EQ(Reached(Joint({1}, {}), {{1, 12}}), 12u);
  EXPECT_EQ(Reached(Joint({1, 2}, {}), {{1, 12}, {2, 5}}), 5u);
  EXPECT_EQ(Reached(Joint({1, 2, 3}, {}), {{1, 12}, {2, 5}}), 5u);
  EXPECT_EQ(Reached(Joint({1, 2, 3}, {}), {{1, 12}}), 0u);
  EXPECT_EQ(Reached(Joint({1, 2, 3, 4}, {}), {{1, 9}, {2, 8}, {3, 7}, {4, 6}}), 7u);
  EXPECT_EQ(Reached(Joint({1, 2, 3, 4, 5}, {}), {{1, 9}, {2, 8}, {3, 7}, {4, 6}}), 7u);
  EXPECT_EQ(Reached(Joint({}, {}), {}), UINT64_MAX);
}

TEST(Quorum, OfAJointConfigurationNeedsBothHalves) {
  EXPECT_EQ(Reached(Joint({1, 2, 3}, {3, 4, 5}), {{1, 9}, {2, 9}, {3, 9}}), 0u);
  EXPECT_EQ(Reached(Joint({1, 2, 3}, {3, 4, 5}), {{1, 9}, {2, 9}, {3, 4}, {4, 7}}), 4u);
  EXPECT_EQ(Reached(Joint({1, 2, 3}, {1, 2, 3}), {{1, 9}, {2, 9}, {3, 4}}), 9u);
}

TEST(Quorum, LearnersAreNotAsked) {
  Membership m = MembersOf(3, 2);
  EXPECT_EQ(Reached(m, {{1, 1}, {2, 1}, {4, 9}, {5, 9}}), 1u);
}

// Brute force: the largest value that more than half of each half has reached.
TEST(Quorum, AgreesWithBruteForce) {
  base::Rng rng(4711);
  for (int run = 0; run < 50'000; ++run) {
    Membership m;
    std::map<uint64_t, uint64_t> values;
    const uint64_t nodes = 1 + rng.Below(7);
    for (uint64_t id = 1; id <= nodes; ++id) {
      if (!rng.OneIn(3)) m.voters.insert(NodeId(id));
      if (rng.OneIn(4)) m.voters_outgoing.insert(NodeId(id));
      values[id] = rng.Below(6);
    }
    const auto reached_by_majority = [&](const std::set<NodeId>& half, uint64_t value) {
      size_t count = 0;
      for (const NodeId id : half) count += values[id.value] >= value ? 1 : 0;
      return half.empty() || count > half.size() / 2;
    };
    uint64_t want = 0;
    for (uint64_t value = 0; value < 6; ++value) {
      if (reached_by_majority(m.voters, value) && reached_by_majority(m.voters_outgoing, value)) {
        want = value;
      }
    }
    if (m.voters.empty() && m.voters_outgoing.empty()) want = UINT64_MAX;
    ASSERT_EQ(Reached(m, values), want) << "run " << run;
  }
}

TEST(Votes, AreCountedForBothHalves) {
  const Membership plain = Joint({1, 2, 3}, {});
  const auto count = [](const Membership& m, const std::map<uint64_t, bool>& votes) {
    std::map<NodeId, bool> by_id;
    for (const auto& [id, vote] : votes) by_id[NodeId(id)] = vote;
    return CountVotes(m, by_id);
  };
  EXPECT_EQ(count(plain, {}), VoteOutcome::kPending);
  EXPECT_EQ(count(plain, {{1, true}}), VoteOutcome::kPending);
  EXPECT_EQ(count(plain, {{1, true}, {2, false}}), VoteOutcome::kPending);
  EXPECT_EQ(count(plain, {{1, true}, {2, true}}), VoteOutcome::kWon);
  EXPECT_EQ(count(plain, {{1, true}, {2, false}, {3, false}}), VoteOutcome::kLost);
  EXPECT_EQ(count(plain, {{1, true}, {8, true}, {9, true}}), VoteOutcome::kPending);
  const Membership joint = Joint({1, 2, 3}, {3, 4, 5});
  EXPECT_EQ(count(joint, {{1, true}, {2, true}}), VoteOutcome::kPending);
  EXPECT_EQ(count(joint, {{1, true}, {2, true}, {3, true}, {4, true}}), VoteOutcome::kWon);
  EXPECT_EQ(count(joint, {{1, true}, {2, true}, {4, false}, {5, false}}), VoteOutcome::kLost);
}

TEST(Membership, EncodingRoundTrips) {
  Membership m = MembersOf(3, 1);
  m.voters_outgoing = {NodeId(2), NodeId(9)};
  m.learners_next = {NodeId(9)};
  m.peer_urls[NodeId(9)] = {"http://a:1", std::string("\0x", 2), ""};
  const auto back = Membership::Decode(m.Encode());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(*back, m);
  EXPECT_EQ(*Membership::Decode(Membership().Encode()), Membership());
}

TEST(Membership, DamagedRecordsAreRefused) {
  const std::string good = MembersOf(3, 1).Encode();
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(Membership::Decode(std::string_view(good).substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(Membership::Decode(good + "x").ok());
  base::Rng rng(1);
  for (int run = 0; run < 2000; ++run) {  // any answer will do, but no crash and no huge allocation
    std::string bad = good;
    bad[rng.Below(bad.size())] = static_cast<char>(rng.Next());
    (void)Membership::Decode(bad);
  }
}

TEST(Membership, AllNamesEverybodyOnceAscending) {
  Membership m = Joint({5, 1}, {1, 3});
  m.learners = {NodeId(4)};
  EXPECT_EQ(m.All(), (std::vector<NodeId>{NodeId(1), NodeId(3), NodeId(4), NodeId(5)}));
  EXPECT_TRUE(m.IsVoter(NodeId(3)));
  EXPECT_FALSE(m.IsVoter(NodeId(4)));
  EXPECT_TRUE(m.Contains(NodeId(4)));
  EXPECT_FALSE(m.Contains(NodeId(2)));
}

}  // namespace
}  // namespace holdfast::raft::test
