// RangeStream (etcd 3.7): a range of any size in parts, with bounded memory on both sides.
//
// The revision is the newest at the first part, unless the request names one, and stays. Each part
// is read on a view of its own when the one before is on its way, so a slow caller pins nothing; a
// compaction that passes the revision meanwhile ends the stream with etcd's ErrCompacted.
// Merging all parts gives what Range answers; header, more and count come with the last.
// Threads: parts are read on the scan pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "etcd/rpc.pb.h"
#include "replication/raft_node.h"
#include "server/admission.h"
#include "server/request_pipeline.h"
#include "server/scan_pool.h"
#include "server/state_machine.h"

namespace holdfast::server {

// Everything pointed at outlives the stream.
struct RangeStreamOptions {
  uint64_t cluster_id = 0;
  uint64_t member_id = 0;
  size_t part_bytes = size_t{1} << 20;
  const raft::RaftNode* node = nullptr;
  RequestPipeline* pipeline = nullptr;
  KvStateMachine* machine = nullptr;
  const Admission* admission = nullptr;
  ScanPool* scans = nullptr;
  std::function<void(const absl::Status&)> on_damage = nullptr;
};

grpc::ServerWriteReactor<etcdserverpb::RangeStreamResponse>* StartRangeStream(
    grpc::CallbackServerContext* context, const etcdserverpb::RangeRequest* request,
    RangeStreamOptions options);

}  // namespace holdfast::server
