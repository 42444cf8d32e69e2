// The store as the backup and migration commands talk to it: single calls on whatever endpoint
// answers, and the watch. Works on Holdfast and on etcd from 3.4 on.
//
// Threads: Remote's calls from any thread. A call blocks for at most its timeout.
// Errors: the server's code and text. Unavailable: no endpoint gave an answer; a call that changes
// something may have been carried out then, so only what may be done twice is asked here.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::ctl {

absl::Status FromGrpc(const grpc::Status& status);

// Which data answers, and how far it is.
struct StoreState {
  uint64_t cluster_id = 0;
  uint64_t incarnation = 0;  // 0: not told, as by an etcd
  int64_t revision = 0;
};

// Everything: etcd's form of "from the first key on".
inline constexpr char kFirstKey[] = {'\0'};
std::string AllKeys();

class Remote {
 public:
  // InvalidArgument: an endpoint is none.
  static absl::StatusOr<std::unique_ptr<Remote>> Open(const std::vector<std::string>& endpoints,
                                                      absl::Duration timeout);

  // Tries the endpoints in turn, from the one that answered last, until one gives an answer.
  absl::Status Range(const etcdserverpb::RangeRequest& request,
                     etcdserverpb::RangeResponse* response, StoreState* state = nullptr);
  // Linearizable: at least what was acknowledged before the call.
  absl::StatusOr<StoreState> State();
  absl::StatusOr<std::vector<int64_t>> Leases();
  // TTL -1: there is no such lease.
  absl::StatusOr<etcdserverpb::LeaseTimeToLiveResponse> TimeToLive(int64_t lease,
                                                                   bool keys = false);
  // OK also if there is such a lease already.
  absl::Status Grant(int64_t lease, int64_t ttl_s);
  absl::Status KeepAlive(const std::vector<int64_t>& leases);

  // The channels, for streams; the first is the one that answered last.
  std::vector<std::shared_ptr<grpc::Channel>> channels() const;
  absl::Duration timeout() const { return timeout_; }

 private:
  Remote() = default;
  // `call(channel, context)`, on one endpoint after the other.
  absl::Status Try(const std::function<grpc::Status(const std::shared_ptr<grpc::Channel>&,
                                                    grpc::ClientContext*)>& call);

  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::string> names_;
  absl::Duration timeout_;
  std::atomic<size_t> preferred_ = 0;
};

// Every event of every key from a revision on, as one call of `visit` per whole revision, in order.
// Reconnects by itself where the stream breaks, and goes on behind the last revision that `visit`
// has seen.
struct WatchedRevision {
  int64_t revision = 0;
  std::vector<mvccpb::Event> events;
};
class RevisionWatch {
 public:
  // False: enough. It must not take longer than the store keeps history.
  using Visit = std::function<bool(WatchedRevision revision)>;

  explicit RevisionWatch(Remote* remote) : remote_(*remote) {}

  // Blocks until `visit` returns false (OK), Stop() (Cancelled), or an error: OutOfRange: the
  // revision was compacted away; Unavailable: no endpoint for `give_up` long.
  absl::Status Run(int64_t from_revision, absl::Duration give_up, const Visit& visit);
  // Any thread; Run ends soon, and later ones at once.
  void Stop();

 private:
  enum class End { kEnough, kBroken, kFailed };
  End RunOnce(const std::shared_ptr<grpc::Channel>& channel, const Visit& visit,
              absl::Status* status);

  Remote& remote_;
  int64_t next_ = 0;
  absl::Time last_heard_;
  std::mutex mutex_;
  grpc::ClientContext* context_ = nullptr;  // of the stream under way
  bool stopped_ = false;
};

}  // namespace holdfast::ctl
