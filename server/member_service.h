// What Holdfast offers beyond etcd's Cluster service (holdfast/members.proto), on the client port.
//
// Threads: gRPC's; a change is answered on the changer's.
#pragma once

#include "holdfast/members.grpc.pb.h"
#include "server/member_changer.h"
#include "server/member_view.h"

namespace holdfast::server {

class MemberService final : public holdfast::v1::Members::CallbackService {
 public:
  // As ClusterService.
  MemberService(const MemberView& member, MemberChanger* changer)
      : member_(member), changer_(changer) {}

  // Errors of both: member_changer.h.
  grpc::ServerUnaryReactor* MemberReplace(grpc::CallbackServerContext* context,
                                          const holdfast::v1::MemberReplaceRequest* request,
                                          holdfast::v1::MemberReplaceResponse* response) override;
  grpc::ServerUnaryReactor* MemberDemote(grpc::CallbackServerContext* context,
                                         const holdfast::v1::MemberDemoteRequest* request,
                                         holdfast::v1::MemberDemoteResponse* response) override;
  // As this member knows them; at once.
  grpc::ServerUnaryReactor* MemberRoles(grpc::CallbackServerContext* context,
                                        const holdfast::v1::MemberRolesRequest* request,
                                        holdfast::v1::MemberRolesResponse* response) override;

 private:
  const MemberView member_;
  MemberChanger* const changer_;
};

}  // namespace holdfast::server
