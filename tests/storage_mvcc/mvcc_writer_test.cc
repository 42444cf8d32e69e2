// Revisions, uncommitted reads, deletion and compaction.
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/strings.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_database.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class MvccWriter : public testing::Test {
 protected:
  MvccWriter() : store_(MustOpen(dir_.store())), writer_(store_->NewWriter()) {}

  std::vector<std::string> At(int64_t revision) {
    RangeOptions options = Everything();
    options.revision = revision;
    return Brief(MustRange(*store_->NewView(), options));
  }
  std::vector<std::string> WriterAt(int64_t revision) {
    RangeOptions options = Everything();
    options.revision = revision;
    return Brief(MustRange(*writer_, options));
  }
  absl::Status ViewStatusAt(int64_t revision) {
    RangeOptions options = Everything();
    options.revision = revision;
    RangeResult result;
    return store_->NewView()->Range(options, &result);
  }

  ScratchDir dir_;
  std::unique_ptr<MvccStore> store_;
  std::unique_ptr<MvccStore::Writer> writer_;
};

TEST_F(MvccWriter, AnEmptyStoreIsAtRevisionOne) {
  EXPECT_EQ(store_->applied(), (AppliedState{Index(0), Term(0), 1, 0}));
  EXPECT_EQ(store_->NewView()->applied(), store_->applied());
  EXPECT_EQ(writer_->revision(), 1);
  EXPECT_THAT(At(0), IsEmpty());
  EXPECT_THAT(At(1), IsEmpty());
}

TEST_F(MvccWriter, ARevisionWithoutAWriteIsGivenBack) {
  EXPECT_EQ(MustDelete(*writer_, "nothing"), 0);
  EXPECT_EQ(MustDelete(*writer_, "a", "z"), 0);
  writer_->BeginRevision();
  EXPECT_FALSE(writer_->EndRevision());
  EXPECT_EQ(writer_->revision(), 1);
  MustPut(*writer_, "a", "1");
  EXPECT_EQ(writer_->revision(), 2);
}

TEST_F(MvccWriter, WritesOfOneRevisionShareItAndSeeEachOther) {
  MustPut(*writer_, "a", "1");  // 2
  MustCommit(*writer_, 1);

  writer_->BeginRevision();
  std::optional<KeyValue> prev;
  ASSERT_TRUE(writer_->Put("a", "2", 0, &prev).ok());
  EXPECT_EQ(prev->value, "1");
  ASSERT_TRUE(writer_->Put("b", "2", 0, &prev).ok());
  EXPECT_FALSE(prev.has_value());
  EXPECT_EQ(writer_->revision(), 2);
  EXPECT_THAT(WriterAt(0), ElementsAre("a=2@3", "b=2@3"));
  EXPECT_THAT(WriterAt(3), ElementsAre("a=2@3", "b=2@3"));
  EXPECT_THAT(WriterAt(2), ElementsAre("a=1@2"));
  std::vector<KeyValue> deleted;
  EXPECT_EQ(*writer_->DeleteRange("a", "c", &deleted), 2);
  EXPECT_EQ(deleted[0].value, "2");
  EXPECT_EQ(deleted[1].key, "b");
  EXPECT_THAT(WriterAt(0), IsEmpty());
  EXPECT_EQ(*writer_->DeleteRange("a", "c", &deleted), 0);
  ASSERT_TRUE(writer_->Put("b", "3", 0, &prev).ok());
  EXPECT_FALSE(prev.has_value());
  EXPECT_TRUE(writer_->EndRevision());

  EXPECT_EQ(writer_->revision(), 3);
  // Not committed: nobody else sees it.
  EXPECT_THAT(At(0), ElementsAre("a=1@2"));
  MustCommit(*writer_, 2);
  EXPECT_THAT(At(0), ElementsAre("b=3@3"));
  EXPECT_THAT(At(2), ElementsAre("a=1@2"));
}

TEST_F(MvccWriter, ARecreatedKeyStartsAnew) {
  MustPut(*writer_, "a", "1", 7);  // 2
  MustPut(*writer_, "a", "2");     // 3
  MustDelete(*writer_, "a");       // 4
  MustPut(*writer_, "z", "");      // 5
  MustPut(*writer_, "a", "3");     // 6
  MustCommit(*writer_, 1);
  const auto kv = store_->NewView()->Get("a");
  ASSERT_TRUE(kv.ok());
  EXPECT_EQ((*kv)->create_revision, 6);
  EXPECT_EQ((*kv)->version, 1);
  EXPECT_EQ((*kv)->lease, 0);
  // The walk leads through the deletion.
  EXPECT_THAT(At(2), ElementsAre("a=1@2"));
  EXPECT_THAT(At(3), ElementsAre("a=2@3"));
  EXPECT_THAT(At(4), IsEmpty());
  EXPECT_THAT(At(5), ElementsAre("z=@5"));
  EXPECT_THAT(At(6), ElementsAre("a=3@6", "z=@5"));
}

