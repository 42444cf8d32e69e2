// A model of the write and the read path: what throughput and latency a cluster has on given
// cores, disks and distances, from what a stage costs (stage_cost.h). docs/scaling.md explains it.
//
// Every stage but the unary door is a thread that takes all that waits, works, and hands on the
// whole (natural batching): so its batch is what arrives during one of its cycles, and the cost of
// an operation falls as the load rises. Predict() solves that by formulas for means; Simulate()
// (scale_simulation.h) plays the same pipeline out, with queues and chance.
//
// Left out by both: memory (what does not fit the caches costs more), the kernel's own scheduling,
// lost packets, elections, clients that speak to a follower, and whatever else a machine does.
//
// Pure and deterministic. Units: microseconds, bytes, operations a second; 1 MB = 10^6 bytes.
// Threads: functions without state.
#pragma once

#include <string>
#include <vector>

namespace holdfast::bench {

// CPU of one thread for a batch.
struct StageCost {
  double batch_us = 0;  // whatever is in it
  double op_us = 0;     // each operation
  double byte_us = 0;   // each byte of keys and values
  double Batch(double ops, double bytes_each) const { return batch_us + ops * Op(bytes_each); }
  double Op(double bytes_each) const { return op_us + bytes_each * byte_us; }
};

// Of one kind of operation over one transport.
struct PathCosts {
  StageCost client = {};         // in the client's process; batched: of one stream
  StageCost door = {};           // leader: a message of requests read; unary: one in each
  StageCost raft = {};           // leader's raft thread, a turn
  StageCost send = {};           // leader: a message to one follower
  StageCost receive = {};        // follower: the same message, and its acknowledgement
  StageCost follower_raft = {};  // a turn
  StageCost log = {};            // log thread, without its wait for the disk. Puts alone
  StageCost apply = {};          // puts alone
  StageCost answer = {};         // leader; a get's lookup is in it
  StageCost store = {};          // flushes and compactions, behind the apply. Puts alone
};

struct PlaceModel {
  size_t host = 0;          // whose cores it shares
  double fsync_us = 100;    // of a short write
  double disk_mb_s = 1000;  // of all writes
};

struct ClusterModel {
  std::vector<double> host_cores = {};           // above 0
  std::vector<PlaceModel> members = {};          // the first one leads; at least one
  std::vector<std::vector<double>> rtt_us = {};  // between members
  double link_mb_s = 1250;                       // out of each member: 10 Gbit/s
  double client_rtt_us = 0;                      // to the leader
  int client_host = -1;                          // -1: elsewhere, never short of cores
  size_t learners = 0;                           // fed by the leader, on hosts of their own
};

struct LoadModel {
  bool read = false;
  bool batched = false;  // streams of batches (Exchange) instead of a call for each operation
  int streams = 1;       // batched: client processes
  int callers = 100;     // operations in flight, a closed loop without pauses
  double key_bytes = 24;
  double value_bytes = 256;
  double bytes() const { return key_bytes + value_bytes; }
};

// What each entry is beside key and value, in the log and between members.
inline constexpr double kEntryOverheadBytes = 60;
// What a member writes in all for a byte of keys and values: log, tables, their compactions.
// Measured (docs/scaling.md); it grows with the number of levels of the store.
inline constexpr double kDiskAmplification = 4.5;
// The core's own limits (raft::CoreOptions).
inline constexpr double kWindowBytes = 32.0 * 1024 * 1024;       // unacknowledged, each peer
inline constexpr double kUncommittedBytes = 64.0 * 1024 * 1024;  // in all

struct Resource {
  std::string name = {};
  double ceiling = 0;  // operations a second, with batches as large as can be
  double use = 0;      // the rate's share of it
};

struct Prediction {
  double rate = 0;
  double mean_us = 0;
  double log_batch = 0;                  // entries in one fsync of the leader
  double cpu_us = 0;                     // all members, for one operation
  std::vector<Resource> resources = {};  // the lowest ceiling first
  // What ends growth: the lowest ceiling; "callers" while the rate is below 70 % of it and more
  // requests in flight would raise it.
  std::string limit = {};
};
// REQUIRES: valid indexes, callers >= 1.
Prediction Predict(const PathCosts& costs, const ClusterModel& cluster, const LoadModel& load);

// How far single bursts and fsyncs lie from their means, as a share: both the formulas' second
// moments and the simulation's draws use it.
inline constexpr double kBurstSpread = 0.5;
inline constexpr double kFsyncSpread = 0.3;

// A cluster of `members` hosts with `cores` each, all alike, all `rtt_us` apart; clients as far
// from the leader, on machines of their own.
ClusterModel EvenCluster(size_t members, double cores, double fsync_us, double rtt_us);

}  // namespace holdfast::bench
