#include "figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

namespace holdfast::sim {
namespace {

constexpr size_t kCounters = sizeof(Figures) / sizeof(uint64_t);
static_assert(sizeof(Figures) % sizeof(uint64_t) == 0);
static_assert(std::is_trivially_copyable_v<Figures>);

double Seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

}  // namespace

void Figures::Add(const Figures& other) {
  const uint64_t slowest = std::max(recovery_ms_max, other.recovery_ms_max);
  uint64_t mine[kCounters], theirs[kCounters];
  std::memcpy(mine, this, sizeof(mine));
  std::memcpy(theirs, &other, sizeof(theirs));
  for (size_t i = 0; i < kCounters; ++i) mine[i] += theirs[i];
  std::memcpy(this, mine, sizeof(mine));
  recovery_ms_max = slowest;
}

std::string Figures::ToString(double real_seconds, double processor_seconds) const {
  const Figures& f = *this;
  const double simulated = Seconds(simulated_ns);
  std::string out = fmt::format(
      "{} runs ({} twice), {:.2f} simulated cluster-hours ({:.2f} member-hours) in {:.1f} s, "
      "{:.1f} "
      "s of processor: {:.0f} cluster-seconds a processor-second\n",
      f.runs, f.replayed, simulated / 3600, Seconds(member_ns) / 3600, real_seconds,
      processor_seconds, processor_seconds > 0 ? simulated / processor_seconds : 0);
  out += fmt::format(
      "raft      {} elections, {} commits ({} entries), {} applied, {} truncations, {} turns, {} "
      "messages in {} packets, {} events\n",
      f.elections, f.leader_commits, f.commits, f.applied, f.truncations, f.turns, f.messages,
      f.packets, f.events);
  out += fmt::format(
      "clients   {} operations: {} writes ok ({} lost the compare), {} refused, {} unknown ({} of "
      "them seen later)\n",
      f.operations, f.writes_ok, f.failed_cas, f.refused, f.unknown, f.unknown_seen);
  out += fmt::format(
      "reads     {} linearizable ({} at followers), {} refused; {} serializable, {} fresh, {} not "
      "fresh enough; {} histories checked, {} undecided\n",
      f.linearizable_reads, f.follower_reads, f.refused_reads, f.serializable_reads, f.fresh_reads,
      f.stale_answers, f.histories, f.histories_undecided);
  out += fmt::format("claims    {} made ({} by leaders, {} kept over a restart), {} checked\n",
                     f.claims, f.leader_claims, f.claims_restored, f.claims_checked);
  out += fmt::format(
      "members   {} changes ({} add, {} add learner, {} remove, {} promote, {} demote, {} update, "
      "{} replace), {} refused, {} unknown; {} configurations, {} joint, {} promoted\n",
      f.changes_ok, f.adds, f.learner_adds, f.removes, f.promotes, f.demotes, f.updates, f.replaces,
      f.changes_refused, f.changes_unknown, f.configs, f.joint_configs, f.promotions);
  out += fmt::format(
      "          {} joined, {} left ({} ran on for a while), {} learners crashed, {} lost their "
      "disk; transfers: {} ok, {} failed\n",
      f.joiners, f.stopped, f.removed_still_running, f.joiner_crashes, f.rotten, f.transfers_ok,
      f.transfers_failed);
  out += fmt::format(
      "snapshots {} sent, {} installed ({} only half, at a crash), {} failed, {} late; {} flushes, "
      "{} compactions\n",
      f.snapshots_sent, f.snapshots_installed, f.half_installed, f.snapshots_failed,
      f.snapshots_late, f.flushes, f.compactions);
  out += fmt::format(
      "machines  {} crashes, {} power cuts ({} tore a write), {} stopped in order, {} pauses ({} "
      "asleep), {} drifts, {} slow tickers\n",
      f.crashes, f.power_cuts, f.torn_writes, f.graceful_stops, f.pauses, f.suspends,
      f.drift_changes, f.slow_tickers);
  out += fmt::format(
      "disks     {} errors, {} stalls, {} stalls of apply, {} hints and {} compactions lost\n",
      f.disk_errors, f.disk_stalls, f.apply_stalls, f.lost_hints, f.lost_compactions);
  out += fmt::format(
      "network   {} packets lost, {} repeated, {} out of order; {} cuts ({} one-way, {} flapping), "
      "{} slow links, {} broken connections seen\n",
      f.lost, f.duplicated, f.reordered, f.cuts, f.one_way_cuts, f.flaps, f.slow_links,
      f.peer_lost);
  out += fmt::format("slowest recovery: {} ms", f.recovery_ms_max);
  return out;
}

std::vector<std::string> Figures::Missing() const {
  const std::pair<const char*, uint64_t> needed[] = {
      {"replayed", replayed},
      {"elections", elections},
      {"commits", commits},
      {"truncations", truncations},
      {"writes ok", writes_ok},
      {"lost compares", failed_cas},
      {"refused writes", refused},
      {"unknown outcomes", unknown},
      {"unknown outcomes seen later", unknown_seen},
      {"linearizable reads", linearizable_reads},
      {"reads at followers", follower_reads},
      {"serializable reads", serializable_reads},
      {"fresh reads", fresh_reads},
      {"answers not fresh enough", stale_answers},
      {"claims", claims},
      {"claims of leaders", leader_claims},
      {"claims kept over a restart", claims_restored},
      {"members added", adds},
      {"learners added", learner_adds},
      {"members removed", removes},
      {"learners promoted by hand", promotes},
      {"voters demoted", demotes},
      {"addresses changed", updates},
      {"members replaced", replaces},
      {"refused changes", changes_refused},
      {"changes of unknown outcome", changes_unknown},
      {"joint configurations", joint_configs},
      {"promotions", promotions},
      {"joiners", joiners},
      {"removed members still running", removed_still_running},
      {"crashes of learners", joiner_crashes},
      {"lost disks", rotten},
      {"transfers", transfers_ok},
      {"failed transfers", transfers_failed},
      {"snapshots installed", snapshots_installed},
      {"snapshots half installed", half_installed},
      {"snapshots failed", snapshots_failed},
      {"snapshots late", snapshots_late},
      {"compactions", compactions},
      {"crashes", crashes},
      {"power cuts", power_cuts},
      {"torn writes", torn_writes},
      {"stops in order", graceful_stops},
      {"pauses", pauses},
      {"suspends", suspends},
      {"drifts", drift_changes},
      {"slow tickers", slow_tickers},
      {"disk errors", disk_errors},
      {"disk stalls", disk_stalls},
      {"stalls of apply", apply_stalls},
      {"lost compactions", lost_compactions},
      {"cuts", cuts},
      {"one-way cuts", one_way_cuts},
      {"flapping cuts", flaps},
      {"slow links", slow_links},
      {"lost packets", lost},
      {"repeated packets", duplicated},
      {"packets out of order", reordered},
      {"broken connections seen", peer_lost},
      {"histories", histories},
  };
  std::vector<std::string> missing;
  for (const auto& [name, count] : needed) {
    if (count == 0) missing.emplace_back(name);
  }
  return missing;
}

}  // namespace holdfast::sim
