// Drill 6: a service is left with a deposed leader while others write on; then it may move.
#include <fmt/format.h>

#include "bench/drills/all.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kCalm = absl::Seconds(4);
constexpr absl::Duration kAlone = absl::Seconds(10);
constexpr absl::Duration kMoved = absl::Seconds(20);
constexpr absl::Duration kBack = absl::Seconds(4);
constexpr absl::Duration kBound = absl::Seconds(5);

}  // namespace

absl::Status DeposedLeader(DrillRun& run) {
  auto started = DrillStore::Start(run, {.proxied_peers = true});
  if (!started.ok()) return started.status();
  DrillStore& store = **started;
  if (absl::Status status = store.Fill(); !status.ok()) return status;
  const auto leader = store.cluster().Leader();
  if (!leader.ok()) return leader.status();
  // The service sees nobody but the leader.
  for (int i = 0; i < store.cluster().size(); ++i) {
    if (i != *leader) store.CutServicesFrom(i);
  }
  auto started_load = StandardLoad::Start(
      run, store,
      {.auth_bound = kBound, .bounded = true, .bounded_by = kBound, .service_calls = false});
  if (!started_load.ok()) return started_load.status();
  StandardLoad& load = **started_load;
  Timeline& timeline = run.timeline();
  timeline.Begin("all well, on the leader");
  const int64_t begin_ns = Timeline::Now();
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;

  timeline.Begin("left with a deposed leader", true);
  const int64_t fault_ns = Timeline::Now();
  store.cluster().links().Cut(*leader, TcpProxy::kAll);
  const uint64_t acked_before = load.writer().acked();
  if (absl::Status status = run.Sleep(kAlone); !status.ok()) return status;
  const uint64_t acked_meanwhile = load.writer().acked() - acked_before;
  const int64_t freed_ns = Timeline::Now();
  timeline.Begin("may reach the others, too", true);
  store.HealServices();
  const absl::Status moved = run.Await("the mirror moves to a member that is up to date", kMoved,
                                       [&] { return load.config().age_s() < 2; });
  if (absl::IsCancelled(moved)) return moved;
  const double moved_s = double(Timeline::Now() - freed_ns) * 1e-9;
  if (absl::Status status = run.Sleep(kBack); !status.ok()) return status;
  timeline.Begin("the old leader is back");
  store.cluster().links().HealAll();
  if (absl::Status status = run.Sleep(kBack); !status.ok()) return status;
  timeline.End();
  const int64_t end_ns = Timeline::Now();
  load.Stop();

  load.WantServed("config served", *load.config_track, begin_ns, end_ns);
  run.AddGoal("writes acknowledged elsewhere meanwhile", acked_meanwhile > 0,
              fmt::format("{}", acked_meanwhile), "> 0");
  const Track::Totals alone = load.config_track->Between(fault_ns, freed_ns);
  const double alone_s = absl::ToDoubleSeconds(kAlone);
  run.AddGoal("the age told grows with the time alone", alone.age_s_max > alone_s - 2,
              SecondsText(alone.age_s_max), fmt::format("> {:.0f} s", alone_s - 2));
  const double bound_s = absl::ToDoubleSeconds(kBound);
  const Track::Totals auth = load.auth_track->All();
  run.AddGoal("oldest auth data served", auth.age_s_max <= bound_s && auth.refused > 0,
              fmt::format("{}, then {} reads refused", SecondsText(auth.age_s_max), auth.refused),
              fmt::format("<= {:.0f} s", bound_s));
  const Track::Totals bounded = load.bounded_track->Between(fault_ns, freed_ns);
  run.AddGoal("Bounded(5s) reads served beyond it, or without a type", bounded.failed == 0,
              fmt::format("{} failed, {} refused", bounded.failed, bounded.refused), "0");
  run.AddGoal("moved to another member", moved.ok(), SecondsText(moved_s),
              fmt::format("<= {}", absl::FormatDuration(kMoved)));
  run.Judge(true);
  run.SetPlot(load.PlotOf("Drill 6: left with a deposed leader",
                          "others write on; the age grows here, and no bound is broken"));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
