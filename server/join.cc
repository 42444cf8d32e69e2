#include "server/join.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/peer_channel.h"
#include "storage/damage.h"

namespace holdfast::server {
namespace {

using Urls = std::set<std::string>;

constexpr absl::Duration kLogInterval = absl::Seconds(5);

template <class... Args>
absl::Status Refuse(fmt::format_string<Args...> format, Args&&... args) {
  return absl::FailedPreconditionError(fmt::format(format, std::forward<Args>(args)...));
}

// For who repairs members (repair.h): all this one's data is gone.
absl::Status DataGone(const Config& config, absl::Status status) {
  return storage::WithDamage(std::move(status), {.part = storage::Damage::Part::kLog,
                                                 .file = config.data_dir,
                                                 .first_index = Index(1),
                                                 .what = "the data directory is empty"});
}

absl::Status AlreadyBootstrapped(const Config& config, NodeId self, uint64_t cluster_id) {
  return Refuse(
      "this member ({:x}) has already been bootstrapped in cluster {:x}, and {} is empty: what it "
      "knew is lost, and it must not come back under its old id. Run `holdfastctl member replace "
      "{:x}` against the cluster, then start it with --initial-cluster-state=existing",
      self.value, cluster_id, config.data_dir, self.value);
}

Urls Sorted(const std::vector<std::string>& urls) { return {urls.begin(), urls.end()}; }
Urls Sorted(const std::vector<Url>& urls) { return Sorted(ToStrings(urls)); }

Urls UrlsOf(const raft::Membership& membership, NodeId id) {
  const auto it = membership.peer_urls.find(id);
  return it == membership.peer_urls.end() ? Urls() : Sorted(it->second);
}

// The URLs of all others, as --initial-cluster names them.
std::vector<std::string> OtherUrls(const Config& config) {
  std::vector<std::string> urls;
  for (const ClusterMember& member : config.initial_cluster) {
    if (member.name == config.name) continue;
    for (const Url& url : member.peer_urls) urls.push_back(url.ToString());
  }
  return urls;
}

struct Answer {
  std::string url;
  absl::StatusOr<ClusterView> view;
};

std::vector<Answer> AskAll(const std::vector<std::string>& urls, NodeId about,
                           absl::Duration timeout) {
  std::vector<std::future<absl::StatusOr<ClusterView>>> asked;
  for (const std::string& url : urls) {
    asked.push_back(std::async(std::launch::async, AskPeer, url, about, timeout));
  }
  std::vector<Answer> answers;
  for (size_t i = 0; i < urls.size(); ++i) answers.push_back({urls[i], asked[i].get()});
  return answers;
}

std::string Tried(const std::vector<Answer>& answers) {
  std::vector<std::string> said;
  for (const Answer& answer : answers) {
    said.push_back(fmt::format("{} ({})", answer.url, base::Message(answer.view.status())));
  }
  return fmt::format("{}", fmt::join(said, ", "));
}

// Who has exactly our URLs: a learner before a voter, which it may be about to replace.
std::optional<NodeId> Ourselves(const raft::Membership& membership, const Urls& ours) {
  std::optional<NodeId> found;
  for (const NodeId id : membership.All()) {
    if (UrlsOf(membership, id) != ours) continue;
    if (!found || !membership.IsVoter(id)) found = id;
  }
  return found;
}

// As etcd asks it of a member that joins: --initial-cluster names the members there are, all of
// them and nobody else. A typing error shows here, and not when the member is needed.
absl::Status CheckNamesAll(const raft::Membership& membership, const Config& config) {
  std::set<Urls> known;
  for (const NodeId id : membership.All()) known.insert(UrlsOf(membership, id));
  std::set<Urls> named;
  for (const ClusterMember& member : config.initial_cluster) {
    const Urls urls = Sorted(member.peer_urls);
    if (known.contains(urls)) {
      named.insert(urls);
      continue;
    }
    return Refuse(
        "--initial-cluster says that '{}' is at {}, where the cluster has no member: write it as "
        "`holdfastctl member add` printed it (`holdfastctl member list` shows the members)",
        member.name, fmt::join(urls, ","));
  }
  std::set<NodeId> leaving;
  for (const auto& [learner, replaces] : membership.promotions) leaving.insert(replaces);
  for (const NodeId id : membership.All()) {
    if (leaving.contains(id) || named.contains(UrlsOf(membership, id))) continue;
    return Refuse(
        "--initial-cluster does not name the member {:x} at {} (member count is unequal): write it "
        "as `holdfastctl member add` printed it (`holdfastctl member list` shows the members)",
        id.value, fmt::join(UrlsOf(membership, id), ","));
  }
  return absl::OkStatus();
}

absl::StatusOr<ClusterView> Decode(const raft::v1::MembersReply& reply) {
  ClusterView view;
  view.cluster_id = reply.cluster_id();
  view.teller = NodeId(reply.member_id());
  view.incarnation = reply.incarnation();
  view.linearizable = reply.linearizable();
  absl::StatusOr<raft::Membership> membership = raft::Membership::Decode(reply.membership());
  if (!membership.ok()) return membership.status();
  view.membership = *std::move(membership);
  for (const raft::v1::PublishedMember& member : reply.published()) {
    view.published[NodeId(member.id())] = {
        .name = member.name(),
        .client_urls = {member.client_urls().begin(), member.client_urls().end()},
        .disk_id = member.disk_id()};
  }
  return view;
}

// One round of questions: the identity, a refusal that is final, or Unavailable while asking again
// may help.
absl::StatusOr<Identity> TryJoin(const Config& config, const std::vector<std::string>& urls,
                                 const JoinTimes& times) {
  const std::vector<Answer> answers = AskAll(urls, NodeId(), times.ask);
  std::optional<absl::Status> refusal;
  // A view that is certainly not old decides; without one, any that knows us will do.
  for (const bool linearizable : {true, false}) {
    for (const Answer& answer : answers) {
      if (!answer.view.ok() || answer.view->linearizable != linearizable) continue;
      absl::StatusOr<Identity> identity = IdentityIn(*answer.view, config);
      if (identity.ok()) return identity;
      if (linearizable && absl::IsNotFound(identity.status())) {
        return absl::FailedPreconditionError(identity.status().message());
      }
      if (linearizable) return identity.status();
      if (!refusal) refusal = identity.status();
    }
  }
  if (refusal) {
    return absl::UnavailableError(fmt::format(
        "{} (this may be old: no member that answered has a leader)", base::Message(*refusal)));
  }
  return absl::UnavailableError(fmt::format(
      "no member of the cluster answers: tried {}. Check --initial-cluster, and that these members "
      "run",
      Tried(answers)));
}

}  // namespace

absl::StatusOr<ClusterView> AskPeer(const std::string& url, NodeId about, absl::Duration timeout) {
  PeerTransport::Options options;
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = CreatePeerChannel(options, url);
  if (!channel.ok()) return channel.status();
  const auto stub = raft::v1::PeerMembers::NewStub(*channel);
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(timeout));
  raft::v1::MembersRequest request;
  request.set_about(about.value);
  raft::v1::MembersReply reply;
  const grpc::Status status = stub->Members(&context, request, &reply);
  if (!status.ok()) {
    return absl::UnavailableError(base::ToAbsl(base::Printable(status.error_message(), 200)));
  }
  return Decode(reply);
}

