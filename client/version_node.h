// One version of a mirror's records, and the chain that it belongs to. Private to version_store.cc
// and snapshot.cc.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/record_digest.h"
#include "client/key_tree.h"
#include "client/shard_table.h"
#include "client/version_memory.h"
#include "holdfast/entry.h"

namespace holdfast::internal {

inline EntryView ViewOf(const Record& record) {
  return {record.key(),        record.value(), record.create_revision,
          record.mod_revision, record.version, record.lease};
}

class VersionChain;

// Immutable once it is built, but for what concerns its end.
class VersionNode {
 public:
  // Readers and the writer alike. REQUIRES: somebody holds a reference, or the version is published
  // and the caller pinned.
  void Reference() { references.fetch_add(1, std::memory_order_relaxed); }
  // Never frees while the store lives: the writer does, later. Takes no lock but where some store
  // of this process died before its snapshots.
  void Unreference();

  ShardTable table;
  KeyTree tree;
  uint64_t id = 0;  // its stamp; rises along the chain
  uint64_t revision = 0;
  size_t bytes = 0;  // of keys and values
  base::RecordDigest content;
  base::RecordDigest records;

  const VersionChain* chain = nullptr;
  std::atomic<uint64_t> references = 0;
  VersionNode* next = nullptr;        // the next newer one
  VersionMemory::Replaced replaced;   // by `next`; freed with this version
  bool shares_nothing_newer = false;  // all that this one shows is freed with it
};

}  // namespace holdfast::internal
