// One member without Raft: the real KV service over the real pipeline, state machine and store, on
// an in-process gRPC channel, with a FakeNode between.
#pragma once

#include <memory>

#include <grpcpp/grpcpp.h>

#include "etcd/rpc.grpc.pb.h"
#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/kv_service.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server::testing {

struct TestMember {
  static constexpr uint64_t kCluster = 11;
  static constexpr uint64_t kMember = 22;

  explicit TestMember(KvService::Options options) {
    RequestPipeline::Options pipeline_options;
    pipeline_options.origin = 42;
    pipeline_ = RequestPipeline::Create(pipeline_options);
    KvStateMachine::Options machine_options;
    machine_options.dir = dir_ / "sm";
    machine_options.cluster_id = kCluster;
    machine_options.pipeline = pipeline_.get();
    auto machine = KvStateMachine::Open(machine_options);
    CHECK_OK(machine.status());
    machine_ = *std::move(machine);
    node_ = std::make_unique<FakeNode>(machine_.get());
    pipeline_->SetNode(node_.get());
    options.cluster_id = kCluster;
    options.member_id = kMember;
    options.clock = &clock_;
    admission_ = std::make_unique<Admission>(node_.get());
    service_ =
        KvService::Create(options, node_.get(), pipeline_.get(), machine_.get(), admission_.get());
    grpc::ServerBuilder builder;
    builder.RegisterService(service_->service());
    server_ = builder.BuildAndStart();
    stub_ = etcdserverpb::KV::NewStub(server_->InProcessChannel({}));
  }
  ~TestMember() {
    pipeline_->Stop();
    service_->Stop();
    server_->Shutdown();
  }

  TempDir dir_;
  base::FakeClock clock_;
  std::unique_ptr<RequestPipeline> pipeline_;
  std::unique_ptr<KvStateMachine> machine_;
  std::unique_ptr<FakeNode> node_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<KvService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<etcdserverpb::KV::Stub> stub_;
};

}  // namespace holdfast::server::testing
