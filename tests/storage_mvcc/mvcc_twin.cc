#include "tests/storage_mvcc/mvcc_twin.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/strings.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::storage {
namespace {

const std::string kNul(1, '\0');

bool InRange(const std::string& key, const std::string& begin, const std::string& end) {
  if (end.empty()) return key == begin;
  if (end == kNul) return key >= begin;
  return key >= begin && key < end;
}

std::string Describe(const RangeOptions& o) {
  return fmt::format(
      "range \"{}\" to \"{}\" limit {} revision {} order {} target {} keys_only {} count_only {} "
      "mod {}..{} create {}..{}",
      base::Printable(o.key), base::Printable(o.range_end), o.limit, o.revision,
      static_cast<int>(o.sort_order), static_cast<int>(o.sort_target), o.keys_only, o.count_only,
      o.min_mod_revision, o.max_mod_revision, o.min_create_revision, o.max_create_revision);
}

bool LessBy(SortTarget target, const KeyValue& a, const KeyValue& b) {
  switch (target) {
    case SortTarget::kKey:
      return a.key < b.key;
    case SortTarget::kVersion:
      return a.version < b.version;
    case SortTarget::kCreate:
      return a.create_revision < b.create_revision;
    case SortTarget::kMod:
      return a.mod_revision < b.mod_revision;
    case SortTarget::kValue:
      return a.value < b.value;
  }
  return false;
}

}  // namespace

std::string EventText(const EventView& event) {
  const auto text = [](const KeyValueView& kv) {
    return fmt::format("{}={} c{} m{} v{} l{}", base::Printable(kv.key), base::Printable(kv.value),
                       kv.create_revision, kv.mod_revision, kv.version, kv.lease);
  };
  return fmt::format("{}.{} {} {} before: {}", event.revision, event.sub,
                     event.is_delete ? "DELETE" : "PUT", text(event.kv),
                     event.previous.has_value() ? text(*event.previous) : "nothing");
}

void MvccTwin::Record(const std::string& key, const std::optional<KeyValue>& kv,
                      const std::optional<KeyValue>& previous) {
  const auto view = [](const KeyValue& of) {
    return KeyValueView{of.key,          of.value,   of.create_revision,
                        of.mod_revision, of.version, of.lease};
  };
  EventView event{.revision = revision_ + 1, .sub = sub_++, .is_delete = !kv.has_value()};
  event.kv.key = key;
  event.kv.mod_revision = event.revision;
  if (kv.has_value()) event.kv = view(*kv);
  if (previous.has_value()) event.previous = view(*previous);
  history_.emplace_back(event.revision, EventText(event));
}

std::map<std::string, KeyValue> MvccTwin::Records(const Sight& sight) const {
  std::map<std::string, KeyValue> records;
  for (const auto& [key, events] : events_) {
    if (std::optional<KeyValue> kv = At(key, sight.newest)) records[key] = *std::move(kv);
  }
  return records;
}

bool MvccTwin::End() {
  if (wrote_) ++revision_;
  return std::exchange(wrote_, false);
}

std::optional<KeyValue> MvccTwin::At(const std::string& key, int64_t revision) const {
  const auto it = events_.find(key);
  if (it == events_.end()) return std::nullopt;
  std::optional<KeyValue> kv;
  for (const Event& event : it->second) {
    if (event.revision <= revision) kv = event.kv;
  }
  return kv;
}

std::optional<KeyValue> MvccTwin::Put(const std::string& key, const std::string& value,
                                      int64_t lease) {
  const std::optional<KeyValue> old = At(key, INT64_MAX);
  KeyValue kv;
  kv.key = key;
  kv.value = value;
  kv.lease = lease;
  kv.mod_revision = revision_ + 1;
  kv.create_revision = old ? old->create_revision : kv.mod_revision;
  kv.version = old ? old->version + 1 : 1;
  events_[key].push_back({kv.mod_revision, kv});
  Record(key, kv, old);
  wrote_ = true;
  return old;
}

std::vector<KeyValue> MvccTwin::Delete(const std::string& key, const std::string& range_end) {
  std::vector<KeyValue> deleted;
  for (auto& [name, events] : events_) {
    if (!InRange(name, key, range_end) || !events.back().kv) continue;
    deleted.push_back(*events.back().kv);
    events.push_back({revision_ + 1, std::nullopt});
    Record(name, std::nullopt, deleted.back());
    wrote_ = true;
  }
  return deleted;
}

