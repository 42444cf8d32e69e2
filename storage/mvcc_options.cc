#include "storage/mvcc_options.h"

#include <algorithm>
#include <string>
#include <utility>

#include <rocksdb/cache.h>
#include <rocksdb/compaction_filter.h>
#include <rocksdb/convenience.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>

#include "base/log.h"
#include "base/strings.h"
#include "storage/mvcc_codec.h"

namespace holdfast::storage::mvcc {
namespace {

constexpr int kOpenFilesMax = 512;
constexpr int kBackgroundJobsMax = 2;  // one flush and one compaction beside the apply thread
constexpr double kBloomBitsPerKey = 10;
constexpr double kMemtableBloomRatio = 0.02;
constexpr size_t kArenaBlockBytesMax = size_t{256} << 10;
constexpr size_t kLogFilesMax = 3;
constexpr size_t kLogFileBytesMax = size_t{4} << 20;
constexpr size_t kManifestBytesMax = size_t{32} << 20;
// A tombstone that no write passes by again goes when its file reaches this age.
constexpr uint64_t kTombstoneSweepSeconds = 24 * 3600;
// Point reads fetch one small block; the history is read in order or seldom.
constexpr size_t kPointBlockBytes = size_t{4} << 10;
constexpr size_t kHistoryBlockBytes = size_t{16} << 10;
// One place for all keys, from which the next insert into a memtable looks on.
constexpr size_t kInsertHintPrefixBytes = 0;

class TombstoneFilter : public rocksdb::CompactionFilter {
 public:
  explicit TombstoneFilter(int64_t horizon) : horizon_(horizon) {}

  const char* Name() const override { return "holdfast.TombstoneFilter"; }
  Decision FilterV2(int /*level*/, const rocksdb::Slice& /*key*/, ValueType type,
                    const rocksdb::Slice& value, std::string* /*new_value*/,
                    std::string* /*skip_until*/) const override {
    Record record;
    if (type != ValueType::kValue || !DecodeRecord(value.ToStringView(), &record)) {
      return Decision::kKeep;  // a read will report bytes that nobody can decode
    }
    return !record.live && record.mod.main <= horizon_ ? Decision::kRemove : Decision::kKeep;
  }

 private:
  const int64_t horizon_;
};

class TombstoneFilterFactory : public rocksdb::CompactionFilterFactory {
 public:
  explicit TombstoneFilterFactory(std::shared_ptr<ReclaimHorizon> horizon)
      : horizon_(std::move(horizon)) {}

  const char* Name() const override { return "holdfast.TombstoneFilterFactory"; }
  // One horizon for a whole compaction is safe: a view made while it runs is newer than the
  // horizon.
  std::unique_ptr<rocksdb::CompactionFilter> CreateCompactionFilter(
      const rocksdb::CompactionFilter::Context& /*context*/) override {
    return std::make_unique<TombstoneFilter>(horizon_->Current());
  }

 private:
  const std::shared_ptr<ReclaimHorizon> horizon_;
};

class ErrorListener : public rocksdb::EventListener {
 public:
  explicit ErrorListener(std::shared_ptr<BackgroundErrors> errors) : errors_(std::move(errors)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason /*reason*/,
                         rocksdb::Status* status) override {
    if (status->ok()) return;
    const absl::Status error = ToStatus(*status, "background work of the MVCC store failed");
    LOG_ERROR("{}", base::Message(error));
    errors_->Report(error);
  }

 private:
  const std::shared_ptr<BackgroundErrors> errors_;
};

rocksdb::CompressionType FastCompression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  for (auto type : {rocksdb::kLZ4Compression, rocksdb::kSnappyCompression}) {
    if (std::find(supported.begin(), supported.end(), type) != supported.end()) return type;
  }
  return rocksdb::kNoCompression;
}

rocksdb::DBOptions MakeDbOptions(const MvccStore::Options& options) {
  rocksdb::DBOptions db;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  // Data and applied index reach the disk together or not at all.
  db.atomic_flush = true;
  db.paranoid_checks = true;
  db.db_write_buffer_size = options.write_buffer_bytes;
  // One apply thread writes: the simple memtable insert is faster.
  db.allow_concurrent_memtable_write = false;
  db.enable_write_thread_adaptive_yield = false;
  // A background error is final here, so RocksDB must not hide it by trying again.
  db.max_bgerror_resume_count = 0;
  db.max_open_files = kOpenFilesMax;
  db.max_background_jobs = kBackgroundJobsMax;
  db.max_manifest_file_size = kManifestBytesMax;
  db.skip_stats_update_on_db_open = true;
  db.info_log_level = rocksdb::WARN_LEVEL;
  db.keep_log_file_num = kLogFilesMax;
  db.max_log_file_size = kLogFileBytesMax;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  return db;
}

}  // namespace

RocksOptions MakeRocksOptions(const MvccStore::Options& options,
                              std::shared_ptr<ReclaimHorizon> horizon,
                              std::shared_ptr<BackgroundErrors> errors) {
  RocksOptions out;
  out.db = MakeDbOptions(options);
  out.db.listeners.push_back(std::make_shared<ErrorListener>(std::move(errors)));

  // Index and filter blocks live in the cache too, cut in partitions: memory is bounded by the
  // cache and not by the number of keys.
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes, /*num_shard_bits=*/4,
                                           /*strict_capacity_limit=*/false,
                                           /*high_pri_pool_ratio=*/0.5);
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.block_size = kPointBlockBytes;
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(kBloomBitsPerKey));

  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = options.write_buffer_bytes;
  family.arena_block_size = std::min(kArenaBlockBytesMax, options.write_buffer_bytes / 8);
  family.level_compaction_dynamic_level_bytes = true;
  // What is flushed is written once more soon, by a compaction: compressing it twice would be a
  // tenth of what applying a write costs.
  family.compression_per_level = {rocksdb::kNoCompression, FastCompression()};
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  out.meta = family;

  out.current = family;
  out.current.compaction_filter_factory =
      std::make_shared<TombstoneFilterFactory>(std::move(horizon));
  out.current.periodic_compaction_seconds = kTombstoneSweepSeconds;
  // A put first looks for its key: a new one, or one on disk, need not walk the memtable.
  out.current.memtable_prefix_bloom_size_ratio = kMemtableBloomRatio;
  out.current.memtable_whole_key_filtering = true;

  // A commit brings its keys in order: each is near the one before. Not in the history, whose range
  // deletes lie in a memtable of their own: RocksDB would take the place in one for one in the
  // other.
  for (rocksdb::ColumnFamilyOptions* sorted : {&out.meta, &out.current}) {
    sorted->memtable_insert_with_hint_prefix_extractor.reset(
        rocksdb::NewCappedPrefixTransform(kInsertHintPrefixBytes));
  }

  out.history = family;
  table.block_size = kHistoryBlockBytes;
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinarySearch;
  // A history key that is looked up exists.
  table.filter_policy.reset();
  table.partition_filters = false;
  out.history.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return out;
}

}  // namespace holdfast::storage::mvcc
