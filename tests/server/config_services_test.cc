// Cluster and Maintenance over in-process gRPC, with a node, a pipeline and a store that are told
// what to say; and the publisher, which speaks for a member.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "config_fakes.h"
#include "etcd/health.grpc.pb.h"
#include "etcd/rpc.grpc.pb.h"
#include "server/admission.h"
#include "server/cluster_service.h"
#include "server/etcd_errors.h"
#include "server/fatal.h"
#include "server/listener.h"
#include "server/maintenance_service.h"
#include "server/publisher.h"

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ServicesTest : public testing::Test {
 protected:
  ServicesTest()
      : changer_(View(), {}),
        cluster_service_(View(), &changer_),
        maintenance_service_(View(), &admission_,
                             {.on_fatal = [this](const absl::Status& status) { fatal_ = status; },
                              .quota_bytes = 7}) {
    node_.set_status(LedStatus());
    grpc::ServerBuilder builder;
    builder.RegisterService(&cluster_service_);
    builder.RegisterService(&maintenance_service_);
    server_ = builder.BuildAndStart();
    const auto channel = server_->InProcessChannel(grpc::ChannelArguments());
    cluster_ = etcdserverpb::Cluster::NewStub(channel);
    maintenance_ = etcdserverpb::Maintenance::NewStub(channel);
  }
  ~ServicesTest() override {
    changer_.Stop();
    maintenance_service_.Stop();
    server_->Shutdown();
  }

  MemberView View() {
    return {.cluster_id = 0xc,
            .self = kSelf,
            .node = &node_,
            .machine = &machine_,
            .pipeline = &pipeline_,
            .clock = &clock_,
            .admission = &admission_};
  }
  static std::string Trailer(const grpc::ClientContext& context, const std::string& key) {
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto it = trailers.find(key);
    return it == trailers.end() ? "absent" : std::string(it->second.data(), it->second.size());
  }

  base::FakeClock clock_;
  FakeNode node_;
  FakeMachine machine_;
  FakePipeline pipeline_{&machine_};
  absl::Status fatal_;
  Admission admission_{&node_};
  MemberChanger changer_;
  ClusterService cluster_service_;
  MaintenanceService maintenance_service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<etcdserverpb::Cluster::Stub> cluster_;
  std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance_;
};

TEST_F(ServicesTest, MemberListJoinsMembershipAndAttributes) {
  machine_.set_member(kSelf.value, {.name = "a", .client_urls = {"http://a:2379"}});
  raft::NodeStatus status = LedStatus();
  raft::Membership membership = *status.membership;
  membership.learners = {NodeId(0xc)};
  status.membership = std::make_shared<raft::Membership>(membership);
  node_.set_status(status);
  grpc::ClientContext context;
  etcdserverpb::MemberListResponse response;
  ASSERT_TRUE(cluster_->MemberList(&context, {}, &response).ok());
  EXPECT_EQ(response.header().cluster_id(), 0xcu);
  EXPECT_EQ(response.header().member_id(), kSelf.value);
  EXPECT_EQ(response.header().raft_term(), 3u);
  EXPECT_EQ(response.header().revision(), 0);
  ASSERT_EQ(response.members_size(), 3);
  EXPECT_EQ(response.members(0).id(), kSelf.value);
  EXPECT_EQ(response.members(0).name(), "a");
  EXPECT_THAT(response.members(0).peerurls(), ElementsAre("http://a:2380"));
  EXPECT_THAT(response.members(0).clienturls(), ElementsAre("http://a:2379"));
  EXPECT_FALSE(response.members(0).islearner());
  EXPECT_EQ(response.members(1).name(), "") << "has not published yet";
  EXPECT_TRUE(response.members(2).islearner());
  EXPECT_EQ(pipeline_.reads_, 0);
}

TEST_F(ServicesTest, LinearizableMemberListAsksTheQuorum) {
  etcdserverpb::MemberListRequest request;
  request.set_linearizable(true);
  etcdserverpb::MemberListResponse response;
  grpc::ClientContext first;
  ASSERT_TRUE(cluster_->MemberList(&first, request, &response).ok());
  EXPECT_EQ(pipeline_.reads_, 1);
  EXPECT_EQ(response.members_size(), 2);

  pipeline_.read_status_ = ErrTimeout();
  grpc::ClientContext second;
  const grpc::Status status = cluster_->MemberList(&second, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "etcdserver: request timed out");
}

