#include "client/router.h"

#include <algorithm>
#include <utility>

namespace holdfast::internal {

Router::Router(size_t endpoint_count, const RetryPolicy& policy, const HedgePolicy& hedge,
               std::shared_ptr<const base::Clock> clock, uint64_t seed)
    : policy_(policy),
      clock_(std::move(clock)),
      rng_(seed),
      endpoints_(endpoint_count, policy, &rng_),
      budget_(policy.budget_ratio, policy.budget_per_second, Now()),
      gate_(policy, &rng_),
      hedger_(hedge),
      alone_until_(endpoint_count, -absl::InfiniteDuration()) {}

void Router::OnCall() {
  absl::MutexLock lock(&mutex_);
  budget_.OnCall();
}

Router::Choice Router::Choose(bool needs_quorum, const EndpointFlags& tried, Pay pay,
                              absl::Duration now) {
  absl::MutexLock lock(&mutex_);
  Choice choice;
  std::optional<size_t> endpoint = endpoints_.Pick(needs_quorum, LeavingAlone(tried, now), now);
  // The first sending is the offered load, which only the caller can lower.
  if (!endpoint.has_value() && pay == Pay::kFree)
    endpoint = endpoints_.Pick(needs_quorum, tried, now);
  if (!endpoint.has_value()) {
    const absl::Duration first = *std::ranges::min_element(alone_until_);
    if (first > now) {
      choice.kind = Choice::Kind::kPushedBack;
      choice.retry_after = first - now;
    }
    return choice;
  }
  if (pay == Pay::kToken && !budget_.TryTake(now)) {
    choice.kind = Choice::Kind::kNoBudget;
    choice.healthy_left = endpoints_.HealthyLeft(needs_quorum, tried, now);
    choice.retry_after = budget_.UntilNext(now);
    return choice;
  }
  if (pay == Pay::kDebt) budget_.Charge(now);
  choice.kind = Choice::Kind::kTry;
  choice.endpoint = *endpoint;
  return choice;
}

EndpointFlags Router::LeavingAlone(const EndpointFlags& tried, absl::Duration now) const {
  EndpointFlags left_out = tried;
  for (size_t i = 0; i < alone_until_.size(); ++i) {
    if (alone_until_[i] > now) left_out[i] = true;
  }
  return left_out;
}

void Router::OnPushBack(size_t endpoint, absl::Duration for_now) {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  alone_until_[endpoint] = std::max(alone_until_[endpoint], now + for_now);
}

std::optional<absl::Duration> Router::BeginHedgeable() {
  absl::MutexLock lock(&mutex_);
  return hedger_.OnRead();
}

std::optional<size_t> Router::ChooseHedge(bool needs_quorum, const EndpointFlags& tried) {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  const EndpointFlags left_out = LeavingAlone(tried, now);
  // To one that will answer, or it shortens nothing.
  if (!endpoints_.HealthyLeft(needs_quorum, left_out, now) || !hedger_.Take()) return std::nullopt;
  return endpoints_.Pick(needs_quorum, left_out, now);
}

void Router::OnReadTime(absl::Duration time) {
  absl::MutexLock lock(&mutex_);
  hedger_.OnTime(time);
}

Router::EndpointView Router::View(size_t endpoint) {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  return {.in_use = endpoints_.current() == endpoint,
          .reachable = !endpoints_.BackingOff(endpoint, /*needs_quorum=*/false, now),
          .quorum_suspect = endpoints_.BackingOff(endpoint, /*needs_quorum=*/true, now),
          .alone_for = std::max(alone_until_[endpoint] - now, absl::ZeroDuration())};
}

void Router::Refund() {
  absl::MutexLock lock(&mutex_);
  budget_.Refund();
}

void Router::Report(size_t endpoint, Outcome outcome, bool needs_quorum) {
  absl::MutexLock lock(&mutex_);
  // Nearly every answer: one more of an endpoint that is well. It is worth no look at the clock.
  if (outcome == Outcome::kOk && endpoints_.Settled(endpoint) &&
      !(needs_quorum && quorum_failing_since_.has_value())) {
    return;
  }
  const absl::Duration now = Now();
  endpoints_.Report(endpoint, outcome, needs_quorum, now);
  if (!needs_quorum || outcome == Outcome::kTooOld || outcome == Outcome::kBehind) return;
  if (outcome == Outcome::kOk || outcome == Outcome::kRefused) {
    quorum_failing_since_.reset();
  } else if (!quorum_failing_since_.has_value()) {
    quorum_failing_since_ = now;
  }
}

bool Router::QuorumGivenUp() {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  return quorum_failing_since_.has_value() &&
         now - *quorum_failing_since_ >= policy_.quorum_patience;
}

absl::Duration Router::Jitter(int n) {
  absl::MutexLock lock(&mutex_);
  return FullJitter(policy_, n, rng_);
}

FreshGate::Pass Router::EnterFreshGate() {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  return gate_.Enter(now);
}

void Router::OnFresh() {
  absl::MutexLock lock(&mutex_);
  gate_.OnFresh();
}

void Router::OnNotFresh() {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  gate_.OnNotFresh(now);
}

void Router::OnProbeOver() {
  absl::MutexLock lock(&mutex_);
  gate_.OnProbeOver();
}

}  // namespace holdfast::internal
