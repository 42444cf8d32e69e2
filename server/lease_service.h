// etcd's Lease service (docs/lease.md).
//
// Grants and revocations are proposals. Renewals and the time left go to the leader's lessor
// (lease_router.h), from whichever member was asked. The list of leases, and the keys of one, come
// from this member's own data.
// A keep-alive stream may carry many leases' renewals, pipelined: answers come in the order of the
// requests. Beyond kPipelinedMax unanswered ones the stream is not read, so that a client that does
// not read its answers costs no more. A stream ends with ErrNoLeader when a renewal finds none; one
// that was opened with `hasleader: true`, also when it is idle (kLeaderlessTimeoutsMax).
//
// Threads: gRPC's, the pipeline's and the router's; one of its own for answers that read much of
// the store, so that none of the others ever does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <grpcpp/impl/codegen/service_type.h>

#include "absl/time/time.h"
#include "server/admission.h"
#include "server/lease_router.h"
#include "server/member_view.h"

namespace holdfast::server {

class LeaseService {
 public:
  // etcd's. A TTL beyond it is ErrLeaseTtlTooLarge.
  static constexpr int64_t kTtlMaxS = 9'000'000'000;
  // Renewals of one stream that wait for their answers.
  static constexpr size_t kPipelinedMax = 1024;
  // LeaseLeases and the keys of LeaseTimeToLive, beyond which they are ResourceExhausted: what one
  // answer takes in memory is bounded, and a gRPC message is by 2 GiB.
  static constexpr size_t kLeasesAnswerMax = 4'000'000;
  static constexpr size_t kKeysAnswerBytesMax = size_t{512} << 20;
  // Such answers that wait for the thread that gives them; beyond it ErrTooManyRequests.
  static constexpr size_t kScansQueuedMax = 256;
  // etcd's: how long a stream opened with `hasleader` outlives the leader, in election timeouts.
  static constexpr int kLeaderlessTimeoutsMax = 3;

  struct Options {
    absl::Duration heartbeat_interval = absl::Milliseconds(100);
    absl::Duration election_timeout = absl::Seconds(1);
    // A read met rot: the process must stop. Null: tests only.
    std::function<void(const absl::Status&)> on_fatal = nullptr;
  };
  // etcd's: the least TTL, one and a half election timeouts in whole heartbeats and seconds.
  static int64_t MinTtlS(absl::Duration heartbeat_interval, absl::Duration election_timeout);

  // All outlive the service.
  static std::unique_ptr<LeaseService> Create(const Options& options, const MemberView& member,
                                              LeaseRouter* router, const Admission* admission);
  virtual ~LeaseService() = default;

  virtual grpc::Service* service() = 0;
  // Ends all streams with ErrStopped, and refuses what comes later. Before the router's Stop and
  // the server's Shutdown. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
