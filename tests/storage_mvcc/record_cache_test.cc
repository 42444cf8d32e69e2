// The cache of newest records: what it answers to which view, what it takes from whom, what it
// costs; and under a writer and readers at once, that no view ever sees another time's record.
#include "storage/mvcc_record_cache.h"

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/check.h"
#include "base/rng.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {
namespace {

using Answer = RecordCache::Answer;

std::string Encoded(int64_t mod, std::string_view value) {
  Record record;
  record.live = true;
  record.mod = {mod, 0};
  record.create_revision = 1;
  record.version = 1;
  char header[kRecordHeaderBytesMax];
  std::string bytes(header, EncodeRecordHeader(record, header));
  return bytes.append(value);
}

class RecordCacheTest : public ::testing::Test {
 protected:
  Answer Find(std::string_view key, int64_t at) { return cache_.Find(key, at, &bytes_); }

  RecordCache cache_{size_t{1} << 20};
  std::string bytes_;
};

TEST_F(RecordCacheTest, AnswersViewsThatAreNotOlderThanTheRecord) {
  EXPECT_EQ(Find("k", 9), Answer::kUnknown);
  cache_.Offer("k", Encoded(5, "five"), 7);
  EXPECT_EQ(Find("k", 4), Answer::kUnknown) << "what there was before is in the database";
  EXPECT_EQ(Find("k", 5), Answer::kFound);
  EXPECT_EQ(bytes_, Encoded(5, "five"));
  EXPECT_EQ(Find("k", 9), Answer::kFound);
  cache_.Offer("none", "", 7);
  EXPECT_EQ(Find("none", 7), Answer::kNone);
}

TEST_F(RecordCacheTest, ACommitTakesItsKeysOutBeforeItIsVisible) {
  cache_.Offer("k", Encoded(5, "five"), 7);
  cache_.Offer("none", "", 7);
  cache_.Withdraw("k", 8);
  cache_.Withdraw("none", 8);
  EXPECT_EQ(Find("k", 7), Answer::kUnknown);
  EXPECT_EQ(Find("k", 8), Answer::kUnknown);
  // A reader of before, who comes late.
  cache_.Offer("k", Encoded(5, "five"), 7);
  EXPECT_EQ(Find("k", 8), Answer::kUnknown);
  cache_.Store("k", Encoded(8, "of another size"));
  cache_.Store("none", Encoded(8, "is there now"));
  EXPECT_EQ(Find("k", 7), Answer::kUnknown);
  EXPECT_EQ(Find("k", 8), Answer::kFound);
  EXPECT_EQ(bytes_, Encoded(8, "of another size"));
  EXPECT_EQ(Find("none", 8), Answer::kFound);
  // One of the same size takes the place of the one before.
  cache_.Withdraw("k", 9);
  cache_.Store("k", Encoded(9, "OF ANOTHER SIZE"));
  EXPECT_EQ(Find("k", 8), Answer::kUnknown);
  EXPECT_EQ(Find("k", 9), Answer::kFound);
  EXPECT_EQ(bytes_, Encoded(9, "OF ANOTHER SIZE"));
}

TEST_F(RecordCacheTest, AReaderOfBeforeBringsNothingIntoAShardThatACommitTouched) {
  // "k" was not here when the commit began: only its shard remembers.
  cache_.Withdraw("k", 8);
  cache_.Offer("k", Encoded(5, "five"), 7);
  EXPECT_EQ(Find("k", 8), Answer::kUnknown);
  cache_.Offer("k", Encoded(8, "eight"), 8);
  EXPECT_EQ(Find("k", 8), Answer::kFound);
}

TEST_F(RecordCacheTest, KeepsWithinItsBytesAndWhatIsUsed) {
  cache_.Offer("hot", Encoded(1, "hot"), 1);
  for (int i = 0; i < 100'000; ++i) {
    cache_.Offer(fmt::format("key{}", i), Encoded(1, std::string(100, 'v')), 1);
    ASSERT_EQ(Find("hot", 1), Answer::kFound) << i;
  }
  EXPECT_LE(cache_.bytes(), size_t{1} << 20);
  EXPECT_GT(cache_.bytes(), size_t{1} << 19);
  cache_.Offer("large", Encoded(1, std::string(RecordCache::kRecordBytesMax, 'v')), 1);
  EXPECT_EQ(Find("large", 1), Answer::kUnknown);
  cache_.Offer("bad", "\x7f", 1);
  EXPECT_EQ(Find("bad", 1), Answer::kUnknown) << "whoever reads it from the database says so";
}

TEST_F(RecordCacheTest, ALargeRecordPutsAnEnd) {
  cache_.Offer("k", Encoded(1, "small"), 1);
  cache_.Withdraw("k", 2);
  cache_.Store("k", Encoded(2, std::string(RecordCache::kRecordBytesMax, 'v')));
  EXPECT_EQ(Find("k", 2), Answer::kUnknown);
  EXPECT_EQ(cache_.bytes(), 0u);
}

// Revision r writes key r % kKeys, nothing else does: so a view at R must find, under key k, the
// newest revision up to R that is k modulo kKeys. A cache far too small for all keys, and readers
// who hold on to views.
TEST(RecordCacheUnderLoad, EveryViewSeesItsOwnTime) {
  constexpr int64_t kKeys = 300;
  constexpr int64_t kRevisions = 30'000;
  const std::string dir =
      (std::filesystem::path(::testing::TempDir()) / fmt::format("record_cache_{}", ::getpid()))
          .string();
  std::filesystem::remove_all(dir);
  MvccStore::Options options;
  options.dir = dir;
  options.record_cache_bytes = size_t{32} << 10;
  auto opened = MvccStore::Open(options);
  CHECK_OK(opened.status());
  std::unique_ptr<MvccStore> store = *std::move(opened);
  std::atomic<bool> over = false;
  std::atomic<int64_t> reads = 0;
  const auto read = [&](uint64_t seed) {
    base::Rng rng(seed);
    while (!over) {
      const auto view = store->NewView();
      const int64_t at = view->applied().revision;
      const auto expected = [at](int64_t key) {
        const int64_t behind = ((at - key) % kKeys + kKeys) % kKeys;
        return at - behind;
      };
      for (int i = 0; i < 20; ++i) {
        const auto key = static_cast<int64_t>(rng.Below(kKeys));
        const auto found = view->Get(fmt::format("k{}", key));
        CHECK_OK(found.status());
        const int64_t mod = found->has_value() ? (*found)->mod_revision : 0;
        if (expected(key) <= 1) continue;  // the first revision is 1, and empty
        ASSERT_EQ(mod, expected(key)) << "key " << key << " at " << at;
        ++reads;
      }
      std::vector<std::string> names;
      for (int i = 0; i < 8; ++i) names.push_back(fmt::format("k{}", rng.Below(kKeys)));
      const std::vector<std::string_view> keys(names.begin(), names.end());
      CHECK_OK(view->GetMany(keys, [&](size_t i, const KeyValueView* kv) {
        const int64_t want = expected(std::stoll(names[i].substr(1)));
        EXPECT_TRUE(want <= 1 || (kv != nullptr && kv->mod_revision == want)) << names[i];
        return true;
      }));
    }
  };
  std::vector<std::thread> readers;
  for (uint64_t seed = 1; seed <= 3; ++seed) readers.emplace_back(read, seed);
  {
    const auto writer = store->NewWriter();
    base::Rng rng(9);
    uint64_t index = 0;
    while (writer->revision() < kRevisions) {
      for (uint64_t i = rng.Below(20) + 1; i > 0; --i) {
        writer->BeginRevision();
        const std::string key = fmt::format("k{}", (writer->revision() + 1) % kKeys);
        CHECK_OK(writer->Put(key, std::string(rng.Below(40), 'v'), 0, nullptr));
        CHECK(writer->EndRevision());
      }
      CHECK_OK(writer->Commit(Index(++index), Term(1)));
    }
  }
  over = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(reads.load(), 100);
  store.reset();
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace holdfast::storage::mvcc
