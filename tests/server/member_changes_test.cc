// Changing the members over in-process gRPC: etcd's calls and ours, on a leader and on a follower,
// with nodes that say what the test wants. The texts are etcd 3.4's, byte for byte.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>

#include "base/strings.h"
#include "config_fakes.h"
#include "etcd/rpc.grpc.pb.h"
#include "holdfast/members.grpc.pb.h"
#include "server/admission.h"
#include "server/cluster_service.h"
#include "server/config.h"
#include "server/maintenance_service.h"
#include "server/member_rules.h"
#include "server/member_service.h"
#include "server/peer_member_service.h"

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Kind = raft::MemberChange::Kind;

constexpr NodeId kThird(0xc);
constexpr NodeId kLearner(0xd);

raft::Membership ThreeVotersAndALearner() {
  raft::Membership membership;
  membership.voters = {kSelf, kOther, kThird};
  membership.learners = {kLearner};
  membership.peer_urls = {{kSelf, {"http://a:2380"}},
                          {kOther, {"http://b:2380"}},
                          {kThird, {"http://c:2380"}},
                          {kLearner, {"http://d:2380"}}};
  return membership;
}

raft::NodeStatus StatusOf(NodeId id, NodeId leader, const raft::Membership& membership) {
  raft::NodeStatus status;
  status.id = id;
  status.leader = leader;
  status.role = id == leader ? raft::Role::kLeader : raft::Role::kFollower;
  status.term = Term(3);
  status.membership = std::make_shared<raft::Membership>(membership);
  return status;
}

// One member: fakes below, the real services above.
struct Member {
  explicit Member(NodeId id, absl::Duration timeout = absl::Seconds(30))
      : self(id),
        changer(View(), {.timeout = timeout, .leaderless_max = absl::Seconds(2)}),
        peers(View(), &changer),
        cluster(View(), &changer),
        members(View(), &changer),
        maintenance(View(), &admission, MaintenanceService::Options()) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    for (grpc::Service* service :
         std::initializer_list<grpc::Service*>{&peers, &cluster, &members, &maintenance}) {
      builder.RegisterService(service);
    }
    server = builder.BuildAndStart();
    const auto channel = server->InProcessChannel(grpc::ChannelArguments());
    cluster_stub = etcdserverpb::Cluster::NewStub(channel);
    members_stub = v1::Members::NewStub(channel);
    maintenance_stub = etcdserverpb::Maintenance::NewStub(channel);
  }
  ~Member() {
    changer.Stop();
    server->Shutdown();
  }
  MemberView View() {
    return {.cluster_id = 0xc1,
            .self = self,
            .node = &node,
            .machine = &machine,
            .pipeline = &pipeline,
            .admission = &admission};
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port); }

  const NodeId self;
  FakeNode node;
  FakeMachine machine;
  FakePipeline pipeline{&machine};
  Admission admission{&node};
  MemberChanger changer;
  PeerMemberService peers;
  ClusterService cluster;
  MemberService members;
  MaintenanceService maintenance;
  int port = 0;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<etcdserverpb::Cluster::Stub> cluster_stub;
  std::unique_ptr<v1::Members::Stub> members_stub;
  std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance_stub;
};

class MemberChangesTest : public testing::Test {
 protected:
  MemberChangesTest() {
    leader_.node.set_status(StatusOf(kSelf, kSelf, ThreeVotersAndALearner()));
    leader_.node.set_active({kOther, kThird});
  }
  grpc::Status Add(Member& member, const std::vector<std::string>& urls, bool learner = false) {
    grpc::ClientContext context;
    etcdserverpb::MemberAddRequest request;
    request.mutable_peerurls()->Assign(urls.begin(), urls.end());
    request.set_islearner(learner);
    return member.cluster_stub->MemberAdd(&context, request, &added_);
  }
  grpc::Status Remove(Member& member, NodeId id) {
    grpc::ClientContext context;
    etcdserverpb::MemberRemoveRequest request;
    request.set_id(id.value);
    return member.cluster_stub->MemberRemove(&context, request, &removed_);
  }
  grpc::Status Update(Member& member, NodeId id, const std::string& url) {
    grpc::ClientContext context;
    etcdserverpb::MemberUpdateRequest request;
    request.set_id(id.value);
    request.add_peerurls(url);
    etcdserverpb::MemberUpdateResponse response;
    return member.cluster_stub->MemberUpdate(&context, request, &response);
  }
  grpc::Status Promote(Member& member, NodeId id) {
    grpc::ClientContext context;
    etcdserverpb::MemberPromoteRequest request;
    request.set_id(id.value);
    etcdserverpb::MemberPromoteResponse response;
    return member.cluster_stub->MemberPromote(&context, request, &response);
  }
  grpc::Status Move(NodeId to) {
    grpc::ClientContext context;
    etcdserverpb::MoveLeaderRequest request;
    request.set_targetid(to.value);
    etcdserverpb::MoveLeaderResponse response;
    return leader_.maintenance_stub->MoveLeader(&context, request, &response);
  }
  static void Expect(const grpc::Status& status, grpc::StatusCode code, const std::string& text) {
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_EQ(status.error_message(), text);
  }