absl::StatusOr<Identity> IdentityIn(const ClusterView& view, const Config& config) {
  const raft::Membership& membership = view.membership;
  const Urls ours = Sorted(config.initial_advertise_peer_urls);
  const std::optional<NodeId> self = Ourselves(membership, ours);
  if (!self) {
    return absl::NotFoundError(fmt::format(
        "cluster {:x} has no member at {} (so says its member {:x}): run `holdfastctl member add "
        "{} --peer-urls={}` against it first",
        view.cluster_id, fmt::join(ours, ","), view.teller.value, config.name,
        fmt::join(ours, ",")));
  }
  const bool voter = membership.IsVoter(*self);
  if (view.published.contains(*self)) {
    return DataGone(
        config,
        Refuse("the member {:x} at {} has started before, and {} is empty: what it knew is lost, "
               "and it "
               "must not come back under its old id. {}",
               self->value, fmt::join(ours, ","), config.data_dir,
               voter ? fmt::format(
                           "Run `holdfastctl member replace {:x}` against the cluster, then start "
                           "this member again",
                           self->value)
                     : fmt::format(
                           "Run `holdfastctl member remove {:x}` and `holdfastctl member add {} "
                           "--peer-urls={} --learner` against the cluster, then start this member "
                           "again",
                           self->value, config.name, fmt::join(ours, ","))));
  }
  if (voter) {
    return Refuse(
        "the member {:x} at {} may vote already, so it must have started before, and {} is empty: "
        "run `holdfastctl member replace {:x}` against the cluster, then start this member again "
        "(a cluster that has never run starts with --initial-cluster-state=new)",
        self->value, fmt::join(ours, ","), config.data_dir, self->value);
  }
  if (absl::Status status = CheckNamesAll(membership, config); !status.ok()) return status;
  Identity identity;
  identity.cluster_id = view.cluster_id;
  identity.self = *self;
  identity.bootstrap = membership;
  return identity;
}