TEST_F(MvccWriter, ADeletedKeyIsFoundAtTheRevisionsItHad) {
  MustPut(*writer_, "a", "1");  // 2
  MustCommit(*writer_, 1);
  MustDelete(*writer_, "a");  // 3
  EXPECT_THAT(WriterAt(2), ElementsAre("a=1@2"));
  EXPECT_THAT(WriterAt(3), IsEmpty());
  MustCommit(*writer_, 2);
  EXPECT_THAT(At(2), ElementsAre("a=1@2"));
  EXPECT_THAT(At(3), IsEmpty());
  EXPECT_FALSE(store_->NewView()->Get("a")->has_value());
}

TEST_F(MvccWriter, AViewDoesNotMove) {
  MustPut(*writer_, "a", "1");
  MustCommit(*writer_, 5, 2);
  const auto view = store_->NewView();
  MustPut(*writer_, "a", "2");
  writer_->PutMeta("m", "2");
  ASSERT_TRUE(writer_->Compact(2).ok());
  MustCommit(*writer_, 6, 3);
  EXPECT_EQ(view->applied(), (AppliedState{Index(5), Term(2), 2, 0}));
  EXPECT_EQ((*view->Get("a"))->value, "1");
  EXPECT_FALSE(view->GetMeta("m")->has_value());
  EXPECT_EQ(store_->applied(), (AppliedState{Index(6), Term(3), 3, 2}));
  EXPECT_EQ(store_->NewView()->applied(), store_->applied());
}

TEST_F(MvccWriter, MetaRecordsAreSeenBeforeAndAfterTheCommit) {
  writer_->PutMeta("p/1", "one");
  writer_->PutMeta("p/2", "two");
  writer_->PutMeta("q", std::string("\0", 1));
  writer_->PutMeta("", "empty key");
  EXPECT_EQ(*writer_->GetMeta("p/1"), "one");
  MustCommit(*writer_, 1);
  writer_->DeleteMeta("p/1");
  EXPECT_FALSE(writer_->GetMeta("p/1")->has_value());
  EXPECT_EQ(*writer_->GetMeta("p/2"), "two");
  MustCommit(*writer_, 2);

  const auto view = store_->NewView();
  std::vector<std::string> seen;
  const auto visit = [&](std::string_view key, std::string_view) {
    seen.emplace_back(key);
    return true;
  };
  ASSERT_TRUE(view->ScanMeta("p/", visit).ok());
  EXPECT_THAT(seen, ElementsAre("p/2"));
  seen.clear();
  // The store's own records do not show.
  ASSERT_TRUE(view->ScanMeta("", visit).ok());
  EXPECT_THAT(seen, ElementsAre("", "p/2", "q"));
  seen.clear();
  ASSERT_TRUE(view->ScanMeta("",
                             [&](std::string_view key, std::string_view) {
                               seen.emplace_back(key);
                               return false;
                             })
                  .ok());
  EXPECT_THAT(seen, ElementsAre(""));
}

TEST_F(MvccWriter, ANewMetaRecordThatIsDeletedBeforeTheCommitLeavesNothing) {
  writer_->PutNewMeta("a", "1");
  writer_->DeleteMeta("a");
  EXPECT_EQ(*writer_->GetMeta("a"), std::nullopt);
  writer_->PutNewMeta("b", "2");
  ASSERT_TRUE(writer_->Commit(Index(1), Term(1)).ok());
  EXPECT_EQ(*store_->NewView()->GetMeta("a"), std::nullopt);
  EXPECT_EQ(*store_->NewView()->GetMeta("b"), "2");

  // The database has it now: deleted, new, and deleted again, it must go from there.
  writer_->DeleteMeta("b");
  writer_->PutNewMeta("b", "3");
  EXPECT_EQ(*writer_->GetMeta("b"), "3");
  writer_->DeleteMeta("b");
  ASSERT_TRUE(writer_->Commit(Index(2), Term(1)).ok());
  EXPECT_EQ(*store_->NewView()->GetMeta("b"), std::nullopt);
}

TEST_F(MvccWriter, AMetaRecordThatWasReadIsReadAsItIsWrittenLater) {
  EXPECT_EQ(*writer_->GetMeta("a"), std::nullopt);
  int index = 0;
  for (const char* value : {"1", "2", "a longer one", ""}) {
    writer_->PutMeta("a", value);
    ASSERT_TRUE(writer_->Commit(Index(++index), Term(1)).ok());
    EXPECT_EQ(*writer_->GetMeta("a"), value);
    EXPECT_EQ(*writer_->GetMeta("a"), value) << "from memory";
  }
  writer_->DeleteMeta("a");
  ASSERT_TRUE(writer_->Commit(Index(++index), Term(1)).ok());
  EXPECT_EQ(*writer_->GetMeta("a"), std::nullopt);
}

