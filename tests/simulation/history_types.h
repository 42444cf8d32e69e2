// What clients asked, and what they were told.
#pragma once

#include <cstdint>

#include "base/ids.h"

namespace holdfast::sim {

enum class OpKind : uint8_t { kPut, kDelete, kCompareAndSet, kRead, kSerializableRead, kFreshRead };
enum class Outcome : uint8_t { kOpen, kOk, kRefused, kUnknown };

// One key. mod_revision 0: there is none.
struct Cell {
  uint64_t value = 0;
  uint64_t mod_revision = 0;
  friend bool operator==(const Cell&, const Cell&) = default;
};

// What a write came to, or what a read saw.
struct OpResult {
  uint64_t revision = 0;
  bool succeeded = true;  // of a compare-and-set: that it compared equal
  bool changed = false;   // a revision was made
  Cell cell;              // after it
};

struct ClientOp {
  OpKind kind = OpKind::kRead;
  Outcome outcome = Outcome::kOpen;
  uint16_t client = 0;
  uint16_t key = 0;
  uint16_t life = 0;  // of the member
  bool at_member = false;
  NodeId member;
  uint64_t value = 0;         // to write
  uint64_t expected_rev = 0;  // of a compare-and-set: the mod_revision it wants to see
  int64_t start_ns = 0;
  int64_t end_ns = 0;
  int64_t max_age_ns = 0;
  Index acked_at_start;  // reads: what must be seen
  OpResult result;
};

}  // namespace holdfast::sim
