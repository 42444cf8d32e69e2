// etcd's Lease service over a member without Raft: answers, their order, and how streams end.
#include "server/lease_service.h"

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "etcd/rpc.grpc.pb.h"
#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/lease_router.h"
#include "server/lessor.h"
#include "server/peer_channel.h"
#include "server/peer_lease_service.h"

namespace holdfast::server {
namespace {

using etcdserverpb::LeaseKeepAliveRequest;
using etcdserverpb::LeaseKeepAliveResponse;
using ::testing::ElementsAre;
using testing::FakeNode;
using ::testing::IsEmpty;

class LeaseServiceTest : public ::testing::Test {
 protected:
  LeaseServiceTest() {
    RequestPipeline::Options pipeline_options;
    pipeline_options.origin = 42;
    pipeline_ = RequestPipeline::Create(pipeline_options);
    KvStateMachine::Options machine_options;
    machine_options.dir = dir_ / "sm";
    machine_options.cluster_id = 11;
    machine_options.pipeline = pipeline_.get();
    auto machine = KvStateMachine::Open(machine_options);
    CHECK_OK(machine.status());
    machine_ = *std::move(machine);
    machine_->AddListener(&lessor_);
    node_ = std::make_unique<FakeNode>(machine_.get());
    pipeline_->SetNode(node_.get());
    const MemberView member = {.cluster_id = 11,
                               .self = FakeNode::kSelf,
                               .node = node_.get(),
                               .machine = machine_.get(),
                               .pipeline = pipeline_.get()};
    lessor_.Start(node_.get(), pipeline_.get(), machine_.get());
    router_ = std::make_unique<LeaseRouter>(member, &lessor_, LeaseRouter::Options{});
    admission_ = std::make_unique<Admission>(node_.get());
    service_ = LeaseService::Create({}, member, router_.get(), admission_.get());
    peer_service_ = std::make_unique<PeerLeaseService>(member, &lessor_);
    grpc::ServerBuilder builder;
    builder.RegisterService(service_->service());
    builder.RegisterService(peer_service_.get());
    server_ = builder.BuildAndStart();
    stub_ = etcdserverpb::Lease::NewStub(server_->InProcessChannel({}));
    peer_stub_ = raft::v1::PeerLeases::NewStub(server_->InProcessChannel({}));
  }
  ~LeaseServiceTest() override {
    service_->Stop();
    lessor_.Stop();
    router_->Stop();
    pipeline_->Stop();
    server_->Shutdown();
  }

