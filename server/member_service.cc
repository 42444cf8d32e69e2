#include "server/member_service.h"

#include <string>
#include <vector>

#include "server/etcd_errors.h"
#include "server/member_answer.h"
#include "server/member_rules.h"

namespace holdfast::server {
namespace {

using Kind = raft::MemberChange::Kind;
using holdfast::v1::MemberRole;

}  // namespace

grpc::ServerUnaryReactor* MemberService::MemberReplace(
    grpc::CallbackServerContext* context, const holdfast::v1::MemberReplaceRequest* request,
    holdfast::v1::MemberReplaceResponse* response) {
  std::vector<std::string> asked(request->peer_urls().begin(), request->peer_urls().end());
  if (asked.empty()) {
    const raft::NodeStatus status = member_.node->status();
    const auto old = status.membership->peer_urls.find(NodeId(request->id()));
    if (old == status.membership->peer_urls.end()) {
      return FinishWith(context, ToGrpc(ErrMemberNotFound()));
    }
    asked = old->second;
  }
  absl::StatusOr<std::vector<std::string>> urls = CheckedPeerUrls(asked);
  if (!urls.ok()) return FinishWith(context, ToGrpc(urls.status()));
  const raft::MemberChange change = {.kind = Kind::kReplace,
                                     .id = MemberChanger::NewId(),
                                     .peer_urls = *std::move(urls),
                                     .replaces = NodeId(request->id())};
  return AnswerChange(member_, changer_, change, context, response);
}

grpc::ServerUnaryReactor* MemberService::MemberDemote(
    grpc::CallbackServerContext* context, const holdfast::v1::MemberDemoteRequest* request,
    holdfast::v1::MemberDemoteResponse* response) {
  const raft::MemberChange change = {
      .kind = Kind::kDemote, .id = NodeId(request->id()), .peer_urls = {}, .replaces = {}};
  return AnswerChange(member_, changer_, change, context, response);
}

grpc::ServerUnaryReactor* MemberService::MemberRoles(grpc::CallbackServerContext* context,
                                                     const holdfast::v1::MemberRolesRequest*,
                                                     holdfast::v1::MemberRolesResponse* response) {
  if (absl::Status status = Admit(member_, *context, Admission::Call::kLocal); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  const raft::NodeStatus status = member_.node->status();
  FillClusterHeader(member_, status.term, response->mutable_header());
  for (const NodeId id : status.membership->All()) {
    MemberRole* role = response->add_roles();
    role->set_id(id.value);
    if (status.membership->IsVoter(id)) continue;
    const auto promotion = status.membership->promotions.find(id);
    const bool joining = promotion != status.membership->promotions.end();
    role->set_role(joining ? MemberRole::JOINING : MemberRole::LEARNER);
    if (joining) role->set_replaces(promotion->second.value);
  }
  return FinishWith(context, grpc::Status::OK);
}

}  // namespace holdfast::server
