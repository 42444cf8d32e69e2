// The check of the members against each other, in virtual time: three to five members whose digests
// the test chooses.
#include "server/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr NodeId kA(1), kB(2), kC(3), kD(4), kE(5);

class World {
 public:
  explicit World(std::set<NodeId> voters, std::set<NodeId> learners = {}) {
    cluster_.self = kA;
    cluster_.leading = true;
    cluster_.term = Term(1);
    cluster_.settled = true;
    cluster_.voters = std::move(voters);
    cluster_.learners = std::move(learners);
  }

  // So many ticks of 100 ms, with checks that are applied at once.
  void Run(absl::Duration time) {
    for (const absl::Duration end = now_ + time; now_ < end; now_ += absl::Milliseconds(100)) {
      Step();
    }
  }

  void Step() {
    const Divergence::Actions actions = core_.Tick(now_, cluster_);
    warnings_ += actions.warnings.size();
    if (actions.self.has_value()) self_fenced_ = true;
    for (const Divergence::Fence& fence : actions.fences) {
      fences_.insert(fence.member);
      ++fence_calls_;
    }
    for (const Divergence::AlarmChange& change : actions.alarms) {
      ++alarm_calls_;
      if (lose_alarms_) continue;
      if (change.raise) {
        cluster_.alarms.Raise(change.alarm);
      } else {
        cluster_.alarms.Clear(change.alarm);
      }
    }
    if (actions.check.has_value()) {
      ++checks_;
      check_times_.push_back(now_);
      if (lose_checks_) {
        core_.OnCheckFailed(now_);
      } else {
        ++index_;
        parts_.push_back(actions.check->part);
        froms_.push_back(actions.check->from);
        CheckResult own{.index = Index(index_), .low = DigestOfMember(kA), .records = 10};
        if (actions.check->part == command::v1::Check::DATA && chunks_left_ > 0) {
          --chunks_left_;
          own.next = "k" + std::to_string(chunks_left_);
        }
        core_.OnChecked(now_, own);
      }
    }
    for (const Divergence::Question& question : actions.questions) {
      asked_[question.to] += 1;
      if (silent_.contains(question.to)) continue;
      for (const Index index : question.indexes) {
        core_.OnDigest(question.to, index,
                       {.low = DigestOfMember(question.to), .high = 0, .records = 10});
      }
    }
  }

  uint64_t DigestOfMember(NodeId member) const {
    const auto other = other_digest_.find(member);
    return other == other_digest_.end() ? 77 : other->second;
  }

  Divergence core_;
  Divergence::Cluster cluster_;
  absl::Duration now_ = absl::ZeroDuration();
  uint64_t index_ = 100;
  std::map<NodeId, uint64_t> other_digest_;
  std::set<NodeId> silent_;
  bool lose_checks_ = false;
  bool lose_alarms_ = false;
  int chunks_left_ = 0;

  int checks_ = 0;
  std::vector<absl::Duration> check_times_;
  std::vector<command::v1::Check::Part> parts_;
  std::vector<std::string> froms_;
  std::map<NodeId, int> asked_;
  std::set<NodeId> fences_;
  int fence_calls_ = 0;
  int alarm_calls_ = 0;
  size_t warnings_ = 0;
  bool self_fenced_ = false;
};

TEST(Divergence, EqualMembersAreLeftInPeace) {
  World world({kA, kB, kC}, {kD});
  world.Run(absl::Minutes(5));
  EXPECT_GT(world.checks_, 20);
  EXPECT_GT(world.asked_[kB], 10);
  EXPECT_GT(world.asked_[kD], 10) << "learners too";
  EXPECT_THAT(world.fences_, IsEmpty());
  EXPECT_EQ(world.alarm_calls_, 0);
  EXPECT_EQ(world.warnings_, 0u);
  EXPECT_FALSE(world.self_fenced_);
}

TEST(Divergence, TheMinorityIsFencedAndItsAlarmRaised) {
  World world({kA, kB, kC});
  world.other_digest_[kC] = 78;
  world.Run(absl::Seconds(5));
  EXPECT_THAT(world.fences_, ElementsAre(kC));
  EXPECT_TRUE(world.cluster_.alarms.corrupt(kC.value));
  EXPECT_EQ(world.cluster_.alarms.alarms().size(), 1u);
  EXPECT_FALSE(world.self_fenced_);
}

