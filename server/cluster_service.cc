#include "server/cluster_service.h"

#include <optional>
#include <utility>

#include "server/etcd_errors.h"
#include "server/read_terms.h"

namespace holdfast::server {
namespace {

grpc::ServerUnaryReactor* RefuseChange(grpc::CallbackServerContext* context) {
  return FinishWith(
      context,
      grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                   "holdfast: membership changes are not in this release; the members are those of "
                   "--initial-cluster"));
}

}  // namespace

void ClusterService::FillMembers(etcdserverpb::MemberListResponse* response) const {
  const raft::NodeStatus status = member_.node->status();
  FillClusterHeader(member_, status.term, response->mutable_header());
  for (const NodeId id : status.membership->All()) {
    etcdserverpb::Member* member = response->add_members();
    member->set_id(id.value);
    member->set_islearner(!status.membership->IsVoter(id));
    if (const auto urls = status.membership->peer_urls.find(id);
        urls != status.membership->peer_urls.end()) {
      member->mutable_peerurls()->Assign(urls->second.begin(), urls->second.end());
    }
    if (std::optional<MemberAttributes> published = member_.machine->member(id.value)) {
      member->set_name(std::move(published->name));
      member->mutable_clienturls()->Assign(published->client_urls.begin(),
                                           published->client_urls.end());
    }
  }
}

grpc::ServerUnaryReactor* ClusterService::MemberList(grpc::CallbackServerContext* context,
                                                     const etcdserverpb::MemberListRequest* request,
                                                     etcdserverpb::MemberListResponse* response) {
  if (WantsLeader(*context) && !member_.node->status().leader) {
    return FinishWith(context, ToGrpc(ErrNoLeader()));
  }
  if (!request->linearizable()) {
    FillMembers(response);
    return FinishWith(context, grpc::Status::OK);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->LinearizableRead([this, response, reactor](absl::Status status) {
    if (status.ok()) FillMembers(response);
    reactor->Finish(ToGrpc(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* ClusterService::MemberAdd(grpc::CallbackServerContext* context,
                                                    const etcdserverpb::MemberAddRequest*,
                                                    etcdserverpb::MemberAddResponse*) {
  return RefuseChange(context);
}

grpc::ServerUnaryReactor* ClusterService::MemberRemove(grpc::CallbackServerContext* context,
                                                       const etcdserverpb::MemberRemoveRequest*,
                                                       etcdserverpb::MemberRemoveResponse*) {
  return RefuseChange(context);
}

grpc::ServerUnaryReactor* ClusterService::MemberUpdate(grpc::CallbackServerContext* context,
                                                       const etcdserverpb::MemberUpdateRequest*,
                                                       etcdserverpb::MemberUpdateResponse*) {
  return RefuseChange(context);
}

grpc::ServerUnaryReactor* ClusterService::MemberPromote(grpc::CallbackServerContext* context,
                                                        const etcdserverpb::MemberPromoteRequest*,
                                                        etcdserverpb::MemberPromoteResponse*) {
  return RefuseChange(context);
}

}  // namespace holdfast::server
