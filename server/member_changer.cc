#include "server/member_changer.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/rng.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/etcd_errors.h"
#include "server/member_rules.h"
#include "server/peer_channel.h"

namespace holdfast::server {
namespace {

using raft::MemberChange;
using Led = MemberChanger::Led;

bool BeginsWith(const absl::Status& status, std::string_view text) {
  return base::Message(status).starts_with(text);
}

// Nothing happened, says the node; to go on trying is up to the caller.
Led TryAgain(const absl::Status& why) {
  return {absl::UnavailableError(
              fmt::format("holdfast: {}; nothing was changed: try again", base::Message(why))),
          /*retry=*/true};
}

// The node's errors (raft_node.h) in etcd's words. What CheckChange has looked at is repeated here
// only as far as the membership may have changed in between.
Led ToEtcd(const absl::Status& status) {
  using raft::RaftNode;
  switch (status.code()) {
    case absl::StatusCode::kAlreadyExists:
      return {ErrMemberExist()};
    case absl::StatusCode::kInvalidArgument:
      return {ErrPeerUrlExist()};
    case absl::StatusCode::kNotFound:
      return {ErrMemberNotFound()};
    case absl::StatusCode::kResourceExhausted:
      return {ErrTooManyRequests()};
    case absl::StatusCode::kDeadlineExceeded:
      return {ErrTimeout()};
    case absl::StatusCode::kUnavailable:
      return TryAgain(status);
    default:
      break;
  }
  if (BeginsWith(status, RaftNode::kNotReadyText)) return {ErrLearnerNotReady()};
  if (BeginsWith(status, RaftNode::kNotLeaderText) ||
      BeginsWith(status, RaftNode::kChangePendingText)) {
    return TryAgain(status);
  }
  return {absl::Status(status.code(), fmt::format("holdfast: {}", base::Message(status)))};
}

Led FromWire(const raft::v1::ChangeMembersReply& reply) {
  if (reply.code() != 0) {
    return {absl::Status(static_cast<absl::StatusCode>(reply.code()), reply.text()), reply.retry()};
  }
  return {raft::Membership::Decode(reply.membership())};
}

}  // namespace

struct MemberChanger::State {
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;
  size_t waiting = 0;
  std::list<std::thread> threads;
  std::list<std::thread> finished;
};

MemberChanger::MemberChanger(const MemberView& member, const Options& options)
    : member_(member), options_(options), state_(std::make_shared<State>()) {}

NodeId MemberChanger::NewId() {
  uint64_t id = 0;
  while (id == 0) id = base::RandomSeed();
  return NodeId(id);
}

void MemberChanger::Change(MemberChange change, Done done) {
  JoinFinished();
  absl::Status refusal;
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stopping) {
      refusal = ErrStopped();
    } else if (state_->waiting >= kWaitingMax) {
      refusal = ErrTooManyRequests();
    } else {
      ++state_->waiting;
      state_->threads.emplace_front();
      const auto self = state_->threads.begin();
      *self =
          std::thread([this, self, change = std::move(change), done = std::move(done)]() mutable {
            Work(std::move(change), std::move(done));
            std::lock_guard finish(state_->mutex);
            --state_->waiting;
            state_->finished.splice(state_->finished.end(), state_->threads, self);
            state_->changed.notify_all();
          });
      return;
    }
  }
  std::move(done)(refusal);
}

void MemberChanger::JoinFinished() {
  std::list<std::thread> finished;
  {
    std::lock_guard lock(state_->mutex);
    finished.swap(state_->finished);
  }
  for (std::thread& thread : finished) thread.join();
}

void MemberChanger::Stop() {
  {
    std::unique_lock lock(state_->mutex);
    state_->stopping = true;
    state_->changed.notify_all();
    state_->changed.wait(lock, [this] { return state_->waiting == 0; });
  }
  JoinFinished();
}

bool MemberChanger::Sleep(absl::Duration duration) {
  std::unique_lock lock(state_->mutex);
  return !state_->changed.wait_for(lock, absl::ToChronoMilliseconds(duration),
                                   [this] { return state_->stopping; });
}

void MemberChanger::Work(MemberChange change, Done done) {
  Result result = Run(change);
  if (result.ok()) WaitUntilShown(change);
  std::move(done)(std::move(result));
}