  Member leader_{kSelf};
  etcdserverpb::MemberAddResponse added_;
  etcdserverpb::MemberRemoveResponse removed_;
};

TEST_F(MemberChangesTest, AnAddedVoterIsALearnerUntilItKeepsUp) {
  ASSERT_TRUE(Add(leader_, {"http://z:2380", "http://e:2380"}).ok());
  const auto changes = leader_.node.changes();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].kind, Kind::kAdd);
  EXPECT_NE(changes[0].id.value, 0u);
  EXPECT_THAT(changes[0].peer_urls, ElementsAre("http://e:2380", "http://z:2380")) << "sorted";
  EXPECT_EQ(added_.header().cluster_id(), 0xc1u);
  EXPECT_EQ(added_.header().member_id(), kSelf.value);
  EXPECT_EQ(added_.header().raft_term(), 3u);
  EXPECT_EQ(added_.member().id(), changes[0].id.value);
  EXPECT_TRUE(added_.member().islearner());
  EXPECT_EQ(added_.member().name(), "");
  EXPECT_EQ(added_.members_size(), 5);
}

TEST_F(MemberChangesTest, ALearnerIsAddedAsOneThatStays) {
  ASSERT_TRUE(Add(leader_, {"http://e:2380"}, /*learner=*/true).ok());
  EXPECT_EQ(leader_.node.changes().at(0).kind, Kind::kAddLearner);
}

TEST_F(MemberChangesTest, NewIdsDiffer) {
  std::set<uint64_t> ids;
  for (int i = 0; i < 100; ++i) ids.insert(MemberChanger::NewId().value);
  EXPECT_EQ(ids.size(), 100u);
}

TEST_F(MemberChangesTest, RefusalsAreEtcds) {
  using grpc::StatusCode;
  Expect(Add(leader_, {}), StatusCode::INVALID_ARGUMENT,
         "etcdserver: given member URLs are invalid");
  for (const char* bad : {"ftp://x:1", "http://x", "http://x:0", "http://0.0.0.0:1", "x"}) {
    Expect(Add(leader_, {bad}), StatusCode::INVALID_ARGUMENT,
           "etcdserver: given member URLs are invalid");
  }
  Expect(Add(leader_, {"http://b:2380"}), StatusCode::FAILED_PRECONDITION,
         "etcdserver: Peer URLs already exists");
  Expect(Update(leader_, kSelf, "http://b:2380"), StatusCode::FAILED_PRECONDITION,
         "etcdserver: Peer URLs already exists");
  for (const grpc::Status& status :
       {Remove(leader_, NodeId(9)), Update(leader_, NodeId(9), "http://x:1"),
        Promote(leader_, NodeId(9))}) {
    Expect(status, StatusCode::NOT_FOUND, "etcdserver: member not found");
  }
  Expect(Promote(leader_, kOther), StatusCode::FAILED_PRECONDITION,
         "etcdserver: can only promote a learner member");
  EXPECT_THAT(leader_.node.changes(), IsEmpty()) << "the node was not even asked";

  leader_.node.set_change_errors(
      {absl::FailedPreconditionError(base::ToAbsl(raft::RaftNode::kNotReadyText))});
  Expect(Promote(leader_, kLearner), StatusCode::FAILED_PRECONDITION,
         "etcdserver: can only promote a learner member which is in sync with leader");
}

TEST_F(MemberChangesTest, UpdateToItsOwnUrlIsFine) {
  EXPECT_TRUE(Update(leader_, kOther, "http://b:2380").ok());
  EXPECT_TRUE(Update(leader_, kOther, "http://b2:2380").ok());
  EXPECT_EQ(leader_.node.status().membership->peer_urls.at(kOther)[0], "http://b2:2380");
}

