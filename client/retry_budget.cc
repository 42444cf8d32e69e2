#include "client/retry_budget.h"

#include <algorithm>

namespace holdfast::internal {

RetryBudget::RetryBudget(double ratio, double per_second, absl::Duration now)
    : ratio_(ratio), per_second_(per_second), earned_until_(now) {}

void RetryBudget::OnCall() { tokens_ = std::min(tokens_ + ratio_, kSavedMax); }

void RetryBudget::Earn(absl::Duration now) {
  if (now <= earned_until_) return;
  const double earned = per_second_ * absl::ToDoubleSeconds(now - earned_until_);
  earned_until_ = now;
  if (tokens_ < kSavedByTimeMax) tokens_ = std::min(tokens_ + earned, kSavedByTimeMax);
}

bool RetryBudget::TryTake(absl::Duration now) {
  Earn(now);
  if (tokens_ < 1.0) return false;
  tokens_ -= 1.0;
  return true;
}

void RetryBudget::Charge(absl::Duration now) {
  Earn(now);
  tokens_ = std::max(tokens_ - 1.0, -kDebtMax);
}

void RetryBudget::Refund() { tokens_ = std::min(tokens_ + 1.0, kSavedMax); }

absl::Duration RetryBudget::UntilNext(absl::Duration now) {
  Earn(now);
  if (tokens_ >= 1.0) return absl::ZeroDuration();
  if (per_second_ == 0) return absl::InfiniteDuration();
  return absl::Seconds((1.0 - tokens_) / per_second_);
}

}  // namespace holdfast::internal
