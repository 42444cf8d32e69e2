#include "server/peer_member_service.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/synchronization/notification.h"
#include "base/strings.h"

namespace holdfast::server {
namespace {

using Kind = raft::MemberChange::Kind;

// The caller's deadline is the wall clock's; it only bounds how long we try.
absl::Duration TimeLeft(const grpc::ServerContext& context) {
  return absl::FromChrono(context.deadline() - std::chrono::system_clock::now());
}

}  // namespace

// Linearizable, if this member has a leader and hears from it: after the round, what this member
// knows is no older than this call.
bool PeerMemberService::ReadRound() const {
  if (!member_.node->status().leader) return false;
  struct Wait {
    absl::Notification done;
    bool ok = false;
  };
  auto wait = std::make_shared<Wait>();
  member_.node->ReadIndex(kReadWaitMax, [wait](absl::StatusOr<Index> index) {
    wait->ok = index.ok();
    wait->done.Notify();
  });
  wait->done.WaitForNotification();
  return wait->ok;
}

grpc::Status PeerMemberService::Members(grpc::ServerContext*,
                                        const raft::v1::MembersRequest* request,
                                        raft::v1::MembersReply* reply) {
  reply->set_linearizable(ReadRound());
  const raft::NodeStatus status = member_.node->status();
  reply->set_cluster_id(member_.cluster_id);
  reply->set_member_id(member_.self.value);
  reply->set_incarnation(member_.machine->incarnation());
  reply->set_membership(status.membership->Encode());
  std::set<NodeId> asked = {NodeId(request->about())};
  for (const NodeId id : status.membership->All()) asked.insert(id);
  for (const NodeId id : asked) {
    std::optional<MemberAttributes> attributes = member_.machine->member(id.value);
    if (!attributes) continue;
    raft::v1::PublishedMember* published = reply->add_published();
    published->set_id(id.value);
    published->set_name(std::move(attributes->name));
    published->mutable_client_urls()->Assign(attributes->client_urls.begin(),
                                             attributes->client_urls.end());
    published->set_disk_id(attributes->disk_id);
  }
  return grpc::Status::OK;
}

grpc::Status PeerMemberService::ChangeMembers(grpc::ServerContext* context,
                                              const raft::v1::ChangeMembersRequest* request,
                                              raft::v1::ChangeMembersReply* reply) {
  if (request->cluster_id() != member_.cluster_id || request->to() != member_.self.value) {
    // An answer, and no error of the call: nothing was done, and the caller can be sure of it.
    reply->set_code(static_cast<uint32_t>(absl::StatusCode::kUnavailable));
    reply->set_text(fmt::format(
        "holdfast: a membership change for member {:x} of cluster {:x} came to member {:x} of "
        "cluster {:x}; nothing was changed: check the peer URLs",
        request->to(), request->cluster_id(), member_.self.value, member_.cluster_id));
    reply->set_retry(true);
    return grpc::Status::OK;
  }
  if (request->kind() > static_cast<uint32_t>(Kind::kReplace)) {
    reply->set_code(static_cast<uint32_t>(absl::StatusCode::kUnimplemented));
    reply->set_text(
        "holdfast: the leader does not know this kind of membership change: it runs "
        "another release");
    return grpc::Status::OK;
  }
  raft::MemberChange change;
  change.kind = static_cast<Kind>(request->kind());
  change.id = NodeId(request->id());
  change.peer_urls.assign(request->peer_urls().begin(), request->peer_urls().end());
  change.replaces = NodeId(request->replaces());
  MemberChanger::Led led = changer_->Lead(change, TimeLeft(*context));
  if (led.result.ok()) {
    reply->set_membership(led.result->Encode());
    return grpc::Status::OK;
  }
  reply->set_code(static_cast<uint32_t>(led.result.status().code()));
  reply->set_text(std::string(base::Message(led.result.status())));
  reply->set_retry(led.retry);
  return grpc::Status::OK;
}

}  // namespace holdfast::server
