#include "bench/keys.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "bench/operation.h"

namespace holdfast::bench {
namespace {

TEST(ZipfRanksTest, FrequenciesFollowTheLaw) {
  constexpr uint64_t kRanks = 1000;
  constexpr int kDraws = 400'000;
  double weights = 0;
  for (uint64_t rank = 1; rank <= kRanks; ++rank) weights += std::pow(double(rank), -0.99);
  base::Rng rng(1);
  const ZipfRanks zipf(kRanks);
  std::vector<int> counts(kRanks + 1);
  for (int i = 0; i < kDraws; ++i) {
    const uint64_t rank = zipf.Next(rng);
    ASSERT_GE(rank, 1u);
    ASSERT_LE(rank, kRanks);
    ++counts[rank];
  }
  for (const uint64_t rank : {1, 2, 3, 10, 100}) {
    const double expected = kDraws * std::pow(double(rank), -0.99) / weights;
    // Five standard deviations of the count.
    EXPECT_NEAR(counts[rank], expected, 5 * std::sqrt(expected)) << "rank " << rank;
  }
}

TEST(ZipfRanksTest, OneRankAndHugeSpacesWork) {
  base::Rng rng(2);
  EXPECT_EQ(ZipfRanks(1).Next(rng), 1u);
  const ZipfRanks huge(kMaxKeySpace);
  for (int i = 0; i < 1000; ++i) EXPECT_LE(huge.Next(rng), kMaxKeySpace);
}

TEST(KeyChooserTest, ZipfHasHotKeysThatAreNotNeighbours) {
  constexpr uint64_t kSpace = 10'000;
  KeyChooser chooser(KeyOrder::kZipf, kSpace, 0, 1, 3);
  std::map<uint64_t, int> counts;
  for (int i = 0; i < 100'000; ++i) ++counts[chooser.Next()];
  std::vector<std::pair<int, uint64_t>> hottest;
  for (const auto& [key, count] : counts) {
    ASSERT_LT(key, kSpace);
    hottest.push_back({count, key});
  }
  std::sort(hottest.rbegin(), hottest.rend());
  EXPECT_GT(hottest[0].first, 8'000);  // about a tenth of all
  const int64_t distance = int64_t(hottest[0].second) - int64_t(hottest[1].second);
  EXPECT_GT(std::abs(distance), 10);
}

TEST(KeyChooserTest, SequentialWorkersTogetherTouchEveryKeyOnce) {
  constexpr uint64_t kSpace = 12;
  std::vector<uint64_t> keys;
  for (uint64_t worker = 0; worker < 3; ++worker) {
    KeyChooser chooser(KeyOrder::kSequential, kSpace, worker, 3, 1);
    for (int i = 0; i < 4; ++i) keys.push_back(chooser.Next());
    EXPECT_EQ(chooser.Next(), worker);  // wraps around
  }
  std::sort(keys.begin(), keys.end());
  for (uint64_t i = 0; i < kSpace; ++i) EXPECT_EQ(keys[i], i);
}

TEST(KeyChooserTest, RandomKeysRepeatForOneSeedAndFillTheSpace) {
  KeyChooser a(KeyOrder::kRandom, 50, 0, 1, 9);
  KeyChooser b(KeyOrder::kRandom, 50, 0, 1, 9);
  std::set<uint64_t> seen;
  for (int i = 0; i < 2000; ++i) {
    const uint64_t key = a.Next();
    EXPECT_EQ(key, b.Next());
    seen.insert(key);
  }
  EXPECT_EQ(seen.size(), 50u);
  EXPECT_EQ(*seen.rbegin(), 49u);
}

TEST(DataShapeTest, KeysHaveTheirSizeAndSortByNumber) {
  const DataShape shape("p/", 8, 16, 1);
  std::string key;
  shape.WriteKey(0, &key);
  EXPECT_EQ(key, "p/000000");
  shape.WriteKey(1234, &key);
  EXPECT_EQ(key, "p/001234");
  shape.WriteKey(999999, &key);
  EXPECT_EQ(key, "p/999999");
  EXPECT_EQ(DataShape::DigitsFor(1), 1u);
  EXPECT_EQ(DataShape::DigitsFor(10), 1u);
  EXPECT_EQ(DataShape::DigitsFor(11), 2u);
  EXPECT_EQ(DataShape::DigitsFor(1'000'001), 7u);
}

TEST(DataShapeTest, ValuesHaveTheirSizeAndChangeWithTheSalt) {
  const DataShape shape("p/", 8, 300, 1);
  EXPECT_EQ(shape.Value(1, 0).size(), 300u);
  EXPECT_EQ(shape.Value(1, 0), shape.Value(1, 0));
  EXPECT_NE(shape.Value(1, 0), shape.Value(1, 1));
  EXPECT_NE(shape.Value(1, 0), shape.Value(2, 0));
}

TEST(LoadSourceTest, WorkersTogetherWriteEveryKeyOnce) {
  constexpr uint64_t kKeys = 1003;
  constexpr uint64_t kBatch = 10;
  EXPECT_EQ(LoadBatches(kKeys, kBatch), 101u);
  std::vector<int> written(kKeys);
  for (uint64_t worker = 0; worker < 2; ++worker) {
    const auto source = NewLoadSource(kKeys, kBatch, worker, 2);
    for (uint64_t batch = worker; batch < 101; batch += 2) {
      const Operation operation = source->Next();
      for (uint64_t i = 0; i < operation.keys; ++i) ++written[operation.first_key + i];
    }
  }
  EXPECT_EQ(std::count(written.begin(), written.end(), 1), int64_t(kKeys));
}

TEST(MixSourceTest, TheReadRatioHoldsAndWorkersDiffer) {
  const MixOptions mix = {
      .order = KeyOrder::kRandom, .key_space = 1000, .read_ratio = 0.7, .seed = 4};
  const auto first = NewMixSource(mix, 0, 2);
  const auto second = NewMixSource(mix, 1, 2);
  int reads = 0;
  int equal_keys = 0;
  for (int i = 0; i < 10'000; ++i) {
    const Operation operation = first->Next();
    if (operation.kind == OpKind::kGet) ++reads;
    if (operation.first_key == second->Next().first_key) ++equal_keys;
  }
  EXPECT_NEAR(reads, 7000, 250);
  EXPECT_LT(equal_keys, 100);
}

}  // namespace
}  // namespace holdfast::bench
