#include "client/try_table.h"

#include <utility>

#include "base/check.h"

namespace holdfast::internal {

uint64_t TryTable::Add(Entry entry) {
  if (free_ == kNone) {
    if (slots_.size() >= kTriesMax) return 0;
    free_ = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  const uint32_t at = free_;
  Slot& slot = slots_[at];
  free_ = slot.next;
  // Never 0, for `uses` starts at 1.
  slot.id = (++slot.uses << kSlotBits) | at;
  slot.entry = std::move(entry);
  List(at, slot.entry.deadline);
  ++size_;
  return slot.id;
}

TryTable::Entry* TryTable::Find(uint64_t id) {
  const uint64_t at = id & ((uint64_t{1} << kSlotBits) - 1);
  if (id == 0 || at >= slots_.size() || slots_[at].id != id) return nullptr;
  return &slots_[at].entry;
}

TryTable::Entry TryTable::Take(uint64_t id) {
  CHECK(Find(id) != nullptr);
  const auto at = static_cast<uint32_t>(id & ((uint64_t{1} << kSlotBits) - 1));
  Slot& slot = slots_[at];
  Unlist(at);
  slot.id = 0;
  slot.next = free_;
  free_ = at;
  --size_;
  return std::move(slot.entry);
}

void TryTable::Forget(uint64_t id) {
  CHECK(Find(id) != nullptr);
  Unlist(static_cast<uint32_t>(id & ((uint64_t{1} << kSlotBits) - 1)));
}

std::vector<uint64_t> TryTable::Ids(Where where) const {
  std::vector<uint64_t> ids;
  for (const Slot& slot : slots_) {
    if (slot.id != 0 && slot.entry.where == where) ids.push_back(slot.id);
  }
  return ids;
}

// The millisecond that begins at the deadline or after it.
int64_t TryTable::TickOf(Steady::time_point deadline) {
  return std::chrono::ceil<std::chrono::milliseconds>(deadline.time_since_epoch()).count();
}

void TryTable::List(uint32_t at, Steady::time_point deadline) {
  Slot& slot = slots_[at];
  slot.tick = TickOf(deadline);
  if (last_ == ticks_.end() || last_->first != slot.tick) {
    last_ = ticks_.try_emplace(slot.tick, kNone).first;
  }
  slot.listed = true;
  slot.previous = kNone;
  slot.next = last_->second;
  if (slot.next != kNone) slots_[slot.next].previous = at;
  last_->second = at;
}

void TryTable::Unlist(uint32_t at) {
  Slot& slot = slots_[at];
  if (!std::exchange(slot.listed, false)) return;
  if (slot.next != kNone) slots_[slot.next].previous = slot.previous;
  if (slot.previous != kNone) {
    slots_[slot.previous].next = slot.next;
  } else {
    (last_ != ticks_.end() && last_->first == slot.tick ? last_ : ticks_.find(slot.tick))->second =
        slot.next;
  }
}

void TryTable::Due(Steady::time_point now, std::vector<uint64_t>* ids) {
  for (auto it = ticks_.begin(); it != ticks_.end(); it = ticks_.erase(it)) {
    if (Steady::time_point(std::chrono::milliseconds(it->first)) > now) break;
    for (uint32_t at = it->second; at != kNone; at = slots_[at].next) {
      slots_[at].listed = false;
      ids->push_back(slots_[at].id);
    }
    if (last_ == it) last_ = ticks_.end();
  }
}

std::optional<TryTable::Steady::time_point> TryTable::NextDue() {
  while (!ticks_.empty() && ticks_.begin()->second == kNone) {
    if (last_ == ticks_.begin()) last_ = ticks_.end();
    ticks_.erase(ticks_.begin());
  }
  if (ticks_.empty()) return std::nullopt;
  return Steady::time_point(std::chrono::milliseconds(ticks_.begin()->first));
}

}  // namespace holdfast::internal
