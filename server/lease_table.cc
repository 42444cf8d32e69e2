#include "server/lease_table.h"

#include <algorithm>

#include "base/check.h"

namespace holdfast::server {
namespace {

constexpr size_t kChildren = 4;

}  // namespace

LeaseEntry* LeaseTable::Find(int64_t id) {
  const auto it = slots_.find(id);
  return it == slots_.end() ? nullptr : &entries_[*it];
}

LeaseEntry* LeaseTable::Add(int64_t id) {
  CHECK(size() < kLeasesMax);
  uint32_t slot = 0;
  if (free_.empty()) {
    slot = static_cast<uint32_t>(entries_.size());
    entries_.emplace_back();
  } else {
    slot = free_.back();
    free_.pop_back();
    entries_[slot] = LeaseEntry();
  }
  LeaseEntry* lease = &entries_[slot];
  lease->id = id;
  lease->heap_place = kNowhere;
  CHECK(slots_.insert(slot).second);
  return lease;
}

void LeaseTable::Remove(LeaseEntry* lease) {
  NeverWake(lease);
  const auto it = slots_.find(lease->id);
  CHECK(it != slots_.end());
  free_.push_back(*it);
  slots_.erase(it);
}

void LeaseTable::Wake(LeaseEntry* lease, int64_t at_ms) {
  if (lease->heap_place != kNowhere) {
    const size_t place = lease->heap_place;
    const Waking waking = {at_ms, heap_[place].slot};
    SiftUp(place, waking);
    SiftDown(lease->heap_place, waking);
    return;
  }
  const auto it = slots_.find(lease->id);
  CHECK(it != slots_.end());
  heap_.emplace_back();
  SiftUp(heap_.size() - 1, {at_ms, *it});
}

void LeaseTable::NeverWake(LeaseEntry* lease) {
  if (lease->heap_place != kNowhere) RemoveAt(lease->heap_place);
}

LeaseEntry* LeaseTable::NextAwake(int64_t now_ms) {
  if (heap_.empty() || heap_[0].at_ms > now_ms) return nullptr;
  LeaseEntry* lease = &entries_[heap_[0].slot];
  RemoveAt(0);
  return lease;
}

void LeaseTable::RemoveAt(size_t place) {
  entries_[heap_[place].slot].heap_place = kNowhere;
  const Waking last = heap_.back();
  heap_.pop_back();
  if (place == heap_.size()) return;
  SiftUp(place, last);
  SiftDown(entries_[last.slot].heap_place, last);
}

void LeaseTable::Place(size_t place, const Waking& waking) {
  heap_[place] = waking;
  entries_[waking.slot].heap_place = static_cast<uint32_t>(place);
}

void LeaseTable::SiftUp(size_t place, const Waking& waking) {
  while (place > 0) {
    const size_t parent = (place - 1) / kChildren;
    if (heap_[parent].at_ms <= waking.at_ms) break;
    Place(place, heap_[parent]);
    place = parent;
  }
  Place(place, waking);
}

void LeaseTable::SiftDown(size_t place, const Waking& waking) {
  for (;;) {
    const size_t first = place * kChildren + 1;
    if (first >= heap_.size()) break;
    const size_t end = std::min(first + kChildren, heap_.size());
    size_t least = first;
    for (size_t child = first + 1; child < end; ++child) {
      if (heap_[child].at_ms < heap_[least].at_ms) least = child;
    }
    if (heap_[least].at_ms >= waking.at_ms) break;
    Place(place, heap_[least]);
    place = least;
  }
  Place(place, waking);
}

size_t LeaseTable::memory_bytes() const {
  return entries_.size() * sizeof(LeaseEntry) + free_.capacity() * sizeof(uint32_t) +
         slots_.capacity() * (sizeof(uint32_t) + 1) + heap_.capacity() * sizeof(Waking);
}

}  // namespace holdfast::server
