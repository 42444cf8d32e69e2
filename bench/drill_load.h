// The clients of the drills: closed loops that know every endpoint and try again at once.
//
// Raw stubs of the etcd v3 API, the same for Holdfast and etcd, so that a drill compares servers
// and not client libraries. Each client is a thread with a home endpoint (client i at endpoint
// i % n, so that some always sit at a follower). A try has a short deadline, drawn anew between
// half of try_timeout and all of it: a silent leader catches all clients in the same moment, and
// equal deadlines would then make all of them try again in the same moments only. After a try that
// failed the client turns to the next endpoint, and goes on with the same request until it is
// answered: a put may then be made twice, which does not matter here.
//
// Every answer's moment is noted: an outage is a gap in them.
// Threads: all, unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/keys.h"
#include "bench/options.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::bench {

// Moments kept; the oldest go.
inline constexpr size_t kMaxDrillMoments = 4'000'000;

struct DrillLoadOptions {
  std::vector<std::string> endpoints;
  uint32_t writers = 12;
  uint32_t readers = 0;  // linearizable gets of what the writers write
  size_t key_size = 24;
  size_t value_size = 256;
  std::string key_prefix = "drill/";
  uint64_t key_space = 100'000;  // keys are written in order, from 0 again after the last
  absl::Duration try_timeout = absl::Milliseconds(250);
  uint64_t seed = 1;
};

class DrillLoad {
 public:
  // Returns with the clients running.
  static std::unique_ptr<DrillLoad> Start(const DrillLoadOptions& options);
  ~DrillLoad();  // ends them

  // From the next try on. REQUIRES: not empty.
  void SetEndpoints(const std::vector<std::string>& endpoints);

  enum class Kind { kWrite, kRead };
  struct Counts {
    uint64_t answered = 0;
    uint64_t bytes = 0;         // of keys and values written
    uint64_t failed_tries = 0;  // each was tried again
    std::map<int, uint64_t> codes;
  };
  Counts counts(Kind kind) const;

  // The longest time without an answer to anybody within [from, to], its ends included.
  int64_t LongestGapNs(Kind kind, int64_t from_ns, int64_t to_ns) const;
  // The longest such time that one single client saw.
  int64_t SlowestClientNs(Kind kind, int64_t from_ns, int64_t to_ns) const;
  // Of the last answer to anybody; 0: none yet.
  int64_t LastAnswerNs(Kind kind) const;

 private:
  struct Answer {
    int64_t at_ns;
    uint32_t client;
  };
  struct Log {
    mutable std::mutex mutex;
    std::deque<Answer> answers;  // in the order of time
    Counts counts;
  };
  // Stubs of one set of endpoints; replaced as a whole, kept alive by the tries that use it.
  using Stubs = std::vector<std::unique_ptr<etcdserverpb::KV::Stub>>;

  explicit DrillLoad(const DrillLoadOptions& options);
  // REQUIRES: log.mutex is held.
  static std::deque<Answer>::const_iterator FirstFrom(const Log& log, int64_t from_ns);
  void Run(Kind kind, uint32_t client);
  // True when it is answered; else `*code` tells why not.
  bool Try(Kind kind, etcdserverpb::KV::Stub* stub, uint64_t number, absl::Duration timeout,
           int* code) const;
  std::shared_ptr<const Stubs> stubs() const;
  Log& log(Kind kind) { return logs_[kind == Kind::kWrite ? 0 : 1]; }
  const Log& log(Kind kind) const { return logs_[kind == Kind::kWrite ? 0 : 1]; }

  const DrillLoadOptions options_;
  const DataShape shape_;
  Log logs_[2];
  std::atomic<uint64_t> next_key_{0};
  std::atomic<bool> stop_{false};
  mutable std::mutex stubs_mutex_;
  std::shared_ptr<const Stubs> stubs_;  // guarded by stubs_mutex_
  std::vector<std::thread> threads_;
};

// What a drill makes of the options of the command line.
DrillLoadOptions LoadOptionsOf(const Options& options, const std::vector<std::string>& endpoints);

// Maintenance.Status; errors as GetEndpointStatus.
absl::StatusOr<etcdserverpb::StatusResponse> AskStatus(const std::string& endpoint,
                                                       absl::Duration timeout);

// Nearest rank of the sorted values. REQUIRES: not empty, 0 < q <= 1.
double Percentile(std::vector<double> values, double q);

}  // namespace holdfast::bench
