#include "bench/drills/etcd_reader.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>

#include "base/strings.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

constexpr int kReconnectMs = 100;
constexpr int kReconnectMaxMs = 1000;

std::shared_ptr<grpc::Channel> OpenChannel(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kReconnectMs);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kReconnectMs);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kReconnectMaxMs);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

EtcdReader::EtcdReader(const std::vector<std::string>& endpoints) {
  for (const std::string& endpoint : endpoints) {
    stubs_.push_back(etcdserverpb::KV::NewStub(OpenChannel(endpoint)));
  }
}

absl::Status EtcdReader::Ask(
    const std::function<grpc::Status(etcdserverpb::KV::Stub&, grpc::ClientContext*)>& call) {
  const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kDeadline);
  grpc::Status status;
  for (size_t i = 0; i < stubs_.size(); ++i) {
    const int64_t left_ns =
        std::min(give_up_ns - MonotonicNs(), absl::ToInt64Nanoseconds(kTryTimeout));
    if (left_ns <= 0) break;
    grpc::ClientContext context;
    context.set_deadline(
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(left_ns, GPR_TIMESPAN)));
    status = call(*stubs_[at_], &context);
    if (status.ok()) return absl::OkStatus();
    at_ = (at_ + 1) % stubs_.size();
  }
  return absl::Status(absl::StatusCode(status.error_code()), base::ToAbsl(status.error_message()));
}

absl::StatusOr<EtcdReader::Answer> EtcdReader::Get(const std::string& key, bool serializable) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  request.set_serializable(serializable);
  etcdserverpb::RangeResponse response;
  const absl::Status status = Ask([&](auto& stub, grpc::ClientContext* context) {
    return stub.Range(context, request, &response);
  });
  if (!status.ok()) return status;
  Answer answer;
  answer.revision = uint64_t(response.header().revision());
  if (response.kvs_size() > 0) {
    answer.value = response.kvs(0).value();
    answer.mod_revision = uint64_t(response.kvs(0).mod_revision());
  }
  return answer;
}

absl::Status EtcdReader::Put(const std::string& key, const std::string& value) {
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  etcdserverpb::PutResponse response;
  return Ask([&](auto& stub, grpc::ClientContext* context) {
    return stub.Put(context, request, &response);
  });
}

}  // namespace holdfast::bench
