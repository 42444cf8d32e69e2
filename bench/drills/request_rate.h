// How many requests a second a store's members get: unary calls and messages on streams, as the
// members count them themselves (grpc_server_msg_received_total in /metrics; etcd has the same).
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/drills/timeline.h"

namespace holdfast::bench {

// GET http://endpoint/path, whole. Unavailable: nobody answers in time, or not with 200.
absl::StatusOr<std::string> HttpGet(const std::string& endpoint, const std::string& path,
                                    absl::Duration timeout);
// The sum of a metric's samples, whatever their labels, in the Prometheus text format.
double SumOfMetric(const std::string& text, const std::string& name);

// Asks the members every kInterval, on a thread of its own.
class RequestRate {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(500);

  // `timeline` must live longer.
  RequestRate(std::vector<std::string> endpoints, const Timeline* timeline);
  ~RequestRate() { Stop(); }
  void Stop();

  // Over one second each (two intervals). 0: nothing was asked in that time.
  double Peak(int64_t from_ns, int64_t to_ns) const;
  double Mean(int64_t from_ns, int64_t to_ns) const;
  std::vector<PlotPoint> Points() const;

 private:
  struct Sample {
    int64_t at_ns;
    double requests;  // since the sample before
  };
  void Run();
  std::vector<Sample> samples() const;

  const std::vector<std::string> endpoints_;
  const Timeline* const timeline_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<Sample> samples_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace holdfast::bench
