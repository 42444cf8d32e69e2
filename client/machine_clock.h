// A clock that also says what the wall clock and the boot id of a pretended machine are.
#pragma once

#include <memory>
#include <string>

#include "base/clock.h"
#include "client/last_good.h"

namespace holdfast::internal {

// What testing::FakeClock hands out as ClientOptions::clock.
// Threads: all methods from any thread.
class MachineClock : public base::Clock {
 public:
  virtual WallReading Wall() const = 0;
  virtual std::string BootId() const = 0;
};

// Of the machine that `clock` belongs to: a MachineClock's own; else this machine's wall clock and
// boot, read with `clock` (null: the kernel's).
inline Surroundings SurroundingsOf(std::shared_ptr<const base::Clock> clock) {
  if (const auto machine = std::dynamic_pointer_cast<const MachineClock>(clock)) {
    Surroundings pretended;
    pretended.clock = machine;
    pretended.wall = [machine] { return machine->Wall(); };
    pretended.boot_id = machine->BootId();
    return pretended;
  }
  Surroundings real = Surroundings::OfThisMachine();
  if (clock != nullptr) real.clock = std::move(clock);
  return real;
}

}  // namespace holdfast::internal
