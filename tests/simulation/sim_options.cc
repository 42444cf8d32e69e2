#include "sim_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

#include "base/rng.h"

namespace holdfast::sim {
namespace {

template <class T>
T Pick(base::Rng& rng, std::initializer_list<T> values) {
  return *(values.begin() + static_cast<ptrdiff_t>(rng.Below(values.size())));
}

// Small limits in half of the runs, so that their edges are met all the time.
void DrawNode(base::Rng& rng, SimOptions& o) {
  o.tick_ms = Pick<int64_t>(rng, {10, 20, 50, 50});
  const auto heartbeat_ms = std::max(o.tick_ms, Pick<int64_t>(rng, {50, 100, 100}));
  o.core.heartbeat_ticks = static_cast<uint32_t>(heartbeat_ms / o.tick_ms);
  o.core.election_ticks = o.core.heartbeat_ticks * Pick<uint32_t>(rng, {3, 5, 10});
  if (rng.OneIn(2)) {
    o.core.max_append_bytes = Pick<size_t>(rng, {1, 300, 2000});
    o.core.max_inflight_messages = Pick<size_t>(rng, {1, 2, 8});
    o.core.max_inflight_bytes = std::max(o.core.max_append_bytes, Pick<size_t>(rng, {400, 4000}));
  }
  if (rng.OneIn(2)) o.core.cached_entry_bytes = Pick<size_t>(rng, {0, 400, 2000});
  if (rng.OneIn(3)) o.core.max_apply_bytes = Pick<size_t>(rng, {1, 300, 1500});
  if (rng.OneIn(4)) o.core.max_uncommitted_bytes = Pick<size_t>(rng, {500, 3000});
  if (rng.OneIn(6)) o.core.max_unapplied_bytes = Pick<size_t>(rng, {300, 3000});
  if (rng.OneIn(6)) o.core.max_unapplied_entries = Pick<uint64_t>(rng, {5, 50});
  if (rng.OneIn(4)) o.core.max_pending_reads = Pick<size_t>(rng, {8, 64});
  if (rng.OneIn(4)) o.core.max_pending_probes = Pick<size_t>(rng, {1, 3});
  if (rng.OneIn(8)) o.max_queued_bytes = Pick<size_t>(rng, {1500, 6000});
  if (!rng.OneIn(3)) {
    o.snapshot_count = Pick<uint64_t>(rng, {5, 30, 200});
    o.catch_up_entries = Pick<uint64_t>(rng, {0, 3, 20, 100});
  }
  if (rng.OneIn(4)) o.snapshot_log_bytes = Pick<uint64_t>(rng, {1000, 10'000});
}

void DrawClients(base::Rng& rng, SimOptions& o) {
  o.clients = Pick<uint64_t>(rng, {2, 4, 8});
  o.think_ms = Pick<int64_t>(rng, {50, 200, 200, 600, 600, 2000});
  o.keys = Pick<uint64_t>(rng, {1, 4, 12});
  o.padding_max = Pick<uint64_t>(rng, {0, 60, 400});
  o.deadline_ms = Pick<int64_t>(rng, {300, 2000, 5000});
  o.write = Pick<uint64_t>(rng, {100, 500, 800});
  o.linearizable = (1000 - o.write) * Pick<uint64_t>(rng, {1, 4, 8}) / 10;
  o.serializable = (1000 - o.write - o.linearizable) / 2;
}

void DrawNetwork(base::Rng& rng, SimOptions& o) {
  o.delay_us_max = Pick<int64_t>(rng, {300, 1000, 5000, 30'000});
  o.split_packets = rng.OneIn(3);
  if (rng.OneIn(2)) o.loss = Pick<uint64_t>(rng, {3, 20, 100, 250});
  if (rng.OneIn(3)) o.duplicate = Pick<uint64_t>(rng, {20, 200});
  if (rng.OneIn(2)) o.reorder = Pick<uint64_t>(rng, {20, 300});
  if (rng.OneIn(2)) o.slow = Pick<uint64_t>(rng, {10, 100, 400});
  o.slow_ms_max = Pick<int64_t>(rng, {10, 100, 1000});
  if (!rng.OneIn(3)) o.cut_every_ms = Pick<int64_t>(rng, {600, 2000, 6000});
  o.cut_ms_max = Pick<int64_t>(rng, {300, 2000, 6000});
  if (rng.OneIn(3)) o.flap = Pick<uint64_t>(rng, {200, 700});
  if (rng.OneIn(4)) o.slow_link_every_ms = Pick<int64_t>(rng, {2000, 6000});
  o.break_hint = Pick<uint64_t>(rng, {0, 500, 950});
  if (rng.OneIn(4)) o.spurious_hint_every_ms = Pick<int64_t>(rng, {100, 1000});
}

void DrawMachines(base::Rng& rng, SimOptions& o) {
  if (rng.OneIn(2)) o.crash_every_ms = Pick<int64_t>(rng, {500, 2000, 5000});
  o.down_ms_max = Pick<int64_t>(rng, {50, 1000, 5000});
  o.power = Pick<uint64_t>(rng, {0, 300, 900});
  o.graceful = Pick<uint64_t>(rng, {0, 100, 500});
  if (rng.OneIn(3)) o.pause_every_ms = Pick<int64_t>(rng, {500, 2000, 5000});
  o.pause_ms_max = Pick<int64_t>(rng, {200, 1500, 5000});
  o.suspend = Pick<uint64_t>(rng, {0, 500, 1000});
  if (rng.OneIn(4)) o.slow_ticker = Pick<uint64_t>(rng, {200, 400});
  if (rng.OneIn(2)) o.crash_at_install = Pick<uint64_t>(rng, {200, 600});
  if (rng.OneIn(3)) o.drift_every_ms = Pick<int64_t>(rng, {500, 3000});
  if (rng.OneIn(4)) o.turn_hold = Pick<uint64_t>(rng, {20, 300});
  o.turn_hold_ms_max = Pick<int64_t>(rng, {3, 30, 200});
  if (rng.OneIn(3)) o.apply_hold = Pick<uint64_t>(rng, {20, 300, 900});
  if (rng.OneIn(4)) o.fetch_hold = Pick<uint64_t>(rng, {100, 900});
  if (rng.OneIn(3)) o.maintenance_hold = Pick<uint64_t>(rng, {100, 900});
  o.hold_ms_max = Pick<int64_t>(rng, {5, 100, 800});
}

void DrawDisks(base::Rng& rng, SimOptions& o) {
  o.fsync_us_max = Pick<int64_t>(rng, {100, 1000, 10'000});
  if (rng.OneIn(3)) o.slow_fsync = Pick<uint64_t>(rng, {20, 200});
  o.slow_fsync_ms_max = Pick<int64_t>(rng, {10, 80, 400});
  if (rng.OneIn(4)) o.stall_every_ms = Pick<int64_t>(rng, {1500, 5000});
  o.stall_ms_max = Pick<int64_t>(rng, {500, 3000});
  if (rng.OneIn(5)) o.disk_error_every_ms = Pick<int64_t>(rng, {2000, 6000});
  if (rng.OneIn(4)) o.rot_every_ms = Pick<int64_t>(rng, {3000, 8000});
  o.segment_entries = Pick<uint64_t>(rng, {1, 10, 64, 64});
  o.snapshot_ms_max = Pick<int64_t>(rng, {20, 300, 2000});
  if (rng.OneIn(2)) o.snapshot_fail = Pick<uint64_t>(rng, {100, 500});
  if (rng.OneIn(3)) o.snapshot_late = Pick<uint64_t>(rng, {100, 500});
}

}  // namespace

SimOptions SimOptions::FromSeed(uint64_t seed) {
  base::Rng rng(seed * 0x9E3779B97F4A7C15u + 1);
  SimOptions o;
  o.seed = seed;
  o.voters = Pick<uint64_t>(rng, {1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7});
  o.learners = rng.OneIn(5) ? 1 + rng.Below(2) : 0;
  o.safety_ms = Pick<int64_t>(rng, {8000, 15'000, 30'000});
  DrawNode(rng, o);
  DrawClients(rng, o);
  // One run in twelve is quiet: what never recovers from nothing would hide behind the faults.
  if (!rng.OneIn(12)) {
    DrawNetwork(rng, o);
    DrawMachines(rng, o);
    DrawDisks(rng, o);
  }
  if (rng.OneIn(2)) o.change_every_ms = Pick<int64_t>(rng, {700, 2000, 5000});
  if (rng.OneIn(3)) o.transfer_every_ms = Pick<int64_t>(rng, {400, 1500, 5000});
  return o;
}

std::string SimOptions::ToString() const {
  return fmt::format(
      "seed {} voters {} learners {} safety {} ms; ticks of {} ms, heartbeat {} election {} ms\n"
      "  core: append {} B, in flight {} / {} B, cached {} B, apply {} B, uncommitted {} B, "
      "unapplied {} B / {}, reads {} probes {}\n"
      "  node: queued {} B, snapshot at {} / {} B, catch up {}\n"
      "  clients {} think {} ms keys {} padding {} deadline {} ms; write {} linearizable {} "
      "serializable {}\n"
      "  network: delay {} us, {}loss {} duplicate {} reorder {} slow {} (to {} ms) cut every {} "
      "ms (to {} ms) flap {} slow link every {} ms, break hint {} spurious every {} ms\n"
      "  machines: crash every {} ms (down to {} ms, power {} graceful {}) pause every {} ms (to "
      "{} ms, suspend {}) slow ticker {} crash at install {} drift every {} ms\n"
      "  held back: turn {} (to {} ms) apply {} fetch {} maintenance {} (to {} ms)\n"
      "  disks: fsync {} us, slow {} (to {} ms) stall every {} ms (to {} ms) error every {} ms "
      "rot every {} ms, segments of {}\n"
      "  snapshots: to {} ms, fail {} late {}; change every {} ms, transfer every {} ms",
      seed, voters, learners, safety_ms, tick_ms, heartbeat_ms(), election_ms(),
      core.max_append_bytes, core.max_inflight_messages, core.max_inflight_bytes,
      core.cached_entry_bytes, core.max_apply_bytes, core.max_uncommitted_bytes,
      core.max_unapplied_bytes, core.max_unapplied_entries, core.max_pending_reads,
      core.max_pending_probes, max_queued_bytes, snapshot_count, snapshot_log_bytes,
      catch_up_entries, clients, think_ms, keys, padding_max, deadline_ms, write, linearizable,
      serializable, delay_us_max, split_packets ? "split, " : "", loss, duplicate, reorder, slow,
      slow_ms_max, cut_every_ms, cut_ms_max, flap, slow_link_every_ms, break_hint,
      spurious_hint_every_ms, crash_every_ms, down_ms_max, power, graceful, pause_every_ms,
      pause_ms_max, suspend, slow_ticker, crash_at_install, drift_every_ms, turn_hold,
      turn_hold_ms_max, apply_hold, fetch_hold, maintenance_hold, hold_ms_max, fsync_us_max,
      slow_fsync, slow_fsync_ms_max, stall_every_ms, stall_ms_max, disk_error_every_ms,
      rot_every_ms, segment_entries, snapshot_ms_max, snapshot_fail, snapshot_late, change_every_ms,
      transfer_every_ms);
}

}  // namespace holdfast::sim
