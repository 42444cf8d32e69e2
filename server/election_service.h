// etcd's Election service (v3electionpb): candidates for a name lead one after the other, in the
// order of their keys' creation. Built from the server's public calls alone (InnerClient), which
// are made with the caller's identity and end with his call.
//
// Answers, texts and codes are etcd's; docs/election-lock.md says where ours are better.
#pragma once

#include <memory>
#include <utility>

#include "etcd/election.grpc.pb.h"
#include "server/waiting_calls.h"

namespace holdfast::server {

class ElectionService : public v3electionpb::Election::CallbackService {
 public:
  explicit ElectionService(std::shared_ptr<WaitingCalls> calls) : calls_(std::move(calls)) {}

  grpc::ServerUnaryReactor* Campaign(grpc::CallbackServerContext* context,
                                     const v3electionpb::CampaignRequest* request,
                                     v3electionpb::CampaignResponse* response) override;
  grpc::ServerUnaryReactor* Proclaim(grpc::CallbackServerContext* context,
                                     const v3electionpb::ProclaimRequest* request,
                                     v3electionpb::ProclaimResponse* response) override;
  grpc::ServerUnaryReactor* Leader(grpc::CallbackServerContext* context,
                                   const v3electionpb::LeaderRequest* request,
                                   v3electionpb::LeaderResponse* response) override;
  grpc::ServerWriteReactor<v3electionpb::LeaderResponse>* Observe(
      grpc::CallbackServerContext* context, const v3electionpb::LeaderRequest* request) override;
  grpc::ServerUnaryReactor* Resign(grpc::CallbackServerContext* context,
                                   const v3electionpb::ResignRequest* request,
                                   v3electionpb::ResignResponse* response) override;

 private:
  const std::shared_ptr<WaitingCalls> calls_;
};

}  // namespace holdfast::server
