// The addresses of a member: http://HOST:PORT, and lists of them.
//
// Pure functions and a value type. Errors are InvalidArgument with a text that says what to write.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace holdfast::server {

inline constexpr size_t kUrlsPerListMax = 16;
inline constexpr size_t kUrlBytesMax = 512;

struct Url {
  std::string host;   // as written; an IPv6 address without its brackets
  uint16_t port = 0;  // 0: the system chooses one (listening only)

  // As etcd writes it: member ids are computed from this text.
  std::string ToString() const;
  // host:port, for sockets.
  std::string Address() const;
  // 0.0.0.0 or [::]: good to listen on, useless to tell others.
  bool IsWildcard() const;
  friend bool operator==(const Url&, const Url&) = default;
};

absl::StatusOr<Url> ParseUrl(std::string_view text);
// Comma-separated, at least one, none twice.
absl::StatusOr<std::vector<Url>> ParseUrlList(std::string_view text);

std::vector<std::string> ToStrings(const std::vector<Url>& urls);

}  // namespace holdfast::server
