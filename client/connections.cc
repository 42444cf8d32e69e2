#include "client/connections.h"

#include <algorithm>
#include <utility>

#include "client/rpc.h"

namespace holdfast::internal {

bool Redial::OnUnreachable(size_t endpoint, absl::Duration now) {
  if (out_since_[endpoint].has_value()) return false;
  out_since_[endpoint] = now;
  return true;
}

std::optional<absl::Duration> Redial::OutFor(size_t endpoint, absl::Duration now) const {
  if (!out_since_[endpoint].has_value()) return std::nullopt;
  return now - *out_since_[endpoint];
}

bool Redial::Take(size_t endpoint, bool failed, absl::Duration now) {
  const std::optional<absl::Duration> out = OutFor(endpoint, now);
  if (!out.has_value() || *out < kOwnFor || !failed) return false;
  if (last_.has_value() && now - *last_ < std::clamp(*out / 10, kMin, kMax)) return false;
  last_ = now;
  return true;
}

Connections::Connections(std::vector<Endpoint> endpoints, std::shared_ptr<const base::Clock> clock)
    : endpoints_(std::move(endpoints)),
      clock_(std::move(clock)),
      redial_(endpoints_.size()),
      patient_(endpoints_.size()) {
  for (const Endpoint& endpoint : endpoints_) {
    channels_.push_back(MakeChannel(endpoint, Dialing::kByItself));
  }
}

std::shared_ptr<grpc::Channel> Connections::ForTry(size_t endpoint) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<grpc::Channel>& channel = channels_[endpoint];
  if (!redial_.OutFor(endpoint, Now()).has_value()) return channel;
  const bool failed = channel->GetState(/*try_to_connect=*/false) == GRPC_CHANNEL_TRANSIENT_FAILURE;
  if (redial_.Take(endpoint, failed, Now())) {
    // A fresh one connects at once; the old one's calls have it still.
    channel = MakeChannel(endpoints_[endpoint], Dialing::kOnce);
    patient_[endpoint] = true;
    ++redials_;
  }
  return channel;
}

void Connections::OnTry(size_t endpoint, bool reached) {
  absl::MutexLock lock(&mutex_);
  if (reached) return redial_.OnReached(endpoint);
  if (!redial_.OnUnreachable(endpoint, Now()) || !patient_[endpoint]) return;
  // A new outage of what the last one had made patient: it may be short.
  channels_[endpoint] = MakeChannel(endpoints_[endpoint], Dialing::kByItself);
  patient_[endpoint] = false;
}

std::optional<absl::Duration> Connections::OutFor(size_t endpoint) const {
  absl::MutexLock lock(&mutex_);
  return redial_.OutFor(endpoint, Now());
}

uint64_t Connections::redials() const {
  absl::MutexLock lock(&mutex_);
  return redials_;
}

}  // namespace holdfast::internal
