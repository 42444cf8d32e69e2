// Drill 11: the connection stands, and nothing passes any more.
#include <fmt/format.h>

#include "bench/drills/all.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kCalm = absl::Seconds(4);
constexpr absl::Duration kMoved = absl::Seconds(25);
constexpr absl::Duration kAfter = absl::Seconds(4);
// 3 s after the last bookmark, which came up to a second before the silence, or a little more on a
// busy machine.
constexpr double kJeopardyFrom_s = 1.5, kJeopardyTo_s = 3.5;
constexpr double kMovedGoal_s = 13;

}  // namespace

absl::Status HalfOpen(DrillRun& run) {
  auto started = DrillStore::Start(run, {});
  if (!started.ok()) return started.status();
  DrillStore& store = **started;
  if (absl::Status status = store.Fill(); !status.ok()) return status;
  // The service sits on member 0, which it could reach alone.
  constexpr int kHome = 0;
  for (int i = 1; i < store.cluster().size(); ++i) store.CutServicesFrom(i);
  auto started_load =
      StandardLoad::Start(run, store, {.auth_bound = absl::Seconds(60), .service_calls = false});
  if (!started_load.ok()) return started_load.status();
  StandardLoad& load = **started_load;
  Timeline& timeline = run.timeline();
  timeline.Begin("all well");
  const int64_t begin_ns = Timeline::Now();
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  store.HealServices();
  if (absl::Status status = run.Sleep(absl::Seconds(1)); !status.ok()) return status;

  timeline.Begin("silent, and not closed", true);
  const int64_t fault_ns = Timeline::Now();
  store.SilenceServices(kHome);
  const absl::Status moved = run.Await("the mirrors are live on another member", kMoved, [&] {
    return load.links()->FirstNs(kConfigPrefix, Link::kLive, fault_ns) > 0 &&
           load.links()->FirstNs(kAuthPrefix, Link::kLive, fault_ns) > 0;
  });
  if (absl::IsCancelled(moved)) return moved;
  timeline.Begin("moved to another member");
  if (absl::Status status = run.Sleep(kAfter); !status.ok()) return status;
  timeline.End();
  const int64_t end_ns = Timeline::Now();
  load.Stop();
  store.HealServices();

  load.WantServed("config served", *load.config_track, begin_ns, end_ns);
  load.WantServed("auth served", *load.auth_track, begin_ns, end_ns);
  const auto seconds = [&](int64_t at_ns) {
    return at_ns < 0 ? -1 : double(at_ns - fault_ns) * 1e-9;
  };
  const double jeopardy_s =
      seconds(load.links()->FirstNs(kConfigPrefix, Link::kJeopardy, fault_ns));
  run.AddGoal("jeopardy told", jeopardy_s >= kJeopardyFrom_s && jeopardy_s <= kJeopardyTo_s,
              jeopardy_s < 0 ? "never" : SecondsText(jeopardy_s) + " after the silence",
              fmt::format("{} to {} s", kJeopardyFrom_s, kJeopardyTo_s));
  const double moved_s = seconds(load.links()->FirstNs(kConfigPrefix, Link::kLive, fault_ns));
  run.AddGoal("live on another member", moved.ok() && moved_s <= kMovedGoal_s,
              moved_s < 0 ? "never" : SecondsText(moved_s) + " after the silence",
              fmt::format("<= {:.0f} s: given up at 10 s, then a load", kMovedGoal_s));
  run.Judge(true);
  run.SetPlot(load.PlotOf("Drill 11: half-open connections",
                          "jeopardy after 3 s without a bookmark, another member after 10 s"));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
