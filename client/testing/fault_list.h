// The faults that wait for their calls.
#pragma once

#include <list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <grpcpp/support/status.h>

#include "absl/time/time.h"
#include "holdfast/testing/fault_injector.h"

namespace holdfast::testing::internal {

class World;

// Trailing metadata of an answer.
using Trailing = std::vector<std::pair<std::string, std::string>>;

struct Fault {
  enum class Kind { kNone, kAnswer, kLoseAnswer, kDrop, kHold, kDelay };
  Kind kind = Kind::kNone;
  grpc::Status status = {};                     // of kAnswer
  Trailing trailing = {};                       // of kAnswer
  absl::Duration delay = absl::ZeroDuration();  // of kDelay
};

// Threads: guarded by the world's mutex, as everything in it.
class FaultList {
 public:
  explicit FaultList(World* world) : world_(world) {}

  World* world() const { return world_; }
  void Add(const FaultInjector::Match& match, Fault fault, int times);
  // For a call that has just arrived; kNone: it is spared.
  Fault Next(std::string_view method, std::string_view endpoint);
  void Clear() { rules_.clear(); }
  int injected() const { return injected_; }

 private:
  struct Rule {
    FaultInjector::Match match;
    Fault fault;
    int left = 0;
  };
  World* const world_;
  std::list<Rule> rules_;  // oldest first
  int injected_ = 0;
};

}  // namespace holdfast::testing::internal
