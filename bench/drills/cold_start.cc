// Drill 4: the service is killed and started again while every server is gone.
#include <fmt/format.h>

#include <algorithm>

#include "bench/drills/all.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"
#include "client/last_good.h"

namespace holdfast::bench {
namespace {

constexpr int kRecords = 10'000;
constexpr size_t kValueSize = 1024;
constexpr int kRestarts = 3;
constexpr absl::Duration kApart = absl::Seconds(3);
constexpr absl::Duration kOnDisk = absl::Seconds(30);
constexpr absl::Duration kOpenGoal = absl::Milliseconds(100);

// The newest revision in the directory that has passed its probation; 0: none.
uint64_t GoodRevision(const std::string& dir) {
  const auto listing = internal::ListGenerations(dir, internal::Surroundings::OfThisMachine());
  uint64_t newest = 0;
  if (!listing.ok()) return 0;
  for (const internal::GenerationListing& one : *listing) {
    if (one.good && one.health.ok()) newest = std::max(newest, one.info.revision);
  }
  return newest;
}

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run) {}

  absl::Status Play() {
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
    if (absl::Status status = store_->FillPrefix(kConfigPrefix, kRecords, kValueSize);
        !status.ok()) {
      return status;
    }
    const auto put = store_->admin().Put(kConfigKey, "1");
    if (!put.ok()) return put.status();
    history_ = run_.oracle().AddHistory();
    history_->Acked(put->token.revision, BootNs());
    ServiceTerms terms;
    terms.endpoints = store_->endpoints();
    terms.name = "service";
    terms.disk_dir = store_->Directory("service");
    terms.prefix = kConfigPrefix;
    terms.key = kConfigKey;
    terms.probation = absl::Seconds(1);
    terms.reads_per_second = 1000;
    track_ = run_.timeline().AddTrack("config");
    service_ =
        std::make_unique<Service>(terms, track_, run_.oracle().AddReader(history_, "service"));
    run_.timeline().Begin("all well");
    if (absl::Status status = service_->Start(); !status.ok()) return status;
    return run_.Await("a good copy is on disk", kOnDisk, [&] {
      return GoodRevision(store_->Directory("service")) >= put->token.revision;
    });
  }

  absl::Status Outage() {
    if (absl::Status status = run_.Sleep(kApart); !status.ok()) return status;
    run_.timeline().Begin("every server gone", true);
    store_->KillAll();
    gone_ns_ = Timeline::Now();
    for (int i = 0; i < kRestarts; ++i) {
      if (absl::Status status = run_.Sleep(kApart); !status.ok()) return status;
      run_.timeline().Mark("kill -9");
      service_->Kill();
      if (absl::Status status = service_->Start(); !status.ok()) return status;
      const absl::Status reads = run_.Await("the service reads again", absl::Seconds(10), [&] {
        const ServiceReport report = service_->report();
        return report.samples >= 2 || !report.failed.empty();
      });
      if (!reads.ok()) return reads;
      lives_.push_back(service_->report());
      told_ns_.push_back(Timeline::Now());
    }
    return run_.Sleep(kApart);
  }

  absl::Status Return() {
    run_.timeline().Begin("back");
    if (absl::Status status = store_->BringBack(); !status.ok()) return status;
    const absl::Status live = run_.Await("the mirror is live again", absl::Seconds(40), [&] {
      const ServiceReport report = service_->report();
      return report.link == "live" && report.age_s >= 0 && report.age_s < 2;
    });
    if (absl::IsCancelled(live)) return live;
    live_ = live.ok();
    if (absl::Status status = run_.Sleep(kApart); !status.ok()) return status;
    run_.timeline().End();
    service_->Kill();
    return absl::OkStatus();
  }

  void Report() {
    double open_ms = 0, first_ms = 0, margin_s = 1e9;
    bool opened = true, proven = true, from_disk = true;
    for (size_t i = 0; i < lives_.size(); ++i) {
      const ServiceReport& life = lives_[i];
      opened = opened && life.opened;
      open_ms = std::max(open_ms, absl::ToDoubleMilliseconds(life.open_time));
      first_ms = std::max(first_ms, absl::ToDoubleMilliseconds(life.until_read));
      proven = proven && life.proof == "proven";
      from_disk = from_disk && life.source == "disk";
      // The sample is at most two slots old.
      margin_s = std::min(margin_s, life.age_s - double(told_ns_[i] - gone_ns_) * 1e-9 + 0.3);
    }
    const double megabytes = double(kRecords) * double(kValueSize) * 1e-6;
    run_.AddGoal("starts from disk", opened && from_disk,
                 fmt::format("{} of {} starts", opened && from_disk ? kRestarts : 0, kRestarts),
                 "all");
    run_.AddGoal(fmt::format("Client::Open with {:.0f} MB on disk", megabytes),
                 opened && open_ms < absl::ToDoubleMilliseconds(kOpenGoal),
                 fmt::format("{:.0f} ms at most, first read {:.0f} ms after the process's start",
                             open_ms, first_ms),
                 "< 100 ms");
    run_.AddGoal("the age goes on from before the restart", margin_s >= 0,
                 fmt::format("{:.2f} s above the outage's length, or more", margin_s), "not below");
    run_.AddGoal("the age is still proven", proven, proven ? "yes" : "no", "yes");
    run_.AddGoal("live again after the servers' return", live_, live_ ? "yes" : "no", "yes");
    const ServiceReport all = service_->report();
    run_.AddGoal("reads refused or failed", all.refused + all.errors == 0,
                 fmt::format("{} of {}", all.refused + all.errors, all.served), "0");
    run_.Judge();
    Plot plot =
        run_.timeline().NewPlot("Drill 4: the service restarts while every server is gone",
                                fmt::format("{:.0f} MB of configuration from disk", megabytes));
    const int64_t end_ns = run_.timeline().end_ns();
    PlotPanel reads;
    reads.title = "Reads served";
    reads.y_label = "per second";
    reads.lines.push_back({.name = "config",
                           .color = PlotColor::kBlue,
                           .points = track_->PerSecond(CallOutcome::kServed, end_ns)});
    PlotPanel age;
    age.title = "Age of what was read";
    age.y_label = "seconds";
    age.lines.push_back(
        {.name = "largest", .color = PlotColor::kBlue, .points = track_->AgeMax(end_ns)});
    plot.panels = {std::move(reads), std::move(age)};
    run_.SetPlot(std::move(plot));
  }

  DrillRun& run_;
  std::unique_ptr<DrillStore> store_;
  DrillOracle::History* history_ = nullptr;
  Track* track_ = nullptr;
  std::unique_ptr<Service> service_;
  std::vector<ServiceReport> lives_;  // a moment after each restart
  std::vector<int64_t> told_ns_;
  int64_t gone_ns_ = 0;
  bool live_ = false;
};

}  // namespace

absl::Status ColdStart(DrillRun& run) { return Run(run).Play(); }

}  // namespace holdfast::bench
