// Which alarms concern this member, for those who must know at every call.
//
// Threads: the listener's calls on the apply thread; the rest from any thread, without a lock.
#pragma once

#include <atomic>

#include "base/ids.h"
#include "server/alarm_set.h"
#include "server/apply_listener.h"
#include "server/state_machine.h"

namespace holdfast::server {

class AlarmWatch : public ApplyListener {
 public:
  // To be added to the machine, which must outlive this, before its first Apply.
  AlarmWatch(const KvStateMachine* machine, NodeId self) : machine_(machine), self_(self) {
    Look();
  }

  // The alarm CORRUPT, of this member or of all (AlarmSet): its data is not to be shown.
  bool corrupt() const { return corrupt_.load(std::memory_order_acquire); }

  void OnApplied(const storage::AppliedState& /*state*/, const ApplyEffects& effects,
                 bool /*events*/) override {
    if (effects.alarms_changed) Look();
  }
  void OnReplaced(const storage::AppliedState& /*state*/) override { Look(); }

 private:
  void Look() {
    const AlarmSet alarms = machine_->alarms();
    corrupt_.store(alarms.all_corrupt() || alarms.corrupt(self_.value), std::memory_order_release);
  }

  const KvStateMachine* const machine_;
  const NodeId self_;
  std::atomic<bool> corrupt_ = false;
};

}  // namespace holdfast::server