MemberChanger::Result MemberChanger::Run(const MemberChange& change) {
  const SteadyTime deadline = SteadyNow() + ToSteady(options_.timeout);
  while (true) {
    const absl::Duration left = absl::FromChrono(deadline - SteadyNow());
    const raft::NodeStatus status = member_.node->status();
    Led led{ErrNoLeader(), /*retry=*/true};
    if (status.leader == member_.self) {
      led = Lead(change, left);
    } else if (status.leader) {
      led = Forward(status.leader, change, left);
    } else if (status.leaderless >= options_.leaderless_max) {
      return ErrNoLeader();
    }
    if (led.result.ok() || !led.retry) return std::move(led.result);
    if (SteadyNow() + ToSteady(kRetryInterval) >= deadline) return std::move(led.result);
    if (!Sleep(kRetryInterval)) return ErrStopped();
  }
}

std::set<NodeId> MemberChanger::ActiveMembers() const {
  std::set<NodeId> active = {member_.self};
  for (const raft::RaftNode::PeerStatus& peer : member_.node->peers()) {
    if (peer.active) active.insert(peer.id);
  }
  return active;
}

Led MemberChanger::Lead(const MemberChange& change, absl::Duration timeout) {
  const raft::NodeStatus status = member_.node->status();
  if (status.role != raft::Role::kLeader) {
    return TryAgain(absl::UnavailableError(base::ToAbsl(raft::RaftNode::kNotLeaderText)));
  }
  if (absl::Status refusal = CheckChange(*status.membership, change, ActiveMembers());
      !refusal.ok()) {
    return {std::move(refusal)};
  }
  {
    std::lock_guard lock(state_->mutex);
    if (state_->stopping) return {ErrStopped()};
  }
  struct Answer {
    std::optional<Result> result;  // under the state's mutex
  };
  auto answer = std::make_shared<Answer>();
  member_.node->ChangeMembers(change, std::min(timeout, options_.timeout),
                              [state = state_, answer](Result result) {
                                std::lock_guard lock(state->mutex);
                                answer->result = std::move(result);
                                state->changed.notify_all();
                              });
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return answer->result.has_value() || state_->stopping; });
  if (!answer->result.has_value()) return {ErrTimeout()};
  if (answer->result->ok()) return {*std::move(answer->result)};
  // etcd's words leave out why.
  LOG_INFO("a membership change was answered: {}", base::Message(answer->result->status()));
  return ToEtcd(answer->result->status());
}

Led MemberChanger::Forward(NodeId leader, const MemberChange& change, absl::Duration timeout) {
  const raft::NodeStatus status = member_.node->status();
  Led led = TryAgain(absl::UnavailableError("the leader has no peer URL"));
  const auto urls = status.membership->peer_urls.find(leader);
  if (urls == status.membership->peer_urls.end()) return led;
  for (const std::string& url : urls->second) {
    led = ForwardTo(url, leader, change, timeout);
    if (led.result.ok() || !led.retry) return led;
  }
  return led;
}

Led MemberChanger::ForwardTo(const std::string& url, NodeId leader, const MemberChange& change,
                             absl::Duration timeout) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel =
      CreatePeerChannel(PeerTransport::Options(), url);
  if (!channel.ok()) return TryAgain(channel.status());
  // Without a connection nothing has left: that much is certain.
  if (!(*channel)->WaitForConnected(GrpcDeadline(std::min(timeout, kConnectTimeout)))) {
    return TryAgain(absl::UnavailableError(fmt::format("the leader does not answer at {}", url)));
  }
  raft::v1::ChangeMembersRequest request;
  request.set_cluster_id(member_.cluster_id);
  request.set_to(leader.value);
  request.set_kind(static_cast<uint32_t>(change.kind));
  request.set_id(change.id.value);
  request.mutable_peer_urls()->Assign(change.peer_urls.begin(), change.peer_urls.end());
  request.set_replaces(change.replaces.value);
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(timeout));
  raft::v1::ChangeMembersReply reply;
  const grpc::Status status =
      raft::v1::PeerMembers::NewStub(*channel)->ChangeMembers(&context, request, &reply);
  if (status.ok()) return FromWire(reply);
  LOG_WARN("the leader at {} did not answer a membership change: {}", url,
           base::Printable(status.error_message(), 200));
  return {status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED
              ? ErrTimeout()
              : ErrTimeoutDueToConnectionLost()};
}

void MemberChanger::WaitUntilShown(const MemberChange& change) {
  constexpr absl::Duration kPoll = absl::Milliseconds(5);
  const SteadyTime deadline = SteadyNow() + ToSteady(kShownWaitMax);
  while (!Shows(*member_.node->status().membership, change) && SteadyNow() < deadline) {
    if (!Sleep(kPoll)) return;
  }
}

}  // namespace holdfast::server
