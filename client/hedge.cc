#include "client/hedge.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace holdfast::internal {
namespace {

constexpr absl::Duration kFirstEdge = absl::Microseconds(50);
constexpr double kGrowth = 1.1;
// A walk over the buckets for each read would cost more than it tells.
constexpr uint64_t kReadsBetween = 32;

}  // namespace

size_t RecentQuantile::BucketOf(absl::Duration time) {
  if (time <= kFirstEdge) return 0;
  const double steps = std::log(absl::FDivDuration(time, kFirstEdge)) / std::log(kGrowth);
  return std::min(static_cast<size_t>(std::ceil(steps - 1e-9)), kBuckets - 1);
}

absl::Duration RecentQuantile::UpperEdge(size_t bucket) {
  return kFirstEdge * std::pow(kGrowth, static_cast<double>(bucket));
}

void RecentQuantile::Add(absl::Duration time) {
  ++counts_[BucketOf(time)];
  ++weight_;
  if (++since_halved_ < kHalfLife) return;
  since_halved_ = 0;
  weight_ = 0;
  for (uint32_t& count : counts_) weight_ += count /= 2;
}

absl::Duration RecentQuantile::At(double q) const {
  CHECK(weight_ > 0);
  const auto wanted = static_cast<uint64_t>(std::ceil(q * static_cast<double>(weight_)));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted && seen > 0) return UpperEdge(i);
  }
  return UpperEdge(kBuckets - 1);
}

std::optional<absl::Duration> Hedger::OnRead() {
  if (policy_.budget_ratio <= 0) return std::nullopt;
  tokens_ = std::min(tokens_ + policy_.budget_ratio, kSavedMax);
  if (timed_ < kReadsMin || tokens_ < 1) return std::nullopt;
  return std::max(delay_, policy_.floor);
}

bool Hedger::Take() {
  if (tokens_ < 1) return false;
  tokens_ -= 1;
  return true;
}

void Hedger::OnTime(absl::Duration time) {
  times_.Add(time);
  if (++timed_ % kReadsBetween == 0 || timed_ == kReadsMin) {
    delay_ = times_.At(policy_.after_quantile);
  }
}

}  // namespace holdfast::internal
