// What all calls of a FakeStore go through first: counting, faults, hangs.
#pragma once

#include <grpcpp/alarm.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "client/testing/fake_world.h"

namespace holdfast::testing::internal {

// A reactor that derives from this calls Enter() once, in its handler, and OnCancelled() when gRPC
// says so; after Enter() exactly one of Run() and Refuse() is called, by any thread.
class GatedCall : public HeldCall {
 public:
  GatedCall(Member* member, const char* method, grpc::CallbackServerContext* context)
      : member_(member), method_(method), context_(context) {}

  void Enter();
  void GoOn() override;

 protected:
  // Neither under the world's mutex. Each must end the call, now or later.
  virtual void Run() = 0;
  virtual void Refuse(const grpc::Status& status) = 0;
  // False: the gate had let it go, so whoever runs it ends it.
  bool OnCancelled();

  World& world() const { return *member_->world; }
  Member* const member_;
  const char* const method_;
  grpc::CallbackServerContext* const context_;  // lives until OnDone
  // Its answer is to be lost. Set before Run.
  bool lose_answer_ = false;

 private:
  void OnAlarm(bool expired);

  grpc::Alarm alarm_;
  bool delayed_ = false;  // guarded by the world's mutex
};

}  // namespace holdfast::testing::internal
