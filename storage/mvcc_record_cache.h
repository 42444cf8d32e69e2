// The newest committed records of the keys that were read or written last, for readers and for the
// writer: a lookup in RocksDB (memtables, filters, index and data blocks, each found through a
// cache of its own) costs several microseconds, one here a tenth of that.
//
// Why it is right. An entry is what the database holds for a key as of the newest commit, or of the
// one under way. It may answer a view exactly if its record is not younger than the view: then
// nothing has changed the key between the two. The writer takes the entries of its keys out before
// it writes (Withdraw), and puts the new ones in when the write is done and visible (Store). What a
// reader brings is taken only if no commit has touched the entry's shard since the reader's view
// was made (Offer): so nothing old can come in behind the writer's back.
// A tombstone that a compaction removes may live on here: it says no less than its absence.
//
// Memory: `max_bytes` at most, with the overhead of an entry counted as kEntryOverhead; who was not
// used for longest goes, roughly (CLOCK). A record larger than kRecordBytesMax is not kept.
// Threads: Find and Offer any; Withdraw and Store one at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"

namespace holdfast::storage::mvcc {

class RecordCache {
 public:
  static constexpr size_t kRecordBytesMax = size_t{64} << 10;  // larger ones would empty it
  static constexpr size_t kEntryOverhead = 64;

  explicit RecordCache(size_t max_bytes) : shard_bytes_max_(max_bytes / kShards) {}

  enum class Answer {
    kUnknown,
    kNone,   // the key has no record
    kFound,  // in `bytes`, as encoded; a tombstone, perhaps
  };
  // As of revision `at` (INT64_MAX: of the newest commit; then only the writer may ask). `bytes` is
  // a copy.
  Answer Find(std::string_view key, int64_t at, std::string* bytes);

  // What the database holds, as a view at revision `at` found it; `bytes` empty: nothing.
  void Offer(std::string_view key, std::string_view bytes, int64_t at);

  // The commit of everything up to `revision` begins, and changes this key. No view finds it here
  // from now on; neither may the writer ask for it before Store.
  void Withdraw(std::string_view key, int64_t revision);
  // It is done and visible: the key's new record.
  void Store(std::string_view key, std::string_view bytes);

  size_t bytes() const;  // for metrics and tests

 private:
  static constexpr size_t kShards = 64;

  // Key and record lie right behind it: to look at one is one line of memory, not three.
  struct Entry {
    int64_t mod = 0;  // of the record
    uint32_t key_bytes = 0;
    uint32_t record_bytes = 0;  // 0: the key has none
    uint32_t place = 0;         // in Shard::ring
    // Since the hand last came by. Not at first: who is read once must not drive out who is read
    // often.
    bool used = false;

    static Entry* New(std::string_view key, std::string_view record);
    char* memory() { return reinterpret_cast<char*>(this + 1); }
    const char* memory() const { return reinterpret_cast<const char*>(this + 1); }
    std::string_view key() const { return {memory(), key_bytes}; }
    std::string_view record() const { return {memory() + key_bytes, record_bytes}; }
    size_t bytes() const { return key_bytes + record_bytes + kEntryOverhead; }
  };
  struct Free {
    void operator()(Entry* entry) const { ::operator delete(entry); }
  };
  using EntryPtr = std::unique_ptr<Entry, Free>;
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const;
    size_t operator()(const EntryPtr& entry) const { return (*this)(entry->key()); }
  };
  struct Same {
    using is_transparent = void;
    bool operator()(const EntryPtr& a, const EntryPtr& b) const { return a->key() == b->key(); }
    bool operator()(const EntryPtr& a, std::string_view b) const { return a->key() == b; }
    bool operator()(std::string_view a, const EntryPtr& b) const { return a == b->key(); }
  };
  struct alignas(64) Shard {
    mutable absl::Mutex mutex;
    absl::flat_hash_set<EntryPtr, Hash, Same> entries ABSL_GUARDED_BY(mutex);
    std::vector<Entry*> ring ABSL_GUARDED_BY(mutex);
    size_t hand ABSL_GUARDED_BY(mutex) = 0;
    size_t bytes ABSL_GUARDED_BY(mutex) = 0;
    // Of the last commit that touched a key of this shard.
    int64_t committed ABSL_GUARDED_BY(mutex) = 0;
  };

  Shard& ShardOf(std::string_view key) { return shards_[(Hash()(key) >> 48) % kShards]; }
  void Put(Shard& shard, std::string_view key, std::string_view bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  static void Erase(Shard& shard, std::string_view key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  static void Evict(Shard& shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);

  const size_t shard_bytes_max_;
  std::array<Shard, kShards> shards_;
};

}  // namespace holdfast::storage::mvcc