absl::Status MvccTwin::Compact(int64_t revision) {
  if (revision <= compact_) return absl::OutOfRangeError(base::ToAbsl(kCompactedText));
  if (revision > revision_) return absl::OutOfRangeError(base::ToAbsl(kFutureRevisionText));
  compact_ = revision;
  return absl::OkStatus();
}

void MvccTwin::SetMeta(const std::string& key, std::optional<std::string> value) {
  if (value) {
    meta_[key] = *value;
  } else {
    meta_.erase(key);
  }
}

absl::Status MvccTwin::Range(const Sight& sight, const RangeOptions& o, RangeResult* result) const {
  *result = RangeResult{};
  const int64_t at = o.revision > 0 ? o.revision : sight.newest;
  if (at > sight.newest) return absl::OutOfRangeError(base::ToAbsl(kFutureRevisionText));
  if (o.revision > 0 && at < sight.compact) {
    return absl::OutOfRangeError(base::ToAbsl(kCompactedText));
  }
  std::vector<KeyValue> kvs;
  for (const auto& [key, events] : events_) {
    if (!InRange(key, o.key, o.range_end)) continue;
    if (const std::optional<KeyValue> kv = At(key, at)) kvs.push_back(*kv);
  }
  result->count = static_cast<int64_t>(kvs.size());
  if (o.count_only) return absl::OkStatus();
  std::erase_if(kvs, [&](const KeyValue& kv) {
    return (o.min_mod_revision != 0 && kv.mod_revision < o.min_mod_revision) ||
           (o.max_mod_revision != 0 && kv.mod_revision > o.max_mod_revision) ||
           (o.min_create_revision != 0 && kv.create_revision < o.min_create_revision) ||
           (o.max_create_revision != 0 && kv.create_revision > o.max_create_revision);
  });
  const bool descend = o.sort_order == SortOrder::kDescend;
  std::stable_sort(kvs.begin(), kvs.end(), [&](const KeyValue& a, const KeyValue& b) {
    return descend ? LessBy(o.sort_target, b, a) : LessBy(o.sort_target, a, b);
  });
  if (o.limit > 0 && kvs.size() > static_cast<size_t>(o.limit)) {
    kvs.resize(static_cast<size_t>(o.limit));
    result->more = true;
  }
  if (o.keys_only) {
    for (KeyValue& kv : kvs) kv.value.clear();
  }
  result->kvs = std::move(kvs);
  return absl::OkStatus();
}

std::string TwinWorkload::RandomKey() {
  static const std::array<std::string, 4> kOdd = {kNul, std::string("a\0b", 3), "\xff\xff", "k1"};
  if (rng_.OneIn(12)) return kOdd[rng_.Below(kOdd.size())];
  return fmt::format("k{}", rng_.Below(40));
}

RangeOptions TwinWorkload::RandomRange(int64_t newest) {
  RangeOptions o;
  o.key = rng_.OneIn(4) ? kNul : RandomKey();
  if (!rng_.OneIn(4)) o.range_end = rng_.OneIn(2) ? kNul : RandomKey();
  if (rng_.OneIn(2)) o.limit = static_cast<int64_t>(rng_.Below(6));
  const auto revision = [&] {
    return static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(newest) + 2));
  };
  if (rng_.OneIn(2)) o.revision = revision();
  // The most recent ones are those that reach into open and uncommitted revisions.
  if (rng_.OneIn(3))
    o.revision = std::max<int64_t>(0, newest - static_cast<int64_t>(rng_.Below(8)));
  o.sort_order = static_cast<SortOrder>(rng_.Below(3));
  o.sort_target = rng_.OneIn(2) ? SortTarget::kKey : static_cast<SortTarget>(rng_.Below(5));
  o.keys_only = rng_.OneIn(5);
  o.count_only = rng_.OneIn(8);
  if (rng_.OneIn(6)) o.min_mod_revision = revision();
  if (rng_.OneIn(6)) o.max_mod_revision = revision();
  if (rng_.OneIn(6)) o.min_create_revision = revision();
  if (rng_.OneIn(6)) o.max_create_revision = revision();
  return o;
}

