// holdfast.v1.Sessions: who is to write exactly once opens a session here (docs/sessions.md); the
// writes themselves go to the KV service, stamped.
#pragma once

#include "absl/time/time.h"
#include "holdfast/client.grpc.pb.h"
#include "server/member_view.h"

namespace holdfast::server {

// Threads: gRPC's, and the pipeline's responders.
class SessionService : public v1::Sessions::CallbackService {
 public:
  struct Options {
    absl::Duration ttl = absl::Hours(1);  // of the sessions opened here
  };
  // What `member` points to outlives the service.
  SessionService(const MemberView& member, const Options& options)
      : member_(member), options_(options) {}

  grpc::ServerUnaryReactor* Open(grpc::CallbackServerContext* context,
                                 const v1::SessionOpenRequest* request,
                                 v1::SessionOpenResponse* response) override;
  grpc::ServerUnaryReactor* Close(grpc::CallbackServerContext* context,
                                  const v1::SessionCloseRequest* request,
                                  v1::SessionCloseResponse* response) override;

 private:
  template <class Response>
  grpc::ServerUnaryReactor* Propose(grpc::CallbackServerContext* context,
                                    command::v1::Command command, Response* response);

  const MemberView member_;
  const Options options_;
};

}  // namespace holdfast::server
