#include "storage/mvcc_view.h"

#include <memory>
#include <utility>

#include "storage/mvcc_range.h"

namespace holdfast::storage::mvcc {

PinnedState::PinnedState(Database& database, const AppliedState& state)
    : database_(database), state_(state) {
  // Held back first: from the snapshot on nothing it needs may go.
  database_.horizon().AddView(state_.compact_revision);
  snapshot_ = database_.db()->GetSnapshot();
}

PinnedState::~PinnedState() {
  database_.db()->ReleaseSnapshot(snapshot_);
  database_.horizon().RemoveView(state_.compact_revision);
}

RocksView::RocksView(std::shared_ptr<const PinnedState> pinned)
    : pinned_(std::move(pinned)),
      reader_(pinned_->database(), pinned_->snapshot(), /*overlay=*/nullptr) {}

absl::Status RocksView::Range(const RangeOptions& options, RangeResult* result) const {
  return ReadRange(reader_, options, {applied().revision, applied().compact_revision}, result);
}

absl::StatusOr<std::optional<KeyValue>> RocksView::Get(std::string_view key) const {
  return reader_.Get(key);
}

absl::StatusOr<std::optional<std::string>> RocksView::GetMeta(std::string_view key) const {
  return reader_.GetMeta(key);
}

absl::Status RocksView::ScanMeta(
    std::string_view prefix,
    const std::function<bool(std::string_view key, std::string_view value)>& visit) const {
  const std::string begin = UserMetaKey(prefix);
  rocksdb::ReadOptions options;
  options.snapshot = pinned_->snapshot();
  const std::unique_ptr<rocksdb::Iterator> it(
      pinned_->database().db()->NewIterator(options, pinned_->database().meta()));
  for (it->Seek(begin); it->Valid() && it->key().starts_with(begin); it->Next()) {
    std::string_view key = it->key().ToStringView();
    key.remove_prefix(1);  // kUserMetaPrefix
    if (!visit(key, it->value().ToStringView())) return absl::OkStatus();
  }
  return ToStatus(it->status(), "cannot read state machine records");
}

}  // namespace holdfast::storage::mvcc
