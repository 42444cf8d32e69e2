// MvccStore::View over a RocksDB snapshot that all views of one commit share.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/mvcc_database.h"
#include "storage/mvcc_reader.h"
#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {

// A snapshot, the applied state it holds, and the reclaim horizon held back while it lives.
class PinnedState {
 public:
  // REQUIRES: `state` is what the database holds, and nobody writes to it meanwhile; `database`
  // outlives this.
  PinnedState(Database& database, const AppliedState& state);
  ~PinnedState();
  PinnedState(const PinnedState&) = delete;
  PinnedState& operator=(const PinnedState&) = delete;

  const Database& database() const { return database_; }
  const rocksdb::Snapshot* snapshot() const { return snapshot_; }
  const AppliedState& state() const { return state_; }

 private:
  Database& database_;
  const AppliedState state_;
  const rocksdb::Snapshot* snapshot_ = nullptr;
};

class RocksView : public MvccStore::View {
 public:
  explicit RocksView(std::shared_ptr<const PinnedState> pinned);

  const AppliedState& applied() const override { return pinned_->state(); }
  absl::Status Range(const RangeOptions& options, RangeResult* result) const override;
  absl::StatusOr<std::optional<KeyValue>> Get(std::string_view key) const override;
  absl::Status GetMany(
      absl::Span<const std::string_view> keys,
      absl::FunctionRef<bool(size_t index, const KeyValueView* kv)> visit) const override;
  absl::StatusOr<std::optional<std::string>> GetMeta(std::string_view key) const override;
  absl::Status ScanMeta(std::string_view prefix, std::string_view from,
                        const MvccStore::MetaVisitor& visit) const override;
  absl::Status ScanRecords(std::string_view from,
                           const std::function<bool(const KeyValueView&)>& visit) const override;
  absl::Status ScanRecordsAt(int64_t revision, std::string_view from,
                             const std::function<bool(const KeyValueView&)>& visit) const override;
  absl::Status ScanHistory(int64_t from_revision,
                           const std::function<bool(const EventView&)>& visit) const override;
  absl::Status ScanLeaseKeys(int64_t lease,
                             const std::function<bool(std::string_view key)>& visit) const override;

 private:
  const std::shared_ptr<const PinnedState> pinned_;
  const RecordReader reader_;
};

}  // namespace holdfast::storage::mvcc