TEST_F(ServicesTest, StatusTellsTheMemberAndItsAge) {
  node_.claim_ = raft::Claim{.at = clock_.Sample(), .extra = {}, .index = Index(40)};
  clock_.Advance(absl::Seconds(1));
  grpc::ClientContext context;
  etcdserverpb::StatusResponse response;
  ASSERT_TRUE(maintenance_->Status(&context, {}, &response).ok());
  EXPECT_EQ(response.header().revision(), 17);
  EXPECT_EQ(response.version(), "3.5.17");
  EXPECT_EQ(response.dbsize(), 4096);
  EXPECT_EQ(response.dbsizeinuse(), 1000);
  EXPECT_EQ(response.leader(), kOther.value);
  EXPECT_EQ(response.raftindex(), 42u);
  EXPECT_EQ(response.raftappliedindex(), 41u);
  EXPECT_EQ(response.raftterm(), 3u);
  EXPECT_FALSE(response.islearner());
  EXPECT_EQ(response.storageversion(), "3.5.0");
  EXPECT_EQ(response.dbsizequota(), 7);
  EXPECT_FALSE(response.downgradeinfo().enabled());
  EXPECT_THAT(response.errors(), IsEmpty());
  // Freshness 2: 1 s slowed by 0.2 %, and 1 ms of reading three clocks.
  EXPECT_EQ(Trailer(context, "holdfast-age-ms"), "1003");
  EXPECT_EQ(Trailer(context, "holdfast-proof"), "proven");
  EXPECT_EQ(Trailer(context, "holdfast-source"), "follower");
}

TEST_F(ServicesTest, StatusAnswersWithoutALeaderAndSaysSo) {
  node_.set_status(LeaderlessStatus());
  grpc::ClientContext context;
  etcdserverpb::StatusResponse response;
  ASSERT_TRUE(maintenance_->Status(&context, {}, &response).ok());
  EXPECT_EQ(response.leader(), 0u);
  EXPECT_THAT(response.errors(), ElementsAre("etcdserver: no leader"));
  EXPECT_EQ(Trailer(context, "holdfast-age-ms"), "absent");
  EXPECT_EQ(Trailer(context, "holdfast-proof"), "unknown");
}

TEST_F(ServicesTest, HasLeaderMetadataIsHonoured) {
  node_.set_status(LeaderlessStatus());
  const auto expect = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(status.error_message(), "etcdserver: no leader");
  };
  grpc::ClientContext status_context, list_context, alarm_context, defragment_context;
  for (auto* context : {&status_context, &list_context, &alarm_context, &defragment_context}) {
    context->AddMetadata("hasleader", "true");
  }
  etcdserverpb::StatusResponse status;
  etcdserverpb::MemberListResponse list;
  etcdserverpb::AlarmResponse alarm;
  etcdserverpb::DefragmentResponse defragment;
  expect(maintenance_->Status(&status_context, {}, &status));
  expect(cluster_->MemberList(&list_context, {}, &list));
  expect(maintenance_->Alarm(&alarm_context, {}, &alarm));
  expect(maintenance_->Defragment(&defragment_context, {}, &defragment));
}

TEST_F(ServicesTest, AlarmsGoThroughTheLog) {
  etcdserverpb::AlarmRequest request;
  etcdserverpb::AlarmResponse response;
  const auto call = [&](etcdserverpb::AlarmRequest::AlarmAction action) {
    grpc::ClientContext context;
    request.set_action(action);
    return maintenance_->Alarm(&context, request, &response);
  };
  ASSERT_TRUE(call(etcdserverpb::AlarmRequest::GET).ok());
  EXPECT_EQ(response.alarms_size(), 0);
  EXPECT_EQ(response.header().revision(), 17);
  EXPECT_EQ(response.header().member_id(), kSelf.value);
  request.set_memberid(kOther.value);
  request.set_alarm(etcdserverpb::NOSPACE);
  ASSERT_TRUE(call(etcdserverpb::AlarmRequest::ACTIVATE).ok());
  EXPECT_EQ(response.alarms_size(), 1);
  EXPECT_EQ(pipeline_.WaitForProposals(2)[1].alarm().member_id(), kOther.value);

  grpc::ClientContext status_context;
  etcdserverpb::StatusResponse status;
  ASSERT_TRUE(maintenance_->Status(&status_context, {}, &status).ok());
  // To the byte what etcd 3.4 says.
  EXPECT_THAT(status.errors(), ElementsAre("memberID:11 alarm:NOSPACE "));
  ASSERT_TRUE(call(etcdserverpb::AlarmRequest::DEACTIVATE).ok());
  EXPECT_EQ(response.alarms_size(), 0);

  pipeline_.refusals_ = 1;
  EXPECT_EQ(call(etcdserverpb::AlarmRequest::GET).error_message(), "etcdserver: request timed out");
}

