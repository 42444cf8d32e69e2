// One run: workers drive a schedule through a transport and measure.
//
// A worker is one thread that takes completions and, in a closed loop, sends what follows. In an
// open loop a second thread, asleep nearly always, sends each arrival at its moment: a completion
// queue wakes only to the millisecond, which would be added to every latency.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "bench/grpc_transport.h"
#include "bench/operation.h"
#include "bench/proc_stats.h"
#include "bench/run_stats.h"
#include "bench/schedule.h"
#include "bench/transport.h"

namespace holdfast::bench {

// After the last arrival, an open loop's backlog gets so long to drain; then it is given up and
// counted by Backlog::not_sent.
inline constexpr int64_t kDrainLimitNs = 10'000'000'000;

// Runs until schedule.Done(). `cancelled` may be set by any thread; the worker then ends within
// about 100 ms and the time the transport takes to cancel.
// `open_loop`: send arrivals from a thread of their own.
void RunWorker(Schedule& schedule, Transport& transport, OperationSource& source, bool open_loop,
               int64_t stop_at_ns, const std::atomic<bool>& cancelled, RunStats& stats);

struct RunPlan {
  uint32_t clients = 1;
  uint32_t threads = 1;  // at most one for each client
  uint64_t total = 0;    // 0: run for `duration`
  absl::Duration duration;
  absl::Duration warmup;
  double rate = 0;  // 0: closed loop
  bool poisson = false;
  ReadLevel read = ReadLevel::kLinearizable;
  absl::Duration timeout = absl::Seconds(10);
  uint64_t seed = 1;
  std::vector<pid_t> pids;  // servers whose use of CPU and memory is to be told
  // Operations of worker `w` of `n`.
  std::function<std::unique_ptr<OperationSource>(uint64_t w, uint64_t n)> source;
  // The transport of worker `w`, with that many slots. Null: unary calls over the connections.
  std::function<std::unique_ptr<Transport>(uint32_t w, uint32_t slots)> transport;
  // Called at the begin and at the end of the measured window, for who wants to look at the servers
  // more closely than `pids` does (their threads, their counters). May be null.
  std::function<void(bool begin)> observe;
};

struct ServerUsage {
  pid_t pid = 0;
  double cpu_seconds = 0;  // within the measured window
  ProcessUsage end;        // at its end
};

struct RunResult {
  RunStats stats;
  double bench_cpu_seconds = 0;
  // Cores that neither the bench nor the servers of plan.pids kept busy, on average over the
  // window: what else ran on this machine and disturbed the measurement.
  double other_cores = 0;
  std::vector<ServerUsage> servers;
  // That the workload makes, whether any of one has succeeded or not.
  std::vector<OpKind> kinds = {};
};

// NotFound if one of plan.pids is no process (any more), Cancelled if `cancelled` was set.
absl::StatusOr<RunResult> Run(const Connections& connections, const DataShape& shape,
                              const RunPlan& plan, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
