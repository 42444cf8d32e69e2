// One keep-alive stream of a client. See lease_service.h.
//
// Threads: gRPC's and the router's; all methods from any thread.
// Lifetime: gRPC's reactor, which deletes itself. What the router still holds of a stream that is
// gone is a weak reference to its core.
#pragma once

#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/lease_router.h"
#include "server/member_view.h"

namespace holdfast::server {

class LeaseStream;

// The streams that are open, to be ended from outside. Threads: all.
class LeaseStreams {
 public:
  // False: closed for good.
  bool Add(LeaseStream* stream);
  void Remove(LeaseStream* stream);
  // Ends them all, or those that want a leader.
  void EndAll(const absl::Status& status, bool only_leader_wanting);
  // As EndAll; and streams that come later are refused.
  void Close(const absl::Status& status);

 private:
  absl::Mutex mutex_;
  std::set<LeaseStream*> streams_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// A stream that serves. `wants_leader`: it was opened with hasleader.
grpc::ServerBidiReactor<etcdserverpb::LeaseKeepAliveRequest, etcdserverpb::LeaseKeepAliveResponse>*
NewLeaseStream(const MemberView& member, LeaseRouter* router, LeaseStreams* streams,
               bool wants_leader);
// A stream that ends at once.
grpc::ServerBidiReactor<etcdserverpb::LeaseKeepAliveRequest, etcdserverpb::LeaseKeepAliveResponse>*
NewRefusedLeaseStream(const absl::Status& status);

}  // namespace holdfast::server
