// How the calls that change the membership are answered: the same for etcd's and for ours.
#pragma once

#include <utility>

#include "server/etcd_errors.h"
#include "server/grpc_status.h"
#include "server/member_changer.h"
#include "server/member_view.h"
#include "server/read_terms.h"

namespace holdfast::server {

// Header and members.
template <class Response>
void FillAnswer(const MemberView& member, const raft::Membership& membership, Response* response) {
  FillClusterHeader(member, member.node->status().term, response->mutable_header());
  FillMembers(member, membership, response->mutable_members());
}

// Makes the change, then answers with all members, and with the new one where there is one.
template <class Response>
grpc::ServerUnaryReactor* AnswerChange(const MemberView& member, MemberChanger* changer,
                                       const raft::MemberChange& change,
                                       grpc::CallbackServerContext* context, Response* response) {
  if (absl::Status status = Admit(member, *context, Admission::Call::kAdmin); !status.ok()) {
    return FinishWith(context, ToGrpc(status));
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  changer->Change(
      change, [member, id = change.id.value, response, reactor](MemberChanger::Result membership) {
        if (membership.ok()) {
          FillAnswer(member, *membership, response);
          if constexpr (requires { response->mutable_member(); }) {
            for (const etcdserverpb::Member& one : response->members()) {
              if (one.id() == id) *response->mutable_member() = one;
            }
          }
        }
        reactor->Finish(ToGrpc(membership.status()));
      });
  return reactor;
}

}  // namespace holdfast::server
