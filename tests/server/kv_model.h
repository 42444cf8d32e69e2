// A dumb twin of the state machine: a copy of the whole state for every revision, and transactions
// that work on a copy and throw it away when anything is refused. Shares no code with
// server/apply_command.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "etcd/kv.pb.h"
#include "etcd/rpc.pb.h"
#include "holdfast/command.pb.h"

namespace holdfast::server::testing {

class Model {
 public:
  using State = std::map<std::string, mvccpb::KeyValue>;

  struct Outcome {
    absl::Status status;
    std::unique_ptr<google::protobuf::Message> response;
  };
  Outcome Apply(const command::v1::Command& command);

  int64_t revision() const { return static_cast<int64_t>(states_.size()) - 1; }
  int64_t compact_revision() const { return compact_revision_; }
  const State& at(int64_t revision) const { return states_.at(revision); }
  const std::map<int64_t, int64_t>& leases() const { return leases_; }  // id -> TTL

 private:
  struct Work {
    State state;
    bool wrote = false;
  };
  // Which branch each transaction takes, nested ones in the order of the request's text, both
  // branches included: it is decided on the state before, so the order does not matter.
  using Choices = std::map<const etcdserverpb::TxnRequest*, bool>;

  Outcome ApplyLease(const command::v1::Command& command);
  bool Revoke(int64_t id);
  void Choose(const etcdserverpb::TxnRequest& txn, Choices* choices) const;
  bool Holds(const etcdserverpb::Compare& compare) const;
  absl::Status Txn(const etcdserverpb::TxnRequest& txn, const Choices& choices, Work* work,
                   etcdserverpb::TxnResponse* response) const;
  absl::Status Put(const etcdserverpb::PutRequest& put, Work* work,
                   etcdserverpb::PutResponse* response) const;
  absl::Status Delete(const etcdserverpb::DeleteRangeRequest& request, Work* work,
                      etcdserverpb::DeleteRangeResponse* response) const;
  absl::Status Range(const etcdserverpb::RangeRequest& request, const Work& work,
                     etcdserverpb::RangeResponse* response) const;
  int64_t HeaderRevision(const Work& work) const { return revision() + (work.wrote ? 1 : 0); }

  std::vector<State> states_ = {{}, {}};  // [0] is never asked for; an empty store is at 1
  std::map<int64_t, int64_t> leases_;
  int64_t compact_revision_ = 0;
};

}  // namespace holdfast::server::testing
