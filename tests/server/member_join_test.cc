// Who a member without data turns out to be: decisions on what the others say, and the asking.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/synchronization/mutex.h"
#include "base/strings.h"
#include "holdfast/raft.grpc.pb.h"
#include "server/flags.h"
#include "server/join.h"

namespace holdfast::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr NodeId kA(0xa), kB(0xb), kC(0xc), kNew(0xd);

// a, b and c vote; d was added.
ClusterView View() {
  ClusterView view;
  view.cluster_id = 0xc1;
  view.teller = kA;
  view.linearizable = true;
  view.membership.voters = {kA, kB, kC};
  view.membership.learners = {kNew};
  view.membership.promotions = {{kNew, NodeId(0)}};
  view.membership.peer_urls = {{kA, {"http://127.0.0.1:1"}},
                               {kB, {"http://127.0.0.1:2"}},
                               {kC, {"http://127.0.0.1:3"}},
                               {kNew, {"http://127.0.0.1:4"}}};
  for (const NodeId id : {kA, kB, kC}) view.published[id] = {.name = "x", .client_urls = {}};
  return view;
}

Config ConfigOf(const std::string& name, const std::string& cluster,
                const std::string& state = "existing") {
  absl::StatusOr<CommandLine> line = ParseCommandLine(
      {"--name=" + name, "--initial-cluster=" + cluster, "--initial-cluster-state=" + state,
       "--listen-peer-urls=http://127.0.0.1:9999"},
      {});
  EXPECT_TRUE(line.ok()) << line.status();
  return line->config;
}

constexpr char kThree[] = "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3";
const std::string kFour = std::string(kThree) + ",d=http://127.0.0.1:4";

std::string TextOf(const absl::Status& status) { return std::string(base::Message(status)); }

TEST(Join, TheLearnerAtOurUrlsIsUs) {
  const auto identity = IdentityIn(View(), ConfigOf("d", kFour));
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->self, kNew);
  EXPECT_EQ(identity->cluster_id, 0xc1u);
  EXPECT_EQ(identity->bootstrap, View().membership);
}

TEST(Join, WhomNobodyAddedIsToldHow) {
  const auto identity =
      IdentityIn(View(), ConfigOf("e", std::string(kThree) + ",e=http://127.0.0.1:5"));
  EXPECT_EQ(identity.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(TextOf(identity.status()),
              HasSubstr("`holdfastctl member add e --peer-urls=http://127.0.0.1:5`"));
}

TEST(Join, AMemberThatHasRunMustNotComeBackWithoutItsData) {
  const auto voter = IdentityIn(View(), ConfigOf("c", kFour));
  EXPECT_EQ(voter.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(TextOf(voter.status()),
              AllOf(HasSubstr("has started before"), HasSubstr("`holdfastctl member replace c`")));

  ClusterView view = View();
  view.published[kNew] = {.name = "d", .client_urls = {}};
  EXPECT_THAT(TextOf(IdentityIn(view, ConfigOf("d", kFour)).status()),
              AllOf(HasSubstr("`holdfastctl member remove d`"), HasSubstr("member add d")));

  // It got its vote, and lost its disk, before it had said anything.
  view = View();
  view.published.erase(kC);
  EXPECT_THAT(TextOf(IdentityIn(view, ConfigOf("c", kFour)).status()),
              AllOf(HasSubstr("may vote already"), HasSubstr("`holdfastctl member replace c`")));
}

TEST(Join, AReplacementAtTheSameUrlIsPreferredToWhomItReplaces) {
  ClusterView view = View();
  view.membership.peer_urls[kNew] = view.membership.peer_urls[kC];
  view.membership.promotions[kNew] = kC;
  const auto identity = IdentityIn(view, ConfigOf("c", kThree));
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->self, kNew);
}

TEST(Join, AReplacementAtAnotherUrlNeedNotNameTheOldOne) {
  ClusterView view = View();
  view.membership.promotions[kNew] = kC;
  const auto identity = IdentityIn(
      view, ConfigOf("c", "a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:4"));
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->self, kNew);
}

TEST(Join, InitialClusterMustNameTheMembersThereAre) {
  EXPECT_THAT(TextOf(IdentityIn(View(), ConfigOf("d",
                                                 "a=http://127.0.0.1:1,b=http://127.0.0.1:2,"
                                                 "d=http://127.0.0.1:4"))
                         .status()),
              AllOf(HasSubstr("does not name the member c at http://127.0.0.1:3"),
                    HasSubstr("member count is unequal")));
  EXPECT_THAT(TextOf(IdentityIn(View(), ConfigOf("d", kFour + ",e=http://127.0.0.1:5")).status()),
              HasSubstr("says that 'e' is at http://127.0.0.1:5, where the cluster has no member"));
}

