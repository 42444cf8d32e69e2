#include "client/event_loop.h"

#include <algorithm>
#include <utility>

#include <grpcpp/alarm.h>

#include "base/check.h"
#include "client/grpc_time.h"

namespace holdfast::internal {
namespace {

class AlarmTimer : public EventLoop::Timer, public Event {
 public:
  explicit AlarmTimer(absl::AnyInvocable<void() &&> function) : function_(std::move(function)) {}

  void Arm(std::shared_ptr<AlarmTimer> self, grpc::CompletionQueue* queue, absl::Duration delay) {
    self_ = std::move(self);
    alarm_.Set(queue, ToGrpcTimespan(delay), static_cast<Event*>(this));
  }
  void Cancel() override { alarm_.Cancel(); }
  void Run(bool) override {
    const std::shared_ptr<AlarmTimer> self = std::move(self_);
    std::move(function_)();
  }

 private:
  absl::AnyInvocable<void() &&> function_;
  std::shared_ptr<AlarmTimer> self_;  // until it has run
  grpc::Alarm alarm_;
};

}  // namespace

EventLoop::EventLoop() : thread_([this] { Loop(); }) {}

void EventLoop::Loop() {
  void* tag = nullptr;
  bool ok = false;
  std::vector<Deferred*> due;
  while (queue_.Next(&tag, &ok)) {
    static_cast<Event*>(tag)->Run(ok);
    while (!deferred_.empty()) {
      due.swap(deferred_);
      for (Deferred* deferred : due) deferred->RunDeferred();
      due.clear();
    }
  }
}

void EventLoop::Defer(Deferred* deferred) {
  if (std::find(deferred_.begin(), deferred_.end(), deferred) == deferred_.end()) {
    deferred_.push_back(deferred);
  }
}

EventLoop::~EventLoop() { CHECK(!thread_.joinable()); }

std::shared_ptr<EventLoop::Timer> EventLoop::After(absl::Duration delay,
                                                   absl::AnyInvocable<void() &&> function) {
  auto timer = std::make_shared<AlarmTimer>(std::move(function));
  timer->Arm(timer, &queue_, delay);
  return timer;
}

void EventLoop::Stop() {
  CHECK(!OnLoopThread());
  queue_.Shutdown();
  thread_.join();
}

}  // namespace holdfast::internal
