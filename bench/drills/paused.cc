// Drill 7: a follower, the leader and the client are stopped (SIGSTOP) and go on; then all members
// again and again at random moments, so that many a probe is under way.
#include <fmt/format.h>

#include "base/rng.h"
#include "bench/drills/all.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kPauseInLife = absl::Seconds(30);
constexpr absl::Duration kPause = absl::Seconds(6);
constexpr absl::Duration kCalm = absl::Seconds(4);
constexpr int kShortPauses = 30;

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run) {}

  absl::Status Play() {
    if (absl::Status status = Prepare(); !status.ok()) return status;
    const auto leader = store_->cluster().Leader();
    if (!leader.ok()) return leader.status();
    const int follower = (*leader + 1) % store_->cluster().size();
    for (const auto& [name, member] : {std::pair{"follower", follower}, {"leader", *leader}}) {
      if (absl::Status status = PauseMember(name, member); !status.ok()) return status;
    }
    if (absl::Status status = PauseClient(); !status.ok()) return status;
    if (absl::Status status = PauseAtRandom(); !status.ok()) return status;
    run_.timeline().End();
    load_->Stop();
    service_->Kill();
    run_.Judge(true);
    run_.SetPlot(load_->PlotOf("Drill 7: members and the client are stopped, and go on",
                               "pauses of 30 s in life are 6 s here; ages grow by the pause"));
    return absl::OkStatus();
  }

 private:
  absl::Status Prepare() {
    auto store = DrillStore::Start(run_, {});
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    if (absl::Status status = store_->Fill(); !status.ok()) return status;
    auto load = StandardLoad::Start(run_, *store_,
                                    {.auth_bound = absl::Seconds(60), .service_calls = false});
    if (!load.ok()) return load.status();
    load_ = *std::move(load);
    ServiceTerms terms;
    terms.endpoints = store_->direct();
    terms.name = "paused";
    terms.disk_dir = store_->Directory("paused");
    terms.prefix = kConfigPrefix;
    terms.key = kConfigKey;
    terms.reads_per_second = 1000;
    service_ = std::make_unique<Service>(terms, run_.timeline().AddTrack("child"),
                                         run_.oracle().AddReader(load_->config_history(), "child"));
    return service_->Start();
  }

  absl::Status Fresh() {
    return run_.Await("the copies are fresh again", absl::Seconds(20), [&] {
      return load_->config().age_s() >= 0 && load_->config().age_s() < 2 &&
             service_->report().age_s >= 0 && service_->report().age_s < 2;
    });
  }

  // The service sees only the member that is stopped.
  absl::Status PauseMember(const std::string& name, int member) {
    run_.timeline().Begin("all well");
    for (int i = 0; i < store_->cluster().size(); ++i) {
      if (i != member) store_->CutServicesFrom(i);
    }
    if (absl::Status status = run_.Sleep(kCalm); !status.ok()) return status;
    if (absl::Status status = Fresh(); !status.ok()) return status;
    run_.timeline().Begin(name + " stopped", true);
    const int64_t from_ns = Timeline::Now();
    if (absl::Status status = store_->cluster().Pause(member); !status.ok()) return status;
    if (absl::Status status = run_.Sleep(kPause); !status.ok()) return status;
    const int64_t to_ns = Timeline::Now();
    if (absl::Status status = store_->cluster().Resume(member); !status.ok()) return status;
    run_.timeline().Begin("goes on");
    store_->HealServices();
    if (absl::Status status = store_->cluster().WaitForLeader(absl::Seconds(30)); !status.ok()) {
      return status;
    }
    if (absl::Status status = Fresh(); !status.ok()) return status;
    const Track::Totals totals = load_->config_track->Between(from_ns, to_ns);
    const double pause_s = absl::ToDoubleSeconds(kPause);
    run_.AddGoal(fmt::format("{} stopped: largest age told", name),
                 totals.age_s_max >= pause_s - 0.3, SecondsText(totals.age_s_max),
                 fmt::format(">= {:.0f} s, the pause", pause_s));
    run_.AddGoal(fmt::format("{} stopped: config served", name),
                 totals.served == totals.offered() && totals.offered() > 0,
                 ShareText(totals.ServedPercent(), totals.offered()), "100 %");
    return absl::OkStatus();
  }

  absl::Status PauseClient() {
    run_.timeline().Begin("client stopped", true);
    service_->Pause();
    const uint64_t samples = service_->report().samples;
    if (absl::Status status = run_.Sleep(kPause); !status.ok()) return status;
    service_->Resume();
    const absl::Status told = run_.Await("the client goes on", absl::Seconds(10),
                                         [&] { return service_->report().samples > samples; });
    if (!told.ok()) return told;
    const double age_s = service_->report().age_s;
    run_.AddGoal("client stopped: the first age it tells", age_s >= absl::ToDoubleSeconds(kPause),
                 SecondsText(age_s),
                 fmt::format(">= {:.0f} s, the pause", absl::ToDoubleSeconds(kPause)));
    run_.timeline().Begin("goes on");
    return Fresh();
  }

  // Probes are under way at nearly all times: most of these stops are between one and its answer.
  absl::Status PauseAtRandom() {
    base::Rng rng(run_.options().seed);
    run_.timeline().Begin("short stops at random", true);
    for (int i = 0; i < kShortPauses; ++i) {
      const int member = int(rng.Below(uint64_t(store_->cluster().size())));
      if (absl::Status status = store_->cluster().Pause(member); !status.ok()) return status;
      const auto pause = absl::Milliseconds(20 + int64_t(rng.Below(400)));
      const absl::Status slept = run_.Sleep(pause);
      if (absl::Status status = store_->cluster().Resume(member); !status.ok()) return status;
      if (!slept.ok()) return slept;
      if (absl::Status status = run_.Sleep(absl::Milliseconds(int64_t(rng.Below(200))));
          !status.ok()) {
        return status;
      }
    }
    run_.timeline().Begin("all well");
    if (absl::Status status = Fresh(); !status.ok()) return status;
    run_.AddGoal("short stops of members at random moments", true, fmt::format("{}", kShortPauses),
                 "the oracle has them all");
    return run_.Sleep(kCalm);
  }

  DrillRun& run_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<StandardLoad> load_;
  std::unique_ptr<Service> service_;
};

}  // namespace

absl::Status Paused(DrillRun& run) {
  run.SetFactor(absl::FDivDuration(kPauseInLife, kPause), "pauses of 30 s are 6 s here");
  return Run(run).Play();
}

}  // namespace holdfast::bench
