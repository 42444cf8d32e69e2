#include "bench/endpoint.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::bench {
namespace {

absl::StatusOr<std::string> ParseEndpoint(std::string_view text) {
  const std::string shown = base::Printable(text);
  constexpr std::string_view kHttp = "http://";
  if (text.starts_with("https://")) {
    return absl::InvalidArgumentError(
        fmt::format("endpoint '{}': TLS is not supported by this tool, use http://", shown));
  }
  if (text.starts_with(kHttp)) text.remove_prefix(kHttp.size());
  if (text.ends_with('/')) text.remove_suffix(1);
  const size_t colon = text.rfind(':');
  const std::string_view host = text.substr(0, colon);
  uint32_t port = 0;
  if (colon == std::string_view::npos || host.empty() ||
      host.find_first_of("/ \t") != std::string_view::npos ||
      (host.find(':') != std::string_view::npos && !host.starts_with('[')) ||
      !absl::SimpleAtoi(base::ToAbsl(text.substr(colon + 1)), &port) || port == 0 || port > 65535) {
    return absl::InvalidArgumentError(
        fmt::format("endpoint '{}': expected host:port, for example 127.0.0.1:2379", shown));
  }
  return std::string(text);
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseEndpoints(std::string_view list) {
  std::vector<std::string> endpoints;
  for (absl::string_view part : absl::StrSplit(base::ToAbsl(list), ',')) {
    absl::StatusOr<std::string> endpoint = ParseEndpoint(base::ToStd(part));
    if (!endpoint.ok()) return endpoint.status();
    endpoints.push_back(*std::move(endpoint));
  }
  if (endpoints.size() > kMaxEndpoints) {
    return absl::InvalidArgumentError(fmt::format("more than {} endpoints", kMaxEndpoints));
  }
  return endpoints;
}

absl::StatusOr<EndpointStatus> GetEndpointStatus(const std::string& endpoint,
                                                 absl::Duration timeout) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  auto stub = etcdserverpb::Maintenance::NewStub(
      grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
  etcdserverpb::StatusResponse reply;
  const grpc::Status status = stub->Status(&context, etcdserverpb::StatusRequest(), &reply);
  if (!status.ok()) {
    return absl::UnavailableError(
        fmt::format("no server answers at {}: {}", endpoint, status.error_message()));
  }
  return EndpointStatus{.version = reply.version(),
                        .member_id = reply.header().member_id(),
                        .leader = reply.leader(),
                        .db_size_bytes = reply.dbsize()};
}

absl::StatusOr<std::vector<std::string>> SelectTargets(const std::vector<std::string>& endpoints,
                                                       bool leader_only, absl::Duration timeout) {
  std::vector<std::string> leaders;
  for (const std::string& endpoint : endpoints) {
    const absl::StatusOr<EndpointStatus> status = GetEndpointStatus(endpoint, timeout);
    if (!status.ok()) return status.status();
    if (status->leader != 0 && status->leader == status->member_id) leaders.push_back(endpoint);
  }
  if (!leader_only) return endpoints;
  if (leaders.empty()) {
    return absl::NotFoundError(
        "--targets leader: none of the endpoints is the leader; name every member");
  }
  return leaders;
}

}  // namespace holdfast::bench
