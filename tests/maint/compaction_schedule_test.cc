// Automatic compaction in virtual time: when it comes, and to which revision.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "server/compactor.h"

namespace holdfast::server {
namespace {

using Mode = CompactionPolicy::Mode;

// A store that gains revisions as `revision_at` says, looked at every second.
class World {
 public:
  World(const CompactionPolicy& policy, std::function<int64_t(absl::Duration)> revision_at)
      : schedule_(policy, absl::ZeroDuration()), revision_at_(std::move(revision_at)) {}

  void RunUntil(absl::Duration end) {
    for (; now_ <= end; now_ += absl::Seconds(1)) {
      const auto target = schedule_.Tick(
          now_,
          {.revision = revision_at_(now_), .compact_revision = compacted_, .leading = leading_});
      if (!target.has_value()) continue;
      EXPECT_GT(*target, compacted_);
      EXPECT_LE(*target, revision_at_(now_));
      if (failures_ > 0) {
        --failures_;
        schedule_.OnDone(now_, false);
        continue;
      }
      compactions_.emplace_back(now_, *target);
      compacted_ = *target;
      schedule_.OnDone(now_, true);
    }
  }

  CompactionSchedule schedule_;
  std::function<int64_t(absl::Duration)> revision_at_;
  absl::Duration now_ = absl::ZeroDuration();
  int64_t compacted_ = 0;
  bool leading_ = true;
  int failures_ = 0;
  std::vector<std::pair<absl::Duration, int64_t>> compactions_;
};

std::function<int64_t(absl::Duration)> PerSecond(int64_t rate) {
  return [rate](absl::Duration now) { return 1 + rate * absl::ToInt64Seconds(now); };
}

TEST(CompactionSchedule, PeriodicWaitsOnePeriodThenGoesEveryHour) {
  World world({.mode = Mode::kPeriodic, .period = absl::Hours(5)}, PerSecond(1));
  world.RunUntil(absl::Hours(5) - absl::Seconds(1));
  EXPECT_TRUE(world.compactions_.empty());
  world.RunUntil(absl::Hours(8));
  ASSERT_EQ(world.compactions_.size(), 4u) << "after 5, 6, 7, 8 hours";
  for (const auto& [at, revision] : world.compactions_) {
    // Never younger than the period, and at most a sample and an interval older.
    const int64_t oldest_wanted = 1 + absl::ToInt64Seconds(at - absl::Hours(5));
    EXPECT_LE(revision, oldest_wanted);
    EXPECT_GE(revision, oldest_wanted - 2 * 360);
  }
}

TEST(CompactionSchedule, AShortPeriodIsItsOwnInterval) {
  World world({.mode = Mode::kPeriodic, .period = absl::Minutes(10)}, PerSecond(2));
  world.RunUntil(absl::Hours(1));
  EXPECT_EQ(world.compactions_.size(), 6u);
}

TEST(CompactionSchedule, AFollowerKnowsTheTimesWhenItBecomesLeader) {
  World world({.mode = Mode::kPeriodic, .period = absl::Hours(1)}, PerSecond(1));
  world.leading_ = false;
  world.RunUntil(absl::Hours(3));
  EXPECT_TRUE(world.compactions_.empty());
  world.leading_ = true;
  world.RunUntil(absl::Hours(3) + absl::Minutes(7));
  ASSERT_EQ(world.compactions_.size(), 1u);
  EXPECT_GT(world.compactions_[0].second, 2 * 3600 - 2 * 360);
}

TEST(CompactionSchedule, AFailureIsTriedAgainWithTheNextSample) {
  World world({.mode = Mode::kPeriodic, .period = absl::Hours(1)}, PerSecond(1));
  world.failures_ = 2;
  world.RunUntil(absl::Hours(1) + absl::Minutes(13));
  ASSERT_EQ(world.compactions_.size(), 1u);
  EXPECT_EQ(world.compactions_[0].first, absl::Hours(1) + absl::Minutes(12));
}

TEST(CompactionSchedule, RevisionKeepsTheNewestSoMany) {
  World world({.mode = Mode::kRevision, .revisions = 1000}, PerSecond(10));
  world.RunUntil(absl::Minutes(11));
  ASSERT_EQ(world.compactions_.size(), 2u);
  EXPECT_EQ(world.compactions_[0], std::pair(absl::Minutes(5), int64_t{1 + 3000 - 1000}));
  EXPECT_EQ(world.compactions_[1], std::pair(absl::Minutes(10), int64_t{1 + 6000 - 1000}));
}

TEST(CompactionSchedule, WithoutWritesThereIsNothingToDo) {
  for (const Mode mode : {Mode::kPeriodic, Mode::kRevision, Mode::kDefault}) {
    World world({.mode = mode, .period = absl::Minutes(10), .revisions = 100},
                [](absl::Duration) { return 500; });
    world.RunUntil(absl::Hours(4));
    EXPECT_LE(world.compactions_.size(), 1u);
  }
}

TEST(CompactionSchedule, OffIsOff) {
  World world({.mode = Mode::kOff}, PerSecond(1000));
  world.RunUntil(absl::Hours(24));
  EXPECT_TRUE(world.compactions_.empty());
}

TEST(CompactionSchedule, TheDefaultKeepsWhicheverReachesFurtherBack) {
  // 1,000 a second: 15 minutes are 900,000 revisions, far more than 100,000.
  World fast({}, PerSecond(1000));
  fast.RunUntil(absl::Hours(1));
  EXPECT_GE(fast.compactions_.size(), 40u);
  for (const auto& [at, revision] : fast.compactions_) {
    EXPECT_LE(revision, 1 + 1000 * absl::ToInt64Seconds(at - absl::Minutes(15)));
  }
  EXPECT_GT(fast.compacted_, fast.revision_at_(absl::Minutes(42))) << "and not for ever";

  // 10 a second: 100,000 revisions are almost three hours.
  World slow({}, PerSecond(10));
  slow.RunUntil(absl::Minutes(160));
  EXPECT_TRUE(slow.compactions_.empty());
  slow.RunUntil(absl::Hours(6));
  ASSERT_FALSE(slow.compactions_.empty());
  for (const auto& [at, revision] : slow.compactions_) {
    EXPECT_LE(revision, slow.revision_at_(at) - 100'000);
  }
  EXPECT_GT(slow.compacted_, slow.revision_at_(absl::Hours(6)) - 100'000 - 2000);
}

TEST(CompactionSchedule, ARestartForgetsTheTimesAndKeepsAWholePeriodMore) {
  // After a restart nobody knows when the old revisions were written.
  World world({}, [](absl::Duration now) { return 10'000'000 + absl::ToInt64Seconds(now); });
  world.RunUntil(absl::Minutes(15) - absl::Seconds(1));
  EXPECT_TRUE(world.compactions_.empty());
  world.RunUntil(absl::Minutes(16));
  EXPECT_FALSE(world.compactions_.empty());
}

}  // namespace
}  // namespace holdfast::server
