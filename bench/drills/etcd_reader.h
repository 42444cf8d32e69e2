// The plain client that june-12 and november-18 are compared with: raw Range calls of the etcd v3
// API, as every etcd client makes them. It keeps no copy.
//
// A read asks the endpoint that answered last; if that fails it asks the others once each, within
// one deadline. That is more patient than most clients' defaults, and less than waiting for ever.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::bench {

// Threads: one.
class EtcdReader {
 public:
  explicit EtcdReader(const std::vector<std::string>& endpoints);

  static constexpr absl::Duration kDeadline = absl::Seconds(2);    // of a read
  static constexpr absl::Duration kTryTimeout = absl::Seconds(1);  // of one endpoint's

  struct Answer {
    std::string value;
    uint64_t mod_revision = 0;  // 0: there is no such key
    uint64_t revision = 0;      // the header's
  };
  // gRPC's code and text of the last endpoint asked.
  absl::StatusOr<Answer> Get(const std::string& key, bool serializable);
  absl::Status Put(const std::string& key, const std::string& value);

 private:
  absl::Status Ask(
      const std::function<grpc::Status(etcdserverpb::KV::Stub&, grpc::ClientContext*)>& call);

  std::vector<std::unique_ptr<etcdserverpb::KV::Stub>> stubs_;
  size_t at_ = 0;
};

}  // namespace holdfast::bench
