// etcd's Cluster service: who the members are. Changing them is not in this release.
//
// Threads: gRPC's; a linearizable MemberList is answered on the pipeline's responder threads.
#pragma once

#include "etcd/rpc.grpc.pb.h"
#include "server/member_view.h"

namespace holdfast::server {

class ClusterService final : public etcdserverpb::Cluster::CallbackService {
 public:
  explicit ClusterService(const MemberView& member) : member_(member) {}

  // Peer URLs come from the log's membership, names and client URLs from what each member has
  // published (empty before that). Linearizable if asked for, else as this member knows it.
  grpc::ServerUnaryReactor* MemberList(grpc::CallbackServerContext* context,
                                       const etcdserverpb::MemberListRequest* request,
                                       etcdserverpb::MemberListResponse* response) override;

  // All four: UNIMPLEMENTED, with a text.
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
  void FillMembers(etcdserverpb::MemberListResponse* response) const;

  const MemberView member_;
};

}  // namespace holdfast::server
