// What goes in and comes out of the store.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "holdfast/entry.h"
#include "holdfast/freshness.h"
#include "holdfast/options.h"

namespace holdfast {

// A value and how old it can be.
template <class T>
struct Read {
  T value;
  Freshness fresh;
  // Of the cluster; 0: not told. Never merge answers of two incarnations: the cluster was started
  // anew from one member's data or from a backup, and the same revision means other data.
  uint64_t incarnation = 0;
};
template <class T>
using Result = absl::StatusOr<Read<T>>;

// Called exactly once, on the client's own thread. Must not block and must not destroy the Client.
template <class T>
using Done = absl::AnyInvocable<void(absl::StatusOr<T>) &&>;

// The smallest key greater than every key with this prefix; "\0" (no upper end) if there is none.
std::string PrefixEnd(std::string_view prefix);

// One page of keys in [key, range_end). To go on: key = last key + '\0', revision = the first
// page's fresh.revision().
struct RangeQuery {
  std::string key;
  std::string range_end;  // empty: `key` alone; "\0": everything from `key` on
  int64_t limit = 1000;   // 1 to 10,000
  uint64_t revision = 0;  // 0: the newest. A past revision has no age: its freshness is unknown
  bool keys_only = false;
  bool count_only = false;

  static RangeQuery Key(std::string_view key);
  static RangeQuery Prefix(std::string_view prefix);  // "" is every key
};

struct RangeResult {
  std::vector<Entry> entries;  // by key, ascending
  bool more = false;           // keys of the range are left beyond `limit`
  int64_t count = 0;           // of all keys in the range
};

struct WriteResult {
  Token token;          // reads with AtLeast(token) see this write
  int64_t deleted = 0;  // Delete only: keys that existed
  int attempts = 1;
  // The answer is that of an earlier try, which had taken effect unheard: the token is its own.
  bool deduplicated = false;
};

}  // namespace holdfast
