// The command line of holdfast-bench.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "bench/keys.h"
#include "bench/workload.h"

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

enum class Command {
  kPut,
  kGet,
  kMixed,
  kRun,
  kCompare,
  kFailover,
  kCatchup,
  kMembers,
  kWatch,
  kScale,
  kCompaction,
  kLease,
  kMirror,
  kDrill,
  kStages,
  kModel
};

// One of those that watch a whole cluster while something is done to it, load and all.
bool IsSuite(Command command);
// One of those that harm a cluster of their own and measure what writers notice.
bool IsDrill(Command command);

// What happens to the leader in a round of failover.
enum class FailoverHow { kKill, kPause, kTransfer, kTerm };

// How calls reach the servers: etcd's unary API, or the client library (holdfast/client.h).
enum class Api { kUnary, kNative };

// Whom compare measures: native and unary are two ways to one kind of server.
enum class Target { kNative, kUnary, kEtcd };
inline constexpr uint32_t kMaxNativeClients = 64;  // a thread each

struct CompareOptions {
  std::vector<Target> targets = {Target::kNative, Target::kUnary, Target::kEtcd};
  bool goals = false;  // the table of goals; by default if no workloads are named
  uint32_t native_callers = 4000;
  std::vector<uint32_t> etcd_clients = {100, 300, 1000};  // of which etcd's best is taken
  uint64_t memory_keys = 1'000'000;                       // 0: memory is not measured
};

// Puts of a PutLoad, which notes 24 bytes of each; at that many it ends by itself.
inline constexpr uint64_t kMaxNotedPuts = 20'000'000;

inline constexpr uint64_t kMaxWatchers = 10'000'000;
inline constexpr uint32_t kMaxStreams = 100'000;
inline constexpr uint64_t kMaxScaleKeys = 1'000'000'000;
inline constexpr uint64_t kMaxRevisions = 1'000'000'000;
inline constexpr uint64_t kMaxLeases = 50'000'000;
inline constexpr uint32_t kMaxMirrors = 10'000;  // a client with a thread each
inline constexpr uint64_t kMaxMirrorKeys = 100'000'000;

struct WatchOptions {
  uint64_t watchers = 10'000;
  uint32_t streams = 100;
  uint64_t fan_out = 1;       // watchers that each put is for
  bool whole_prefix = false;  // one watcher on each stream, for every put
};

struct ScaleOptions {
  std::vector<uint64_t> keys;  // sizes, in turn
  uint64_t etcd_max_keys = 1'000'000;
  uint64_t range_keys = 100'000;  // of the range that is read
  uint64_t page = 1'000;          // keys of one page of it
  absl::Duration time_limit = absl::Hours(2);
};

struct CompactionOptions {
  uint64_t revisions = 1'000'000;  // key versions written before each of the two compactions
};

struct LeaseOptions {
  uint64_t leases = 1'000'000;
  uint64_t etcd_leases = 100'000;
  double attach = 0.1;       // share of the leases that get a key
  uint32_t streams = 16;     // of keep-alives
  uint64_t expire = 10'000;  // leases that are let expire
  absl::Duration expire_ttl = absl::Seconds(10);
  uint64_t revoke = 10'000;
};

struct MirrorOptions {
  uint64_t keys = 10'000;  // of the mirrors whose propagation is measured
  uint32_t mirrors = 200;
  double idle_rate = 20;
  double many_rate = 100;           // with all mirrors: each put is delivered to each of them
  uint64_t large_keys = 1'000'000;  // 0: no large mirror
  uint64_t disk_bytes = uint64_t{10} << 20;  // 0: no start from disk
};

inline constexpr uint32_t kMaxSimulatedClients = 20'000;

// The drills of the client library: drill.
struct DrillOptions {
  std::vector<std::string> names;  // "list", "all", names, numbers
  std::string out = "drills";      // plots go there
  absl::Duration length;           // of the outage as it is played; 0: the drill's own
  uint32_t simulated_clients = 0;  // of herd; 0: the drill's own number
  bool beside_etcd = true;         // june-12 and november-18: the plain etcd client as well
};

// What an operation costs each stage: stages.
struct StagesOptions {
  std::vector<uint32_t> clients;  // in flight, in turn
  uint32_t streams = 1;           // of the batch door
};

// Predictions: model.
struct ModelOptions {
  std::vector<std::string> stages;  // files of `stages -w json`; none: the costs of this release
  std::string out;                  // directory of the plots; empty: none
  bool check = false;               // only compare the formulas, the simulation and the measurement
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
  absl::Duration duration;  // 10 s unless total is given; compare: 6 s
  absl::Duration warmup = absl::Seconds(1);
  absl::Duration timeout = absl::Seconds(10);
  double rate = 0;      // 0: closed loop
  bool closed = false;  // compaction, lease: a closed loop, where no --rate is not yet one
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
  std::vector<Workload> workloads;  // put, get, mixed, run, compare
  Api api = Api::kUnary;
  uint32_t native_clients = 1;
  bool exactly_once = false;  // native: writes carry their session's stamp
  std::string html;           // a report goes to that file as well
  CompareOptions compare;

  // The drills: failover, catchup, members.
  FailoverHow how = FailoverHow::kKill;
  uint32_t rounds = 50;
  absl::Duration try_timeout = absl::Milliseconds(250);
  uint64_t bytes = uint64_t{2} << 30;
  bool verbose = false;

  WatchOptions watch;
  ScaleOptions scale;
  CompactionOptions compaction;
  LeaseOptions lease;
  MirrorOptions mirror;
  DrillOptions drill;
  StagesOptions stages;
  ModelOptions model;

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
