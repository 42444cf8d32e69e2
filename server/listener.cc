#include "server/listener.h"

#include <fmt/format.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>

namespace holdfast::server {
namespace {

// etcd's: what a message may have besides the request itself.
constexpr size_t kMessageOverheadBytes = 512 * 1024;
// A client that has more calls open on one connection waits in its own queue.
constexpr int kStreamsPerConnectionMax = 10'000;
// Of all clients' messages together; beyond it gRPC slows reading down.
constexpr size_t kClientMessagesBytesMax = size_t{512} << 20;
// etcd's --grpc-keepalive-min-time.
constexpr int kClientPingMinMs = 5'000;
constexpr int kBacklog = 1;

absl::Status Explain(int error, std::string_view flag, const Url& url) {
  const std::string what = fmt::format("cannot listen on {}: ", url.ToString());
  switch (error) {
    case EADDRINUSE:
      return absl::FailedPreconditionError(fmt::format(
          "{}address in use by another process: stop that one, or choose another port in --{} "
          "(`ss -ltnp` shows who listens)",
          what, flag));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(fmt::format(
          "{}{}: ports below 1024 need root; choose another in --{}", what, strerror(error), flag));
    case EADDRNOTAVAIL:
      return absl::NotFoundError(fmt::format(
          "{}this machine has no such address: write one it has, or http://0.0.0.0:{}, in --{}",
          what, url.port, flag));
    default:
      return absl::InternalError(fmt::format("{}{} (--{})", what, strerror(error), flag));
  }
}

// 0, or errno.
int TryToListen(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (address.ai_family == AF_INET6) {
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
  }
  const bool ok = bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, kBacklog) == 0;
  const int error = ok ? 0 : errno;
  close(fd);
  return error;
}

absl::Status CheckOne(std::string_view flag, const Url& url) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const std::string port = fmt::format("{}", url.port);
  if (const int error = getaddrinfo(url.host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::NotFoundError(
        fmt::format("cannot listen on {}: the host is not known here: {}; write an address of this "
                    "machine in --{}",
                    url.ToString(), gai_strerror(error), flag));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  bool any = false;
  int last_error = 0;
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int error = TryToListen(*address);
    if (error == 0) {
      any = true;
    } else if (error == EADDRNOTAVAIL || error == EAFNOSUPPORT) {
      last_error = error;  // a name may have an IPv6 address where IPv6 is off
    } else {
      return Explain(error, flag, url);
    }
  }
  return any ? absl::OkStatus() : Explain(last_error, flag, url);
}

void SetClientArguments(const ListenerOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(
      static_cast<int>(options.max_request_bytes + kMessageOverheadBytes));
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              kClientPingMinMs);
  // Clients that only watch, or wait, may ping too.
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  grpc::ResourceQuota quota("clients");
  quota.Resize(kClientMessagesBytesMax);
  builder->SetResourceQuota(quota);
}

}  // namespace

absl::Status CheckCanListen(std::string_view flag, const std::vector<Url>& urls) {
  for (const Url& url : urls) {
    if (absl::Status status = CheckOne(flag, url); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<Listener> Listen(const ListenerOptions& options) {
  if (absl::Status status = CheckCanListen(options.flag, options.urls); !status.ok()) {
    return status;
  }
  // Builders ask for it when they are made.
  grpc::EnableDefaultHealthCheckService(options.callers == Callers::kClients);
  grpc::ServerBuilder builder;
  builder.SetMaxSendMessageSize(INT_MAX);
  // Two members on one port would share its connections by chance.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  if (options.callers == Callers::kClients) {
    SetClientArguments(options, &builder);
  } else {
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
      return Explain(EADDRINUSE, options.flag, options.urls[i]);
    }
    listener.bound[i].port = static_cast<uint16_t>(ports[i]);
  }
  return listener;
}

}  // namespace holdfast::server
