#include "storage/mvcc_reader.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::storage::mvcc {
namespace {

constexpr std::string_view kNoEnd("\0", 1);

absl::Status Undecodable(std::string_view what, std::string_view key) {
  return DamagedData(
      "", fmt::format("the {} of key \"{}\" is not in a form this program ever wrote", what,
                      base::Printable(key)));
}

}  // namespace

KeySpan KeySpan::Of(std::string_view key, std::string_view range_end) {
  KeySpan span;
  span.begin = key;
  if (range_end.empty()) return span;
  if (range_end == kNoEnd) {
    span.kind = Kind::kUnbounded;
  } else {
    span.kind = Kind::kBounded;
    span.end = range_end;
  }
  return span;
}

std::string UserMetaKey(std::string_view key) {
  std::string out;
  out.reserve(key.size() + 1);
  out.push_back(kUserMetaPrefix);
  out.append(key);
  return out;
}

RecordReader::RecordReader(const Database& database, const rocksdb::Snapshot* snapshot,
                           int64_t revision, const RecordOverlay* overlay)
    : database_(database), overlay_(overlay), revision_(revision) {
  options_.snapshot = snapshot;
}

absl::Status RecordReader::FindMany(
    absl::Span<const std::string_view> keys,
    absl::FunctionRef<bool(size_t index, const FoundRecord* found)> visit) const {
  std::vector<size_t> unknown;
  FoundRecord found;
  for (size_t i = 0; i < keys.size(); ++i) {
    bool exists = false;
    if (FindCached(keys[i], &found, &exists)) {
      if (!visit(i, exists ? &found : nullptr)) return absl::OkStatus();
    } else {
      unknown.push_back(i);
    }
  }
  return unknown.empty() ? absl::OkStatus() : FindManyInDatabase(keys, std::move(unknown), visit);
}

absl::Status RecordReader::FindManyInDatabase(
    absl::Span<const std::string_view> keys, std::vector<size_t> order,
    absl::FunctionRef<bool(size_t index, const FoundRecord* found)> visit) const {
  // Sorted: neighbours lie in one block, and share its index and its filter.
  std::sort(order.begin(), order.end(), [&keys](size_t a, size_t b) { return keys[a] < keys[b]; });
  rocksdb::ReadOptions options = options_;
  // What lies behind it in a chunk is left out (Aborted), and then read one by one.
  options.value_size_soft_limit = kManyBytesMax;

  const size_t chunk = std::min(order.size(), kManyKeys);
  std::vector<rocksdb::Slice> slices(chunk);
  std::vector<rocksdb::PinnableSlice> pins(chunk);
  std::vector<rocksdb::Status> statuses(chunk);
  std::vector<size_t> ends(chunk);  // in `order`, of the indexes of one key
  FoundRecord found;
  for (size_t at = 0; at < order.size();) {
    const size_t begin = at;
    size_t n = 0;
    for (; n < chunk && at < order.size(); ++n) {
      const std::string_view key = keys[order[at]];
      while (at < order.size() && keys[order[at]] == key) ++at;
      slices[n] = rocksdb::Slice(key);
      ends[n] = at;
      pins[n].Reset();
    }
    database_.db()->MultiGet(options, database_.current(), n, slices.data(), pins.data(),
                             statuses.data(), /*sorted_input=*/true);
    size_t index = begin;
    for (size_t i = 0; i < n; ++i) {
      const std::string_view key = slices[i].ToStringView();
      bool exists = statuses[i].ok();
      if (statuses[i].IsAborted()) {
        statuses[i] = database_.db()->Get(options_, database_.current(), slices[i], &found.pin);
        exists = statuses[i].ok();
        found.bytes = found.pin.ToStringView();
      } else {
        found.bytes = pins[i].ToStringView();
      }
      if (!exists && !statuses[i].IsNotFound()) return ToStatus(statuses[i], "cannot read a key");
      if (exists && !DecodeRecord(found.bytes, &found.record)) return Undecodable("record", key);
      database_.records().Offer(key, exists ? found.bytes : std::string_view(), revision_);
      for (; index < ends[i]; ++index) {
        if (!visit(order[index], exists ? &found : nullptr)) return absl::OkStatus();
      }
      pins[i].Reset();
      found.pin.Reset();
    }
  }
  return absl::OkStatus();
}

bool RecordReader::FindCached(std::string_view key, FoundRecord* found, bool* exists) const {
  found->pin.Reset();
  switch (database_.records().Find(key, revision_, found->pin.GetSelf())) {
    case RecordCache::Answer::kUnknown:
      return false;
    case RecordCache::Answer::kNone:
      *exists = false;
      return true;
    case RecordCache::Answer::kFound:
      break;
  }
  found->pin.PinSelf();
  found->bytes = found->pin.ToStringView();
  CHECK(DecodeRecord(found->bytes, &found->record));
  *exists = true;
  return true;
}

