#include "server/lock_service.h"

#include "server/candidate_call.h"
#include "server/etcd_errors.h"
#include "server/passed_on_call.h"

namespace holdfast::server {

grpc::ServerUnaryReactor* LockService::Lock(grpc::CallbackServerContext* context,
                                            const v3lockpb::LockRequest* request,
                                            v3lockpb::LockResponse* response) {
  Candidacy::Options options = {.terms = CallerTerms::Of(*context),
                                .name = request->name(),
                                .lease = request->lease(),
                                .value = {},
                                .announces = false,
                                .expired = ErrMutexSessionExpired()};
  return CandidateCall::Start(calls_, context, std::move(options),
                              [response](const Candidacy::Won& won) {
                                *response->mutable_header() = won.header;
                                response->set_key(won.key);
                              });
}

grpc::ServerUnaryReactor* LockService::Unlock(grpc::CallbackServerContext* context,
                                              const v3lockpb::UnlockRequest* request,
                                              v3lockpb::UnlockResponse* response) {
  etcdserverpb::DeleteRangeRequest deletion;
  deletion.set_key(request->key());
  auto* call = new PassedOnCall;
  call->CancelsWith(calls_->client().DeleteRange(
      CallerTerms::Of(*context), deletion,
      [call, response](const absl::Status& status, etcdserverpb::DeleteRangeResponse* answer) {
        if (status.ok()) response->mutable_header()->Swap(answer->mutable_header());
        call->Finish(ToGrpc(status));
      }));
  return call;
}

}  // namespace holdfast::server
