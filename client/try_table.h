// The tries of one stream that are not answered: who waits for each, and until when.
//
// One table of slots: a try's id names its slot and how often that was used, so a reply to one that
// is over finds nobody. Deadlines stand in lists of one millisecond each, which nearly every try
// leaves long before its time: adding and taking cost the same however many there are.
//
// Pure: time comes in. Threads: one at a time.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "client/rpc.h"

namespace holdfast::internal {

class TryTable {
 public:
  using Steady = std::chrono::steady_clock;

  // Tries at once.
  static constexpr size_t kTriesMax = size_t{1} << 20;
  // A deadline may be noticed so much too late, never too early.
  static constexpr std::chrono::milliseconds kGrain{1};

  enum class Where : uint8_t {
    kQueued,    // proven: not sent
    kUnderWay,  // may have been sent
    kUnary,     // goes on as a call of its own, which knows its deadline
  };
  struct Entry {
    std::shared_ptr<TryOwner> owner = nullptr;
    bool hedge = false;
    Where where = Where::kQueued;
    Steady::time_point deadline = {};
    size_t bytes = 0;  // of the queue's, while it is there
  };

  // 0: there are kTriesMax.
  uint64_t Add(Entry entry);
  // Null: it is over.
  Entry* Find(uint64_t id);
  Entry Take(uint64_t id);  // REQUIRES: Find(id) != nullptr
  // Its deadline is somebody else's from now on.
  void Forget(uint64_t id);

  // The ids of all in this place, in the order of the table.
  std::vector<uint64_t> Ids(Where where) const;
  // Those whose deadline has passed; they stay in the table.
  void Due(Steady::time_point now, std::vector<uint64_t>* ids);
  // Not after the next deadline; nullopt: there is none.
  std::optional<Steady::time_point> NextDue();

  size_t size() const { return size_; }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  static constexpr int kSlotBits = 20;
  struct Slot {
    Entry entry = {};
    uint64_t id = 0;  // 0: free
    uint64_t uses = 0;
    int64_t tick = 0;
    bool listed = false;
    uint32_t previous = kNone;  // in its tick's list; kNone: the first
    uint32_t next = kNone;      // in the list, or of the free ones
  };
  using Ticks = std::map<int64_t, uint32_t>;  // the first of each list, if any is left

  static int64_t TickOf(Steady::time_point deadline);
  void List(uint32_t slot, Steady::time_point deadline);
  void Unlist(uint32_t slot);

  std::vector<Slot> slots_;
  uint32_t free_ = kNone;
  size_t size_ = 0;
  Ticks ticks_;
  Ticks::iterator last_ = ticks_.end();  // the list that was added to last
};

}  // namespace holdfast::internal
