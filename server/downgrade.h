// etcd's rules for Maintenance.Downgrade, as far as they concern a version's number.
//
// Holdfast has nothing to downgrade: a cluster that "downgrades" remembers the wish, shows it in
// Status, and changes nothing (docs/maintenance.md). So only the wish itself is validated: a
// version in etcd's form, exactly one minor version below the cluster's, and none under way.
// Pure.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace holdfast::server {

// "3.4", "3.4.0", "3.4.7-rc.1" -> "3.4.0", as etcd cuts it down to a cluster version.
// ErrWrongDowngradeVersionFormat.
absl::StatusOr<std::string> ParseClusterVersion(std::string_view text);

// `target` as asked for; `cluster` is MAJOR.MINOR. Returns the target as ParseClusterVersion does.
// ErrWrongDowngradeVersionFormat, ErrInvalidDowngradeTargetVersion.
absl::StatusOr<std::string> CheckDowngradeTarget(std::string_view target, std::string_view cluster);

}  // namespace holdfast::server
