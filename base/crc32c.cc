#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace holdfast::base {

uint32_t Crc32c(std::string_view bytes) { return ExtendCrc32c(0, bytes); }

uint32_t ExtendCrc32c(uint32_t crc, std::string_view bytes) {
  constexpr size_t kStep = size_t{1} << 30;  // ISA-L takes the length as an int
  uint32_t state = ~crc;
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), kStep);
    // ISA-L's buffer parameter lacks a const that its code keeps.
    auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(n), state);
    bytes.remove_prefix(n);
  }
  return ~state;
}

}  // namespace holdfast::base
