#include "holdfast/options.h"

#include <cmath>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "base/strings.h"
#include "client/endpoint.h"

namespace holdfast {
namespace {

constexpr size_t kEndpointsMax = 32;
constexpr std::string_view kTokenPrefix = "hf1.";

absl::Status Invalid(std::string_view field, std::string_view why) {
  return absl::InvalidArgumentError(fmt::format("holdfast::ClientOptions: {} {}", field, why));
}

}  // namespace

absl::Status RetryPolicy::Validate() const {
  if (max_attempts < 1) return Invalid("retry.max_attempts", "must be at least 1");
  if (base <= absl::ZeroDuration()) return Invalid("retry.base", "must be positive");
  if (cap < base) return Invalid("retry.cap", "must not be below retry.base");
  if (try_timeout <= absl::ZeroDuration()) return Invalid("retry.try_timeout", "must be positive");
  if (quorum_patience < absl::ZeroDuration()) {
    return Invalid("retry.quorum_patience", "must not be negative");
  }
  if (healthy_after < absl::ZeroDuration()) {
    return Invalid("retry.healthy_after", "must not be negative");
  }
  if (!(budget_ratio >= 0 && budget_ratio <= 1)) {
    return Invalid("retry.budget_ratio", "must be between 0 and 1");
  }
  if (!(budget_per_second >= 0) || std::isinf(budget_per_second)) {
    return Invalid("retry.budget_per_second", "must be a number from 0 up");
  }
  return absl::OkStatus();
}

absl::Status ClientOptions::Validate() const {
  if (endpoints.empty()) return Invalid("endpoints", "is empty: name at least one host:port");
  if (endpoints.size() > kEndpointsMax) {
    return Invalid("endpoints", fmt::format("has more than {} entries", kEndpointsMax));
  }
  for (const std::string& text : endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) return endpoint.status();
  }
  if (!(max_clock_slow >= 0 && max_clock_slow < 1)) {
    return Invalid("max_clock_slow", "must be at least 0 and below 1");
  }
  return retry.Validate();
}

std::string Token::Serialize() const {
  std::string text = fmt::format("{}{:x}.{}", kTokenPrefix, cluster_id, revision);
  if (incarnation != 0) text += fmt::format(".{:x}", incarnation);
  return text;
}

absl::StatusOr<Token> Token::Parse(std::string_view text) {
  const absl::Status bad = absl::InvalidArgumentError(
      fmt::format("\"{}\" is not a token made by Token::Serialize()", base::Printable(text)));
  if (!text.starts_with(kTokenPrefix)) return bad;
  std::string_view rest = text.substr(kTokenPrefix.size());
  const size_t dot = rest.find('.');
  if (dot == rest.npos) return bad;
  Token token;
  if (const size_t second = rest.find('.', dot + 1); second != rest.npos) {
    if (!absl::SimpleHexAtoi(base::ToAbsl(rest.substr(second + 1)), &token.incarnation)) return bad;
    rest = rest.substr(0, second);
  }
  if (!absl::SimpleHexAtoi(base::ToAbsl(rest.substr(0, dot)), &token.cluster_id)) return bad;
  if (!absl::SimpleAtoi(base::ToAbsl(rest.substr(dot + 1)), &token.revision)) return bad;
  return token;
}

ReadOptions ReadOptions::Bounded(absl::Duration max_age) {
  ReadOptions options;
  options.level_ = Level::kBounded;
  options.max_age_ = max_age;
  return options;
}

ReadOptions ReadOptions::AtLeast(Token token) {
  ReadOptions options;
  options.level_ = Level::kAtLeast;
  options.token_ = token;
  return options;
}

ReadOptions& ReadOptions::OrStale(absl::Duration max_age) {
  or_stale_ = max_age;
  return *this;
}

ReadOptions& ReadOptions::Deadline(absl::Duration deadline) {
  deadline_ = deadline;
  return *this;
}

ReadOptions& ReadOptions::MaxEntries(int64_t entries) {
  max_entries_ = entries;
  return *this;
}

}  // namespace holdfast
