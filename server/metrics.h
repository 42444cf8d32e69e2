// Metrics: what hot paths count, and the page that a scrape reads.
//
//   struct WatchMetrics { Counter events; };                        // lives with the hub
//   registry.AddCounter("holdfast_watch_events_total", "...", &hub->metrics.events);
//   registry.AddGauge("holdfast_watch_streams", "...", [hub] { return hub->streams(); });
//
// Counters and histograms are atomics that any thread increases without a lock. Gauges are
// functions, asked when somebody scrapes. The page is Prometheus' text format 0.0.4, written by
// prometheus-cpp.
// Threads: all. Add* before the first Scrape, or at any time: a lock guards the list alone.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace holdfast::server {

// Never falls.
class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_ = 0;
};

// Durations in buckets of 1, 2, 4 ... ms, as etcd's disk histograms have them.
class DurationHistogram {
 public:
  static constexpr int kBuckets = 14;  // 1 ms to 8.192 s; slower ones only in the total
  static double BoundSeconds(int bucket) { return 0.001 * static_cast<double>(1 << bucket); }

  void Observe(absl::Duration duration);

  struct Values {
    std::array<uint64_t, kBuckets> counts{};  // not cumulative
    uint64_t total = 0;                       // never less than the sum of the buckets
    double sum_seconds = 0;
  };
  Values values() const;

 private:
  std::array<std::atomic<uint64_t>, kBuckets> counts_{};
  std::atomic<uint64_t> slower_ = 0;
  std::atomic<uint64_t> sum_ns_ = 0;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// One family with labels that are known only at the scrape.
struct MetricSample {
  MetricLabels labels;
  double value = 0;
};
enum class MetricKind { kCounter, kGauge };

class MetricsRegistry {
 public:
  // What is pointed at, or captured, outlives the registry's last Scrape.
  void AddCounter(std::string name, std::string help, const Counter* counter);
  void AddHistogram(std::string name, std::string help, const DurationHistogram* histogram);
  // nullopt: left out of this scrape.
  using Gauge = std::function<std::optional<double>()>;
  void AddGauge(std::string name, std::string help, Gauge gauge);
  void AddCounterOf(std::string name, std::string help, Gauge value);
  using Samples = std::function<std::vector<MetricSample>()>;
  void AddSamples(std::string name, std::string help, MetricKind kind, Samples samples);

  // In the order of their adding.
  std::string Scrape() const;

 private:
  struct Family {
    std::string name;
    std::string help;
    MetricKind kind = MetricKind::kGauge;
    const DurationHistogram* histogram = nullptr;
    Samples samples;
  };
  mutable std::mutex mutex_;
  std::vector<Family> families_;
};

inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace holdfast::server
