// What a client tells about itself while it runs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "holdfast/freshness.h"

namespace holdfast {

// How a mirrored prefix stands to the store.
enum class Link {
  kConnecting,  // no data of this run yet, and no connection
  kLive,        // bookmarks come
  kJeopardy,    // none for 3 s
  kStale,       // none for 10 s, or the connection broke: served as the policy says
  kExpired,     // older than the policy allows: reads are refused, or defaults are served
  kRecovering,  // connected again, and not yet up to date
};
std::string_view ToString(Link link);

struct StateChange {
  std::string prefix;
  Link from = Link::kConnecting;
  Link to = Link::kConnecting;
  absl::Duration max_age = absl::InfiniteDuration();
  Proof proof = Proof::kUnknown;
  absl::Status why;
};

// A set of records that was not taken; the one before it is still served.
struct Rejection {
  std::string prefix;
  uint64_t revision = 0;
  absl::Status why;
};

// Threads: called on the thread that feeds the mirrors, one call at a time, under none of its
// locks; must not block, for events wait meanwhile (reads do not). OnDiskProblem may also come
// inside Client::Open, on its caller's thread.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnState(const StateChange&) {}
  virtual void OnRejected(const Rejection&) {}
  virtual void OnLastGoodWritten(std::string_view /*prefix*/, uint64_t /*revision*/) {}
  // The copy on disk could not be written or read; the client goes on without.
  virtual void OnDiskProblem(std::string_view /*prefix*/, const absl::Status&) {}
};

}  // namespace holdfast
