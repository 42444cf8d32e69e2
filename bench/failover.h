// holdfast-bench failover: for how long is no write acknowledged when the leader goes?
//
// A closed-loop load of writes runs all the time. Round by round the leader of that moment is
// killed, paused, asked to stop, or made to hand over; the gap is the longest time without an
// acknowledgement to anybody around that event. Then it is brought back, everything is caught up,
// and the next round begins. Holdfast and etcd get the same clients, timeouts and rounds, one
// cluster after the other.
#pragma once

#include <atomic>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"

namespace holdfast::bench {

struct FailoverRound {
  double gap_ms = 0;     // nobody's write was acknowledged
  double client_ms = 0;  // the longest that one single client waited
  double quiet_ms = 0;   // the longest gap in the undisturbed time before
  double return_ms = 0;  // the longest gap while the member came back
};

struct FailoverSide {
  std::string name;
  std::string version;
  std::vector<FailoverRound> rounds;
  uint64_t writes = 0;
  uint64_t failed_tries = 0;
};

std::string HowName(FailoverHow how);
// Pure: the table and its JSON.
std::string FailoverText(const Options& options, const std::vector<FailoverSide>& sides);
nlohmann::json FailoverJson(const Options& options, const std::vector<FailoverSide>& sides);

// Returns the report; progress goes to stderr.
absl::StatusOr<std::string> Failover(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
