#include "server/session_service.h"

#include <utility>

#include "base/check.h"
#include "base/rng.h"
#include "server/grpc_status.h"
#include "server/read_terms.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

}  // namespace

template <class Response>
ServerUnaryReactor* SessionService::Propose(CallbackServerContext* context, Command command,
                                            Response* response) {
  ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->Propose(
      std::move(command), [member = member_, context, response, reactor](ApplyResult result) {
        if (result.status.ok()) {
          AddIncarnation(context, member.machine->incarnation());
          CHECK(result.response != nullptr);
          response->Swap(static_cast<Response*>(result.response.get()));
          const int64_t revision = response->header().revision();
          FillClusterHeader(member, member.node->status().term, response->mutable_header());
          response->mutable_header()->set_revision(revision);
        }
        reactor->Finish(ToGrpc(result.status));
      });
  return reactor;
}

ServerUnaryReactor* SessionService::Open(CallbackServerContext* context,
                                         const v1::SessionOpenRequest*,
                                         v1::SessionOpenResponse* response) {
  absl::Status status = Admit(member_, *context, Admission::Call::kWrite);
  if (status.ok() && member_.admission != nullptr) status = member_.admission->CheckSpace();
  if (!status.ok()) return FinishWith(context, ToGrpc(status));
  Command command;
  uint64_t id = 0;
  while (id == 0) id = base::RandomSeed();
  command.mutable_session_open()->set_session(id);
  command.mutable_session_open()->set_ttl_ms(
      static_cast<uint64_t>(absl::ToInt64Milliseconds(options_.ttl)));
  return Propose(context, std::move(command), response);
}

ServerUnaryReactor* SessionService::Close(CallbackServerContext* context,
                                          const v1::SessionCloseRequest* request,
                                          v1::SessionCloseResponse* response) {
  if (absl::Status status = Admit(member_, *context, Admission::Call::kWrite); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  Command command;
  command.mutable_session_close()->set_session(request->session());
  return Propose(context, std::move(command), response);
}

}  // namespace holdfast::server
