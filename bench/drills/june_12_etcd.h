// The other column of june-12: the same products on a plain etcd client, under the same faults.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/drills/etcd_reader.h"
#include "bench/drills/june_12.h"
#include "bench/drills/load.h"
#include "bench/drills/store.h"

namespace holdfast::bench {

// Two callers for each product: what linearizable reads (the default of every client) give it, and
// what serializable ones do, which any member answers from what it has, without telling its age.
// Writes are the same in both.
class EtcdTown {
 public:
  static absl::StatusOr<std::unique_ptr<EtcdTown>> Start(DrillRun& run, double calls_per_second);
  void Stop();

  DrillStore& store() { return *store_; }
  const Track& linearizable(size_t product) const { return *tracks_[0][product]; }
  const Track& serializable(size_t product) const { return *tracks_[1][product]; }
  // Of the products that read, for the plot.
  std::vector<const Track*> Reads(bool serializable) const;

 private:
  EtcdTown() = default;

  std::unique_ptr<DrillStore> store_;
  std::vector<std::unique_ptr<EtcdReader>> readers_;
  std::vector<const Track*> tracks_[2];
  std::vector<std::unique_ptr<Caller>> callers_;  // last: their threads use all above
};

}  // namespace holdfast::bench
