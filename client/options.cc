#include "holdfast/options.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "absl/strings/numbers.h"
#include "base/strings.h"
#include "client/endpoint.h"

namespace holdfast {
namespace {

constexpr size_t kPrefixesMax = 1000;
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

absl::Status HedgePolicy::Validate() const {
  if (!(after_quantile > 0 && after_quantile < 1)) {
    return Invalid("hedge.after_quantile", "must be between 0 and 1");
  }
  if (floor <= absl::ZeroDuration()) return Invalid("hedge.floor", "must be positive");
  if (!(budget_ratio >= 0 && budget_ratio <= 1)) {
    return Invalid("hedge.budget_ratio", "must be between 0 and 1");
  }
  return absl::OkStatus();
}

namespace {

absl::Status CheckPrefixes(const std::vector<PrefixOptions>& prefixes) {
  if (prefixes.size() > kPrefixesMax) {
    return Invalid("prefixes", fmt::format("has more than {} entries", kPrefixesMax));
  }
  std::vector<std::string_view> sorted;
  for (const PrefixOptions& one : prefixes) {
    if (one.prefix.empty()) {
      return Invalid("prefixes", "holds an empty prefix: name the part that this service needs");
    }
    if (absl::Status status = one.policy.Check(); !status.ok()) {
      return Invalid("prefixes",
                     fmt::format("\"{}\": {}", base::Printable(one.prefix), base::Message(status)));
    }
    sorted.push_back(one.prefix);
  }
  // A prefix stands right before those that it covers.
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].starts_with(sorted[i - 1])) {
      return Invalid("prefixes",
                     fmt::format("\"{}\" lies in \"{}\": a key has one policy",
                                 base::Printable(sorted[i]), base::Printable(sorted[i - 1])));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ClientOptions::Validate() const {
  if (endpoints.empty()) return Invalid("endpoints", "is empty: name at least one host:port");
  if (endpoints.size() > internal::kEndpointsMax) {
    return Invalid("endpoints", fmt::format("has more than {} entries", internal::kEndpointsMax));
  }
  for (const std::string& text : endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) return endpoint.status();
  }
  if (!(max_clock_slow >= 0 && max_clock_slow < 1)) {
    return Invalid("max_clock_slow", "must be at least 0 and below 1");
  }
  if (absl::Status status = hedge.Validate(); !status.ok()) return status;
  if (absl::Status status = CheckPrefixes(prefixes); !status.ok()) return status;
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

ReadOptions ReadOptions::Local() {
  ReadOptions options;
  options.level_ = Level::kLocal;
  return options;
}

ReadOptions& ReadOptions::NoHedge() {
  hedge_ = false;
  return *this;
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
