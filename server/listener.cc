#include "server/listener.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <cerrno>
#include <climits>

namespace holdfast::server {
namespace {

// A client that has more calls open on one connection waits in its own queue.
constexpr int kStreamsPerConnectionMax = 10'000;
// Of all clients' messages together; beyond it gRPC slows reading down.
constexpr size_t kClientMessagesBytesMax = size_t{512} << 20;
// etcd's --grpc-keepalive-min-time.
constexpr int kClientPingMinMs = 5'000;

}  // namespace

// Builders ask for it when they are made.
void PrepareClientBuilder() { grpc::EnableDefaultHealthCheckService(true); }

void ConfigureClientServer(size_t max_request_bytes, grpc::ServerBuilder* builder) {
  builder->SetMaxSendMessageSize(INT_MAX);
  builder->SetMaxReceiveMessageSize(static_cast<int>(max_request_bytes + kMessageOverheadBytes));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kClientPingMinMs);
  // Clients that only watch, or wait, may ping too.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  grpc::ResourceQuota quota("clients");
  quota.Resize(kClientMessagesBytesMax);
  builder->SetResourceQuota(quota);
}

absl::StatusOr<Listener> Listen(const ListenerOptions& options) {
  if (absl::Status status = CheckCanListen(options.flag, options.urls); !status.ok()) {
    return status;
  }
  grpc::EnableDefaultHealthCheckService(options.callers == Callers::kClients);
  grpc::ServerBuilder builder;
  // Two members on one port would share its connections by chance.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  if (options.callers == Callers::kClients) {
    ConfigureClientServer(options.max_request_bytes, &builder);
  } else {
    builder.SetMaxSendMessageSize(INT_MAX);
    options.configure_peers(&builder);
  }
  std::vector<int> ports(options.urls.size(), 0);
  for (size_t i = 0; i < options.urls.size(); ++i) {
    builder.AddListeningPort(options.urls[i].Address(), grpc::InsecureServerCredentials(),
                             &ports[i]);
  }
  for (grpc::Service* service : options.services) builder.RegisterService(service);

  Listener listener{.server = builder.BuildAndStart(), .bound = options.urls};
  for (size_t i = 0; i < ports.size(); ++i) {
    // Taken between the check above and now.
    if (listener.server == nullptr || ports[i] == 0) {
      return ExplainListen(EADDRINUSE, options.flag, options.urls[i]);
    }
    listener.bound[i].port = static_cast<uint16_t>(ports[i]);
  }
  return listener;
}

}  // namespace holdfast::server
