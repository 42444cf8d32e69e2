// Drill 9: a user is revoked, and the service's network is cut before the news arrives.
#include <fmt/format.h>

#include "bench/drills/all.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kBoundInLife = absl::Minutes(5);
constexpr absl::Duration kBound = absl::Seconds(10);
constexpr absl::Duration kCalm = absl::Seconds(3);
constexpr absl::Duration kCut = absl::Seconds(16);
constexpr absl::Duration kGone = absl::Seconds(40);
constexpr double kReads = 1000;
constexpr const char* kUser = "/auth/users/mallory";

}  // namespace

absl::Status Revoked(DrillRun& run) {
  run.SetFactor(absl::FDivDuration(kBoundInLife, kBound),
                "30 times as fast as life: the auth bound of 5 min is 10 s here");
  auto started = DrillStore::Start(run, {});
  if (!started.ok()) return started.status();
  DrillStore& store = **started;
  if (absl::Status status = store.Fill(); !status.ok()) return status;
  DrillOracle::History* const history = run.oracle().AddHistory();
  const auto granted = store.admin().Put(kUser, "may enter");
  if (!granted.ok()) return granted.status();
  history->Acked(granted->token.revision, BootNs());

  auto client =
      Client::Open(store.ServiceOptions("gate", {{kAuthPrefix, Policy::FailClosedAfter(kBound)}}));
  if (!client.ok()) return client.status();
  Track* const track = run.timeline().AddTrack("access");
  MirrorReader gate((*client)->mirror(kAuthPrefix), kUser, kReads, track,
                    run.oracle().AddReader(history, "gate"));
  Timeline& timeline = run.timeline();
  timeline.Begin("may enter");
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  const bool entered = gate.there();

  timeline.Begin("revoked; the network was cut just before", true);
  store.SilenceServices();
  const auto revoked = store.admin().Delete(kUser);
  if (!revoked.ok()) return revoked.status();
  const int64_t revoked_ns = BootNs();
  history->Acked(revoked->token.revision, revoked_ns);
  if (absl::Status status = run.Sleep(kCut); !status.ok()) return status;
  const int64_t healed_ns = Timeline::Now();
  const Track::Totals cut = track->Between(revoked_ns, healed_ns);
  const int64_t closed_ns = track->FirstNs(CallOutcome::kRefused, revoked_ns, healed_ns);

  timeline.Begin("the network is back");
  store.HealServices();
  const absl::Status gone = run.Await("the revocation arrives", kGone, [&] {
    return !gate.there() && gate.age_s() >= 0 && gate.age_s() < 2;
  });
  if (absl::IsCancelled(gone)) return gone;
  if (absl::Status status = run.Sleep(kCalm); !status.ok()) return status;
  timeline.End();
  gate.Stop();

  const double bound_s = absl::ToDoubleSeconds(kBound);
  const double access_s = closed_ns > 0 ? double(closed_ns + kSlotNs - revoked_ns) * 1e-9 : -1;
  run.AddGoal("entered before", entered, entered ? "yes" : "no", "yes");
  run.AddGoal("access ends after the revocation",
              closed_ns > 0 && access_s <= bound_s + 2 * double(kSlotNs) * 1e-9,
              closed_ns > 0 ? SecondsText(access_s) : "never",
              fmt::format("<= {:.0f} s, the bound", bound_s));
  run.AddGoal("oldest data that let somebody in", cut.age_s_max <= bound_s,
              SecondsText(cut.age_s_max), fmt::format("<= {:.0f} s", bound_s));
  run.AddGoal("refusals without a type", cut.failed == 0, fmt::format("{}", cut.failed), "0");
  run.AddGoal("revoked for good once the network is back", gone.ok(), gone.ok() ? "yes" : "no",
              "yes");
  run.Judge(true);
  Plot plot = timeline.NewPlot("Drill 9: revoked while the network is cut",
                               "N of FailClosedAfter is how long a revoked user may still enter");
  PlotPanel served;
  served.title = "Checks answered";
  served.y_label = "%";
  served.y_max = 105;
  served.lines.push_back({.name = "access",
                          .color = PlotColor::kGreen,
                          .points = track->ServedPercent(timeline.end_ns())});
  PlotPanel age;
  age.title = "Age of the data";
  age.y_label = "seconds";
  age.lines.push_back({.name = "largest that was served",
                       .color = PlotColor::kGreen,
                       .points = track->AgeMax(timeline.end_ns())});
  age.limits.push_back({bound_s, "closes (5 min of life)"});
  plot.panels = {std::move(served), std::move(age)};
  run.SetPlot(std::move(plot));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