// etcd's --strict-reconfig-check, which is always on here.
TEST_F(MemberChangesTest, ARemovalMustLeaveAnActiveMajority) {
  leader_.node.set_active({kOther});  // kThird is down
  Expect(Remove(leader_, kOther), grpc::StatusCode::UNAVAILABLE, "etcdserver: unhealthy cluster");
  EXPECT_TRUE(Remove(leader_, kLearner).ok()) << "a learner never counts";
  EXPECT_TRUE(Remove(leader_, kThird).ok()) << "who is down is no part of the majority";
  EXPECT_EQ(removed_.members_size(), 2);
  EXPECT_TRUE(Remove(leader_, kOther).ok()) << "this member alone is a majority of one";
  Expect(Remove(leader_, kSelf), grpc::StatusCode::FAILED_PRECONDITION,
         "etcdserver: re-configuration failed due to not enough started members");
}

TEST_F(MemberChangesTest, AddingIsNeverRefusedForTheHealthOfTheCluster) {
  leader_.node.set_active({kOther});
  EXPECT_TRUE(Add(leader_, {"http://e:2380"}).ok());
}

TEST_F(MemberChangesTest, LimitsAreSaid) {
  raft::Membership many = ThreeVotersAndALearner();
  for (uint64_t i = 100; many.voters.size() < Config::kVotersMax; ++i)
    many.voters.insert(NodeId(i));
  leader_.node.set_status(StatusOf(kSelf, kSelf, many));
  EXPECT_THAT(Add(leader_, {"http://e:2380"}).error_message(), HasSubstr("has 9 voters"));
  EXPECT_TRUE(Add(leader_, {"http://e:2380"}, /*learner=*/true).ok());
  for (uint64_t i = 200; many.All().size() < Config::kMembersMax; ++i)
    many.learners.insert(NodeId(i));
  leader_.node.set_status(StatusOf(kSelf, kSelf, many));
  Expect(Add(leader_, {"http://f:2380"}, true), grpc::StatusCode::FAILED_PRECONDITION,
         "etcdserver: too many learner members in cluster");
}

TEST_F(MemberChangesTest, WhatIsCertainlyNotDoneIsTriedAgain) {
  leader_.node.set_change_errors(
      {absl::FailedPreconditionError(base::ToAbsl(raft::RaftNode::kChangePendingText)),
       absl::UnavailableError("the leader is too new"),
       absl::FailedPreconditionError(base::ToAbsl(raft::RaftNode::kNotLeaderText))});
  EXPECT_TRUE(Remove(leader_, kOther).ok());
  EXPECT_EQ(leader_.node.changes().size(), 4u);
}

TEST_F(MemberChangesTest, AnUnknownOutcomeIsSaidAndNotTriedAgain) {
  leader_.node.set_change_errors({absl::DeadlineExceededError("who knows")});
  Expect(Remove(leader_, kOther), grpc::StatusCode::UNAVAILABLE, "etcdserver: request timed out");
  EXPECT_EQ(leader_.node.changes().size(), 1u);
}

TEST_F(MemberChangesTest, WithoutALeaderItFailsFast) {
  raft::NodeStatus status = StatusOf(kSelf, NodeId(), ThreeVotersAndALearner());
  status.leaderless = absl::Seconds(3);
  leader_.node.set_status(status);
  Expect(Remove(leader_, kOther), grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader");
  grpc::ClientContext context;
  context.AddMetadata("hasleader", "true");
  etcdserverpb::MemberAddRequest request;
  request.add_peerurls("http://e:2380");
  Expect(leader_.cluster_stub->MemberAdd(&context, request, &added_), grpc::StatusCode::UNAVAILABLE,
         "etcdserver: no leader");
}

TEST_F(MemberChangesTest, StopAnswersWhoWaits) {
  leader_.node.HoldChanges();
  grpc::Status status;
  std::thread caller([&] { status = Remove(leader_, kOther); });
  leader_.node.WaitForChanges(1);
  leader_.changer.Stop();
  caller.join();
  Expect(status, grpc::StatusCode::UNAVAILABLE, "etcdserver: request timed out");
  Expect(Remove(leader_, kOther), grpc::StatusCode::UNAVAILABLE, "etcdserver: server stopped");
}

TEST_F(MemberChangesTest, TooManyAtOnceAreRefused) {
  leader_.node.HoldChanges();
  std::vector<std::thread> callers;
  for (size_t i = 0; i < MemberChanger::kWaitingMax; ++i) {
    callers.emplace_back([&] {
      grpc::ClientContext context;
      etcdserverpb::MemberRemoveRequest request;
      request.set_id(kOther.value);
      etcdserverpb::MemberRemoveResponse response;
      leader_.cluster_stub->MemberRemove(&context, request, &response);
    });
  }
  leader_.node.WaitForChanges(MemberChanger::kWaitingMax);
  Expect(Remove(leader_, kOther), grpc::StatusCode::RESOURCE_EXHAUSTED,
         "etcdserver: too many requests");
  leader_.changer.Stop();
  for (std::thread& caller : callers) caller.join();
}

TEST_F(MemberChangesTest, AFollowerPassesItToTheLeader) {
  raft::Membership membership = ThreeVotersAndALearner();
  membership.peer_urls[kSelf] = {"http://127.0.0.1:1", leader_.url()};  // the first is dead
  leader_.node.set_status(StatusOf(kSelf, kSelf, membership));
  Member follower(kOther);
  follower.node.set_status(StatusOf(kOther, kSelf, membership));
  ASSERT_TRUE(Add(follower, {"http://e:2380"}).ok());
  const auto changes = leader_.node.changes();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].id.value, added_.member().id());
  EXPECT_THAT(changes[0].peer_urls, ElementsAre("http://e:2380"));
  EXPECT_EQ(added_.header().member_id(), kOther.value);
  EXPECT_EQ(added_.members_size(), 5);
  EXPECT_THAT(follower.node.changes(), IsEmpty());
  Expect(Remove(follower, NodeId(9)), grpc::StatusCode::NOT_FOUND, "etcdserver: member not found");
}

