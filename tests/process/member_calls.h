// The Cluster RPCs as the process tests need them, over a connection of their own per call.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/local_cluster.h"

namespace holdfast {

struct ListedMember {
  uint64_t id = 0;
  std::string name;  // empty: has not started yet
  std::vector<std::string> peer_urls;
  bool learner = false;
};

// Errors of all: the server's code and text.
absl::StatusOr<uint64_t> AddMember(const std::string& endpoint, const std::string& peer_url,
                                   bool learner = false);
absl::Status RemoveMember(const std::string& endpoint, uint64_t id);
// Returns the id of the new member.
absl::StatusOr<uint64_t> ReplaceMember(const std::string& endpoint, uint64_t id);
absl::StatusOr<std::vector<ListedMember>> ListMembers(const std::string& endpoint);
absl::Status MoveLeader(const std::string& endpoint, uint64_t to);
absl::StatusOr<uint64_t> IdOf(const std::string& endpoint);

// Asks again and again until the list of the endpoint is as wanted; the last one if it never is.
std::vector<ListedMember> AwaitMembers(
    const std::string& endpoint,
    const std::function<bool(const std::vector<ListedMember>&)>& wanted);

const ListedMember* FindMember(const std::vector<ListedMember>& members, uint64_t id);

}  // namespace holdfast
