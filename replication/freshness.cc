#include "replication/freshness.h"

#include <algorithm>

namespace holdfast::raft {

FreshnessTracker::FreshnessTracker(uint64_t boot, uint64_t seed) : boot_(boot), rng_(seed) {}

uint64_t FreshnessTracker::NewProbe(const base::ClockSample& sample) {
  const uint64_t nonce = rng_.Next();
  probes_.emplace_back(nonce, sample);
  if (probes_.size() > kMaxProbes) probes_.pop_front();
  return nonce;
}

std::optional<base::ClockSample> FreshnessTracker::newest_pending_probe() const {
  if (probes_.empty()) return std::nullopt;
  return probes_.back().second;
}

void FreshnessTracker::OnConfirm(uint64_t nonce, uint64_t boot, Index index, Index applied) {
  if (boot != boot_) return;
  const auto it = std::find_if(probes_.begin(), probes_.end(),
                               [nonce](const auto& probe) { return probe.first == nonce; });
  if (it == probes_.end()) return;
  const Claim claim{it->second, absl::ZeroDuration(), index};
  // Older probes could only make an older claim.
  probes_.erase(probes_.begin(), it + 1);
  Offer(claim, applied);
}

void FreshnessTracker::OnRoundStarted(uint64_t round, const base::ClockSample& sample) {
  rounds_.emplace_back(round, sample);
  if (rounds_.size() > kMaxRounds) rounds_.pop_front();
}

void FreshnessTracker::OnRoundConfirmed(uint64_t round, Index index, Index applied) {
  while (!rounds_.empty() && rounds_.front().first < round) rounds_.pop_front();
  if (rounds_.empty() || rounds_.front().first != round) return;
  const Claim claim{rounds_.front().second, absl::ZeroDuration(), index};
  rounds_.pop_front();
  Offer(claim, applied);
}

void FreshnessTracker::Restore(const Claim& claim, Index applied) { Offer(claim, applied); }

void FreshnessTracker::Offer(const Claim& claim, Index applied) {
  if (claim.index <= applied) return Take(claim);
  waiting_.push_back(claim);
  // Apply is far behind: the oldest waiting claim is the soonest to hold, the ones between it and
  // the newest can go.
  if (waiting_.size() > kMaxWaiting) waiting_.erase(waiting_.end() - 2);
}

void FreshnessTracker::Take(const Claim& claim) {
  pairs_.push_back(claim);
  ++taken_;
  if (pairs_.size() > kKeptPairs) pairs_.pop_front();
  // F2: keep the one with the smaller age. Both were taken in this process's time, or restored
  // from this kernel's boot: their instants are comparable by the longest clock.
  if (!claim_ || claim_->at.boot_ns - absl::ToInt64Nanoseconds(claim_->extra) <=
                     claim.at.boot_ns - absl::ToInt64Nanoseconds(claim.extra)) {
    claim_ = claim;
  }
}

void FreshnessTracker::OnApplied(Index applied) {
  std::deque<Claim> still;
  for (const Claim& claim : std::exchange(waiting_, {})) {
    if (claim.index <= applied) {
      Take(claim);
    } else {
      still.push_back(claim);
    }
  }
  waiting_ = std::move(still);
}

std::optional<Claim> FreshnessTracker::ClaimAmong(const std::deque<Claim>& pairs, Index delivered) {
  for (auto it = pairs.rbegin(); it != pairs.rend(); ++it) {
    if (it->index <= delivered) return *it;
  }
  return std::nullopt;
}

}  // namespace holdfast::raft
