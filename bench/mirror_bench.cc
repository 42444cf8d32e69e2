// What a mirror's data structure costs by itself: lookups beside those of a hash map that nobody
// changes, changes, loading, scans, and memory. No network, no policy.
//
// Keys are visited in random order, from an array that holds them in that order: the lookup misses
// the cache, reading the key to look for does not.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include <fmt/format.h>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "base/rng.h"
#include "bench/monotonic.h"
#include "client/version_store.h"

namespace holdfast::internal {
namespace {

constexpr size_t kValueBytes = 64;
constexpr size_t kBatch = 100;  // changes in one version

std::string KeyOf(uint64_t n) {
  return fmt::format("/config/service-{:04}/key-{:08}", n % 1000, n);
}

EntryView EntryOf(std::string_view key, std::string_view value, uint64_t revision) {
  return {.key = key, .value = value, .create_revision = 1, .mod_revision = revision, .version = 1};
}

// All keys once, in an order of its own, back to back.
class ShuffledKeys {
 public:
  explicit ShuffledKeys(size_t count) : size_(KeyOf(0).size()) {
    std::vector<uint64_t> order(count);
    for (size_t n = 0; n < count; ++n) order[n] = n;
    base::Rng rng(7);
    for (size_t n = count; n > 1; --n) std::swap(order[n - 1], order[rng.Below(n)]);
    for (const uint64_t n : order) bytes_ += KeyOf(n);
  }
  size_t count() const { return bytes_.size() / size_; }
  std::string_view operator[](size_t n) const { return {bytes_.data() + n * size_, size_}; }

 private:
  size_t size_;
  std::string bytes_;
};

using Map = absl::flat_hash_map<std::string, Entry>;

struct Data {
  explicit Data(size_t count) : keys(count) {
    const std::string value(kValueBytes, 'v');
    for (size_t n = 0; n < count; ++n) {
      const std::string key = KeyOf(n);
      store.Put(EntryOf(key, value, 1));
      map.emplace(key, EntryOf("", value, 1).ToEntry());
    }
    store.Publish(store.Build(1), {.revision = 1, .usable = true});
  }

