#include "holdfast/testing/fault_injector.h"

#include <mutex>
#include <vector>

#include <fmt/format.h>

#include "base/strings.h"
#include "client/testing/fake_world.h"
#include "client/testing/fault_list.h"

namespace holdfast::testing {
namespace internal {

void FaultList::Add(const FaultInjector::Match& match, Fault fault, int times) {
  if (times > 0) rules_.push_back({match, std::move(fault), times});
}

Fault FaultList::Next(std::string_view method, std::string_view endpoint) {
  for (auto it = rules_.begin(); it != rules_.end(); ++it) {
    if (!it->match.method.empty() && it->match.method != method) continue;
    if (!it->match.endpoint.empty() && it->match.endpoint != endpoint) continue;
    ++injected_;
    Fault fault = it->fault;
    if (it->left != FaultInjector::kForever && --it->left == 0) rules_.erase(it);
    return fault;
  }
  return {};
}

}  // namespace internal

using internal::Fault;

void FaultInjector::Fail(const Match& match, absl::Status error, int times) {
  // gRPC's and Abseil's codes are the same numbers.
  const grpc::Status status(static_cast<grpc::StatusCode>(error.code()),
                            std::string(base::Message(error)));
  std::lock_guard lock(list_->world()->mutex);
  list_->Add(match, {.kind = Fault::Kind::kAnswer, .status = status}, times);
}

void FaultInjector::PushBack(const Match& match, absl::Duration retry_after, int times) {
  Fault fault = {.kind = Fault::Kind::kAnswer,
                 .status = {grpc::StatusCode::RESOURCE_EXHAUSTED, "etcdserver: too many requests"}};
  fault.trailing.emplace_back("holdfast-retry-after-ms",
                              fmt::format("{}", absl::ToInt64Milliseconds(retry_after)));
  std::lock_guard lock(list_->world()->mutex);
  list_->Add(match, std::move(fault), times);
}

void FaultInjector::LoseAnswer(const Match& match, int times) {
  std::lock_guard lock(list_->world()->mutex);
  list_->Add(match, {.kind = Fault::Kind::kLoseAnswer}, times);
}

void FaultInjector::Drop(const Match& match, int times) {
  std::lock_guard lock(list_->world()->mutex);
  list_->Add(match, {.kind = Fault::Kind::kDrop}, times);
}

void FaultInjector::Hold(const Match& match, int times) {
  std::lock_guard lock(list_->world()->mutex);
  list_->Add(match, {.kind = Fault::Kind::kHold}, times);
}

void FaultInjector::Delay(const Match& match, absl::Duration delay, int times) {
  std::lock_guard lock(list_->world()->mutex);
  list_->Add(match, {.kind = Fault::Kind::kDelay, .delay = delay}, times);
}

void FaultInjector::Release() { list_->world()->Release(internal::Hold::kRelease); }

void FaultInjector::Clear() {
  std::lock_guard lock(list_->world()->mutex);
  list_->Clear();
}

int FaultInjector::injected() const {
  std::lock_guard lock(list_->world()->mutex);
  return list_->injected();
}

int FaultInjector::held() const { return list_->world()->HeldByFault(); }

}  // namespace holdfast::testing
