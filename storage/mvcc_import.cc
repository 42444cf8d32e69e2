#include "storage/mvcc_import.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include "base/check.h"
#include "base/strings.h"
#include "storage/mvcc_codec.h"
#include "storage/mvcc_database.h"

namespace holdfast::storage {
namespace {

using mvcc::Database;
using mvcc::Record;
using mvcc::ToStatus;

class MvccImportImpl : public MvccImport {
 public:
  explicit MvccImportImpl(std::unique_ptr<Database> database) : database_(std::move(database)) {}

  absl::Status Put(const KeyValueView& kv) override {
    if (kv.key > greatest_) {
      greatest_.assign(kv.key);  // new, so nothing is to be looked up: a full backup's only case
    } else if (absl::Status status = Detach(kv.key); !status.ok()) {
      return status;
    }
    Record record;
    record.live = true;
    record.mod = {kv.mod_revision, 0};
    record.create_revision = kv.create_revision;
    record.version = kv.version;
    record.lease = kv.lease;
    char header[mvcc::kRecordHeaderBytesMax];
    std::string bytes(header, mvcc::EncodeRecordHeader(record, header));
    bytes.append(kv.value);
    newest_ = std::max(newest_, kv.mod_revision);
    rocksdb::Status status = batch_.Put(database_->current(), rocksdb::Slice(kv.key), bytes);
    if (status.ok() && kv.lease != 0) {
      status = batch_.Put(database_->meta(), mvcc::EncodeLeasePrefix(kv.lease).append(kv.key), "");
    }
    return Collected(status, kv.key.size() + bytes.size());
  }

  absl::Status Delete(std::string_view key) override {
    if (absl::Status status = Detach(key); !status.ok()) return status;
    return Collected(batch_.Delete(database_->current(), rocksdb::Slice(key)), key.size());
  }

  absl::Status PutMeta(std::string_view key, std::string_view value) override {
    const std::string user_key = std::string(1, mvcc::kUserMetaPrefix).append(key);
    return Collected(batch_.Put(database_->meta(), user_key, rocksdb::Slice(value)),
                     user_key.size() + value.size());
  }

  absl::Status VisitLeases(const std::function<void(int64_t lease)>& visit) override {
    if (absl::Status status = WriteBatch(); !status.ok()) return status;
    const std::unique_ptr<rocksdb::Iterator> it(
        database_->db()->NewIterator(rocksdb::ReadOptions(), database_->meta()));
    std::string from(1, mvcc::kLeasePrefix);
    for (it->Seek(from); it->Valid(); it->Seek(from)) {
      const std::string_view key = it->key().ToStringView();
      if (key.size() < mvcc::kLeasePrefixBytes || key.front() != mvcc::kLeasePrefix) break;
      const uint64_t lease = base::ReadBigEndian64(key.substr(1));
      visit(static_cast<int64_t>(lease));
      if (lease == UINT64_MAX) break;
      from.assign(1, mvcc::kLeasePrefix);
      base::AppendBigEndian64(from, lease + 1);
    }
    return ToStatus(it->status(), "cannot read the leases that were imported");
  }

  absl::Status Finish(const AppliedState& state) override {
    CHECK(state.compact_revision >= 0 && state.compact_revision <= state.revision);
    CHECK(newest_ <= state.revision);
    // The applied state alone and last: a store that has it has everything.
    if (absl::Status status = WriteBatch(); !status.ok()) return status;
    if (absl::Status status = database_->Flush(); !status.ok()) return status;
    const absl::Status put =
        Collected(batch_.Put(database_->meta(), rocksdb::Slice(mvcc::kAppliedKey),
                             mvcc::EncodeAppliedState(state)),
                  0);
    if (!put.ok()) return put;
    if (absl::Status status = WriteBatch(); !status.ok()) return status;
    return database_->Flush();
  }

 private:
  // Takes the attachment of the record away that `key` has so far.
  absl::Status Detach(std::string_view key) {
    const rocksdb::Status found = batch_.GetFromBatchAndDB(
        database_->db(), rocksdb::ReadOptions(), database_->current(), rocksdb::Slice(key), &old_);
    if (found.IsNotFound()) return absl::OkStatus();
    if (!found.ok()) return ToStatus(found, "cannot read what was imported");
    Record record;
    if (!mvcc::DecodeRecord(old_, &record)) {
      return absl::InternalError("a record that was just imported cannot be read");
    }
    if (record.lease == 0) return absl::OkStatus();
    return ToStatus(
        batch_.Delete(database_->meta(), mvcc::EncodeLeasePrefix(record.lease).append(key)),
        "cannot collect a record");
  }

  absl::Status Collected(const rocksdb::Status& status, size_t bytes) {
    if (!status.ok()) return ToStatus(status, "cannot collect a record");
    batch_bytes_ += bytes;
    return batch_bytes_ < kImportBatchBytes ? absl::OkStatus() : WriteBatch();
  }

  absl::Status WriteBatch() {
    const absl::Status status = database_->Write(batch_.GetWriteBatch());
    batch_.Clear();
    batch_bytes_ = 0;
    return status;
  }

  const std::unique_ptr<Database> database_;
  rocksdb::WriteBatchWithIndex batch_{rocksdb::BytewiseComparator(), 0, /*overwrite_key=*/true};
  size_t batch_bytes_ = 0;
  int64_t newest_ = 0;
  std::string greatest_;  // of all keys so far
  std::string old_;       // scratch of Detach
};

}  // namespace

absl::StatusOr<std::unique_ptr<MvccImport>> MvccImport::Open(const MvccStore::Options& options) {
  AppliedState applied;
  absl::StatusOr<std::unique_ptr<Database>> database = Database::Open(options, &applied);
  if (!database.ok()) return database.status();
  const std::unique_ptr<rocksdb::Iterator> any(
      (*database)->db()->NewIterator(rocksdb::ReadOptions(), (*database)->current()));
  any->SeekToFirst();
  if (applied.revision != AppliedState{}.revision || applied.index || any->Valid()) {
    return absl::FailedPreconditionError(
        fmt::format("{} holds a store already: a backup is imported into a new one", options.dir));
  }
  return std::make_unique<MvccImportImpl>(*std::move(database));
}

}  // namespace holdfast::storage
