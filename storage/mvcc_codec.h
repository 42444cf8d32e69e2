// The bytes of the MVCC store: records, history entries, and the store's own meta records.
//
//   current:  key -> record
//   record:   kind, mod main, mod sub; a live one also create, version, lease; then the value
//   history:  main (8 bytes, big endian), sub (4 bytes, big endian) ->
//             key length, key, record length, record after the event, record before it (or nothing)
//   meta:     kOwnMetaPrefix + name -> the store's; kUserMetaPrefix + key -> the state machine's;
//             kLeasePrefix + lease (8 bytes, big endian) + key -> nothing: the key is attached
//
// Integers inside values are varints (7 bits a byte, low first). A history entry holds both records
// in exactly the form of `current`: an undo step is a decode and nothing else.
//
// Pure functions. Decoders return false on bytes that no encoder made and never read beyond them.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "storage/mvcc_store.h"

namespace holdfast::storage::mvcc {

// Of the files, not of the program. Raise it when an older program could misread the bytes.
//   1: no leases. 2: attachments, which an older program would not keep up.
inline constexpr uint32_t kFormatVersion = 2;

inline constexpr char kOwnMetaPrefix = '\0';
inline constexpr char kUserMetaPrefix = '\1';
inline constexpr char kLeasePrefix = '\2';
inline constexpr std::string_view kFormatKey{"\0format", 7};
inline constexpr std::string_view kAppliedKey{"\0applied", 8};

// Where an event stands in the order of all events: `sub` orders those of one revision.
struct ModRevision {
  int64_t main = 0;
  uint32_t sub = 0;
  friend auto operator<=>(const ModRevision&, const ModRevision&) = default;
};

// What a key holds after an event. Not live: the tombstone a delete leaves, with `mod` alone set.
struct Record {
  bool live = false;
  ModRevision mod;
  int64_t create_revision = 0;
  int64_t version = 0;
  int64_t lease = 0;
  std::string_view value;  // of the bytes it was decoded from
};

// Kind byte, three 64 bit varints of at most 10 bytes, the mod revision's 10 + 5.
inline constexpr size_t kRecordHeaderBytesMax = 1 + 10 + 5 + 3 * 10;
inline constexpr size_t kVarintBytesMax = 10;

// Writes everything but the value, which follows as is; returns the number of bytes.
// REQUIRES: `out` has kRecordHeaderBytesMax bytes.
size_t EncodeRecordHeader(const Record& record, char* out);
bool DecodeRecord(std::string_view bytes, Record* record);

// REQUIRES: `out` has kVarintBytesMax bytes. Returns the number written.
size_t EncodeVarint(uint64_t value, char* out);

using HistoryKey = std::array<char, 12>;
HistoryKey EncodeHistoryKey(ModRevision mod);
bool DecodeHistoryKey(std::string_view bytes, ModRevision* mod);
inline std::string_view AsView(const HistoryKey& key) { return {key.data(), key.size()}; }

struct HistoryEntry {
  std::string_view key;
  std::string_view record;
  std::string_view previous;  // empty: the key did not exist
};
bool DecodeHistoryEntry(std::string_view bytes, HistoryEntry* entry);

std::string EncodeAppliedState(const AppliedState& state);
bool DecodeAppliedState(std::string_view bytes, AppliedState* state);

// Where a lease's attachments begin; with a key behind it, one of them.
std::string EncodeLeasePrefix(int64_t lease);
inline constexpr size_t kLeasePrefixBytes = 1 + 8;

// REQUIRES: record.live.
KeyValueView AsKeyValueView(std::string_view key, const Record& record);
// `previous` empty: the key did not exist. False on bytes that no encoder made.
bool MakeEventView(std::string_view key, const Record& record, std::string_view previous,
                   EventView* event);

// REQUIRES: record.live.
void FillKeyValue(std::string_view key, const Record& record, bool with_value, KeyValue* kv);

}  // namespace holdfast::storage::mvcc
