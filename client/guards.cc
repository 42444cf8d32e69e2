#include "client/guards.h"

#include <cstdint>

#include <fmt/format.h>

#include "client/version_store.h"

namespace holdfast::internal {
namespace {

constexpr char kRelease[] = "look at it, then let it through with Mirror::MarkAccepted";

}  // namespace

absl::Status CheckSize(const Policy& policy, const MirrorSnapshot& after) {
  if (after.bytes() <= policy.max_bytes()) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("{} records of {} bytes are more than Policy::MaxBytes({}) allows", after.size(),
                  after.bytes(), policy.max_bytes()));
}

absl::Status CheckChange(const Policy& policy, const MirrorSnapshot& before,
                         const MirrorSnapshot& after) {
  if (before.size() == 0) return absl::OkStatus();
  if (after.bytes() > Policy::kGrowthGuardFloor &&
      static_cast<double>(after.bytes()) >
          policy.hold_if_grows() * static_cast<double>(before.bytes())) {
    return absl::FailedPreconditionError(fmt::format(
        "the set has grown from {} to {} bytes, more than {} times (Policy::HoldIfGrows): {}",
        before.bytes(), after.bytes(), policy.hold_if_grows(), kRelease));
  }
  if (policy.hold_if_deletes() >= 1) return absl::OkStatus();
  // An auth prefix of a few users must be able to lose its last one at once.
  const bool emptied = after.size() == 0 && policy.rule() == Policy::Rule::kFailStatic;
  if (before.size() < Policy::kDeleteGuardFloor && !emptied) return absl::OkStatus();
  size_t gone = 0;
  VersionStore::Diff(before, after, SIZE_MAX,
                     [&gone](std::string_view, const EntryView* was, const EntryView* is) {
                       if (was != nullptr && is == nullptr) ++gone;
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
