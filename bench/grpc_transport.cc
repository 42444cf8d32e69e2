#include "bench/grpc_transport.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

// How a request asks for a proven age (server/kv_service.h); an etcd does not know it.
constexpr char kMaxAgeKey[] = "holdfast-max-age-ms";

using etcdserverpb::PutRequest;
using etcdserverpb::PutResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

template <class Request, class Response>
struct TypedCall {
  Request request;
  Response response;
  // Lives in the call's arena, which the ClientContext holds: must go before the context does.
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;
};

// Requests and responses are kept from call to call, which spares their allocations.
struct Slot {
  Operation operation;
  int64_t started_ns = 0;
  uint64_t tries = 0;    // of a kModify
  bool reading = false;  // a kModify's get is under way, not its put
  bool overdue = false;  // cancelled by CancelOverdue()
  std::optional<grpc::ClientContext> context;
  grpc::Status status;
  TypedCall<PutRequest, PutResponse> put;
  TypedCall<RangeRequest, RangeResponse> get;
  TypedCall<TxnRequest, TxnResponse> txn;
};

class GrpcTransport : public Transport {
 public:
  GrpcTransport(const Connections& connections, const DataShape& shape,
                const TransportOptions& options)
      : connections_(connections), shape_(shape), options_(options), slots_(options.slots) {
    CHECK(options.read != ReadLevel::kMirror);
  }

