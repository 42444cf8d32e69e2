#include "faults.h"

#include <algorithm>

#include "base/check.h"
#include "world.h"

namespace holdfast::sim {

int64_t Faults::EveryMs(FaultKind kind) const {
  const SimOptions& o = world_.options;
  switch (kind) {
    case FaultKind::kCrash:
      return o.crash_every_ms;
    case FaultKind::kPause:
      return o.pause_every_ms;
    case FaultKind::kCut:
      return o.cut_every_ms;
    case FaultKind::kSlowLink:
      return o.slow_link_every_ms;
    case FaultKind::kSpuriousHint:
      return o.spurious_hint_every_ms;
    case FaultKind::kDiskStall:
      return o.stall_every_ms;
    case FaultKind::kDiskError:
      return o.disk_error_every_ms;
    case FaultKind::kRot:
      return o.rot_every_ms;
    case FaultKind::kDrift:
      return o.drift_every_ms;
    case FaultKind::kCount:
      break;
  }
  CHECK_MSG(false, "no such fault");
  return 0;
}

void Faults::Begin() {
  for (uint32_t i = 0; i < static_cast<uint32_t>(FaultKind::kCount); ++i) {
    const int64_t every_ms = EveryMs(static_cast<FaultKind>(i));
    if (every_ms > 0) world_.At(world_.NextAfterMs(every_ms), EventKind::kFault, i);
  }
}

void Faults::Strike(FaultKind kind) {
  if (!world_.faulty()) return;
  world_.At(world_.NextAfterMs(EveryMs(kind)), EventKind::kFault, static_cast<uint32_t>(kind));
  switch (kind) {
    case FaultKind::kCrash:
      return CrashSomebody();
    case FaultKind::kPause:
      return PauseSomebody();
    case FaultKind::kCut:
      return world_.network.CutSomething();
    case FaultKind::kSlowLink:
      return world_.network.SlowSomething();
    case FaultKind::kSpuriousHint:
      return HintSomebody();
    case FaultKind::kDiskStall:
      return StallSomebody();
    case FaultKind::kDiskError:
      return BreakDisk();
    case FaultKind::kRot:
      return RotSomebody();
    case FaultKind::kDrift:
      return DriftSomebody();
    case FaultKind::kCount:
      break;
  }
}

Member* Faults::Victim() {
  Member* leader = world_.Leader();
  if (leader != nullptr && leader->runs() && world_.rng.OneIn(3)) return leader;
  return world_.RandomRunning();
}

void Faults::CrashSomebody() {
  Member* victim = Victim();
  if (victim == nullptr) return;
  if (!world_.witness.committed_config().membership.IsVoter(victim->id())) {
    ++world_.figures.joiner_crashes;
  }
  if (world_.Chance(world_.options.graceful)) return victim->Stop(/*for_good=*/false);
  const bool power = world_.Chance(world_.options.power);
  // Half of the power cuts wait for the next write, and tear it.
  if (power && world_.rng.OneIn(2)) return victim->TearNextWrite();
  victim->Crash(power);
}

void Faults::PauseSomebody() {
  Member* victim = Victim();
  if (victim == nullptr) return;
  const bool suspend = world_.Chance(world_.options.suspend);
  ++world_.figures.pauses;
  world_.figures.suspends += suspend ? 1 : 0;
  victim->Pause(suspend);
  const int64_t until_ns =
      world_.now_ns + kMillisecond + world_.Uniform(world_.options.pause_ms_max * kMillisecond);
  world_.AtMember(until_ns, EventKind::kResume, *victim);
}

void Faults::HintSomebody() {
  const Member* told = world_.RandomRunning();
  if (told == nullptr) return;
  const std::vector<NodeId> peers = told->known().All();
  if (peers.empty()) return;
  const NodeId peer = peers[world_.rng.Below(peers.size())];
  if (peer == told->id()) return;
  world_.AtMember(world_.now_ns + 1, EventKind::kPeerLost, *told,
                  static_cast<uint32_t>(peer.value));
}

void Faults::StallSomebody() {
  Member* victim = Victim();
  if (victim == nullptr) return;
  const int64_t until_ns =
      world_.now_ns + world_.Uniform(world_.options.stall_ms_max * kMillisecond);
  if (world_.rng.OneIn(4)) {
    ++world_.figures.apply_stalls;
    victim->StallApply(until_ns);
  } else {
    ++world_.figures.disk_stalls;
    victim->StallDisk(until_ns);
  }
}

void Faults::BreakDisk() {
  Member* victim = Victim();
  if (victim == nullptr) return;
  victim->ExpectFatal();
  switch (world_.rng.Below(6)) {
    case 0:
      return victim->machine().FailNextApply();
    case 1:
      return victim->machine().FailNextFlush();
    case 2:
      return victim->disk().FailNextRead();
    case 3:
      return victim->machine().FailNextCheckpoint();  // no space for one: nobody has to stop
    default:
      return victim->disk().FailNextAppend(SimDisk::Trouble::kError);
  }
}

// A damaged record behind others: the member refuses to start and has to be replaced.
void Faults::RotSomebody() {
  if (!world_.operators.MayKill()) return;
  const std::vector<NodeId> all = world_.witness.committed_config().membership.All();
  const NodeId id = all[world_.rng.Below(all.size())];
  if (!world_.Exists(id) || world_.member(id).gone()) return;
  ++world_.figures.rotten;
  world_.Trace(&world_.member(id), "loses its disk for good");
  world_.operators.Killed(id);
  world_.member(id).Die();
}

void Faults::DriftSomebody() {
  Member* victim = world_.RandomRunning();
  if (victim == nullptr) return;
  ++world_.figures.drift_changes;
  // The clock that is slow for good stays so; the other one wanders within A1.
  Drift drift = victim->clock().drift();
  for (int64_t* ppm : {&drift.slewed_ppm, &drift.raw_ppm}) {
    if (*ppm >= SimClock::kSlowestTrustedPpm) {
      *ppm = SimClock::kSlowestTrustedPpm + world_.Uniform(30'000);
    }
  }
  victim->clock().SetDrift(drift);
}

}  // namespace holdfast::sim
