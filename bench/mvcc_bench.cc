// Micro benchmarks of the MVCC store: what one core of apply thread and one reader can do.
//
// The store lies in the directory HOLDFAST_BENCH_DIR (default: the system's temporary directory).
// `rss_mb` is the whole process's memory at the end of a benchmark. The times of puts are the whole
// process's CPU time: flushes and compactions are paid by the puts that cause them.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/check.h"
#include "base/rng.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage {
namespace {

constexpr int64_t kKeys = 1'000'000;
constexpr size_t kValueBytes = 256;
constexpr size_t kPutsPerFillCommit = 256;
constexpr uint64_t kSeed = 1;

// 24 bytes.
std::string Key(uint64_t n) { return fmt::format("/config/svc/{:012}", n); }

// Values of which half is random, so that compression finds what it finds in real configuration.
class Values {
 public:
  explicit Values(uint64_t seed) : bytes_(kPoolBytes, 'v') {
    base::Rng rng(seed);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (i % kValueBytes < kValueBytes / 2) bytes_[i] = static_cast<char>(rng.Next());
    }
  }
  std::string_view Next(base::Rng& rng) const {
    return std::string_view(bytes_).substr(rng.Below(kPoolBytes - kValueBytes), kValueBytes);
  }

 private:
  static constexpr size_t kPoolBytes = size_t{4} << 20;
  std::string bytes_;
};

double RssMegabytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return static_cast<double>(resident_pages * ::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// A filled store, shared by all benchmarks with so many keys. One at a time.
class FilledStore {
 public:
  static FilledStore& Get(int64_t keys = kKeys) {
    if (shared_ == nullptr || shared_->keys_ != keys) {
      Drop();
      shared_ = new FilledStore(keys);
    }
    return *shared_;
  }
  // Before main() ends: RocksDB must not outlive its own statics.
  static void Drop() {
    delete shared_;
    shared_ = nullptr;
  }
  ~FilledStore() {
    writer.reset();
    store.reset();
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  // As the state machine does it: all that a batch writes is asked for at once, then written.
  void PutBatch(const std::vector<std::string>& keys) {
    views_.assign(keys.begin(), keys.end());
    writer->Prefetch(views_);
    for (const std::string& key : keys) {
      writer->BeginRevision();
      CHECK_OK(writer->Put(key, values_.Next(rng), 0, nullptr));
      CHECK(writer->EndRevision());
    }
    CHECK_OK(writer->Commit(++index_, Term(1)));
  }

  base::Rng rng{kSeed};
  std::unique_ptr<MvccStore> store;
  std::unique_ptr<MvccStore::Writer> writer;

 private:
  static inline FilledStore* shared_ = nullptr;

  explicit FilledStore(int64_t keys) : keys_(keys) {
    const char* parent = std::getenv("HOLDFAST_BENCH_DIR");
    dir_ = (parent != nullptr ? std::filesystem::path(parent)
                              : std::filesystem::temp_directory_path()) /
           fmt::format("holdfast_mvcc_bench_{}", ::getpid());
    MvccStore::Options options;
    options.dir = dir_;
    auto opened = MvccStore::Open(options);
    CHECK_OK(opened.status());
    store = *std::move(opened);
    writer = store->NewWriter();
    std::vector<std::string> batch;
    for (int64_t n = 0; n < keys; ++n) {
      batch.push_back(Key(static_cast<uint64_t>(n)));
      if (batch.size() < kPutsPerFillCommit && n + 1 < keys) continue;
      PutBatch(batch);
      batch.clear();
    }
    // No compaction that the filling left behind is charged to what is measured.
    std::atomic<bool> stop = false;
    CHECK_OK(store->Defragment(&stop));
  }

  const int64_t keys_;
  std::filesystem::path dir_;
  const Values values_{kSeed};
  Index index_;
  std::vector<std::string_view> views_;
};

void ReportMemory(benchmark::State& state) { state.counters["rss_mb"] = RssMegabytes(); }

void BM_OverwriteRandomKey(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get(state.range(0));
  const auto keys = static_cast<uint64_t>(state.range(0));
  std::vector<std::string> batch(static_cast<size_t>(state.range(1)));
  for (auto _ : state) {
    for (std::string& key : batch) key = Key(filled.rng.Below(keys));
    filled.PutBatch(batch);
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
  ReportMemory(state);
}
BENCHMARK(BM_OverwriteRandomKey)
    ->ArgNames({"keys", "batch"})
    ->ArgsProduct({{1000, 100'000, kKeys}, {1, 64, 1024}})
    ->MeasureProcessCPUTime();

void BM_PutNewKey(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  static uint64_t next = kKeys;
  std::vector<std::string> batch(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (std::string& key : batch) key = Key(next++);
    filled.PutBatch(batch);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
  ReportMemory(state);
}
BENCHMARK(BM_PutNewKey)->ArgName("batch")->Arg(1)->Arg(64)->Arg(1024)->MeasureProcessCPUTime();

void BM_NewView(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  for (auto _ : state) benchmark::DoNotOptimize(filled.store->NewView());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_NewView)->Threads(1)->Threads(2);

void BM_GetThroughItsOwnView(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get(state.range(0));
  base::Rng rng(kSeed);
  const auto keys = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    const auto kv = filled.store->NewView()->Get(Key(rng.Below(keys)));
    CHECK(kv.ok() && kv->has_value());
  }
  state.SetItemsProcessed(state.iterations());
  ReportMemory(state);
}
BENCHMARK(BM_GetThroughItsOwnView)->ArgName("keys")->Arg(1000)->Arg(100'000)->Arg(kKeys);

void BM_GetMany(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get(state.range(0));
  base::Rng rng(kSeed);
  const auto keys = static_cast<uint64_t>(state.range(0));
  std::vector<std::string> batch(static_cast<size_t>(state.range(1)));
  std::vector<std::string_view> views(batch.size());
  for (auto _ : state) {
    for (size_t i = 0; i < batch.size(); ++i) {
      batch[i] = Key(rng.Below(keys));
      views[i] = batch[i];
    }
    size_t found = 0;
    CHECK_OK(filled.store->NewView()->GetMany(views, [&found](size_t, const KeyValueView* kv) {
      found += kv != nullptr ? 1 : 0;
      return true;
    }));
    CHECK(found == batch.size());
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
  ReportMemory(state);
}
BENCHMARK(BM_GetMany)
    ->ArgNames({"keys", "batch"})
    ->ArgsProduct({{1000, 100'000, kKeys}, {16, 64, 1024}});

void BM_RangeOfPrefix(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  base::Rng rng(kSeed);
  const auto length = static_cast<uint64_t>(state.range(0));
  RangeResult result;
  for (auto _ : state) {
    const uint64_t first = rng.Below(kKeys - length);
    RangeOptions options;
    options.key = Key(first);
    options.range_end = Key(first + length);
    CHECK_OK(filled.store->NewView()->Range(options, &result));
    CHECK(result.count == static_cast<int64_t>(length));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_RangeOfPrefix)->ArgName("length")->Arg(10)->Arg(1000);

void BM_CountEverything(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  RangeOptions options;
  options.key = std::string(1, '\0');
  options.range_end = options.key;
  options.count_only = true;
  RangeResult result;
  for (auto _ : state) {
    CHECK_OK(filled.store->NewView()->Range(options, &result));
    CHECK(result.count >= kKeys);
  }
  state.SetItemsProcessed(state.iterations() * kKeys);
  ReportMemory(state);
}
BENCHMARK(BM_CountEverything)->Unit(benchmark::kMillisecond);

}  // namespace

static void DropShared() { FilledStore::Drop(); }

}  // namespace holdfast::storage

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  holdfast::storage::DropShared();
  return 0;
}
