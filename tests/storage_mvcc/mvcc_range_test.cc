// etcd's RangeRequest rules, one by one.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::storage {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

const std::string kNul(1, '\0');

// a..e, written and rewritten so that every sort target gives another order:
//   key  value  create  mod  version
//   a    5      2       9    2
//   b    4      3       10   3
//   c    old    4       4    1
//   d    old    5       5    1
//   e    1      6       7    2
class MvccRange : public testing::Test {
 protected:
  MvccRange() : store_(MustOpen(dir_.store())), writer_(store_->NewWriter()) {
    for (const char* key : {"a", "b", "c", "d", "e"}) MustPut(*writer_, key, "old");
    MustPut(*writer_, "e", "1");  // 7
    MustPut(*writer_, "b", "x");  // 8
    MustPut(*writer_, "a", "5");  // 9
    MustPut(*writer_, "b", "4");  // 10
    MustCommit(*writer_, 1);
    view_ = store_->NewView();
  }

  RangeResult Read(const RangeOptions& options) { return MustRange(*view_, options); }
  std::vector<std::string> Keys(const RangeOptions& options) {
    std::vector<std::string> keys;
    for (const KeyValue& kv : Read(options).kvs) keys.push_back(kv.key);
    return keys;
  }

  ScratchDir dir_;
  std::unique_ptr<MvccStore> store_;
  std::unique_ptr<MvccStore::Writer> writer_;
  std::unique_ptr<MvccStore::View> view_;
};

TEST_F(MvccRange, TheSpansOfARequest) {
  struct Case {
    std::string key;
    std::string range_end;
    std::vector<std::string> keys;
  };
  const Case kCases[] = {
      {"b", "", {"b"}},
      {"bb", "", {}},
      {"b", "d", {"b", "c"}},
      {"b", "dd", {"b", "c", "d"}},
      {"d", kNul, {"d", "e"}},
      {kNul, kNul, {"a", "b", "c", "d", "e"}},
      {"", kNul, {"a", "b", "c", "d", "e"}},
      {"d", "b", {}},
      {"b", "b", {}},
      {"x", kNul, {}},
      {kNul, "c", {"a", "b"}},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(base::Printable(c.key) + " to " + base::Printable(c.range_end));
    RangeOptions options;
    options.key = c.key;
    options.range_end = c.range_end;
    EXPECT_THAT(Keys(options), ElementsAreArray(c.keys));
    EXPECT_EQ(Read(options).count, static_cast<int64_t>(c.keys.size()));
    EXPECT_FALSE(Read(options).more);
    // A writer with nothing written answers as the view.
    EXPECT_EQ(MustRange(*writer_, options).kvs, Read(options).kvs);
  }
}

TEST_F(MvccRange, ARecordCarriesAllItsFields) {
  const auto kv = view_->Get("b");
  ASSERT_TRUE(kv.ok());
  KeyValue expected;
  expected.key = "b";
  expected.value = "4";
  expected.create_revision = 3;
  expected.mod_revision = 10;
  expected.version = 3;
  EXPECT_EQ(*kv, expected);
}

TEST_F(MvccRange, SortTargetsAndOrders) {
  struct Case {
    SortTarget target;
    SortOrder order;
    std::vector<std::string> keys;
  };
  const Case kCases[] = {
      {SortTarget::kKey, SortOrder::kNone, {"a", "b", "c", "d", "e"}},
      {SortTarget::kKey, SortOrder::kAscend, {"a", "b", "c", "d", "e"}},
      {SortTarget::kKey, SortOrder::kDescend, {"e", "d", "c", "b", "a"}},
      {SortTarget::kVersion, SortOrder::kAscend, {"c", "d", "a", "e", "b"}},
      {SortTarget::kVersion, SortOrder::kDescend, {"b", "a", "e", "c", "d"}},
      {SortTarget::kCreate, SortOrder::kDescend, {"e", "d", "c", "b", "a"}},
      {SortTarget::kMod, SortOrder::kAscend, {"c", "d", "e", "a", "b"}},
      // A target without an order is ascending.
      {SortTarget::kMod, SortOrder::kNone, {"c", "d", "e", "a", "b"}},
      {SortTarget::kMod, SortOrder::kDescend, {"b", "a", "e", "d", "c"}},
      {SortTarget::kValue, SortOrder::kAscend, {"e", "b", "a", "c", "d"}},
      {SortTarget::kValue, SortOrder::kDescend, {"c", "d", "a", "b", "e"}},
  };
  for (const Case& c : kCases) {
    RangeOptions options = Everything();
    options.sort_target = c.target;
    options.sort_order = c.order;
    EXPECT_THAT(Keys(options), ElementsAreArray(c.keys));
    // A limit takes the first of the same order, whatever its size.
    for (size_t limit = 1; limit <= 6; ++limit) {
      options.limit = static_cast<int64_t>(limit);
      std::vector<std::string> first = c.keys;
      first.resize(std::min(limit, first.size()));
      const RangeResult result = Read(options);
      EXPECT_THAT(Keys(options), ElementsAreArray(first)) << limit;
      EXPECT_EQ(result.more, limit < c.keys.size());
      EXPECT_EQ(result.count, 5);
    }
  }
}

