// The main job on real input, step by step; main.cc runs the steps and prints the table.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/demo/corpus.h"
#include "bench/demo/service_watch.h"
#include "bench/local_cluster.h"
#include "holdfast/client.h"

namespace holdfast::bench {

struct DemoRow {
  std::string step;
  std::string measured;
  bool ok = true;
};

struct DemoOptions {
  std::string holdfastd;
  std::string service;
  std::string root;  // for the data directories; empty: the temp dir
};

// Each step returns an error only if the demo cannot go on; what was wrong but survivable is a row
// with ok == false. Threads: one.
class Demo {
 public:
  explicit Demo(DemoOptions options) : options_(std::move(options)) {}

  absl::Status Start();
  absl::Status Load();
  absl::Status Compare();
  absl::Status KillLeader();
  absl::Status KillSecond();
  absl::Status RestartSurvivor();
  absl::Status BringAllBack();

  const std::vector<DemoRow>& rows() const { return rows_; }
  bool ok() const;

 private:
  absl::Status StartService();
  // Compares every byte of the corpus through one member; returns how many keys differ or lack.
  absl::StatusOr<int> Differences(int member, const ReadOptions& how);
  // Puts until the member set acknowledges one; how long that took.
  absl::StatusOr<absl::Duration> TimeToWrite(absl::Duration give_up);
  std::unique_ptr<Client> OpenClient(const std::vector<std::string>& endpoints);
  void Row(std::string step, std::string measured, bool ok);
  void ServiceRow(std::string step, bool must_be_stale);

  const DemoOptions options_;
  Corpus corpus_;
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<ServiceWatch> service_;
  std::vector<DemoRow> rows_;
  std::vector<std::string> acked_;  // keys written after the load whose write was acknowledged
  int survivor_ = -1;
  int writes_ = 0;
};

}  // namespace holdfast::bench
