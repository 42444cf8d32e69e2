#include "client/ctl/member_admin.h"

#include <memory>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grpcpp/client_context.h>

#include "base/strings.h"
#include "client/ctl/admin.h"
#include "client/endpoint.h"
#include "client/grpc_time.h"
#include "client/rpc.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/members.grpc.pb.h"

namespace holdfast::ctl {
namespace {

using Kind = MemberRequest::Kind;

// What the server said, or that it said nothing: then a change may have happened all the same.
absl::Status StatusOf(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = base::Printable(status.error_message(), 400);
  const bool said = text.starts_with("etcdserver: ") || text.starts_with("holdfast: ") ||
                    status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
  if (!said || text.starts_with("etcdserver: request timed out")) {
    return absl::AbortedError(base::ToAbsl(text));
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), base::ToAbsl(text));
}

template <class Response>
absl::StatusOr<MemberAnswer> AnswerOf(const grpc::Status& status, const Response& response) {
  if (absl::Status said = StatusOf(status); !said.ok()) return said;
  MemberAnswer answer;
  answer.header = response.header();
  answer.members = {response.members().begin(), response.members().end()};
  if constexpr (requires { response.member(); }) answer.member = response.member();
  return answer;
}

absl::StatusOr<MemberAnswer> Call(const std::shared_ptr<grpc::Channel>& channel,
                                  absl::Duration timeout, const MemberRequest& what) {
  const auto cluster = etcdserverpb::Cluster::NewStub(channel);
  const auto extra = holdfast::v1::Members::NewStub(channel);
  grpc::ClientContext context;
  context.set_deadline(internal::ToGrpcTimespan(timeout));
  const auto call = [&](auto& stub, auto method, auto request, auto response) {
    if constexpr (requires { request.set_id(what.id); }) request.set_id(what.id);
    if constexpr (requires { request.mutable_peerurls(); }) {
      request.mutable_peerurls()->Assign(what.peer_urls.begin(), what.peer_urls.end());
    }
    if constexpr (requires { request.mutable_peer_urls(); }) {
      request.mutable_peer_urls()->Assign(what.peer_urls.begin(), what.peer_urls.end());
    }
    if constexpr (requires { request.set_islearner(true); }) request.set_islearner(what.learner);
    return AnswerOf((stub.*method)(&context, request, &response), response);
  };
  using Cluster = etcdserverpb::Cluster::StubInterface;
  using Members = holdfast::v1::Members::StubInterface;
  switch (what.kind) {
    case Kind::kAdd:
      return call(*cluster, &Cluster::MemberAdd, etcdserverpb::MemberAddRequest(),
                  etcdserverpb::MemberAddResponse());
    case Kind::kRemove:
      return call(*cluster, &Cluster::MemberRemove, etcdserverpb::MemberRemoveRequest(),
                  etcdserverpb::MemberRemoveResponse());
    case Kind::kPromote:
      return call(*cluster, &Cluster::MemberPromote, etcdserverpb::MemberPromoteRequest(),
                  etcdserverpb::MemberPromoteResponse());
    case Kind::kUpdate:
      return call(*cluster, &Cluster::MemberUpdate, etcdserverpb::MemberUpdateRequest(),
                  etcdserverpb::MemberUpdateResponse());
    case Kind::kReplace:
      return call(*extra, &Members::MemberReplace, holdfast::v1::MemberReplaceRequest(),
                  holdfast::v1::MemberReplaceResponse());
    case Kind::kDemote:
      return call(*extra, &Members::MemberDemote, holdfast::v1::MemberDemoteRequest(),
                  holdfast::v1::MemberDemoteResponse());
  }
  return absl::InternalError("unknown kind of request");
}

struct Leader {
  uint64_t id = 0;
  std::vector<std::string> endpoints;  // where it may be reached, the likeliest first
};

absl::StatusOr<Leader> FindLeader(const std::vector<std::string>& endpoints,
                                  absl::Duration timeout) {
  Leader leader;
  for (const EndpointStatus& one : AskStatus(endpoints, timeout)) {
    if (!one.status.ok() || one.status->leader() == 0) continue;
    leader.id = one.status->leader();
    if (one.status->header().member_id() == leader.id) leader.endpoints = {one.endpoint};
  }
  if (leader.id == 0) {
    return absl::NotFoundError("no endpoint knows a leader: `holdfastctl status` shows each");
  }
  if (!leader.endpoints.empty()) return leader;
  const auto members = AskMembers(endpoints, timeout);
  if (!members.ok()) return members.status();
  for (const etcdserverpb::Member& member : members->response.members()) {
    if (member.id() != leader.id) continue;
    leader.endpoints = {member.clienturls().begin(), member.clienturls().end()};
  }
  if (leader.endpoints.empty()) {
    return absl::NotFoundError(base::ToAbsl(fmt::format(
        "the leader {:x} has published no client address: name it in --endpoints", leader.id)));
  }
  return leader;
}

}  // namespace

