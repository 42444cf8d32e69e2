// The leases that a leader keeps time for, and which of them is to be looked at next.
//
// Compact, for there may be millions: about 70 bytes each. A heap of wake-up times, in which every
// lease stands at most once; a renewal does not touch it: whoever is woken too early is put back
// (lessor_core.h). No call is proportional to the number of leases.
// Threads: one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "absl/container/flat_hash_set.h"

namespace holdfast::server {

struct LeaseEntry {
  int64_t id = 0;
  int64_t ttl_s = 0;        // as granted
  int64_t deadline_ms = 0;  // of the lease clock
  // What the next leader would give it, as the log says (or may say soon): the whole TTL, or the
  // rest of it that a checkpoint names.
  int64_t kept_ms = 0;
  // Its expiry is proposed. For good in this term: the entry may be in the log.
  bool expiring = false;
  // A checkpoint that gives it the whole TTL again is on its way; a renewal waits for it.
  bool resetting = false;
  bool checkpoint_queued = false;

 private:
  friend class LeaseTable;
  uint32_t heap_place = 0;
};

class LeaseTable {
 public:
  // More leases than this are not kept time for (they never expire). Far beyond what memory holds.
  static constexpr size_t kLeasesMax = size_t{1} << 31;

  LeaseTable() : slots_(0, HashSlot{&entries_}, SameSlot{&entries_}) {}
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  // Null: unknown. Pointers live until the lease is removed.
  LeaseEntry* Find(int64_t id);
  // REQUIRES: unknown, and size() < kLeasesMax.
  LeaseEntry* Add(int64_t id);
  void Remove(LeaseEntry* lease);

  // Wakes it at `at_ms`, and at no other time.
  void Wake(LeaseEntry* lease, int64_t at_ms);
  void NeverWake(LeaseEntry* lease);
  // The lease to be woken first, if that is not after `now_ms`; it is then woken no more.
  LeaseEntry* NextAwake(int64_t now_ms);

  size_t size() const { return slots_.size(); }
  size_t memory_bytes() const;

 private:
  // The set holds numbers of slots, and finds them by the id that stands there: 5 bytes a lease
  // instead of 17.
  struct HashSlot {
    using is_transparent = void;
    const std::deque<LeaseEntry>* entries;
    size_t operator()(uint32_t slot) const { return (*this)((*entries)[slot].id); }
    size_t operator()(int64_t id) const { return absl::Hash<int64_t>()(id); }
  };
  struct SameSlot {
    using is_transparent = void;
    const std::deque<LeaseEntry>* entries;
    bool operator()(uint32_t a, uint32_t b) const { return a == b; }
    bool operator()(uint32_t slot, int64_t id) const { return (*entries)[slot].id == id; }
    bool operator()(int64_t id, uint32_t slot) const { return (*entries)[slot].id == id; }
  };
  struct Waking {
    int64_t at_ms;
    uint32_t slot;
  };
  static constexpr uint32_t kNowhere = UINT32_MAX;  // not in the heap

  void Place(size_t place, const Waking& waking);
  void SiftUp(size_t place, const Waking& waking);
  void SiftDown(size_t place, const Waking& waking);
  void RemoveAt(size_t place);

  std::deque<LeaseEntry> entries_;  // a slot each; grows in pieces, never copied
  std::vector<uint32_t> free_;      // slots of removed leases
  absl::flat_hash_set<uint32_t, HashSlot, SameSlot> slots_;
  // Invariant: heap_[entries_[s].heap_place].slot == s for every s that is in it.
  std::vector<Waking> heap_;  // four children each: half the depth of two, and one cache line
};

}  // namespace holdfast::server
