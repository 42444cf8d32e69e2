// One connection of a client's mirrors to one endpoint: loads, and one watch stream for all
// prefixes.
//
// A silent or broken connection is given up as a whole, and the next one is another object with
// another number: what an old one still says is recognised by its number and dropped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/endpoint.h"
#include "client/scheduler.h"
#include "etcd/rpc.pb.h"
#include "holdfast/client.pb.h"

namespace holdfast::internal {

// Hears what the connection brings, on the scheduler's thread, in order per load and per stream.
class UplinkSink {
 public:
  virtual ~UplinkSink() = default;
  virtual void OnLoadPart(uint64_t connection, size_t feed, v1::LoadResponse part) = 0;
  // After the last part, or in place of it. `retry_after`: the server is too busy now.
  virtual void OnLoadEnd(uint64_t connection, size_t feed, const absl::Status& status,
                         std::optional<absl::Duration> retry_after) = 0;
  virtual void OnWatch(uint64_t connection, etcdserverpb::WatchResponse response) = 0;
  virtual void OnWatchEnd(uint64_t connection, const absl::Status& status) = 0;
};

// Threads: the scheduler's.
class Uplink {
 public:
  // Cancels everything; nothing is told any more.
  virtual ~Uplink() = default;

  // One load of a feed at a time. A server without the Mirror service (etcd) is read by pages
  // instead: the head then has no incarnation.
  virtual void Load(size_t feed, const v1::LoadRequest& request, const std::string& klass) = 0;
  // Opens the stream with the first request.
  virtual void Watch(const etcdserverpb::WatchRequest& request) = 0;
  // Best effort.
  virtual void Report(const v1::ReportRequest& request) = 0;
};

class UplinkFactory {
 public:
  virtual ~UplinkFactory() = default;
  // `sink` may go before the connection does.
  virtual std::unique_ptr<Uplink> Connect(const Endpoint& endpoint, uint64_t connection,
                                          std::weak_ptr<UplinkSink> sink) = 0;
};

// Bytes that one stream of a connection may have handed over and the mirrors not yet taken; then it
// reads no further, and the server's flow control holds the rest back.
inline constexpr size_t kUplinkBacklogMax = size_t{16} << 20;
// No answer to a load's next part for so long: it has failed.
inline constexpr absl::Duration kLoadSilenceMax = absl::Seconds(10);

// Connections by gRPC.
std::unique_ptr<UplinkFactory> MakeGrpcUplinks(std::shared_ptr<Scheduler> scheduler);

}  // namespace holdfast::internal
