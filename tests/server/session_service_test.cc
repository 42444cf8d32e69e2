// The Sessions service over a real in-process channel, and the leader's keeping of logged time.
#include "server/session_service.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <thread>

#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/session_clock.h"
#include "server/session_table.h"

namespace holdfast::server {
namespace {

using testing::FakeNode;
using ::testing::HasSubstr;

class SessionServiceTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kCluster = 11;

  SessionServiceTest() {
    pipeline_ = RequestPipeline::Create({.origin = 42});
    KvStateMachine::Options options;
    options.dir = dir_ / "sm";
    options.cluster_id = kCluster;
    options.pipeline = pipeline_.get();
    auto machine = KvStateMachine::Open(options);
    CHECK_OK(machine.status());
    machine_ = *std::move(machine);
    node_ = std::make_unique<FakeNode>(machine_.get());
    pipeline_->SetNode(node_.get());
    admission_ = std::make_unique<Admission>(node_.get());
    service_ =
        std::make_unique<SessionService>(View(), SessionService::Options{.ttl = absl::Minutes(5)});
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = v1::Sessions::NewStub(server_->InProcessChannel({}));
  }
  ~SessionServiceTest() override {
    pipeline_->Stop();
    server_->Shutdown();
  }

  MemberView View() const {
    return {.cluster_id = kCluster,
            .self = FakeNode::kSelf,
            .node = node_.get(),
            .machine = machine_.get(),
            .pipeline = pipeline_.get(),
            .clock = &clock_,
            .admission = admission_.get()};
  }
  grpc::Status Open(v1::SessionOpenResponse* response) {
    grpc::ClientContext context;
    return stub_->Open(&context, {}, response);
  }
  grpc::Status Close(uint64_t session) {
    grpc::ClientContext context;
    v1::SessionCloseRequest request;
    request.set_session(session);
    v1::SessionCloseResponse response;
    const grpc::Status status = stub_->Close(&context, request, &response);
    EXPECT_EQ(response.header().cluster_id(), status.ok() ? kCluster : 0);
    return status;
  }
  SessionClockRecord Clock() const {
    SessionClockRecord record;
    const auto bytes = *machine_->store()->NewView()->GetMeta(kMetaSessionClock);
    if (bytes.has_value()) CHECK(Decode(*bytes, &record));
    return record;
  }

