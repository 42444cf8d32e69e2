// One record of the store.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace holdfast {

// Keys and values are bytes: any value, NUL included.
struct Entry {
  std::string key = {};
  std::string value = {};
  uint64_t create_revision = 0;
  uint64_t mod_revision = 0;
  uint64_t version = 0;  // 1 after the key's creation, +1 with every put
  int64_t lease = 0;     // 0: none
};

// A record in somebody else's memory.
struct EntryView {
  std::string_view key = {};
  std::string_view value = {};
  uint64_t create_revision = 0;
  uint64_t mod_revision = 0;
  uint64_t version = 0;
  int64_t lease = 0;

  Entry ToEntry() const {
    return {std::string(key), std::string(value), create_revision, mod_revision, version, lease};
  }
};

}  // namespace holdfast
