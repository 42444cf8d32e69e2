// The Raft log against a RocksDB WAL and against the bare disk, so that the choice in
// docs/decisions/001-own-raft-log.md is measured and can be measured again.
//
//   HOLDFAST_BENCH_DIR=/some/disk log_bench    (default: the working directory)
//
// BM_OneDurableEntry lets all contenders make one entry durable in turn, again and again, so that
// whatever else the disk is doing hits all of them alike. Counters: the 5th, 50th and 99th
// percentile of each in microseconds; on a disk shared with others the 5th is the cost proper.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <rocksdb/db.h>
#include <rocksdb/options.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "storage/file.h"
#include "storage/segmented_log.h"

namespace holdfast::bench {
namespace {

using storage::Entry;
using storage::EntryRef;
using storage::LogBatch;
using storage::LogStore;
using storage::SegmentedLog;

constexpr uint64_t kSegmentBytes = uint64_t{64} << 20;
// Compaction keeps the own log about here, as the driver would.
constexpr uint64_t kKeepBytes = 2 * kSegmentBytes;

// A directory for one benchmark, gone at its end.
class BenchDir {
 public:
  explicit BenchDir(const std::string& name) {
    const char* parent = std::getenv("HOLDFAST_BENCH_DIR");
    path_ = fmt::format("{}/log_bench_{}_{}", parent != nullptr ? parent : ".", name, ::getpid());
    std::filesystem::remove_all(path_);
    std::filesystem::create_directory(path_);
  }
  BenchDir(const BenchDir&) = delete;
  BenchDir& operator=(const BenchDir&) = delete;
  ~BenchDir() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Random bytes: nothing below may win by compressing them.
std::string Payload(size_t bytes) {
  base::Rng rng(bytes);
  std::string payload;
  while (payload.size() < bytes) base::AppendBigEndian64(payload, rng.Next());
  payload.resize(bytes);
  return payload;
}

LogBatch OneEntry(uint64_t index, const std::string& payload) {
  Entry entry;
  entry.term = Term(1);
  entry.index = Index(index);
  entry.payload = payload;
  LogBatch batch;
  batch.entries.push_back(std::make_shared<const Entry>(std::move(entry)));
  return batch;
}

// One way to make an entry durable.
class Contender {
 public:
  virtual ~Contender() = default;
  virtual void Write(const std::string& payload) = 0;

  // Until files are recycled, where they are at all.
  void WarmUp() {
    const std::string payload = Payload(size_t{4} << 20);
    for (uint64_t written = 0; written < 2 * kKeepBytes; written += payload.size()) {
      Write(payload);
    }
  }
};

// Appends entries with compaction behind them, as a running member does.
class OwnLog : public Contender {
 public:
  explicit OwnLog(const std::string& dir) {
    auto log = SegmentedLog::Open({.dir = dir, .segment_bytes = kSegmentBytes});
    CHECK_OK(log.status());
    log_ = *std::move(log);
  }
  void Write(const std::string& payload) override {
    CHECK_OK(log_->Append({OneEntry(++last_, payload)}));
    since_compaction_ += payload.size();
    if (since_compaction_ < kKeepBytes) return;
    since_compaction_ = 0;
    CHECK_OK(log_->Compact({Index(last_), Term(1), "members"}));
  }

 private:
  std::unique_ptr<LogStore> log_;
  uint64_t last_ = 0;
  uint64_t since_compaction_ = 0;
};

// `recycle`: with recycle_log_file_num, RocksDB's own way not to grow a file at every sync. RocksDB
// 7.8 switches it off by itself in every WAL recovery mode but the one that skips damage silently,
// so this lane is for comparison only: a Raft log must not recover that way.
class RocksWal : public Contender {
 public:
  RocksWal(const std::string& dir, bool recycle) {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.compression = rocksdb::kNoCompression;
    options.write_buffer_size = kSegmentBytes;
    options.recycle_log_file_num = recycle ? 2 : 0;
    options.wal_recovery_mode = recycle ? rocksdb::WALRecoveryMode::kSkipAnyCorruptedRecords
                                        : rocksdb::WALRecoveryMode::kAbsoluteConsistency;
    rocksdb::DB* db = nullptr;
    CHECK(rocksdb::DB::Open(options, dir, &db).ok());
    db_.reset(db);
    CHECK((db_->GetDBOptions().recycle_log_file_num > 0) == recycle);
    synced_.sync = true;
  }
  void Write(const std::string& payload) override {
    std::string key;
    base::AppendBigEndian64(key, ++last_);
    CHECK(db_->Put(synced_, key, payload).ok());
  }

