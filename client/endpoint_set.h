// Which endpoint is tried next.
//
// One endpoint is used until it fails (a warm connection is worth more than balance, and the seeds
// are shuffled per client); nobody is asked who leads, since every member serves everything. Two
// things are remembered apart: whether an endpoint can be reached, and whether it is in touch with
// the quorum. A member that is cut off from its leader is the best source of stale data there is.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "base/rng.h"
#include "client/endpoint.h"
#include "client/outcome.h"
#include "holdfast/options.h"

namespace holdfast::internal {

// Uniform in [0, min(base * 2^n, cap)].
absl::Duration FullJitter(const RetryPolicy& policy, int n, base::Rng& rng);

// Pure: time and randomness come in. Threads: one.
class EndpointSet {
 public:
  // REQUIRES: 0 < count <= kEndpointsMax. `rng` outlives this.
  EndpointSet(size_t count, const RetryPolicy& policy, base::Rng* rng);

  // The best endpoint that is not in `tried`: a healthy one, nearest after
  // the one in use; else one that answered late rather than one that cannot be reached, and among
  // those the one whose back-off ends first. nullopt if all were tried.
  // `needs_quorum`: the request needs a member that is in touch with the leader.
  std::optional<size_t> Pick(bool needs_quorum, const EndpointFlags& tried,
                             absl::Duration now) const;
  // Whether some endpoint not in `tried` is healthy.
  bool HealthyLeft(bool needs_quorum, const EndpointFlags& tried, absl::Duration now) const;

  void Report(size_t endpoint, Outcome outcome, bool needs_quorum, absl::Duration now);

  // Whether a success there would change nothing: it is in use, and no failure of it is remembered.
  bool Settled(size_t endpoint) const;

  size_t current() const { return current_; }
  bool BackingOff(size_t endpoint, bool needs_quorum, absl::Duration now) const {
    return RankOf(states_[endpoint], needs_quorum, now) != Rank::kHealthy;
  }

 private:
  // Back-off of one endpoint for one reason.
  struct Health {
    int failures = 0;  // counts the rounds, not the calls that failed at once
    absl::Duration wait_until = -absl::InfiniteDuration();
    std::optional<absl::Duration> healthy_since;

    // A success would change nothing.
    bool IsClean() const;
  };
  struct State {
    Health reach;
    Health quorum;
    bool timed_out = false;  // the last failure to reach was a silence, not a broken connection
  };
  enum class Rank { kHealthy, kSilent, kUnreachable };

  void Fail(Health& health, absl::Duration now);
  void Succeed(Health& health, absl::Duration now);
  Rank RankOf(const State& state, bool needs_quorum, absl::Duration now) const;
  static absl::Duration WaitUntil(const State& state, bool needs_quorum);

  const RetryPolicy policy_;
  base::Rng* const rng_;
  std::vector<State> states_;
  size_t current_ = 0;  // the endpoint in use
};

}  // namespace holdfast::internal
