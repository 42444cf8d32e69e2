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
// Of a view, or of a writer that has not committed yet.
template <class Source>
void CompareAttachments(const Source& source, const std::map<std::string, KeyValue>& records) {
  for (int64_t lease = 1; lease <= TwinWorkload::kLeases; ++lease) {
    std::vector<std::string> attached, found;
    for (const auto& [key, kv] : records) {
      if (kv.lease == lease) attached.push_back(key);
    }
    const absl::Status scanned = source.ScanLeaseKeys(lease, [&](std::string_view key) {
      found.emplace_back(key);
      return true;
    });
    ASSERT_TRUE(scanned.ok()) << scanned;
    EXPECT_EQ(found, attached) << "of lease " << lease;
  }
}

// Everything from a random key on, the keys of every lease, and history from a random revision on.
void CompareScans(const OldView& old, const MvccTwin& twin, TwinWorkload& workload) {
  const std::map<std::string, KeyValue> records = twin.Records(old.sight);
  const std::string from = workload.RandomKey();
  auto expected = records.lower_bound(from);
  ASSERT_TRUE(old.view
                  ->ScanRecords(from,
                                [&](const KeyValueView& kv) {
                                  EXPECT_TRUE(expected != records.end());
                                  if (expected == records.end()) return false;
                                  EXPECT_EQ(kv.key, expected->first);
                                  EXPECT_EQ(kv.value, expected->second.value);
                                  EXPECT_EQ(kv.mod_revision, expected->second.mod_revision);
                                  ++expected;
                                  return true;
                                })
                  .ok());
  EXPECT_TRUE(expected == records.end());

  CompareAttachments(*old.view, records);

  const int64_t first = old.sight.newest - static_cast<int64_t>(workload.rng().Below(40));
  std::vector<std::string> events, history;
  const absl::Status scanned = old.view->ScanHistory(first, [&](const EventView& event) {
    events.push_back(EventText(event));
    return true;
  });
  if (first < old.sight.compact) {
    EXPECT_TRUE(absl::IsOutOfRange(scanned));
    return;
  }
  ASSERT_TRUE(scanned.ok());
  for (const auto& [revision, text] : twin.history()) {
    if (revision < first || revision > old.sight.newest) continue;
    history.push_back(text);
    if (revision > old.sight.compact) continue;
    history.back().resize(text.find(" before: "));
    history.back() += " before: nothing";
  }
  EXPECT_EQ(events, history);
}

// A range read in pages is the same range.
void ComparePages(const OldView& old, TwinWorkload& workload) {
  RangeOptions options = Everything();
  const RangeResult whole = MustRange(*old.view, options);
  options.page_bytes = 1 + workload.rng().Below(300);
  std::vector<KeyValue> kvs;
  for (;;) {
    const RangeResult page = MustRange(*old.view, options);
    kvs.insert(kvs.end(), page.kvs.begin(), page.kvs.end());
    if (!page.more) break;
    ASSERT_FALSE(page.kvs.empty());
    options.key = page.kvs.back().key + '\0';
  }
  EXPECT_EQ(kvs, whole.kvs);
}

// Many keys at once, some of them more than once, are what each is alone.
void CompareMany(const OldView& old, const MvccTwin& twin, TwinWorkload& workload) {
  const std::map<std::string, KeyValue> records = twin.Records(old.sight);
  std::vector<std::string> keys;
  for (uint64_t n = workload.rng().Below(12); n > 0; --n) keys.push_back(workload.RandomKey());
  const std::vector<std::string_view> asked(keys.begin(), keys.end());
  std::vector<int> told(keys.size());
  const absl::Status status = old.view->GetMany(asked, [&](size_t i, const KeyValueView* kv) {
    ++told[i];
    const auto it = records.find(keys[i]);
    EXPECT_EQ(kv != nullptr, it != records.end()) << keys[i];
    if (kv == nullptr || it == records.end()) return true;
    EXPECT_EQ(kv->key, keys[i]);
    EXPECT_EQ(kv->value, it->second.value);
    EXPECT_EQ(kv->create_revision, it->second.create_revision);
    EXPECT_EQ(kv->mod_revision, it->second.mod_revision);
    EXPECT_EQ(kv->version, it->second.version);
    EXPECT_EQ(kv->lease, it->second.lease);
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(told, std::vector<int>(keys.size(), 1));
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

  std::map<std::string, std::string> meta;
  ASSERT_TRUE(old.view
                  ->ScanMeta("",
                             [&](std::string_view key, std::string_view value) {
                               meta.emplace(key, value);
                               return true;
                             })
                  .ok());
  EXPECT_EQ(meta, old.meta);
  CompareScans(old, twin, workload);
  CompareMany(old, twin, workload);
  ComparePages(old, workload);
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
  std::vector<std::string> heard;
  const auto listen = [&heard](const EventView& event) { heard.push_back(EventText(event)); };
  writer->SetEventSink(listen);
  for (int step = 1; step <= kStepsPerRun && !testing::Test::HasFailure(); ++step) {
    workload.Step(twin, writer.get());
    if (rng.OneIn(8)) CompareAttachments(*writer, twin.Records(twin.Now()));
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
      writer->SetEventSink(listen);
    }
  }
  std::vector<std::string> told;
  for (const auto& [revision, text] : twin.history()) told.push_back(text);
  EXPECT_EQ(heard, told);
}

TEST(MvccQuickCheck, TheStoreAnswersAsItsTwin) {
  const uint64_t seed = TestSeed();
  for (uint64_t run = 0; run < kRuns && !HasFailure(); ++run) LiveOnce(seed + run);
}

}  // namespace
}  // namespace holdfast::storage
