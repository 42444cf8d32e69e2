// Micro benchmarks of the MVCC store: what one core of apply thread and one reader can do.
//
// The store lies in the directory HOLDFAST_BENCH_DIR (default: the system's temporary directory).
// `rss_mb` is the whole process's memory at the end of a benchmark.
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/check.h"
#include "base/rng.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage {
namespace {

constexpr int64_t kKeys = 1'000'000;
constexpr size_t kValueBytes = 256;
constexpr int64_t kPutsPerCommit = 256;
constexpr uint64_t kSeed = 1;

std::string Key(uint64_t n) { return fmt::format("/config/service/{:012}", n); }

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

// One filled store, shared by all benchmarks of a run.
class FilledStore {
 public:
  static FilledStore& Get() {
    static FilledStore store;
    return store;
  }
  ~FilledStore() {
    writer.reset();
    store.reset();
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  void Put(uint64_t n) {
    writer->BeginRevision();
    CHECK_OK(writer->Put(Key(n), values_.Next(rng), 0, nullptr));
    CHECK(writer->EndRevision());
    if (++uncommitted_ == kPutsPerCommit) Commit();
  }
  void Commit() {
    uncommitted_ = 0;
    ++index_;
    CHECK_OK(writer->Commit(index_, Term(1)));
  }

  base::Rng rng{kSeed};
  std::unique_ptr<MvccStore> store;
  std::unique_ptr<MvccStore::Writer> writer;

 private:
  FilledStore() {
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
    for (uint64_t n = 0; n < kKeys; ++n) Put(n);
    Commit();
    CHECK_OK(store->Flush().status());
  }

  std::filesystem::path dir_;
  const Values values_{kSeed};
  Index index_;
  int64_t uncommitted_ = 0;
};

void ReportMemory(benchmark::State& state) { state.counters["rss_mb"] = RssMegabytes(); }

void BM_OverwriteRandomKey(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  const auto keys = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) filled.Put(filled.rng.Below(keys));
  filled.Commit();
  state.SetItemsProcessed(state.iterations());
  ReportMemory(state);
}
BENCHMARK(BM_OverwriteRandomKey)->ArgName("keys")->Arg(1000)->Arg(kKeys);

void BM_PutNewKey(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  static uint64_t next = kKeys;
  for (auto _ : state) filled.Put(next++);
  filled.Commit();
  state.SetItemsProcessed(state.iterations());
  ReportMemory(state);
}
BENCHMARK(BM_PutNewKey);

void BM_NewView(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  for (auto _ : state) benchmark::DoNotOptimize(filled.store->NewView());
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_NewView)->Threads(1)->Threads(2);

void BM_GetThroughItsOwnView(benchmark::State& state) {
  FilledStore& filled = FilledStore::Get();
  base::Rng rng(kSeed);
  const auto keys = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    const auto kv = filled.store->NewView()->Get(Key(rng.Below(keys)));
    CHECK(kv.ok() && kv->has_value());
  }
  state.SetItemsProcessed(state.iterations());
  ReportMemory(state);
}
BENCHMARK(BM_GetThroughItsOwnView)->ArgName("keys")->Arg(1000)->Arg(kKeys);

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
}  // namespace holdfast::storage
