#include "server/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace holdfast::server {
namespace {

constexpr std::string_view kScheme = "http://";
constexpr std::string_view kTlsScheme = "https://";

absl::Status Bad(std::string_view text, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("'{}' {}", text.substr(0, kUrlBytesMax), why));
}

bool IsHostCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_';
}

bool IsIpv6Character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':' ||
         c == '.' || c == '%';
}

absl::Status CheckScheme(std::string_view text) {
  if (text.starts_with(kScheme)) return absl::OkStatus();
  if (text.starts_with(kTlsScheme)) {
    return Bad(text,
               "asks for TLS, which arrives with a later release: write http:// and keep the port "
               "inside a trusted network until then");
  }
  if (const size_t end = text.find("://"); end != std::string_view::npos) {
    return Bad(text,
               fmt::format("has the scheme '{}': only http:// is supported", text.substr(0, end)));
  }
  return Bad(text, "is not a URL: write http://HOST:PORT, for example http://10.0.0.1:2379");
}

// What stands before the last colon, brackets of an IPv6 address removed; empty if it is no host.
std::string_view HostOf(std::string_view authority, size_t colon) {
  std::string_view host = authority.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']') || host.size() < 4) return {};
    host = host.substr(1, host.size() - 2);
    return std::ranges::all_of(host, IsIpv6Character) ? host : std::string_view();
  }
  return std::ranges::all_of(host, IsHostCharacter) ? host : std::string_view();
}

}  // namespace

std::string Url::Address() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

std::string Url::ToString() const { return fmt::format("{}{}", kScheme, Address()); }

bool Url::IsWildcard() const {
  return host == "0.0.0.0" ||
         (host.find(':') != std::string::npos &&
          std::ranges::all_of(host, [](char c) { return c == ':' || c == '0'; }));
}

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  if (text.size() > kUrlBytesMax) {
    return Bad(text, fmt::format("is longer than {} bytes", kUrlBytesMax));
  }
  if (absl::Status scheme = CheckScheme(text); !scheme.ok()) return scheme;
  const std::string_view authority = text.substr(kScheme.size());
  if (authority.find_first_of("/?#@") != std::string_view::npos) {
    return Bad(text, "has more than a host and a port: write http://HOST:PORT and nothing behind");
  }
  const size_t colon = authority.rfind(':');
  if (colon == std::string_view::npos || authority.ends_with(']')) {
    return Bad(text, "has no port: write http://HOST:PORT, for example http://10.0.0.1:2379");
  }
  Url url;
  url.host = HostOf(authority, colon);
  if (url.host.empty()) {
    return Bad(text,
               "has no valid host: write a name, an IPv4 address, or an IPv6 address in "
               "brackets, as in http://[::1]:2379");
  }
  const std::string_view port = authority.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
  if (error != std::errc() || end != port.data() + port.size()) {
    return Bad(text, fmt::format("has the port '{}': write a number from 1 to 65535", port));
  }
  return url;
}

absl::StatusOr<std::vector<Url>> ParseUrlList(std::string_view text) {
  std::vector<Url> urls;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    absl::StatusOr<Url> url = ParseUrl(text.substr(begin, end - begin));
    if (!url.ok()) return url.status();
    // Port 0 means a port of its own each time.
    if (url->port != 0 && std::ranges::find(urls, *url) != urls.end()) {
      return Bad(url->ToString(), "stands twice in the list");
    }
    urls.push_back(*std::move(url));
    begin = end + 1;
  }
  if (urls.size() > kUrlsPerListMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} URLs in one list: at most {} are allowed", urls.size(), kUrlsPerListMax));
  }
  return urls;
}

std::vector<std::string> ToStrings(const std::vector<Url>& urls) {
  std::vector<std::string> texts;
  texts.reserve(urls.size());
  for (const Url& url : urls) texts.push_back(url.ToString());
  return texts;
}

}  // namespace holdfast::server