// More than is held at a time: what does not fit is looked up one by one.
TEST_F(MvccWriter, ManyLargeRecordsAreFoundAtOnce) {
  constexpr int kRecords = 8;
  std::vector<std::string> keys;
  for (int i = 0; i < kRecords; ++i) {
    keys.push_back(fmt::format("large{}", i));
    writer_->BeginRevision();
    ASSERT_TRUE(
        writer_->Put(keys.back(), std::string(400'000, static_cast<char>('a' + i)), 0, nullptr)
            .ok());
    writer_->EndRevision();
  }
  ASSERT_TRUE(writer_->Commit(Index(1), Term(1)).ok());
  std::vector<std::string_view> asked(keys.begin(), keys.end());
  asked.push_back("absent");
  asked.push_back(keys[3]);
  std::vector<std::string> found(asked.size(), "never told");
  ASSERT_TRUE(store_->NewView()
                  ->GetMany(asked,
                            [&](size_t i, const KeyValueView* kv) {
                              found[i] = kv == nullptr ? "nothing" : std::string(kv->value);
                              return true;
                            })
                  .ok());
  for (int i = 0; i < kRecords; ++i) {
    EXPECT_EQ(found[static_cast<size_t>(i)], std::string(400'000, static_cast<char>('a' + i)));
  }
  EXPECT_EQ(found[kRecords], "nothing");
  EXPECT_EQ(found[kRecords + 1], found[3]);
}

TEST_F(MvccWriter, ACompactedRevisionIsReadableAndOlderOnesAreNot) {
  for (int i = 0; i < 5; ++i) MustPut(*writer_, "a", std::to_string(i));  // 2..6
  MustDelete(*writer_, "a");                                              // 7
  MustPut(*writer_, "b", "");                                             // 8
  ASSERT_TRUE(writer_->Compact(5).ok());
  EXPECT_EQ(writer_->compact_revision(), 5);
  RangeOptions options = Everything();
  options.revision = 4;
  RangeResult result;
  EXPECT_EQ(base::Message(writer_->Range(options, &result)), kCompactedText);
  EXPECT_THAT(WriterAt(5), ElementsAre("a=3@5"));
  MustCommit(*writer_, 1);

  const absl::Status status = ViewStatusAt(4);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(base::Message(status), kCompactedText);
  EXPECT_THAT(At(5), ElementsAre("a=3@5"));
  EXPECT_THAT(At(6), ElementsAre("a=4@6"));
  EXPECT_THAT(At(0), ElementsAre("b=@8"));

  EXPECT_EQ(base::Message(writer_->Compact(5)), kCompactedText);
  EXPECT_EQ(base::Message(writer_->Compact(1)), kCompactedText);
  EXPECT_EQ(base::Message(writer_->Compact(9)), kFutureRevisionText);
  EXPECT_EQ(writer_->Compact(9).code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(writer_->compact_revision(), 5);
  ASSERT_TRUE(writer_->Compact(8).ok());
  MustCommit(*writer_, 2);
  EXPECT_EQ(base::Message(ViewStatusAt(7)), kCompactedText);
  EXPECT_THAT(At(8), ElementsAre("b=@8"));
}

TEST_F(MvccWriter, APutOverACompactedTombstoneLeadsBackToNothing) {
  MustPut(*writer_, "a", "1");  // 2
  MustDelete(*writer_, "a");    // 3
  MustPut(*writer_, "b", "");   // 4
  ASSERT_TRUE(writer_->Compact(3).ok());
  MustPut(*writer_, "a", "2");  // 5
  MustCommit(*writer_, 1);
  EXPECT_THAT(At(3), IsEmpty());
  EXPECT_THAT(At(4), ElementsAre("b=@4"));
  EXPECT_THAT(At(5), ElementsAre("a=2@5", "b=@4"));
}

// What is on disk, under the store.
class MvccDisk : public testing::Test {
 protected:
  static constexpr int kKeys = 50;

  void SetUp() override {
    auto store = MustOpen(dir_.store());
    auto writer = store->NewWriter();
    for (int i = 0; i < kKeys; ++i) MustPut(*writer, fmt::format("k{}", i), "v");  // 2..51
    MustDelete(*writer, "k1", "k2");                                               // 52: k1, k1x
    MustPut(*writer, "z", "");                                                     // 53
    MustDelete(*writer, "k2", "k3");                                               // 54
    CHECK_OK(writer->Compact(53));
    MustCommit(*writer, 1);
  }

  void Open() {
    auto database = mvcc::Database::Open(StoreOptions(dir_.store()), &applied_);
    CHECK_OK(database.status());
    database_ = *std::move(database);
  }

  void ForceCompaction(rocksdb::ColumnFamilyHandle* family) {
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
    CHECK(database_->db()->CompactRange(options, family, nullptr, nullptr).ok());
  }

  int Tombstones() {
    int count = 0;
    std::unique_ptr<rocksdb::Iterator> it(
        database_->db()->NewIterator(rocksdb::ReadOptions(), database_->current()));
    for (it->SeekToFirst(); it->Valid(); it->Next()) {
      mvcc::Record record;
      CHECK(mvcc::DecodeRecord(it->value().ToStringView(), &record));
      if (!record.live) ++count;
    }
    return count;
  }

  int HistoryEntries() {
    int count = 0;
    std::unique_ptr<rocksdb::Iterator> it(
        database_->db()->NewIterator(rocksdb::ReadOptions(), database_->history()));
    for (it->SeekToFirst(); it->Valid(); it->Next()) ++count;
    return count;
  }

  ScratchDir dir_;
  AppliedState applied_;
  std::unique_ptr<mvcc::Database> database_;
};

TEST_F(MvccDisk, ACompactionDropsTheTombstonesItPassed) {
  Open();
  EXPECT_EQ(Tombstones(), 22);
  ForceCompaction(database_->current());
  EXPECT_EQ(Tombstones(), 11);      // those of revision 54
  EXPECT_EQ(HistoryEntries(), 12);  // likewise, and that of the compact revision

  database_.reset();
  const auto store = MustOpen(dir_.store());
  EXPECT_EQ(MustRange(*store->NewView(), Everything()).count, kKeys - 22 + 1);
  RangeOptions options = Everything();
  options.revision = 53;
  EXPECT_EQ(MustRange(*store->NewView(), options).count, kKeys - 11 + 1);
}

TEST_F(MvccDisk, AViewOfBeforeTheCompactionHoldsItsTombstonesBack) {
  Open();
  database_->horizon().AddView(51);
  ForceCompaction(database_->current());
  EXPECT_EQ(Tombstones(), 22);
  database_->horizon().RemoveView(51);
  ForceCompaction(database_->current());
  EXPECT_EQ(Tombstones(), 11);
}

TEST_F(MvccDisk, ACompactionThatIsNotFlushedDropsNothing) {
  mvcc::ReclaimHorizon horizon;
  EXPECT_EQ(horizon.Current(), 0);
  horizon.AddView(9);
  EXPECT_EQ(horizon.Current(), 0);
  horizon.RaiseFlushed(5);
  EXPECT_EQ(horizon.Current(), 5);
  horizon.RaiseFlushed(20);
  EXPECT_EQ(horizon.Current(), 9);
  horizon.AddView(12);
  horizon.AddView(9);
  horizon.RemoveView(9);
  EXPECT_EQ(horizon.Current(), 9);
  horizon.RemoveView(9);
  EXPECT_EQ(horizon.Current(), 12);
  horizon.RemoveView(12);
  EXPECT_EQ(horizon.Current(), 20);
  horizon.RaiseFlushed(3);
  EXPECT_EQ(horizon.Current(), 20);
}

TEST_F(MvccDisk, ACompactedHistorysFilesGoWithTheNextFlush) {
  uint64_t index = 1;
  {
    auto store = MustOpen(dir_.store());
    auto writer = store->NewWriter();
    for (int i = 0; i < 1000; ++i) MustPut(*writer, "same key", std::string(1000, 'v'));
    MustCommit(*writer, ++index);
  }
  // Files on the first level, or in a compaction just running, would go later: here are none.
  Open();
  ForceCompaction(database_->history());
  database_.reset();

  auto store = MustOpen(dir_.store());
  auto writer = store->NewWriter();
  const uint64_t before = store->disk_bytes();
  // The compact revision's own events stay: they are in another file.
  MustPut(*writer, "same key", "");
  ASSERT_TRUE(writer->Compact(writer->revision()).ok());
  MustCommit(*writer, ++index);
  {
    const auto view = store->NewView();
    ASSERT_TRUE(store->Flush().ok());
    EXPECT_LT(store->disk_bytes(), before / 2);
  }
  EXPECT_EQ(MustRange(*store->NewView(), Everything()).count, kKeys - 22 + 2);
}

TEST_F(MvccDisk, AViewOfBeforeTheCompactionHoldsItsHistoryBack) {
  Open();
  ForceCompaction(database_->history());
  EXPECT_EQ(HistoryEntries(), 12);  // all of the revisions 53 and 54
  database_->horizon().AddView(53);
  database_->horizon().RaiseFlushed(55);
  database_->ReclaimHistory();
  EXPECT_EQ(HistoryEntries(), 12);
  database_->horizon().RemoveView(53);
  database_->ReclaimHistory();
  EXPECT_EQ(HistoryEntries(), 0);
}

}  // namespace
}  // namespace holdfast::storage
