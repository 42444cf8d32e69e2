#include "tests/process/member_calls.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>

#include "base/strings.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/members.grpc.pb.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(15);

std::shared_ptr<grpc::Channel> Dial(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

void Limit(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(kCallTimeout));
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

}  // namespace

absl::StatusOr<uint64_t> AddMember(const std::string& endpoint, const std::string& peer_url,
                                   bool learner) {
  grpc::ClientContext context;
  Limit(context);
  etcdserverpb::MemberAddRequest request;
  request.add_peerurls(peer_url);
  request.set_islearner(learner);
  etcdserverpb::MemberAddResponse reply;
  const grpc::Status status =
      etcdserverpb::Cluster::NewStub(Dial(endpoint))->MemberAdd(&context, request, &reply);
  if (!status.ok()) return ToStatus(status);
  return reply.member().id();
}

absl::Status RemoveMember(const std::string& endpoint, uint64_t id) {
  grpc::ClientContext context;
  Limit(context);
  etcdserverpb::MemberRemoveRequest request;
  request.set_id(id);
  etcdserverpb::MemberRemoveResponse reply;
  return ToStatus(
      etcdserverpb::Cluster::NewStub(Dial(endpoint))->MemberRemove(&context, request, &reply));
}

absl::StatusOr<uint64_t> ReplaceMember(const std::string& endpoint, uint64_t id) {
  grpc::ClientContext context;
  Limit(context);
  holdfast::v1::MemberReplaceRequest request;
  request.set_id(id);
  holdfast::v1::MemberReplaceResponse reply;
  const grpc::Status status =
      holdfast::v1::Members::NewStub(Dial(endpoint))->MemberReplace(&context, request, &reply);
  if (!status.ok()) return ToStatus(status);
  return reply.member().id();
}

absl::StatusOr<std::vector<ListedMember>> ListMembers(const std::string& endpoint) {
  grpc::ClientContext context;
  Limit(context);
  etcdserverpb::MemberListRequest request;
  etcdserverpb::MemberListResponse reply;
  const grpc::Status status =
      etcdserverpb::Cluster::NewStub(Dial(endpoint))->MemberList(&context, request, &reply);
  if (!status.ok()) return ToStatus(status);
  std::vector<ListedMember> members;
  for (const etcdserverpb::Member& member : reply.members()) {
    members.push_back({.id = member.id(),
                       .name = member.name(),
                       .peer_urls = {member.peerurls().begin(), member.peerurls().end()},
                       .learner = member.islearner()});
  }
  return members;
}

absl::Status MoveLeader(const std::string& endpoint, uint64_t to) {
  grpc::ClientContext context;
  Limit(context);
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(to);
  etcdserverpb::MoveLeaderResponse reply;
  return ToStatus(
      etcdserverpb::Maintenance::NewStub(Dial(endpoint))->MoveLeader(&context, request, &reply));
}

absl::StatusOr<uint64_t> IdOf(const std::string& endpoint) {
  grpc::ClientContext context;
  Limit(context);
  etcdserverpb::StatusResponse reply;
  const grpc::Status status = etcdserverpb::Maintenance::NewStub(Dial(endpoint))
                                  ->Status(&context, etcdserverpb::StatusRequest(), &reply);
  if (!status.ok()) return ToStatus(status);
  return reply.header().member_id();
}

std::vector<ListedMember> AwaitMembers(
    const std::string& endpoint,
    const std::function<bool(const std::vector<ListedMember>&)>& wanted) {
  std::vector<ListedMember> last;
  EXPECT_TRUE(Eventually([&] {
    const auto members = ListMembers(endpoint);
    if (members.ok()) last = *members;
    return members.ok() && wanted(last);
  }));
  return last;
}

const ListedMember* FindMember(const std::vector<ListedMember>& members, uint64_t id) {
  for (const ListedMember& member : members) {
    if (member.id == id) return &member;
  }
  return nullptr;
}

}  // namespace holdfast
