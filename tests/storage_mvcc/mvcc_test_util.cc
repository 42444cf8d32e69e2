#include "tests/storage_mvcc/mvcc_test_util.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <tuple>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"

namespace holdfast::storage {
namespace {

auto Fields(const KeyValue& kv) {
  return std::tie(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease);
}

auto Fields(const AppliedState& state) {
  return std::tie(state.index, state.term, state.revision, state.compact_revision);
}

}  // namespace

bool operator==(const KeyValue& a, const KeyValue& b) { return Fields(a) == Fields(b); }

std::ostream& operator<<(std::ostream& out, const KeyValue& kv) {
  return out << fmt::format("{}={} create {} mod {} version {} lease {}", base::Printable(kv.key),
                            base::Printable(kv.value), kv.create_revision, kv.mod_revision,
                            kv.version, kv.lease);
}

bool operator==(const AppliedState& a, const AppliedState& b) { return Fields(a) == Fields(b); }

std::ostream& operator<<(std::ostream& out, const AppliedState& state) {
  return out << fmt::format("index {} term {} revision {} compacted {}", state.index.value,
                            state.term.value, state.revision, state.compact_revision);
}

ScratchDir::ScratchDir() {
  static std::atomic<int> count = 0;
  path_ = fmt::format("{}/holdfast_mvcc_{}_{}", testing::TempDir(), ::getpid(), ++count);
  std::filesystem::remove_all(path_);
  std::filesystem::create_directories(path_);
}

ScratchDir::~ScratchDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

MvccStore::Options StoreOptions(const std::string& dir, size_t write_buffer_bytes) {
  MvccStore::Options options;
  options.dir = dir;
  options.block_cache_bytes = size_t{8} << 20;
  options.write_buffer_bytes = write_buffer_bytes;
  return options;
}

std::unique_ptr<MvccStore> MustOpen(const std::string& dir, size_t write_buffer_bytes) {
  auto store = MvccStore::Open(StoreOptions(dir, write_buffer_bytes));
  CHECK_OK(store.status());
  return *std::move(store);
}

void MustPut(MvccStore::Writer& writer, std::string_view key, std::string_view value,
             int64_t lease) {
  writer.BeginRevision();
  CHECK_OK(writer.Put(key, value, lease, nullptr));
  CHECK(writer.EndRevision());
}

int64_t MustDelete(MvccStore::Writer& writer, std::string_view key, std::string_view range_end) {
  writer.BeginRevision();
  const auto deleted = writer.DeleteRange(key, range_end, nullptr);
  CHECK_OK(deleted.status());
  writer.EndRevision();
  return *deleted;
}

void MustCommit(MvccStore::Writer& writer, uint64_t index, uint64_t term) {
  CHECK_OK(writer.Commit(Index(index), Term(term)));
}

std::vector<std::string> Brief(const RangeResult& result) {
  std::vector<std::string> out;
  for (const KeyValue& kv : result.kvs) {
    out.push_back(fmt::format("{}={}@{}", kv.key, kv.value, kv.mod_revision));
  }
  return out;
}

RangeResult MustRange(const MvccStore::View& view, const RangeOptions& options) {
  RangeResult result;
  CHECK_OK(view.Range(options, &result));
  return result;
}

RangeResult MustRange(const MvccStore::Writer& writer, const RangeOptions& options) {
  RangeResult result;
  CHECK_OK(writer.Range(options, &result));
  return result;
}

uint64_t TestSeed() {
  const char* given = std::getenv("HOLDFAST_TEST_SEED");
  const uint64_t seed = given == nullptr ? base::RandomSeed() : std::strtoull(given, nullptr, 10);
  std::cout << "seed: HOLDFAST_TEST_SEED=" << seed << std::endl;
  return seed;
}

}  // namespace holdfast::storage
