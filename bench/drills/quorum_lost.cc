// Drill 2: two of three members are killed for longer than the auth bound allows.
#include <fmt/format.h>

#include <cmath>

#include "bench/drills/all.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kBoundInLife = absl::Minutes(5);
constexpr absl::Duration kBound = absl::Seconds(10);
constexpr absl::Duration kBoundedBy = absl::Seconds(5);
constexpr absl::Duration kCalm = absl::Seconds(4);
constexpr absl::Duration kOutage = absl::Seconds(16);
constexpr absl::Duration kBack = absl::Seconds(6);
// From then on the client knows that there is no quorum (RetryPolicy::quorum_patience, and the
// calls that were under way).
constexpr absl::Duration kKnown = absl::Seconds(6);
constexpr double kAtOnce_s = 1;
constexpr double kSlack_s = 0.3;  // a slot, and the gap between two reads

}  // namespace

absl::Status QuorumLost(DrillRun& run) {
  run.SetFactor(absl::FDivDuration(kBoundInLife, kBound),
                "30 times as fast as life: the auth bound of 5 min is 10 s here");
  auto store = DrillStore::Start(run, {});
  if (!store.ok()) return store.status();
  if (absl::Status status = (*store)->Fill(); !status.ok()) return status;
  auto load = StandardLoad::Start(
      run, **store, {.auth_bound = kBound, .bounded = true, .bounded_by = kBoundedBy});
  if (!load.ok()) return load.status();
  Timeline& timeline = run.timeline();
  const absl::Duration outage =
      run.options().drill.length > absl::ZeroDuration() ? run.options().drill.length : kOutage;
  timeline.Begin("all well");
  const int64_t begin_ns = Timeline::Now();
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  timeline.Begin("no quorum: two of three killed", true);
  const int64_t fault_ns = Timeline::Now();
  if (absl::Status status = (*store)->KillTwo(); !status.ok()) return status;
  if (absl::Status status = run.Sleep(outage); !status.ok()) return status;
  timeline.Begin("back");
  const int64_t back_ns = Timeline::Now();
  if (absl::Status status = (*store)->BringBack(); !status.ok()) return status;
  if (absl::Status status = run.Sleep(kBack); !status.ok()) return status;
  timeline.End();
  const int64_t end_ns = Timeline::Now();
  StandardLoad& all = **load;
  all.Stop();

  all.WantServed("config served", *all.config_track, begin_ns, end_ns);
  const Track::Totals auth = all.auth_track->Between(fault_ns, back_ns);
  const double bound_s = absl::ToDoubleSeconds(kBound);
  run.AddGoal("oldest auth data that was served", auth.age_s_max <= bound_s,
              SecondsText(auth.age_s_max), fmt::format("<= {:.0f} s", bound_s));
  run.AddGoal("auth was served until just before that", auth.age_s_max > bound_s - 0.5,
              SecondsText(auth.age_s_max), fmt::format("> {:.1f} s", bound_s - 0.5));
  const int64_t closed_ns = all.auth_track->FirstNs(CallOutcome::kRefused, fault_ns, back_ns);
  run.AddGoal("auth closed", closed_ns > 0 && auth.failed == 0,
              closed_ns > 0 ? fmt::format("{} after the fault",
                                          SecondsText(double(closed_ns - fault_ns) * 1e-9))
                            : "never",
              fmt::format("once the data is {:.0f} s old, typed", bound_s));
  const int64_t known_ns = fault_ns + absl::ToInt64Nanoseconds(kKnown);
  const auto writes = all.service_writes()->Between(known_ns, back_ns);
  run.AddGoal(
      "slowest refusal of a write",
      !writes.empty() && LongestSeconds(writes, CallOutcome::kRefused) < kAtOnce_s,
      SecondsText(LongestSeconds(writes, CallOutcome::kRefused)),
      fmt::format("< {} s, from {} s after the fault", kAtOnce_s, absl::ToDoubleSeconds(kKnown)));
  const Track::Totals refused = all.write_track->Between(known_ns, back_ns);
  run.AddGoal("writes refused, each with a type",
              refused.offered() > 0 && refused.refused == refused.offered(),
              ShareText(refused.RefusedPercent(), refused.offered()), "100 %");
  const Track::Totals bounded = all.bounded_track->Between(fault_ns, back_ns);
  run.AddGoal(
      "first refusal of Bounded(5s)",
      bounded.refused > 0 &&
          std::abs(double(all.bounded_track->FirstNs(CallOutcome::kRefused, fault_ns, back_ns) -
                          fault_ns) *
                       1e-9 -
                   absl::ToDoubleSeconds(kBoundedBy)) < 1.5,
      SecondsText(
          double(all.bounded_track->FirstNs(CallOutcome::kRefused, fault_ns, back_ns) - fault_ns) *
          1e-9),
      "about 5 s after the fault");
  const Track::Totals after = all.auth_track->Between(end_ns - 1'000'000'000, end_ns);
  run.AddGoal("auth open again at the end", after.offered() > 0 && after.served == after.offered(),
              ShareText(after.ServedPercent(), after.offered()), "100 %");
  run.Judge();
  run.SetPlot(all.PlotOf("Drill 2: two of three members are killed",
                         fmt::format("played {:.0f} times as fast as life: auth closes once its "
                                     "data is older than {:.0f} s (5 min)",
                                     run.factor(), bound_s)));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
