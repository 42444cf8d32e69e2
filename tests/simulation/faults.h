// What goes wrong, and when: each kind of trouble comes at random, at its own rate.
// Threads: one.
#pragma once

#include <cstdint>

#include "base/ids.h"

namespace holdfast::sim {

class World;
class Member;

enum class FaultKind : uint32_t {
  kCrash,
  kPause,
  kCut,
  kSlowLink,
  kSpuriousHint,
  kDiskStall,
  kDiskError,
  kRot,
  kDrift,
  kCount,
};

class Faults {
 public:
  explicit Faults(World* world) : world_(*world) {}
  void Begin();
  void Strike(FaultKind kind);

 private:
  int64_t EveryMs(FaultKind kind) const;
  // Trouble for a leader tells more than trouble for anybody.
  Member* Victim();
  void CrashSomebody();
  void PauseSomebody();
  void HintSomebody();
  void StallSomebody();
  void BreakDisk();
  void RotSomebody();
  void DriftSomebody();

  World& world_;
};

}  // namespace holdfast::sim
