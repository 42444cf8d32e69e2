// What holdfastctl asks of the members about the membership itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "etcd/rpc.pb.h"

namespace holdfast::ctl {

// One change, or a hand-over of leadership. Which fields count depends on `kind`.
struct MemberRequest {
  enum class Kind { kAdd, kRemove, kPromote, kUpdate, kReplace, kDemote };
  Kind kind = Kind::kAdd;
  uint64_t id = 0;
  std::vector<std::string> peer_urls;
  bool learner = false;
};

struct MemberAnswer {
  etcdserverpb::ResponseHeader header;
  etcdserverpb::Member member;  // the new one, if any
  std::vector<etcdserverpb::Member> members;
};

// Asks the first endpoint to which a connection can be made, and nobody else: a change that was
// sent is never sent twice. Unavailable: nobody was reachable, or the server says that nothing was
// changed. Aborted: the outcome is unknown. Otherwise what the server said.
absl::StatusOr<MemberAnswer> ChangeMembers(const std::vector<std::string>& endpoints,
                                           absl::Duration timeout, const MemberRequest& request);

// By id: "voter", "learner", "joining", "joining for ID". Empty: nobody could tell, as on an etcd.
std::map<uint64_t, std::string> AskRoles(const std::vector<std::string>& endpoints,
                                         absl::Duration timeout);

// Finds the leader and asks it to hand over; returns who led. NotFound: no endpoint knows a leader,
// or it cannot be reached under any address known.
absl::StatusOr<uint64_t> MoveLeader(const std::vector<std::string>& endpoints,
                                    absl::Duration timeout, uint64_t to);

}  // namespace holdfast::ctl
