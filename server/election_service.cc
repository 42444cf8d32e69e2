#include "server/election_service.h"

#include "server/candidate_call.h"
#include "server/etcd_errors.h"
#include "server/observation.h"
#include "server/passed_on_call.h"
#include "server/queue_wait.h"

namespace holdfast::server {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(status));
  return reactor;
}

// To be done only while the leader's key is the one that was won.
TxnRequest IfStillThere(const v3electionpb::LeaderKey& leader) {
  TxnRequest request;
  Compare* compare = request.add_compare();
  compare->set_key(leader.key());
  compare->set_target(Compare::CREATE);
  compare->set_result(Compare::EQUAL);
  compare->set_create_revision(leader.rev());
  return request;
}

class ObserveCall : public grpc::ServerWriteReactor<v3electionpb::LeaderResponse> {
 public:
  static ObserveCall* Start(const std::shared_ptr<WaitingCalls>& calls,
                            grpc::CallbackServerContext* context, const std::string& name) {
    auto* call = new ObserveCall(context);
    call->observation_ = Observation::Start(
        calls, CallerTerms::Of(*context), name,
        [call](const v3electionpb::LeaderResponse* leader) { call->StartWrite(leader); },
        [call](const absl::Status& status) { call->Finish(ToGrpc(status)); });
    return call;
  }

  void OnWriteDone(bool ok) override { observation_->Told(ok); }
  void OnCancel() override { observation_->Stop(WhyCancelled(*context_)); }
  void OnDone() override { delete this; }

 private:
  explicit ObserveCall(grpc::CallbackServerContext* context) : context_(context) {}

  grpc::CallbackServerContext* const context_;
  std::shared_ptr<Observation> observation_;
};

}  // namespace

grpc::ServerUnaryReactor* ElectionService::Campaign(grpc::CallbackServerContext* context,
                                                    const v3electionpb::CampaignRequest* request,
                                                    v3electionpb::CampaignResponse* response) {
  Candidacy::Options options = {.terms = CallerTerms::Of(*context),
                                .name = request->name(),
                                .lease = request->lease(),
                                .value = request->value(),
                                .announces = true,
                                .expired = ErrElectionSessionExpired()};
  return CandidateCall::Start(calls_, context, std::move(options),
                              [request, response](const Candidacy::Won& won) {
                                *response->mutable_header() = won.entered;
                                v3electionpb::LeaderKey* leader = response->mutable_leader();
                                leader->set_name(request->name());
                                leader->set_key(won.key);
                                leader->set_rev(won.revision);
                                leader->set_lease(won.lease);
                              });
}

grpc::ServerUnaryReactor* ElectionService::Proclaim(grpc::CallbackServerContext* context,
                                                    const v3electionpb::ProclaimRequest* request,
                                                    v3electionpb::ProclaimResponse* response) {
  if (!request->has_leader()) return Refuse(context, ErrMissingLeaderKey());
  const v3electionpb::LeaderKey& leader = request->leader();
  // To compare with 0 would ask that the key is not there, and would then create it.
  if (leader.rev() == 0 && !leader.key().empty()) return Refuse(context, ErrElectionNotLeader());
  TxnRequest txn = IfStillThere(leader);
  etcdserverpb::PutRequest* put = txn.add_success()->mutable_request_put();
  put->set_key(leader.key());
  put->set_value(request->value());
  put->set_lease(leader.lease());
  put->set_ignore_lease(leader.lease() == 0);  // it keeps the one that it has
  auto* call = new PassedOnCall;
  call->CancelsWith(
      calls_->client().Txn(CallerTerms::Of(*context), txn,
                           [call, response](const absl::Status& status, TxnResponse* answer) {
                             if (status.ok())
                               response->mutable_header()->Swap(answer->mutable_header());
                             const bool lost = status.ok() && !answer->succeeded();
                             call->Finish(ToGrpc(lost ? ErrElectionNotLeader() : status));
                           }));
  return call;
}

grpc::ServerUnaryReactor* ElectionService::Leader(grpc::CallbackServerContext* context,
                                                  const v3electionpb::LeaderRequest* request,
                                                  v3electionpb::LeaderResponse* response) {
  RangeRequest range;
  SetPrefix(request->name() + "/", &range);
  range.set_sort_target(RangeRequest::CREATE);
  range.set_sort_order(RangeRequest::ASCEND);
  range.set_limit(1);
  auto* call = new PassedOnCall;
  call->CancelsWith(calls_->client().Range(
      CallerTerms::Of(*context), range,
      [call, response](const absl::Status& status, etcdserverpb::RangeResponse* answer) {
        if (!status.ok()) return call->Finish(ToGrpc(status));
        if (answer->kvs().empty()) return call->Finish(ToGrpc(ErrElectionNoLeader()));
        response->mutable_header()->Swap(answer->mutable_header());
        response->mutable_kv()->Swap(answer->mutable_kvs(0));
        call->Finish(grpc::Status::OK);
      }));
  return call;
}

grpc::ServerWriteReactor<v3electionpb::LeaderResponse>* ElectionService::Observe(
    grpc::CallbackServerContext* context, const v3electionpb::LeaderRequest* request) {
  return ObserveCall::Start(calls_, context, request->name());
}

grpc::ServerUnaryReactor* ElectionService::Resign(grpc::CallbackServerContext* context,
                                                  const v3electionpb::ResignRequest* request,
                                                  v3electionpb::ResignResponse* response) {
  if (!request->has_leader()) return Refuse(context, ErrMissingLeaderKey());
  TxnRequest txn = IfStillThere(request->leader());
  txn.add_success()->mutable_request_delete_range()->set_key(request->leader().key());
  auto* call = new PassedOnCall;
  // Whoever does not lead any more has resigned.
  call->CancelsWith(
      calls_->client().Txn(CallerTerms::Of(*context), txn,
                           [call, response](const absl::Status& status, TxnResponse* answer) {
                             if (status.ok())
                               response->mutable_header()->Swap(answer->mutable_header());
                             call->Finish(ToGrpc(status));
                           }));
  return call;
}

}  // namespace holdfast::server