void TwinWorkload::Mutate(MvccTwin& twin, MvccStore::Writer* writer) {
  if (!rng_.OneIn(3)) {
    const std::string key = RandomKey();
    const std::string value(rng_.Below(120), static_cast<char>('a' + rng_.Below(26)));
    const auto lease = static_cast<int64_t>(rng_.Below(kLeases + 1));
    const std::optional<KeyValue> old = twin.Put(key, value, lease);
    if (writer == nullptr) return;
    std::optional<KeyValue> prev;
    ASSERT_TRUE(writer->Put(key, value, lease, &prev).ok());
    EXPECT_EQ(prev, old);
    return;
  }
  const std::string key = RandomKey();
  std::string range_end;
  if (rng_.OneIn(3)) range_end = rng_.OneIn(8) ? kNul : RandomKey();
  const std::vector<KeyValue> deleted = twin.Delete(key, range_end);
  if (writer == nullptr) return;
  std::vector<KeyValue> prev;
  const auto count = writer->DeleteRange(key, range_end, &prev);
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(*count, static_cast<int64_t>(deleted.size()));
  EXPECT_EQ(prev, deleted);
}

void TwinWorkload::CompareOpenRange(const MvccTwin& twin, MvccStore::Writer* writer) {
  const RangeOptions options = RandomRange(twin.InOpenRevision().newest);
  if (writer == nullptr) return;
  RangeResult result;
  const absl::Status status = writer->Range(options, &result);
  ExpectSameRange(status, result, twin, twin.InOpenRevision(), options);
}

void TwinWorkload::Hint(const MvccTwin& twin, MvccStore::Writer* writer) {
  if (rng_.OneIn(3)) {
    std::vector<std::string> keys;
    while (!rng_.OneIn(6)) keys.push_back(RandomKey());
    writer->Prefetch(std::vector<std::string_view>(keys.begin(), keys.end()));
  }
  if (rng_.OneIn(4)) {
    const std::string key = fmt::format("m{}", rng_.Below(10));
    const auto it = twin.meta().find(key);
    EXPECT_EQ(*writer->GetMeta(key),
              it == twin.meta().end() ? std::nullopt : std::optional<std::string>(it->second));
  }
}

void TwinWorkload::Step(MvccTwin& twin, MvccStore::Writer* writer) {
  if (writer != nullptr) Hint(twin, writer);
  const uint64_t dice = rng_.Below(100);
  if (dice < 3) {
    const auto newest = static_cast<uint64_t>(twin.Now().newest);
    const auto revision = static_cast<int64_t>(newest - rng_.Below(std::min<uint64_t>(newest, 30)));
    const absl::Status expected = twin.Compact(revision);
    if (writer != nullptr) {
      EXPECT_EQ(writer->Compact(revision), expected);
    }
    return;
  }
  if (dice < 15) {
    const std::string key = fmt::format("m{}", rng_.Below(10));
    const bool remove = rng_.OneIn(4);
    const std::string value = fmt::format("{}", rng_.Below(1000));
    const bool fresh = !twin.meta().contains(key) && rng_.OneIn(2);
    twin.SetMeta(key, remove ? std::nullopt : std::optional<std::string>(value));
    if (writer == nullptr) return;
    if (remove) {
      writer->DeleteMeta(key);
    } else if (fresh) {
      writer->PutNewMeta(key, value);
    } else {
      writer->PutMeta(key, value);
    }
    EXPECT_EQ(*writer->GetMeta(key), remove ? std::nullopt : std::optional<std::string>(value));
    return;
  }
  // Some revisions with many events, the same key more than once among them.
  const uint64_t events = dice < 60 ? 1 : 1 + rng_.Below(6);
  twin.Begin();
  if (writer != nullptr) writer->BeginRevision();
  for (uint64_t i = 0; i < events; ++i) {
    Mutate(twin, writer);
    if (rng_.OneIn(3)) CompareOpenRange(twin, writer);
  }
  const bool written = twin.End();
  if (writer == nullptr) return;
  EXPECT_EQ(writer->EndRevision(), written);
  EXPECT_EQ(writer->revision(), twin.Now().newest);
}

void ExpectSameRange(const absl::Status& status, const RangeResult& result, const MvccTwin& twin,
                     const MvccTwin::Sight& sight, const RangeOptions& options) {
  SCOPED_TRACE(Describe(options));
  RangeResult expected;
  const absl::Status expected_status = twin.Range(sight, options, &expected);
  EXPECT_EQ(status, expected_status);
  EXPECT_EQ(result.kvs, expected.kvs);
  EXPECT_EQ(result.count, expected.count);
  EXPECT_EQ(result.more, expected.more);
}

}  // namespace holdfast::storage
