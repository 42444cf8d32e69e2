// What one run has measured. Every worker records into its own; Merge() joins them.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "bench/histogram.h"
#include "bench/operation.h"
#include "bench/schedule.h"
#include "bench/time_series.h"

namespace holdfast::bench {

struct ErrorStats {
  uint64_t count = 0;
  std::string example;  // the message of the first
};

// Threads: one at a time.
class RunStats {
 public:
  explicit RunStats(const Window& window) : window_(window), series_(window.begin_ns) {}

  // A call with that intended start has ended at now_ns.
  void Record(OpKind kind, int64_t intended_ns, int64_t now_ns, const Outcome& outcome);
  void AddBacklog(const Backlog& backlog);
  void Merge(const RunStats& other);

  // Successes alone: an error has no latency worth an average, it has a count.
  const LatencyHistogram& latency(OpKind kind) const { return latency_[size_t(kind)]; }
  LatencyHistogram AllLatencies() const;
  const std::map<int, ErrorStats>& errors() const { return errors_; }  // by gRPC code
  uint64_t ok() const;
  uint64_t failed() const;
  uint64_t not_found() const { return not_found_; }
  uint64_t bytes() const { return bytes_; }
  uint64_t retries() const { return retries_; }
  const Backlog& backlog() const { return backlog_; }
  // By the moment at which calls ended, inside the window.
  const TimeSeries& series() const { return series_; }

  // From the window's begin to its end, or to the last completion if it has no end.
  double Seconds() const;
  // Successes a second. In a window with an end, those completed inside of it, whenever they
  // started: calls running over the end then make up for those that ran over the begin.
  double Throughput() const;
  // Calls, failed ones too, that cost CPU inside the window.
  uint64_t CompletedInWindow() const { return completed_in_window_; }

 private:
  Window window_;
  std::array<LatencyHistogram, kOpKinds> latency_;
  std::map<int, ErrorStats> errors_;
  uint64_t not_found_ = 0;
  uint64_t bytes_ = 0;
  uint64_t retries_ = 0;
  uint64_t completed_in_window_ = 0;
  uint64_t ok_in_window_ = 0;
  int64_t last_completion_ns_ = 0;
  Backlog backlog_;
  TimeSeries series_;
};

}  // namespace holdfast::bench
