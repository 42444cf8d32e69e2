// etcd's Lock service (v3lockpb): a name is held by one lease at a time, in the order of asking.
// Built from the server's public calls alone (InnerClient), which are made with the caller's
// identity and end with his call.
//
// Answers, texts and codes are etcd's; docs/election-lock.md says where ours are better.
#pragma once

#include <memory>
#include <utility>

#include "etcd/lock.grpc.pb.h"
#include "server/waiting_calls.h"

namespace holdfast::server {

class LockService : public v3lockpb::Lock::CallbackService {
 public:
  explicit LockService(std::shared_ptr<WaitingCalls> calls) : calls_(std::move(calls)) {}

  grpc::ServerUnaryReactor* Lock(grpc::CallbackServerContext* context,
                                 const v3lockpb::LockRequest* request,
                                 v3lockpb::LockResponse* response) override;
  grpc::ServerUnaryReactor* Unlock(grpc::CallbackServerContext* context,
                                   const v3lockpb::UnlockRequest* request,
                                   v3lockpb::UnlockResponse* response) override;

 private:
  const std::shared_ptr<WaitingCalls> calls_;
};

}  // namespace holdfast::server
