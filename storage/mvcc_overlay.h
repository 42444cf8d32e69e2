// What a Writer wrote and has not committed, in key order, so that its reads can see it.
//
// All bytes live in one arena that grows by blocks and is emptied by Clear(): a put costs no
// allocation of its own. Limited by what the caller lets into one commit.
//
// Threads: one.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"

namespace holdfast::storage::mvcc {

class Arena {
 public:
  // Eight byte alignment. Valid until Clear().
  char* Allocate(size_t bytes);
  std::string_view Copy(std::string_view bytes);
  // Keeps one ordinary block for reuse and gives the rest back.
  void Clear();

 private:
  static constexpr size_t kBlockBytes = size_t{64} << 10;
  static constexpr size_t kAlignment = 8;

  std::vector<std::unique_ptr<char[]>> blocks_;
  std::unique_ptr<char[]> spare_;
  char* free_ = nullptr;
  size_t free_bytes_ = 0;
};

// One uncommitted event of a key. `older` is the event before it in the same batch; behind the last
// one stands what the database holds.
struct PendingRecord {
  std::string_view bytes;  // an encoded Record
  const PendingRecord* older = nullptr;
};

class RecordOverlay {
 public:
  using Map = absl::btree_map<std::string_view, const PendingRecord*>;

  const PendingRecord* Find(std::string_view key) const {
    const auto it = records_.find(key);
    return it == records_.end() ? nullptr : it->second;
  }
  const Map& records() const { return records_; }

  // The new newest record of `key`: `header` and `value` together. Returns the joined bytes.
  std::string_view Push(std::string_view key, std::string_view header, std::string_view value);
  void Clear();

 private:
  Arena arena_;
  Map records_;
};

class MetaOverlay {
 public:
  struct Entry {
    std::optional<std::string_view> value;  // nullopt: deleted
    // The database has nothing under this key.
    bool fresh = false;
  };
  using Map = absl::btree_map<std::string_view, Entry>;

  // `fresh`: see Entry; of a key that is here already, what was said first counts.
  void Put(std::string_view key, std::string_view value, bool fresh = false);
  // Of a fresh key nothing stays.
  void Delete(std::string_view key);
  const Map& entries() const { return entries_; }
  void Clear();

 private:
  Arena arena_;
  Map entries_;
};

}  // namespace holdfast::storage::mvcc
