// CRC32C (Castagnoli) over bytes, by Intel's ISA-L (hardware-accelerated, with a portable path).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace holdfast::base {

// The standard CRC32C: Crc32c("123456789") == 0xE3069283.
uint32_t Crc32c(std::string_view bytes);
// The CRC of the concatenation, given the CRC of the first part.
uint32_t ExtendCrc32c(uint32_t crc, std::string_view bytes);

}  // namespace holdfast::base
