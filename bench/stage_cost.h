// holdfast-bench stages: what one operation costs each stage of each member.
//
// A fresh cluster is loaded by a closed loop at several numbers of clients; within each window the
// threads' own CPU clocks, the members' metrics, their disk writes and their connections' bytes
// are read at both ends, and divided by the operations that succeeded in it. A stage is the threads
// of one name (StageOf). docs/scaling.md and the model (scale_model.h) are made from it.
//
// What it cannot tell: CPU that the kernel spends for a thread outside of it (interrupts of disk
// and network), and the costs of threads that live for less than a window.
#pragma once

#include <atomic>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/options.h"
#include "bench/side_by_side.h"
#include "bench/thread_usage.h"

namespace holdfast::bench {

// The stages, in the order in which an operation passes them.
inline constexpr std::string_view kStages[] = {"grpc",  "raft",   "log",   "apply", "answer",
                                               "watch", "upkeep", "store", "other"};
// The stage of a thread's name: "other" if it is none that we know.
std::string_view StageOf(std::string_view thread_name);

// For one operation; of an idle cluster: for one second.
struct StageUse {
  double cpu_us = 0;
  double system_us = 0;  // of it in the kernel, to 10 ms in the whole window
  double waited_us = 0;  // ready, without a core
  double waits = 0;      // times that its threads went to sleep
};

struct MemberUse {
  bool leader = false;
  double cpu_us = 0;                            // whole process
  std::map<std::string, StageUse> stages = {};  // those of kStages that had threads
  double disk_bytes = 0;
  double fsyncs = 0;
  double fsync_us = 0;  // one group's write and fdatasync, mean
  double entries_per_fsync = 0;
  double entries_per_apply = 0;
  double rss_anon_mib = 0;  // at the end
};

struct StagePoint {
  std::string workload = {};   // "put", "get", "idle"
  std::string transport = {};  // "unary", "native"
  uint32_t clients = 0;
  double value_bytes = 0;
  double rate = 0;  // operations a second; of "idle" 1
  double mean_ms = 0, p50_ms = 0, p99_ms = 0;
  double bench_cpu_us = 0;
  double other_cores = 0;  // what other programs took: of a disturbed point nothing is to be quoted
  double peer_bytes = 0;   // between all members
  double peer_segments = 0;
  double client_in_bytes = 0, client_out_bytes = 0;  // as the members see it
  std::vector<MemberUse> members = {};               // the leader first
};

// All of one member at one moment.
struct MemberSample {
  ProcessDetail process = {};
  double committed = 0;  // entries, all time
  double fsyncs = 0, fsync_seconds = 0;
  double applies = 0;
};
// Pure: what happened between two samples, divided by `operations`.
MemberUse MemberUseBetween(const MemberSample& begin, const MemberSample& end, double operations);

nlohmann::json PointJson(const StagePoint& point);
// InvalidArgument if it is not what PointJson makes.
absl::StatusOr<StagePoint> PointOf(const nlohmann::json& json);

// Starts a cluster, measures, reports as text or JSON.
absl::StatusOr<BenchReport> StagesBench(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
