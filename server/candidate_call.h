// The server's side of a call that is a Candidacy: Campaign and Lock.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "server/candidacy.h"
#include "server/grpc_status.h"

namespace holdfast::server {

class CandidateCall : public grpc::ServerUnaryReactor {
 public:
  // `fill` writes the answer. Deletes itself when gRPC is done with it.
  static CandidateCall* Start(const std::shared_ptr<WaitingCalls>& calls,
                              grpc::CallbackServerContext* context, Candidacy::Options options,
                              std::function<void(const Candidacy::Won&)> fill) {
    auto* call = new CandidateCall(context);
    call->candidacy_ = Candidacy::Start(
        calls, std::move(options),
        [call, fill = std::move(fill)](const absl::Status& status, const Candidacy::Won& won) {
          if (status.ok()) fill(won);
          call->won_ = status.ok();
          call->Finish(ToGrpc(status));
        });
    return call;
  }

  void OnCancel() override { candidacy_->Stop(WhyCancelled(*context_)); }
  void OnDone() override {
    // gRPC knows whether the status went out before the call was broken off.
    if (won_ && context_->IsCancelled()) candidacy_->Abandon();
    delete this;
  }

 private:
  explicit CandidateCall(grpc::CallbackServerContext* context) : context_(context) {}

  grpc::CallbackServerContext* const context_;
  std::shared_ptr<Candidacy> candidacy_;
  bool won_ = false;  // set before Finish, read after
};

}  // namespace holdfast::server
