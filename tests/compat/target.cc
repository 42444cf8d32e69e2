#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "absl/time/clock.h"
#include "etcd/rpc.grpc.pb.h"
#include "session.h"

namespace holdfast::compat {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kPoll = absl::Milliseconds(20);

// All members have said their names and client URLs, and a linearizable read works.
bool Serves(const std::shared_ptr<grpc::Channel>& channel, int members) {
  grpc::ClientContext list_context, read_context;
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(2);
  list_context.set_deadline(deadline);
  read_context.set_deadline(deadline);
  etcdserverpb::MemberListResponse list;
  const auto cluster = etcdserverpb::Cluster::NewStub(channel);
  if (!cluster->MemberList(&list_context, {}, &list).ok()) return false;
  const auto named = std::ranges::count_if(list.members(), [](const etcdserverpb::Member& member) {
    return !member.name().empty() && member.clienturls_size() > 0;
  });
  etcdserverpb::RangeRequest read;
  read.set_key("k");
  etcdserverpb::RangeResponse answer;
  return named >= members &&
         etcdserverpb::KV::NewStub(channel)->Range(&read_context, read, &answer).ok();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Target>> Target::Start(const std::string& binary,
                                                      const Group& group) {
  bench::LocalClusterOptions options;
  options.binary = binary;
  options.members = group.members;
  options.extra_args = group.args;
  options.log_level = "info";
  options.start_timeout = kStartTimeout;
  auto cluster = bench::LocalCluster::Start(options);
  if (!cluster.ok()) return cluster.status();
  auto target = std::make_unique<Target>();
  target->binary_ = binary;
  target->cluster_ = *std::move(cluster);
  if (!target->MakeReady()) {
    return absl::UnavailableError(
        fmt::format("{} does not serve: {}", binary, target->cluster_->LogTail(0)));
  }
  return target;
}

std::shared_ptr<grpc::Channel> Target::channel(int member) {
  std::shared_ptr<grpc::Channel>& channel = channels_[member];
  if (channel == nullptr) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    // A member that was down is tried again soon.
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    channel = grpc::CreateCustomChannel(cluster_->endpoint(member),
                                        grpc::InsecureChannelCredentials(), arguments);
  }
  return channel;
}

bool Target::MakeReady() {
  int running = 0;
  for (int i = 0; i < cluster_->size(); ++i) {
    if (cluster_->retired(i) || cluster_->data_dir(i).empty()) continue;
    if (!cluster_->Running(i)) {
      if (!cluster_->wait_status(i).has_value()) continue;  // never started
      if (!cluster_->Restart(i).ok()) return false;
    }
    ++running;
  }
  if (!cluster_->WaitForLeader(kStartTimeout).ok()) return false;
  const absl::Time deadline = absl::Now() + kStartTimeout;
  for (int i = 0; i < cluster_->size(); ++i) {
    while (cluster_->pid(i) != 0 && !Serves(channel(i), running)) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(kPoll);
    }
  }
  return true;
}

}  // namespace holdfast::compat
