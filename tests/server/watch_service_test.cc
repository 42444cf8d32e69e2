// The Watch service over gRPC: a real server, the hub with its threads.
#include <memory>
#include <thread>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "etcd/rpc.grpc.pb.h"
#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/etcd_errors.h"
#include "server/watch_hub.h"
#include "server/watch_service.h"

namespace holdfast::server {
namespace {

using etcdserverpb::Watch;
using etcdserverpb::WatchRequest;
using etcdserverpb::WatchResponse;
using testing::Parse;

class WatchServiceTest : public ::testing::Test {
 protected:
  WatchServiceTest() { Start({}); }
  ~WatchServiceTest() override { Stop(); }

  void Start(WatchHub::Options options) {
    hub_ = WatchHub::Create(std::move(options));
    KvStateMachine::Options machine_options;
    machine_options.dir = dir_ / "sm";
    machine_options.cluster_id = 11;
    auto machine = KvStateMachine::Open(machine_options);
    CHECK_OK(machine.status());
    machine_ = *std::move(machine);
    machine_->AddListener(hub_.get());
    node_ = std::make_unique<testing::FakeNode>(machine_.get());
    admission_ = std::make_unique<Admission>(node_.get());
    hub_->Start(
        {.cluster_id = 11, .self = NodeId(22), .node = node_.get(), .machine = machine_.get()});
    service_ = WatchService::Create(hub_.get(), admission_.get());
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(service_->service());
    server_ = builder.BuildAndStart();
    channel_ = grpc::CreateChannel("127.0.0.1:" + std::to_string(port_),
                                   grpc::InsecureChannelCredentials());
    stub_ = Watch::NewStub(channel_);
  }
  void Stop() {
    if (server_ == nullptr) return;
    service_->Stop();
    hub_->Stop();
    server_->Shutdown();
    server_.reset();
  }
  void Put(const std::string& key, const std::string& value) {
    command::v1::Command command;
    command.mutable_put()->set_key(key);
    command.mutable_put()->set_value(value);
    node_->ApplyForeign(command.SerializeAsString());
  }

  struct Call {
    explicit Call(Watch::Stub* stub, bool needs_leader = false) {
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
      if (needs_leader) context.AddMetadata("hasleader", "true");
      stream = stub->Watch(&context);
    }
    void Send(const std::string& text) { ASSERT_TRUE(stream->Write(Parse<WatchRequest>(text))); }
    WatchResponse Read() {
      WatchResponse response;
      EXPECT_TRUE(stream->Read(&response));
      return response;
    }
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<WatchRequest, WatchResponse>> stream;
  };

