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

bool Redial::Take(size_t endpoint, absl::Duration now) {
  const std::optional<absl::Duration> out = OutFor(endpoint, now);
  if (!out.has_value() || *out < kOwnFor) return false;
  if (last_.has_value() && now - *last_ < std::clamp(*out / 10, kMin, kMax)) return false;
  last_ = now;
  return true;
}

Connections::Connections(std::vector<Endpoint> endpoints, std::shared_ptr<const base::Clock> clock)
    : endpoints_(std::move(endpoints)),
      clock_(std::move(clock)),
      redial_(endpoints_.size()),
      slots_(endpoints_.size()) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].channel = MakeChannel(endpoints_[i], Dialing::kLessAndLess);
  }
}

// gRPC gives an attempt as long as it would wait before the next one: minutes, late in an outage.
bool Connections::Rests(Slot& slot, absl::Duration now) {
  const grpc_connectivity_state state = slot.channel->GetState(/*try_to_connect=*/false);
  if (state != GRPC_CHANNEL_CONNECTING) {
    slot.connecting_since.reset();
    return state == GRPC_CHANNEL_TRANSIENT_FAILURE;
  }
  if (!slot.connecting_since.has_value()) slot.connecting_since = now;
  return now - *slot.connecting_since > kConnectMax;
}

std::shared_ptr<grpc::Channel> Connections::ForTry(size_t endpoint) {
  absl::MutexLock lock(&mutex_);
  Slot& slot = slots_[endpoint];
  if (!redial_.IsOut(endpoint)) return slot.channel;
  const absl::Duration now = Now();
  const std::optional<absl::Duration> out = redial_.OutFor(endpoint, now);
  if (!out.has_value() || *out < Redial::kOwnFor || !Rests(slot, now)) return slot.channel;
  if (!redial_.Take(endpoint, now)) return nullptr;
  // A fresh one connects at once; calls on the old one keep it.
  slot = {.channel = MakeChannel(endpoints_[endpoint], Dialing::kOnce), .patient = true};
  ++redials_;
  return slot.channel;
}

void Connections::OnTry(size_t endpoint, bool reached) {
  absl::MutexLock lock(&mutex_);
  if (reached) return redial_.OnReached(endpoint);
  Slot& slot = slots_[endpoint];
  if (!redial_.OnUnreachable(endpoint, Now()) || !slot.patient) return;
  // A new outage of what the last one had made patient: it may be short.
  slot = {.channel = MakeChannel(endpoints_[endpoint], Dialing::kLessAndLess)};
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
