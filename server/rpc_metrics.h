// grpc_server_*: how many calls of each method started, and how each ended.
//
// A gRPC interceptor that only counts. Every known method has its counters from the start, so a
// call looks them up once (a map that never changes) and then adds to atomics.
// Threads: all.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_interceptor.h>

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/metrics.h"

namespace holdfast::server {

class RpcMetrics {
 public:
  // Of every service that is linked into this program, by descriptor ("etcdserverpb.KV"); unknown
  // names are passed over.
  explicit RpcMetrics(const std::vector<std::string>& services);
  ~RpcMetrics();

  // For ServerBuilder::experimental().SetInterceptorCreators. Outlived by this object.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> NewInterceptorFactory();

  void Register(MetricsRegistry* registry) const;

  static constexpr int kCodes = 17;  // OK to UNAUTHENTICATED
  struct Method {
    std::string service, method, type;
    Counter started;
    Counter received;  // messages
    Counter sent;
    std::array<Counter, kCodes> handled;
  };
  // Null: not a method of those services. `path` as on the wire, "/etcdserverpb.KV/Put".
  Method* Find(std::string_view path) const;
  // Calls that ended with OK.
  uint64_t Succeeded(std::string_view path) const;

 private:
  std::vector<std::unique_ptr<Method>> methods_;  // in the order of the descriptors
  absl::flat_hash_map<std::string, Method*> by_path_;
};

}  // namespace holdfast::server
