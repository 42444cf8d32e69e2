// The way from a worker to the servers; tests put a fake one in.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "bench/operation.h"

namespace holdfast::bench {

struct Completion {
  uint32_t slot = 0;
  OpKind kind = OpKind::kPut;
  uint64_t first_key = 0;
  Outcome outcome = {};
};

// Threads: Start() may come from two threads, always under the worker's lock; the others are called
// by the worker's thread alone, CancelOverdue() and CancelAll() under that lock too.
class Transport {
 public:
  virtual ~Transport() = default;

  // REQUIRES: no call is in flight in `slot`.
  virtual void Start(uint32_t slot, const Operation& operation) = 0;
  // A transport with a thread of its own gives every call that has ended to `sink`, on that thread
  // and never inside Start(), and returns true: Next() is then never called, and `sink` may call
  // Start(). It must stay until Settle() has returned.
  virtual bool Deliver(std::function<void(const Completion&)> sink) {
    (void)sink;
    return false;
  }
  // Waits until the sink has returned from its last call. REQUIRES: no call is in flight.
  virtual void Settle() {}
  // The next call that has ended, or nothing when `deadline_ns` (monotonic) has passed.
  virtual std::optional<Completion> Next(int64_t deadline_ns) = 0;
  // Ends the calls in flight for longer than the transport's timeout, with DEADLINE_EXCEEDED.
  virtual void CancelOverdue(int64_t now_ns) = 0;
  // Makes all calls in flight end soon; they still come out of Next().
  virtual void CancelAll() = 0;
};

}  // namespace holdfast::bench
