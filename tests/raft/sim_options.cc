#include <fmt/format.h>

#include <algorithm>

#include "cluster.h"

namespace holdfast::raft::test {
namespace {

uint64_t Pick(base::Rng& rng, std::initializer_list<uint64_t> values) {
  return *(values.begin() + rng.Below(values.size()));
}

CoreOptions CoreFromSeed(base::Rng& rng) {
  CoreOptions core;
  core.heartbeat_ticks = static_cast<uint32_t>(Pick(rng, {1, 1, 2}));
  core.election_ticks = core.heartbeat_ticks * static_cast<uint32_t>(Pick(rng, {3, 5}));
  // Small limits in half of the runs, so that their edges are met all the time.
  if (rng.OneIn(2)) {
    core.max_append_bytes = Pick(rng, {1, 300, 2000});
    core.max_inflight_messages = Pick(rng, {1, 2, 8});
    core.max_inflight_bytes = std::max<uint64_t>(core.max_append_bytes, Pick(rng, {400, 4000}));
  }
  if (rng.OneIn(2)) core.cached_entry_bytes = Pick(rng, {0, 400, 2000});
  if (rng.OneIn(3)) core.max_apply_bytes = Pick(rng, {1, 300, 1500});
  if (rng.OneIn(4)) core.max_uncommitted_bytes = Pick(rng, {500, 3000});
  if (rng.OneIn(4)) core.max_pending_reads = Pick(rng, {1, 4});
  if (rng.OneIn(4)) core.max_pending_probes = Pick(rng, {1, 3});
  return core;
}

}  // namespace

SimOptions SimOptions::FromSeed(uint64_t seed) {
  base::Rng rng(seed * 0x9E3779B97F4A7C15u + 1);
  SimOptions o;
  o.seed = seed;
  o.voters = Pick(rng, {1, 2, 3, 3, 3, 3, 4, 5, 5, 5});
  o.learners = rng.OneIn(4) ? 1 : 0;
  o.steps = 400 + rng.Below(800);
  o.core = CoreFromSeed(rng);
  o.propose = Pick(rng, {60, 300, 800});
  o.read = Pick(rng, {30, 150, 400});
  if (rng.OneIn(2)) o.loss = Pick(rng, {10, 80, 250});
  if (rng.OneIn(2)) o.duplicate = Pick(rng, {30, 200});
  if (rng.OneIn(2)) o.slow = Pick(rng, {20, 150, 400});
  o.slow_ms_max = static_cast<int64_t>(Pick(rng, {20, 100, 1000}));
  if (!rng.OneIn(3)) o.cut = Pick(rng, {4, 12, 40});
  o.heal = Pick(rng, {4, 8, 20, 60});
  if (rng.OneIn(2)) o.crash = Pick(rng, {2, 6, 20});
  o.restart = Pick(rng, {10, 40, 200});
  if (rng.OneIn(2)) o.pause = Pick(rng, {2, 8, 20});
  o.resume = Pick(rng, {10, 40});
  if (rng.OneIn(2)) o.slow_ticker = Pick(rng, {200, 400});
  if (rng.OneIn(3)) o.fetch = Pick(rng, {20, 100});
  if (rng.OneIn(2)) o.turn = Pick(rng, {200, 600});
  if (rng.OneIn(2)) o.disk = Pick(rng, {30, 150, 500});
  if (rng.OneIn(2)) o.apply = Pick(rng, {30, 150, 500});
  o.probe = Pick(rng, {30, 100, 300});
  if (rng.OneIn(2)) o.compact = Pick(rng, {10, 60});
  o.flush = Pick(rng, {10, 100});
  if (rng.OneIn(3)) o.peer_lost = Pick(rng, {3, 20});
  if (rng.OneIn(3)) o.campaign = Pick(rng, {2, 10});
  if (rng.OneIn(3)) o.transfer = Pick(rng, {5, 30});
  return o;
}

std::string SimOptions::ToString() const {
  return fmt::format(
      "seed {} voters {} learners {} steps {} propose {} read {} loss {} duplicate {} slow {} (to "
      "{} "
      "ms) cut {} heal {} crash {} restart {} pause {} resume {} slow_ticker {} fetch {} turn {} "
      "disk {} apply {} probe {} "
      "flush {} compact {} peer_lost {} campaign {} transfer {}; core: ticks {} / {} append {} "
      "inflight {} / "
      "{} cached {} "
      "apply {} "
      "uncommitted {} reads {} probes {}",
      seed, voters, learners, steps, propose, read, loss, duplicate, slow, slow_ms_max, cut, heal,
      crash, restart, pause, resume, slow_ticker, fetch, turn, disk, apply, probe, flush, compact,
      peer_lost, campaign, transfer, core.heartbeat_ticks, core.election_ticks,
      core.max_append_bytes, core.max_inflight_messages, core.max_inflight_bytes,
      core.cached_entry_bytes, core.max_apply_bytes, core.max_uncommitted_bytes,
      core.max_pending_reads, core.max_pending_probes);
}

void Figures::Add(const Figures& o) {
  runs += o.runs, steps += o.steps, elections += o.elections, commits += o.commits;
  proposed += o.proposed, refused += o.refused;
  reads_granted += o.reads_granted, reads_dropped += o.reads_dropped;
  follower_reads += o.follower_reads;
  claims += o.claims, claims_checked += o.claims_checked, claims_restored += o.claims_restored;
  leader_claims += o.leader_claims;
  crashes += o.crashes, snapshots_sent += o.snapshots_sent;
  snapshots_installed += o.snapshots_installed, half_installed += o.half_installed;
  compactions += o.compactions, fetches += o.fetches, truncations += o.truncations;
  commit_hints += o.commit_hints;
  transfers += o.transfers;
  messages += o.messages, lost += o.lost, duplicated += o.duplicated, cuts += o.cuts;
  pauses += o.pauses;
  recovery_ticks_max = std::max(recovery_ticks_max, o.recovery_ticks_max);
}

std::string Figures::ToString() const {
  return fmt::format(
      "runs {} steps {} elections {} commits {} proposed {} refused {}\n"
      "reads: granted {} (at followers {}) dropped {}\n"
      "claims: {} ({} by leaders, {} restored), checked {} times\n"
      "crashes {} pauses {} cuts {}; messages {} lost {} duplicated {}\n"
      "snapshots: sent {} installed {} (half, at a crash: {}); compactions {} fetches {} "
      "truncations "
      "{} commit hints {}\n"
      "transfers: {}; slowest recovery: {} ticks",
      runs, steps, elections, commits, proposed, refused, reads_granted, follower_reads,
      reads_dropped, claims, leader_claims, claims_restored, claims_checked, crashes, pauses, cuts,
      messages, lost, duplicated, snapshots_sent, snapshots_installed, half_installed, compactions,
      fetches, truncations, commit_hints, transfers, recovery_ticks_max);
}

}  // namespace holdfast::raft::test
