// A clock that a test moves by hand: ages, policies and back-offs then need no waiting.
//
//   testing::FakeClock clock;
//   testing::FakeStore store({.clock = clock.clock()});
//   auto client = Client::Open({.endpoints = store.endpoints(), .clock = clock.clock()});
//   store.LoseQuorum();
//   clock.Advance(absl::Hours(5));   // every age is now 5 hours larger
//
// Part of holdfast::testing, which production does not link.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace holdfast {

namespace base {
class Clock;
}  // namespace base

namespace testing {

// What a client knows of time: the kernel's clocks, and, for the copy on disk, the wall clock and
// which boot of the machine this is (docs/freshness.md section 7). gRPC's own timers and a call's
// deadline stay real.
// Threads: all methods from any thread. clock() may outlive this.
class FakeClock {
 public:
  FakeClock();
  ~FakeClock();
  FakeClock(const FakeClock&) = delete;
  FakeClock& operator=(const FakeClock&) = delete;

  // For ClientOptions::clock and FakeStore::Options::clock; never null.
  std::shared_ptr<const base::Clock> clock() const;

  // REQUIRES: not negative.
  void Advance(absl::Duration duration);
  // The machine sleeps: the clocks that stand still in suspend do.
  void Suspend(absl::Duration duration);

  // The wall clock runs with Advance() and Suspend(); this sets it anew, as an operator or NTP
  // does. At first: 2026-01-01T00:00:00Z, and synchronized.
  void SetWall(absl::Time now);
  void SetWallSynchronized(bool synchronized);
  absl::Time wall() const;

  // The machine starts anew after `downtime`: another boot id, and the kernel's clocks begin again;
  // the wall clock goes on. REQUIRES: no client and no store that uses this clock is alive, for its
  // samples from before mean nothing now.
  void Reboot(absl::Duration downtime = absl::ZeroDuration());
  std::string boot_id() const;

 private:
  class Impl;
  const std::shared_ptr<Impl> impl_;
};

}  // namespace testing
}  // namespace holdfast
