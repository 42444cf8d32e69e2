// Drill 8: bad values, one kind after the other, and what the service makes of each.
#include <fmt/format.h>

#include <signal.h>
#include <sys/wait.h>

#include "bench/drills/all.h"
#include "bench/drills/features.h"
#include "bench/drills/server_view.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kProbation = absl::Seconds(2);
constexpr absl::Duration kHold = absl::Seconds(3);  // each bad value is there for so long
constexpr absl::Duration kSoon = absl::Seconds(15);
constexpr const char* kName = "bot-management";

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run) {}

  absl::Status Play() {
    if (absl::Status status = Prepare(); !status.ok()) return status;
    for (const auto& [name, poison] :
         {std::pair{"unparsable", Poison::kUnparsable}, {"twice as large", Poison::kDoubled}}) {
      if (absl::Status status =
              Refuse(name,
                     [&, poison = poison] {
                       return store_->admin().Put(kFeatureKey, FeatureFile("bad", poison)).status();
                     });
          !status.ok()) {
        return status;
      }
    }
    if (absl::Status status =
            Refuse("all keys deleted",
                   [&] { return store_->admin().DeletePrefix(kFeaturePrefix).status(); });
        !status.ok()) {
      return status;
    }
    if (absl::Status status = Crash(); !status.ok()) return status;
    run_.timeline().End();
    service_->Kill();
    run_.AddGoal("bad values that the service was given to use", service_->report().poisoned <= 1,
                 fmt::format("{}", service_->report().poisoned), "at most the one that crashes it");
    AddPlot();
    return absl::OkStatus();
  }

 private:
  absl::Status PutGood() {
    good_ = fmt::format("v{}", ++version_);
    std::vector<Op> puts = {Op::Put(kFeatureKey, FeatureFile(good_, Poison::kNone))};
    for (int i = 0; i < kBotRules; ++i) {
      puts.push_back(Op::Put(fmt::format("{}rule-{:02}", kFeaturePrefix, i), "allow"));
    }
    const auto put = store_->admin().Commit(Txn().Then(std::move(puts)));
    if (!put.ok()) return put.status();
    const absl::Status served =
        run_.Await("the service obeys " + good_, kSoon, [&] { return Serves(good_); });
    if (!served.ok()) return served;
    return run_.Sleep(kProbation + absl::Seconds(1));
  }

  bool Serves(const std::string& version) {
    return service_->Running() && service_->report().value == version;
  }

  absl::Status Prepare() {
    auto store = DrillStore::Start(run_, {});
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    const auto put = store_->admin().Put(kFeatureKey, FeatureFile("v0", Poison::kNone));
    if (!put.ok()) return put.status();
    ServiceTerms terms;
    terms.role = ServiceRole::kFeatures;
    terms.endpoints = store_->endpoints();
    terms.name = kName;
    terms.disk_dir = store_->Directory("bot");
    terms.prefix = kFeaturePrefix;
    terms.key = kFeatureKey;
    terms.probation = kProbation;
    track_ = run_.timeline().AddTrack("features");
    service_ = std::make_unique<Service>(terms, track_, nullptr);
    run_.timeline().Begin("good");
    if (absl::Status status = service_->Start(); !status.ok()) return status;
    return PutGood();
  }

  absl::Status Refuse(const std::string& name, const std::function<absl::Status()>& poison) {
    run_.timeline().Begin(name, true);
    const uint64_t before = service_->report().rejections;
    const uint64_t given = service_->report().poisoned;
    const int64_t from_ns = Timeline::Now();
    if (absl::Status status = poison(); !status.ok()) return status;
    const absl::Status refused = run_.Await("the service refuses it", kSoon, [&] {
      return service_->report().rejections > before && service_->report().superseded;
    });
    Refusals seen;
    const absl::Status told = run_.Await("the store hears of it", kSoon, [&] {
      seen = RefusalsSeen(store_->direct(), kName, kFeaturePrefix);
      return seen.clients > 0;
    });
    if (absl::Status status = run_.Sleep(kHold); !status.ok()) return status;
    const ServiceReport report = service_->report();
    run_.AddGoal(name + ": refused, the one before is served and says superseded",
                 refused.ok() && Serves(good_) && report.superseded && report.poisoned == given,
                 fmt::format("serves {}{}", report.value, report.superseded ? ", superseded" : ""),
                 fmt::format("serves {}, superseded", good_));
    run_.AddGoal(name + ": the store is told why", told.ok(),
                 seen.why.empty() ? "-" : seen.why.substr(0, 60), "in Mirror.Clients");
    const Track::Totals totals = track_->Between(from_ns, Timeline::Now());
    run_.AddGoal(name + ": reads served", totals.served == totals.offered() && totals.served > 0,
                 ShareText(totals.ServedPercent(), totals.offered()), "100 %");
    run_.timeline().Begin("good");
    return PutGood();
  }

  absl::Status Crash() {
    run_.timeline().Begin("crashes the service", true);
    const auto put = store_->admin().Put(kFeatureKey, FeatureFile("boom", Poison::kCrashing));
    if (!put.ok()) return put.status();
    const absl::Status crashed =
        run_.Await("the service crashes", kSoon, [&] { return !service_->Running(); });
    if (!crashed.ok()) return crashed;
    run_.timeline().Mark("crash");
    const bool aborted = service_->wait_status().has_value() &&
                         WIFSIGNALED(*service_->wait_status()) &&
                         WTERMSIG(*service_->wait_status()) == SIGABRT;
    if (absl::Status status = service_->Start(); !status.ok()) return status;
    const absl::Status back =
        run_.Await("the next start serves what was before", kSoon, [&] { return Serves(good_); });
    if (absl::Status status = run_.Sleep(2 * kHold); !status.ok()) return status;
    run_.AddGoal("one that passes the validator and crashes the service: the next start",
                 aborted && back.ok() && Serves(good_) && service_->starts() == 2,
                 fmt::format("{}, {} starts", service_->report().value, service_->starts()),
                 fmt::format("{}, 2 starts", good_));
    run_.timeline().Begin("good");
    return PutGood();
  }

  void AddPlot() {
    Plot plot = run_.timeline().NewPlot(
        "Drill 8: bad configuration", "each bad value stays for seconds; the one before is served");
    const int64_t end_ns = run_.timeline().end_ns();
    PlotPanel reads;
    reads.title = "Reads served";
    reads.y_label = "per second";
    reads.lines.push_back({.name = "feature file",
                           .color = PlotColor::kBlue,
                           .points = track_->PerSecond(CallOutcome::kServed, end_ns)});
    PlotPanel age;
    age.title = "Age of what was read: it grows while something newer is refused";
    age.y_label = "seconds";
    age.lines.push_back(
        {.name = "largest", .color = PlotColor::kBlue, .points = track_->AgeMax(end_ns)});
    plot.panels = {std::move(reads), std::move(age)};
    run_.SetPlot(std::move(plot));
  }

  DrillRun& run_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<Service> service_;
  Track* track_ = nullptr;
  std::string good_;
  int version_ = 0;
};

}  // namespace

absl::Status BadConfig(DrillRun& run) {
  run.SetFactor(30, "the probation of 60 s is 2 s here");
  return Run(run).Play();
}

}  // namespace holdfast::bench
