// etcd's own calls at one member, with the exact codes and texts, as these process tests need them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast {

// Threads: all; each call has a deadline of its own.
class MemberApi {
 public:
  explicit MemberApi(const std::string& endpoint, absl::Duration timeout = absl::Seconds(10));

  grpc::Status Put(const std::string& key, const std::string& value);
  grpc::Status Delete(const std::string& key);
  // `revision` 0: the newest. `kv` gets the key's record, or nothing.
  grpc::Status Get(const std::string& key, bool serializable, std::optional<mvccpb::KeyValue>* kv,
                   int64_t revision = 0);
  grpc::Status Compact(int64_t revision, bool physical);
  grpc::Status Status(etcdserverpb::StatusResponse* response);
  grpc::Status HashKv(int64_t revision, etcdserverpb::HashKVResponse* response);
  grpc::Status Defragment();
  grpc::Status Alarm(etcdserverpb::AlarmRequest::AlarmAction action, uint64_t member,
                     etcdserverpb::AlarmType type, std::vector<etcdserverpb::AlarmMember>* alarms);
  std::vector<etcdserverpb::AlarmMember> Alarms();  // a failure is told to gtest
  // Calls `more` with the bytes so far after each message, until it says false.
  grpc::Status Snapshot(const std::function<bool(uint64_t bytes)>& more);

 private:
  std::unique_ptr<grpc::ClientContext> NewContext() const;

  const absl::Duration timeout_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  const std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance_;
};

}  // namespace holdfast
