// Whoever follows what the state machine applies: the watch hub, the lessor, the check of the
// members against each other.
//
// Threads: all calls on the apply thread, in the order of the log; they must be quick and never
// block. Between two calls nothing is left out: what a listener hears is the whole history since
// it was added, cut only by OnReplaced.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "storage/mvcc_store.h"

namespace holdfast::server {

struct LeaseChange {
  Index index = {};  // of the entry
  int64_t id = 0;
  enum class Kind { kGranted, kGone, kCheckpoint } kind = Kind::kGranted;
  int64_t ttl_s = 0;          // kGranted
  int64_t remaining_ms = -1;  // kCheckpoint
};

// What a Check gave (api/holdfast/command.proto). Equal on members with equal state.
struct CheckResult {
  Index index = {};  // of the entry
  Term term = {};
  uint64_t low = 0, high = 0;  // the digest
  uint64_t records = 0;
  std::string next = {};  // the first key behind it; empty: the end
};

// What the entries of one batch changed beside the data.
struct ApplyEffects {
  bool members_changed = false;  // member attributes, incarnation
  bool alarms_changed = false;
  std::vector<LeaseChange> leases;
  std::vector<CheckResult> checks;
};

class ApplyListener {
 public:
  virtual ~ApplyListener() = default;

  // Asked once at the begin of each batch: whether OnEvent is to be called for it.
  virtual bool WantsEvents() { return false; }
  // Each change of a key, in order, before it is committed. What it points to lives as long as the
  // call.
  virtual void OnEvent(const storage::EventView& event) {}
  // The batch is committed: views made from now on show `state`. Comes before any caller of the
  // batch is answered. `events`: OnEvent was called for it.
  virtual void OnApplied(const storage::AppliedState& state, const ApplyEffects& effects,
                         bool events) {}
  // A snapshot took the place of everything; `state` is what it holds.
  virtual void OnReplaced(const storage::AppliedState& state) {}
};

}  // namespace holdfast::server
