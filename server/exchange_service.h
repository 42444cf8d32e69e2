// The batch door: holdfast.v1.Exchange (api/holdfast/exchange.proto, docs/exchange.md). Decodes a
// batch, hands all its writes to the pipeline at once, asks for one read index for all its reads,
// and sends replies as they come: whatever waits while a message is on its way goes with the next.
//
// The rules are those of the unary door (server/kv_service.h), by the same functions: kv_validate,
// Admission, KvReads, RequestPipeline.
//
// Limits, of each stream: Options. No queue can grow: requests are not read while
// max_bytes_under_way of them are unanswered or max_bytes_unread of replies are unsent, and the
// memory of long answers is KvReads'.
// Threads: gRPC's, the pipeline's responders, KvReads' scan threads, and one that looks after
// requests with a timeout of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <grpcpp/impl/codegen/service_type.h>

#include "absl/time/time.h"
#include "base/clock.h"
#include "replication/raft_node.h"
#include "server/admission.h"
#include "server/kv_reads.h"
#include "server/metrics.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server {

class ExchangeService {
 public:
  struct Options {
    size_t max_txn_ops = 128;
    size_t max_request_bytes = 1536 * 1024;
    size_t max_bytes_under_way = size_t{8} << 20;
    size_t max_bytes_unread = size_t{4} << 20;
    // A reply larger than this is sent in parts of about this size.
    size_t part_bytes = size_t{64} << 10;
    // How often timeouts are looked at, while there are requests that have one.
    absl::Duration sweep_interval = absl::Milliseconds(20);
    base::Clock* clock = base::RealClock::Get();
  };
  // All must outlive the service.
  static std::unique_ptr<ExchangeService> Create(const Options& options, raft::RaftNode* node,
                                                 RequestPipeline* pipeline, KvStateMachine* machine,
                                                 const Admission* admission, KvReads* reads);
  virtual ~ExchangeService() = default;

  // To be registered with the server that listens on the client address.
  virtual grpc::Service* service() = 0;
  virtual void RegisterMetrics(MetricsRegistry* registry) = 0;
  // No stream takes requests any more; each ends with ErrStopped once what it took is answered (the
  // pipeline's Stop sees to that). Before the gRPC server is shut down. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
