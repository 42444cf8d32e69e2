#include "client/endpoint.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::internal {
namespace {

absl::Status Bad(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format(
      "endpoint \"{}\": {}; write it as host:port or http://host:port, e.g. 10.0.0.1:2379",
      base::Printable(text), why));
}

bool IsHost(std::string_view host) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_';
  });
}

// Left to gRPC to judge in full; this catches what is plainly not an address.
bool IsBracketedV6(std::string_view host) {
  if (host.size() < 4 || host.front() != '[' || host.back() != ']') return false;
  host = host.substr(1, host.size() - 2);
  return host.find(':') != host.npos && std::all_of(host.begin(), host.end(), [](unsigned char c) {
           return std::isxdigit(c) || c == ':' || c == '.';
         });
}

}  // namespace

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text) {
  std::string_view rest = text;
  if (rest.starts_with("https://")) return Bad(text, "TLS is not supported yet");
  if (rest.starts_with("http://")) rest.remove_prefix(7);
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const size_t colon = rest.rfind(':');
  if (colon == rest.npos) return Bad(text, "the port is missing");
  const std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  if (!IsHost(host) && !IsBracketedV6(host)) return Bad(text, "the host is not a name or address");
  int number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number < 1 || number > 65535) {
    return Bad(text, "the port is not a number from 1 to 65535");
  }
  return Endpoint{std::string(rest), fmt::format("dns:///{}", rest)};
}

}  // namespace holdfast::internal
