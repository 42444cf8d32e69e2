#include "client/router.h"

#include <utility>

namespace holdfast::internal {

Router::Router(size_t endpoint_count, const RetryPolicy& policy,
               std::shared_ptr<const base::Clock> clock, uint64_t seed)
    : policy_(policy),
      clock_(std::move(clock)),
      rng_(seed),
      endpoints_(endpoint_count, policy, &rng_),
      budget_(policy.budget_ratio, policy.budget_per_second, Now()),
      gate_(policy, &rng_) {}

void Router::OnCall() {
  absl::MutexLock lock(&mutex_);
  budget_.OnCall();
}

Router::Choice Router::Choose(bool needs_quorum, const std::vector<bool>& tried, Pay pay) {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
  Choice choice;
  const std::optional<size_t> endpoint = endpoints_.Pick(needs_quorum, tried, now);
  if (!endpoint.has_value()) return choice;
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

void Router::Refund() {
  absl::MutexLock lock(&mutex_);
  budget_.Refund();
}

void Router::Report(size_t endpoint, Outcome outcome, bool needs_quorum) {
  const absl::Duration now = Now();
  absl::MutexLock lock(&mutex_);
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
