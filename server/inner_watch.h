// A Watch stream for one purpose: its watches are created at once, its answers are asked for one by
// one (so that a slow taker holds the server up by TCP's means, not by memory here).
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/caller_terms.h"
#include "server/inner_client.h"

namespace holdfast::server {

// Threads: Next and Cancel one at a time, on any thread. The callbacks come on gRPC's threads or
// inside Start, one at a time. The stream keeps itself alive until on_end.
class InnerWatch {
 public:
  using OnResponse = std::function<void(etcdserverpb::WatchResponse)>;
  using OnEnd = std::function<void(const absl::Status&)>;

  // Asks for the first answer too. on_end comes exactly once and last, also after Cancel; the end
  // of a stream that nobody cancelled is never OK.
  static std::shared_ptr<InnerWatch> Start(const InnerClient& client, const CallerTerms& terms,
                                           std::vector<etcdserverpb::WatchCreateRequest> watches,
                                           OnResponse on_response, OnEnd on_end);

  virtual ~InnerWatch() = default;
  // Asks for the next answer: once after each on_response.
  virtual void Next() = 0;
  // Idempotent.
  virtual void Cancel() = 0;
};

// Why the server cancelled a watch, for one that was not compacted away.
absl::Status CancelStatus(const etcdserverpb::WatchResponse& response);

}  // namespace holdfast::server