TEST(Divergence, AFenceThatIsNotHeardIsRepeatedAndAnAlarmThatIsLostToo) {
  World world({kA, kB, kC});
  world.other_digest_[kC] = 78;
  world.lose_alarms_ = true;
  world.Run(absl::Seconds(21));
  EXPECT_GE(world.fence_calls_, 8);
  EXPECT_LE(world.fence_calls_, 12) << "but not at every tick";
  EXPECT_GE(world.alarm_calls_, 8);
  world.lose_alarms_ = false;
  world.Run(absl::Seconds(3));
  EXPECT_TRUE(world.cluster_.alarms.corrupt(kC.value));
}

TEST(Divergence, ALearnerThatDiffersIsFencedToo) {
  World world({kA, kB, kC}, {kD});
  world.other_digest_[kD] = 78;
  world.Run(absl::Seconds(5));
  EXPECT_THAT(world.fences_, ElementsAre(kD));
}

TEST(Divergence, OneVoterIsAMajorityAgainstItsLearner) {
  World world({kA}, {kD});
  world.other_digest_[kD] = 78;
  world.Run(absl::Seconds(5));
  EXPECT_THAT(world.fences_, ElementsAre(kD));
  EXPECT_FALSE(world.self_fenced_);
}

TEST(Divergence, TheLeaderItselfMayBeTheOne) {
  World world({kA, kB, kC});
  world.other_digest_[kA] = 78;
  world.Run(absl::Seconds(5));
  EXPECT_TRUE(world.self_fenced_);
  EXPECT_THAT(world.fences_, IsEmpty()) << "the sound ones";
}

TEST(Divergence, LearnersDoNotVote) {
  // Two learners agree with the wrong one of three voters.
  World world({kA, kB, kC}, {kD, kE});
  world.other_digest_ = {{kC, 78}, {kD, 78}, {kE, 78}};
  world.Run(absl::Seconds(5));
  EXPECT_THAT(world.fences_, ElementsAre(kC, kD, kE));
  EXPECT_FALSE(world.self_fenced_);
}

TEST(Divergence, OfTwoNobodyKnowsWhoIsRight) {
  World world({kA, kB});
  world.other_digest_[kB] = 78;
  world.Run(absl::Seconds(5));
  EXPECT_THAT(world.fences_, IsEmpty());
  EXPECT_TRUE(world.cluster_.alarms.all_corrupt());
  EXPECT_GE(world.warnings_, 1u);
  // Nothing more is asked of a cluster that has stopped.
  const int checks = world.checks_;
  world.Run(absl::Minutes(1));
  EXPECT_EQ(world.checks_, checks);
  // A person clears it; if the difference is still there, it comes back.
  world.cluster_.alarms.Clear({0, AlarmType::kCorrupt});
  world.Run(absl::Seconds(30));
  EXPECT_TRUE(world.cluster_.alarms.all_corrupt());
}

TEST(Divergence, TheMissingVoiceIsWaitedForBeforeAllAreStopped) {
  World world({kA, kB, kC});
  world.other_digest_[kB] = 78;
  world.silent_ = {kC};
  world.Run(absl::Seconds(50));
  EXPECT_FALSE(world.cluster_.alarms.all_corrupt());
  EXPECT_THAT(world.fences_, IsEmpty());
  {
    World decided = world;
    decided.silent_.clear();
    decided.Run(absl::Seconds(2));
    EXPECT_THAT(decided.fences_, ElementsAre(kB));
    EXPECT_FALSE(decided.cluster_.alarms.all_corrupt());
  }
  world.Run(absl::Seconds(15));
  EXPECT_TRUE(world.cluster_.alarms.all_corrupt());
}

TEST(Divergence, SilentMembersAreLeftOutAndAskedAgain) {
  World world({kA, kB, kC});
  world.silent_ = {kC};
  world.Run(absl::Seconds(30));
  EXPECT_GE(world.asked_[kC], 30);
  EXPECT_EQ(world.alarm_calls_, 0);
  world.silent_.clear();
  world.other_digest_[kC] = 78;  // it replays what it missed, and differs
  world.Run(absl::Seconds(2));
  EXPECT_THAT(world.fences_, ElementsAre(kC));
}

