// What the services that tell about a member need of it, and what their answers have in common.
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdint>

#include "base/clock.h"
#include "base/ids.h"
#include "etcd/rpc.pb.h"
#include "replication/raft_node.h"
#include "server/admission.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server {

// Everything pointed at outlives the services. Threads: all.
struct MemberView {
  uint64_t cluster_id = 0;
  NodeId self;
  raft::RaftNode* node = nullptr;
  KvStateMachine* machine = nullptr;
  RequestPipeline* pipeline = nullptr;
  const base::Clock* clock = base::RealClock::Get();
  const Admission* admission = nullptr;  // null (tests): every call is admitted
};

// Not OK: what the caller is told (server/admission.h).
absl::Status Admit(const MemberView& member, const grpc::CallbackServerContext& context,
                   Admission::Call call);

// Cluster answers carry no revision, as etcd's.
void FillClusterHeader(const MemberView& member, Term term, etcdserverpb::ResponseHeader* header);

// Everybody in `membership`; names and client URLs are what each has published.
void FillMembers(const MemberView& member, const raft::Membership& membership,
                 google::protobuf::RepeatedPtrField<etcdserverpb::Member>* members);

// A call that ends at once.
grpc::ServerUnaryReactor* FinishWith(grpc::CallbackServerContext* context,
                                     const grpc::Status& status);

}  // namespace holdfast::server
