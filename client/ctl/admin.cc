#include "client/ctl/admin.h"

#include <future>
#include <memory>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grpcpp/client_context.h>

#include "base/strings.h"
#include "client/endpoint.h"
#include "client/grpc_time.h"
#include "client/rpc.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/client.h"

namespace holdfast::ctl {
namespace {

// The age of a read does not depend on the key; one that does not exist is the cheapest.
constexpr char kProbeKey[] = "holdfastctl/status";

absl::Status ToAbsl(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      base::ToAbsl(base::Printable(status.error_message(), 200)));
}

std::optional<Freshness> AskAge(const std::string& endpoint, absl::Duration timeout) {
  const auto client = Client::Open({.endpoints = {endpoint}});
  if (!client.ok()) return std::nullopt;
  const auto read =
      (*client)->Get(kProbeKey, ReadOptions::Bounded(absl::InfiniteDuration()).Deadline(timeout));
  if (!read.ok()) return std::nullopt;
  return read->fresh;
}

EndpointStatus AskOne(const std::string& text, absl::Duration timeout) {
  const auto endpoint = internal::ParseEndpoint(text);
  if (!endpoint.ok()) return {text, endpoint.status(), std::nullopt};
  const auto stub = etcdserverpb::Maintenance::NewStub(internal::MakeChannel(*endpoint));
  grpc::ClientContext context;
  context.set_deadline(internal::ToGrpcTimespan(timeout));
  etcdserverpb::StatusResponse response;
  const grpc::Status status = stub->Status(&context, etcdserverpb::StatusRequest(), &response);
  if (!status.ok()) return {endpoint->name, ToAbsl(status), std::nullopt};
  return {endpoint->name, response, AskAge(text, timeout)};
}

grpc::Status ListMembers(const internal::Endpoint& endpoint, bool linearizable,
                         absl::Duration timeout, etcdserverpb::MemberListResponse* response) {
  const auto stub = etcdserverpb::Cluster::NewStub(internal::MakeChannel(endpoint));
  grpc::ClientContext context;
  context.set_deadline(internal::ToGrpcTimespan(timeout));
  if (linearizable) context.AddMetadata("hasleader", "true");
  etcdserverpb::MemberListRequest request;
  request.set_linearizable(linearizable);
  return stub->MemberList(&context, request, response);
}

}  // namespace

std::vector<EndpointStatus> AskStatus(const std::vector<std::string>& endpoints,
                                      absl::Duration timeout) {
  std::vector<std::future<EndpointStatus>> asked;
  for (const std::string& endpoint : endpoints) {
    asked.push_back(std::async(std::launch::async, AskOne, endpoint, timeout));
  }
  std::vector<EndpointStatus> all;
  for (auto& one : asked) all.push_back(one.get());
  return all;
}

absl::StatusOr<MemberList> AskMembers(const std::vector<std::string>& endpoints,
                                      absl::Duration timeout) {
  std::vector<std::string> said;
  for (const bool linearizable : {true, false}) {
    for (const std::string& text : endpoints) {
      const auto endpoint = internal::ParseEndpoint(text);
      if (!endpoint.ok()) return endpoint.status();
      MemberList members;
      members.linearizable = linearizable;
      // Each endpoint, in both rounds, has its share, so that a silent one does not eat it all.
      const absl::Duration share = timeout / static_cast<int64_t>(2 * endpoints.size());
      const grpc::Status status = ListMembers(*endpoint, linearizable, share, &members.response);
      if (status.ok()) return members;
      said.push_back(
          fmt::format("{}: {}", endpoint->name, base::Printable(status.error_message(), 200)));
    }
  }
  return absl::UnavailableError(base::ToAbsl(
      fmt::format("no endpoint could list the members. Tried: {}.", fmt::join(said, "; "))));
}

}  // namespace holdfast::ctl
