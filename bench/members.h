// holdfast-bench members: the cluster grows by two voters and shrinks again, under load.
//
// Each member is added as the Cluster RPCs do it (it joins as a learner and gets its vote by itself
// once it keeps up), and waited for. Then a follower is removed, and last the leader. Clients know
// the members of the moment. For each step: how many tries failed, and the longest time without an
// acknowledged write, and without a linearizable read.
#pragma once

#include <atomic>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"

namespace holdfast::bench {

struct MembersStep {
  struct Kind {
    uint64_t answered = 0;
    uint64_t failed_tries = 0;  // each was tried again, at the next endpoint
    double gap_ms = 0;          // nobody was answered
    double client_ms = 0;       // the longest that one single client waited
  };
  std::string name;
  double seconds = 0;  // until it was done, clients' settling not counted
  Kind writes;
  Kind reads;
};

std::string MembersText(const Options& options, const std::vector<MembersStep>& steps);
nlohmann::json MembersJson(const Options& options, const std::vector<MembersStep>& steps);

// Returns the report; progress goes to stderr.
absl::StatusOr<std::string> Members(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
