// The RocksDB under the MVCC store: its options, its opening and checking, its column families, and
// what RocksDB does in the background (dropping old tombstones, failing).
//
// Threads: all methods from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include <rocksdb/db.h>
#include <rocksdb/options.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "storage/mvcc_record_cache.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {

// "WHAT: RocksDB's text". DataLoss with a storage::Damage: corrupt, unreadable or missing bytes.
// ResourceExhausted: the disk is full.
absl::Status ToStatus(const rocksdb::Status& status, std::string_view what);

// DataLoss with a storage::Damage: the bytes of `dir` hold, but what they say cannot be.
absl::Status DamagedData(const std::string& dir, std::string_view what);

// The revision up to which bytes may really go. It lies behind the compact revision of every live
// view, since RocksDB's compaction filters and file deletions do not look at snapshots, and behind
// the compact revision of the last flush, since that is what a crash goes back to.
class ReclaimHorizon {
 public:
  void AddView(int64_t compact_revision);
  void RemoveView(int64_t compact_revision);
  void RaiseFlushed(int64_t compact_revision);
  int64_t Current() const;
  bool HasViews() const;

 private:
  mutable absl::Mutex mu_;
  int64_t flushed_ ABSL_GUARDED_BY(mu_) = 0;
  // compact revision -> views of it; at most one per commit that a view still holds.
  std::map<int64_t, int> views_ ABSL_GUARDED_BY(mu_);
};

// Keeps the first background error RocksDB reports: a flush or compaction that failed while nobody
// was waiting for it.
class BackgroundErrors {
 public:
  void Report(const absl::Status& status);
  absl::Status Check() const;

 private:
  std::atomic<bool> failed_ = false;
  mutable absl::Mutex mu_;
  absl::Status first_ ABSL_GUARDED_BY(mu_);
};

class Database {
 public:
  // See MvccStore::Open. `applied` gets what the files hold.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const MvccStore::Options& options,
                                                        AppliedState* applied);
  // Writes what is in memory to disk, unless something failed before: RocksDB then writes no more.
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // WAL off; OK only if no background work has failed either.
  absl::Status Write(rocksdb::WriteBatch* batch);
  // All column families at one point between two writes, synced.
  absl::Status Flush();
  absl::Status Checkpoint(const std::string& dir, AppliedState* applied);
  // Frees history behind the horizon: whole files now, the rest when RocksDB comes by.
  void ReclaimHistory();

  // Rewrites the files that hold what may go (MvccStore::Defragment).
  absl::Status RewriteFiles(std::atomic<bool>* stop);

  // Of all column families together.
  uint64_t SumProperty(const std::string& name) const;

  rocksdb::DB* db() const { return db_.get(); }
  rocksdb::ColumnFamilyHandle* current() const { return current_; }
  rocksdb::ColumnFamilyHandle* history() const { return history_; }
  rocksdb::ColumnFamilyHandle* meta() const { return meta_; }
  ReclaimHorizon& horizon() { return *horizon_; }
  // Of `current`.
  RecordCache& records() const { return *records_; }

 private:
  Database() = default;

  absl::Status OpenFiles(const MvccStore::Options& options);
  absl::Status CheckContents(AppliedState* applied);
  absl::Status WriteFormat();

  // Both are shared with objects that RocksDB keeps.
  std::shared_ptr<ReclaimHorizon> horizon_ = std::make_shared<ReclaimHorizon>();
  std::shared_ptr<BackgroundErrors> errors_ = std::make_shared<BackgroundErrors>();
  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* current_ = nullptr;  // owned; given back before db_ goes
  rocksdb::ColumnFamilyHandle* history_ = nullptr;
  rocksdb::ColumnFamilyHandle* meta_ = nullptr;
  std::unique_ptr<RecordCache> records_;
  std::string dir_;
  std::atomic<int64_t> reclaimed_revision_ = 0;
};

}  // namespace holdfast::storage::mvcc
