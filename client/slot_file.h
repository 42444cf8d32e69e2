// A small record that is replaced often, without fsync: two slots of one file, written in turn, so
// that a write that was cut off leaves the record before it.
//
// slot: u32 length · u32 CRC32C of all else in the slot · u64 sequence · the bytes
//
// Threads: one writer; readers in any process at any time see some whole record, or none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace holdfast::internal {

inline constexpr size_t kSlotHeadBytes = 16;

struct SlotRecord {
  uint64_t sequence = 0;
  std::string bytes;
};

// The newest whole record; nullopt: there is none (or the file cannot be read).
std::optional<SlotRecord> ReadSlots(int fd, size_t slot_bytes);

// InvalidArgument: `bytes` do not fit into a slot. `path` is for texts. A few microseconds.
absl::Status WriteSlot(int fd, const std::string& path, size_t slot_bytes, uint64_t sequence,
                       std::string_view bytes);

}  // namespace holdfast::internal
