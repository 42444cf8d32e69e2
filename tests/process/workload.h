// Clients of a real cluster that read and write the same few keys and record what they saw, for
// CheckHistory.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/rng.h"
#include "holdfast/client.h"
#include "tests/history/history.h"

namespace holdfast {

struct WorkloadOptions {
  std::vector<std::string> endpoints;
  uint64_t seed = 0;
  int clients = 5;
  int keys = 6;
  absl::Duration deadline = absl::Seconds(3);
};

// Works from its construction until Stop(). The store must be fresh, and nobody else may write.
// Threads: one per client, each with a Client of its own; the methods from one other thread.
class Workload {
 public:
  explicit Workload(const WorkloadOptions& options);
  ~Workload();

  // Waits until so many more writes were acknowledged. False: not in `timeout`.
  bool AwaitWrites(int64_t count, absl::Duration timeout);

  // Why the last write that was not acknowledged was not.
  std::string write_failure();

  // What linearizable reads have come to since the last call.
  struct Reads {
    int64_t answered = 0;
    int64_t failed = 0;
    absl::Duration longest;
    std::string failure;  // one of them
  };
  Reads TakeReads();
  // The longest time without any acknowledged write since the last call.
  absl::Duration TakeWriteGap();

  // Ends the clients; the whole history. Once.
  std::vector<history::Op> Stop();

 private:
  struct Worker;
  void Run(Worker& worker);
  history::Op Next(Worker& worker);
  void Perform(Worker& worker, history::Op& op);
  void Note(const history::Op& op, const absl::Status& status);

  const WorkloadOptions options_;
  std::atomic<bool> stop_{false};
  absl::Mutex mutex_;
  int64_t acked_writes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_acked_ns_ ABSL_GUARDED_BY(mutex_);
  int64_t longest_gap_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  Reads reads_ ABSL_GUARDED_BY(mutex_);
  std::string write_failure_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<Worker>> workers_;
};

// Fails the test if the history is not linearizable, and then leaves it in a file; prints figures.
void ExpectLinearizable(const std::vector<history::Op>& ops);

}  // namespace holdfast