absl::StatusOr<bool> RecordReader::FindBase(std::string_view key, FoundRecord* found) const {
  bool exists = false;
  if (FindCached(key, found, &exists)) return exists;
  const rocksdb::Status status =
      database_.db()->Get(options_, database_.current(), rocksdb::Slice(key), &found->pin);
  if (!status.ok() && !status.IsNotFound()) return ToStatus(status, "cannot read a key");
  exists = status.ok();
  found->bytes = exists ? found->pin.ToStringView() : std::string_view();
  if (exists && !DecodeRecord(found->bytes, &found->record)) return Undecodable("record", key);
  database_.records().Offer(key, found->bytes, revision_);
  return exists;
}

absl::StatusOr<bool> RecordReader::FindNewest(std::string_view key, FoundRecord* found) const {
  if (overlay_ != nullptr) {
    if (const PendingRecord* pending = overlay_->Find(key); pending != nullptr) {
      found->bytes = pending->bytes;
      CHECK(DecodeRecord(found->bytes, &found->record));
      return true;
    }
  }
  return FindBase(key, found);
}

absl::StatusOr<bool> RecordReader::FindUncommitted(const PendingRecord* newest, int64_t at,
                                                   FoundRecord* found) const {
  for (const PendingRecord* pending = newest; pending != nullptr; pending = pending->older) {
    CHECK(DecodeRecord(pending->bytes, &found->record));
    if (found->record.mod.main <= at) {
      found->bytes = pending->bytes;
      return true;
    }
  }
  return false;
}

absl::StatusOr<bool> RecordReader::FindAt(std::string_view key, int64_t at,
                                          FoundRecord* found) const {
  absl::StatusOr<bool> result = false;
  if (overlay_ != nullptr) result = FindUncommitted(overlay_->Find(key), at, found);
  if (result.ok() && !*result) {
    result = FindBase(key, found);
    if (result.ok() && *result) result = WalkBack(at, found);
  }
  if (!result.ok()) return result;
  return *result && found->record.live;
}

absl::StatusOr<bool> RecordReader::WalkBack(int64_t at, FoundRecord* found) const {
  while (found->record.mod.main > at) {
    const ModRevision mod = found->record.mod;
    const HistoryKey key = EncodeHistoryKey(mod);
    rocksdb::PinnableSlice undo;
    const rocksdb::Status status =
        database_.db()->Get(options_, database_.history(), rocksdb::Slice(AsView(key)), &undo);
    if (status.IsNotFound()) {
      return DamagedData(
          "", fmt::format("the history of revision {}.{} is missing", mod.main, mod.sub));
    }
    if (!status.ok()) return ToStatus(status, "cannot read the history");
    // Decoded after the move: a short slice keeps its bytes inside itself.
    found->pin = std::move(undo);
    HistoryEntry entry;
    if (!DecodeHistoryEntry(found->pin.ToStringView(), &entry)) {
      return Undecodable("history", AsView(key));
    }
    if (entry.previous.empty()) return false;
    found->bytes = entry.previous;
    if (!DecodeRecord(found->bytes, &found->record)) return Undecodable("history", entry.key);
    CHECK(found->record.mod < mod);
  }
  return true;
}

absl::StatusOr<std::optional<KeyValue>> RecordReader::Get(std::string_view key) const {
  FoundRecord found;
  const absl::StatusOr<bool> exists = FindNewest(key, &found);
  if (!exists.ok()) return exists.status();
  if (!*exists || !found.record.live) return std::optional<KeyValue>();
  std::optional<KeyValue> kv(std::in_place);
  FillKeyValue(key, found.record, /*with_value=*/true, &*kv);
  return kv;
}

absl::StatusOr<std::optional<std::string>> RecordReader::GetMeta(std::string_view key) const {
  rocksdb::PinnableSlice bytes;
  const rocksdb::Status status =
      database_.db()->Get(options_, database_.meta(), UserMetaKey(key), &bytes);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return ToStatus(status, "cannot read a state machine record");
  return std::optional<std::string>(bytes.ToString());
}

absl::Status RecordReader::ScanMeta(std::string_view prefix, std::string_view from,
                                    const MetaOverlay* metas,
                                    const MvccStore::MetaVisitor& visit) const {
  const std::unique_ptr<rocksdb::Iterator> base(
      database_.db()->NewIterator(options_, database_.meta()));
  const std::string_view begin = std::max(prefix, from);
  base->Seek(rocksdb::Slice(begin));
  static const MetaOverlay::Map kNone;
  const MetaOverlay::Map& entries = metas == nullptr ? kNone : metas->entries();
  auto pending = entries.lower_bound(begin);
  for (;;) {
    const bool in_base = base->Valid() && base->key().ToStringView().starts_with(prefix);
    const bool in_pending = pending != entries.end() && pending->first.starts_with(prefix);
    if (!in_base && !in_pending) break;
    const int order = !in_pending ? -1
                      : !in_base  ? 1
                                  : base->key().ToStringView().compare(pending->first);
    bool go_on = true;
    if (order < 0) {
      go_on = visit(base->key().ToStringView(), base->value().ToStringView());
    } else if (pending->second.value.has_value()) {
      go_on = visit(pending->first, *pending->second.value);
    }
    if (!go_on) return absl::OkStatus();
    if (order <= 0) base->Next();
    if (order >= 0) ++pending;
  }
  return ToStatus(base->status(), "cannot read state machine records");
}

