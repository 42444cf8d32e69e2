// A Holdfast store in this process, for the tests of a service: real sockets on the loopback and
// the real protocol, data in memory, and every misfortune at a call.
//
//   testing::FakeStore store;
//   store.Put("/config/limits", "rps=100");
//   auto client = Client::Open({.endpoints = store.endpoints(), .prefixes = ...});
//   store.StopServing();                      // every server is gone
//   EXPECT_EQ(service.limits().rps, 100);     // and the service goes on
//
// It answers KV (Range, Put, DeleteRange, Txn, Compact), Watch with Holdfast's marks, Mirror and
// Sessions. No leases, no authentication, no disk. Link holdfast::testing; it is no part of
// holdfast::holdfast.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "holdfast/entry.h"
#include "holdfast/testing/fault_injector.h"

namespace holdfast {

namespace base {
class Clock;
}  // namespace base

namespace testing {

namespace internal {
class World;
}  // namespace internal

// What a client told the store of itself (Mirror.Report).
struct PrefixReport {
  std::string prefix = {};
  std::string link = {};
  std::string source = {};
  uint64_t revision = 0;
  uint64_t refused_revision = 0;  // 0: nothing is refused
  std::string refused_why = {};
  uint64_t records = 0;
  uint64_t bytes = 0;
};
struct ClientReport {
  std::string client_id = {};
  std::string name = {};
  std::string version = {};
  bool leaving = false;
  std::vector<PrefixReport> prefixes = {};
};

// Threads: all methods from any thread; what one changes is seen by every request that arrives
// after it returned. A method with a `member` means that one of several; kAll, every one.
class FakeStore {
 public:
  static constexpr int kAll = -1;

  struct Options {
    // Addresses; all serve the same data. The first is the leader.
    int members = 1;
    // That ages are measured with: the client's, or null for the kernel's.
    std::shared_ptr<const base::Clock> clock = nullptr;
    uint64_t cluster_id = 7;
    uint64_t incarnation = 1;
    // An etcd: KV and Watch alone, and no ages.
    bool plain_etcd = false;
  };

  FakeStore() : FakeStore(Options{}) {}
  explicit FakeStore(Options options);
  ~FakeStore();
  FakeStore(const FakeStore&) = delete;
  FakeStore& operator=(const FakeStore&) = delete;

  const std::vector<std::string>& endpoints() const;

  // --- the data; past every fault, as if another client wrote ---
  // They return the revision. A Delete of what is not there changes nothing.
  uint64_t Put(std::string_view key, std::string_view value);
  uint64_t Put(const std::vector<std::pair<std::string, std::string>>& records);  // one revision
  uint64_t Delete(std::string_view key);
  uint64_t DeletePrefix(std::string_view prefix);
  // History before `revision` is gone (0: before now): watches cannot begin there.
  void Compact(uint64_t revision = 0);
  std::optional<Entry> Get(std::string_view key) const;
  std::vector<Entry> Scan(std::string_view prefix) const;
  uint64_t revision() const;
  uint64_t incarnation() const;

  // --- outages ---
  // No leader: writes and linearizable reads are UNAVAILABLE, ages grow, and the rest goes on. What
  // Put() and Delete() write meanwhile happened on the other side of the cut, and shows up after
  // RestoreQuorum().
  void LoseQuorum();
  void RestoreQuorum();
  // The same for one member: cut off from the others, it serves what it had.
  void CutOff(int member);
  void Rejoin(int member);
  // Every connection breaks and the port refuses; the same port again after ResumeServing().
  void StopServing(int member = kAll);
  void ResumeServing(int member = kAll);
  // Requests are taken and not answered, streams stay open and silent: a stopped process, a
  // half-open connection. After Unhang() all go on.
  void Hang(int member = kAll);
  void Unhang(int member = kAll);
  // Watches say nothing, bookmarks included; everything else goes on.
  void PauseWatch(int member = kAll);
  void ResumeWatch(int member = kAll);
  // Ends every watch with UNAVAILABLE, as a server does that stops gracefully.
  void BreakWatches(int member = kAll);
  // The age that the member claims while it is in touch with the others (at first 0; it grows on
  // top of this while it is not). InfiniteDuration: it cannot tell.
  void SetAge(absl::Duration age, int member = kAll);

  // --- what operators do; ends a loss of quorum, and every watch ---
  // The cluster starts anew from one member's data: revisions of before mean nothing any more.
  void NewIncarnation();
  // It is restored from a backup of this revision: what was written since is gone, and revisions
  // are used a second time, under a new incarnation. REQUIRES: not beyond revision().
  void RestoreTo(uint64_t revision);
  // The session table is lost: the next write of every session is refused.
  void ForgetSessions();

  FaultInjector& faults();

  // --- what the store saw ---
  // Requests that arrived, answered or not. Methods: "Range", "Put", "DeleteRange", "Txn",
  // "Compact", "Watch" (streams), "Load", "Report", "Clients", "SessionOpen", "SessionClose";
  // empty: all together.
  int calls(std::string_view method = "", int member = kAll) const;
  // Connections on which something arrived, ever.
  int connections(int member = kAll) const;
  int watches(int member = kAll) const;  // open now
  int marks() const;                     // that watches asked, ever
  int loads_resumed() const;
  int loads_unchanged() const;
  int loads_whole() const;
  // Writes that took no effect because they had it already.
  int deduplicated() const;
  // The last report of each client, in the order of their first ones.
  std::vector<ClientReport> reports() const;
  // The report on this prefix by whoever reported last.
  std::optional<PrefixReport> report(std::string_view prefix) const;

  // Waits, without polling, until `condition` holds; it is looked at after everything that happens
  // in this store, and may call its methods. False: not within `at_most`. Do not use it for what
  // happens in the client alone.
  bool WaitUntil(const std::function<bool()>& condition,
                 absl::Duration at_most = absl::Seconds(10)) const;
  bool WaitForCalls(std::string_view method, int count) const;
  bool WaitForWatches(int count) const;  // open at once, exactly

 private:
  std::unique_ptr<internal::World> world_;
  std::unique_ptr<FaultInjector> faults_;
};

}  // namespace testing
}  // namespace holdfast
