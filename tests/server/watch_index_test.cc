// The index of watched keys beside a list that is searched, and the hand-made bytes of responses
// beside protobuf's.
#include <algorithm>
#include <memory>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "kv_test_util.h"
#include "server/watch_codec.h"
#include "server/watch_index.h"

namespace holdfast::server {
namespace {

TEST(WatchRange, IsEtcds) {
  const std::string zero("\0", 1);
  EXPECT_TRUE(WatchRange::Of("a", "").Contains("a"));
  EXPECT_FALSE(WatchRange::Of("a", "").Contains("ab"));
  EXPECT_TRUE(WatchRange::Of("a", "c").Contains("bz"));
  EXPECT_FALSE(WatchRange::Of("a", "c").Contains("c"));
  EXPECT_TRUE(WatchRange::Of("b", zero).Contains("zzz"));
  EXPECT_FALSE(WatchRange::Of("b", zero).Contains("a"));
  EXPECT_TRUE(WatchRange::Of("", zero).Contains("a"));
  EXPECT_TRUE(WatchRange::Of("", "").Contains(zero));
  EXPECT_FALSE(WatchRange::Of("", "").Contains("a"));
  EXPECT_TRUE(WatchRange::Of("b", "b").empty());
  EXPECT_TRUE(WatchRange::Of("b", "a").empty());
  EXPECT_FALSE(WatchRange::Of("b", zero).empty());
  EXPECT_FALSE(WatchRange::Of("b", "").empty());
}

struct Entry : WatchIndex::Entry {
  using WatchIndex::Entry::Entry;
};

TEST(WatchIndex, FindsWhatASearchFinds) {
  base::Rng rng(7);
  const auto key = [&] {
    std::string text;
    for (uint64_t i = 1 + rng.Below(3); i > 0; --i) {
      text += static_cast<char>('a' + rng.Below(5));
    }
    return text;
  };
  WatchIndex index;
  std::vector<std::unique_ptr<Entry>> entries;
  for (int step = 0; step < 20000; ++step) {
    if (entries.size() < 3 || (entries.size() < 300 && rng.OneIn(2))) {
      std::string begin = key(), end;
      if (rng.OneIn(2)) end = rng.OneIn(4) ? std::string("\0", 1) : key();
      WatchRange range = WatchRange::Of(begin, end);
      if (range.empty()) continue;
      entries.push_back(std::make_unique<Entry>(range));
      index.Insert(entries.back().get());
    } else if (rng.OneIn(2)) {
      const size_t at = rng.Below(entries.size());
      index.Remove(entries[at].get());
      entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(at));
    }
    ASSERT_EQ(index.size(), entries.size());
    const std::string wanted = key();
    std::vector<WatchIndex::Entry*> found, searched;
    index.Find(wanted, &found);
    for (const auto& entry : entries) {
      if (entry->range.Contains(wanted)) searched.push_back(entry.get());
    }
    std::sort(found.begin(), found.end());
    std::sort(searched.begin(), searched.end());
    ASSERT_EQ(found, searched) << wanted;
  }
}

TEST(WatchCodec, IsProtobufs) {
  const storage::EventView put = {.revision = 300,
                                  .sub = 1,
                                  .is_delete = false,
                                  .kv = {.key = "key",
                                         .value = "value",
                                         .create_revision = 200,
                                         .mod_revision = 300,
                                         .version = 2,
                                         .lease = -5},
                                  .previous = storage::KeyValueView{.key = "key",
                                                                    .value = "",
                                                                    .create_revision = 200,
                                                                    .mod_revision = 200,
                                                                    .version = 1,
                                                                    .lease = 0}};
  const storage::EventView gone = {.revision = 301,
                                   .sub = 0,
                                   .is_delete = true,
                                   .kv = {.key = "key", .value = "", .mod_revision = 301},
                                   .previous = std::nullopt};
  const EncodedEvent first(put, true), second(gone, true), third(put, false);
  EXPECT_EQ(first.key(), "key");
  EXPECT_EQ(second.key(), "key");
  EXPECT_FALSE(third.knows_previous());
  EXPECT_EQ(*third.plain(), *first.plain());
  EXPECT_EQ(second.with_previous(), second.plain());

  const ResponseHead head = {.cluster_id = 1,
                             .member_id = uint64_t{1} << 63,
                             .raft_term = 3,
                             .revision = 301,
                             .watch_id = 17,
                             .fragment = true};
  const auto expected = testing::Parse<etcdserverpb::WatchResponse>(R"pb(
    header { cluster_id: 1 member_id: 9223372036854775808 revision: 301 raft_term: 3 }
    watch_id: 17
    fragment: true
    events {
      kv { key: "key" value: "value" create_revision: 200 mod_revision: 300 version: 2 lease: -5 }
      prev_kv { key: "key" create_revision: 200 mod_revision: 200 version: 1 }
    }
    events {
      type: DELETE
      kv { key: "key" mod_revision: 301 }
    }
  )pb");
  EXPECT_EQ(EncodeHead(head) + *first.with_previous() + *second.plain(),
            expected.SerializeAsString());
}

TEST(WatchCodec, TakesALongKey) {
  const std::string key(300, 'k');
  const EncodedEvent event({.revision = 2, .kv = {.key = key, .value = "", .mod_revision = 2}},
                           false);
  EXPECT_EQ(event.key(), key);
}

}  // namespace
}  // namespace holdfast::server
