#include "bench/run_stats.h"

#include <algorithm>

namespace holdfast::bench {

void RunStats::Record(OpKind kind, int64_t intended_ns, int64_t now_ns, const Outcome& outcome) {
  if (now_ns >= window_.begin_ns && now_ns < window_.end_ns) {
    ++completed_in_window_;
    if (outcome.code == 0) ++ok_in_window_;
    series_.Record(now_ns, now_ns - intended_ns, outcome.code == 0);
  }
  if (!window_.Measures(intended_ns)) return;
  last_completion_ns_ = std::max(last_completion_ns_, now_ns);
  if (outcome.code != 0) {
    ErrorStats& error = errors_[outcome.code];
    if (error.count++ == 0) error.example = outcome.message;
    return;
  }
  latency_[size_t(kind)].Record(now_ns - intended_ns);
  bytes_ += outcome.bytes;
  retries_ += outcome.retries;
  if (!outcome.found) ++not_found_;
}

void RunStats::AddBacklog(const Backlog& backlog) {
  backlog_.max += backlog.max;
  backlog_.dropped += backlog.dropped;
  backlog_.not_sent += backlog.not_sent;
}

void RunStats::Merge(const RunStats& other) {
  for (size_t i = 0; i < latency_.size(); ++i) latency_[i].Merge(other.latency_[i]);
  for (const auto& [code, theirs] : other.errors_) {
    ErrorStats& ours = errors_[code];
    if (ours.count == 0) ours.example = theirs.example;
    ours.count += theirs.count;
  }
  not_found_ += other.not_found_;
  bytes_ += other.bytes_;
  retries_ += other.retries_;
  completed_in_window_ += other.completed_in_window_;
  ok_in_window_ += other.ok_in_window_;
  last_completion_ns_ = std::max(last_completion_ns_, other.last_completion_ns_);
  AddBacklog(other.backlog_);
  series_.Merge(other.series_);
}

LatencyHistogram RunStats::AllLatencies() const {
  LatencyHistogram all;
  for (const LatencyHistogram& one : latency_) all.Merge(one);
  return all;
}

uint64_t RunStats::ok() const {
  uint64_t sum = 0;
  for (const LatencyHistogram& one : latency_) sum += one.count();
  return sum;
}

uint64_t RunStats::failed() const {
  uint64_t sum = 0;
  for (const auto& [code, error] : errors_) sum += error.count;
  return sum;
}

double RunStats::Seconds() const {
  const int64_t end_ns = window_.end_ns == kNever ? last_completion_ns_ : window_.end_ns;
  return double(std::max<int64_t>(0, end_ns - window_.begin_ns)) / 1e9;
}

double RunStats::Throughput() const {
  const double seconds = Seconds();
  if (seconds <= 0) return 0;
  return double(window_.end_ns == kNever ? ok() : ok_in_window_) / seconds;
}

}  // namespace holdfast::bench
