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
    for (Slot& slot : slots_) slot.get.request.set_serializable(options.serializable);
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
    slot.put.reader.reset();
    slot.get.reader.reset();
    slot.txn.reader.reset();
    slot.context.emplace();
    etcdserverpb::KV::Stub& stub =
        connections_.stub((options_.first_connection + index) % connections_.size());
    void* tag = reinterpret_cast<void*>(uintptr_t{index});
    switch (operation.kind) {
      case OpKind::kPut:
        FillPut(operation, operation.first_key, slot.put.request);
        slot.put.reader = stub.AsyncPut(&*slot.context, slot.put.request, &queue_);
        slot.put.reader->Finish(&slot.put.response, &slot.status, tag);
        return;
      case OpKind::kGet:
        shape_.WriteKey(operation.first_key, slot.get.request.mutable_key());
        slot.get.reader = stub.AsyncRange(&*slot.context, slot.get.request, &queue_);
        slot.get.reader->Finish(&slot.get.response, &slot.status, tag);
        return;
      case OpKind::kLoad:
        FillLoad(operation, slot.txn.request);
        slot.txn.reader = stub.AsyncTxn(&*slot.context, slot.txn.request, &queue_);
        slot.txn.reader->Finish(&slot.txn.response, &slot.status, tag);
        return;
    }
  }

  std::optional<Completion> Next(int64_t deadline_ns) override {
    const gpr_timespec wait =
        gpr_time_from_nanos(std::max<int64_t>(0, deadline_ns - MonotonicNs()), GPR_TIMESPAN);
    void* tag = nullptr;
    bool ok = false;
    const auto next = queue_.AsyncNext(&tag, &ok, gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), wait));
    if (next != grpc::CompletionQueue::GOT_EVENT) return std::nullopt;
    const uint32_t index = uint32_t(reinterpret_cast<uintptr_t>(tag));
    const Slot& slot = slots_[index];
    Completion completion{.slot = index, .kind = slot.operation.kind, .outcome = {}};
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
    if (slot.operation.kind == OpKind::kGet) {
      outcome.found = slot.get.response.kvs_size() == 1;
      outcome.bytes = outcome.found ? pair_bytes : shape_.key_size();
    } else {
      outcome.bytes = slot.operation.keys * pair_bytes;
    }
    return completion;
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
