#include "storage/mvcc_store.h"

#include <atomic>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "storage/mvcc_database.h"
#include "storage/mvcc_view.h"
#include "storage/mvcc_writer.h"

namespace holdfast::storage {

absl::Status MvccStore::View::GetMany(
    absl::Span<const std::string_view> keys,
    absl::FunctionRef<bool(size_t index, const KeyValueView* kv)> visit) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto found = Get(keys[i]);
    if (!found.ok()) return found.status();
    if (!found->has_value()) {
      if (!visit(i, nullptr)) break;
      continue;
    }
    const KeyValue& kv = **found;
    const KeyValueView view = {kv.key,          kv.value,   kv.create_revision,
                               kv.mod_revision, kv.version, kv.lease};
    if (!visit(i, &view)) break;
  }
  return absl::OkStatus();
}
namespace {

// A view needs a snapshot and exactly the applied state in it, and a read must not pay for either.
// So all views between two commits share one PinnedState, made when the first of them asks. A
// commit pins the state before it writes: views made while it writes see the state before. Only
// when the write is done does it publish the new state, not yet pinned. Hence no snapshot is ever
// taken while a write runs, and the lock is never held during one.
class RocksMvccStore : public MvccStore {
 public:
  RocksMvccStore(std::unique_ptr<mvcc::Database> database, const AppliedState& applied)
      : database_(std::move(database)), applied_(applied) {}

  ~RocksMvccStore() override {
    absl::MutexLock lock(&mu_);
    pinned_.reset();
    CHECK_MSG(!database_->horizon().HasViews(), "a view outlives its store");
  }

  AppliedState applied() const override {
    absl::MutexLock lock(&mu_);
    return applied_;
  }

  std::unique_ptr<View> NewView() const override {
    std::shared_ptr<const mvcc::PinnedState> pinned;
    {
      absl::MutexLock lock(&mu_);
      pinned = Pin();
    }
    return std::make_unique<mvcc::RocksView>(std::move(pinned));
  }

  std::unique_ptr<Writer> NewWriter() override {
    const AppliedState base = applied();
    return std::make_unique<mvcc::RocksWriter>(
        *database_, base, [this](rocksdb::WriteBatch* batch, const AppliedState& state) {
          return Commit(batch, state);
        });
  }

  absl::StatusOr<Index> Flush() override {
    AppliedState covered;
    {
      absl::MutexLock lock(&mu_);
      if (!failure_.ok()) return failure_;
      covered = applied_;
    }
    if (absl::Status status = database_->Flush(); !status.ok()) return Fail(status);
    database_->horizon().RaiseFlushed(covered.compact_revision);
    database_->ReclaimHistory();
    return covered.index;
  }

  absl::StatusOr<AppliedState> Checkpoint(const std::string& dir) override {
    {
      absl::MutexLock lock(&mu_);
      if (!failure_.ok()) return failure_;
    }
    AppliedState copied;
    if (absl::Status status = database_->Checkpoint(dir, &copied); !status.ok()) return status;
    return copied;
  }

  absl::Status Defragment(std::atomic<bool>* stop) override {
    if (absl::Status status = Flush().status(); !status.ok()) return status;
    const absl::Status status = database_->RewriteFiles(stop);
    return status.ok() ? status : Fail(status);
  }

  uint64_t disk_bytes() const override {
    return database_->SumProperty(rocksdb::DB::Properties::kTotalSstFilesSize) +
           database_->SumProperty(rocksdb::DB::Properties::kSizeAllMemTables);
  }

  uint64_t in_use_bytes() const override {
    return database_->SumProperty(rocksdb::DB::Properties::kEstimateLiveDataSize) +
           database_->SumProperty(rocksdb::DB::Properties::kCurSizeActiveMemTable);
  }

 private:
  std::shared_ptr<const mvcc::PinnedState> Pin() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (pinned_ == nullptr) {
      pinned_ = std::make_shared<const mvcc::PinnedState>(*database_, applied_);
    }
    return pinned_;
  }

  absl::Status Commit(rocksdb::WriteBatch* batch, const AppliedState& state) {
    std::shared_ptr<const mvcc::PinnedState> before;
    {
      absl::MutexLock lock(&mu_);
      if (!failure_.ok()) return failure_;
      CHECK_MSG(!committing_, "two writers at a time");
      CHECK_MSG(state.index >= applied_.index && state.revision >= applied_.revision,
                "two writers at a time");
      committing_ = true;
      before = Pin();
    }
    const absl::Status status = database_->Write(batch);
    if (!status.ok()) return Fail(status);
    absl::MutexLock lock(&mu_);
    committing_ = false;
    applied_ = state;
    pinned_.reset();  // `before` still holds it: the snapshot is released outside the lock
    return absl::OkStatus();
  }

  // The first failure is the answer to everything after it.
  absl::Status Fail(const absl::Status& status) {
    absl::MutexLock lock(&mu_);
    failure_.Update(status);
    return failure_;
  }

  const std::unique_ptr<mvcc::Database> database_;
  mutable absl::Mutex mu_;
  AppliedState applied_ ABSL_GUARDED_BY(mu_);
  // Of applied_; null until a view or a commit asks for it.
  mutable std::shared_ptr<const mvcc::PinnedState> pinned_ ABSL_GUARDED_BY(mu_);
  bool committing_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::unique_ptr<MvccStore>> MvccStore::Open(const Options& options) {
  AppliedState applied;
  absl::StatusOr<std::unique_ptr<mvcc::Database>> database =
      mvcc::Database::Open(options, &applied);
  if (!database.ok()) return database.status();
  return std::make_unique<RocksMvccStore>(*std::move(database), applied);
}

}  // namespace holdfast::storage
