// One watch stream of a FakeStore.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include <grpcpp/support/server_callback.h>

#include "client/testing/gated_call.h"
#include "etcd/rpc.pb.h"

namespace holdfast::testing::internal {

// Threads: what is not gRPC's REQUIRES the world's mutex. Deletes itself.
class WatchCall
    : public GatedCall,
      public grpc::ServerBidiReactor<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse> {
 public:
  WatchCall(Member* member, grpc::CallbackServerContext* context);

  // Takes the requests that waited, and gives each watch what it has not seen.
  void Feed();
  void LoseLeader();
  void End(const grpc::Status& status);
  size_t size() const { return watches_.size(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Watch {
    std::string key;
    std::string range_end;
    int64_t next = 0;  // the first revision that it has not been given
    bool prev_kv = false;
    bool no_put = false;
    bool no_delete = false;
  };

  void Run() override;
  void Refuse(const grpc::Status& status) override;
  bool silent() const { return !running_ || member_->hanging || member_->watch_paused; }
  void Handle(const etcdserverpb::WatchRequest& request);
  void Create(const etcdserverpb::WatchCreateRequest& request);
  void Mark(const etcdserverpb::WatchMark& mark);
  // False: a compaction has overtaken it.
  bool Feed(int64_t id, Watch& watch);
  etcdserverpb::WatchResponse Response(int64_t watch_id, int64_t revision) const;
  void Push(etcdserverpb::WatchResponse response);
  void Write();

  bool needs_leader_ = false;
  bool running_ = false;  // past the gate
  bool writing_ = false;
  bool ending_ = false;
  grpc::Status why_;
  etcdserverpb::WatchRequest in_;                    // of the read in flight
  etcdserverpb::WatchResponse out_;                  // of the write in flight
  std::vector<etcdserverpb::WatchRequest> waiting_;  // that came while it is silent
  std::deque<etcdserverpb::WatchResponse> queue_;
  std::map<int64_t, Watch> watches_;
  int64_t next_id_ = 0;
};

}  // namespace holdfast::testing::internal
