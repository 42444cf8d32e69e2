#include "base/rng.h"

#include <gtest/gtest.h>

#include <vector>

namespace holdfast::base {
namespace {

TEST(Rng, TheSequenceOfASeedNeverChanges) {
  // The 10,000th draw of mt19937_64 from its default seed, as the C++ standard gives it.
  Rng rng(5489);
  uint64_t last = 0;
  for (int i = 0; i < 10'000; ++i) last = rng.Next();
  EXPECT_EQ(last, 9981545732273789042u);
}

TEST(Rng, BelowCoversItsRangeEvenly) {
  Rng rng(1);
  std::vector<int> counts(10);
  for (int i = 0; i < 100'000; ++i) ++counts[rng.Below(10)];
  for (const int count : counts) {
    EXPECT_GT(count, 9'500);
    EXPECT_LT(count, 10'500);
  }
}

TEST(Rng, OneInIsSometimesTrue) {
  Rng rng(2);
  int hits = 0;
  for (int i = 0; i < 10'000; ++i) hits += rng.OneIn(10) ? 1 : 0;
  EXPECT_GT(hits, 850);
  EXPECT_LT(hits, 1'150);
  EXPECT_TRUE(rng.OneIn(1));
}

TEST(Rng, BelowNothingStopsTheProcess) {
  Rng rng(3);
  EXPECT_DEATH(rng.Below(0), "CHECK");
}

TEST(Rng, SeedsOfTheSystemDiffer) { EXPECT_NE(RandomSeed(), RandomSeed()); }

}  // namespace
}  // namespace holdfast::base
