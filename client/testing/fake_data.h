// The records of a FakeStore with all their history, and what KV requests do to them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <grpcpp/support/status.h>

#include "etcd/kv.pb.h"
#include "etcd/rpc.pb.h"

namespace holdfast::testing::internal {

// Whether a request for [key, range_end) is about `candidate`, by etcd's rules: no end: `key`
// alone; "\0": everything from `key` on.
bool Covers(std::string_view key, std::string_view range_end, std::string_view candidate);

// History is never dropped: compaction is a number, so that a member that was cut off before goes
// on serving what it had.
// Threads: one at a time.
class FakeData {
 public:
  // What may be read: everything up to `revision`, from `compacted` on.
  struct View {
    int64_t revision = 1;
    int64_t compacted = 0;
  };

  View newest() const { return {revision_, compacted_}; }
  // In the order of revisions; those of one transaction share theirs.
  const std::vector<mvccpb::Event>& events() const { return events_; }
  // The first event at or behind `revision`, as an index of events().
  size_t FirstEvent(int64_t revision) const;

  grpc::Status Range(const etcdserverpb::RangeRequest& request, const View& view,
                     etcdserverpb::RangeResponse* response) const;
  grpc::Status Put(const etcdserverpb::PutRequest& request, etcdserverpb::PutResponse* response);
  grpc::Status DeleteRange(const etcdserverpb::DeleteRangeRequest& request,
                           etcdserverpb::DeleteRangeResponse* response);
  grpc::Status Txn(const etcdserverpb::TxnRequest& request, etcdserverpb::TxnResponse* response);
  // At one revision, however many.
  void PutAll(const std::vector<std::pair<std::string, std::string>>& records);
  grpc::Status Compact(int64_t revision);
  // What was written behind `revision` never was.
  void RestoreTo(int64_t revision);

  // Every record whose key begins with `prefix`, by key.
  std::vector<mvccpb::KeyValue> Records(std::string_view prefix, int64_t revision) const;

 private:
  struct Version {
    mvccpb::KeyValue kv;
    bool deleted = false;
  };
  using Versions = std::vector<Version>;  // of one key, oldest first

  // Newest version of at most `revision`; null: none, or it is deleted.
  static const mvccpb::KeyValue* Find(const Versions& versions, int64_t revision);
  const mvccpb::KeyValue* Find(const std::string& key) const;

  // The parts of a write; all within one revision, which EndWrite makes the newest.
  void DoPut(const etcdserverpb::PutRequest& request, etcdserverpb::PutResponse* response);
  void DoDelete(const etcdserverpb::DeleteRangeRequest& request,
                etcdserverpb::DeleteRangeResponse* response);
  grpc::Status DoTxn(const etcdserverpb::TxnRequest& request, etcdserverpb::TxnResponse* response);
  bool Holds(const etcdserverpb::Compare& compare) const;
  static bool Holds(const etcdserverpb::Compare& compare, const mvccpb::KeyValue& kv);
  void Append(Version version, const mvccpb::KeyValue* previous);
  void EndWrite();

  std::map<std::string, Versions, std::less<>> records_;
  std::vector<mvccpb::Event> events_;
  int64_t revision_ = 1;
  int64_t compacted_ = 0;
  bool changed_ = false;  // by the write under way, which is revision_ + 1
};

}  // namespace holdfast::testing::internal