TEST_F(MemberChangesTest, AnUnreachableLeaderMeansThatNothingWasChanged) {
  raft::Membership membership = ThreeVotersAndALearner();
  membership.peer_urls[kSelf] = {"http://127.0.0.1:1"};
  Member follower(kOther, /*timeout=*/absl::Milliseconds(300));
  follower.node.set_status(StatusOf(kOther, kSelf, membership));
  const grpc::Status status = Remove(follower, kThird);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), StartsWith("holdfast: "));
  EXPECT_THAT(status.error_message(), HasSubstr("nothing was changed"));
}

// A leader that dies with the question in hand.
class DyingLeader : public raft::v1::PeerMembers::Service {
 public:
  grpc::Status ChangeMembers(grpc::ServerContext* context, const raft::v1::ChangeMembersRequest*,
                             raft::v1::ChangeMembersReply*) override {
    ++asked;
    return {grpc::StatusCode::UNAVAILABLE, "Socket closed"};
  }
  std::atomic<int> asked = 0;
};

TEST_F(MemberChangesTest, ALeaderThatDiesWithTheQuestionLeavesTheOutcomeUnknown) {
  DyingLeader dying;
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&dying);
  const auto server = builder.BuildAndStart();
  raft::Membership membership = ThreeVotersAndALearner();
  membership.peer_urls[kSelf] = {"http://127.0.0.1:" + std::to_string(port)};
  Member follower(kOther);
  follower.node.set_status(StatusOf(kOther, kSelf, membership));
  Expect(Remove(follower, kThird), grpc::StatusCode::UNAVAILABLE,
         "etcdserver: request timed out, possibly due to connection lost");
  EXPECT_EQ(dying.asked, 1) << "never sent twice";
  server->Shutdown();
}

TEST_F(MemberChangesTest, TheLeaderOfAnotherClusterDoesNothing) {
  raft::Membership membership = ThreeVotersAndALearner();
  membership.peer_urls[kThird] = {leader_.url()};  // a wrong address: kSelf answers there
  Member follower(kOther, /*timeout=*/absl::Milliseconds(200));
  follower.node.set_status(StatusOf(kOther, kThird, membership));
  EXPECT_THAT(Remove(follower, kLearner).error_message(),
              HasSubstr("for member c of cluster c1 came to member a"));
  EXPECT_THAT(leader_.node.changes(), IsEmpty());
}

// --- what etcd does not have ---

TEST_F(MemberChangesTest, ReplaceTakesTheOldUrlsUnlessGivenOthers) {
  grpc::ClientContext first, second, third;
  v1::MemberReplaceRequest request;
  request.set_id(kThird.value);
  v1::MemberReplaceResponse response;
  ASSERT_TRUE(leader_.members_stub->MemberReplace(&first, request, &response).ok());
  EXPECT_EQ(leader_.node.changes().at(0).replaces, kThird);
  EXPECT_THAT(response.member().peerurls(), ElementsAre("http://c:2380"));
  EXPECT_EQ(response.members_size(), 5);

  request.add_peer_urls("http://e:2380");
  ASSERT_TRUE(leader_.members_stub->MemberReplace(&second, request, &response).ok());
  EXPECT_THAT(response.member().peerurls(), ElementsAre("http://e:2380"));
  EXPECT_EQ(response.members_size(), 5) << "the first replacement gave way";

  request.set_id(kLearner.value);
  EXPECT_THAT(leader_.members_stub->MemberReplace(&third, request, &response).error_message(),
              HasSubstr("remove it and add another"));
}

