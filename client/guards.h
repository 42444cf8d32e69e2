// What is refused whatever a validator says: a set that has lost too many keys at once, or has
// grown too much, or is larger than the process allows. Each names what lets it through.
#pragma once

#include <functional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "holdfast/policy.h"
#include "holdfast/snapshot.h"

namespace holdfast::internal {

// Always: too large. REQUIRES: both of one VersionStore's chain, `before` the older one.
absl::Status CheckSize(const Policy& policy, const MirrorSnapshot& after);
// Until somebody has looked (Mirror::MarkAccepted). What happens to the keys in `ignored` counts
// for nothing: an operator's own changes.
absl::Status CheckChange(const Policy& policy, const MirrorSnapshot& before,
                         const MirrorSnapshot& after,
                         const std::set<std::string, std::less<>>& ignored);

}  // namespace holdfast::internal
