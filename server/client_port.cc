#include "server/client_port.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "base/log.h"
#include "server/listener.h"
#include "server/version.h"

namespace holdfast::server {
namespace {

constexpr size_t kMetricsConnectionsMax = 64;

// The metrics ports' acceptor hands every connection to the second server: the acceptor knows them
// by `http_only`, and looks at no bytes there.
HttpServer::Options HttpOptions(size_t max_body_bytes, HttpServer::Handler handler) {
  HttpServer::Options options;
  options.handler = std::move(handler);
  options.max_body_bytes = max_body_bytes;
  return options;
}

HttpResponse Version() {
  return {.content_type = "application/json",
          .body = fmt::format(R"({{"etcdserver":"{}","etcdcluster":"{}.0"}})", kEtcdApiVersion,
                              kEtcdClusterVersion)};
}

}  // namespace

ClientPort::ClientPort(const Options& options)
    : metrics_(options.metrics), health_(options.health) {
  if (metrics_ != nullptr) health_.Register(metrics_);
}

ClientPort::~ClientPort() { Shutdown(std::chrono::system_clock::now()); }

absl::StatusOr<std::unique_ptr<ClientPort>> ClientPort::Open(const Options& options) {
  std::unique_ptr<ClientPort> port(new ClientPort(options));
  if (absl::Status status = port->StartAll(options); !status.ok()) return status;
  return port;
}

absl::StatusOr<std::vector<ClientAcceptor::Port>> ClientPort::OpenSockets(const Options& options) {
  std::vector<ClientAcceptor::Port> ports;
  const auto open = [&ports](std::string_view flag, std::vector<Url> urls, std::vector<Url>* bound,
                             bool http_only) {
    for (Url& url : urls) {
      absl::StatusOr<ListenSockets> sockets = ListenSockets::Open(flag, &url);
      if (!sockets.ok()) return sockets.status();
      ports.push_back({.sockets = *std::move(sockets), .http_only = http_only});
      bound->push_back(url);
    }
    return absl::OkStatus();
  };
  absl::Status status = open(options.flag, options.urls, &bound_, false);
  if (status.ok()) {
    status = open(options.metrics_flag, options.metrics_urls, &metrics_bound_, true);
  }
  if (!status.ok()) return status;
  return ports;
}

void ClientPort::StartGrpc(const Options& options) {
  PrepareClientBuilder();
  grpc::ServerBuilder builder;
  ConfigureClientServer(options.max_request_bytes, &builder);
  if (options.rpc_metrics != nullptr) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(options.rpc_metrics->NewInterceptorFactory());
    builder.experimental().SetInterceptorCreators(std::move(creators));
  }
  grpc_acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
      grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
      grpc::InsecureServerCredentials());
  for (grpc::Service* service : options.services) builder.RegisterService(service);
  server_ = builder.BuildAndStart();
}

absl::Status ClientPort::StartAll(const Options& options) {
  absl::StatusOr<std::vector<ClientAcceptor::Port>> ports = OpenSockets(options);
  if (!ports.ok()) return ports.status();
  StartGrpc(options);
  if (server_ == nullptr) return absl::InternalError("gRPC could not start its server");
  const size_t max_body_bytes = options.max_request_bytes + kMessageOverheadBytes;
  gateway_ = std::make_unique<Gateway>(Gateway::Options{.max_request_bytes = max_body_bytes},
                                       GatewayRoutes(),
                                       server_->InProcessChannel(Gateway::ChannelArguments()));

  const auto handler = [this](bool metrics_only) {
    return [this, metrics_only](HttpRequest request, std::shared_ptr<HttpExchange> exchange) {
      Handle(std::move(request), std::move(exchange), metrics_only);
    };
  };
  HttpServer::Options http = HttpOptions(max_body_bytes, handler(false));
  http.streams_body = [this](const HttpRequest& request) { return gateway_->StreamsBody(request); };
  absl::StatusOr<std::unique_ptr<HttpServer>> started = HttpServer::Start(http);
  if (!started.ok()) return started.status();
  http_ = *std::move(started);
  if (!metrics_bound_.empty()) {
    HttpServer::Options only = HttpOptions(0, handler(true));
    only.max_connections = kMetricsConnectionsMax;
    started = HttpServer::Start(only);
    if (!started.ok()) return started.status();
    metrics_http_ = *std::move(started);
  }

  ClientAcceptor::Options acceptor;
  acceptor.on_http2 = [this](int fd) { GiveToGrpc(fd); };
  acceptor.on_http1 = [this](int fd) { http_->Take(fd); };
  acceptor.on_http_only = [this](int fd) { metrics_http_->Take(fd); };
  absl::StatusOr<std::unique_ptr<ClientAcceptor>> accepting =
      ClientAcceptor::Start(acceptor, *std::move(ports));
  if (!accepting.ok()) return accepting.status();
  acceptor_ = *std::move(accepting);
  return absl::OkStatus();
}

void ClientPort::GiveToGrpc(int fd) {
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
  connection.fd = fd;
  grpc_acceptor_->HandleNewConnection(&connection);
}

void ClientPort::Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange,
                        bool metrics_only) {
  if (Health::Serves(request.path)) return health_.Handle(request, std::move(exchange));
  const bool reads = request.method == "GET" || request.method == "HEAD";
  if (request.path == "/version") {
    return exchange->Send(reads ? Version() : PlainError(405, "Method Not Allowed"));
  }
  if (request.path == "/metrics" && metrics_ != nullptr) {
    if (!reads) return exchange->Send(PlainError(405, "Method Not Allowed"));
    return exchange->Send(
        {.content_type = std::string(kMetricsContentType), .body = metrics_->Scrape()});
  }
  if (!metrics_only && Gateway::Serves(request.path)) {
    return gateway_->Handle(std::move(request), std::move(exchange));
  }
  exchange->Send(PlainError(404, "404 page not found"));
}

void ClientPort::Shutdown(std::chrono::system_clock::time_point deadline) {
  if (acceptor_ != nullptr) acceptor_->Stop();
  if (server_ == nullptr) return;
  // HTTP first and beside gRPC: its calls are gRPC calls too, and gRPC waits for them.
  std::vector<std::thread> stopping;
  const auto grace =
      std::max(std::chrono::milliseconds(0), std::chrono::duration_cast<std::chrono::milliseconds>(
                                                 deadline - std::chrono::system_clock::now()));
  for (HttpServer* http : {http_.get(), metrics_http_.get()}) {
    if (http != nullptr) stopping.emplace_back([http, grace] { http->Stop(grace); });
  }
  server_->Shutdown(deadline);
  for (std::thread& thread : stopping) thread.join();
}

}  // namespace holdfast::server
