#include "tests/maint/maint_calls.h"

#include <gtest/gtest.h>

#include <chrono>

namespace holdfast {
namespace {

std::shared_ptr<grpc::Channel> Dial(const std::string& endpoint) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  return grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

MemberApi::MemberApi(const std::string& endpoint, absl::Duration timeout)
    : timeout_(timeout),
      channel_(Dial(endpoint)),
      kv_(etcdserverpb::KV::NewStub(channel_)),
      maintenance_(etcdserverpb::Maintenance::NewStub(channel_)) {}

std::unique_ptr<grpc::ClientContext> MemberApi::NewContext() const {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout_));
  context->set_wait_for_ready(true);
  return context;
}

grpc::Status MemberApi::Put(const std::string& key, const std::string& value) {
  etcdserverpb::PutRequest request;
  etcdserverpb::PutResponse response;
  request.set_key(key);
  request.set_value(value);
  return kv_->Put(NewContext().get(), request, &response);
}

grpc::Status MemberApi::Delete(const std::string& key) {
  etcdserverpb::DeleteRangeRequest request;
  etcdserverpb::DeleteRangeResponse response;
  request.set_key(key);
  return kv_->DeleteRange(NewContext().get(), request, &response);
}

grpc::Status MemberApi::Get(const std::string& key, bool serializable,
                            std::optional<mvccpb::KeyValue>* kv, int64_t revision) {
  etcdserverpb::RangeRequest request;
  etcdserverpb::RangeResponse response;
  request.set_key(key);
  request.set_serializable(serializable);
  request.set_revision(revision);
  const grpc::Status status = kv_->Range(NewContext().get(), request, &response);
  kv->reset();
  if (status.ok() && response.kvs_size() > 0) *kv = response.kvs(0);
  return status;
}

grpc::Status MemberApi::Compact(int64_t revision, bool physical) {
  etcdserverpb::CompactionRequest request;
  etcdserverpb::CompactionResponse response;
  request.set_revision(revision);
  request.set_physical(physical);
  return kv_->Compact(NewContext().get(), request, &response);
}

grpc::Status MemberApi::Status(etcdserverpb::StatusResponse* response) {
  return maintenance_->Status(NewContext().get(), {}, response);
}

grpc::Status MemberApi::HashKv(int64_t revision, etcdserverpb::HashKVResponse* response) {
  etcdserverpb::HashKVRequest request;
  request.set_revision(revision);
  return maintenance_->HashKV(NewContext().get(), request, response);
}

grpc::Status MemberApi::Defragment() {
  etcdserverpb::DefragmentResponse response;
  return maintenance_->Defragment(NewContext().get(), {}, &response);
}

grpc::Status MemberApi::Alarm(etcdserverpb::AlarmRequest::AlarmAction action, uint64_t member,
                              etcdserverpb::AlarmType type,
                              std::vector<etcdserverpb::AlarmMember>* alarms) {
  etcdserverpb::AlarmRequest request;
  etcdserverpb::AlarmResponse response;
  request.set_action(action);
  request.set_memberid(member);
  request.set_alarm(type);
  const grpc::Status status = maintenance_->Alarm(NewContext().get(), request, &response);
  alarms->assign(response.alarms().begin(), response.alarms().end());
  return status;
}

std::vector<etcdserverpb::AlarmMember> MemberApi::Alarms() {
  std::vector<etcdserverpb::AlarmMember> alarms;
  const grpc::Status status =
      Alarm(etcdserverpb::AlarmRequest::GET, 0, etcdserverpb::NONE, &alarms);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return alarms;
}

grpc::Status MemberApi::Snapshot(const std::function<bool(uint64_t bytes)>& more) {
  const auto context = NewContext();
  auto reader = maintenance_->Snapshot(context.get(), {});
  uint64_t bytes = 0;
  for (etcdserverpb::SnapshotResponse one; reader->Read(&one);) {
    bytes += one.blob().size();
    if (!more(bytes)) {
      context->TryCancel();
      break;
    }
  }
  return reader->Finish();
}

}  // namespace holdfast
