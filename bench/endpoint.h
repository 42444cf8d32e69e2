// Server addresses: their form, and what a server says about itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace holdfast::bench {

inline constexpr size_t kMaxEndpoints = 100;

// "host:port" separated by commas; "http://" before and "/" behind are dropped.
// InvalidArgument names the part that is wrong.
absl::StatusOr<std::vector<std::string>> ParseEndpoints(std::string_view list);

struct EndpointStatus {
  std::string version;
  uint64_t member_id = 0;
  uint64_t leader = 0;  // 0: knows none
  int64_t db_size_bytes = 0;
};

// Maintenance.Status over a connection of its own. Unavailable, with the address and what was
// wrong, as soon as the connection is refused, else when `timeout` has passed.
absl::StatusOr<EndpointStatus> GetEndpointStatus(const std::string& endpoint,
                                                 absl::Duration timeout);

// Asks all of them. Fails if one does not answer; with `leader_only`, returns only the leader's
// endpoint, NotFound if none of them is the leader.
absl::StatusOr<std::vector<std::string>> SelectTargets(const std::vector<std::string>& endpoints,
                                                       bool leader_only, absl::Duration timeout);

}  // namespace holdfast::bench