absl::StatusOr<MemberAnswer> ChangeMembers(const std::vector<std::string>& endpoints,
                                           absl::Duration timeout, const MemberRequest& request) {
  std::vector<std::string> tried;
  for (const std::string& text : endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) return endpoint.status();
    const auto channel = internal::MakeChannel(*endpoint);
    const absl::Duration share = timeout / static_cast<int64_t>(endpoints.size());
    if (channel->WaitForConnected(internal::ToGrpcTimespan(share))) {
      return Call(channel, timeout, request);
    }
    tried.push_back(endpoint->name);
  }
  return absl::UnavailableError(base::ToAbsl(fmt::format(
      "no endpoint is reachable; nothing was changed. Tried: {}", fmt::join(tried, ", "))));
}

std::map<uint64_t, std::string> AskRoles(const std::vector<std::string>& endpoints,
                                         absl::Duration timeout) {
  using holdfast::v1::MemberRole;
  std::map<uint64_t, std::string> roles;
  for (const std::string& text : endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) continue;
    grpc::ClientContext context;
    context.set_deadline(
        internal::ToGrpcTimespan(timeout / static_cast<int64_t>(endpoints.size())));
    holdfast::v1::MemberRolesResponse response;
    const auto stub = holdfast::v1::Members::NewStub(internal::MakeChannel(*endpoint));
    if (!stub->MemberRoles(&context, {}, &response).ok()) continue;
    for (const MemberRole& role : response.roles()) {
      std::string& name = roles[role.id()];
      name = role.role() == MemberRole::VOTER     ? "voter"
             : role.role() == MemberRole::JOINING ? "joining"
                                                  : "learner";
      if (role.replaces() != 0) name += fmt::format(" for {:x}", role.replaces());
    }
    break;
  }
  return roles;
}

absl::StatusOr<uint64_t> MoveLeader(const std::vector<std::string>& endpoints,
                                    absl::Duration timeout, uint64_t to) {
  const auto leader = FindLeader(endpoints, timeout);
  if (!leader.ok()) return leader.status();
  absl::Status last;
  for (const std::string& text : leader->endpoints) {
    const auto endpoint = internal::ParseEndpoint(text);
    if (!endpoint.ok()) return endpoint.status();
    const auto stub = etcdserverpb::Maintenance::NewStub(internal::MakeChannel(*endpoint));
    grpc::ClientContext context;
    context.set_deadline(internal::ToGrpcTimespan(timeout));
    etcdserverpb::MoveLeaderRequest request;
    request.set_targetid(to);
    etcdserverpb::MoveLeaderResponse response;
    last = StatusOf(stub->MoveLeader(&context, request, &response));
    if (last.ok()) return leader->id;
    if (!absl::IsAborted(last)) return last;
  }
  return last;
}

}  // namespace holdfast::ctl
