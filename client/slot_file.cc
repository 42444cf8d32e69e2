#include "client/slot_file.h"

#include <unistd.h>

#include <cerrno>

#include <fmt/format.h>

#include "base/crc32c.h"
#include "base/strings.h"
#include "client/byte_codec.h"
#include "client/disk_file.h"

namespace holdfast::internal {
namespace {

uint32_t CrcOf(uint32_t length, uint64_t sequence, std::string_view bytes) {
  ByteEncoder head;
  head.U32(length);
  head.U64(sequence);
  return base::ExtendCrc32c(base::Crc32c(head.bytes()), bytes);
}

bool ReadAt(int fd, size_t offset, size_t n, std::string* out) {
  out->resize(n);
  size_t done = 0;
  while (done < n) {
    const ssize_t got = pread(fd, out->data() + done, n - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

std::optional<SlotRecord> ReadSlot(int fd, size_t offset, size_t slot_bytes) {
  std::string head;
  if (!ReadAt(fd, offset, kSlotHeadBytes, &head)) return std::nullopt;
  ByteDecoder decoder(head);
  const uint32_t length = decoder.U32();
  const uint32_t crc = decoder.U32();
  SlotRecord record;
  record.sequence = decoder.U64();
  // A slot never written reads as zeros, and sequences begin with 1.
  if (record.sequence == 0 || length > slot_bytes - kSlotHeadBytes) return std::nullopt;
  if (!ReadAt(fd, offset + kSlotHeadBytes, length, &record.bytes)) return std::nullopt;
  if (CrcOf(length, record.sequence, record.bytes) != crc) return std::nullopt;
  return record;
}

}  // namespace

std::optional<SlotRecord> ReadSlots(int fd, size_t slot_bytes) {
  std::optional<SlotRecord> first = ReadSlot(fd, 0, slot_bytes);
  std::optional<SlotRecord> second = ReadSlot(fd, slot_bytes, slot_bytes);
  if (!first || !second) return first ? first : second;
  return first->sequence > second->sequence ? first : second;
}

absl::Status WriteSlot(int fd, const std::string& path, size_t slot_bytes, uint64_t sequence,
                       std::string_view bytes) {
  if (bytes.size() > slot_bytes - kSlotHeadBytes) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("a record of {} bytes does not fit into {}: at most {}",
                                 bytes.size(), path, slot_bytes - kSlotHeadBytes)));
  }
  const auto length = static_cast<uint32_t>(bytes.size());
  ByteEncoder slot;
  slot.U32(length);
  slot.U32(CrcOf(length, sequence, bytes));
  slot.U64(sequence);
  slot.Raw(bytes);
  std::string_view left = slot.bytes();
  size_t offset = sequence % 2 == 0 ? slot_bytes : 0;
  while (!left.empty()) {
    const ssize_t n = pwrite(fd, left.data(), left.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return DiskError("write", path, errno);
    left.remove_prefix(static_cast<size_t>(n));
    offset += static_cast<size_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace holdfast::internal
