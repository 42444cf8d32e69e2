// When to try an inner call again, and when to give up.
//
// Pauses double from kPauseMin to kPauseMax. What fails for longer than the time to give up,
// counted from the first failure after the last success, is given up.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include <grpcpp/alarm.h>

#include "absl/status/status.h"

namespace holdfast::server {

class RetryPause {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kPauseMin{20};
  static constexpr std::chrono::milliseconds kPauseMax{1'000};

  explicit RetryPause(std::chrono::milliseconds give_up_after) : give_up_after_(give_up_after) {}

  // True if the same call may succeed later. `wants_leader`: then "no leader" is an answer.
  static bool WorthRetrying(const absl::Status& status, bool wants_leader);

  // How long to wait before the next try; nullopt: give up.
  std::optional<std::chrono::milliseconds> Next(Clock::time_point now);
  // Something worked: the time to give up starts anew, at the next failure.
  void Progress() { failing_since_.reset(); }
  // It worked for so long that the next failure is another one: pauses start anew too.
  void Succeeded();

 private:
  const std::chrono::milliseconds give_up_after_;
  std::optional<Clock::time_point> failing_since_;
  std::chrono::milliseconds pause_{0};
};

// Calls once, on a gRPC thread, unless it is cancelled, set anew or destroyed before.
class Timer {
 public:
  void Set(std::chrono::milliseconds after, std::function<void()> f);
  void Cancel() { alarm_.reset(); }

 private:
  std::unique_ptr<grpc::Alarm> alarm_;
};

}  // namespace holdfast::server