  testing::TempDir dir_;
  base::FakeClock clock_;
  std::unique_ptr<RequestPipeline> pipeline_;
  std::unique_ptr<KvStateMachine> machine_;
  std::unique_ptr<FakeNode> node_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<SessionService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Sessions::Stub> stub_;
};

TEST_F(SessionServiceTest, OpensSessionsOfTheConfiguredTtlUnderIdsOfTheirOwn) {
  v1::SessionOpenResponse one, two;
  ASSERT_TRUE(Open(&one).ok());
  ASSERT_TRUE(Open(&two).ok());
  EXPECT_NE(one.session(), 0u);
  EXPECT_NE(one.session(), two.session());
  EXPECT_EQ(one.ttl_ms(), 300'000u);
  EXPECT_EQ(one.window(), kSessionWindow);
  EXPECT_EQ(one.header().cluster_id(), kCluster);
  EXPECT_EQ(one.header().revision(), 1);
  EXPECT_EQ(one.header().raft_term(), 3u);
  EXPECT_EQ(Clock().sessions, 2u);
}

TEST_F(SessionServiceTest, ClosesThemKnownOrNot) {
  v1::SessionOpenResponse opened;
  ASSERT_TRUE(Open(&opened).ok());
  EXPECT_TRUE(Close(opened.session()).ok());
  EXPECT_TRUE(Close(opened.session()).ok());
  EXPECT_EQ(Clock().sessions, 0u);
}

TEST_F(SessionServiceTest, PassesOnARefusalAndIsAdmittedAsWritesAre) {
  node_->set_proposals(FakeNode::Mode::kRefuse);
  v1::SessionOpenResponse opened;
  EXPECT_EQ(Open(&opened).error_message(), "etcdserver: no leader");
  node_->set_proposals(FakeNode::Mode::kApply);
  admission_->SetShortOfSpace(true);
  EXPECT_EQ(Open(&opened).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Close(1).ok());
  admission_->Fence();
  EXPECT_EQ(Open(&opened).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Close(1).error_code(), grpc::StatusCode::DATA_LOSS);
  EXPECT_EQ(Clock().sessions, 0u);
}

TEST_F(SessionServiceTest, ALeaderWithAQuorumSaysWhatTimePasses) {
  raft::Claim claim;
  claim.at = clock_.Sample();
  node_->set_claim(claim);
  v1::SessionOpenResponse opened;
  ASSERT_TRUE(Open(&opened).ok());
  const Index before = machine_->applied();
  // The first look proposes, at once, and carries no time.
  SessionClock clock(View(), {.look_every = absl::Hours(1)});
  const absl::Time end = absl::Now() + absl::Seconds(10);
  while (machine_->applied() == before && absl::Now() < end) std::this_thread::yield();
  clock.Stop();
  EXPECT_EQ(machine_->applied(), before + 1);
  EXPECT_EQ(Clock().now_ms, 0u);
}

// ---------------------------------------------------------------- when, and how much

class SessionClockTest : public ::testing::Test {
 protected:
  using Proposed = std::optional<uint64_t>;
  Proposed Turn(absl::Duration later) {
    clock_.Advance(later);
    return core_.Turn(clock_.Sample(), leading_);
  }
  void Done(bool applied, uint64_t term = 3) { core_.OnDone(Term(term), applied, clock_.Sample()); }
  // The first entry of a term, applied.
  void Begin() {
    ASSERT_EQ(Turn(absl::ZeroDuration()), Proposed(0));
    Done(true);
  }

  base::FakeClock clock_;
  SessionClockCore core_;
  SessionClockCore::Leading leading_ = {
      .leads = true, .term = Term(3), .alive = true, .sessions = true};
};

TEST_F(SessionClockTest, MeasuresFromOneOfItsEntriesToTheNext) {
  Begin();
  EXPECT_EQ(Turn(absl::Seconds(9)), std::nullopt);
  const Proposed advance = Turn(absl::Seconds(2));
  ASSERT_TRUE(advance.has_value());
  // Never more than has passed, and little less.
  EXPECT_LE(*advance, 11'000u);
  EXPECT_GE(*advance, 10'900u);
  EXPECT_EQ(Turn(absl::Seconds(60)), std::nullopt);  // one at a time
  Done(true);
  EXPECT_EQ(Turn(absl::Seconds(5)), std::nullopt);
}

TEST_F(SessionClockTest, AnOutageIsNoTime) {
  Begin();
  leading_.alive = false;
  EXPECT_EQ(Turn(absl::Hours(2)), std::nullopt);
  leading_.alive = true;
  EXPECT_EQ(Turn(absl::ZeroDuration()), Proposed(kSessionAdvanceMsMax));
}

TEST_F(SessionClockTest, AnotherTermBeginsAnew) {
  Begin();
  leading_.leads = false;
  EXPECT_EQ(Turn(absl::Seconds(30)), std::nullopt);
  leading_.leads = true;
  EXPECT_EQ(Turn(absl::Seconds(30)), Proposed(0));
  Done(true);
  leading_.term = Term(4);
  EXPECT_EQ(Turn(absl::Seconds(30)), Proposed(0));
  Done(true, /*term=*/3);  // an answer to what was asked before
  EXPECT_EQ(Turn(absl::Seconds(30)), std::nullopt);
  Done(true, /*term=*/4);
  EXPECT_TRUE(Turn(absl::Seconds(30)).has_value());
}

TEST_F(SessionClockTest, AnEntryOfUnknownOutcomeIsNotCountedTwice) {
  Begin();
  ASSERT_TRUE(Turn(absl::Seconds(10.1)).has_value());
  Done(false);
  EXPECT_EQ(Turn(absl::Seconds(10.1)), Proposed(0));
}

TEST_F(SessionClockTest, WithoutSessionsNothingIsWritten) {
  leading_.sessions = false;
  EXPECT_EQ(Turn(absl::Seconds(30)), std::nullopt);
  leading_.sessions = true;
  Begin();
  leading_.sessions = false;
  EXPECT_EQ(Turn(absl::Seconds(30)), std::nullopt);
  leading_.sessions = true;
  EXPECT_EQ(Turn(absl::Seconds(30)), Proposed(0));
}

}  // namespace
}  // namespace holdfast::server
