#include "server/retry_pause.h"

#include <grpc/support/time.h>

#include <algorithm>
#include <utility>

#include "server/etcd_errors.h"

namespace holdfast::server {

bool RetryPause::WorthRetrying(const absl::Status& status, bool wants_leader) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return !(wants_leader && status == ErrNoLeader());
    case absl::StatusCode::kInternal:   // a stream that broke, as gRPC has it
    case absl::StatusCode::kUnknown:    // the same, another time
    case absl::StatusCode::kCancelled:  // by the server: whoever cancels here does not ask
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
      return true;
    default:
      return false;
  }
}

std::optional<std::chrono::milliseconds> RetryPause::Next(Clock::time_point now) {
  if (!failing_since_.has_value()) failing_since_ = now;
  if (now - *failing_since_ > give_up_after_) return std::nullopt;
  pause_ = std::clamp(2 * pause_, kPauseMin, kPauseMax);
  return pause_;
}

void RetryPause::Succeeded() {
  failing_since_.reset();
  pause_ = std::chrono::milliseconds::zero();
}

void Timer::Set(std::chrono::milliseconds after, std::function<void()> f) {
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(after.count(), GPR_TIMESPAN)),
      [f = std::move(f)](bool expired) mutable {
        // What f holds may hold this timer: the alarm must not keep it.
        const std::function<void()> once = std::exchange(f, nullptr);
        if (expired) once();
      });
}

}  // namespace holdfast::server