  const ShuffledKeys keys;
  VersionStore store;
  Map map;
  std::shared_mutex mutex;
};

// One size at a time: the benchmarks are registered size by size.
std::shared_ptr<Data> DataOf(size_t count) {
  static std::mutex& mutex = *new std::mutex;
  static std::shared_ptr<Data>& data = *new std::shared_ptr<Data>;
  const std::lock_guard lock(mutex);
  if (data == nullptr || data->keys.count() != count) {
    data.reset();
    data = std::make_shared<Data>(count);
  }
  return data;
}

// --- one lookup each; the sum keeps the compiler from leaving it out

struct Visit {
  explicit Visit(Data& data) : store(data.store) {}
  uint64_t operator()(std::string_view key) const {
    uint64_t seen = 0;
    store.Visit(key, [&](const EntryView* entry, const VersionInfo& info) {
      seen = entry->value.size() + static_cast<uint8_t>(entry->value[0]) + info.revision;
    });
    return seen;
  }
  VersionStore& store;
};

struct Find {
  explicit Find(Data& data) : snapshot(data.store.Current()) {}
  uint64_t operator()(std::string_view key) const {
    const std::optional<EntryView> entry = snapshot.Find(key);
    return entry->value.size() + static_cast<uint8_t>(entry->value[0]);
  }
  MirrorSnapshot snapshot;
};

struct CurrentFind {
  explicit CurrentFind(Data& data) : store(data.store) {}
  uint64_t operator()(std::string_view key) const {
    const MirrorSnapshot snapshot = store.Current();
    const std::optional<EntryView> entry = snapshot.Find(key);
    return entry->value.size() + static_cast<uint8_t>(entry->value[0]);
  }
  VersionStore& store;
};

struct MapFind {
  explicit MapFind(Data& data) : map(data.map) {}
  uint64_t operator()(std::string_view key) const {
    const auto found = map.find(absl::string_view(key.data(), key.size()));
    return found->second.value.size() + static_cast<uint8_t>(found->second.value[0]);
  }
  const Map& map;
};

// What one would write without a mirror.
struct LockedMapFind {
  explicit LockedMapFind(Data& data) : map(data.map), mutex(data.mutex) {}
  uint64_t operator()(std::string_view key) const {
    const std::shared_lock lock(mutex);
    const auto found = map.find(absl::string_view(key.data(), key.size()));
    return found->second.value.size() + static_cast<uint8_t>(found->second.value[0]);
  }
  const Map& map;
  std::shared_mutex& mutex;
};

// --- how long a single lookup takes

// The processor's clock where there is one: reading it costs less than what is measured.
struct Ticks {
  static uint64_t Begin() {
#if defined(__x86_64__)
    _mm_lfence();
    const uint64_t now = __rdtsc();
    _mm_lfence();
    return now;
#else
    return static_cast<uint64_t>(bench::MonotonicNs());
#endif
  }
  static uint64_t End() {
#if defined(__x86_64__)
    unsigned int processor;
    const uint64_t now = __rdtscp(&processor);
    _mm_lfence();
    return now;
#else
    return static_cast<uint64_t>(bench::MonotonicNs());
#endif
  }
  static double Nanoseconds() {
    static const double ns = [] {
      const int64_t from_ns = bench::MonotonicNs();
      const uint64_t from = Begin();
      while (bench::MonotonicNs() - from_ns < 20'000'000) {
      }
      return double(bench::MonotonicNs() - from_ns) / double(Begin() - from);
    }();
    return ns;
  }
};

uint64_t QuantileOf(std::vector<uint32_t>& ticks, double q) {
  const auto at = ticks.begin() + static_cast<ptrdiff_t>(q * double(ticks.size() - 1));
  std::nth_element(ticks.begin(), at, ticks.end());
  return *at;
}

// Each lookup by itself, so that nothing overlaps: longer than the mean of many in a row. The
// median cost of the clock alone is taken off, and reported as clock_ns.
template <class Lookup>
void ReportQuantiles(const Lookup& lookup, const ShuffledKeys& keys, benchmark::State& state) {
  constexpr size_t kSamples = 400'000;
  std::vector<uint32_t> empty(kSamples / 10);
  for (uint32_t& ticks : empty) {
    const uint64_t begin = Ticks::Begin();
    ticks = static_cast<uint32_t>(Ticks::End() - begin);
  }
  const uint64_t clock = QuantileOf(empty, 0.5);
  std::vector<uint32_t> samples(kSamples);
  size_t n = static_cast<size_t>(state.thread_index()) * 12'345;
  for (uint32_t& ticks : samples) {
    const std::string_view key = keys[n++ % keys.count()];
    benchmark::DoNotOptimize(key.front());  // not a part of the lookup
    const uint64_t begin = Ticks::Begin();
    benchmark::DoNotOptimize(lookup(key));
    ticks = static_cast<uint32_t>(Ticks::End() - begin);
  }
  const auto report = [&](const char* name, uint64_t ticks) {
    const double ns = double(ticks) * Ticks::Nanoseconds();
    state.counters[name] = benchmark::Counter(ns, benchmark::Counter::kAvgThreads);
  };
  for (const auto& [name, q] : {std::pair{"p50_ns", 0.5}, {"p99_ns", 0.99}, {"p99.9_ns", 0.999}}) {
    const uint64_t ticks = QuantileOf(samples, q);
    report(name, ticks - std::min(ticks, clock));
  }
  report("clock_ns", clock);
}

template <class Lookup>
void Look(benchmark::State& state) {
  const std::shared_ptr<Data> data = DataOf(static_cast<size_t>(state.range(0)));
  const Lookup lookup(*data);
  const ShuffledKeys& keys = data->keys;
  size_t n = static_cast<size_t>(state.thread_index()) * (keys.count() / 2);
  uint64_t sum = 0;
  for (auto _ : state) {
    sum += lookup(keys[n]);
    if (++n >= keys.count()) n = 0;
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations());
  ReportQuantiles(lookup, keys, state);
}

// Lookups while another thread changes and publishes as fast as it can.
void LookBesideWriter(benchmark::State& state) {
  const std::shared_ptr<Data> data = DataOf(static_cast<size_t>(state.range(0)));
  std::atomic<bool> stop = false;
  uint64_t changes = 0;
  std::thread writer([&] {
    const std::string value(kValueBytes, 'w');
    uint64_t revision = data->store.info().revision;
    for (size_t n = 0; !stop.load(); ++revision) {
      for (size_t i = 0; i < kBatch; ++i, ++changes) {
        data->store.Put(EntryOf(data->keys[n], value, revision));
        n = (n + 1) % data->keys.count();
      }
      data->store.Publish(data->store.Build(revision), {.revision = revision, .usable = true});
    }
  });
  const Visit lookup(*data);
  size_t n = data->keys.count() / 2;
  uint64_t sum = 0;
  const int64_t from_ns = bench::MonotonicNs();
  for (auto _ : state) {
    sum += lookup(data->keys[n]);
    if (++n >= data->keys.count()) n = 0;
  }
  benchmark::DoNotOptimize(sum);
  ReportQuantiles(lookup, data->keys, state);
  stop = true;
  writer.join();
  state.SetItemsProcessed(state.iterations());
  state.counters["changes/s"] = double(changes) * 1e9 / double(bench::MonotonicNs() - from_ns);
}

// --- the writer

void Load(benchmark::State& state, bool in_order) {
  const size_t count = static_cast<size_t>(state.range(0));
  std::vector<std::string> keys(count);
  const ShuffledKeys shuffled(in_order ? 1 : count);
  for (size_t n = 0; n < count; ++n) keys[n] = in_order ? KeyOf(n) : std::string(shuffled[n]);
  if (in_order) std::sort(keys.begin(), keys.end());
  const std::string value(kValueBytes, 'v');
  double overhead = 0;
  for (auto _ : state) {
    VersionStore store;
    for (const std::string& key : keys) store.Put(EntryOf(key, value, 1));
    store.Publish(store.Build(1), {.revision = 1});
    state.PauseTiming();
    overhead = double(store.memory().total - store.Current().bytes()) / double(count);
    state.ResumeTiming();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(count));
  state.counters["B/key"] = overhead;  // beyond key and value
}

// A whole copy once more, in place of the one that is there: what a resync costs. The last version
// is freed within it.
void Reload(benchmark::State& state) {
  const std::shared_ptr<Data> data = DataOf(static_cast<size_t>(state.range(0)));
  const std::string value(kValueBytes, 'r');
  uint64_t revision = data->store.info().revision;
  for (auto _ : state) {
    ++revision;
    data->store.Clear();
    for (size_t n = 0; n < data->keys.count(); ++n) {
      data->store.Put(EntryOf(data->keys[n], value, revision));
    }
    data->store.Publish(data->store.Build(revision), {.revision = revision, .usable = true});
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(data->keys.count()));
}

// Of single keys, state.range(1) in each version.
void Change(benchmark::State& state) {
  const std::shared_ptr<Data> data = DataOf(static_cast<size_t>(state.range(0)));
  const std::string value(kValueBytes, 'w');
  uint64_t revision = data->store.info().revision;
  size_t n = 0;
  for (auto _ : state) {
    ++revision;
    for (int64_t i = 0; i < state.range(1); ++i) {
      data->store.Put(EntryOf(data->keys[n], value, revision));
      n = (n + 1) % data->keys.count();
    }
    data->store.Publish(data->store.Build(revision), {.revision = revision, .usable = true});
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
}

void DiffOfOneBatch(benchmark::State& state) {
  const std::shared_ptr<Data> data = DataOf(static_cast<size_t>(state.range(0)));
  const std::string value(kValueBytes, 'd');
  const MirrorSnapshot before = data->store.head();
  const uint64_t revision = before.revision() + 1;
  for (size_t n = 0; n < kBatch; ++n) data->store.Put(EntryOf(data->keys[n], value, revision));
  const MirrorSnapshot after = data->store.Build(revision);
  data->store.Publish(after, {.revision = revision, .usable = true});
  for (auto _ : state) {
    size_t seen = 0;
    CHECK(
        VersionStore::Diff(before, after, kBatch,
                           [&](std::string_view, const EntryView*, const EntryView*) { ++seen; }));
    CHECK(seen == kBatch);
  }
}

void ScanAll(benchmark::State& state) {
  const std::shared_ptr<Data> data = DataOf(static_cast<size_t>(state.range(0)));
  const MirrorSnapshot snapshot = data->store.Current();
  uint64_t sum = 0;
  for (auto _ : state) {
    snapshot.Scan("", [&](const EntryView& entry) {
      sum += entry.value.size();
      return true;
    });
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(snapshot.size()));
}

void Register() {
  using benchmark::RegisterBenchmark;
  for (const int64_t keys : {1'000, 100'000, 1'000'000}) {
    for (const int threads : {1, 2}) {
      RegisterBenchmark("Visit", Look<Visit>)->Arg(keys)->Threads(threads)->UseRealTime();
      RegisterBenchmark("SnapshotFind", Look<Find>)->Arg(keys)->Threads(threads)->UseRealTime();
      RegisterBenchmark("CurrentFind", Look<CurrentFind>)
          ->Arg(keys)
          ->Threads(threads)
          ->UseRealTime();
      RegisterBenchmark("FlatHashMap", Look<MapFind>)->Arg(keys)->Threads(threads)->UseRealTime();
      RegisterBenchmark("LockedFlatHashMap", Look<LockedMapFind>)
          ->Arg(keys)
          ->Threads(threads)
          ->UseRealTime();
    }
    RegisterBenchmark("VisitBesideWriter", LookBesideWriter)->Arg(keys)->UseRealTime();
    RegisterBenchmark("Scan", ScanAll)->Arg(keys);
    RegisterBenchmark("DiffOf100", DiffOfOneBatch)->Arg(keys);
    RegisterBenchmark("Change", Change)->Args({keys, 1});
    RegisterBenchmark("Change", Change)->Args({keys, kBatch});
    RegisterBenchmark("Reload", Reload)->Arg(keys)->Unit(benchmark::kMillisecond);
    RegisterBenchmark("LoadInOrder", Load, true)->Arg(keys)->Unit(benchmark::kMillisecond);
    RegisterBenchmark("LoadShuffled", Load, false)->Arg(keys)->Unit(benchmark::kMillisecond);
  }
}

const bool registered = (Register(), true);

}  // namespace
}  // namespace holdfast::internal
