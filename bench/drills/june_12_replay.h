// One run of june-12: june_12.cc plays it, june_12_report.cc tells what came of it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/drills/june_12.h"
#include "bench/drills/june_12_etcd.h"
#include "bench/drills/request_rate.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {

inline constexpr absl::Duration kIdentityBound = absl::Hours(4);
inline constexpr absl::Duration kIdentityReduced = absl::Minutes(5);
inline constexpr absl::Duration kSessionBound = absl::Hours(1);
inline constexpr absl::Duration kLiveLimit = absl::Seconds(35);  // attempts are at most 30 s apart

// Threads: one.
class June12Replay {
 public:
  explicit June12Replay(DrillRun& run) : run_(run) {}

  absl::Status Play();

 private:
  absl::Status StartStore();
  absl::Status StartClients();
  bool AllLive() const;
  void StartProduct(size_t number);
  absl::Status Outage();
  absl::Status Return();
  void StopAll();
  void Report();
  void ReportClass(const std::string& what, Need need, bool refusals);
  void ReportWrites();
  void ReportReturn();
  void AddTable();
  void AddPlot();
  Track::Totals During(Need need) const;
  std::vector<const Track*> TracksOf(Need need) const;

  DrillRun& run_;
  absl::Duration outage_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<EtcdTown> etcd_;
  std::unique_ptr<RequestRate> rate_;
  std::unique_ptr<Client> writers_client_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::map<Need, DrillOracle::History*> histories_;
  std::vector<Track*> tracks_;  // by product
  std::vector<std::unique_ptr<Writer>> writers_;
  std::vector<std::unique_ptr<Writer>> registrations_;
  std::vector<std::unique_ptr<MirrorReader>> readers_;
  std::vector<std::unique_ptr<Caller>> callers_;
  int64_t begin_ns_ = 0, fault_ns_ = 0, gone_ns_ = 0, back_ns_ = 0, end_ns_ = 0;
  double live_s_ = -1;
};

}  // namespace holdfast::bench
