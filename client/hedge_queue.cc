#include "client/hedge_queue.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "client/call.h"

namespace holdfast::internal {

void HedgeQueue::Add(absl::Duration delay, std::weak_ptr<Call> call) {
  const Steady::time_point now = Steady::now();
  const Steady::time_point due = now + absl::ToChronoNanoseconds(delay);
  absl::MutexLock lock(&mutex_);
  if (closed_ || waiting_.size() >= kWaitingMax) return;
  waiting_.emplace(due, std::move(call));
  if (timer_ == nullptr) return Arm(now);
  // A timer that is cancelled runs soon, and is set anew.
  if (due + absl::ToChronoNanoseconds(kGrain) < timer_at_) timer_->Cancel();
}

void HedgeQueue::Arm(Steady::time_point now) {
  timer_at_ = std::max(waiting_.begin()->first, now + absl::ToChronoNanoseconds(kGrain));
  timer_ = loop_.After(absl::FromChrono(timer_at_ - now), [this] { OnTimer(); });
}

void HedgeQueue::OnTimer() {
  std::vector<std::shared_ptr<Call>> due;
  {
    absl::MutexLock lock(&mutex_);
    timer_ = nullptr;
    if (closed_) return;
    const Steady::time_point now = Steady::now();
    // Calls that are over, up to the first that is not, need no timer.
    for (auto it = waiting_.begin(); it != waiting_.end(); it = waiting_.erase(it)) {
      std::shared_ptr<Call> call = it->second.lock();
      if (call == nullptr) continue;
      if (it->first > now) break;
      due.push_back(std::move(call));
    }
    if (!waiting_.empty()) Arm(now);
  }
  for (const std::shared_ptr<Call>& call : due) call->OnHedgeTime();
}

void HedgeQueue::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  waiting_.clear();
  if (timer_ != nullptr) timer_->Cancel();
}

}  // namespace holdfast::internal