TEST(Divergence, ARepairedMemberIsAnotherAndTheAlarmGoes) {
  World world({kA, kB, kC});
  world.other_digest_[kC] = 78;
  world.Run(absl::Seconds(5));
  ASSERT_TRUE(world.cluster_.alarms.corrupt(kC.value));
  world.cluster_.settled = false;
  world.Run(absl::Seconds(5));
  EXPECT_TRUE(world.cluster_.alarms.corrupt(kC.value));
  world.cluster_.settled = true;
  world.cluster_.voters = {kA, kB, kE};
  world.Run(absl::Seconds(5));
  EXPECT_THAT(world.cluster_.alarms.alarms(), IsEmpty());
  const int fences = world.fence_calls_;
  world.Run(absl::Minutes(1));
  EXPECT_EQ(world.fence_calls_, fences);
}

TEST(Divergence, AnotherLeadersAlarmIsClearedByTheNext) {
  World world({kA, kB, kE});
  world.cluster_.alarms.Raise({kC.value, AlarmType::kCorrupt});
  world.cluster_.alarms.Raise({kC.value, AlarmType::kNoSpace});
  world.Run(absl::Seconds(1));
  EXPECT_THAT(world.cluster_.alarms.alarms(),
              ElementsAre(AlarmSet::Alarm(kC.value, AlarmType::kNoSpace)))
      << "space is an operator's affair";
}

TEST(Divergence, OnlyTheLeaderAsks) {
  World world({kA, kB, kC});
  world.cluster_.leading = false;
  world.other_digest_[kC] = 78;
  world.cluster_.alarms.Raise({kE.value, AlarmType::kCorrupt});
  world.Run(absl::Minutes(1));
  EXPECT_EQ(world.checks_, 0);
  EXPECT_EQ(world.alarm_calls_, 0);
}

TEST(Divergence, AnswersOfAnEarlierTermMeanNothing) {
  World world({kA, kB, kC});
  world.silent_ = {kB, kC};
  world.Run(absl::Seconds(3));
  const uint64_t old_index = world.index_;
  world.cluster_.term = Term(3);
  world.Step();
  world.core_.OnDigest(kB, Index(old_index), {.low = 1});
  world.core_.OnDigest(kC, Index(old_index), {.low = 1});
  world.Step();
  EXPECT_FALSE(world.self_fenced_);
}

TEST(Divergence, AloneThereIsNothingToCompare) {
  World world({kA});
  world.Run(absl::Minutes(5));
  EXPECT_EQ(world.checks_, 0);
}

TEST(Divergence, APassIsWholeAndFastWhileThingsChangeThenSlow) {
  World world({kA, kB, kC});
  world.chunks_left_ = 3;
  world.Run(absl::Seconds(6));
  ASSERT_GE(world.parts_.size(), 5u);
  EXPECT_EQ(world.parts_[0], command::v1::Check::META);
  EXPECT_EQ(world.parts_[1], command::v1::Check::DATA);
  EXPECT_THAT(std::vector<std::string>(world.froms_.begin(), world.froms_.begin() + 5),
              ElementsAre("", "", "k2", "k1", "k0"));
  world.Run(absl::Minutes(2));
  const size_t checks = world.check_times_.size();
  EXPECT_GE(world.check_times_[checks - 1] - world.check_times_[checks - 2],
            Divergence::kIdleInterval);
  // A write: quick again.
  world.cluster_.revision = 5;
  world.Run(absl::Seconds(5));
  EXPECT_GE(world.check_times_.size(), checks + 2) << "one whole pass";
}

TEST(Divergence, ALostCheckIsRepeatedFromTheSamePlace) {
  World world({kA, kB, kC});
  world.chunks_left_ = 1000;
  world.Run(absl::Seconds(10));
  world.lose_checks_ = true;
  world.Run(absl::Seconds(10));
  world.lose_checks_ = false;
  world.cluster_.term = Term(4);
  const size_t before = world.froms_.size();
  world.Run(absl::Seconds(2));
  ASSERT_GT(world.froms_.size(), before);
  EXPECT_EQ(world.parts_.back(), command::v1::Check::DATA);
  EXPECT_NE(world.froms_.back(), "") << "an election does not begin the pass anew";
}

TEST(Divergence, WhatIsAwaitedIsBounded) {
  World world({kA, kB, kC});
  world.silent_ = {kB, kC};
  for (int i = 0; i < 300; ++i) {
    world.cluster_.revision = i;
    world.Run(absl::Seconds(1));
  }
  const Divergence::Actions actions = world.core_.Tick(world.now_ + absl::Hours(0), world.cluster_);
  for (const Divergence::Question& question : actions.questions) {
    EXPECT_LE(question.indexes.size(), Divergence::kRoundsMax);
  }
}

}  // namespace
}  // namespace holdfast::server
