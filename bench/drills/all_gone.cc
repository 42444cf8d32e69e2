// Drill 3: every server is gone for a while.
#include <fmt/format.h>

#include <algorithm>

#include "bench/drills/all.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kBoundInLife = absl::Minutes(5);
constexpr absl::Duration kBound = absl::Seconds(10);
constexpr absl::Duration kCalm = absl::Seconds(8);
constexpr absl::Duration kOutage = absl::Seconds(40);
constexpr absl::Duration kBack = absl::Seconds(6);
constexpr absl::Duration kLive = absl::Seconds(35);  // attempts are at most 30 s apart
// The back-off grows from 50 ms; connections are counted once it has.
constexpr absl::Duration kSettled = absl::Seconds(20);
constexpr double kConnectsGoal = 1;  // in 10 s

// A service in a process of its own, so that its CPU and its connections are its own too.
struct Use {
  explicit Use(const Service& service)
      : cpu_s(service.report().cpu_s), reads(service.report().served) {}
  double cpu_s = 0;
  uint64_t reads = 0;
  // All that the process does, by what it is there for: a busy machine lets it make fewer reads.
  double MicrosecondsARead(const Use& before) const {
    return (cpu_s - before.cpu_s) * 1e6 / double(std::max<uint64_t>(reads - before.reads, 1));
  }
};

ServiceTerms TermsOf(const DrillStore& store) {
  ServiceTerms terms;
  terms.endpoints = store.endpoints();
  terms.name = "measured";
  terms.disk_dir = store.Directory("measured");
  terms.prefix = kConfigPrefix;
  terms.key = kConfigKey;
  terms.reads_per_second = 2000;
  return terms;
}

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run) {}

  absl::Status Play() {
    const absl::Duration asked = run_.options().drill.length;
    outage_ = asked > absl::ZeroDuration() ? asked : kOutage;
    settle_ = std::min(kSettled, outage_ / 2);
    for (const auto step : {&Run::Prepare, &Run::Outage, &Run::Return}) {
      if (absl::Status status = (this->*step)(); !status.ok()) return status;
    }
    Report();
    return absl::OkStatus();
  }

 private:
  absl::Status Prepare() {
    auto store = DrillStore::Start(run_, {});
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    if (absl::Status status = store_->Fill(); !status.ok()) return status;
    measured_ =
        std::make_unique<Service>(TermsOf(*store_), run_.timeline().AddTrack("measured"), nullptr);
    if (absl::Status status = measured_->Start(); !status.ok()) return status;
    store_->ServicesAre(measured_->pid());
    auto load = StandardLoad::Start(run_, *store_, {.auth_bound = kBound, .service_calls = false});
    if (!load.ok()) return load.status();
    load_ = *std::move(load);
    return run_.Await("the service in its own process reads", absl::Seconds(10),
                      [&] { return measured_->report().samples > 2; });
  }

  absl::Status Outage() {
    run_.timeline().Begin("all well");
    begin_ns_ = Timeline::Now();
    const Use well(*measured_);
    if (absl::Status status = run_.Sleep(kCalm); !status.ok()) return status;
    cpu_before_us_ = Use(*measured_).MicrosecondsARead(well);
    run_.timeline().Begin("every server gone", true);
    fault_ns_ = Timeline::Now();
    store_->KillAll();
    if (absl::Status status = run_.Sleep(settle_); !status.ok()) return status;
    const uint64_t connects = store_->ServiceConnections();
    const Use settled(*measured_);
    if (absl::Status status = run_.Sleep(outage_ - settle_); !status.ok()) return status;
    connects_ = store_->ServiceConnections() - connects;
    cpu_during_us_ = Use(*measured_).MicrosecondsARead(settled);
    return absl::OkStatus();
  }

  absl::Status Return() {
    run_.timeline().Begin("back");
    back_ns_ = Timeline::Now();
    if (absl::Status status = store_->BringBack(); !status.ok()) return status;
    const int64_t leader_ns = Timeline::Now();
    const absl::Status live = run_.Await("the mirrors are live again", kLive, [&] {
      return load_->client().state(kConfigPrefix) == Link::kLive &&
             load_->client().state(kAuthPrefix) == Link::kLive;
    });
    if (absl::IsCancelled(live)) return live;
    live_ = live.ok();
    live_s_ = double(Timeline::Now() - leader_ns) * 1e-9;
    if (absl::Status status = run_.Sleep(kBack); !status.ok()) return status;
    run_.timeline().End();
    end_ns_ = Timeline::Now();
    load_->Stop();
    return absl::OkStatus();
  }

  void Report() {
    load_->WantServed("config served", *load_->config_track, begin_ns_, end_ns_);
    const Track::Totals auth = load_->auth_track->Between(fault_ns_, back_ns_);
    const double bound_s = absl::ToDoubleSeconds(kBound);
    run_.AddGoal("oldest auth data that was served",
                 auth.age_s_max <= bound_s && auth.age_s_max > bound_s - 0.5,
                 SecondsText(auth.age_s_max),
                 fmt::format("{:.1f} to {:.0f} s", bound_s - 0.5, bound_s));
    run_.AddGoal("auth refused after that, typed", auth.refused > 0 && auth.failed == 0,
                 fmt::format("{} refused, {} failed", auth.refused, auth.failed), "none failed");
    const double counted_s = absl::ToDoubleSeconds(outage_ - settle_);
    const double per_10s = double(connects_) / (counted_s / 10);
    run_.AddGoal("connections that a service's client tries", per_10s <= kConnectsGoal,
                 fmt::format("{:.2f} in 10 s ({} in {:.0f} s)", per_10s, connects_, counted_s),
                 fmt::format("<= {} in 10 s", kConnectsGoal));
    run_.AddGoal(
        "CPU of a service that reads 2,000 times a second",
        cpu_during_us_ <= cpu_before_us_ * 1.25 + 1,
        fmt::format("{:.1f} us a read, all in all; {:.1f} before", cpu_during_us_, cpu_before_us_),
        "not more than before");
    run_.AddGoal("live again, after the store has a leader", live_, SecondsText(live_s_),
                 fmt::format("<= {}", absl::FormatDuration(kLive)));
    run_.Judge();
    run_.SetPlot(load_->PlotOf(
        "Drill 3: every server is gone",
        fmt::format("config from memory for as long as it takes; auth closes at {:.0f} s of data "
                    "age (5 min, {:.0f} times as fast as life)",
                    bound_s, run_.factor())));
  }

  DrillRun& run_;
  absl::Duration outage_, settle_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<Service> measured_;
  std::unique_ptr<StandardLoad> load_;
  int64_t begin_ns_ = 0, fault_ns_ = 0, back_ns_ = 0, end_ns_ = 0;
  double cpu_before_us_ = 0, cpu_during_us_ = 0, live_s_ = 0;
  uint64_t connects_ = 0;
  bool live_ = false;
};

}  // namespace

absl::Status AllGone(DrillRun& run) {
  run.SetFactor(absl::FDivDuration(kBoundInLife, kBound),
                "30 times as fast as life: the auth bound of 5 min is 10 s here");
  return Run(run).Play();
}

}  // namespace holdfast::bench
