// Everything that the calls of one client share when they decide what to send where: the endpoints'
// health, the retry budget, the gate of the ladders.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/rng.h"
#include "client/endpoint_set.h"
#include "client/fresh_gate.h"
#include "client/hedge.h"
#include "client/outcome.h"
#include "client/retry_budget.h"
#include "holdfast/options.h"

namespace holdfast::internal {

// Threads: all methods from any thread; one lock, held for arithmetic only.
class Router {
 public:
  Router(size_t endpoint_count, const RetryPolicy& policy, const HedgePolicy& hedge,
         std::shared_ptr<const base::Clock> clock, uint64_t seed);

  // Every call, once, before its first attempt.
  void OnCall();

  enum class Pay {
    kFree,   // the call's first attempt that leaves this process
    kToken,  // a retry
    kDebt,   // a retry that must not be refused
  };
  struct Choice {
    // kPushedBack: every endpoint has asked to be left alone.
    enum class Kind { kTry, kAllTried, kNoBudget, kPushedBack } kind = Kind::kAllTried;
    size_t endpoint = 0;         // of kTry
    bool healthy_left = false;   // of kNoBudget: a healthy endpoint was left untried
    absl::Duration retry_after;  // of kNoBudget and kPushedBack
  };
  // `now`: on the boot clock of this client's clock.
  Choice Choose(bool needs_quorum, const EndpointFlags& tried, Pay pay, absl::Duration now);
  void Refund();
  // The endpoint asks to be left alone: nothing is tried again there before that, by any call. What
  // was never sent to anybody may still go there if there is no other.
  void OnPushBack(size_t endpoint, absl::Duration for_now);
  // A read begins that may be hedged: after how long; nullopt: not this one.
  std::optional<absl::Duration> BeginHedgeable();
  // Where a hedge goes, paid for; nullopt: nowhere. `tried`: where the read was sent before.
  std::optional<size_t> ChooseHedge(bool needs_quorum, const EndpointFlags& tried);
  void OnReadTime(absl::Duration time);
  void Report(size_t endpoint, Outcome outcome, bool needs_quorum);
  absl::Duration Jitter(int n);
  // What is thought of an endpoint now, for people.
  struct EndpointView {
    bool in_use = false;
    bool reachable = true;
    bool quorum_suspect = false;
    absl::Duration alone_for = absl::ZeroDuration();
  };
  EndpointView View(size_t endpoint);
  // Whether requests that need a quorum have only failed for longer than the policy's patience.
  bool QuorumGivenUp();

  FreshGate::Pass EnterFreshGate();
  void OnFresh();
  void OnNotFresh();
  void OnProbeOver();

 private:
  // `tried`, and those that ask to be left alone.
  EndpointFlags LeavingAlone(const EndpointFlags& tried, absl::Duration now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration Now() const { return absl::Nanoseconds(clock_->Sample().boot_ns); }

  const RetryPolicy policy_;
  const std::shared_ptr<const base::Clock> clock_;
  absl::Mutex mutex_;
  base::Rng rng_ ABSL_GUARDED_BY(mutex_);
  EndpointSet endpoints_ ABSL_GUARDED_BY(mutex_);
  RetryBudget budget_ ABSL_GUARDED_BY(mutex_);
  FreshGate gate_ ABSL_GUARDED_BY(mutex_);
  Hedger hedger_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Duration> alone_until_ ABSL_GUARDED_BY(mutex_);  // as each asked
  std::optional<absl::Duration> quorum_failing_since_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::internal