TEST_F(MvccRange, FiltersNarrowTheAnswerAndNotTheCount) {
  RangeOptions options = Everything();
  options.min_mod_revision = 5;
  options.max_mod_revision = 9;
  EXPECT_THAT(Keys(options), ElementsAre("a", "d", "e"));
  EXPECT_EQ(Read(options).count, 5);
  options.min_create_revision = 3;
  options.max_create_revision = 5;
  EXPECT_THAT(Keys(options), ElementsAre("d"));

  // The limit counts what passed the filter.
  options = Everything();
  options.min_mod_revision = 5;
  options.limit = 2;
  EXPECT_THAT(Keys(options), ElementsAre("a", "b"));
  EXPECT_TRUE(Read(options).more);
  EXPECT_EQ(Read(options).count, 5);
  options.limit = 4;
  EXPECT_FALSE(Read(options).more);
}

TEST_F(MvccRange, CountOnlyAndKeysOnly) {
  RangeOptions options = Everything();
  options.count_only = true;
  options.limit = 2;
  options.min_mod_revision = 9;
  RangeResult result = Read(options);
  EXPECT_TRUE(result.kvs.empty());
  EXPECT_EQ(result.count, 5);
  EXPECT_FALSE(result.more);

  options = Everything();
  options.keys_only = true;
  options.sort_target = SortTarget::kValue;  // sorts by what it then leaves out
  result = Read(options);
  EXPECT_THAT(Brief(result), ElementsAre("e=@7", "b=@10", "a=@9", "c=@4", "d=@5"));
}

TEST_F(MvccRange, AnOldRevisionIsReadAsItWas) {
  RangeOptions options = Everything();
  options.revision = 1;
  EXPECT_EQ(Read(options).count, 0);
  options.revision = 4;
  EXPECT_THAT(Brief(Read(options)), ElementsAre("a=old@2", "b=old@3", "c=old@4"));
  options.revision = 8;
  EXPECT_THAT(Brief(Read(options)), ElementsAre("a=old@2", "b=x@8", "c=old@4", "d=old@5", "e=1@7"));
  options.revision = 10;
  EXPECT_EQ(Read(options).kvs, Read(Everything()).kvs);
  options.revision = 11;
  RangeResult result;
  const absl::Status status = view_->Range(options, &result);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(base::Message(status), kFutureRevisionText);
}

TEST_F(MvccRange, TheAnswersBytesAreLimited) {
  RangeOptions options = Everything();  // a=5 b=4 c=old d=old e=1: 5 keys, 9 bytes of values
  options.max_bytes = 14;
  EXPECT_EQ(Read(options).kvs.size(), 5u);
  options.max_bytes = 13;
  RangeResult result;
  absl::Status status = view_->Range(options, &result);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(base::Message(status)), testing::HasSubstr("max_bytes = 13"));
  EXPECT_TRUE(result.kvs.empty());
  EXPECT_EQ(result.count, 0);

  // Only what is answered with counts.
  options.max_bytes = 5;
  options.keys_only = true;
  EXPECT_EQ(Read(options).kvs.size(), 5u);
  options = Everything();
  options.max_bytes = 4;
  options.limit = 2;
  EXPECT_EQ(Read(options).count, 5);
  options.sort_order = SortOrder::kDescend;
  options.max_bytes = 8;  // on its way it holds c and d, of four bytes each
  EXPECT_THAT(Brief(Read(options)), ElementsAre("e=1@7", "d=old@5"));
  options.limit = 0;
  options.max_bytes = 0;
  options.count_only = true;
  EXPECT_EQ(Read(options).count, 5);
}

}  // namespace
}  // namespace holdfast::storage
