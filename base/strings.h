// Bridges and byte codecs that every folder needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace holdfast::base {

// Debian 12's absl::string_view is a class of its own and neither converts to the other.
inline absl::string_view ToAbsl(std::string_view s) { return {s.data(), s.size()}; }
inline std::string_view ToStd(absl::string_view s) { return {s.data(), s.size()}; }
inline std::string_view Message(const absl::Status& s) { return ToStd(s.message()); }

// Big endian, so that byte order is number order.
void AppendBigEndian64(std::string& out, uint64_t value);
void AppendBigEndian32(std::string& out, uint32_t value);
// REQUIRES: at least 8 (4) bytes.
uint64_t ReadBigEndian64(std::string_view in);
uint32_t ReadBigEndian32(std::string_view in);

// For error texts: printable ASCII as is, other bytes as \xNN, cut at `max` bytes.
std::string Printable(std::string_view bytes, size_t max = 64);

}  // namespace holdfast::base
