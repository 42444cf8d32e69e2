// Which threads are reading right now, so that a writer knows when what it took out of sight can be
// freed. One domain for the process, shared by every mirror and live value in it.
//
//   reader: Pin pin; p = published.load(); use *p;        writer: old = published.exchange(p);
//                                                                 epoch = Retire();
//                                                                 free(old) once OldestPin() >=
//                                                                 epoch
//
// A thread owns one slot, a cache line of its own, from its first pin until it ends. Pinning is a
// load, a store and no loop: wait-free, but for the first pin of a thread, which finds or allocates
// the slot. Pins nest. A pinned thread that stalls delays what is freed, and nothing else.
//
// Why epochs and not hazard pointers: those must look again whether the pointer that they announced
// is still the published one, and a busy writer could keep a reader at it.
//
// Threads: all of it from any thread. `published` must be read and written sequentially consistent.
#pragma once

#include <cstddef>
#include <cstdint>

namespace holdfast::internal {

class Pin {
 public:
  Pin();
  ~Pin();
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;
};

// Called after something was taken out of sight: it can be freed once OldestPin() is at least what
// this returns.
uint64_t Retire();
// The epoch at which the oldest pin of now began; the largest number if nobody is pinned.
uint64_t OldestPin();
// How many threads, at a time, have ever been pinned; what the domain takes in memory, in slots.
size_t PinSlots();

}  // namespace holdfast::internal
