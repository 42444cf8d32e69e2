// An etcd KV server in this process that says what a test tells it to.
//
// Time never passes here: an answer that takes long is a held call, which the test lets go.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/server.h>
#include <grpcpp/support/status.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::test {

// One request as the server saw it. Of the messages, the one of `method` is set.
struct Seen {
  std::string method = {};  // "Range", "Put", "DeleteRange", "Txn", "SessionOpen", "SessionClose"
  etcdserverpb::RangeRequest range = {};
  etcdserverpb::PutRequest put = {};
  etcdserverpb::DeleteRangeRequest delete_range = {};
  etcdserverpb::TxnRequest txn = {};
  uint64_t session = 0;  // of SessionClose
  std::map<std::string, std::string> metadata = {};

  bool serializable() const { return range.serializable(); }
};

struct Answer {
  grpc::Status status = {};
  int64_t revision = 1;
  uint64_t cluster_id = 7;
  std::vector<std::pair<std::string, std::string>> trailing = {};
  std::vector<std::pair<std::string, std::string>> kvs = {};  // of a Range
  bool more = false;
  int64_t count = -1;  // -1: as many as kvs
  int64_t deleted = 0;
  bool succeeded = true;
  uint64_t session = 1;  // of a SessionOpen
  uint32_t window = 128;
  bool hold = false;  // no answer until ReleaseHeld(), Stop() or the client's cancel

  static Answer Ok(int64_t revision = 1) { return {.revision = revision}; }
  static Answer Error(grpc::StatusCode code, std::string text) {
    return {.status = grpc::Status(code, std::move(text))};
  }
  static Answer NoLeader() { return Error(grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader"); }
  static Answer Hold() { return {.hold = true}; }
  // With the metadata of a Holdfast server.
  static Answer WithAge(int age_ms, int64_t revision = 1, std::string source = "follower");
};

// Threads: all methods from any thread. The handler runs on gRPC's threads, one call at a time.
class FakeServer {
 public:
  using Handler = std::function<Answer(const Seen&)>;

  // With kNo the service Sessions is not there, as in etcd.
  enum class Sessions { kNo, kYes };
  // On a free port of the loopback; every request is answered OK at revision 1 until told
  // otherwise.
  explicit FakeServer(Sessions sessions = Sessions::kNo);
  ~FakeServer();

  const std::string& endpoint() const { return endpoint_; }
  void SetHandler(Handler handler);
  void Always(Answer answer);

  int calls() const;  // that reached the handler
  int calls(const std::string& method) const;
  std::vector<Seen> seen() const;

  void WaitForHeld(int count) const;  // until so many calls are held now
  void WaitForCalls(int count) const;
  void ReleaseHeld(const Answer& answer);

  void Stop();   // every connection breaks; the port refuses
  void Start();  // again, on the same port

  class Service;

 private:
  class SessionService;

  std::unique_ptr<Service> service_;
  std::unique_ptr<SessionService> sessions_;  // null: there is none
  std::string endpoint_;
  std::unique_ptr<grpc::Server> server_;
};

// A port on which nothing listens: connections are refused.
std::string DeadEndpoint();

// Accepts connections and says nothing, ever.
class BlackHole {
 public:
  BlackHole();
  ~BlackHole();
  const std::string& endpoint() const { return endpoint_; }

 private:
  int socket_ = -1;
  std::string endpoint_;
};

}  // namespace holdfast::test
