// Puts in the background, each one's moments noted.
//
// For measurements that do something else meanwhile (watch, compact, let leases expire) and ask
// afterwards how the puts of some span of time fared. The schedules are the runner's: an open loop
// with a rate, else closed; latency counts from the moment at which a put was due.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/grpc_transport.h"
#include "bench/histogram.h"
#include "bench/keys.h"
#include "bench/options.h"
#include "bench/report.h"
#include "bench/run_stats.h"

namespace holdfast::bench {

struct PutLoadOptions {
  std::vector<std::string> endpoints;
  size_t connections = 0;  // 0: one for each endpoint
  uint32_t clients = 100;  // most in flight
  double rate = 0;         // a second; 0: closed loop
  bool poisson = false;
  bool stamps = false;                         // values begin with a Stamp
  std::function<uint64_t(uint64_t n)> key;     // of the put number n, from 0
  absl::Duration timeout = absl::Seconds(10);  // of one put
  absl::Duration limit = absl::Hours(1);       // of the load; then it ends by itself
  uint64_t seed = 1;
};
// What the command line says of it; the caller adds the key.
PutLoadOptions PutLoadOptionsOf(const Options& options, const std::vector<std::string>& endpoints);

// "1000 a second" or "a closed loop".
std::string LoopName(const Options& options);

// Threads: one (Stop() and the destructor included).
class PutLoad {
 public:
  // Returns with it running. `shape` and `cancelled` must live longer. Unavailable: no connection.
  static absl::StatusOr<std::unique_ptr<PutLoad>> Start(const DataShape& shape,
                                                        const PutLoadOptions& options,
                                                        const std::atomic<bool>& cancelled);
  ~PutLoad();

  // Sends no more and waits for those in flight, at most options.timeout.
  void Stop();

  struct Put {
    int64_t due_ns = 0;
    int64_t done_ns = 0;  // 0: without an answer
    bool failed = false;  // it may have been made all the same
  };
  // REQUIRES for all below: Stop() has returned.
  const std::deque<Put>& puts() const;
  struct Summary {
    LatencyHistogram latency;  // of successes
    uint64_t ok = 0;
    uint64_t failed = 0;
    double seconds = 0;
  };
  // Of those that were due in [from, to).
  Summary Between(int64_t from_ns, int64_t to_ns) const;
  // "" if the load kept its rate and nothing failed.
  std::string Complaint() const;

 private:
  class Recorder;
  explicit PutLoad(const PutLoadOptions& options);

  const PutLoadOptions options_;
  std::unique_ptr<Connections> connections_;
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<RunStats> stats_;
  std::thread thread_;
};

// Rate, mean, p50, p99, p99.9 and max.
void AddPuts(const std::string& prefix, const PutLoad::Summary& puts, std::vector<Metric>* out);

}  // namespace holdfast::bench
