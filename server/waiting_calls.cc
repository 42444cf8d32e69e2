#include "server/waiting_calls.h"

#include <utility>
#include <vector>

#include "server/etcd_errors.h"

namespace holdfast::server {

WaitingCall::~WaitingCall() {
  if (admitted_) calls_->Leave(this);
}

void WaitingCall::Stop(const absl::Status& why) {
  Post([this, why] { OnStop(why); });
}

InnerClient& WaitingCall::client() { return calls_->client(); }

void WaitingCall::Post(Strand::Step step) {
  // A step may drop the last other reference.
  const std::shared_ptr<WaitingCall> self = shared_from_this();
  strand_.Post(std::move(step));
}

absl::Status WaitingCalls::Admit(const std::shared_ptr<WaitingCall>& call) {
  absl::MutexLock lock(&mutex_);
  if (stopped_) return ErrStopped();
  if (calls_.size() >= limits_.calls_max) return ErrTooManyRequests();
  calls_.emplace(call.get(), call);
  call->admitted_ = true;
  return absl::OkStatus();
}

size_t WaitingCalls::size() const {
  absl::MutexLock lock(&mutex_);
  return calls_.size();
}

void WaitingCalls::StopAll() {
  std::vector<std::shared_ptr<WaitingCall>> calls;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    calls.reserve(calls_.size());
    for (const auto& [id, weak] : calls_) {
      if (std::shared_ptr<WaitingCall> call = weak.lock()) calls.push_back(std::move(call));
    }
  }
  for (const std::shared_ptr<WaitingCall>& call : calls) call->Stop(ErrStopped());
}

bool WaitingCalls::Drain(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_.empty(); };
  return mutex_.AwaitWithTimeout(absl::Condition(&empty), timeout);
}

void WaitingCalls::Leave(WaitingCall* call) {
  absl::MutexLock lock(&mutex_);
  calls_.erase(call);
}

}  // namespace holdfast::server