absl::Status RecordReader::ScanRecords(
    std::string_view from, const std::function<bool(const KeyValueView&)>& visit) const {
  return ScanRecordsAt(kNewest, from, visit);
}

absl::Status RecordReader::ScanRecordsAt(
    int64_t at, std::string_view from,
    const std::function<bool(const KeyValueView&)>& visit) const {
  KeySpan span;
  span.kind = KeySpan::Kind::kUnbounded;
  span.begin = from;
  RecordCursor cursor(*this, span, at);
  while (cursor.Next()) {
    if (!visit(AsKeyValueView(cursor.key(), cursor.record()))) return absl::OkStatus();
  }
  return cursor.status();
}

absl::Status RecordReader::ScanHistory(int64_t from_revision,
                                       const std::function<bool(const EventView&)>& visit) const {
  const std::unique_ptr<rocksdb::Iterator> it(
      database_.db()->NewIterator(options_, database_.history()));
  const HistoryKey first = EncodeHistoryKey({from_revision, 0});
  for (it->Seek(rocksdb::Slice(AsView(first))); it->Valid(); it->Next()) {
    HistoryEntry entry;
    Record record;
    EventView event;
    if (!DecodeHistoryEntry(it->value().ToStringView(), &entry) ||
        !DecodeRecord(entry.record, &record) ||
        !MakeEventView(entry.key, record, entry.previous, &event)) {
      return Undecodable("history", it->key().ToStringView());
    }
    if (!visit(event)) return absl::OkStatus();
  }
  return ToStatus(it->status(), "cannot read the history");
}

RecordCursor::RecordCursor(const RecordReader& reader, const KeySpan& span, int64_t at)
    : reader_(reader), span_(span), at_(at) {
  CHECK(span.kind != KeySpan::Kind::kSingle);
  if (span_.empty()) return;
  rocksdb::ReadOptions options = reader.options_;
  if (span_.kind == KeySpan::Kind::kBounded) {
    upper_bound_ = rocksdb::Slice(span_.end);
    options.iterate_upper_bound = &upper_bound_;
  }
  base_.reset(reader.database_.db()->NewIterator(options, reader.database_.current()));
}

bool RecordCursor::InSpan(std::string_view key) const {
  return span_.kind == KeySpan::Kind::kUnbounded || key < span_.end;
}

bool RecordCursor::Next() {
  if (span_.empty()) return false;
  while (status_.ok() && AdvanceKey()) {
    if (ReadKey()) return true;
  }
  return false;
}

bool RecordCursor::AdvanceKey() {
  // The overlay is searched anew each time, before base_ moves and key_ with it.
  const RecordOverlay::Map* records =
      reader_.overlay_ == nullptr ? nullptr : &reader_.overlay_->records();
  RecordOverlay::Map::const_iterator pending;
  if (records != nullptr) {
    pending = started_ ? records->upper_bound(key_) : records->lower_bound(span_.begin);
  }
  if (!started_) {
    base_->Seek(rocksdb::Slice(span_.begin));
    started_ = true;
  } else if (in_base_) {
    base_->Next();
  }
  if (!base_->Valid() && !base_->status().ok()) {
    status_ = ToStatus(base_->status(), "cannot read a range");
    return false;
  }
  const bool has_pending =
      records != nullptr && pending != records->end() && InSpan(pending->first);
  in_base_ = base_->Valid();
  uncommitted_ = nullptr;
  if (!in_base_ && !has_pending) return false;
  if (in_base_) key_ = base_->key().ToStringView();
  if (has_pending && (!in_base_ || pending->first <= key_)) {
    in_base_ = in_base_ && pending->first == key_;
    key_ = pending->first;
    uncommitted_ = pending->second;
  }
  return true;
}

bool RecordCursor::ReadKey() {
  absl::StatusOr<bool> result = reader_.FindUncommitted(uncommitted_, at_, &found_);
  if (result.ok() && !*result && in_base_) result = ReadBase();
  if (!result.ok()) {
    status_ = result.status();
    return false;
  }
  return *result && found_.record.live;
}

absl::StatusOr<bool> RecordCursor::ReadBase() {
  found_.bytes = base_->value().ToStringView();
  if (!DecodeRecord(found_.bytes, &found_.record)) return Undecodable("record", key_);
  return reader_.WalkBack(at_, &found_);
}

}  // namespace holdfast::storage::mvcc
