#include "storage/mvcc_writer.h"

#include <array>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "storage/mvcc_range.h"

namespace holdfast::storage::mvcc {
namespace {

// A batch that was larger than this gives its memory back after the commit.
constexpr size_t kBatchBytesKeptMax = size_t{4} << 20;

// Meta records in memory: some ten thousand sessions'.
constexpr size_t kKnownMetaBytesMax = size_t{2} << 20;
constexpr size_t kKnownMetaOverhead = 96;  // two strings and a slot

// Fewer keys are looked up one by one: there is nothing to share.
constexpr size_t kPrefetchKeysMin = 2;

}  // namespace

RocksWriter::RocksWriter(const Database& database, const AppliedState& base, CommitFn commit)
    : database_(database),
      commit_(std::move(commit)),
      state_(base),
      reader_(database, /*snapshot=*/nullptr, kNewest, &records_) {}

void RocksWriter::BeginRevision() {
  CHECK(!open_);
  open_ = true;
  next_sub_ = 0;
}

bool RocksWriter::EndRevision() {
  CHECK(open_);
  open_ = false;
  if (next_sub_ == 0) return false;
  ++state_.revision;
  next_sub_ = 0;
  return true;
}

ModRevision RocksWriter::NextMod() {
  CHECK(open_);
  CHECK(next_sub_ < UINT32_MAX);
  return {state_.revision + 1, next_sub_++};
}

void RocksWriter::Prefetch(absl::Span<const std::string_view> keys) {
  CHECK(!open_);
  if (keys.size() < kPrefetchKeysMin) return;
  missing_.clear();
  for (const std::string_view key : keys) {
    if (records_.Find(key) == nullptr) missing_.push_back(key);
  }
  // It lands in the record cache. An error is not lost: whoever needs the key looks for it himself,
  // and meets it.
  reader_.FindMany(missing_, [](size_t, const FoundRecord*) { return true; }).IgnoreError();
}

absl::Status RocksWriter::Append(std::string_view key, const Record& record,
                                 std::string_view previous) {
  std::array<char, kRecordHeaderBytesMax> header;
  const size_t header_bytes = EncodeRecordHeader(record, header.data());
  // `previous` may lie in the overlay: its bytes stay where they are.
  const std::string_view bytes = records_.Push(key, {header.data(), header_bytes}, record.value);

  std::array<char, kVarintBytesMax> key_size;
  std::array<char, kVarintBytesMax> record_size;
  const size_t key_size_bytes = EncodeVarint(key.size(), key_size.data());
  const size_t record_size_bytes = EncodeVarint(bytes.size(), record_size.data());
  const std::array<rocksdb::Slice, 5> value = {
      rocksdb::Slice(key_size.data(), key_size_bytes), rocksdb::Slice(key),
      rocksdb::Slice(record_size.data(), record_size_bytes), rocksdb::Slice(bytes),
      rocksdb::Slice(previous)};
  if (sink_) {
    EventView event;
    CHECK(MakeEventView(key, record, previous, &event));
    sink_(event);
  }
  const HistoryKey history_key = EncodeHistoryKey(record.mod);
  const rocksdb::Slice history_key_slice(AsView(history_key));
  return ToStatus(batch_.Put(database_.history(), rocksdb::SliceParts(&history_key_slice, 1),
                             rocksdb::SliceParts(value.data(), value.size())),
                  "cannot collect an event");
}

absl::Status RocksWriter::Put(std::string_view key, std::string_view value, int64_t lease,
                              std::optional<KeyValue>* prev) {
  const ModRevision mod = NextMod();
  if (prev != nullptr) prev->reset();
  const absl::StatusOr<bool> found = reader_.FindNewest(key, &previous_);
  if (!found.ok()) return found.status();
  const Record& old = previous_.record;
  // A tombstone that a compaction has passed may be gone on one member and still here on another.
  const bool existed = *found && (old.live || old.mod.main > state_.compact_revision);
  const bool lives = existed && old.live;
  if (lives && prev != nullptr) {
    FillKeyValue(key, old, /*with_value=*/true, &prev->emplace());
  }
  Record record;
  record.live = true;
  record.mod = mod;
  record.create_revision = lives ? old.create_revision : mod.main;
  record.version = lives ? old.version + 1 : 1;
  record.lease = lease;
  record.value = value;
  Attach(key, lives ? old.lease : 0, lease);
  return Append(key, record, existed ? previous_.bytes : std::string_view());
}

void RocksWriter::Attach(std::string_view key, int64_t from_lease, int64_t to_lease) {
  if (from_lease == to_lease) return;
  if (from_lease != 0) metas_.Delete(EncodeLeasePrefix(from_lease).append(key));
  if (to_lease != 0) metas_.Put(EncodeLeasePrefix(to_lease).append(key), {});
}

absl::Status RocksWriter::Delete(std::string_view key, const Record& old,
                                 std::string_view previous) {
  Attach(key, old.lease, 0);
  Record tombstone;
  tombstone.mod = NextMod();
  return Append(key, tombstone, previous);
}

absl::StatusOr<int64_t> RocksWriter::DeleteRange(std::string_view key, std::string_view range_end,
                                                 std::vector<KeyValue>* prev) {
  CHECK(open_);
  if (prev != nullptr) prev->clear();
  const auto note = [prev](std::string_view deleted, const Record& record) {
    if (prev != nullptr) {
      FillKeyValue(deleted, record, /*with_value=*/true, &prev->emplace_back());
    }
  };
  const KeySpan span = KeySpan::Of(key, range_end);
  if (span.kind == KeySpan::Kind::kSingle) {
    const absl::StatusOr<bool> found = reader_.FindNewest(key, &previous_);
    if (!found.ok()) return found.status();
    if (!*found || !previous_.record.live) return 0;
    note(key, previous_.record);
    if (absl::Status status = Delete(key, previous_.record, previous_.bytes); !status.ok()) {
      return status;
    }
    return 1;
  }
  int64_t deleted = 0;
  RecordCursor cursor(reader_, span, kNewest);
  while (cursor.Next()) {
    note(cursor.key(), cursor.record());
    if (absl::Status status = Delete(cursor.key(), cursor.record(), cursor.bytes()); !status.ok()) {
      return status;
    }
    ++deleted;
  }
  if (!cursor.status().ok()) return cursor.status();
  return deleted;
}

absl::StatusOr<std::optional<KeyValue>> RocksWriter::Get(std::string_view key) const {
  return reader_.Get(key);
}

absl::Status RocksWriter::Range(const RangeOptions& options, RangeResult* result) const {
  // As in etcd, the open revision may be asked for by number once something was written in it.
  const ReadableRevisions readable{state_.revision + (next_sub_ > 0 ? 1 : 0),
                                   state_.compact_revision};
  return ReadRange(reader_, options, readable, result);
}

absl::Status RocksWriter::Compact(int64_t revision) {
  CHECK(!open_);
  if (revision <= state_.compact_revision) return CompactedError();
  if (revision > state_.revision) return FutureRevisionError();
  // What lies before the last compaction has its own range delete: disjoint ones stay cheap. The
  // events of `revision` itself stay: whoever was told that he is compacted goes on from there.
  const HistoryKey begin = EncodeHistoryKey({state_.compact_revision, 0});
  const HistoryKey end = EncodeHistoryKey({revision, 0});
  const rocksdb::Status status = batch_.DeleteRange(
      database_.history(), rocksdb::Slice(AsView(begin)), rocksdb::Slice(AsView(end)));
  if (!status.ok()) return ToStatus(status, "cannot collect a compaction");
  state_.compact_revision = revision;
  return absl::OkStatus();
}

void RocksWriter::PutMeta(std::string_view key, std::string_view value) {
  metas_.Put(UserMetaKey(key), value);
}

void RocksWriter::PutNewMeta(std::string_view key, std::string_view value) {
  metas_.Put(UserMetaKey(key), value, /*fresh=*/true);
}

void RocksWriter::DeleteMeta(std::string_view key) { metas_.Delete(UserMetaKey(key)); }

absl::StatusOr<std::optional<std::string>> RocksWriter::GetMeta(std::string_view key) const {
  const std::string meta_key = UserMetaKey(key);
  const auto it = metas_.entries().find(meta_key);
  if (it != metas_.entries().end()) {
    if (!it->second.value.has_value()) return std::optional<std::string>();
    return std::optional<std::string>(*it->second.value);
  }
  if (const auto known = known_metas_.find(meta_key); known != known_metas_.end()) {
    return known->second;
  }
  auto found = reader_.GetMeta(key);
  if (found.ok()) KnowMeta(meta_key, *found);
  return found;
}

void RocksWriter::KnowMeta(std::string_view key, const std::optional<std::string>& value) const {
  const size_t bytes = key.size() + (value.has_value() ? value->size() : 0) + kKnownMetaOverhead;
  if (bytes > kKnownMetaBytesMax / 16) return;
  if (known_metas_bytes_ + bytes > kKnownMetaBytesMax) {
    known_metas_.clear();
    known_metas_bytes_ = 0;
  }
  known_metas_bytes_ += bytes;
  known_metas_.emplace(key, value);
}

absl::Status RocksWriter::ScanMeta(std::string_view prefix, std::string_view from,
                                   const MvccStore::MetaVisitor& visit) const {
  return reader_.ScanMeta(UserMetaKey(prefix), UserMetaKey(from), &metas_,
                          [&visit](std::string_view key, std::string_view value) {
                            return visit(key.substr(1), value);  // kUserMetaPrefix
                          });
}

absl::Status RocksWriter::ScanRecords(std::string_view from,
                                      const std::function<bool(const KeyValueView&)>& visit) const {
  return reader_.ScanRecords(from, visit);
}

absl::Status RocksWriter::ScanLeaseKeys(
    int64_t lease, const std::function<bool(std::string_view key)>& visit) const {
  return reader_.ScanMeta(EncodeLeasePrefix(lease), {}, &metas_,
                          [&visit](std::string_view key, std::string_view /*value*/) {
                            return visit(key.substr(kLeasePrefixBytes));
                          });
}

absl::Status RocksWriter::FillBatch() {
  rocksdb::Status status;
  for (auto it = records_.records().begin(); status.ok() && it != records_.records().end(); ++it) {
    status = batch_.Put(database_.current(), rocksdb::Slice(it->first),
                        rocksdb::Slice(it->second->bytes));
  }
  for (auto it = metas_.entries().begin(); status.ok() && it != metas_.entries().end(); ++it) {
    const rocksdb::Slice key(it->first);
    status = it->second.value.has_value()
                 ? batch_.Put(database_.meta(), key, rocksdb::Slice(*it->second.value))
                 : batch_.Delete(database_.meta(), key);
  }
  if (status.ok()) {
    status = batch_.Put(database_.meta(), rocksdb::Slice(kAppliedKey), EncodeAppliedState(state_));
  }
  return ToStatus(status, "cannot collect a commit");
}

absl::Status RocksWriter::Commit(Index index, Term term) {
  CHECK(!open_);
  CHECK(index >= state_.index);
  CHECK(term >= state_.term);
  state_.index = index;
  state_.term = term;
  if (absl::Status status = FillBatch(); !status.ok()) return status;
  RecordCache& cache = database_.records();
  for (const auto& [key, newest] : records_.records()) cache.Withdraw(key, state_.revision);
  if (absl::Status status = commit_(&batch_, state_); !status.ok()) return status;
  for (const auto& [key, newest] : records_.records()) cache.Store(key, newest->bytes);
  for (const auto& [key, entry] : metas_.entries()) {
    // What grows beyond the bound's reckoning is looked for anew.
    const auto known = known_metas_.find(base::ToAbsl(key));
    if (known == known_metas_.end()) continue;
    if (known->second.has_value() && entry.value.has_value() &&
        known->second->size() == entry.value->size()) {
      known->second->assign(*entry.value);
    } else {
      known_metas_.erase(known);
    }
  }
  Clear();
  return absl::OkStatus();
}

void RocksWriter::Clear() {
  previous_.pin.Reset();
  records_.Clear();
  metas_.Clear();
  if (batch_.GetDataSize() > kBatchBytesKeptMax) {
    batch_ = rocksdb::WriteBatch();
  } else {
    batch_.Clear();
  }
}

}  // namespace holdfast::storage::mvcc
