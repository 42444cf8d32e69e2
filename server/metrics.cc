#include "server/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <sstream>

namespace holdfast::server {
namespace {

prometheus::ClientMetric ToMetric(const DurationHistogram& histogram) {
  const DurationHistogram::Values values = histogram.values();
  prometheus::ClientMetric metric;
  metric.histogram.sample_count = values.total;
  metric.histogram.sample_sum = values.sum_seconds;
  uint64_t cumulative = 0;
  for (int i = 0; i < DurationHistogram::kBuckets; ++i) {
    cumulative += values.counts[i];
    metric.histogram.bucket.push_back({cumulative, DurationHistogram::BoundSeconds(i)});
  }
  return metric;
}

prometheus::ClientMetric ToMetric(const MetricSample& sample, MetricKind kind) {
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : sample.labels) metric.label.push_back({name, value});
  (kind == MetricKind::kCounter ? metric.counter.value : metric.gauge.value) = sample.value;
  return metric;
}

}  // namespace

void DurationHistogram::Observe(absl::Duration duration) {
  const uint64_t ns =
      static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(duration)));
  sum_ns_.fetch_add(ns, std::memory_order_relaxed);
  for (int i = 0; i < kBuckets; ++i) {
    if (ns <= uint64_t{1'000'000} << i) {
      counts_[i].fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  slower_.fetch_add(1, std::memory_order_relaxed);
}

DurationHistogram::Values DurationHistogram::values() const {
  Values values;
  // The total is made of the buckets that were read, so that it fits them.
  values.total = slower_.load(std::memory_order_relaxed);
  for (int i = 0; i < kBuckets; ++i) {
    values.counts[i] = counts_[i].load(std::memory_order_relaxed);
    values.total += values.counts[i];
  }
  values.sum_seconds = static_cast<double>(sum_ns_.load(std::memory_order_relaxed)) / 1e9;
  return values;
}

void MetricsRegistry::AddCounter(std::string name, std::string help, const Counter* counter) {
  AddCounterOf(std::move(name), std::move(help),
               [counter] { return static_cast<double>(counter->value()); });
}

void MetricsRegistry::AddHistogram(std::string name, std::string help,
                                   const DurationHistogram* histogram) {
  std::lock_guard lock(mutex_);
  families_.push_back(
      {.name = std::move(name), .help = std::move(help), .histogram = histogram, .samples = {}});
}

namespace {

MetricsRegistry::Samples One(MetricsRegistry::Gauge gauge) {
  return [gauge = std::move(gauge)] {
    std::vector<MetricSample> samples;
    if (const std::optional<double> value = gauge()) samples.push_back({{}, *value});
    return samples;
  };
}

}  // namespace

void MetricsRegistry::AddGauge(std::string name, std::string help, Gauge gauge) {
  AddSamples(std::move(name), std::move(help), MetricKind::kGauge, One(std::move(gauge)));
}

void MetricsRegistry::AddCounterOf(std::string name, std::string help, Gauge value) {
  AddSamples(std::move(name), std::move(help), MetricKind::kCounter, One(std::move(value)));
}

void MetricsRegistry::AddSamples(std::string name, std::string help, MetricKind kind,
                                 Samples samples) {
  std::lock_guard lock(mutex_);
  families_.push_back({.name = std::move(name),
                       .help = std::move(help),
                       .kind = kind,
                       .samples = std::move(samples)});
}

std::string MetricsRegistry::Scrape() const {
  std::vector<Family> families;
  {
    std::lock_guard lock(mutex_);
    families = families_;
  }
  std::vector<prometheus::MetricFamily> page;
  for (const Family& family : families) {
    prometheus::MetricFamily out;
    out.name = family.name;
    out.help = family.help;
    if (family.histogram != nullptr) {
      out.type = prometheus::MetricType::Histogram;
      out.metric.push_back(ToMetric(*family.histogram));
    } else {
      out.type = family.kind == MetricKind::kCounter ? prometheus::MetricType::Counter
                                                     : prometheus::MetricType::Gauge;
      for (const MetricSample& sample : family.samples()) {
        out.metric.push_back(ToMetric(sample, family.kind));
      }
    }
    if (!out.metric.empty()) page.push_back(std::move(out));
  }
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, page);
  return std::move(text).str();
}

}  // namespace holdfast::server
