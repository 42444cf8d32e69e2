// Where clients come in: gRPC and HTTP/1.1 on one port, and the ports that only serve metrics.
//
//   accept ──► first bytes ──► HTTP/2 ──► gRPC server ◄── in-process channel ── JSON gateway
//                        └──► HTTP/1.1 ──► /v3/... /health /livez /readyz /version /metrics ──┘
// Threads: all. Two small loops of its own (accept, http); gRPC's beside them.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/client_acceptor.h"
#include "server/gateway.h"
#include "server/health.h"
#include "server/http_server.h"
#include "server/metrics.h"
#include "server/rpc_metrics.h"
#include "server/url.h"

namespace holdfast::server {

class ClientPort {
 public:
  struct Options {
    std::string_view flag;  // where `urls` come from, for errors
    std::vector<Url> urls;
    std::string_view metrics_flag;
    std::vector<Url> metrics_urls;         // may be empty
    std::vector<grpc::Service*> services;  // outlive the port
    size_t max_request_bytes = 0;
    HealthSources health;
    RpcMetrics* rpc_metrics = nullptr;  // null: calls are not counted; outlives the port
    // The page of /metrics; null: there is none. Outlives the port.
    MetricsRegistry* metrics = nullptr;
  };
  // Errors as ListenSockets::Open.
  static absl::StatusOr<std::unique_ptr<ClientPort>> Open(const Options& options);
  ~ClientPort();

  const std::vector<Url>& bound() const { return bound_; }  // port 0 replaced
  const std::vector<Url>& metrics_bound() const { return metrics_bound_; }
  grpc::Server* server() const { return server_.get(); }

  // No connection is accepted any more; calls under way, gRPC's and HTTP's, get until `deadline`,
  // then they are cut. Blocks until all are gone. Idempotent.
  void Shutdown(std::chrono::system_clock::time_point deadline);

 private:
  explicit ClientPort(const Options& options);
  absl::Status StartAll(const Options& options);
  absl::StatusOr<std::vector<ClientAcceptor::Port>> OpenSockets(const Options& options);
  void StartGrpc(const Options& options);
  void Handle(HttpRequest request, std::shared_ptr<HttpExchange> exchange, bool metrics_only);
  void GiveToGrpc(int fd);

  MetricsRegistry* const metrics_;
  Health health_;
  std::vector<Url> bound_;
  std::vector<Url> metrics_bound_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> grpc_acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Gateway> gateway_;
  // Metrics ports have a server of their own, so that clients cannot take its connections away.
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<HttpServer> metrics_http_;
  std::unique_ptr<ClientAcceptor> acceptor_;
};

}  // namespace holdfast::server
