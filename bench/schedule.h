// When each operation starts: pure state machines, told the time, with no thread and no clock.
//
// A schedule owns a number of slots; a slot is one client with at most one call in flight.
//   closed loop  every client sends its next call when the one before has ended: the load adapts
//                to the server, and the latency is that of a call once sent.
//   open loop    calls arrive at a given rate whatever the server does. The latency counts from
//                the INTENDED start, so that a stall of the server is seen by every call that
//                should have been sent during it (no coordinated omission).
//
// No queue grows without limit: slots are fixed, and an open loop's backlog ends at kMaxBacklog;
// arrivals beyond it are counted as dropped.
//
// Threads: one at a time. Times are nanoseconds of one monotonic clock.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace holdfast::bench {

inline constexpr int64_t kNever = INT64_MAX;
inline constexpr size_t kMaxBacklog = 1'000'000;
// A closed-loop client waits so long after an error; a dead server would else be hammered with
// calls that fail at once, and the bench would take the CPU that the others need.
inline constexpr int64_t kErrorPauseNs = 50'000'000;

// What is measured: operations whose (intended) start lies in [begin_ns, end_ns). Those before
// are warm-up.
struct Window {
  int64_t start_ns = 0;         // first operation of the warm-up
  int64_t begin_ns = 0;         // >= start_ns
  int64_t end_ns = kNever;      // kNever: ends with the last of `total` operations
  uint64_t total = UINT64_MAX;  // operations after begin_ns

  bool Measures(int64_t intended_ns) const {
    return intended_ns >= begin_ns && intended_ns < end_ns;
  }
};

struct Issue {
  uint32_t slot = 0;
  int64_t intended_ns = 0;
};

struct Backlog {
  uint64_t max = 0;       // most arrivals that ever waited for a free client
  uint64_t dropped = 0;   // measured arrivals beyond kMaxBacklog, never sent
  uint64_t not_sent = 0;  // measured arrivals given up at the end of the run
};

class Schedule {
 public:
  virtual ~Schedule() = default;

  // When Arrive() is to be called next; kNever if only completions can bring more.
  virtual int64_t NextArrivalNs() const = 0;
  // Appends to `out` everything to be sent now.
  virtual void Arrive(int64_t now_ns, std::vector<Issue>& out) = 0;
  // The call of `slot` has ended. Returns what the slot is to send next, if anything.
  virtual std::optional<Issue> Complete(uint32_t slot, bool failed, int64_t now_ns) = 0;
  // Sends no more: what waits is given up. Calls in flight still end through Complete().
  virtual void Stop() = 0;
  // True if nothing is in flight and nothing will be sent any more.
  virtual bool Done() const = 0;
  // Intended start of the call in flight in `slot`.
  virtual int64_t IntendedNs(uint32_t slot) const = 0;
  virtual Backlog backlog() const = 0;
};

// REQUIRES: clients > 0.
std::unique_ptr<Schedule> NewClosedSchedule(uint32_t clients, const Window& window);

struct OpenOptions {
  uint32_t clients = 1;  // most calls in flight; further arrivals wait in the backlog
  double rate = 1;       // arrivals a second, > 0
  bool poisson = false;  // else evenly spaced
  double phase = 0;      // of evenly spaced arrivals, in periods; interleaves workers
  uint64_t seed = 1;
  size_t max_backlog = kMaxBacklog;
};
std::unique_ptr<Schedule> NewOpenSchedule(const OpenOptions& options, const Window& window);

}  // namespace holdfast::bench
