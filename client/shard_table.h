// The records of one version by key: a persistent hash table of fixed depth.
//
//   root ──► pages of 128 shards ──► shards of about 16 records: 16-bit tags, then pointers
//
// A lookup reads the root, a page, the tags of one shard (eight at a time), and nearly always one
// record. A change copies the path to one shard: some hundred bytes and two arrays of pointers.
// The number of shards follows the number of records by linear hashing (Litwin 1980): one shard
// is split or merged per some sixteen inserts or deletes, so growth never rebuilds the table.
//
// A value: copying it is O(1), and the copy belongs to another version. Not attacker-proof: keys
// made to collide share a shard, which makes lookups of those keys slow, never wrong.
//
// Threads: const methods from any thread; the others as VersionMemory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "client/version_memory.h"

namespace holdfast::internal {

class ShardTable {
 public:
  const Record* Find(std::string_view key) const;  // null: none

  // Puts `record` in the place of the one with its key; returns that (null: there was none). The
  // caller drops it.
  const Record* Set(VersionMemory& memory, const Record* record);
  // The record that was taken out; null: there was none.
  const Record* Erase(VersionMemory& memory, std::string_view key);
  // Frees shards, pages, root and records that bear `stamp`; 0: all of them. Leaves it empty.
  void Free(VersionMemory& memory, uint64_t stamp);

  size_t size() const { return size_; }

  // Records that are in one table but not, as the same block, in the other: each one to `visit`,
  // which returns false to stop. Passes over what the two share.
  static bool VisitUnshared(const ShardTable& in, const ShardTable& not_in,
                            absl::FunctionRef<bool(const Record*)> visit);

 private:
  struct Shard;
  struct Page;
  struct Root;

  size_t IndexOf(uint64_t hash) const;
  const Shard* shard(size_t index) const;
  Shard** MutableSlot(VersionMemory& memory, size_t index);
  void Split(VersionMemory& memory);
  void Merge(VersionMemory& memory);

  Root* root_ = nullptr;
  size_t shards_ = 0;
  size_t mask_ = 0;  // the smallest 2^n - 1 that is >= shards_ - 1
  size_t size_ = 0;  // records
};

}  // namespace holdfast::internal
