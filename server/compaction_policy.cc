#include "server/compaction_policy.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>

#include "base/strings.h"

namespace holdfast::server {
namespace {

using Mode = CompactionPolicy::Mode;

absl::Status Bad(std::string_view retention, std::string_view why) {
  return absl::InvalidArgumentError(
      fmt::format("--auto-compaction-retention={} {}", base::Printable(retention), why));
}

std::optional<int64_t> WholeNumber(std::string_view text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

}  // namespace

absl::StatusOr<CompactionPolicy> ParseCompactionPolicy(std::string_view mode,
                                                       std::string_view retention) {
  CompactionPolicy policy;
  if (!mode.empty() && mode != "periodic" && mode != "revision") {
    return absl::InvalidArgumentError(fmt::format(
        "--auto-compaction-mode={} is unknown: write periodic or revision", base::Printable(mode)));
  }
  if (retention.empty()) {
    if (mode.empty()) return policy;
    return absl::InvalidArgumentError(fmt::format(
        "--auto-compaction-mode={} needs --auto-compaction-retention: how much to keep (0: no "
        "automatic compaction)",
        mode));
  }
  const std::optional<int64_t> number = WholeNumber(retention);
  if (number == 0) {
    policy.mode = Mode::kOff;
    return policy;
  }
  if (mode == "revision") {
    if (!number.has_value()) return Bad(retention, "is no number of revisions");
    policy.mode = Mode::kRevision;
    policy.revisions = *number;
    return policy;
  }
  policy.mode = Mode::kPeriodic;
  if (number.has_value()) {
    policy.period = absl::Hours(*number);
  } else if (!absl::ParseDuration(base::ToAbsl(retention), &policy.period)) {
    return Bad(retention, "is neither a number of hours nor a duration such as 10m or 1h30m");
  }
  if (policy.period < CompactionPolicy::kPeriodMin ||
      policy.period > CompactionPolicy::kPeriodMax) {
    return Bad(retention, "is out of range: write a time from 1s to 366 days, or 0 for none");
  }
  return policy;
}

}  // namespace holdfast::server
