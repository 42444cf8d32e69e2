#include "server/http_message.h"

#include <fmt/format.h>
#include <http_parser.h>

#include <algorithm>
#include <cctype>
#include <ctime>
#include <optional>

namespace holdfast::server {
namespace {

std::optional<int> HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

// A '%' that no two hex digits follow stands for itself.
std::string Decode(std::string_view text, bool plus_is_space) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      const std::optional<int> high = HexDigit(text[i + 1]);
      const std::optional<int> low = HexDigit(text[i + 2]);
      if (high.has_value() && low.has_value()) {
        out += static_cast<char>(*high * 16 + *low);
        i += 2;
        continue;
      }
    }
    out += text[i] == '+' && plus_is_space ? ' ' : text[i];
  }
  return out;
}

std::string HttpDate() {
  char text[64];
  const time_t now = time(nullptr);
  tm parts{};
  gmtime_r(&now, &parts);
  const size_t n = strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return std::string(text, n);
}

template <class Pairs, class Equal>
std::string_view FindFirst(const Pairs& pairs, std::string_view name, const Equal& equal) {
  for (const auto& [key, value] : pairs) {
    if (equal(key, name)) return value;
  }
  return {};
}

}  // namespace

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(
      a, b, [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

std::string_view HttpRequest::Header(std::string_view name) const {
  return FindFirst(headers, name, EqualsIgnoringCase);
}

std::string_view HttpRequest::Query(std::string_view name) const {
  return FindFirst(query, name, std::equal_to<std::string_view>());
}

bool HttpRequest::HasQuery(std::string_view name) const {
  return std::ranges::any_of(query, [name](const auto& pair) { return pair.first == name; });
}

HttpResponse PlainError(int status, std::string_view text) {
  return {.status = status,
          .body = fmt::format("{}\n", text),
          .headers = {{"X-Content-Type-Options", "nosniff"}}};
}

bool ParseTarget(std::string_view target, HttpRequest* request) {
  // A proxy's form, http://host/path, means the same here.
  if (const size_t scheme = target.find("://");
      !target.starts_with('/') && scheme != std::string_view::npos) {
    const size_t slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  if (!target.starts_with('/')) return false;
  target = target.substr(0, target.find('#'));
  const size_t mark = target.find('?');
  request->path = Decode(target.substr(0, mark), false);
  if (mark == std::string_view::npos) return true;
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const size_t end = rest.find('&');
    const std::string_view item = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end + 1);
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    request->query.emplace_back(
        Decode(item.substr(0, equals), true),
        equals == std::string_view::npos ? "" : Decode(item.substr(equals + 1), true));
  }
  return true;
}

std::string_view ReasonPhrase(int status) {
  switch (status) {
#define HOLDFAST_REASON(number, name, text) \
  case number:                              \
    return #text;
    HTTP_STATUS_MAP(HOLDFAST_REASON)
#undef HOLDFAST_REASON
  }
  return "Unknown";
}

std::string EncodeHead(const HttpResponse& response, int64_t length, bool chunked,
                       bool keep_alive) {
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\nContent-Type: {}\r\nDate: {}\r\n", response.status,
                  ReasonPhrase(response.status), response.content_type, HttpDate());
  if (length >= 0) head += fmt::format("Content-Length: {}\r\n", length);
  if (chunked) head += "Transfer-Encoding: chunked\r\n";
  if (!keep_alive) head += "Connection: close\r\n";
  for (const auto& [name, value] : response.headers) {
    head += fmt::format("{}: {}\r\n", name, value);
  }
  return head += "\r\n";
}

}  // namespace holdfast::server
