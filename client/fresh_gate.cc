#include "client/fresh_gate.h"

#include <algorithm>

#include "client/endpoint_set.h"

namespace holdfast::internal {

FreshGate::FreshGate(const RetryPolicy& policy, base::Rng* rng) : policy_(policy), rng_(rng) {
  policy_.cap = std::min(policy_.cap, kProbeEveryMax);
  policy_.base = std::min(policy_.base, policy_.cap);
}

FreshGate::Pass FreshGate::Enter(absl::Duration now) {
  if (!closed_) return Pass::kYes;
  if (probing_ || now < next_probe_) return Pass::kNo;
  probing_ = true;
  return Pass::kProbe;
}

void FreshGate::OnFresh() {
  closed_ = false;
  probing_ = false;
  failures_ = 0;
}

void FreshGate::OnNotFresh(absl::Duration now) {
  probing_ = false;
  // Reads that were under way together when the quorum was lost are one failure.
  if (closed_ && now < next_probe_) return;
  closed_ = true;
  next_probe_ = now + FullJitter(policy_, failures_++, *rng_);
}

}  // namespace holdfast::internal