TEST_F(ServicesTest, AFencedMemberTellsItsStatusAndNothingElse) {
  admission_.Fence();
  grpc::ClientContext status_context, alarm_context, hash_context, snapshot_context, move_context;
  etcdserverpb::StatusResponse status;
  ASSERT_TRUE(maintenance_->Status(&status_context, {}, &status).ok());
  EXPECT_THAT(status.errors(), ElementsAre("etcdserver: corrupt cluster"));
  const auto expect = [](const grpc::Status& refused) {
    EXPECT_EQ(refused.error_code(), grpc::StatusCode::DATA_LOSS);
    EXPECT_EQ(refused.error_message(), "etcdserver: corrupt cluster");
  };
  etcdserverpb::AlarmResponse alarm;
  etcdserverpb::HashKVResponse hash;
  etcdserverpb::SnapshotResponse piece;
  etcdserverpb::MoveLeaderResponse move;
  expect(maintenance_->Alarm(&alarm_context, {}, &alarm));
  expect(maintenance_->HashKV(&hash_context, {}, &hash));
  expect(maintenance_->MoveLeader(&move_context, {}, &move));
  auto snapshot = maintenance_->Snapshot(&snapshot_context, {});
  EXPECT_FALSE(snapshot->Read(&piece));
  expect(snapshot->Finish());
}

TEST_F(ServicesTest, DowngradeIsValidatedAsEtcdDoes) {
  using Request = etcdserverpb::DowngradeRequest;
  const auto call = [&](Request::DowngradeAction action, const std::string& version) {
    grpc::ClientContext context;
    Request request;
    request.set_action(action);
    request.set_version(version);
    etcdserverpb::DowngradeResponse response;
    const grpc::Status status = maintenance_->Downgrade(&context, request, &response);
    return status.ok() ? "ok " + response.version() : status.error_message();
  };
  EXPECT_EQ(call(Request::VALIDATE, "3.4.0"), "ok 3.5.0");
  EXPECT_EQ(call(Request::VALIDATE, "3.x"), "etcdserver: wrong downgrade target version format");
  EXPECT_EQ(call(Request::VALIDATE, "3.3"), "etcdserver: invalid downgrade target version");
  EXPECT_EQ(call(Request::CANCEL, ""), "etcdserver: no inflight downgrade job");
  EXPECT_EQ(call(Request::ENABLE, "3.4.0"), "ok 3.5.0");
  EXPECT_EQ(pipeline_.WaitForProposals(1)[0].downgrade().target_version(), "3.4.0");
  EXPECT_EQ(call(static_cast<Request::DowngradeAction>(7), ""), "etcdserver: unknown method");
}

TEST_F(ServicesTest, DefragmentFlushesAndMayBeRepeated) {
  for (int i = 1; i <= 3; ++i) {
    grpc::ClientContext context;
    etcdserverpb::DefragmentResponse response;
    ASSERT_TRUE(maintenance_->Defragment(&context, {}, &response).ok());
    EXPECT_FALSE(response.has_header());
    EXPECT_EQ(machine_.store_->flushes_, i);
  }
}

TEST_F(ServicesTest, AFailedFlushIsFatal) {
  machine_.store_->flush_status_ = absl::InternalError("IO error: No space left on device");
  grpc::ClientContext context;
  etcdserverpb::DefragmentResponse response;
  EXPECT_FALSE(maintenance_->Defragment(&context, {}, &response).ok());
  EXPECT_FALSE(fatal_.ok());
}

MemberAttributes Attributes() { return {.name = "a", .client_urls = {"http://a:2379"}}; }

TEST_F(ServicesTest, PublisherRetriesUntilItsRecordIsApplied) {
  pipeline_.refusals_ = 1;
  machine_.set_incarnation(7);
  Publisher publisher(View(), Attributes(), 9);
  const auto proposed = pipeline_.WaitForProposals(2);
  EXPECT_EQ(proposed[1].member_attributes().id(), kSelf.value);
  publisher.Stop();
  EXPECT_EQ(machine_.member(kSelf.value)->name, "a");
  EXPECT_EQ(machine_.incarnation(), 7u) << "never replaced";
}

TEST_F(ServicesTest, PublisherSaysNothingTwice) {
  machine_.set_incarnation(7);
  machine_.set_member(kSelf.value, Attributes());
  Publisher publisher(View(), Attributes(), 9);
  publisher.Stop();
  EXPECT_EQ(pipeline_.proposals(), 0u);
}

TEST_F(ServicesTest, PublisherReplacesAnOldRecord) {
  machine_.set_incarnation(7);
  machine_.set_member(kSelf.value, {.name = "a", .client_urls = {"http://old:2379"}});
  Publisher publisher(View(), Attributes(), 9);
  const auto proposed = pipeline_.WaitForProposals(1);
  EXPECT_THAT(proposed[0].member_attributes().client_urls(), ElementsAre("http://a:2379"));
}

