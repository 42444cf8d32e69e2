// holdfast-bench catchup: a member that was away comes back while the writers go on.
//
// Phases: all members up (the write rate to compare with), one follower killed and --bytes written
// without it, the member restarted and catching up under the same load, and some time after. It has
// caught up when it has applied what the leader had a moment before.
#pragma once

#include <atomic>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"

namespace holdfast::bench {

struct CatchupPhase {
  std::string name;
  double seconds = 0;
  uint64_t writes = 0;
  uint64_t bytes = 0;
  uint64_t failed_tries = 0;
  double gap_ms = 0;  // the longest time without an acknowledged write
};

// One snapshot as the member's log tells it.
struct ReceivedSnapshot {
  uint64_t index = 0;
  uint64_t bytes = 0;
  double seconds = 0;
};
// Pure. Of the lines that a receiving member writes (server/peer_snapshot_receiver.cc).
std::vector<ReceivedSnapshot> SnapshotsIn(std::string_view log);

struct CatchupResult {
  std::string version;
  std::vector<CatchupPhase> phases;  // before, away, catching up, after
  std::vector<ReceivedSnapshot> snapshots;
  double ratio = 0;  // writes a second: catching up to before
};
std::string CatchupText(const Options& options, const CatchupResult& result);
nlohmann::json CatchupJson(const Options& options, const CatchupResult& result);

// Returns the report; progress goes to stderr.
absl::StatusOr<std::string> Catchup(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
