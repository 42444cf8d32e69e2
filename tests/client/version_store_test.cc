// The versions of a mirror's records: what each shows, what they share, and who frees it.
// HOLDFAST_SEED=N moves the seeds of the model test.
#include "client/version_store.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/rng.h"
#include "client/pins.h"
#include "client/published.h"

namespace holdfast::internal {
namespace {

using Model = std::map<std::string, Entry>;

uint64_t BaseSeed() {
  const char* text = std::getenv("HOLDFAST_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

EntryView ViewOf(const Entry& entry) {
  return {entry.key,          entry.value,   entry.create_revision,
          entry.mod_revision, entry.version, entry.lease};
}

bool Same(const EntryView& a, const EntryView& b) {
  return a.key == b.key && a.value == b.value && a.create_revision == b.create_revision &&
         a.mod_revision == b.mod_revision && a.version == b.version && a.lease == b.lease;
}

Entry Record(std::string key, std::string value, uint64_t revision) {
  return {std::move(key), std::move(value), revision, revision, 1, 0};
}

std::string KeyOf(uint64_t n) { return "/config/" + std::to_string(n); }

// What a snapshot must be, in every way to look at it.
void ExpectShows(const MirrorSnapshot& snapshot, const Model& model) {
  ASSERT_EQ(snapshot.size(), model.size());
  auto expected = model.begin();
  size_t bytes = 0;
  snapshot.Scan("", [&](const EntryView& entry) {
    if (expected == model.end()) {
      ADD_FAILURE() << "more than there is: " << entry.key;
      return false;
    }
    EXPECT_TRUE(Same(entry, ViewOf(expected->second))) << entry.key << " " << expected->first;
    bytes += entry.key.size() + entry.value.size();
    ++expected;
    return true;
  });
  EXPECT_TRUE(expected == model.end()) << "not shown: " << expected->first;
  EXPECT_EQ(snapshot.bytes(), bytes);

  base::RecordDigest content;
  base::RecordDigest records;
  for (const auto& [key, entry] : model) {
    const std::optional<EntryView> found = snapshot.Find(key);
    ASSERT_TRUE(found.has_value()) << key;
    EXPECT_TRUE(Same(*found, ViewOf(entry))) << key;
    const base::RecordDigest one = base::DigestOfContent(key, entry.value);
    content.Add(one);
    records.Add(base::DigestOfRecord(one, entry.create_revision, entry.mod_revision, entry.version,
                                     entry.lease));
  }
  EXPECT_EQ(VersionStore::ContentDigest(snapshot), content);
  EXPECT_EQ(VersionStore::RecordsDigest(snapshot), records);
}

void ExpectScan(const MirrorSnapshot& snapshot, const Model& model, const std::string& prefix) {
  std::vector<std::string> expected;
  for (auto it = model.lower_bound(prefix); it != model.end() && it->first.starts_with(prefix);
       ++it) {
    expected.push_back(it->first);
  }
  std::vector<std::string> keys;
  for (const Entry& entry : snapshot.Entries(prefix)) keys.push_back(entry.key);
  EXPECT_EQ(keys, expected) << prefix;
}

void ExpectDiff(const MirrorSnapshot& before, const Model& was, const MirrorSnapshot& after,
                const Model& is) {
  std::set<std::string> expected;
  for (const auto& [key, entry] : was) {
    const auto now = is.find(key);
    if (now == is.end() || !Same(ViewOf(entry), ViewOf(now->second))) expected.insert(key);
  }
  for (const auto& [key, entry] : is) {
    if (!was.contains(key)) expected.insert(key);
  }
  std::set<std::string> seen;
  const auto visit = [&](std::string_view key_view, const EntryView* old_entry,
                         const EntryView* new_entry) {
    const std::string key(key_view);
    EXPECT_TRUE(seen.insert(key).second) << "twice: " << key;
    ASSERT_EQ(old_entry != nullptr, was.contains(key)) << key;
    ASSERT_EQ(new_entry != nullptr, is.contains(key)) << key;
    if (old_entry != nullptr) {
      EXPECT_TRUE(Same(*old_entry, ViewOf(was.at(key))));
    }
    if (new_entry != nullptr) {
      EXPECT_TRUE(Same(*new_entry, ViewOf(is.at(key))));
    }
  };
  EXPECT_TRUE(VersionStore::Diff(before, after, expected.size(), visit));
  EXPECT_EQ(seen, expected);
  if (expected.empty()) return;
  size_t calls = 0;
  EXPECT_FALSE(
      VersionStore::Diff(before, after, expected.size() - 1,
                         [&](std::string_view, const EntryView*, const EntryView*) { ++calls; }));
  EXPECT_EQ(calls, expected.size() - 1);
}

TEST(VersionStore, ShowsNothingAtFirst) {
  const VersionStore store;
  VersionInfo info;
  const MirrorSnapshot current = store.Current(&info);
  ExpectShows(current, {});
  EXPECT_FALSE(info.usable);
  EXPECT_EQ(current.revision(), 0u);
  ExpectShows(MirrorSnapshot(), {});
}

TEST(VersionStore, ServesWhatWasPublishedNotWhatWasBuilt) {
  VersionStore store;
  store.Put(ViewOf(Record("a", "1", 5)));
  const MirrorSnapshot first = store.Build(5);
  EXPECT_EQ(store.Current().size(), 0u) << "not accepted yet";
  store.Publish(first, {.revision = 5, .usable = true});
  store.Put(ViewOf(Record("a", "2", 6)));
  EXPECT_EQ(store.head().Find("a")->value, "1") << "not built yet";
  const MirrorSnapshot second = store.Build(6);

  store.Visit("a", [](const EntryView* entry, const VersionInfo& info) {
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->value, "1");
    EXPECT_EQ(info.revision, 5u);
  });
  EXPECT_EQ(store.head().revision(), 6u);
  // The same records, judged anew.
  store.Publish(first, {.revision = 5, .superseded = true, .usable = true});
  EXPECT_TRUE(store.info().superseded);
  store.Publish(second, {.revision = 6, .usable = true});
  VersionInfo info;
  EXPECT_EQ(store.Current(&info).Find("a")->value, "2");
  EXPECT_EQ(info.revision, 6u);
  store.Visit("b", [](const EntryView* entry, const VersionInfo&) { EXPECT_EQ(entry, nullptr); });
}

TEST(VersionStore, KeysAndValuesAreAnyBytes) {
  VersionStore store;
  Model model;
  for (const std::string& key : {std::string(), std::string("\0", 1), std::string("\0\0", 2),
                                 std::string("\xff\xff"), std::string(70'000, 'k')}) {
    model[key] = Record(key, key + std::string("\0v", 2), 3);
    store.Put(ViewOf(model[key]));
  }
  ExpectShows(store.Build(3), model);
}

TEST(VersionStore, PutOfTheSameRecordKeepsItShared) {
  VersionStore store;
  store.Put(ViewOf(Record("a", "1", 5)));
  const MirrorSnapshot first = store.Build(5);
  store.Put(ViewOf(Record("a", "1", 5)));
  const MirrorSnapshot second = store.Build(6);
  EXPECT_EQ(first.Find("a")->value.data(), second.Find("a")->value.data());
  store.Put(ViewOf(Record("a", "1", 7)));  // the same content, but another write
  const MirrorSnapshot third = store.Build(7);
  EXPECT_EQ(VersionStore::ContentDigest(first), VersionStore::ContentDigest(third));
  EXPECT_NE(VersionStore::RecordsDigest(first), VersionStore::RecordsDigest(third));
}

TEST(VersionStore, TakesARecordFromItsOwnVersions) {
  VersionStore store;
  store.Put(ViewOf(Record("a", "from itself", 1)));
  store.Build(1);
  // The bytes are those of a record that these very calls replace and take out.
  EntryView own = *store.head().Find("a");
  own.mod_revision = 2;
  store.Put(own);
  store.Delete(own.key);
  store.Put(own);
  EXPECT_EQ(store.Build(2).Find("a")->value, "from itself");
}

struct Kept {
  MirrorSnapshot snapshot;
  Model model;
};

class VersionStoreModel : public testing::TestWithParam<uint64_t> {
 protected:
  uint64_t seed_ = GetParam() + BaseSeed() * 1000;
  base::Rng rng_{seed_};
  VersionStore store_;
  Model model_;
  uint64_t revision_ = 1;
  std::vector<Kept> kept_;  // in the order of the chain
  std::optional<Kept> published_;

  void Change(uint64_t keys) {
    const std::string key = KeyOf(rng_.Below(keys));
    if (rng_.OneIn(3)) {
      store_.Delete(key);
      model_.erase(key);
      return;
    }
    Entry entry = Record(key, std::string(rng_.Below(40), 'a' + rng_.Below(26)), revision_);
    entry.version = 1 + rng_.Below(9);
    entry.lease = static_cast<int64_t>(rng_.Below(3));
    store_.Put(ViewOf(entry));
    model_[key] = entry;
  }
  void MaybeClear() {
    if (!rng_.OneIn(25)) return;
    store_.Clear();
    if (rng_.OneIn(2)) {
      model_.clear();
      return;
    }
    for (const auto& [key, entry] : model_) store_.Put(ViewOf(entry));  // loaded again
  }
  void KeepOrRelease(const MirrorSnapshot& built) {
    if (rng_.OneIn(3)) kept_.push_back({built, model_});
    while (kept_.size() > 8 || (!kept_.empty() && rng_.OneIn(6))) {
      kept_.erase(kept_.begin() + static_cast<ptrdiff_t>(rng_.Below(kept_.size())));
    }
  }
  void MaybePublish(const MirrorSnapshot& built) {
    if (rng_.OneIn(2)) {
      store_.Publish(built, {.revision = built.revision(), .usable = true});
      published_ = {built, model_};
    }
    if (!published_) return;
    VersionInfo info;
    const MirrorSnapshot current = store_.Current(&info);
    EXPECT_EQ(info.revision, published_->snapshot.revision());
    ExpectShows(current, published_->model);
  }
};

TEST_P(VersionStoreModel, EveryKeptVersionStaysAsItWas) {
  SCOPED_TRACE(testing::Message() << "seed " << seed_);
  const uint64_t keys = 20 + rng_.Below(3000);
  for (int round = 0; round < 120; ++round) {
    ++revision_;
    const uint64_t changes = rng_.OneIn(8) ? rng_.Below(keys) : rng_.Below(12);
    if (rng_.OneIn(10)) Change(keys);  // a Clear after a change, too
    MaybeClear();
    for (uint64_t i = 0; i < changes; ++i) Change(keys);
    if (rng_.OneIn(40)) MaybeClear();
    const MirrorSnapshot built = store_.Build(revision_);
    ASSERT_EQ(built.revision(), revision_);
    KeepOrRelease(built);
    MaybePublish(built);
    if (round % 8 == 0) {
      ExpectShows(built, model_);
      ExpectScan(built, model_, KeyOf(rng_.Below(keys)));
      ExpectScan(built, model_, "/config/1");
      ExpectScan(built, model_, "/x");
      for (const Kept& old : kept_) {
        ExpectShows(old.snapshot, old.model);
        ExpectDiff(old.snapshot, old.model, built, model_);
      }
    }
    if (HasFatalFailure()) return;
  }
  for (const Kept& old : kept_) ExpectShows(old.snapshot, old.model);
}

INSTANTIATE_TEST_SUITE_P(Seeds, VersionStoreModel, testing::Range<uint64_t>(0, 12));

TEST(VersionStore, GrowsAndShrinksThroughEverySize) {
  VersionStore store;
  Model model;
  const auto key = [](uint64_t n) { return KeyOf(n * 7919 % 20'000); };
  for (uint64_t n = 0; n < 20'000; ++n) {
    model[key(n)] = Record(key(n), "v", n);
    store.Put(ViewOf(model[key(n)]));
    if (n % 4001 == 0) ExpectShows(store.Build(n), model);
  }
  const MirrorSnapshot full = store.Build(20'000);
  const Model full_model = model;
  ExpectShows(full, model);
  for (uint64_t n = 0; n < 20'000; ++n) {
    store.Delete(key(n));
    model.erase(key(n));
    if (n % 4001 == 0) ExpectShows(store.Build(20'000 + n), model);
  }
  ExpectShows(store.Build(50'000), {});
  ExpectShows(full, full_model);
}

TEST(VersionStore, KeysInOrderFillTheirNodes) {
  VersionStore store;
  const size_t empty = store.memory().total;
  constexpr size_t kKeys = 50'000;
  size_t bytes = 0;
  for (size_t n = 0; n < kKeys; ++n) {
    const Entry entry = Record(KeyOf(1'000'000 + n), "value", 1);
    bytes += entry.key.size() + entry.value.size();
    store.Put(ViewOf(entry));
  }
  store.Build(1);
  EXPECT_LT(store.memory().total - empty, bytes + kKeys * 100);
}

TEST(VersionStore, MemoryFollowsWhatCanBeSeen) {
  VersionStore store;
  const auto fill = [&](uint64_t revision) {
    for (int n = 0; n < 5000; ++n) store.Put(ViewOf(Record(KeyOf(n), "value", revision)));
    store.Publish(store.Build(revision), {.revision = revision});
  };
  fill(1);
  const VersionStore::Memory full = store.memory();
  EXPECT_EQ(full.retired, 0u);

  // One key changed: a little is retired while somebody keeps the version before.
  MirrorSnapshot kept = store.Current();
  store.Put(ViewOf(Record(KeyOf(7), "other", 2)));
  store.Publish(store.Build(2), {.revision = 2});
  EXPECT_GT(store.memory().retired, 0u);
  EXPECT_LT(store.memory().retired, 8192u);
  kept = MirrorSnapshot();
  EXPECT_EQ(store.memory().retired, 0u);
  EXPECT_EQ(store.memory().total, full.total);

  // All of it, again and again.
  kept = store.Current();
  for (uint64_t revision = 3; revision < 9; ++revision) {
    if (revision % 2 == 0) store.Clear();
    fill(revision);
  }
  EXPECT_GT(store.memory().retired, 5 * full.total);
  kept = MirrorSnapshot();
  EXPECT_EQ(store.memory().retired, 0u);
  EXPECT_EQ(store.memory().total, full.total);

  // What is abandoned unbuilt leaves nothing.
  for (int n = 0; n < 5000; ++n) store.Put(ViewOf(Record(KeyOf(2 * n), "a longer value", 9)));
  store.Clear();
  store.Put(ViewOf(Record("a", "b", 9)));
  store.Clear();
  fill(9);
  EXPECT_EQ(store.memory().total, full.total);

  for (int n = 0; n < 5000; ++n) store.Delete(KeyOf(n));
  store.Publish(store.Build(10), {.revision = 10});
  EXPECT_LT(store.memory().total, 4096u);
}

TEST(VersionStore, MemoryFollowsTheNumberOfKeys) {
  VersionStore store;
  const auto put = [&](int n) { store.Put(ViewOf(Record(KeyOf(100'000 + n), "value", 1))); };
  for (int n = 0; n < 500; ++n) put(n * 40);
  store.Publish(store.Build(1), {});
  const size_t few = store.memory().total;
  for (int n = 0; n < 20'000; ++n) put(n);
  store.Publish(store.Build(2), {});
  // Some are left in every node and every shard.
  for (int n = 0; n < 20'000; ++n) {
    if (n % 40 != 0) store.Delete(KeyOf(100'000 + n));
  }
  store.Publish(store.Build(3), {});
  EXPECT_LT(store.memory().total, 2 * few);
}

TEST(VersionStore, WhatAVisitorSeesStaysWhileItLooks) {
  VersionStore store;
  store.Put(ViewOf(Record("a", "old", 1)));
  store.Publish(store.Build(1), {.revision = 1});
  store.Visit("a", [&](const EntryView* entry, const VersionInfo& info) {
    std::thread([&] {
      store.Put(ViewOf(Record("a", "new", 2)));
      store.Publish(store.Build(2), {.revision = 2});
      store.Publish(store.Build(3), {.revision = 3});
      EXPECT_GT(store.memory().retired, 0u);
    }).join();
    EXPECT_EQ(entry->value, "old");
    EXPECT_EQ(info.revision, 1u);
  });
  EXPECT_EQ(store.memory().retired, 0u);
}

TEST(VersionStore, AVersionInTheMiddleKeepsWhatItShows) {
  VersionStore store;
  std::vector<MirrorSnapshot> versions;
  for (uint64_t n = 0; n < 20; ++n) {
    store.Put(ViewOf(Record("key", std::to_string(n), n)));
    versions.push_back(store.Build(n));
    store.Publish(versions.back(), {.revision = n});
  }
  const MirrorSnapshot middle = versions[10];
  versions.clear();
  store.memory();
  EXPECT_EQ(middle.Find("key")->value, "10");
}

TEST(VersionStore, SnapshotsOutliveTheStore) {
  Model model;
  MirrorSnapshot old_one;
  MirrorSnapshot last;
  {
    VersionStore store;
    for (int n = 0; n < 1000; ++n) {
      model[KeyOf(n)] = Record(KeyOf(n), "v", 1);
      store.Put(ViewOf(model[KeyOf(n)]));
    }
    old_one = store.Build(1);
    store.Put(ViewOf(Record(KeyOf(3), "new", 2)));
    last = store.Build(2);
    store.Publish(last, {.revision = 2});
    store.Put(ViewOf(Record(KeyOf(4), "never built", 3)));
  }
  ExpectShows(old_one, model);
  EXPECT_EQ(last.Find(KeyOf(3))->value, "new");
  std::thread other([kept = std::move(last)]() mutable { kept = MirrorSnapshot(); });
  other.join();
  ExpectShows(old_one, model);
}

// Every version's records carry the version's number in their values, and every version has the
// same sum of `mod_revision`s plus twice the number: a torn or freed one shows.
class ConcurrentReaders : public testing::Test {
 protected:
  static constexpr uint64_t kKeys = 64;
  VersionStore store_;
  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> reads_ = 0;

  void Write(uint64_t number) {
    if (number % 16 == 0) store_.Clear();
    for (uint64_t n = 0; n < kKeys; ++n) {
      store_.Put(ViewOf(Record(KeyOf(n), std::to_string(number), number)));
    }
    store_.Put(ViewOf(Record("/extra/" + std::to_string(number % 300), "x", number)));
    const MirrorSnapshot built = store_.Build(number);
    if (number % 3 != 0) store_.Publish(built, {.revision = number, .usable = true});
  }
  void Check(const MirrorSnapshot& snapshot, const VersionInfo& info) {
    if (!info.usable) return;
    ASSERT_EQ(snapshot.revision(), info.revision);
    const std::string number = std::to_string(info.revision);
    size_t seen = 0;
    snapshot.Scan("/config/", [&](const EntryView& entry) {
      EXPECT_EQ(entry.value, number);
      EXPECT_EQ(entry.mod_revision, info.revision);
      ++seen;
      return true;
    });
    EXPECT_EQ(seen, kKeys);
    EXPECT_EQ(snapshot.Find(KeyOf(info.revision % kKeys))->value, number);
  }
  void Read(uint64_t seed) {
    base::Rng rng(seed);
    std::vector<std::pair<MirrorSnapshot, VersionInfo>> kept;
    uint64_t newest = 0;
    while (!stop_.load()) {
      VersionInfo info;
      const MirrorSnapshot snapshot = store_.Current(&info);
      EXPECT_GE(info.revision, newest) << "went back";
      newest = info.revision;
      Check(snapshot, info);
      store_.Visit(KeyOf(rng.Below(kKeys)), [&](const EntryView* entry, const VersionInfo& now) {
        if (!now.usable) return;
        ASSERT_NE(entry, nullptr);
        EXPECT_EQ(entry->value, std::to_string(now.revision));
      });
      if (rng.OneIn(4)) kept.emplace_back(snapshot, info);
      if (kept.size() > 6) kept.erase(kept.begin());
      if (!kept.empty()) Check(kept.front().first, kept.front().second);
      reads_.fetch_add(1);
    }
  }
};

TEST_F(ConcurrentReaders, EachSeesOneVersionAtATime) {
  std::vector<std::thread> readers;
  for (uint64_t seed = 0; seed < 3; ++seed) readers.emplace_back([=, this] { Read(seed); });
  uint64_t number = 0;
  while (number < 400 || reads_.load() < 2000) Write(++number);
  // Threads that come and go use each other's slots.
  for (int n = 0; n < 20; ++n) {
    std::thread([&] {
      store_.Visit("/extra/1", [](const EntryView*, const VersionInfo&) {});
    }).join();
    Write(++number);
  }
  stop_ = true;
  for (std::thread& reader : readers) reader.join();
  store_.Publish(store_.Build(number + 1), {.revision = number + 1});
  EXPECT_EQ(store_.memory().retired, 0u);
}

TEST(VersionStore, TheLastReaderAndTheEndOfTheStoreMeet) {
  for (int round = 0; round < 300; ++round) {
    auto store = std::make_unique<VersionStore>();
    store->Put(ViewOf(Record("a", "1", 1)));
    store->Publish(store->Build(1), {.revision = 1});
    MirrorSnapshot first = store->Current();
    store->Put(ViewOf(Record("a", "2", 2)));
    store->Publish(store->Build(2), {.revision = 2});
    MirrorSnapshot second = store->Current();
    std::thread one([&] { first = MirrorSnapshot(); });
    std::thread two([&] { second = MirrorSnapshot(); });
    store.reset();
    one.join();
    two.join();
  }
}

TEST(Pins, HoldBackWhatWasRetiredWhileTheyLast) {
  uint64_t epoch = 0;
  {
    const Pin outer;
    { const Pin inner; }
    epoch = Retire();
    EXPECT_LT(OldestPin(), epoch) << "still pinned";
    { const Pin inner; }
    EXPECT_LT(OldestPin(), epoch) << "still pinned";
  }
  EXPECT_GE(OldestPin(), epoch);
  const Pin later;
  EXPECT_GE(OldestPin(), epoch) << "began after it was out of sight";
}

TEST(Pins, ThreadsThatComeAndGoShareSlots) {
  const auto pin_on_a_thread = [] { std::thread([] { const Pin pin; }).join(); };
  pin_on_a_thread();
  const size_t slots = PinSlots();
  for (int n = 0; n < 100; ++n) pin_on_a_thread();
  EXPECT_EQ(PinSlots(), slots);
}

// A pin in a destructor that runs after the thread has given its slot back.
struct PinsAtTheEnd {
  ~PinsAtTheEnd() { const Pin pin; }
};

TEST(Pins, WorkWhileTheThreadEnds) {
  const auto end_late = [] {
    std::thread([] {
      thread_local PinsAtTheEnd first;  // made first, so destroyed last
      static_cast<void>(&first);
      const Pin pin;
    }).join();
  };
  end_late();
  const size_t slots = PinSlots();
  for (int n = 0; n < 20; ++n) end_late();
  EXPECT_EQ(PinSlots(), slots);
  EXPECT_GE(OldestPin(), Retire());
}

TEST(Published, ReadersKeepTheValueThatTheyLoaded) {
  Published published(std::make_shared<const int>(1));
  const Published::Any first = published.Load();
  published.Store(std::make_shared<const int>(2));
  EXPECT_EQ(*static_cast<const int*>(first.get()), 1);
  EXPECT_EQ(*std::static_pointer_cast<const int>(published.Load()), 2);
}

TEST(Published, FreesWhatNobodyCanLoadAnyMore) {
  auto value = std::make_shared<const int>(1);
  const std::weak_ptr<const int> watch = value;
  Published published(std::move(value));
  published.Store(nullptr);
  EXPECT_TRUE(watch.expired());
}

TEST(Published, FreesNothingWhileSomebodyIsPinned) {
  auto value = std::make_shared<const int>(1);
  const std::weak_ptr<const int> watch = value;
  Published published(std::move(value));
  {
    const Pin pin;
    published.Store(nullptr);
    published.Store(nullptr);
    EXPECT_FALSE(watch.expired());
  }
  published.Store(nullptr);
  EXPECT_TRUE(watch.expired());
}

TEST(Published, IsReplacedUnderManyReaders) {
  Published published(std::make_shared<const std::string>("0"));
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> loads = 0;
  std::vector<std::thread> readers;
  for (int n = 0; n < 3; ++n) {
    readers.emplace_back([&] {
      uint64_t newest = 0;
      while (!stop.load()) {
        const auto value = std::static_pointer_cast<const std::string>(published.Load());
        const uint64_t now = std::strtoull(value->c_str(), nullptr, 10);
        EXPECT_GE(now, newest);
        newest = now;
        loads.fetch_add(1);
      }
    });
  }
  for (uint64_t n = 1; n < 2000 || loads.load() < 2000; ++n) {
    published.Store(std::make_shared<const std::string>(std::to_string(n)));
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace holdfast::internal
