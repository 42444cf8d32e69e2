// What holdfastctl asks that the client library does not offer: the state of each single member.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "etcd/rpc.pb.h"
#include "holdfast/freshness.h"

namespace holdfast::ctl {

struct EndpointStatus {
  std::string endpoint;
  absl::StatusOr<etcdserverpb::StatusResponse> status;
  std::optional<Freshness> fresh;  // of a read of this member's own data; nullopt: it failed
};

// Asks all endpoints at once, each for at most `timeout`; in the order of `endpoints`. One that
// fails says so in its status. REQUIRES: endpoints that ParseEndpoint accepts.
std::vector<EndpointStatus> AskStatus(const std::vector<std::string>& endpoints,
                                      absl::Duration timeout);

struct MemberList {
  etcdserverpb::MemberListResponse response;
  bool linearizable = true;  // false: one member's own view, for want of a quorum
};

// From the first endpoint that answers: with a quorum if there is one, else its own view.
absl::StatusOr<MemberList> AskMembers(const std::vector<std::string>& endpoints,
                                      absl::Duration timeout);

}  // namespace holdfast::ctl
