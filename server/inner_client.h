// The server as its own client: etcd's public calls, made over a channel, never blocking.
//
// Threads: all methods from any thread. `done` is called exactly once, on a gRPC thread or inside
// the call itself, with the call's status and its answer (which is valid during the callback; empty
// unless the status is OK).
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/caller_terms.h"

namespace holdfast::server {

class InnerClient {
 public:
  // Longer than the server takes for its slowest answer ("request timed out" after 5 s and two
  // election timeouts): ends only calls whose answer is lost.
  static constexpr std::chrono::milliseconds kCallMax{30'000};

  // TryCancel() on it cancels the call, at any time.
  using Call = std::shared_ptr<grpc::ClientContext>;
  template <class Response>
  using Done = std::function<void(const absl::Status&, Response*)>;

  struct Stubs {
    explicit Stubs(const std::shared_ptr<grpc::Channel>& channel);
    const std::unique_ptr<etcdserverpb::KV::Stub> kv;
    const std::unique_ptr<etcdserverpb::Watch::Stub> watch;
    const std::unique_ptr<etcdserverpb::Lease::Stub> lease;
  };

  // Until a channel is set, every call is answered Unavailable. Set once.
  void SetChannel(const std::shared_ptr<grpc::Channel>& channel);
  std::shared_ptr<const Stubs> stubs() const;  // null before SetChannel
  static absl::Status NotReady();

  Call Range(const CallerTerms& terms, const etcdserverpb::RangeRequest& request,
             Done<etcdserverpb::RangeResponse> done);
  Call DeleteRange(const CallerTerms& terms, const etcdserverpb::DeleteRangeRequest& request,
                   Done<etcdserverpb::DeleteRangeResponse> done);
  Call Txn(const CallerTerms& terms, const etcdserverpb::TxnRequest& request,
           Done<etcdserverpb::TxnResponse> done);
  Call Grant(const CallerTerms& terms, const etcdserverpb::LeaseGrantRequest& request,
             Done<etcdserverpb::LeaseGrantResponse> done);
  Call Revoke(const CallerTerms& terms, const etcdserverpb::LeaseRevokeRequest& request,
              Done<etcdserverpb::LeaseRevokeResponse> done);
  // One renewal, on a stream of its own. An answer with TTL 0: there is no such lease.
  Call KeepAliveOnce(const CallerTerms& terms, int64_t lease,
                     Done<etcdserverpb::LeaseKeepAliveResponse> done);

 private:
  template <class Service, class Request, class Response>
  Call Start(const std::unique_ptr<Service> Stubs::*service,
             void (Service::async::*method)(grpc::ClientContext*, const Request*, Response*,
                                            std::function<void(grpc::Status)>),
             const CallerTerms& terms, const Request& request, Done<Response> done);

  mutable absl::Mutex mutex_;
  std::shared_ptr<const Stubs> stubs_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::server
