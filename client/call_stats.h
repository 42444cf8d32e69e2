// What the calls of one client came to, counted.
//
// Threads: all methods from any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "client/outcome.h"

namespace holdfast::internal {

class CallCounter {
 public:
  void Add() { value_.fetch_add(1, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_ = 0;
};

class CallStats {
 public:
  CallCounter calls;
  CallCounter attempts;  // hedges included
  CallCounter hedges;
  CallCounter hedges_won;
  CallCounter budget_denials;  // retries that the budget forbade

  // What one attempt came to.
  void Count(Outcome outcome) { outcomes_[static_cast<size_t>(outcome)].Add(); }
  uint64_t outcome(Outcome outcome) const {
    return outcomes_[static_cast<size_t>(outcome)].value();
  }

  void DumpTo(std::string* out) const;
  void MetricsTo(std::string* out) const;

 private:
  std::array<CallCounter, kOutcomes> outcomes_;
};

}  // namespace holdfast::internal
