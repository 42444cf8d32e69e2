// While the store has no quorum, a read that accepts a stale answer should not wait for the fresh
// one again and again, and should not cost two requests. The gate remembers: it lets about one read
// a second try the fresh rung, and sends the others straight to the stale one.
#pragma once

#include "absl/time/time.h"
#include "base/rng.h"
#include "holdfast/options.h"

namespace holdfast::internal {

// Only reads with OrStale() ask it: a read that wants nothing but fresh data always tries.
// Pure: time and randomness come in. Threads: one.
class FreshGate {
 public:
  // The longest wait between two probes: what it takes to notice that the quorum is back.
  static constexpr absl::Duration kProbeEveryMax = absl::Seconds(2);

  // `rng` outlives this.
  FreshGate(const RetryPolicy& policy, base::Rng* rng);

  enum class Pass { kNo, kYes, kProbe };
  // kProbe: the only one until OnFresh, OnNotFresh or OnProbeOver is called for it.
  Pass Enter(absl::Duration now);

  // A linearizable request succeeded / a ladder's first rung failed for want of a quorum.
  void OnFresh();
  void OnNotFresh(absl::Duration now);
  // The probe ended without telling anything.
  void OnProbeOver() { probing_ = false; }

 private:
  RetryPolicy policy_;
  base::Rng* const rng_;
  bool closed_ = false;
  bool probing_ = false;
  int failures_ = 0;
  absl::Duration next_probe_;
};

}  // namespace holdfast::internal
