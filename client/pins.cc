#include "client/pins.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <utility>

namespace holdfast::internal {
namespace {

constexpr uint64_t kIdle = 0;

struct alignas(64) Slot {
  std::atomic<uint64_t> epoch = kIdle;  // at which its thread pinned
  std::atomic<bool> taken = false;
  Slot* next = nullptr;  // does not change once the slot is in the list
};

// Never destroyed: threads may end after main() has.
struct Domain {
  alignas(64) std::atomic<uint64_t> epoch = 1;
  alignas(64) std::atomic<Slot*> slots = nullptr;
};

Domain& TheDomain() {
  static Domain& domain = *new Domain;
  return domain;
}

// Slots are never freed but used again: there are as many as there ever were threads at a time.
Slot* TakeSlot(Domain& domain) {
  for (Slot* slot = domain.slots.load(std::memory_order_acquire); slot != nullptr;
       slot = slot->next) {
    bool taken = false;
    if (slot->taken.compare_exchange_strong(taken, true)) return slot;
  }
  Slot* slot = new Slot;
  slot->taken.store(true);
  slot->next = domain.slots.load();
  while (!domain.slots.compare_exchange_weak(slot->next, slot)) {
  }
  return slot;
}

// Without a constructor or a destructor, so that no access goes through a wrapper.
struct ThreadPins {
  Domain* domain;
  Slot* slot;
  uint32_t depth;
  bool ending;  // ReturnAtExit has run: a slot is then taken for one pin only
};
constinit thread_local ThreadPins thread_pins = {};

void ReturnSlot() { std::exchange(thread_pins.slot, nullptr)->taken.store(false); }

struct ReturnAtExit {
  void Arm() {}
  ~ReturnAtExit() {
    thread_pins.ending = true;
    if (thread_pins.slot != nullptr && thread_pins.depth == 0) ReturnSlot();
  }
};
thread_local ReturnAtExit return_at_exit;

[[gnu::noinline]] void RegisterThread() {
  thread_pins.domain = &TheDomain();
  thread_pins.slot = TakeSlot(*thread_pins.domain);
  if (!thread_pins.ending) return_at_exit.Arm();
}

}  // namespace

Pin::Pin() {
  ThreadPins& pins = thread_pins;
  if (pins.depth++ > 0) return;
  if (pins.slot == nullptr) [[unlikely]] {
    RegisterThread();
  }
  // Sequentially consistent: a writer that looks at the slots and does not see this pin has
  // published before, and what is read under this pin is what it published.
  pins.slot->epoch.store(pins.domain->epoch.load(std::memory_order_acquire));
}

Pin::~Pin() {
  ThreadPins& pins = thread_pins;
  if (--pins.depth > 0) return;
  pins.slot->epoch.store(kIdle, std::memory_order_release);
  if (pins.ending) [[unlikely]] {
    ReturnSlot();
  }
}

uint64_t Retire() { return TheDomain().epoch.fetch_add(1) + 1; }

uint64_t OldestPin() {
  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  for (Slot* slot = TheDomain().slots.load(); slot != nullptr; slot = slot->next) {
    const uint64_t epoch = slot->epoch.load();
    if (epoch != kIdle) oldest = std::min(oldest, epoch);
  }
  return oldest;
}

size_t PinSlots() {
  size_t slots = 0;
  for (Slot* slot = TheDomain().slots.load(); slot != nullptr; slot = slot->next) ++slots;
  return slots;
}

}  // namespace holdfast::internal
