#include "server/peer_lease_service.h"

#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"

namespace holdfast::server {
namespace {

template <class Reply>
void Refuse(const absl::Status& status, Reply* reply) {
  reply->set_code(static_cast<uint32_t>(status.code()));
  reply->set_text(std::string(base::Message(status)));
}

}  // namespace

template <class Request, class Reply, class Fill>
grpc::ServerUnaryReactor* PeerLeaseService::Ask(grpc::CallbackServerContext* context,
                                                const Request& request, bool renew, Reply* reply,
                                                Fill fill) {
  if (request.cluster_id() != member_.cluster_id || request.to() != member_.self.value) {
    Refuse(absl::UnavailableError("holdfast: leases of another member or cluster: check the peer "
                                  "URLs"),
           reply);
    return FinishWith(context, grpc::Status::OK);
  }
  if (static_cast<size_t>(request.ids_size()) > Lessor::kAskIdsMax) {
    Refuse(absl::InvalidArgumentError("holdfast: too many leases in one call"), reply);
    return FinishWith(context, grpc::Status::OK);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  lessor_->Ask({request.ids().begin(), request.ids().end()}, renew,
               [reactor, reply, fill](absl::StatusOr<std::vector<LeaseTime>> times) {
                 if (!times.ok()) Refuse(times.status(), reply);
                 if (times.ok()) {
                   for (const LeaseTime& time : *times) fill(time, reply);
                 }
                 reactor->Finish(grpc::Status::OK);
               });
  return reactor;
}

grpc::ServerUnaryReactor* PeerLeaseService::Renew(grpc::CallbackServerContext* context,
                                                  const raft::v1::RenewLeasesRequest* request,
                                                  raft::v1::RenewLeasesReply* reply) {
  return Ask(context, *request, /*renew=*/true, reply,
             [](const LeaseTime& time, raft::v1::RenewLeasesReply* out) {
               const int64_t granted_s = time.found() ? time.granted_s : 0;
               out->add_ttl_s(time.ask_again ? -1 : granted_s);
             });
}

grpc::ServerUnaryReactor* PeerLeaseService::Times(grpc::CallbackServerContext* context,
                                                  const raft::v1::LeaseTimesRequest* request,
                                                  raft::v1::LeaseTimesReply* reply) {
  return Ask(context, *request, /*renew=*/false, reply,
             [](const LeaseTime& time, raft::v1::LeaseTimesReply* out) {
               auto* one = out->add_times();
               one->set_granted_s(time.granted_s);
               one->set_left_ms(time.left_ms);
             });
}

}  // namespace holdfast::server
