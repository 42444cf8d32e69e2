// The numbers of Hash and HashKV over real stores: what must make them differ, and what must not.
// And what Defragment must leave alone.
#include "server/state_hash.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>

#include "server/etcd_errors.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::server {
namespace {

using storage::MustCommit;
using storage::MustDelete;
using storage::MustOpen;
using storage::MustPut;
using storage::MvccStore;
using storage::ScratchDir;

constexpr auto kGoOn = [] { return false; };

class Store {
 public:
  explicit Store(size_t write_buffer_bytes = storage::kTinyWriteBuffer)
      : store_(MustOpen(dir_.store(), write_buffer_bytes)), writer_(store_->NewWriter()) {}
  ~Store() { writer_.reset(); }

  void Put(const std::string& key, const std::string& value, int64_t lease = 0) {
    MustPut(*writer_, key, value, lease);
    MustCommit(*writer_, ++index_);
  }
  void Delete(const std::string& key) {
    MustDelete(*writer_, key);
    MustCommit(*writer_, ++index_);
  }
  void Compact(int64_t revision) {
    ASSERT_TRUE(writer_->Compact(revision).ok());
    MustCommit(*writer_, ++index_);
  }
  absl::StatusOr<uint32_t> Hash(int64_t revision = 0) const {
    return HashRecords(*store_->NewView(), revision, kGoOn);
  }
  uint32_t StateHash() const { return *HashState(*store_->NewView(), kGoOn); }

  ScratchDir dir_;
  std::unique_ptr<MvccStore> store_;
  std::unique_ptr<MvccStore::Writer> writer_;
  uint64_t index_ = 0;
};

void Fill(Store& store, int keys) {
  for (int i = 0; i < keys; ++i) {
    store.Put("k" + std::to_string(i % 97), std::string(500, static_cast<char>('a' + i % 26)));
    if (i % 13 == 0) store.Delete("k" + std::to_string(i % 7));
  }
}

TEST(StateHash, EqualStatesAreEqualWhateverLiesOnTheDisk) {
  Store one, two(size_t{8} << 20);
  Fill(one, 600);
  Fill(two, 600);
  ASSERT_TRUE(one.store_->Flush().ok());  // files there, memory here
  EXPECT_EQ(*one.Hash(), *two.Hash());
  EXPECT_EQ(one.StateHash(), two.StateHash());
  const int64_t revision = one.store_->applied().revision;
  EXPECT_EQ(*one.Hash(revision), *one.Hash()) << "the newest may be named";
  for (const int64_t past : {revision / 3, revision / 2, revision - 1}) {
    EXPECT_EQ(*one.Hash(past), *two.Hash(past));
    EXPECT_NE(*one.Hash(past), *one.Hash());
  }
}

TEST(StateHash, AHashOfThePastIsThatOfTheStoreWhichStopsThere) {
  Store whole, stopped;
  Fill(stopped, 200);
  Fill(whole, 200);
  const int64_t revision = stopped.store_->applied().revision;
  Fill(whole, 300);
  EXPECT_EQ(*whole.Hash(revision), *stopped.Hash());
}

TEST(StateHash, EveryFieldCounts) {
  const auto hash = [](auto change) {
    Store store;
    store.Put("a", "1");
    store.Put("b", "2");
    change(store);
    return *store.Hash();
  };
  const uint32_t base = hash([](Store&) {});
  EXPECT_EQ(hash([](Store&) {}), base);
  EXPECT_NE(hash([](Store& s) { s.Put("c", ""); }), base);
  EXPECT_NE(hash([](Store& s) { s.Put("b", "2"); }), base) << "another revision and version";
  EXPECT_NE(hash([](Store& s) { s.Compact(2); }), base);
  // Same bytes, cut otherwise.
  Store left, right;
  left.Put("ab", "c");
  right.Put("a", "bc");
  EXPECT_NE(*left.Hash(), *right.Hash());
  Store leased, unleased;
  leased.Put("a", "1", 7);
  unleased.Put("a", "1");
  EXPECT_NE(*leased.Hash(), *unleased.Hash());
}

TEST(StateHash, RevisionsThatCannotBeReadAreEtcdsErrors) {
  Store store;
  Fill(store, 50);
  const int64_t revision = store.store_->applied().revision;
  store.Compact(20);
  EXPECT_EQ(store.Hash(19).status(), ErrCompacted());
  EXPECT_TRUE(store.Hash(20).ok()) << "the compacted revision itself can be read";
  EXPECT_EQ(store.Hash(revision + 1).status(), ErrFutureRev());
}

TEST(StateHash, AScanThatNobodyWaitsForEnds) {
  Store store;
  Fill(store, 600);
  for (int i = 0; i < 300; ++i) store.Put("n" + std::to_string(i), "x");
  int asked = 0;
  const auto stop = [&asked] { return ++asked == 1; };
  EXPECT_TRUE(absl::IsCancelled(HashRecords(*store.store_->NewView(), 0, stop).status()));
  EXPECT_EQ(asked, 1);
}

TEST(Defragment, FreesSpaceAndChangesNothing) {
  Store store;
  Fill(store, 1000);
  const int64_t revision = store.store_->applied().revision;
  const uint32_t before = *store.Hash();
  const uint32_t past = *store.Hash(revision - 50);
  ASSERT_TRUE(store.store_->Flush().ok());
  const uint64_t size_before = store.store_->disk_bytes();
  store.Compact(revision - 50);
  std::atomic<bool> stop = false;
  ASSERT_TRUE(store.store_->Defragment(&stop).ok());
  EXPECT_LT(store.store_->disk_bytes(), size_before / 2);
  EXPECT_NE(*store.Hash(), before) << "the compact revision counts";
  Store twin;
  Fill(twin, 1000);
  twin.Compact(revision - 50);
  EXPECT_EQ(*store.Hash(), *twin.Hash());
  EXPECT_EQ(*store.Hash(revision - 50), *twin.Hash(revision - 50));
  EXPECT_NE(past, 0u);
  stop = true;
  EXPECT_TRUE(store.store_->Defragment(&stop).ok()) << "told to stop at once";
}

TEST(Defragment, AViewKeepsWhatItSees) {
  Store store;
  Fill(store, 1000);
  const int64_t revision = store.store_->applied().revision;
  const auto view = store.store_->NewView();
  const uint32_t past = *HashRecords(*view, revision / 2, kGoOn);
  store.Compact(revision);
  std::atomic<bool> stop = false;
  ASSERT_TRUE(store.store_->Defragment(&stop).ok());
  EXPECT_EQ(*HashRecords(*view, revision / 2, kGoOn), past);
}

}  // namespace
}  // namespace holdfast::server