  struct Context : grpc::ClientContext {
    Context() { set_deadline(GrpcDeadline(absl::Seconds(30))); }
  };
  grpc::Status Grant(int64_t id, int64_t ttl_s) {
    Context context;
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(id);
    request.set_ttl(ttl_s);
    granted_.Clear();
    return stub_->LeaseGrant(&context, request, &granted_);
  }
  etcdserverpb::LeaseTimeToLiveResponse TimeToLive(int64_t id, bool keys) {
    Context context;
    etcdserverpb::LeaseTimeToLiveRequest request;
    request.set_id(id);
    request.set_keys(keys);
    etcdserverpb::LeaseTimeToLiveResponse response;
    const grpc::Status status = stub_->LeaseTimeToLive(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  void Put(const std::string& key, int64_t lease) {
    command::v1::Command command;
    command.mutable_put()->set_key(key);
    command.mutable_put()->set_lease(lease);
    node_->ApplyForeign(command.SerializeAsString());
  }

  testing::TempDir dir_;
  Lessor lessor_{Lessor::Options{}};
  std::unique_ptr<RequestPipeline> pipeline_;
  std::unique_ptr<KvStateMachine> machine_;
  std::unique_ptr<FakeNode> node_;
  std::unique_ptr<LeaseRouter> router_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<LeaseService> service_;
  std::unique_ptr<PeerLeaseService> peer_service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<etcdserverpb::Lease::Stub> stub_;
  std::unique_ptr<raft::v1::PeerLeases::Stub> peer_stub_;
  etcdserverpb::LeaseGrantResponse granted_;
};

TEST_F(LeaseServiceTest, GrantsAsEtcdDoes) {
  ASSERT_TRUE(Grant(7, 60).ok());
  EXPECT_EQ(granted_.id(), 7);
  EXPECT_EQ(granted_.ttl(), 60);
  EXPECT_EQ(granted_.header().cluster_id(), 11u);
  EXPECT_EQ(granted_.header().revision(), 1);
  EXPECT_EQ(Grant(7, 60).error_message(), "etcdserver: lease already exists");
  ASSERT_TRUE(Grant(0, 60).ok());
  EXPECT_GT(granted_.id(), 0) << "chosen by the server";
  ASSERT_TRUE(Grant(-7, 1).ok());
  EXPECT_EQ(granted_.ttl(), 2) << "raised to one and a half election timeouts";
  ASSERT_TRUE(Grant(8, -5).ok());
  EXPECT_EQ(granted_.ttl(), 2);
  ASSERT_TRUE(Grant(9, 9'000'000'000).ok());
  EXPECT_EQ(TimeToLive(9, false).grantedttl(), 9'000'000'000);
  const grpc::Status too_large = Grant(10, 9'000'000'001);
  EXPECT_EQ(too_large.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(too_large.error_message(), "etcdserver: too large lease TTL");
}

TEST(LeaseTtl, TheLeastIsOneAndAHalfElectionTimeouts) {
  EXPECT_EQ(LeaseService::MinTtlS(absl::Milliseconds(100), absl::Seconds(1)), 2);
  EXPECT_EQ(LeaseService::MinTtlS(absl::Milliseconds(100), absl::Milliseconds(500)), 1);
  EXPECT_EQ(LeaseService::MinTtlS(absl::Milliseconds(500), absl::Seconds(5)), 8);
}

TEST_F(LeaseServiceTest, TellsTimesKeysAndLeases) {
  ASSERT_TRUE(Grant(7, 60).ok());
  ASSERT_TRUE(Grant(9, 60).ok());
  Put("b", 7);
  Put("a", 7);
  const auto with_keys = TimeToLive(7, true);
  EXPECT_EQ(with_keys.id(), 7);
  EXPECT_EQ(with_keys.grantedttl(), 60);
  EXPECT_NEAR(static_cast<double>(with_keys.ttl()), 59, 1);
  EXPECT_THAT(with_keys.keys(), ElementsAre("a", "b"));
  EXPECT_THAT(TimeToLive(7, false).keys(), IsEmpty());
  EXPECT_EQ(TimeToLive(8, true).ttl(), -1);
  EXPECT_EQ(TimeToLive(8, true).grantedttl(), 0);

  Context context;
  etcdserverpb::LeaseLeasesResponse leases;
  ASSERT_TRUE(stub_->LeaseLeases(&context, {}, &leases).ok());
  ASSERT_EQ(leases.leases_size(), 2);
  EXPECT_EQ(leases.leases(0).id(), 7);
  EXPECT_EQ(leases.leases(1).id(), 9);
  EXPECT_EQ(leases.header().revision(), 3);

  Context revoke_context;
  etcdserverpb::LeaseRevokeRequest revoke;
  revoke.set_id(7);
  etcdserverpb::LeaseRevokeResponse revoked;
  ASSERT_TRUE(stub_->LeaseRevoke(&revoke_context, revoke, &revoked).ok());
  EXPECT_EQ(revoked.header().revision(), 4);
  EXPECT_EQ(TimeToLive(7, true).ttl(), -1);
  EXPECT_EQ(lessor_.stats().granted, 2u);
  EXPECT_EQ(lessor_.stats().revoked, 1u);
}

TEST_F(LeaseServiceTest, ManyRenewalsOnOneStreamAreAnsweredInTheirOrder) {
  ASSERT_TRUE(Grant(7, 60).ok());
  ASSERT_TRUE(Grant(9, 30).ok());
  Put("a", 7);
  Context context;
  const auto stream = stub_->LeaseKeepAlive(&context);
  // More than may wait at once: the rest is read when there is room.
  constexpr int kRequests = 3 * static_cast<int>(LeaseService::kPipelinedMax);
  const std::vector<std::pair<int64_t, int64_t>> rounds = {{7, 60}, {8, 0}, {9, 30}};
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) {
      LeaseKeepAliveRequest request;
      request.set_id(rounds[i % 3].first);
      EXPECT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  LeaseKeepAliveResponse response;
  int answers = 0;
  for (; stream->Read(&response); ++answers) {
    ASSERT_EQ(response.id(), rounds[answers % 3].first);
    ASSERT_EQ(response.ttl(), rounds[answers % 3].second);
    ASSERT_EQ(response.header().revision(), 2);
  }
  writer.join();
  EXPECT_EQ(answers, kRequests);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(LeaseServiceTest, AStreamEndsWhenARenewalFindsNoLeader) {
  ASSERT_TRUE(Grant(7, 60).ok());
  Context context;
  const auto stream = stub_->LeaseKeepAlive(&context);
  LeaseKeepAliveRequest request;
  request.set_id(7);
  LeaseKeepAliveResponse response;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  node_->set_leader(NodeId(), Term(4), absl::Seconds(10));
  ASSERT_TRUE(stream->Write(request));
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "etcdserver: no leader");
}

TEST_F(LeaseServiceTest, AnIdleStreamThatWantsALeaderEndsWithoutOneAndOthersDoNot) {
  Context context, indifferent_context;
  context.AddMetadata("hasleader", "true");
  const auto stream = stub_->LeaseKeepAlive(&context);
  const auto indifferent = stub_->LeaseKeepAlive(&indifferent_context);
  LeaseKeepAliveRequest request;
  LeaseKeepAliveResponse response;
  for (const auto& one : {stream.get(), indifferent.get()}) {
    ASSERT_TRUE(one->Write(request));
    ASSERT_TRUE(one->Read(&response));
  }
  node_->set_leader(NodeId(), Term(4), absl::Seconds(3));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_message(), "etcdserver: no leader");
  // This one is let be until the service stops.
  service_->Stop();
  EXPECT_FALSE(indifferent->Read(&response));
  EXPECT_EQ(indifferent->Finish().error_message(), "etcdserver: server stopped");
  Context late_context;
  const auto late = stub_->LeaseKeepAlive(&late_context);
  EXPECT_FALSE(late->Read(&response));
  EXPECT_EQ(late->Finish().error_message(), "etcdserver: server stopped");
}

TEST_F(LeaseServiceTest, ARenewalWaitsForItsRound) {
  ASSERT_TRUE(Grant(7, 60).ok());
  Context context;
  const auto stream = stub_->LeaseKeepAlive(&context);
  LeaseKeepAliveRequest request;
  request.set_id(7);
  LeaseKeepAliveResponse response;
  ASSERT_TRUE(stream->Write(request));
  ASSERT_TRUE(stream->Read(&response));
  node_->set_reads(FakeNode::Mode::kHold);
  ASSERT_TRUE(stream->Write(request));
  while (node_->held_reads() == 0) std::this_thread::yield();
  EXPECT_EQ(lessor_.stats().renewed, 1u);
  // The round is answered, but another one has been elected meanwhile.
  node_->set_leader(NodeId(2), Term(4));
  node_->AnswerRead(Index(1));
  node_->set_leader(FakeNode::kSelf, Term(5));
  node_->set_reads(FakeNode::Mode::kApply);
  // It is tried again with the new leader, which is this member once more.
  while (node_->held_reads() > 0) node_->AnswerRead(Index(1));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.ttl(), 60);
  EXPECT_EQ(lessor_.stats().renewed, 2u);
}

TEST_F(LeaseServiceTest, AnotherMemberIsToldWhatItsClientsAskFor) {
  ASSERT_TRUE(Grant(7, 60).ok());
  Context context;
  raft::v1::RenewLeasesRequest renew;
  renew.set_cluster_id(11);
  renew.set_to(FakeNode::kSelf.value);
  renew.add_ids(7);
  renew.add_ids(8);
  raft::v1::RenewLeasesReply renewed;
  ASSERT_TRUE(peer_stub_->Renew(&context, renew, &renewed).ok());
  EXPECT_EQ(renewed.code(), 0u);
  EXPECT_THAT(renewed.ttl_s(), ElementsAre(60, 0));

  Context times_context;
  raft::v1::LeaseTimesRequest ask;
  ask.set_cluster_id(11);
  ask.set_to(FakeNode::kSelf.value);
  ask.add_ids(8);
  ask.add_ids(7);
  raft::v1::LeaseTimesReply told;
  ASSERT_TRUE(peer_stub_->Times(&times_context, ask, &told).ok());
  ASSERT_EQ(told.times_size(), 2);
  EXPECT_EQ(told.times(0).left_ms(), -1);
  EXPECT_EQ(told.times(1).granted_s(), 60);

  Context wrong_context;
  renew.set_to(99);
  renewed.Clear();
  ASSERT_TRUE(peer_stub_->Renew(&wrong_context, renew, &renewed).ok());
  EXPECT_NE(renewed.code(), 0u);
  EXPECT_THAT(renewed.ttl_s(), IsEmpty());

  Context follower_context;
  renew.set_to(FakeNode::kSelf.value);
  node_->set_leader(NodeId(2), Term(4));
  ASSERT_TRUE(peer_stub_->Renew(&follower_context, renew, &renewed).ok());
  EXPECT_EQ(renewed.code(), static_cast<uint32_t>(absl::StatusCode::kFailedPrecondition));

  Context large_context;
  for (size_t i = 0; i < Lessor::kAskIdsMax; ++i) renew.add_ids(1);
  ASSERT_TRUE(peer_stub_->Renew(&large_context, renew, &renewed).ok());
  EXPECT_EQ(renewed.code(), static_cast<uint32_t>(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace holdfast::server