 private:
  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::WriteOptions synced_;
  uint64_t last_ = 0;
};

// The floor: one write and one fdatasync into a file that was written before.
class BareFile : public Contender {
 public:
  explicit BareFile(const std::string& path) {
    auto file = storage::PosixFileSystem()->Open(path, storage::OpenMode::kCreate);
    CHECK_OK(file.status());
    file_ = *std::move(file);
  }
  void Write(const std::string& payload) override {
    if (offset_ + payload.size() > kSegmentBytes) offset_ = 0;
    CHECK_OK(file_->WriteAt(offset_, payload));
    CHECK_OK(file_->SyncData());
    offset_ += payload.size();
  }

 private:
  std::unique_ptr<storage::File> file_;
  uint64_t offset_ = 0;
};

void BM_OneDurableEntry(benchmark::State& state) {
  const BenchDir dir("write");
  struct Lane {
    std::string name;
    std::unique_ptr<Contender> contender;
    std::vector<double> micros = {};
  };
  Lane lanes[] = {
      {"bare", std::make_unique<BareFile>(dir.path() + "/bare")},
      {"own_recycled", std::make_unique<OwnLog>(dir.path() + "/own_recycled")},
      {"own_fresh", std::make_unique<OwnLog>(dir.path() + "/own_fresh")},
      {"rocks", std::make_unique<RocksWal>(dir.path() + "/rocks", false)},
      {"rocks_recycled", std::make_unique<RocksWal>(dir.path() + "/rocks_recycled", true)},
  };
  for (const size_t recycled : {0, 1, 4}) lanes[recycled].contender->WarmUp();

  const std::string payload = Payload(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    for (Lane& lane : lanes) {
      const auto begin = std::chrono::steady_clock::now();
      lane.contender->Write(payload);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      lane.micros.push_back(took.count() * 1e6);
    }
  }
  for (Lane& lane : lanes) {
    std::sort(lane.micros.begin(), lane.micros.end());
    for (const size_t percent : {5, 50, 99}) {
      state.counters[fmt::format("{}_p{}", lane.name, percent)] =
          lane.micros[lane.micros.size() * percent / 100];
    }
  }
}

// Opening a log of 64 MiB in entries of the given size; iterations per second matter to nobody,
// bytes per second to a restart.
void BM_OwnLogOpen(benchmark::State& state) {
  const BenchDir dir("own_open");
  const std::string payload = Payload(static_cast<size_t>(state.range(0)));
  const uint64_t entries = kSegmentBytes / payload.size();
  {
    auto log = SegmentedLog::Open({.dir = dir.path() + "/raft", .segment_bytes = kSegmentBytes});
    CHECK_OK(log.status());
    std::vector<LogBatch> batches;
    for (uint64_t i = 1; i <= entries; ++i) {
      batches.push_back(OneEntry(i, payload));
      if (i % 1024 != 0 && i != entries) continue;
      CHECK_OK((*log)->Append(batches));
      batches.clear();
    }
  }
  for (auto _ : state) {
    auto log = SegmentedLog::Open({.dir = dir.path() + "/raft", .segment_bytes = kSegmentBytes});
    CHECK_OK(log.status());
    CHECK((*log)->recovered().last == Index(entries));
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * entries * payload.size()));
}

// Feeding a lagging member: 1 MiB at a time.
void BM_OwnLogRead(benchmark::State& state) {
  const BenchDir dir("own_read");
  const std::string payload = Payload(static_cast<size_t>(state.range(0)));
  auto log = SegmentedLog::Open({.dir = dir.path() + "/raft", .segment_bytes = kSegmentBytes});
  CHECK_OK(log.status());
  const uint64_t entries = kSegmentBytes / 4 / payload.size();
  std::vector<LogBatch> batches;
  for (uint64_t i = 1; i <= entries; ++i) batches.push_back(OneEntry(i, payload));
  CHECK_OK((*log)->Append(batches));
  uint64_t next = 1;
  int64_t bytes = 0;
  for (auto _ : state) {
    const auto read = (*log)->Read(Index(next), Index(entries), size_t{1} << 20);
    CHECK_OK(read.status());
    bytes += static_cast<int64_t>(read->size() * payload.size());
    next = read->back()->index.value + 1;
    if (next > entries) next = 1;
  }
  state.SetBytesProcessed(bytes);
}

BENCHMARK(BM_OneDurableEntry)->Arg(512)->Arg(64 << 10)->Iterations(500);
BENCHMARK(BM_OneDurableEntry)->Arg(1 << 20)->Iterations(150);
BENCHMARK(BM_OwnLogOpen)->Arg(256)->Arg(16 << 10)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_OwnLogRead)->Arg(256)->Arg(16 << 10)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace holdfast::bench