absl::Status CheckNeverStartedIn(const ClusterView& view, const Config& config,
                                 const Identity& identity) {
  if (view.cluster_id != identity.cluster_id) {
    // The ids of the members come from the flags alone; that of a restored cluster does not
    // (restore_import.h). So this is our place in the same cluster, restored. One that is about to
    // be restored itself must not end up in another cluster.
    const bool from_flags = identity.cluster_id == ClusterId(identity.bootstrap.All());
    if (from_flags && view.membership.IsVoter(identity.self) &&
        view.published.contains(identity.self)) {
      return DataGone(config, AlreadyBootstrapped(config, identity.self, view.cluster_id));
    }
    return Refuse(
        "member {:x}, which --initial-cluster names, runs in cluster {:x} already, and the flags "
        "describe cluster {:x}: to join that one, run `holdfastctl member add {} --peer-urls={}` "
        "against it and write --initial-cluster-state=existing; for a new cluster use other "
        "members, or their --initial-cluster and --initial-cluster-token",
        view.teller.value, view.cluster_id, identity.cluster_id, config.name,
        fmt::join(ToStrings(config.initial_advertise_peer_urls), ","));
  }
  const std::optional<NodeId> present =
      Ourselves(view.membership, Sorted(config.initial_advertise_peer_urls));
  if (present && *present != identity.self && view.published.contains(*present)) {
    return DataGone(
        config, Refuse("the member {:x}, which has taken the place of {:x} in cluster {:x}, "
                       "has already been bootstrapped, and {} is empty: what it knew is lost. "
                       "Run `holdfastctl member replace {:x}` against the cluster, then start "
                       "it with --initial-cluster-state=existing",
                       present->value, identity.self.value, identity.cluster_id, config.data_dir,
                       present->value));
  }
  if (view.membership.Removed(identity.self)) {
    return Refuse(
        "this member ({:x}) was removed from cluster {:x}, which runs: to bring it back, run "
        "`holdfastctl member add {} --peer-urls={}` and start it with "
        "--initial-cluster-state=existing",
        identity.self.value, identity.cluster_id, config.name,
        fmt::join(ToStrings(config.initial_advertise_peer_urls), ","));
  }
  if (!view.published.contains(identity.self)) return absl::OkStatus();
  return DataGone(config, AlreadyBootstrapped(config, identity.self, identity.cluster_id));
}

absl::StatusOr<Identity> Join(const Config& config, const JoinTimes& times) {
  const std::vector<std::string> urls = OtherUrls(config);
  if (urls.empty()) {
    return absl::FailedPreconditionError(
        "--initial-cluster-state=existing asks to join a running cluster, and --initial-cluster "
        "names no other member: write it as `holdfastctl member add` printed it");
  }
  LOG_INFO("joining: asking {}", fmt::join(urls, " "));
  const SteadyTime give_up = SteadyNow() + ToSteady(times.give_up);
  SteadyTime next_log = SteadyNow() + ToSteady(kLogInterval);
  while (true) {
    absl::StatusOr<Identity> identity = TryJoin(config, urls, times);
    if (!absl::IsUnavailable(identity.status())) return identity;
    const SteadyTime now = SteadyNow();
    if (now + ToSteady(times.retry) > give_up) {
      return absl::FailedPreconditionError(
          base::ToAbsl(fmt::format("{} (gave up after {} s)", base::Message(identity.status()),
                                   absl::ToInt64Seconds(times.give_up))));
    }
    if (now >= next_log) {
      LOG_WARN("not yet joined, asking again: {}", base::Message(identity.status()));
      next_log = now + ToSteady(kLogInterval);
    }
    std::this_thread::sleep_for(ToSteady(times.retry));
  }
}

absl::Status CheckNeverStarted(const Config& config, const Identity& identity,
                               const JoinTimes& times) {
  for (const Answer& answer : AskAll(OtherUrls(config), identity.self, times.ask)) {
    if (!answer.view.ok()) continue;
    if (absl::Status status = CheckNeverStartedIn(*answer.view, config, identity); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace holdfast::server
