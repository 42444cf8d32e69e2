// Asynchronous unary calls of etcdserverpb.KV: all clients of a worker on one completion queue,
// so that a thread, and not a thread for each client, carries them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/keys.h"
#include "bench/transport.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::bench {

// TCP connections, spread evenly over the endpoints. Threads: all.
class Connections {
 public:
  // Opens `count` connections and waits until all are up; Unavailable names one that is not.
  // REQUIRES: count > 0, endpoints not empty.
  static absl::StatusOr<std::unique_ptr<Connections>> Open(
      const std::vector<std::string>& endpoints, size_t count, absl::Duration timeout);

  size_t size() const { return stubs_.size(); }
  etcdserverpb::KV::Stub& stub(size_t i) const { return *stubs_[i]; }

 private:
  std::vector<std::unique_ptr<etcdserverpb::KV::Stub>> stubs_;
};

struct TransportOptions {
  uint32_t slots = 1;
  size_t first_connection = 0;  // slot s uses connection (first_connection + s) % count
  // Of gets and scans. REQUIRES: not kMirror.
  ReadLevel read = ReadLevel::kLinearizable;
  absl::Duration timeout = absl::Seconds(10);  // of one call, kept by CancelOverdue()
};

// `connections` and `shape` must live longer.
std::unique_ptr<Transport> NewGrpcTransport(const Connections& connections, const DataShape& shape,
                                            const TransportOptions& options);

}  // namespace holdfast::bench
