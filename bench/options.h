// The command line of holdfast-bench.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/keys.h"

namespace holdfast::bench {

inline constexpr uint32_t kMaxClients = 100'000;
inline constexpr uint32_t kMaxConnections = 10'000;
inline constexpr uint32_t kMaxThreads = 64;
inline constexpr uint32_t kMaxRuns = 1000;
inline constexpr uint32_t kMaxTxnOps = 128;  // etcd's default limit
inline constexpr double kMaxRate = 10'000'000;
inline constexpr size_t kMaxKeySize = 64 * 1024;
inline constexpr size_t kMaxValueSize = 1024 * 1024;  // servers refuse requests above 1.5 MiB
// A load transaction holds fewer puts than --txn-ops if it would exceed this.
inline constexpr size_t kMaxTxnBytes = 1024 * 1024;

inline constexpr uint32_t kMaxDrillClients = 256;  // a thread each
inline constexpr uint32_t kMaxRounds = 10'000;

enum class Command { kPut, kGet, kMixed, kCompare, kFailover, kCatchup, kMembers };

// What happens to the leader in a round of failover.
enum class FailoverHow { kKill, kPause, kTransfer, kTerm };

// One thing that compare measures on both sides.
struct Workload {
  std::string name;
  double read_ratio = 0;
  bool serializable = false;
};

struct Options {
  Command command = Command::kPut;

  // Whom to talk to: exactly one of endpoints, local, local_etcd for put, get and mixed; compare
  // uses both local ones.
  std::string endpoints;
  int local = 0;       // members of a holdfastd cluster to be started
  int local_etcd = 0;  // members of an etcd cluster to be started
  std::string holdfastd;
  std::string etcd = "etcd";
  std::vector<std::string> holdfastd_args;
  std::vector<std::string> etcd_args;
  std::string data_dir_root;
  bool leader_only = false;
  std::vector<pid_t> pids;

  uint32_t connections = 0;  // 0: one for each endpoint
  uint32_t clients = 100;
  uint32_t threads = 1;
  uint64_t total = 0;       // 0: run for `duration`
  absl::Duration duration;  // put, get, mixed: 10 s unless total is given
  absl::Duration warmup = absl::Seconds(1);
  absl::Duration timeout = absl::Seconds(10);
  double rate = 0;  // 0: closed loop
  bool poisson = false;

  size_t key_size = 24;
  size_t value_size = 256;
  uint64_t key_space = 0;  // 0: `load`, or 100 000 without it
  std::string key_prefix = "bench/";
  KeyOrder order = KeyOrder::kRandom;
  double read_ratio = 0.9;  // mixed
  bool serializable = false;
  uint64_t seed = 0;  // 0: drawn
  uint64_t load = 0;
  uint32_t txn_ops = 64;
  uint32_t runs = 1;
  bool json = false;
  std::vector<Workload> workloads;  // compare

  // The drills: failover, catchup, members.
  FailoverHow how = FailoverHow::kKill;
  uint32_t rounds = 50;
  absl::Duration try_timeout = absl::Milliseconds(250);
  uint64_t bytes = uint64_t{2} << 30;
  bool verbose = false;

  std::string command_line;  // as it was given

  // InvalidArgument names the flag and what it may be.
  absl::Status Validate() const;
};

struct ParseResult {
  bool run = false;   // else print `text` and exit with exit_code
  int exit_code = 0;  // 0 for --help, 2 for a command line that is wrong
  std::string text;
  Options options;  // valid, defaults filled in
};
ParseResult ParseCommandLine(const std::vector<std::string>& args);

}  // namespace holdfast::bench
