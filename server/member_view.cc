#include "server/member_view.h"

#include <optional>
#include <utility>

namespace holdfast::server {

absl::Status Admit(const MemberView& member, const grpc::CallbackServerContext& context,
                   Admission::Call call) {
  return member.admission == nullptr ? absl::OkStatus() : member.admission->Admit(context, call);
}

void FillClusterHeader(const MemberView& member, Term term, etcdserverpb::ResponseHeader* header) {
  header->set_cluster_id(member.cluster_id);
  header->set_member_id(member.self.value);
  header->set_raft_term(term.value);
}

void FillMembers(const MemberView& member, const raft::Membership& membership,
                 google::protobuf::RepeatedPtrField<etcdserverpb::Member>* members) {
  for (const NodeId id : membership.All()) {
    etcdserverpb::Member* entry = members->Add();
    entry->set_id(id.value);
    entry->set_islearner(!membership.IsVoter(id));
    if (const auto urls = membership.peer_urls.find(id); urls != membership.peer_urls.end()) {
      entry->mutable_peerurls()->Assign(urls->second.begin(), urls->second.end());
    }
    if (std::optional<MemberAttributes> published = member.machine->member(id.value)) {
      entry->set_name(std::move(published->name));
      entry->mutable_clienturls()->Assign(published->client_urls.begin(),
                                          published->client_urls.end());
    }
  }
}

grpc::ServerUnaryReactor* FinishWith(grpc::CallbackServerContext* context,
                                     const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace holdfast::server
