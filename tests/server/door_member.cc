#include "door_member.h"

#include "door_cases.h"

namespace holdfast::server::testing {
namespace {

KvService::Options Limits() {
  KvService::Options options;
  options.max_txn_ops = kDoorMaxTxnOps;
  options.max_answer_bytes = 40'000;
  return options;
}

}  // namespace

std::vector<DoorKind> AllDoors() { return {DoorKind::kUnary, DoorKind::kExchange}; }

std::string NameOf(DoorKind kind) { return kind == DoorKind::kUnary ? "Unary" : "Exchange"; }

DoorMember::DoorMember(DoorKind kind, ExchangeService::Options options)
    : TestMember(Limits()), kind_(kind) {
  options.max_txn_ops = kDoorMaxTxnOps;
  options.clock = &clock_;
  exchange_ = ExchangeService::Create(options, node_.get(), pipeline_.get(), machine_.get(),
                                      admission_.get(), service_->reads());
  grpc::ServerBuilder builder;
  builder.RegisterService(exchange_->service());
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.SetMaxReceiveMessageSize(64 << 20);
  exchange_server_ = builder.BuildAndStart();
  CHECK(exchange_server_ != nullptr);
}

DoorMember::~DoorMember() {
  door_.reset();
  Stop();
}

void DoorMember::Stop(absl::Duration grace) {
  exchange_->Stop();
  pipeline_->Stop();
  exchange_server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
}

Door& DoorMember::door() {
  if (door_ == nullptr) {
    door_ = kind_ == DoorKind::kUnary ? OpenUnaryDoor(server_->InProcessChannel({}))
                                      : OpenExchangeDoor(Connect());
  }
  return *door_;
}

std::shared_ptr<grpc::Channel> DoorMember::Connect() const {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  // What is on its way to a caller who does not read is little, and does not grow.
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 64 << 10);
  return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port_),
                                   grpc::InsecureChannelCredentials(), arguments);
}

void DoorMember::Apply(const std::string& command) {
  node_->ApplyForeign(Parse<command::v1::Command>(command).SerializeAsString());
}

raft::Claim DoorMember::ClaimOf(absl::Duration age) const {
  raft::Claim claim;
  claim.at = clock_.Sample();
  claim.extra = age;
  return claim;
}

}  // namespace holdfast::server::testing
