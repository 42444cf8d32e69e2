// A plain closed loop over the batch door (docs/exchange.md): what the members' own costs are
// measured with, where a client library's would stand between.
//
// Each stream is a thread that reads a message of replies and sends as many new requests in one
// message, so that batches are as large as the server makes them.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/keys.h"
#include "bench/run_stats.h"

namespace holdfast::bench {

struct ExchangePlan {
  std::string endpoint = {};  // the leader's
  bool read = false;
  uint32_t callers = 100;  // requests in flight, of all streams
  uint32_t streams = 1;    // at most one for each caller
  uint64_t key_space = 1;  // keys are drawn evenly
  uint64_t seed = 1;
  absl::Duration warmup = absl::Seconds(1);
  absl::Duration duration = absl::Seconds(5);
};

// Blocks for warmup and duration, and until what is under way is answered. Unavailable if a stream
// breaks or the server has no such door; Cancelled. Failed requests are in the statistics.
absl::StatusOr<RunStats> RunExchange(const ExchangePlan& plan, const DataShape& shape,
                                     const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
