// The newest committed records that the writer touched last, and the keys that it knows to have
// none, so that the next put of the same key
// need not look it up in RocksDB: on the write path that lookup is dearer than all the rest.
//
// Two generations: what is found or stored lives in the young one; when that is full, it becomes
// the old one and the former old one is forgotten. No list to keep, and no key costs memory for
// long. Holds at most 2 * kGenerationBytes.
//
// Right only because one writer makes all changes: it stores what it committed, after the commit.
// Threads: one.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "base/strings.h"

namespace holdfast::storage::mvcc {

class RecentRecords {
 public:
  // Empty: the database holds nothing of this key. Valid until the next call.
  std::optional<std::string_view> Find(std::string_view key) {
    const auto young = young_.find(base::ToAbsl(key));
    if (young != young_.end()) return young->second;
    const auto old = old_.find(base::ToAbsl(key));
    if (old == old_.end()) return std::nullopt;
    const std::string bytes = old->second;  // storing may drop the generation it lies in
    Store(key, bytes);
    return young_.find(base::ToAbsl(key))->second;
  }

  // `bytes` empty: the database holds nothing of this key.
  void Store(std::string_view key, std::string_view bytes) {
    if (key.size() + bytes.size() > kRecordBytesMax) {
      Forget(key);  // an older, smaller record of this key may be here
      return;
    }
    auto [it, added] = young_.try_emplace(base::ToAbsl(key));
    if (added) young_bytes_ += key.size() + kEntryOverhead;
    young_bytes_ += bytes.size() - it->second.size();
    it->second.assign(bytes);
    if (young_bytes_ <= kGenerationBytes) return;
    // The entry just stored must stay findable: swap first, then the old generation has it.
    old_ = std::exchange(young_, {});
    young_bytes_ = 0;
    if (const auto moved = old_.find(base::ToAbsl(key)); moved != old_.end()) {
      young_bytes_ = key.size() + moved->second.size() + kEntryOverhead;
      young_.try_emplace(base::ToAbsl(key), moved->second);
    }
  }

 private:
  static constexpr size_t kGenerationBytes = size_t{8} << 20;
  static constexpr size_t kRecordBytesMax = size_t{64} << 10;  // larger ones would empty the cache
  static constexpr size_t kEntryOverhead = 96;                 // two strings and a slot

  void Forget(std::string_view key) {
    if (const auto it = young_.find(base::ToAbsl(key)); it != young_.end()) {
      young_bytes_ -= key.size() + it->second.size() + kEntryOverhead;
      young_.erase(it);
    }
    old_.erase(base::ToAbsl(key));
  }

  using Generation = absl::flat_hash_map<std::string, std::string>;
  Generation young_;
  Generation old_;
  size_t young_bytes_ = 0;
};

}  // namespace holdfast::storage::mvcc
