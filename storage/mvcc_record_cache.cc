#include "storage/mvcc_record_cache.h"

#include <cstring>
#include <new>
#include <utility>

#include "absl/hash/hash.h"
#include "base/check.h"
#include "base/strings.h"
#include "storage/mvcc_codec.h"

namespace holdfast::storage::mvcc {

size_t RecordCache::Hash::operator()(std::string_view key) const {
  return absl::Hash<absl::string_view>()(base::ToAbsl(key));
}

RecordCache::Entry* RecordCache::Entry::New(std::string_view key, std::string_view record) {
  auto* entry = new (::operator new(sizeof(Entry) + key.size() + record.size())) Entry;
  entry->key_bytes = static_cast<uint32_t>(key.size());
  entry->record_bytes = static_cast<uint32_t>(record.size());
  std::memcpy(entry->memory(), key.data(), key.size());
  if (!record.empty()) std::memcpy(entry->memory() + key.size(), record.data(), record.size());
  return entry;
}

RecordCache::Answer RecordCache::Find(std::string_view key, int64_t at, std::string* bytes) {
  Shard& shard = ShardOf(key);
  absl::MutexLock lock(&shard.mutex);
  const auto it = shard.entries.find(key);
  if (it == shard.entries.end()) return Answer::kUnknown;
  Entry& entry = **it;
  // Younger than the view: what the view has lies behind it, in the database.
  if (entry.mod > at) return Answer::kUnknown;
  entry.used = true;
  if (entry.record_bytes == 0) return Answer::kNone;
  bytes->assign(entry.record());
  return Answer::kFound;
}

void RecordCache::Offer(std::string_view key, std::string_view bytes, int64_t at) {
  Shard& shard = ShardOf(key);
  absl::MutexLock lock(&shard.mutex);
  // A commit that the view does not have may have changed this very key.
  if (at < shard.committed || shard.entries.contains(key)) return;
  Put(shard, key, bytes);
}

void RecordCache::Withdraw(std::string_view key, int64_t revision) {
  Shard& shard = ShardOf(key);
  absl::MutexLock lock(&shard.mutex);
  CHECK(revision >= shard.committed);
  shard.committed = revision;
  // Younger than every view: it stays for its memory, which Store uses again.
  if (const auto it = shard.entries.find(key); it != shard.entries.end()) (*it)->mod = INT64_MAX;
}

void RecordCache::Store(std::string_view key, std::string_view bytes) {
  Shard& shard = ShardOf(key);
  absl::MutexLock lock(&shard.mutex);
  if (const auto it = shard.entries.find(key); it != shard.entries.end()) {
    Entry& entry = **it;
    Record record;
    if (bytes.size() == entry.record_bytes && DecodeRecord(bytes, &record)) {
      std::memcpy(entry.memory() + entry.key_bytes, bytes.data(), bytes.size());
      entry.mod = record.mod.main;
      entry.used = true;
      return;
    }
    Erase(shard, key);
  }
  Put(shard, key, bytes);
}

void RecordCache::Put(Shard& shard, std::string_view key, std::string_view bytes) {
  if (key.size() + bytes.size() > kRecordBytesMax) return;
  Record record;
  // Bytes of no record: whoever reads them from the database says so.
  if (!bytes.empty() && !DecodeRecord(bytes, &record)) return;
  EntryPtr entry(Entry::New(key, bytes));
  entry->mod = record.mod.main;
  entry->place = static_cast<uint32_t>(shard.ring.size());
  shard.ring.push_back(entry.get());
  shard.bytes += entry->bytes();
  shard.entries.insert(std::move(entry));
  while (shard.bytes > shard_bytes_max_) Evict(shard);
}

void RecordCache::Erase(Shard& shard, std::string_view key) {
  const auto it = shard.entries.find(key);
  if (it == shard.entries.end()) return;
  const Entry& entry = **it;
  shard.bytes -= entry.bytes();
  Entry* last = shard.ring.back();
  last->place = entry.place;
  shard.ring[entry.place] = last;
  shard.ring.pop_back();
  shard.entries.erase(it);
}

void RecordCache::Evict(Shard& shard) {
  CHECK(!shard.ring.empty());
  for (;;) {
    if (shard.hand >= shard.ring.size()) shard.hand = 0;
    Entry* entry = shard.ring[shard.hand];
    if (!std::exchange(entry->used, false)) return Erase(shard, entry->key());
    ++shard.hand;
  }
}

size_t RecordCache::bytes() const {
  size_t bytes = 0;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    bytes += shard.bytes;
  }
  return bytes;
}

}  // namespace holdfast::storage::mvcc
