// Who a member is: ids computed from the initial cluster exactly as etcd computes them, so that
// every member finds the same ones without talking to the others.
//
//   member id  = first 8 bytes, big endian, of SHA-1(peer URLs sorted and joined + token)
//   cluster id = first 8 bytes, big endian, of SHA-1(member ids ascending, 8 bytes big endian each)
//
// SHA-1 is a name giver here, not a protection. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "replication/membership.h"
#include "server/config.h"

namespace holdfast::server {

struct Identity {
  uint64_t cluster_id = 0;
  NodeId self;
  raft::Membership bootstrap;  // every member of the initial cluster, all voters
};

NodeId MemberId(std::vector<std::string> peer_urls, std::string_view token);
uint64_t ClusterId(std::vector<NodeId> members);

// REQUIRES: config.Validate().ok(). InvalidArgument: two members got one id, or an id is 0.
absl::StatusOr<Identity> IdentityOf(const Config& config);

}  // namespace holdfast::server
