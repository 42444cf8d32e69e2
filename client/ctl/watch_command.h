// holdfastctl watch: the changes of a key or a range, as they happen, and how old what was shown
// can be.
//
// Goes on at the next endpoint where a stream breaks, behind the last revision that was printed, so
// that no change is left out or printed twice. With `age`, each second a mark is sent down the
// watch (Freshness W1, api/etcd/rpc.proto), and its answer printed to io.err; marks that stay
// unanswered for kLostAfter mean that the connection is dead, and another endpoint is asked. Works
// on an etcd too, which answers no marks: the age is then unknown.
#pragma once

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "client/ctl/commands.h"

namespace holdfast::ctl {

struct WatchArgs {
  std::string key = {};
  bool prefix = false;
  std::string range_end = {};
  int64_t revision = 0;  // 0: from now on
  bool prev_kv = false;
  bool age = false;
};

// Freshness W2: so long without an answer, and the stream counts as lost.
inline constexpr absl::Duration kLostAfter = absl::Seconds(10);

// Returns on an error only: the revision was compacted, or no endpoint answers for common.timeout.
ExitCode Watch(const Common& common, const WatchArgs& args, Io io);

}  // namespace holdfast::ctl