  ~GrpcTransport() override {
    CancelAll();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
    }
  }

  void Start(uint32_t index, const Operation& operation) override {
    Slot& slot = slots_[index];
    slot.operation = operation;
    slot.started_ns = MonotonicNs();
    slot.overdue = false;
    slot.tries = 0;
    switch (operation.kind) {
      case OpKind::kPut:
        return SendPut(index);
      case OpKind::kGet:
      case OpKind::kScan:
      case OpKind::kModify:
        return SendGet(index);
      case OpKind::kLoad:
        FillLoad(operation, slot.txn.request);
        return SendTxn(index);
      case OpKind::kTxn:
        FillLoad(operation, slot.txn.request);
        AddExists(*slot.txn.request.add_compare(), operation.first_key);
        return SendTxn(index);
    }
  }

  std::optional<Completion> Next(int64_t deadline_ns) override {
    while (true) {
      const gpr_timespec wait =
          gpr_time_from_nanos(std::max<int64_t>(0, deadline_ns - MonotonicNs()), GPR_TIMESPAN);
      void* tag = nullptr;
      bool ok = false;
      const auto next =
          queue_.AsyncNext(&tag, &ok, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), wait));
      if (next != grpc::CompletionQueue::GOT_EVENT) return std::nullopt;
      const uint32_t index = uint32_t(reinterpret_cast<uintptr_t>(tag));
      if (!GoOn(index)) return CompletionOf(index);
    }
  }

  // Not gRPC's deadlines: a timer for each call costs a tenth of all the bench's CPU.
  void CancelOverdue(int64_t now_ns) override {
    const int64_t oldest_ns = now_ns - absl::ToInt64Nanoseconds(options_.timeout);
    for (Slot& slot : slots_) {
      if (!slot.context.has_value() || slot.started_ns > oldest_ns) continue;
      slot.overdue = true;
      slot.context->TryCancel();  // does nothing to a call that has ended
    }
  }

  void CancelAll() override {
    for (Slot& slot : slots_) {
      if (slot.context.has_value()) slot.context->TryCancel();
    }
  }

 private:
  void FillPut(const Operation& operation, uint64_t key, PutRequest& request) const {
    shape_.WriteKey(key, request.mutable_key());
    const std::string_view value = shape_.Value(key, operation.salt);
    request.mutable_value()->assign(value);
    if (operation.stamp.has_value()) WriteStamp(*operation.stamp, request.mutable_value());
  }

  void FillLoad(const Operation& operation, TxnRequest& request) const {
    request.Clear();
    for (uint64_t i = 0; i < operation.keys; ++i) {
      FillPut(operation, operation.first_key + i, *request.add_success()->mutable_request_put());
    }
  }

  void AddExists(etcdserverpb::Compare& compare, uint64_t key) const {
    shape_.WriteKey(key, compare.mutable_key());
    compare.set_target(etcdserverpb::Compare::CREATE);
    compare.set_result(etcdserverpb::Compare::GREATER);
    compare.set_create_revision(0);
  }

  // A context for the slot's next call, and where that goes.
  etcdserverpb::KV::Stub& Prepare(uint32_t index) {
    Slot& slot = slots_[index];
    slot.put.reader.reset();
    slot.get.reader.reset();
    slot.txn.reader.reset();
    slot.context.emplace();
    return connections_.stub((options_.first_connection + index) % connections_.size());
  }
  static void* TagOf(uint32_t index) { return reinterpret_cast<void*>(uintptr_t{index}); }

  void SendPut(uint32_t index) {
    Slot& slot = slots_[index];
    etcdserverpb::KV::Stub& stub = Prepare(index);
    FillPut(slot.operation, slot.operation.first_key, slot.put.request);
    slot.put.reader = stub.AsyncPut(&*slot.context, slot.put.request, &queue_);
    slot.put.reader->Finish(&slot.put.response, &slot.status, TagOf(index));
  }

  // The get of a kModify is linearizable whatever the workload's other reads are.
  void SendGet(uint32_t index) {
    Slot& slot = slots_[index];
    etcdserverpb::KV::Stub& stub = Prepare(index);
    RangeRequest& request = slot.get.request;
    slot.reading = slot.operation.kind == OpKind::kModify;
    const ReadLevel read = slot.reading ? ReadLevel::kLinearizable : options_.read;
    request.set_serializable(read != ReadLevel::kLinearizable);
    if (read == ReadLevel::kBounded) {
      slot.context->AddMetadata(kMaxAgeKey, std::to_string(absl::ToInt64Milliseconds(kBoundedAge)));
    }
    shape_.WriteKey(slot.operation.first_key, request.mutable_key());
    request.clear_range_end();
    request.clear_limit();
    if (slot.operation.kind == OpKind::kScan) {
      request.set_range_end(shape_.PrefixEnd());
      request.set_limit(int64_t(slot.operation.keys));
    }
    slot.get.reader = stub.AsyncRange(&*slot.context, request, &queue_);
    slot.get.reader->Finish(&slot.get.response, &slot.status, TagOf(index));
  }

  void SendTxn(uint32_t index) {
    Slot& slot = slots_[index];
    etcdserverpb::KV::Stub& stub = Prepare(index);
    slot.txn.reader = stub.AsyncTxn(&*slot.context, slot.txn.request, &queue_);
    slot.txn.reader->Finish(&slot.txn.response, &slot.status, TagOf(index));
  }

  // A kModify has a next step: its put after its get, another try after a put that found the key
  // changed. True if it was sent.
  bool GoOn(uint32_t index) {
    Slot& slot = slots_[index];
    if (slot.operation.kind != OpKind::kModify || !slot.status.ok()) return false;
    if (!slot.reading) {
      if (slot.txn.response.succeeded() || slot.tries >= kMaxModifyTries) return false;
      SendGet(index);
      return true;
    }
    ++slot.tries;
    slot.reading = false;
    TxnRequest& request = slot.txn.request;
    request.Clear();
    etcdserverpb::Compare& compare = *request.add_compare();
    shape_.WriteKey(slot.operation.first_key, compare.mutable_key());
    compare.set_target(etcdserverpb::Compare::MOD);
    compare.set_result(etcdserverpb::Compare::EQUAL);
    compare.set_mod_revision(
        slot.get.response.kvs_size() == 1 ? slot.get.response.kvs(0).mod_revision() : 0);
    FillPut(slot.operation, slot.operation.first_key,
            *request.add_success()->mutable_request_put());
    SendTxn(index);
    return true;
  }

  Completion CompletionOf(uint32_t index) const {
    const Slot& slot = slots_[index];
    const Operation& operation = slot.operation;
    Completion completion{
        .slot = index, .kind = operation.kind, .first_key = operation.first_key, .outcome = {}};
    Outcome& outcome = completion.outcome;
    outcome.code = int(slot.status.error_code());
    if (!slot.status.ok()) {
      outcome.message = slot.status.error_message();
      if (slot.overdue) {
        outcome.code = int(grpc::StatusCode::DEADLINE_EXCEEDED);
        outcome.message =
            fmt::format("no answer within {}", absl::FormatDuration(options_.timeout));
      }
      return completion;
    }
    const uint64_t pair_bytes = shape_.key_size() + shape_.value_size();
    switch (operation.kind) {
      case OpKind::kGet:
      case OpKind::kScan:
        outcome.found = slot.get.response.kvs_size() > 0;
        outcome.bytes = std::max<uint64_t>(shape_.key_size(),
                                           uint64_t(slot.get.response.kvs_size()) * pair_bytes);
        break;
      case OpKind::kModify:
        outcome.bytes = 2 * pair_bytes;
        outcome.retries = slot.tries - 1;
        if (!slot.txn.response.succeeded()) {
          outcome.code = int(grpc::StatusCode::ABORTED);
          outcome.message =
              fmt::format("the key changed {} times under a read-modify-write", kMaxModifyTries);
        }
        break;
      case OpKind::kTxn:
        outcome.found = slot.txn.response.succeeded();
        outcome.bytes = operation.keys * pair_bytes;
        break;
      case OpKind::kPut:
      case OpKind::kLoad:
        outcome.bytes = operation.keys * pair_bytes;
        break;
    }
    return completion;
  }

  const Connections& connections_;
  const DataShape& shape_;
  const TransportOptions options_;
  std::vector<Slot> slots_;
  grpc::CompletionQueue queue_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connections>> Connections::Open(
    const std::vector<std::string>& endpoints, size_t count, absl::Duration timeout) {
  CHECK(count > 0);
  CHECK(!endpoints.empty());
  grpc::ChannelArguments args;
  // Else channels of equal address and arguments would share one TCP connection.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // a retry that nobody counts is a lie in the latency
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // Leaves out filters (deadlines, message size) that this tool does without: less CPU per call.
  args.SetInt(GRPC_ARG_MINIMAL_STACK, 1);
  args.SetMaxReceiveMessageSize(-1);
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  for (size_t i = 0; i < count; ++i) {
    channels.push_back(grpc::CreateCustomChannel(endpoints[i % endpoints.size()],
                                                 grpc::InsecureChannelCredentials(), args));
    channels.back()->GetState(/*try_to_connect=*/true);
  }
  const auto deadline = std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout);
  auto connections = std::make_unique<Connections>();
  for (size_t i = 0; i < count; ++i) {
    if (!channels[i]->WaitForConnected(deadline)) {
      return absl::UnavailableError(fmt::format("cannot connect to {} within {}",
                                                endpoints[i % endpoints.size()],
                                                absl::FormatDuration(timeout)));
    }
    connections->stubs_.push_back(etcdserverpb::KV::NewStub(channels[i]));
  }
  return connections;
}

std::unique_ptr<Transport> NewGrpcTransport(const Connections& connections, const DataShape& shape,
                                            const TransportOptions& options) {
  return std::make_unique<GrpcTransport>(connections, shape, options);
}

}  // namespace holdfast::bench
