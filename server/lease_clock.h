// The time that leases live by: it passes only while the leader can be reached.
//
// TTL is a lower bound, so this clock never runs ahead of true time: it takes the slowest of the
// kernel's clocks, less what a clock may gain. And it stands still while the leader itself stalls
// (SIGSTOP, a paused machine, a full disk, no quorum), for then no client could have renewed: each
// step is worth kStepMax at most, and nothing unless the caller says that the leader is alive.
//
// Threads: one.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "base/clock.h"

namespace holdfast::server {

class LeaseClock {
 public:
  // Two ticks of the lessor: a thread that is scheduled late now and then loses nothing.
  static constexpr absl::Duration kStepMax = absl::Milliseconds(200);

  // `alive`: the leader was confirmed to lead, lately, as of `now`.
  void Advance(const base::ClockSample& now, bool alive);

  // Rounded down: what certainly has passed.
  int64_t now_ms() const;
  // Rounded up: no later Advance makes the clock show more at the instant `now` than this. A time
  // that is to last for n ms from `now` on ends at UpperMs(now) + n.
  int64_t UpperMs(const base::ClockSample& now) const;

 private:
  // A lower bound of the time since the last step (base::Elapsed is the upper one).
  int64_t StepTo(const base::ClockSample& now) const;

  int64_t now_ns_ = 0;
  std::optional<base::ClockSample> last_;
};

}  // namespace holdfast::server
