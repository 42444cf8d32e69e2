// The store of a drill: three real members, and what services need to know of them.
//
// Services reach the members through a front door (a TcpProxy of their own), which can be cut,
// silenced and counted; the drill's writers go to the members directly, so that the store lives on
// when only the services' network fails.
// Threads: one, but for what is const.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/drills/drill_run.h"
#include "bench/local_cluster.h"
#include "bench/tcp_proxy.h"
#include "holdfast/client.h"

namespace holdfast::bench {

inline constexpr const char* kConfigPrefix = "/config/";
inline constexpr const char* kAuthPrefix = "/auth/";
inline constexpr const char* kSessionPrefix = "/sessions/";
inline constexpr const char* kTokenPrefix = "/tokens/";
// The keys that the oracle's writers write.
inline constexpr const char* kConfigKey = "/config/clock";
inline constexpr const char* kAuthKey = "/auth/clock";

class DrillStore {
 public:
  struct Terms {
    bool etcd = false;
    int members = 3;
    bool proxied_peers = false;
    std::vector<std::string> args = {};
  };
  static absl::StatusOr<std::unique_ptr<DrillStore>> Start(const DrillRun& run, const Terms& terms);
  ~DrillStore();
  DrillStore(const DrillStore&) = delete;
  DrillStore& operator=(const DrillStore&) = delete;

  LocalCluster& cluster() { return *cluster_; }
  // Of the members themselves, for the drill; through the front door, for services.
  std::vector<std::string> direct() const { return cluster_->Endpoints(); }
  const std::vector<std::string>& endpoints() const { return endpoints_; }

  // --- the services' network ---
  // Services are this process, or another one that is named so before it starts to connect.
  void ServicesAre(pid_t pid);
  void CutServices();
  void CutServicesFrom(int member);
  // Both ways: connections stand, and nothing passes.
  void SilenceServices(int member = TcpProxy::kAll);
  void HealServices();
  uint64_t ServiceConnections() const;
  uint64_t ServiceConnections(int member) const;
  uint64_t BytesToServices() const;

  // --- the store ---
  void KillAll();
  absl::Status KillTwo();  // the leader and one more; the survivor is a follower
  int survivor() const { return survivor_; }
  // Starts whatever does not run; returns when they agree on a leader.
  absl::Status BringBack();

  // --- data ---
  // Below the drill's directory, which goes with the store.
  std::string Directory(const std::string& name) const;
  // Some 200 records of 300 B in each of /config/ and /auth/, and the oracle's keys.
  absl::Status Fill();
  absl::Status FillPrefix(const std::string& prefix, int records, size_t value_size);

  // A client that goes to the members directly, for what the drill itself does.
  Client& admin() { return *admin_; }
  // Options of a service behind the front door: endpoints, seed, a fresh directory by its name.
  ClientOptions ServiceOptions(const std::string& name, std::vector<PrefixOptions> prefixes) const;

 private:
  explicit DrillStore(const DrillRun& run) : run_(run) {}
  absl::Status OpenDoor();

  static constexpr int kServicesEnd = 100;

  const DrillRun& run_;
  std::string dir_;
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<TcpProxy> door_;
  std::vector<std::string> endpoints_;
  std::unique_ptr<Client> admin_;
  int survivor_ = -1;
};

}  // namespace holdfast::bench