TEST_F(MemberChangesTest, RolesTellWhoIsJoining) {
  grpc::ClientContext replace, demote, roles_context;
  v1::MemberReplaceRequest replace_request;
  replace_request.set_id(kThird.value);
  v1::MemberReplaceResponse replaced;
  ASSERT_TRUE(leader_.members_stub->MemberReplace(&replace, replace_request, &replaced).ok());
  v1::MemberDemoteRequest demote_request;
  demote_request.set_id(kOther.value);
  v1::MemberDemoteResponse demoted;
  ASSERT_TRUE(leader_.members_stub->MemberDemote(&demote, demote_request, &demoted).ok());
  v1::MemberRolesResponse roles;
  ASSERT_TRUE(leader_.members_stub->MemberRoles(&roles_context, {}, &roles).ok());
  std::map<uint64_t, v1::MemberRole> by_id;
  for (const v1::MemberRole& role : roles.roles()) by_id[role.id()] = role;
  EXPECT_EQ(by_id[kSelf.value].role(), v1::MemberRole::VOTER);
  EXPECT_EQ(by_id[kOther.value].role(), v1::MemberRole::LEARNER);
  EXPECT_EQ(by_id[kLearner.value].role(), v1::MemberRole::LEARNER);
  EXPECT_EQ(by_id[replaced.member().id()].role(), v1::MemberRole::JOINING);
  EXPECT_EQ(by_id[replaced.member().id()].replaces(), kThird.value);
}

TEST_F(MemberChangesTest, MoveLeaderAnswersAsEtcd) {
  using grpc::StatusCode;
  EXPECT_TRUE(Move(kOther).ok());
  EXPECT_EQ(leader_.node.transferred_to_, kOther);
  EXPECT_TRUE(Move(kSelf).ok()) << "it leads already";
  for (const NodeId bad : {NodeId(0), NodeId(9), kLearner}) {
    Expect(Move(bad), StatusCode::FAILED_PRECONDITION, "etcdserver: bad leader transferee");
  }
  for (const absl::Status& late :
       {absl::DeadlineExceededError("late"), absl::UnavailableError("silent")}) {
    leader_.node.transfer_status_ = late;
    Expect(Move(kOther), StatusCode::UNAVAILABLE,
           "etcdserver: request timed out, leader transfer took too long");
  }
  leader_.node.transfer_status_ = absl::FailedPreconditionError("no more");
  Expect(Move(kOther), StatusCode::FAILED_PRECONDITION, "etcdserver: not leader");
  leader_.node.set_status(StatusOf(kSelf, kOther, ThreeVotersAndALearner()));
  Expect(Move(kOther), StatusCode::FAILED_PRECONDITION, "etcdserver: not leader");
}

// --- what peers are told ---

TEST_F(MemberChangesTest, PeersAreToldWhoTheMembersAre) {
  leader_.machine.set_member(kOther.value,
                             {.name = "b", .client_urls = {"http://b:2379"}, .disk_id = 0xd2});
  leader_.machine.set_member(9, {.name = "gone", .client_urls = {}});
  leader_.machine.set_incarnation(7);
  const auto stub =
      raft::v1::PeerMembers::NewStub(leader_.server->InProcessChannel(grpc::ChannelArguments()));
  grpc::ClientContext first, second;
  raft::v1::MembersRequest request;
  request.set_about(9);
  raft::v1::MembersReply reply;
  ASSERT_TRUE(stub->Members(&first, request, &reply).ok());
  EXPECT_EQ(reply.cluster_id(), 0xc1u);
  EXPECT_EQ(reply.member_id(), kSelf.value);
  EXPECT_EQ(reply.incarnation(), 7u);
  EXPECT_TRUE(reply.linearizable());
  EXPECT_EQ(*raft::Membership::Decode(reply.membership()), ThreeVotersAndALearner());
  ASSERT_EQ(reply.published_size(), 2);
  EXPECT_EQ(reply.published(1).disk_id(), 0xd2u);

  leader_.node.read_answer_ = absl::UnavailableError("no leader");
  ASSERT_TRUE(stub->Members(&second, request, &reply).ok());
  EXPECT_FALSE(reply.linearizable());
}

}  // namespace
}  // namespace holdfast::server
