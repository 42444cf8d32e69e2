#include "server/downgrade.h"

#include <charconv>
#include <cstdint>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "server/etcd_errors.h"

namespace holdfast::server {
namespace {

struct MajorMinor {
  uint64_t major = 0;
  uint64_t minor = 0;
};

// A number without sign or leading zero, then the end of `*text` or `separator`, which is taken.
std::optional<uint64_t> TakeNumber(std::string_view* text, char separator, bool* separated) {
  uint64_t number = 0;
  const char* const begin = text->data();
  const auto [end, error] = std::from_chars(begin, begin + text->size(), number);
  const auto length = static_cast<size_t>(end - begin);
  if (error != std::errc() || (length > 1 && text->front() == '0')) return std::nullopt;
  text->remove_prefix(length);
  *separated = text->starts_with(separator);
  if (*separated) text->remove_prefix(1);
  return number;
}

// Semantic versions, whose patch level may be missing (etcd adds ".0" then).
std::optional<MajorMinor> Parse(std::string_view text) {
  MajorMinor version;
  bool more = false;
  const auto major = TakeNumber(&text, '.', &more);
  if (!major.has_value() || !more) return std::nullopt;
  version.major = *major;
  const auto minor = TakeNumber(&text, '.', &more);
  if (!minor.has_value()) return std::nullopt;
  version.minor = *minor;
  if (!more) return text.empty() ? std::optional(version) : std::nullopt;
  if (!TakeNumber(&text, '\0', &more).has_value()) return std::nullopt;
  const bool tail = text.empty() || text.front() == '-' || text.front() == '+';
  return tail ? std::optional(version) : std::nullopt;
}

std::string ToText(const MajorMinor& version) {
  return fmt::format("{}.{}.0", version.major, version.minor);
}

}  // namespace

absl::StatusOr<std::string> ParseClusterVersion(std::string_view text) {
  const std::optional<MajorMinor> version = Parse(text);
  if (!version.has_value()) return ErrWrongDowngradeVersionFormat();
  return ToText(*version);
}

absl::StatusOr<std::string> CheckDowngradeTarget(std::string_view target,
                                                 std::string_view cluster) {
  absl::StatusOr<std::string> wanted = ParseClusterVersion(target);
  if (!wanted.ok()) return wanted.status();
  const std::optional<MajorMinor> ours = Parse(cluster);
  if (!ours.has_value() || ours->minor == 0 ||
      *wanted != ToText({.major = ours->major, .minor = ours->minor - 1})) {
    return ErrInvalidDowngradeTargetVersion();
  }
  return wanted;
}

}  // namespace holdfast::server
