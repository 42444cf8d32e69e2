// What the other members ask this one, as the leader, about leases (PeerLeases in
// holdfast/raft.proto): batches of renewals and questions from their clients (lease_router.h).
//
// Threads: gRPC's, never blocked; answers are given on the lessor's thread.
#pragma once

#include "holdfast/raft.grpc.pb.h"
#include "server/lessor.h"
#include "server/member_view.h"

namespace holdfast::server {

class PeerLeaseService final : public raft::v1::PeerLeases::CallbackService {
 public:
  // `lessor` must be stopped before the server that has this service is.
  PeerLeaseService(const MemberView& member, Lessor* lessor) : member_(member), lessor_(lessor) {}

  // Reply codes, beside the lessor's: Unavailable, meant for another member or cluster, nothing was
  // done; InvalidArgument, more than Lessor::kAskIdsMax ids.
  grpc::ServerUnaryReactor* Renew(grpc::CallbackServerContext* context,
                                  const raft::v1::RenewLeasesRequest* request,
                                  raft::v1::RenewLeasesReply* reply) override;
  grpc::ServerUnaryReactor* Times(grpc::CallbackServerContext* context,
                                  const raft::v1::LeaseTimesRequest* request,
                                  raft::v1::LeaseTimesReply* reply) override;

 private:
  template <class Request, class Reply, class Fill>
  grpc::ServerUnaryReactor* Ask(grpc::CallbackServerContext* context, const Request& request,
                                bool renew, Reply* reply, Fill fill);

  const MemberView member_;
  Lessor* const lessor_;
};

}  // namespace holdfast::server
