// What the other members ask this one about the membership (PeerMembers in holdfast/raft.proto).
//
// Threads: gRPC's, which are blocked meanwhile: these calls are rare. The changer's Stop ends those
// that wait for a change; a question waits kReadWaitMax at most.
#pragma once

#include <functional>

#include "absl/time/time.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/member_changer.h"
#include "server/member_view.h"

namespace holdfast::server {

class PeerMemberService final : public raft::v1::PeerMembers::Service {
 public:
  // For an answer that is certainly not old.
  static constexpr absl::Duration kReadWaitMax = absl::Seconds(1);

  // All outlive the service.
  PeerMemberService(const MemberView& member, MemberChanger* changer)
      : member_(member), changer_(changer) {}

  grpc::Status Members(grpc::ServerContext* context, const raft::v1::MembersRequest* request,
                       raft::v1::MembersReply* reply) override;
  // FailedPrecondition: meant for another member or cluster.
  grpc::Status ChangeMembers(grpc::ServerContext* context,
                             const raft::v1::ChangeMembersRequest* request,
                             raft::v1::ChangeMembersReply* reply) override;

 private:
  bool ReadRound() const;

  const MemberView member_;
  MemberChanger* const changer_;
};

}  // namespace holdfast::server
