// Everything behind a FakeStore's sockets: one mutex, the data, the members, and what waits.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>
#include <grpcpp/server_context.h>

#include "absl/time/time.h"
#include "base/clock.h"
#include "client/testing/fake_data.h"
#include "client/testing/fault_list.h"
#include "etcd/rpc.pb.h"
#include "holdfast/client.pb.h"
#include "holdfast/testing/fake_store.h"

namespace holdfast::testing::internal {

class WatchCall;
struct Member;

// What an answer waits for.
enum class Hold { kRelease, kUnhang, kForever };

// A call whose answer may be made to wait.
class HeldCall {
 public:
  virtual ~HeldCall() = default;
  virtual void GoOn() = 0;  // not under the world's mutex
};

// Writes that took effect once (docs/sessions.md).
struct Session {
  struct Outcome {
    uint64_t digest = 0;
    grpc::Status status;
    std::string response;  // serialized
  };
  std::map<uint64_t, Outcome> outcomes;  // by sequence
  uint64_t lowest = 1;                   // below it every answer is acknowledged
};

struct Member {
  explicit Member(World* w) : world(w) {}

  World* const world;
  int index = 0;
  std::string endpoint;
  int reserved_port = -1;  // a socket that keeps the port ours while nothing listens
  std::vector<std::unique_ptr<grpc::Service>> services;
  std::unique_ptr<grpc::Server> server;  // null: not serving

  // Guarded by the world's mutex.
  bool hanging = false;
  bool watch_paused = false;
  absl::Duration base_age = absl::ZeroDuration();
  // Set while it is cut off.
  struct Cut {
    FakeData::View view;
    uint64_t incarnation = 0;
    base::ClockSample since;
  };
  std::optional<Cut> cut;
  std::map<std::string, int, std::less<>> calls;
  std::set<std::string> peers;
  std::set<WatchCall*> watches;
};

class World {
 public:
  explicit World(const FakeStore::Options& options);
  ~World();

  // Says that something happened, to those who wait for it. REQUIRES: mutex.
  void Happened();
  bool WaitUntil(const std::function<bool()>& condition, absl::Duration at_most);

  // What a member can tell now. REQUIRES: mutex, for all of these.
  FakeData::View ViewOf(const Member& member) const;
  uint64_t IncarnationOf(const Member& member) const;
  std::optional<absl::Duration> AgeOf(const Member& member) const;  // nullopt: unknown
  void Fill(const Member& member, int64_t revision, etcdserverpb::ResponseHeader* header) const;
  void AddAge(const Member& member, Trailing* trailing) const;

  // Counts a call, and says what is to happen to it. REQUIRES: mutex.
  Fault Arrive(Member* member, const char* method, const grpc::CallbackServerContext& context);

  // Held calls, in the order of their arrival.
  void Add(HeldCall* call, Member* member, Hold hold);  // REQUIRES: mutex
  bool Remove(HeldCall* call);                          // REQUIRES: mutex; false: it is let go
  void Release(Hold hold,
               const Member* member = nullptr);  // of one, or of all; not under the mutex
  int HeldByFault() const;

  // Gives every open watch what it has not seen. REQUIRES: mutex.
  void Feed();
  void EndWatches(Member* member, const grpc::Status& status);

  void CutOff(Member* member);  // REQUIRES: mutex
  // Not under the mutex.
  void Start(Member* member);
  void Stop(Member* member);
  // All, or the one.
  std::vector<Member*> MembersOf(int member) const;

  const FakeStore::Options options;
  const std::shared_ptr<const base::Clock> clock;
  std::vector<std::string> endpoints;
  std::vector<std::unique_ptr<Member>> members;

  mutable std::mutex mutex;
  FakeData data;
  uint64_t incarnation = 1;
  std::map<uint64_t, Session> sessions;
  uint64_t next_session = 1;
  FaultList faults{this};
  std::vector<holdfast::v1::ReportRequest> reports;  // the last of each client
  std::vector<std::string> report_order;             // client ids, the latest reporter last
  int marks = 0;
  int deduplicated = 0;
  std::map<holdfast::v1::LoadHead::Kind, int> loads;

 private:
  std::mutex serving_;  // guards every member's server; taken before `mutex`
  struct Held {
    HeldCall* call;
    Member* member;
    Hold hold;
  };
  std::vector<Held> held_;  // guarded by mutex
  std::condition_variable happened_;
  uint64_t events_ = 0;  // guarded by mutex
};

// What one member answers with; on one port.
std::vector<std::unique_ptr<grpc::Service>> MakeServices(Member* member, bool plain_etcd);

}  // namespace holdfast::testing::internal
