// How much a client may send beyond one attempt per call.
//
// A token bucket: every call puts in `ratio` of a token, every second `per_second`, and every
// attempt beyond a call's first takes one out, at the moment it is sent. In an outage the servers
// therefore see at most (1 + ratio) x calls + per_second x time + kInitial attempts, however many
// callers there are and whatever they do.
#pragma once

#include "absl/time/time.h"

namespace holdfast::internal {

// Pure: time comes in. Threads: one.
class RetryBudget {
 public:
  // Enough for a client's very first call to try three endpoints.
  static constexpr double kInitial = 2.0;
  // What can be saved up: for the calls that are in flight when an endpoint dies.
  static constexpr double kSavedMax = 20.0;
  // Time alone saves up less, so that an idle client does not open an outage with a burst.
  static constexpr double kSavedByTimeMax = 2.0;
  // How far Charge() may go below zero.
  static constexpr double kDebtMax = 20.0;

  RetryBudget(double ratio, double per_second, absl::Duration now);

  void OnCall();
  // False if nothing is left; the attempt must then not be sent.
  bool TryTake(absl::Duration now);
  // For an attempt that must go out whatever was spent (the stale rung of a ladder): later retries
  // pay it back.
  void Charge(absl::Duration now);
  // The attempt never left this process.
  void Refund();
  // Until the next token is there by time alone. InfiniteDuration if time earns none.
  absl::Duration UntilNext(absl::Duration now);

 private:
  void Earn(absl::Duration now);

  const double ratio_;
  const double per_second_;
  double tokens_ = kInitial;  // Invariant: -kDebtMax <= tokens_ <= kSavedMax
  absl::Duration earned_until_;
};

}  // namespace holdfast::internal
