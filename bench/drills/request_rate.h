// How many requests a second a store's members get: unary calls, messages on streams and what the
// batch door's messages carry, as the members count them themselves (grpc_server_msg_received_total
// in /metrics, which etcd has too, and holdfast_exchange_*).
#pragma once

#include <atomic>
#include <cstdint>
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

// The requests that a member has counted, of its /metrics: a message of the batch door is as many
// as it carries.
double RequestsOf(const std::string& text);

// A counter that was looked at now and then, over any number of restarts of who counts.
// Threads: one at a time.
class SeenCounter {
 public:
  // `life` tells one process from the next. What a process counted before it was first looked at
  // came after the last look at the one before it.
  void Saw(int64_t at_ns, double count, double life);
  // Nobody answered: whoever is next seen in another life began to count after this.
  void SawNobody(int64_t at_ns);
  // Counted up to then, evenly between two looks.
  double At(int64_t at_ns) const;

 private:
  struct Point {
    int64_t at_ns;
    double total;
  };
  std::vector<Point> points_;
  double last_ = 0;
  double life_ = 0;
  int64_t nobody_ns_ = 0;
};

// Asks the members every kInterval, on a thread of its own.
class RequestRate {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(500);

  // `timeline` must live longer.
  RequestRate(std::vector<std::string> endpoints, const Timeline* timeline);
  ~RequestRate() { Stop(); }
  void Stop();

  double Peak(int64_t from_ns, int64_t to_ns) const;  // of any second that ends in it
  double Mean(int64_t from_ns, int64_t to_ns) const;
  std::vector<PlotPoint> Points(int64_t until_ns) const;

 private:
  void Run();
  double Requests(int64_t from_ns, int64_t to_ns) const;

  const std::vector<std::string> endpoints_;
  const Timeline* const timeline_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<SeenCounter> counters_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace holdfast::bench
