// What happens next: every event of a world, in the order of virtual time.
//
// Threads: one. Two events of one instant come in the order in which they were added, so that a
// seed replays.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "base/ids.h"

namespace holdfast::sim {

enum class EventKind : uint8_t {
  // Of a member's process: put off while it is paused, void once that life is over.
  kWake,  // a turn of the raft thread
  kLog,   // the log thread, and so on
  kApply,
  kFetch,
  kMaintenance,
  kDeliver,       // argument: packet
  kPeerLost,      // argument: peer
  kPeerUp,        // argument: peer
  kClientCall,    // argument: operation
  kSnapshotDone,  // argument: flight; the sender hears of its snapshot
  kSnapshotHere,  // argument: flight; the receiver has it
  kCrash,         // argument: 1 = the machine, 0 = the process
  kStop,          // in good order; argument: 1 = for good
  // Of a member's host.
  kStart,
  kResume,
  // Of the world.
  kSnapshotLost,    // argument: flight
  kClientNext,      // argument: client
  kClientDeadline,  // argument: operation
  kFault,           // argument: FaultKind
  kHeal,            // argument: cut
  kOperator,
  kTransfer,
  kJanitor,
  kOperatorDeadline,  // argument: number of the change
};

struct Event {
  int64_t at_ns = 0;
  uint32_t order = 0;
  EventKind kind = EventKind::kWake;
  uint8_t member = 0;  // 0: of the world
  uint16_t life = 0;   // 0: of any life
  uint32_t argument = 0;

  friend bool operator>(const Event& a, const Event& b) {
    return a.at_ns != b.at_ns ? a.at_ns > b.at_ns : a.order > b.order;
  }
};

class EventQueue {
 public:
  void Add(Event event) {
    event.order = next_order_++;
    heap_.push_back(event);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }
  bool empty() const { return heap_.empty(); }
  const Event& front() const { return heap_.front(); }
  Event Take() {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const Event event = heap_.back();
    heap_.pop_back();
    return event;
  }

 private:
  uint32_t next_order_ = 0;
  std::vector<Event> heap_;
};

}  // namespace holdfast::sim
