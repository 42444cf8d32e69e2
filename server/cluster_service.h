// etcd's Cluster service: who the members are, and changing that. Any member takes the calls.
//
// Threads: gRPC's; a linearizable MemberList is answered on the pipeline's responder threads, a
// change on the changer's.
#pragma once

#include "etcd/rpc.grpc.pb.h"
#include "server/member_changer.h"
#include "server/member_view.h"

namespace holdfast::server {

class ClusterService final : public etcdserverpb::Cluster::CallbackService {
 public:
  // `changer` outlives the service, and is stopped before the server that carries it is shut down.
  ClusterService(const MemberView& member, MemberChanger* changer)
      : member_(member), changer_(changer) {}

  // Peer URLs come from the log's membership, names and client URLs from what each member has
  // published (empty before that). Linearizable if asked for, else as this member knows it.
  grpc::ServerUnaryReactor* MemberList(grpc::CallbackServerContext* context,
                                       const etcdserverpb::MemberListRequest* request,
                                       etcdserverpb::MemberListResponse* response) override;

  // The new member is a learner when this answers, whatever was asked for; a voter-to-be gets its
  // vote by itself as soon as it keeps up. Errors of all four: member_changer.h.
  grpc::ServerUnaryReactor* MemberAdd(grpc::CallbackServerContext* context,
                                      const etcdserverpb::MemberAddRequest* request,
                                      etcdserverpb::MemberAddResponse* response) override;
  grpc::ServerUnaryReactor* MemberRemove(grpc::CallbackServerContext* context,
                                         const etcdserverpb::MemberRemoveRequest* request,
                                         etcdserverpb::MemberRemoveResponse* response) override;
  grpc::ServerUnaryReactor* MemberUpdate(grpc::CallbackServerContext* context,
                                         const etcdserverpb::MemberUpdateRequest* request,
                                         etcdserverpb::MemberUpdateResponse* response) override;
  grpc::ServerUnaryReactor* MemberPromote(grpc::CallbackServerContext* context,
                                          const etcdserverpb::MemberPromoteRequest* request,
                                          etcdserverpb::MemberPromoteResponse* response) override;

 private:
  const MemberView member_;
  MemberChanger* const changer_;
};

}  // namespace holdfast::server
