// The store against its twin, on random entries.
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/storage_mvcc/mvcc_test_util.h"
#include "tests/storage_mvcc/mvcc_twin.h"

namespace holdfast::storage {
namespace {

constexpr int kRuns = 6;
constexpr int kStepsPerRun = 2500;
constexpr size_t kOldViewsMax = 4;

struct OldView {
  std::unique_ptr<MvccStore::View> view;
  MvccTwin::Sight sight;
  std::map<std::string, std::string> meta;
};

// Which keys are attached to which lease: what the records' lease fields say, and nothing else.
template <class Source>
void CompareAttachments(const Source& source, const MvccTwin& twin, const MvccTwin::Sight& sight) {
  RangeOptions all;
  all.key = all.range_end = std::string(1, '\0');
  RangeResult records;
  ASSERT_TRUE(twin.Range(sight, all, &records).ok());
  for (int64_t lease = 0; lease <= TwinWorkload::kLeases; ++lease) {
    std::vector<std::string> expected;
    for (const KeyValue& kv : records.kvs) {
      if (lease != 0 && kv.lease == lease) expected.push_back(kv.key);
    }
    std::vector<std::string> keys;
    const absl::Status scanned = source.ScanLeaseKeys(lease, [&](std::string_view key) {
      keys.emplace_back(key);
      return true;
    });
    ASSERT_TRUE(scanned.ok()) << scanned;
    EXPECT_EQ(keys, expected) << "of lease " << lease;
  }
}

void CompareView(const OldView& old, const MvccTwin& twin, TwinWorkload& workload) {
  EXPECT_EQ(old.view->applied().revision, old.sight.newest);
  EXPECT_EQ(old.view->applied().compact_revision, old.sight.compact);
  const RangeOptions options = workload.RandomRange(old.sight.newest);
  RangeResult result;
  const absl::Status status = old.view->Range(options, &result);
  ExpectSameRange(status, result, twin, old.sight, options);

  RangeOptions single;
  single.key = workload.RandomKey();
  RangeResult expected;
  ASSERT_TRUE(twin.Range(old.sight, single, &expected).ok());
  const auto kv = old.view->Get(single.key);
  ASSERT_TRUE(kv.ok());
  EXPECT_EQ(*kv, expected.kvs.empty() ? std::nullopt : std::optional(expected.kvs[0]));
  CompareAttachments(*old.view, twin, old.sight);

  std::map<std::string, std::string> meta;
  ASSERT_TRUE(old.view
                  ->ScanMeta("",
                             [&](std::string_view key, std::string_view value) {
                               meta.emplace(key, value);
                               return true;
                             })
                  .ok());
  EXPECT_EQ(meta, old.meta);
}

// One store's life: entries in commits of random size, views kept while later entries pile up,
// flushes, restarts.
void LiveOnce(uint64_t seed) {
  SCOPED_TRACE(fmt::format("run with seed {}", seed));
  ScratchDir dir;
  TwinWorkload workload(seed);
  base::Rng& rng = workload.rng();
  MvccTwin twin;
  auto store = MustOpen(dir.store(), kTinyWriteBuffer);
  auto writer = store->NewWriter();
  std::deque<OldView> views;
  for (int step = 1; step <= kStepsPerRun && !testing::Test::HasFailure(); ++step) {
    workload.Step(twin, writer.get());
    if (rng.OneIn(8)) CompareAttachments(*writer, twin, twin.Now());
    if (!rng.OneIn(4)) continue;
    ASSERT_TRUE(writer->Commit(Index(static_cast<uint64_t>(step)), Term(1)).ok());
    if (rng.OneIn(4)) {
      if (views.size() == kOldViewsMax) views.erase(views.begin() + rng.Below(kOldViewsMax));
      views.push_back({store->NewView(), twin.Now(), twin.meta()});
    }
    CompareView({store->NewView(), twin.Now(), twin.meta()}, twin, workload);
    if (!views.empty()) CompareView(views[rng.Below(views.size())], twin, workload);
    if (rng.OneIn(40)) {
      const auto flushed = store->Flush();
      ASSERT_TRUE(flushed.ok());
      EXPECT_EQ(flushed->value, static_cast<uint64_t>(step));
    }
    if (rng.OneIn(150)) {
      views.clear();
      writer.reset();
      store.reset();
      store = MustOpen(dir.store(), kTinyWriteBuffer);
      EXPECT_EQ(store->applied().index.value, static_cast<uint64_t>(step));
      EXPECT_EQ(store->applied().revision, twin.Now().newest);
      EXPECT_EQ(store->applied().compact_revision, twin.Now().compact);
      writer = store->NewWriter();
    }
  }
}

TEST(MvccQuickCheck, TheStoreAnswersAsItsTwin) {
  const uint64_t seed = TestSeed();
  for (uint64_t run = 0; run < kRuns && !HasFailure(); ++run) LiveOnce(seed + run);
}

}  // namespace
}  // namespace holdfast::storage
