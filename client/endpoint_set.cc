#include "client/endpoint_set.h"

#include <algorithm>
#include <tuple>

#include "base/check.h"

namespace holdfast::internal {

absl::Duration FullJitter(const RetryPolicy& policy, int n, base::Rng& rng) {
  constexpr int kDoublingsMax = 30;
  const absl::Duration most =
      std::min(policy.base * (int64_t{1} << std::clamp(n, 0, kDoublingsMax)), policy.cap);
  const int64_t most_us = std::max<int64_t>(1, absl::ToInt64Microseconds(most));
  return absl::Microseconds(static_cast<int64_t>(rng.Below(static_cast<uint64_t>(most_us) + 1)));
}

EndpointSet::EndpointSet(size_t count, const RetryPolicy& policy, base::Rng* rng)
    : policy_(policy), rng_(rng), states_(count) {
  CHECK(count > 0 && count <= kEndpointsMax);
}

EndpointSet::Rank EndpointSet::RankOf(const State& state, bool needs_quorum,
                                      absl::Duration now) const {
  if (now < state.reach.wait_until) return state.timed_out ? Rank::kSilent : Rank::kUnreachable;
  if (needs_quorum && now < state.quorum.wait_until) return Rank::kSilent;
  return Rank::kHealthy;
}

absl::Duration EndpointSet::WaitUntil(const State& state, bool needs_quorum) {
  return needs_quorum ? std::max(state.reach.wait_until, state.quorum.wait_until)
                      : state.reach.wait_until;
}

std::optional<size_t> EndpointSet::Pick(bool needs_quorum, const EndpointFlags& tried,
                                        absl::Duration now) const {
  if (!tried[current_] && RankOf(states_[current_], needs_quorum, now) == Rank::kHealthy) {
    return current_;
  }
  std::optional<size_t> best;
  std::tuple<Rank, absl::Duration, size_t> best_key;
  for (size_t distance = 0; distance < states_.size(); ++distance) {
    const size_t i = (current_ + distance) % states_.size();
    if (tried[i]) continue;
    const Rank rank = RankOf(states_[i], needs_quorum, now);
    const absl::Duration wait_until =
        rank == Rank::kHealthy ? absl::ZeroDuration() : WaitUntil(states_[i], needs_quorum);
    const std::tuple key(rank, wait_until, distance);
    if (!best.has_value() || key < best_key) {
      best = i;
      best_key = key;
    }
  }
  return best;
}

bool EndpointSet::HealthyLeft(bool needs_quorum, const EndpointFlags& tried,
                              absl::Duration now) const {
  for (size_t i = 0; i < states_.size(); ++i) {
    if (!tried[i] && RankOf(states_[i], needs_quorum, now) == Rank::kHealthy) return true;
  }
  return false;
}

void EndpointSet::Fail(Health& health, absl::Duration now) {
  health.healthy_since.reset();
  // A hundred calls that fail together are one failure.
  if (now < health.wait_until) return;
  health.wait_until = now + FullJitter(policy_, health.failures, *rng_);
  ++health.failures;
}

void EndpointSet::Succeed(Health& health, absl::Duration now) {
  health.wait_until = -absl::InfiniteDuration();
  if (!health.healthy_since.has_value()) health.healthy_since = now;
  if (now - *health.healthy_since >= policy_.healthy_after) health.failures = 0;
}

void EndpointSet::Report(size_t endpoint, Outcome outcome, bool needs_quorum, absl::Duration now) {
  CHECK(endpoint < states_.size());
  State& state = states_[endpoint];
  if (!Reached(outcome)) {
    state.timed_out = outcome == Outcome::kTimedOut;
    Fail(state.reach, now);
    return;
  }
  Succeed(state.reach, now);
  switch (outcome) {
    case Outcome::kOk:
      if (needs_quorum) Succeed(state.quorum, now);
      break;
    case Outcome::kNoLeader:
    case Outcome::kOverloaded:
    case Outcome::kWrongMember:
    case Outcome::kTooOld:
    case Outcome::kBehind:
    case Outcome::kNoQuorum:
      Fail(state.quorum, now);
      return;
    default:
      break;
  }
  if (BackingOff(current_, needs_quorum, now)) current_ = endpoint;
}

bool EndpointSet::Health::IsClean() const {
  return failures == 0 && healthy_since.has_value() && wait_until == -absl::InfiniteDuration();
}

bool EndpointSet::Settled(size_t endpoint) const {
  const State& state = states_[endpoint];
  return endpoint == current_ && state.reach.IsClean() && state.quorum.IsClean();
}

}  // namespace holdfast::internal
