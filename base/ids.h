// Strong integer ids: a Term is never an Index by accident.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace holdfast::base {

template <class Tag>
struct StrongId {
  uint64_t value = 0;

  constexpr StrongId() = default;
  constexpr explicit StrongId(uint64_t v) : value(v) {}
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
  constexpr StrongId operator+(uint64_t n) const { return StrongId(value + n); }
  constexpr StrongId operator-(uint64_t n) const { return StrongId(value - n); }
  constexpr StrongId& operator++() {
    ++value;
    return *this;
  }
  constexpr explicit operator bool() const { return value != 0; }
  template <class H>
  friend H AbslHashValue(H h, StrongId id) {
    return H::combine(std::move(h), id.value);
  }
};

}  // namespace holdfast::base

namespace holdfast {

using Term = base::StrongId<struct TermTag>;      // Raft paper 5.1; 0 = before the first election
using Index = base::StrongId<struct IndexTag>;    // of a log entry; the first is 1, 0 = none
using NodeId = base::StrongId<struct NodeIdTag>;  // a member, 0 = none

}  // namespace holdfast
