// etcd's Watch service over the hub: gRPC's side of each stream.
//
// Responses arrive encoded and are written as raw bytes; large events are shared with all other
// streams that send them. One write is in flight a stream, and everything else waits in the hub's
// queue, whose limit is what holds a slow client back: its reader takes no request meanwhile.
// An end of the client's half of the stream does not end the watches (etcd's): its gateway relies
// on it.
// Threads: gRPC's. Nothing blocks but Stop.
#pragma once

#include <memory>

#include <grpcpp/impl/codegen/service_type.h>

#include "absl/time/time.h"
#include "server/admission.h"
#include "server/watch_hub.h"

namespace holdfast::server {

class WatchService {
 public:
  // How long Stop waits for clients to take the end of their streams, before it cuts them off.
  static constexpr absl::Duration kStopGrace = absl::Milliseconds(500);

  // Both must outlive the service, and the gRPC server that it is registered with.
  static std::unique_ptr<WatchService> Create(WatchHub* hub, const Admission* admission);
  virtual ~WatchService() = default;

  // To be registered with the server that listens on the client address.
  virtual grpc::Service* service() = 0;

  // Ends all streams and refuses new ones; none is left when it returns (bounded in time). Before
  // the gRPC server is shut down. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace holdfast::server
