// What services do all the time: read their copies, ask the store, and write.
//
// Each is a thread that makes so many calls a second. A call that is due while the one before is
// still waiting is not made; it counts with that one's outcome, for a real service would have had
// it waiting as well.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "bench/drill_oracle.h"
#include "bench/drills/timeline.h"
#include "holdfast/client.h"

namespace holdfast::bench {

// What a policy or a lost quorum makes of a call, in the terms of holdfast/error.h.
CallOutcome OutcomeOf(const absl::Status& status);

// Reads one key of a mirrored prefix.
class MirrorReader {
 public:
  // All must live longer. `oracle` may be null.
  MirrorReader(Mirror* mirror, std::string key, double per_second, Track* track,
               DrillOracle::Reader* oracle);
  ~MirrorReader() { Stop(); }
  void Stop();

  uint64_t reads() const { return reads_; }
  uint64_t unproven() const { return unproven_; }  // served, of an age without a proof
  // The latest read that was served: how old it claimed to be. Seconds; < 0: none yet.
  double age_s() const { return age_s_; }
  // Whether the latest read that was served found the key.
  bool there() const { return there_; }
  absl::Status last_error() const;

 private:
  void Run();
  void Read(int64_t due_ns);

  Mirror* const mirror_;
  const std::string key_;
  const int64_t period_ns_;
  Track* const track_;
  DrillOracle::Reader* const oracle_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> reads_{0};
  std::atomic<uint64_t> unproven_{0};
  std::atomic<double> age_s_{-1};
  std::atomic<bool> there_{false};
  mutable std::mutex mutex_;
  absl::Status last_error_;  // guarded by mutex_
  std::thread thread_;
};

// Calls that may wait for a server.
class Caller {
 public:
  struct Made {
    int64_t at_ns = 0;
    int64_t took_ns = 0;
    absl::StatusCode code = absl::StatusCode::kOk;
    CallOutcome outcome = CallOutcome::kServed;
  };
  // Returns what came of one call; `due_ns` is when it was to be made.
  using Call = std::function<absl::Status(int64_t due_ns)>;
  using Judge = std::function<CallOutcome(const absl::Status&)>;

  Caller(double per_second, Track* track, Call call, Judge judge = OutcomeOf);
  ~Caller() { Stop(); }
  void Stop();

  // Copies of the calls that began in [from, to).
  std::vector<Made> Between(int64_t from_ns, int64_t to_ns) const;
  absl::Status last_error() const;

 private:
  void Run();

  const int64_t period_ns_;
  Track* const track_;
  const Call call_;
  const Judge judge_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::vector<Made> made_;   // guarded by mutex_
  absl::Status last_error_;  // guarded by mutex_
  std::thread thread_;
};

// The longest that a call with that outcome took, in seconds; 0: there was none.
double LongestSeconds(const std::vector<Caller::Made>& calls, CallOutcome outcome);
double QuantileSeconds(const std::vector<Caller::Made>& calls, double q);

// Puts a growing number to `key`, and tells the history of each acknowledgement. Writes whose
// outcome is unknown are asked for until they are known, so that nothing acknowledged is missed.
class Writer {
 public:
  Writer(Client* client, std::string key, double per_second, Track* track,
         DrillOracle::History* history, absl::Duration deadline = absl::Seconds(5));
  void Stop() { caller_.Stop(); }

  const Caller& caller() const { return caller_; }
  uint64_t acked() const { return acked_; }
  uint64_t unknown() const { return unknown_; }        // MaybeCommitted, at first
  uint64_t last_value() const { return last_acked_; }  // acknowledged last

 private:
  absl::Status Put();

  Client* const client_;
  const std::string key_;
  DrillOracle::History* const history_;
  const absl::Duration deadline_;
  uint64_t next_ = 1;
  std::atomic<uint64_t> acked_{0};
  std::atomic<uint64_t> unknown_{0};
  std::atomic<uint64_t> last_acked_{0};
  Caller caller_;  // last: its thread uses all above
};

}  // namespace holdfast::bench
