#include "server/member_view.h"

namespace holdfast::server {

void FillClusterHeader(const MemberView& member, Term term, etcdserverpb::ResponseHeader* header) {
  header->set_cluster_id(member.cluster_id);
  header->set_member_id(member.self.value);
  header->set_raft_term(term.value);
}

grpc::ServerUnaryReactor* FinishWith(grpc::CallbackServerContext* context,
                                     const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace holdfast::server