TEST_F(ServicesTest, PublisherAddsTheDiskToARecordOfAnEarlierRelease) {
  machine_.set_incarnation(7);
  machine_.set_member(kSelf.value, Attributes());
  MemberAttributes attributes = Attributes();
  attributes.disk_id = 0xd1;
  Publisher publisher(View(), attributes, 9);
  EXPECT_EQ(pipeline_.WaitForProposals(1)[0].member_attributes().disk_id(), 0xd1u);
}

TEST_F(ServicesTest, OnlyTheLeaderGivesTheIncarnation) {
  {
    Publisher follower(View(), Attributes(), 9);
    pipeline_.WaitForProposals(1);
  }
  EXPECT_EQ(machine_.incarnation(), 0u);
  raft::NodeStatus leading = LedStatus();
  leading.role = raft::Role::kLeader;
  node_.set_status(leading);
  Publisher leader(View(), Attributes(), 9);
  const auto proposed = pipeline_.WaitForProposals(2);
  EXPECT_EQ(proposed[1].cluster_birth().incarnation(), 9u);
}

TEST_F(ServicesTest, PublisherStopsWhileThereIsNoLeader) {
  node_.set_status(LeaderlessStatus());
  Publisher publisher(View(), Attributes(), 9);
  publisher.Stop();
  EXPECT_EQ(pipeline_.proposals(), 0u);
}

TEST_F(ServicesTest, ATakenPortIsExplained) {
  absl::StatusOr<Url> any = ParseUrl("http://127.0.0.1:0");
  absl::StatusOr<Listener> first =
      Listen({.flag = "listen-client-urls", .urls = {*any}, .services = {&cluster_service_}});
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_NE(first->bound[0].port, 0);
  const absl::Status second =
      Listen({.flag = "listen-client-urls", .urls = {first->bound[0]}, .services = {}}).status();
  EXPECT_THAT(std::string(second.message()),
              HasSubstr("cannot listen on " + first->bound[0].ToString() +
                        ": address in use by another process"));
  // A name with two addresses, of which one is free, is not good enough either.
  Url by_name = first->bound[0];
  by_name.host = "localhost";
  EXPECT_FALSE(CheckCanListen("listen-client-urls", {by_name}).ok());
  EXPECT_THAT(
      std::string(CheckCanListen("listen-peer-urls", {{.host = "192.0.2.1", .port = 0}}).message()),
      HasSubstr("no such address"));
  first->server->Shutdown();
}

TEST_F(ServicesTest, ClientPortAnswersHealthChecksAndCleartextCalls) {
  absl::StatusOr<Url> any = ParseUrl("http://127.0.0.1:0");
  ASSERT_TRUE(any.ok());
  ClusterService service(View(), &changer_);
  absl::StatusOr<Listener> listener = Listen({.flag = "listen-client-urls",
                                              .urls = {*any},
                                              .services = {&service},
                                              .max_request_bytes = 1024});
  ASSERT_TRUE(listener.ok()) << listener.status();
  const auto channel =
      grpc::CreateChannel(listener->bound[0].Address(), grpc::InsecureChannelCredentials());
  grpc::ClientContext health_context, list_context, large_context;
  grpc::health::v1::HealthCheckResponse health;
  ASSERT_TRUE(grpc::health::v1::Health::NewStub(channel)->Check(&health_context, {}, &health).ok());
  EXPECT_EQ(health.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  const auto stub = etcdserverpb::Cluster::NewStub(channel);
  etcdserverpb::MemberListResponse list;
  EXPECT_TRUE(stub->MemberList(&list_context, {}, &list).ok());
  // Beyond the request and etcd's 512 KiB for the rest of a message.
  etcdserverpb::MemberAddRequest large;
  large.add_peerurls(std::string(513 * 1024 + 1024, 'x'));
  etcdserverpb::MemberAddResponse added;
  EXPECT_EQ(stub->MemberAdd(&large_context, large, &added).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  listener->server->Shutdown();
}

TEST(FatalText, TellsTheWayOut) {
  const auto text = [](const absl::Status& status) { return FatalText(status); };
  EXPECT_THAT(text(absl::InternalError(std::string("write: ") + std::strerror(ENOSPC))),
              HasSubstr("disk of the data directory is full"));
  EXPECT_THAT(text(absl::DataLossError("fsync failed")), HasSubstr("the disk failed"));
  EXPECT_THAT(text(absl::InternalError(std::strerror(EROFS))), HasSubstr("read-only"));
  EXPECT_THAT(text(absl::InternalError("odd")), HasSubstr("odd. What to do: start"));
}

}  // namespace
}  // namespace holdfast::server