TEST(Founding, AMemberThatHasRunIsRefused) {
  const Config config = ConfigOf("c", kThree, "new");
  const Identity identity = *IdentityOf(config);
  ClusterView view = View();
  view.cluster_id = identity.cluster_id;
  EXPECT_THAT(TextOf(CheckNeverStartedIn(view, config, identity)),
              HasSubstr("the member c, which has taken the place of"));
  view.published.clear();
  EXPECT_TRUE(CheckNeverStartedIn(view, config, identity).ok());
  view.published[identity.self] = {.name = "c", .client_urls = {}};
  EXPECT_THAT(TextOf(CheckNeverStartedIn(view, config, identity)),
              AllOf(HasSubstr("has already been bootstrapped"), HasSubstr("member replace")));
  view.published.clear();
  view.membership.removed = {identity.self};
  EXPECT_THAT(TextOf(CheckNeverStartedIn(view, config, identity)),
              AllOf(HasSubstr("was removed from cluster"), HasSubstr("member add c")));
  view.cluster_id = 1;
  EXPECT_THAT(TextOf(CheckNeverStartedIn(view, config, identity)),
              AllOf(HasSubstr("runs in cluster 1 already"), HasSubstr("state=existing")));
}

// --- the asking ---

// A member that says one thing after another; the last one for ever.
class Teller : public raft::v1::PeerMembers::Service {
 public:
  Teller() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~Teller() override { server_->Shutdown(); }
  grpc::Status Members(grpc::ServerContext*, const raft::v1::MembersRequest*,
                       raft::v1::MembersReply* reply) override {
    absl::MutexLock lock(&mutex_);
    const ClusterView& view = views_[std::min(asked_++, views_.size() - 1)];
    if (view.cluster_id == 0) return {grpc::StatusCode::UNAVAILABLE, "starting"};
    reply->set_cluster_id(view.cluster_id);
    reply->set_member_id(view.teller.value);
    reply->set_linearizable(view.linearizable);
    reply->set_membership(view.membership.Encode());
    for (const auto& [id, attributes] : view.published) reply->add_published()->set_id(id.value);
    return grpc::Status::OK;
  }
  void Say(std::vector<ClusterView> views) {
    absl::MutexLock lock(&mutex_);
    views_ = std::move(views);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  size_t asked() const {
    absl::MutexLock lock(&mutex_);
    return asked_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<ClusterView> views_;
  size_t asked_ = 0;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

constexpr JoinTimes kFast = {
    .ask = absl::Seconds(10), .retry = absl::Milliseconds(1), .give_up = absl::Seconds(30)};

// A cluster of one voter, which `teller` plays, and the learner d.
ClusterView Small(const std::string& teller_url) {
  ClusterView view = View();
  view.membership.voters = {kA};
  view.membership.peer_urls = {{kA, {teller_url}}, {kNew, {"http://127.0.0.1:4"}}};
  view.published = {{kA, {}}};
  return view;
}

Config ConfigOfD(const Teller& teller) {
  return ConfigOf("d", "a=" + teller.url() + ",d=http://127.0.0.1:4");
}

TEST(Join, AsksUntilAMemberKnows) {
  Teller teller;
  const ClusterView right = Small(teller.url());
  ClusterView old = right;  // of a member that lags behind and does not know d yet
  old.linearizable = false;
  old.membership.learners.clear();
  old.membership.promotions.clear();
  old.membership.peer_urls.erase(kNew);
  teller.Say({ClusterView(), old, right});
  const auto identity = Join(ConfigOfD(teller), kFast);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->self, kNew);
  EXPECT_EQ(teller.asked(), 3u);
}

TEST(Join, ACertainNoIsFinal) {
  Teller teller;
  ClusterView view = Small(teller.url());
  view.membership.learners.clear();
  view.membership.peer_urls.erase(kNew);
  teller.Say({view});
  const auto identity = Join(ConfigOfD(teller), kFast);
  EXPECT_EQ(identity.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(TextOf(identity.status()), HasSubstr("holdfastctl member add d"));
  EXPECT_EQ(teller.asked(), 1u);
}

TEST(Join, WithoutAnAnswerItSaysWhomItAsked) {
  JoinTimes times = kFast;
  times.give_up = absl::Milliseconds(50);
  const auto identity = Join(ConfigOf("d", "a=http://127.0.0.1:1,d=http://127.0.0.1:4"), times);
  EXPECT_THAT(TextOf(identity.status()),
              AllOf(HasSubstr("tried http://127.0.0.1:1 ("), HasSubstr("gave up after")));
}

TEST(Join, AloneThereIsNobodyToAsk) {
  EXPECT_THAT(TextOf(Join(ConfigOf("d", "d=http://127.0.0.1:4"), kFast).status()),
              HasSubstr("names no other member"));
}

TEST(Founding, WhoeverIsNotUpDoesNotMatter) {
  const Config config = ConfigOf("c", kThree, "new");
  EXPECT_TRUE(CheckNeverStarted(config, *IdentityOf(config), kFast).ok());
}

TEST(Founding, OnePeerThatKnowsUsIsEnough) {
  Teller teller;
  const Config config =
      ConfigOf("c", "a=http://127.0.0.1:1,b=" + teller.url() + ",c=http://127.0.0.1:3", "new");
  const Identity identity = *IdentityOf(config);
  ClusterView view = View();
  view.cluster_id = identity.cluster_id;
  view.linearizable = false;  // old news is news enough
  view.published[identity.self] = {.name = "c", .client_urls = {}};
  teller.Say({view});
  EXPECT_THAT(TextOf(CheckNeverStarted(config, identity, kFast)),
              HasSubstr("has already been bootstrapped"));
}

}  // namespace
}  // namespace holdfast::server
