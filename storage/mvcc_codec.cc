#include "storage/mvcc_codec.h"

#include "base/check.h"
#include "base/strings.h"

namespace holdfast::storage::mvcc {
namespace {

constexpr char kLiveKind = 'L';
constexpr char kTombstoneKind = 'T';
constexpr size_t kAppliedStateBytes = 4 * 8;

bool TakeVarint(std::string_view* in, uint64_t* value) {
  uint64_t result = 0;
  for (size_t i = 0; i < in->size() && i < kVarintBytesMax; ++i) {
    const auto byte = static_cast<uint8_t>((*in)[i]);
    result |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      in->remove_prefix(i + 1);
      *value = result;
      return true;
    }
  }
  return false;
}

bool TakeInt64(std::string_view* in, int64_t* value) {
  uint64_t bits = 0;
  if (!TakeVarint(in, &bits)) return false;
  *value = static_cast<int64_t>(bits);
  return true;
}

bool TakeUint32(std::string_view* in, uint32_t* value) {
  uint64_t wide = 0;
  if (!TakeVarint(in, &wide) || wide > UINT32_MAX) return false;
  *value = static_cast<uint32_t>(wide);
  return true;
}

bool TakeSized(std::string_view* in, std::string_view* part) {
  uint64_t size = 0;
  if (!TakeVarint(in, &size) || size > in->size()) return false;
  *part = in->substr(0, size);
  in->remove_prefix(size);
  return true;
}

}  // namespace

size_t EncodeVarint(uint64_t value, char* out) {
  size_t n = 0;
  while (value >= 0x80) {
    out[n++] = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  out[n++] = static_cast<char>(value);
  return n;
}

size_t EncodeRecordHeader(const Record& record, char* out) {
  char* at = out;
  *at++ = record.live ? kLiveKind : kTombstoneKind;
  at += EncodeVarint(static_cast<uint64_t>(record.mod.main), at);
  at += EncodeVarint(record.mod.sub, at);
  if (record.live) {
    at += EncodeVarint(static_cast<uint64_t>(record.create_revision), at);
    at += EncodeVarint(static_cast<uint64_t>(record.version), at);
    at += EncodeVarint(static_cast<uint64_t>(record.lease), at);
  }
  return static_cast<size_t>(at - out);
}

bool DecodeRecord(std::string_view bytes, Record* record) {
  if (bytes.empty()) return false;
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  *record = Record{};
  if (!TakeInt64(&bytes, &record->mod.main) || !TakeUint32(&bytes, &record->mod.sub)) return false;
  if (kind == kTombstoneKind) return bytes.empty();
  if (kind != kLiveKind) return false;
  record->live = true;
  if (!TakeInt64(&bytes, &record->create_revision) || !TakeInt64(&bytes, &record->version) ||
      !TakeInt64(&bytes, &record->lease)) {
    return false;
  }
  record->value = bytes;
  return true;
}

HistoryKey EncodeHistoryKey(ModRevision mod) {
  HistoryKey key;
  const auto main = static_cast<uint64_t>(mod.main);
  for (int i = 0; i < 8; ++i) key[i] = static_cast<char>(main >> (56 - 8 * i));
  for (int i = 0; i < 4; ++i) key[8 + i] = static_cast<char>(mod.sub >> (24 - 8 * i));
  return key;
}

bool DecodeHistoryKey(std::string_view bytes, ModRevision* mod) {
  if (bytes.size() != HistoryKey{}.size()) return false;
  mod->main = static_cast<int64_t>(base::ReadBigEndian64(bytes));
  mod->sub = base::ReadBigEndian32(bytes.substr(8));
  return true;
}

bool DecodeHistoryEntry(std::string_view bytes, HistoryEntry* entry) {
  if (!TakeSized(&bytes, &entry->key) || !TakeSized(&bytes, &entry->record)) return false;
  entry->previous = bytes;
  return true;
}

std::string EncodeAppliedState(const AppliedState& state) {
  std::string out;
  out.reserve(kAppliedStateBytes);
  base::AppendBigEndian64(out, state.index.value);
  base::AppendBigEndian64(out, state.term.value);
  base::AppendBigEndian64(out, static_cast<uint64_t>(state.revision));
  base::AppendBigEndian64(out, static_cast<uint64_t>(state.compact_revision));
  return out;
}

bool DecodeAppliedState(std::string_view bytes, AppliedState* state) {
  if (bytes.size() != kAppliedStateBytes) return false;
  state->index = Index(base::ReadBigEndian64(bytes));
  state->term = Term(base::ReadBigEndian64(bytes.substr(8)));
  state->revision = static_cast<int64_t>(base::ReadBigEndian64(bytes.substr(16)));
  state->compact_revision = static_cast<int64_t>(base::ReadBigEndian64(bytes.substr(24)));
  return true;
}

std::string EncodeLeasePrefix(int64_t lease) {
  std::string out(1, kLeasePrefix);
  base::AppendBigEndian64(out, static_cast<uint64_t>(lease));
  return out;
}

KeyValueView AsKeyValueView(std::string_view key, const Record& record) {
  CHECK(record.live);
  return {key, record.value, record.create_revision, record.mod.main, record.version, record.lease};
}

bool MakeEventView(std::string_view key, const Record& record, std::string_view previous,
                   EventView* event) {
  *event = {.revision = record.mod.main, .sub = record.mod.sub, .is_delete = !record.live};
  if (record.live) {
    event->kv = AsKeyValueView(key, record);
  } else {
    event->kv.key = key;
    event->kv.mod_revision = record.mod.main;
  }
  if (previous.empty()) return true;
  Record before;
  if (!DecodeRecord(previous, &before)) return false;
  if (before.live) event->previous = AsKeyValueView(key, before);
  return true;
}

void FillKeyValue(std::string_view key, const Record& record, bool with_value, KeyValue* kv) {
  CHECK(record.live);
  kv->key.assign(key);
  if (with_value) {
    kv->value.assign(record.value);
  } else {
    kv->value.clear();
  }
  kv->create_revision = record.create_revision;
  kv->mod_revision = record.mod.main;
  kv->version = record.version;
  kv->lease = record.lease;
}

}  // namespace holdfast::storage::mvcc