  testing::TempDir dir_;
  std::unique_ptr<WatchHub> hub_;
  std::unique_ptr<KvStateMachine> machine_;
  std::unique_ptr<testing::FakeNode> node_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<WatchService> service_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Watch::Stub> stub_;
};

TEST_F(WatchServiceTest, WatchesOverTheWire) {
  Put("a", "1");
  Call call(stub_.get());
  call.Send("create_request { key: 'a' start_revision: 1 }");
  call.Send("create_request { key: 'b' }");
  std::vector<std::string> events;
  int created = 0;
  while (created < 2 || events.empty()) {
    const WatchResponse response = call.Read();
    created += response.created() ? 1 : 0;
    for (const auto& event : response.events()) events.push_back(event.kv().value());
  }
  Put("b", "2");
  EXPECT_EQ(call.Read().events(0).kv().value(), "2");
  call.Send("holdfast_mark { watch_id: 1 nonce: 5 }");
  EXPECT_EQ(call.Read().holdfast_bookmark().nonce(), 5u);
  call.Send("cancel_request { watch_id: 1 }");
  EXPECT_TRUE(call.Read().canceled());
  call.context.TryCancel();
  EXPECT_EQ(call.stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(WatchServiceTest, AHalfClosedStreamGoesOn) {
  Call call(stub_.get());
  call.Send("create_request { key: 'a' }");
  call.stream->WritesDone();
  EXPECT_TRUE(call.Read().created());
  Put("a", "1");
  EXPECT_EQ(call.Read().events_size(), 1);
}

TEST_F(WatchServiceTest, ALargeEventGoesToManyAtOnce) {
  Call call(stub_.get());
  constexpr int kWatches = 20;
  for (int i = 0; i < kWatches; ++i) call.Send("create_request { key: 'a' }");
  for (int i = 0; i < kWatches; ++i) EXPECT_TRUE(call.Read().created());
  const std::string value(700'000, 'v');
  Put("a", value);
  for (int i = 0; i < kWatches; ++i) {
    const WatchResponse response = call.Read();
    ASSERT_EQ(response.events_size(), 1);
    EXPECT_EQ(response.events(0).kv().value(), value);
  }
}

// More than all buffers on the way hold: the hub falls back to the history, and nothing is lost.
TEST_F(WatchServiceTest, AConsumerThatSleepsLosesNothing) {
  Call slow(stub_.get()), quick(stub_.get());
  for (Call* call : {&slow, &quick}) {
    call->Send("create_request { key: 'a' }");
    EXPECT_TRUE(call->Read().created());
  }
  constexpr int kPuts = 300;
  const std::string value(100'000, 'v');
  for (int i = 0; i < kPuts; ++i) Put("a", value);
  for (Call* call : {&quick, &slow}) {
    int64_t next = 2;
    while (next < 2 + kPuts && !HasFailure()) {
      const WatchResponse response = call->Read();
      for (const auto& event : response.events()) {
        ASSERT_EQ(event.kv().mod_revision(), next++);
      }
    }
  }
  EXPECT_GT(hub_->stats().catch_up_passes, 0u);
}

TEST_F(WatchServiceTest, HasleaderIsObeyedAtOpenAndLater) {
  node_->set_leader(NodeId(), Term(4), absl::Seconds(1));
  Call refused(stub_.get(), /*needs_leader=*/true);
  WatchResponse response;
  EXPECT_FALSE(refused.stream->Read(&response));
  grpc::Status status = refused.stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "etcdserver: no leader");

  node_->set_leader(NodeId(1), Term(5));
  Call call(stub_.get(), /*needs_leader=*/true);
  call.Send("create_request { key: 'a' }");
  EXPECT_TRUE(call.Read().created());
  node_->set_leader(NodeId(), Term(5), absl::Seconds(4));
  EXPECT_FALSE(call.stream->Read(&response));
  EXPECT_EQ(call.stream->Finish().error_message(), "etcdserver: no leader");
}

TEST_F(WatchServiceTest, AFencedMemberServesNone) {
  admission_->Fence();
  Call call(stub_.get());
  WatchResponse response;
  EXPECT_FALSE(call.stream->Read(&response));
  EXPECT_EQ(call.stream->Finish().error_code(), grpc::StatusCode::DATA_LOSS);
}

TEST_F(WatchServiceTest, StopEndsStreamsAlsoOfThoseWhoDoNotRead) {
  Call idle(stub_.get()), stuck(stub_.get());
  for (Call* call : {&idle, &stuck}) {
    call->Send("create_request { key: 'a' }");
    EXPECT_TRUE(call->Read().created());
  }
  // The idle one's reader takes what comes; the other's takes nothing.
  std::thread reader([&] {
    WatchResponse response;
    while (idle.stream->Read(&response)) {
    }
  });
  const std::string value(1'000'000, 'v');
  for (int i = 0; i < 20; ++i) Put("a", value);
  const auto begin = std::chrono::steady_clock::now();
  Stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  reader.join();
  const grpc::Status status = idle.stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_EQ(status.error_message(), "etcdserver: server stopped");
}

// Streams that come and go while events flow; run it under the sanitizers.
TEST_F(WatchServiceTest, StreamsComeAndGoUnderLoad) {
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    while (!stop) Put("a", std::string(200, 'v'));
  });
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      for (int i = 0; i < 25; ++i) {
        Call call(stub_.get());
        call.Send("create_request { key: 'a' start_revision: 1 prev_kv: true }");
        call.Send("progress_request {}");
        call.Send("holdfast_mark { watch_id: 0 nonce: 1 }");
        int64_t last = 0;
        for (int r = 0; r < 5; ++r) {
          const WatchResponse response = call.Read();
          for (const auto& event : response.events()) {
            if (last != 0) {
              EXPECT_EQ(event.kv().mod_revision(), last + 1);
            }
            last = event.kv().mod_revision();
          }
        }
        call.context.TryCancel();
        call.stream->Finish();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  stop = true;
  writer.join();
}

}  // namespace
}  // namespace holdfast::server
