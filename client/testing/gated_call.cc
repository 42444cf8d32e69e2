#include "client/testing/gated_call.h"

#include <mutex>

#include "client/grpc_time.h"

namespace holdfast::testing::internal {

void GatedCall::Enter() {
  Fault fault;
  {
    std::lock_guard lock(world().mutex);
    fault = world().Arrive(member_, method_, *context_);
    lose_answer_ = fault.kind == Fault::Kind::kLoseAnswer;
    const bool hangs = member_->hanging;
    if (hangs || fault.kind == Fault::Kind::kDrop || fault.kind == Fault::Kind::kHold) {
      const Hold hold = fault.kind == Fault::Kind::kDrop   ? Hold::kForever
                        : fault.kind == Fault::Kind::kHold ? Hold::kRelease
                                                           : Hold::kUnhang;
      return world().Add(this, member_, hold);
    }
    if (fault.kind == Fault::Kind::kDelay) {
      delayed_ = true;
      // Runs on a thread of gRPC's, once, whether it expires or is cancelled.
      alarm_.Set(holdfast::internal::ToGrpcTimespan(fault.delay),
                 [this](bool expired) { OnAlarm(expired); });
      return;
    }
  }
  if (fault.kind == Fault::Kind::kAnswer) {
    for (const auto& [key, value] : fault.trailing) context_->AddTrailingMetadata(key, value);
    return Refuse(fault.status);
  }
  Run();
}

void GatedCall::GoOn() { Run(); }

bool GatedCall::OnCancelled() {
  bool delayed = false;
  {
    std::lock_guard lock(world().mutex);
    if (!world().Remove(this)) {
      if (!delayed_) return false;
      delayed = true;
    }
  }
  // The alarm's function ends it then; this object stays until the reaction here has returned.
  if (delayed) {
    alarm_.Cancel();
  } else {
    Refuse(grpc::Status::CANCELLED);
  }
  return true;
}

void GatedCall::OnAlarm(bool expired) {
  {
    std::lock_guard lock(world().mutex);
    delayed_ = false;
  }
  if (!expired || context_->IsCancelled()) return Refuse(grpc::Status::CANCELLED);
  Run();
}

}  // namespace holdfast::testing::internal
