// One measurement on Holdfast and on etcd in turn, and the table of both.
//
// The sides take turns, and only one cluster runs at a time: see compare.h. A side whose turn fails
// does not take the other's figures with it: the report tells both, and is not passed.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/local_cluster.h"
#include "bench/options.h"
#include "bench/proc_stats.h"
#include "bench/report.h"

namespace holdfast::bench {

enum class Side { kHoldfast, kEtcd, kGiven };  // kGiven: the servers of --endpoints
std::string SideName(Side side);
// Those that the options ask for, in the order of their turns.
std::vector<Side> SidesOf(const Options& options);

// The servers of one turn; a cluster that was started for it ends with it.
struct Servers {
  std::unique_ptr<LocalCluster> cluster;  // null for kGiven
  std::vector<std::string> endpoints;
  std::vector<pid_t> pids;  // of the started members, or those of --pids
  std::string version;

  // The leader's process; 0 where it cannot be told.
  pid_t LeaderPid() const;
};
// Starts a fresh cluster, or takes --endpoints. Unavailable if there is no answer.
absl::StatusOr<Servers> OpenServers(const Options& options, Side side,
                                    const std::atomic<bool>& cancelled);

// Memory of the largest of some processes.
struct Memory {
  double rss_mib = 0;
  double anon_mib = 0;
};
Memory LargestMemory(const std::vector<pid_t>& pids);
void AddMemory(const std::string& prefix, const Memory& memory, std::vector<Metric>* out);

// CPU between two moments.
struct CpuSample {
  int64_t taken_ns = 0;
  double servers = 0;  // seconds
  double bench = 0;
  double machine = 0;
};
CpuSample TakeCpuSample(const std::vector<pid_t>& pids);
// Cores that neither the bench nor the servers kept busy.
double OtherCores(const CpuSample& begin, const CpuSample& end);

// In 10 ms steps. Cancelled if that was set.
absl::Status SleepFor(absl::Duration duration, const std::atomic<bool>& cancelled);
// Until the processes have used less than a tenth of a core over 2 s: what a load has started
// (flushes, compactions) has come to an end. Gives up at `limit`; returns how long it took.
absl::StatusOr<double> SleepUntilQuiet(const std::vector<pid_t>& pids, absl::Duration limit,
                                       const std::atomic<bool>& cancelled);

struct Table {
  std::string title;
  std::vector<Metric> metrics;
};

struct Turn {
  std::string version;
  std::vector<Table> tables;       // the same titles and metrics in every turn of a side
  std::vector<std::string> wrong;  // promises that the servers broke, and steps that failed
  std::vector<std::string> notes;  // what a reader of the figures must know
};

struct BenchReport {
  std::string text;  // or JSON
  bool passed = true;
};

// To stderr: "holdfast  text".
void Progress(Side side, const std::string& text);

// Pure: the report of turns taken, by side.
struct SideTurns {
  Side side = Side::kHoldfast;
  std::vector<Turn> turns;
};
BenchReport ReportOf(const Options& options, const Hardware& hardware, const std::string& load,
                     const std::vector<SideTurns>& sides);

// options.runs turns of each side. `load` is one line that says what was done. Only Cancelled is an
// error; what else goes wrong is in the report.
using TakeTurn = std::function<absl::StatusOr<Turn>(Side side, uint32_t run)>;
absl::StatusOr<BenchReport> SideBySide(const Options& options, const std::string& load,
                                       const TakeTurn& take_turn);

}  // namespace holdfast::bench
