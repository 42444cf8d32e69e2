// Who a member is: ids computed from the initial cluster exactly as etcd computes them, so that
// every member finds the same ones without talking to the others.
//
//   member id  = first 8 bytes, big endian, of SHA-1(peer URLs sorted and joined + token)
//   cluster id = first 8 bytes, big endian, of SHA-1(member ids ascending, 8 bytes big endian each)
//
// SHA-1 is a name giver here, not a protection. Only the first members get their ids so: one that
// is added later has an id drawn at random, and learns it from the others (server/join.h). From its
// second start on, a member is who its data directory says, whatever the flags. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "replication/membership.h"
#include "server/config.h"
#include "server/data_dir.h"

namespace holdfast::server {

struct Identity {
  uint64_t cluster_id = 0;
  NodeId self;
  // Every member of the initial cluster, all voters; of one that joined: the members it found.
  // Nobody: not known (a directory of release 0.1 whose flags have changed since).
  raft::Membership bootstrap;
};

NodeId MemberId(std::vector<std::string> peer_urls, std::string_view token);
uint64_t ClusterId(std::vector<NodeId> members);

// REQUIRES: config.Validate().ok(). InvalidArgument: two members got one id, or an id is 0.
absl::StatusOr<Identity> IdentityOf(const Config& config);

// Of a member that has a data directory. FailedPrecondition: the flags are another first member's.
// DataLoss: what the directory says of the first membership is damaged.
absl::StatusOr<Identity> IdentityOf(const Config& config, const DataDir::Owner& found);

}  // namespace holdfast::server
