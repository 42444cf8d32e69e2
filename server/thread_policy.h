// How this process's threads share the cores: for latency, or for throughput.
//
// A put passes seven threads. Linux lets a thread that is woken take the core from the one that
// runs, so on a machine with few cores, under many writers at once, every stage is interrupted
// after a few requests by the next one, which finds only these few to do. SCHED_BATCH tells it not
// to: a stage does all that it has first, and the next finds more at once (24 puts a disk sync
// become 40, and half of the context switches are gone). The price is that a woken thread waits
// for whoever has the core, also for other programs, so it is no policy for lone requests: there
// each of the seven would wait. Hence it is chosen by what is under way, ten times a second.
//
// Only SCHED_OTHER and SCHED_BATCH are ever exchanged, which needs no privilege; nice values stay.
// Source: sched(7).
#pragma once

#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "server/ticker.h"

namespace holdfast::server {

// Of the state machine, since the start of the process.
struct ApplyCounts {
  uint64_t calls = 0;    // of StateMachine::Apply
  uint64_t entries = 0;  // that they applied
};

// Whether many writes are under way at once, judged by how many share one Apply: every member sees
// that, the leader and the others. Pure. Threads: one at a time.
class BatchJudge {
 public:
  static constexpr uint64_t kEntriesToBegin = 8;  // an Apply, in the mean of one look's time
  static constexpr uint64_t kEntriesToEnd = 4;
  static constexpr uint64_t kCallsMin = 3;  // fewer say nothing; they end it

  // True: for throughput, until the next look.
  bool Look(const ApplyCounts& counts);

 private:
  bool batch_ = false;
  ApplyCounts last_;
};

// Threads: Stop from any thread.
class ThreadPolicy {
 public:
  static constexpr absl::Duration kInterval = absl::Milliseconds(100);

  // `counts` is called on a thread of its own. Does nothing if this process was started with
  // another policy than SCHED_OTHER: somebody has chosen already.
  explicit ThreadPolicy(std::function<ApplyCounts()> counts);
  // Sets SCHED_OTHER again, so that a stop is not slow.
  ~ThreadPolicy() { Stop(); }
  void Stop();

  // All threads of this process that have SCHED_OTHER or SCHED_BATCH get the other of the two, or
  // stay. A thread born meanwhile has the policy of the one that made it. False if the system
  // refused.
  static bool SetAll(bool batch);

 private:
  void Look();

  const std::function<ApplyCounts()> counts_;
  BatchJudge judge_;
  bool batch_ = false;   // as set last
  bool again_ = false;   // set in the last look: threads may have been born meanwhile
  bool usable_ = false;  // the system lets us
  Ticker ticker_;        // last: it uses everything above
};

}  // namespace holdfast::server
