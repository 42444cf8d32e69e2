#include "base/strings.h"

#include <endian.h>

#include <cstring>

#include "base/check.h"

namespace holdfast::base {

void AppendBigEndian64(std::string& out, uint64_t value) {
  const uint64_t be = htobe64(value);
  out.append(reinterpret_cast<const char*>(&be), sizeof(be));
}

void AppendBigEndian32(std::string& out, uint32_t value) {
  const uint32_t be = htobe32(value);
  out.append(reinterpret_cast<const char*>(&be), sizeof(be));
}

uint64_t ReadBigEndian64(std::string_view in) {
  CHECK(in.size() >= sizeof(uint64_t));
  uint64_t be;
  std::memcpy(&be, in.data(), sizeof(be));
  return be64toh(be);
}

uint32_t ReadBigEndian32(std::string_view in) {
  CHECK(in.size() >= sizeof(uint32_t));
  uint32_t be;
  std::memcpy(&be, in.data(), sizeof(be));
  return be32toh(be);
}

std::string Printable(std::string_view bytes, size_t max) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes.substr(0, max)) {
    const auto u = static_cast<unsigned char>(c);
    if (u >= 0x20 && u < 0x7f && u != '\\') {
      out.push_back(c);
    } else {
      out += {'\\', 'x', kHex[u >> 4], kHex[u & 15]};
    }
  }
  if (bytes.size() > max) out += "...";
  return out;
}

}  // namespace holdfast::base
