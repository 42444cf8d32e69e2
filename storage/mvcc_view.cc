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
      reader_(pinned_->database(), pinned_->snapshot(), pinned_->state().revision,
              /*overlay=*/nullptr) {}

absl::Status RocksView::Range(const RangeOptions& options, RangeResult* result) const {
  return ReadRange(reader_, options, {applied().revision, applied().compact_revision}, result);
}

absl::StatusOr<std::optional<KeyValue>> RocksView::Get(std::string_view key) const {
  return reader_.Get(key);
}

absl::Status RocksView::GetMany(
    absl::Span<const std::string_view> keys,
    absl::FunctionRef<bool(size_t index, const KeyValueView* kv)> visit) const {
  return reader_.FindMany(keys, [&](size_t index, const FoundRecord* found) {
    if (found == nullptr || !found->record.live) {
      return visit(index, nullptr);
    }
    const KeyValueView kv = AsKeyValueView(keys[index], found->record);
    return visit(index, &kv);
  });
}

absl::StatusOr<std::optional<std::string>> RocksView::GetMeta(std::string_view key) const {
  return reader_.GetMeta(key);
}

absl::Status RocksView::ScanMeta(std::string_view prefix, std::string_view from,
                                 const MvccStore::MetaVisitor& visit) const {
  return reader_.ScanMeta(UserMetaKey(prefix), UserMetaKey(from), /*metas=*/nullptr,
                          [&visit](std::string_view key, std::string_view value) {
                            return visit(key.substr(1), value);  // kUserMetaPrefix
                          });
}

absl::Status RocksView::ScanRecords(std::string_view from,
                                    const std::function<bool(const KeyValueView&)>& visit) const {
  return reader_.ScanRecords(from, visit);
}

absl::Status RocksView::ScanRecordsAt(int64_t revision, std::string_view from,
                                      const std::function<bool(const KeyValueView&)>& visit) const {
  if (revision > applied().revision) return FutureRevisionError();
  if (revision < applied().compact_revision) return CompactedError();
  return reader_.ScanRecordsAt(revision, from, visit);
}

absl::Status RocksView::ScanHistory(int64_t from_revision,
                                    const std::function<bool(const EventView&)>& visit) const {
  const int64_t compact = applied().compact_revision;
  if (from_revision < compact) return CompactedError();
  return reader_.ScanHistory(from_revision, [&visit, compact](const EventView& event) {
    if (event.revision > compact) return visit(event);
    // What was there before is of a revision that can not be read any more.
    EventView cut = event;
    cut.previous.reset();
    return visit(cut);
  });
}

absl::Status RocksView::ScanLeaseKeys(
    int64_t lease, const std::function<bool(std::string_view key)>& visit) const {
  return reader_.ScanMeta(EncodeLeasePrefix(lease), {}, /*metas=*/nullptr,
                          [&visit](std::string_view key, std::string_view /*value*/) {
                            return visit(key.substr(kLeasePrefixBytes));
                          });
}

}  // namespace holdfast::storage::mvcc
