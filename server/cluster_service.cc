#include "server/cluster_service.h"

#include <optional>
#include <utility>
#include <vector>

#include "server/etcd_errors.h"
#include "server/member_answer.h"
#include "server/member_rules.h"
#include "server/read_terms.h"

namespace holdfast::server {
namespace {

using Kind = raft::MemberChange::Kind;

}  // namespace

grpc::ServerUnaryReactor* ClusterService::MemberList(grpc::CallbackServerContext* context,
                                                     const etcdserverpb::MemberListRequest* request,
                                                     etcdserverpb::MemberListResponse* response) {
  if (absl::Status status = Admit(member_, *context, Admission::Call::kLocal); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  if (!request->linearizable()) {
    FillAnswer(member_, *member_.node->status().membership, response);
    return FinishWith(context, grpc::Status::OK);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  member_.pipeline->LinearizableRead([this, response, reactor](absl::Status status) {
    if (status.ok()) FillAnswer(member_, *member_.node->status().membership, response);
    reactor->Finish(ToGrpc(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* ClusterService::MemberAdd(grpc::CallbackServerContext* context,
                                                    const etcdserverpb::MemberAddRequest* request,
                                                    etcdserverpb::MemberAddResponse* response) {
  absl::StatusOr<std::vector<std::string>> urls = CheckedPeerUrls(
      std::vector<std::string>(request->peerurls().begin(), request->peerurls().end()));
  if (!urls.ok()) return FinishWith(context, ToGrpc(urls.status()));
  const raft::MemberChange change = {.kind = request->islearner() ? Kind::kAddLearner : Kind::kAdd,
                                     .id = MemberChanger::NewId(),
                                     .peer_urls = *std::move(urls),
                                     .replaces = {}};
  return AnswerChange(member_, changer_, change, context, response);
}

grpc::ServerUnaryReactor* ClusterService::MemberRemove(
    grpc::CallbackServerContext* context, const etcdserverpb::MemberRemoveRequest* request,
    etcdserverpb::MemberRemoveResponse* response) {
  const raft::MemberChange change = {
      .kind = Kind::kRemove, .id = NodeId(request->id()), .peer_urls = {}, .replaces = {}};
  return AnswerChange(member_, changer_, change, context, response);
}

grpc::ServerUnaryReactor* ClusterService::MemberUpdate(
    grpc::CallbackServerContext* context, const etcdserverpb::MemberUpdateRequest* request,
    etcdserverpb::MemberUpdateResponse* response) {
  absl::StatusOr<std::vector<std::string>> urls = CheckedPeerUrls(
      std::vector<std::string>(request->peerurls().begin(), request->peerurls().end()));
  if (!urls.ok()) return FinishWith(context, ToGrpc(urls.status()));
  const raft::MemberChange change = {.kind = Kind::kUpdate,
                                     .id = NodeId(request->id()),
                                     .peer_urls = *std::move(urls),
                                     .replaces = {}};
  return AnswerChange(member_, changer_, change, context, response);
}

grpc::ServerUnaryReactor* ClusterService::MemberPromote(
    grpc::CallbackServerContext* context, const etcdserverpb::MemberPromoteRequest* request,
    etcdserverpb::MemberPromoteResponse* response) {
  const raft::MemberChange change = {
      .kind = Kind::kPromote, .id = NodeId(request->id()), .peer_urls = {}, .replaces = {}};
  return AnswerChange(member_, changer_, change, context, response);
}

}  // namespace holdfast::server
