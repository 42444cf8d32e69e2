#include "client/guards.h"

#include <cstdint>

#include <fmt/format.h>

#include "client/version_store.h"

namespace holdfast::internal {
namespace {

constexpr char kRelease[] = "look at it, then let it through with Mirror::MarkAccepted";

size_t BytesWithout(const MirrorSnapshot& set, const std::set<std::string, std::less<>>& ignored) {
  size_t bytes = set.bytes();
  for (const std::string& key : ignored) {
    if (const auto entry = set.Find(key)) bytes -= entry->key.size() + entry->value.size();
  }
  return bytes;
}

}  // namespace

absl::Status CheckSize(const Policy& policy, const MirrorSnapshot& after) {
  if (after.bytes() <= policy.max_bytes()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("{} records of {} bytes are more than Policy::MaxBytes({}) allows", after.size(),
                  after.bytes(), policy.max_bytes()));
}

absl::Status CheckChange(const Policy& policy, const MirrorSnapshot& before,
                         const MirrorSnapshot& after,
                         const std::set<std::string, std::less<>>& ignored) {
  const size_t bytes_before = BytesWithout(before, ignored);
  const size_t bytes_after = BytesWithout(after, ignored);
  if (before.size() == 0 || bytes_before == 0) return absl::OkStatus();
  if (bytes_after > Policy::kGrowthGuardFloor &&
      static_cast<double>(bytes_after) >
          policy.hold_if_grows() * static_cast<double>(bytes_before)) {
    return absl::FailedPreconditionError(fmt::format(
        "the set has grown from {} to {} bytes, more than {} times (Policy::HoldIfGrows): {}",
        bytes_before, bytes_after, policy.hold_if_grows(), kRelease));
  }
  if (policy.hold_if_deletes() >= 1) return absl::OkStatus();
  // An auth prefix of a few users must be able to lose its last one at once.
  const bool emptied = after.size() == 0 && policy.rule() == Policy::Rule::kFailStatic;
  if (before.size() < Policy::kDeleteGuardFloor && !emptied) return absl::OkStatus();
  size_t gone = 0;
  VersionStore::Diff(before, after, SIZE_MAX,
                     [&](std::string_view key, const EntryView* was, const EntryView* is) {
                       if (was != nullptr && is == nullptr && !ignored.contains(key)) ++gone;
                     });
  if (static_cast<double>(gone) > policy.hold_if_deletes() * static_cast<double>(before.size())) {
    return absl::FailedPreconditionError(
        fmt::format("{} of {} keys are gone at once, more than the share of {} that "
                    "Policy::HoldIfDeletes allows: {}",
                    gone, before.size(), policy.hold_if_deletes(), kRelease));
  }
  return absl::OkStatus();
}

}  // namespace holdfast::internal
