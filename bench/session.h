// A bench's hold on one cluster: targets chosen, connections open, keys loaded, runs made.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/local_cluster.h"
#include "bench/native_transport.h"
#include "bench/options.h"
#include "bench/runner.h"

namespace holdfast::bench {

struct LoadResult {
  uint64_t keys = 0;
  double seconds = 0;
  uint64_t keys_per_txn = 0;
};

// One run: what is asked for, and by whom.
struct RunRequest {
  Workload workload;
  uint32_t run = 0;  // counts from 0 and varies the seed
  Api api = Api::kUnary;
  bool exactly_once = false;                          // native: writes carry their session's stamp
  uint32_t clients = 0;                               // 0: as the options say
  std::function<void(bool begin)> observe = nullptr;  // RunPlan::observe
};

// Threads: one.
class Session {
 public:
  // `options` and `cancelled` must live longer. Unavailable if an endpoint does not answer.
  static absl::StatusOr<std::unique_ptr<Session>> Open(const Options& options,
                                                       const std::vector<std::string>& endpoints,
                                                       const std::vector<pid_t>& pids,
                                                       const std::atomic<bool>& cancelled);

  // Writes keys 0..keys-1. Any error ends it: figures over a key space with holes mislead.
  absl::StatusOr<LoadResult> Load(uint64_t keys);
  // Writes the numbers [first, first + keys) to keys modulo `key_space` (0: never again), see
  // WriteRange. REQUIRES: key_space is 0 or a multiple of TxnKeys().
  absl::StatusOr<LoadResult> Write(uint64_t first, uint64_t keys, uint64_t key_space);
  // Puts in one transaction of a load.
  uint64_t TxnKeys() const;
  // Unimplemented: this API can not do that.
  absl::StatusOr<RunResult> RunOnce(const RunRequest& request);

  const std::vector<std::string>& targets() const { return targets_; }
  size_t connections() const { return connections_->size(); }
  const std::string& server_version() const { return server_version_; }

 private:
  Session(const Options& options, const std::atomic<bool>& cancelled);
  // Opened when first asked for, and kept, one set for each kind.
  absl::StatusOr<NativeClients*> Native(const RunRequest& request);

  const Options& options_;
  const std::atomic<bool>& cancelled_;
  DataShape shape_;
  std::vector<pid_t> pids_;
  std::vector<std::string> targets_;
  std::string server_version_;
  std::unique_ptr<Connections> connections_;
  std::map<std::pair<bool, bool>, std::unique_ptr<NativeClients>> native_;  // stamped, mirrored
};

// The cluster that --local (`etcd` false) or --local-etcd asks for.
absl::StatusOr<std::unique_ptr<LocalCluster>> StartLocal(const Options& options, bool etcd,
                                                         const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
