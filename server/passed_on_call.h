// A unary call that is answered by one inner call. Cancelled by its caller, it cancels that one,
// and is answered when that one ends.
#pragma once

#include <utility>

#include <grpcpp/support/server_callback.h>

#include "server/inner_client.h"

namespace holdfast::server {

class PassedOnCall : public grpc::ServerUnaryReactor {
 public:
  // Before the reactor is handed to gRPC. The inner call's end calls Finish.
  void CancelsWith(InnerClient::Call inner) { inner_ = std::move(inner); }

  void OnCancel() override { inner_->TryCancel(); }
  void OnDone() override { delete this; }

 private:
  InnerClient::Call inner_;
};

}  // namespace holdfast::server
