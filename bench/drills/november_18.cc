// Replay: 18 November 2025. Every five minutes a feature file is pushed everywhere, now good, now
// poisoned, by a store that is healthy all the time.
#include <fmt/format.h>

#include <algorithm>

#include "bench/drills/all.h"
#include "bench/drills/etcd_reader.h"
#include "bench/drills/features.h"
#include "bench/drills/server_view.h"
#include "bench/drills/service.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kPeriodInLife = absl::Minutes(5);
constexpr absl::Duration kPeriod = absl::Seconds(4);
constexpr absl::Duration kProbationInLife = absl::Seconds(60);
constexpr absl::Duration kRestartPause = absl::Seconds(1);  // a supervisor's; not compressed
constexpr absl::Duration kLook = absl::Milliseconds(100);
constexpr int64_t kUpWindowNs = 500'000'000;
constexpr int kServices = 2;
constexpr const char* kName = "bot-management";

struct Push {
  const char* label;
  Poison poison;
  bool deletes;
};
// Each is followed by a good one. The one that crashes its consumer comes once.
constexpr Push kPushes[] = {
    {"twice the size", Poison::kDoubled, false}, {"unparsable", Poison::kUnparsable, false},
    {"all deleted", Poison::kNone, true},        {"crashes", Poison::kCrashing, false},
    {"twice the size", Poison::kDoubled, false}, {"unparsable", Poison::kUnparsable, false},
    {"all deleted", Poison::kNone, true}};

class Replay {
 public:
  explicit Replay(DrillRun& run) : run_(run) {}

  absl::Status Play() {
    period_ = kPeriod;
    if (run_.options().drill.length > absl::ZeroDuration()) {
      period_ = run_.options().drill.length / int(2 * std::size(kPushes));
    }
    run_.SetFactor(
        absl::FDivDuration(kPeriodInLife, period_),
        fmt::format("{:.0f} times as fast as life: a push every {} in place of 5 min; "
                    "the probation of 60 s is {}",
                    absl::FDivDuration(kPeriodInLife, period_), absl::FormatDuration(period_),
                    absl::FormatDuration(absl::Trunc(Probation(), absl::Milliseconds(1)))));
    if (absl::Status status = Start(); !status.ok()) return status;
    for (const Push& push : kPushes) {
      if (absl::Status status = PushBad(push); !status.ok()) return status;
      if (absl::Status status = PushGood(); !status.ok()) return status;
    }
    run_.timeline().End();
    end_ns_ = Timeline::Now();
    for (auto* const side : {&own_, &plain_}) {
      for (const auto& service : side->services) service->Kill();
    }
    Report();
    return absl::OkStatus();
  }

 private:
  struct Side {
    std::vector<std::unique_ptr<Service>> services;
    std::vector<Track*> tracks;
  };

  absl::Duration Probation() const {
    return kProbationInLife / absl::FDivDuration(kPeriodInLife, period_);
  }

  absl::Status Start() {
    auto store = DrillStore::Start(run_, {});
    if (!store.ok()) return store.status();
    store_ = *std::move(store);
    if (run_.options().drill.beside_etcd) {
      auto etcd = DrillStore::Start(run_, {.etcd = true});
      if (absl::IsInvalidArgument(etcd.status())) {
        run_.Note("no etcd here: its columns are left out");
      } else if (!etcd.ok()) {
        return etcd.status();
      } else {
        etcd_store_ = *std::move(etcd);
        etcd_ = std::make_unique<EtcdReader>(etcd_store_->direct());
      }
    }
    if (absl::Status status = WriteGood(); !status.ok()) return status;
    for (int i = 0; i < kServices; ++i) {
      if (absl::Status status = AddService(own_, ServiceRole::kFeatures, *store_, i);
          !status.ok()) {
        return status;
      }
      if (etcd_ == nullptr) continue;
      if (absl::Status status = AddService(plain_, ServiceRole::kPlain, *etcd_store_, i);
          !status.ok()) {
        return status;
      }
    }
    const absl::Status served = run_.Await("all services serve", absl::Seconds(20), [&] {
      return std::ranges::all_of(own_.services,
                                 [&](const auto& one) { return one->report().value == good_; });
    });
    if (!served.ok()) return served;
    run_.timeline().Begin("good");
    begin_ns_ = Timeline::Now();
    return Tend(period_);
  }

  absl::Status AddService(Side& side, ServiceRole role, const DrillStore& store, int number) {
    ServiceTerms terms;
    terms.role = role;
    terms.endpoints = store.direct();
    terms.name = kName;
    terms.disk_dir = store_->Directory(fmt::format("bot-{}", number));
    terms.prefix = kFeaturePrefix;
    terms.key = kFeatureKey;
    terms.probation = Probation();
    side.tracks.push_back(run_.timeline().AddTrack(terms.name));
    side.services.push_back(std::make_unique<Service>(terms, side.tracks.back(), nullptr));
    return side.services.back()->Start();
  }

  // What a supervisor does, for so long; and what the store is told meanwhile.
  absl::Status Tend(absl::Duration length) {
    const int64_t until_ns = Timeline::Now() + absl::ToInt64Nanoseconds(length);
    int64_t asked_ns = 0;
    while (Timeline::Now() < until_ns) {
      for (auto* const side : {&own_, &plain_}) {
        for (const auto& service : side->services) {
          if (absl::Status status = service->Tend(kRestartPause); !status.ok()) return status;
        }
      }
      if (Timeline::Now() - asked_ns > 1'000'000'000) {
        asked_ns = Timeline::Now();
        const Refusals refusals = RefusalsSeen(store_->direct(), kName, kFeaturePrefix);
        refusing_ = std::max(refusing_, refusals.clients);
        if (refusals.clients > 0) why_ = refusals.why;
      }
      if (absl::Status status = run_.Sleep(kLook); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status WriteGood() {
    good_ = fmt::format("v{}", ++version_);
    const std::string file = FeatureFile(good_, Poison::kNone);
    std::vector<Op> puts = {Op::Put(kFeatureKey, file)};
    for (int i = 0; i < kBotRules; ++i) {
      puts.push_back(Op::Put(fmt::format("{}rule-{:02}", kFeaturePrefix, i), "allow"));
    }
    const auto put = store_->admin().Commit(Txn().Then(std::move(puts)));
    if (!put.ok()) return put.status();
    return etcd_ == nullptr ? absl::OkStatus() : etcd_->Put(kFeatureKey, file);
  }

  absl::Status PushGood() {
    run_.timeline().Begin("");
    if (absl::Status status = WriteGood(); !status.ok()) return status;
    return Tend(period_);
  }

  absl::Status PushBad(const Push& push) {
    run_.timeline().Begin(push.label, true);
    run_.Say(fmt::format("push: {}", push.label));
    refusing_ = 0;
    const int restarts_before = Restarts(own_);
    const uint64_t given_before = Poisoned(own_);
    if (push.deletes) {
      const auto gone = store_->admin().DeletePrefix(kFeaturePrefix);
      if (!gone.ok()) return gone.status();
      // A plain consumer reads "no such key" as an empty file.
      if (etcd_ != nullptr) {
        if (absl::Status status = etcd_->Put(kFeatureKey, ""); !status.ok()) return status;
      }
    } else {
      const std::string file = FeatureFile(fmt::format("{}", ++bad_), push.poison);
      const auto put = store_->admin().Put(kFeatureKey, file);
      if (!put.ok()) return put.status();
      if (etcd_ != nullptr) {
        if (absl::Status status = etcd_->Put(kFeatureKey, file); !status.ok()) return status;
      }
    }
    if (absl::Status status = Tend(period_); !status.ok()) return status;
    const bool serving = std::ranges::all_of(own_.services, [&](const auto& one) {
      return one->Running() && one->report().value == good_;
    });
    rows_.push_back({push.label, serving ? "the good one before" : "SOMETHING ELSE",
                     fmt::format("{}", Poisoned(own_) - given_before),
                     fmt::format("{}", Restarts(own_) - restarts_before),
                     fmt::format("{} of {}", refusing_, kServices)});
    all_serve_ = all_serve_ && serving;
    if (push.poison != Poison::kCrashing) {
      told_ = told_ && refusing_ == kServices;
      accepted_ += Poisoned(own_) - given_before;
    }
    return absl::OkStatus();
  }

  static int Restarts(const Side& side) {
    int restarts = 0;
    for (const auto& service : side.services) restarts += service->starts() - 1;
    return restarts;
  }
  static int MostRestarts(const Side& side) {
    int most = 0;
    for (const auto& service : side.services) most = std::max(most, service->starts() - 1);
    return most;
  }
  static uint64_t Poisoned(const Side& side) {
    uint64_t poisoned = 0;
    for (const auto& service : side.services) poisoned += service->report().poisoned;
    return poisoned;
  }

  // Share of the services that answered something in each half second.
  std::vector<PlotPoint> Up(const Side& side) const {
    std::vector<PlotPoint> points;
    for (int64_t at_ns = begin_ns_; at_ns + kUpWindowNs <= end_ns_; at_ns += kUpWindowNs) {
      int up = 0;
      for (const Track* track : side.tracks) {
        up += track->Between(at_ns, at_ns + kUpWindowNs).served > 0 ? 1 : 0;
      }
      points.push_back({run_.timeline().Seconds(at_ns + kUpWindowNs / 2),
                        100.0 * up / double(side.tracks.size())});
    }
    return points;
  }
  static double MeanOf(const std::vector<PlotPoint>& points) {
    double sum = 0;
    for (const PlotPoint& point : points) sum += point.y;
    return points.empty() ? 0 : sum / double(points.size());
  }

  void Report() {
    run_.AddGoal("poisoned files accepted that a validator or guard can tell", accepted_ == 0,
                 fmt::format("{}", accepted_), "0");
    run_.AddGoal("restarts of a service, at most", MostRestarts(own_) <= 1,
                 fmt::format("{}", MostRestarts(own_)), "<= 1, by the file that crashes it");
    run_.AddGoal("the good file before it served through each push", all_serve_,
                 all_serve_ ? "yes" : "no", "yes");
    run_.AddGoal("refusals that the store knew of (Mirror.Clients)", told_,
                 fmt::format("{}{}", told_ ? "of every service" : "not of all",
                             why_.empty() ? "" : "; \"" + why_.substr(0, 60) + "\""),
                 "of every service");
    const double up = MeanOf(Up(own_));
    run_.AddGoal("time in which a service answered", up > 95, fmt::format("{:.1f} %", up),
                 "> 95 %");
    DrillTable table;
    table.title = fmt::format("{} services with the client, by push", kServices);
    table.columns = {"push", "served at its end", "bad files used", "restarts", "refusals known"};
    table.rows = rows_;
    run_.AddTable(std::move(table));
    if (etcd_ != nullptr) {
      DrillTable both;
      both.title = "both sides, over all pushes";
      both.columns = {"", "answering", "restarts", "bad files used"};
      both.rows = {{"with the Holdfast client", fmt::format("{:.1f} %", up),
                    fmt::format("{}", Restarts(own_)), fmt::format("{}", Poisoned(own_))},
                   {"plain etcd client", fmt::format("{:.1f} %", MeanOf(Up(plain_))),
                    fmt::format("{}", Restarts(plain_)), fmt::format("{}", Poisoned(plain_))}};
      run_.AddTable(std::move(both));
    }
    AddPlot();
  }

  void AddPlot() {
    Plot plot = run_.timeline().NewPlot(
        "18 November 2025, replayed: a poisoned file, pushed every five minutes",
        fmt::format("{:.0f} times as fast as life; a healthy store, and {} consumers on each side; "
                    "crashed ones are restarted after 1 s",
                    run_.factor(), kServices));
    PlotPanel own;
    own.title = "With the Holdfast client: services that answer";
    own.y_label = "%";
    own.y_max = 105;
    own.lines.push_back({.name = "", .color = PlotColor::kBlue, .width = 2.2, .points = Up(own_)});
    plot.panels.push_back(std::move(own));
    if (etcd_ != nullptr) {
      PlotPanel other;
      other.title = "Plain etcd client: services that answer";
      other.y_label = "%";
      other.y_max = 105;
      other.lines.push_back(
          {.name = "", .color = PlotColor::kRed, .width = 2.2, .points = Up(plain_)});
      plot.panels.push_back(std::move(other));
    }
    PlotPanel age;
    age.title = "With the Holdfast client: age told of the file in use";
    age.y_label = "minutes of life";
    age.height = 0.8;
    std::vector<const Track*> tracks(own_.tracks.begin(), own_.tracks.end());
    auto points = Track::AgeMax(tracks, end_ns_);
    for (PlotPoint& point : points) point.y *= run_.factor() / 60;
    age.lines.push_back(
        {.name = "largest", .color = PlotColor::kBlue, .points = std::move(points)});
    plot.panels.push_back(std::move(age));
    run_.SetPlot(std::move(plot));
  }

  DrillRun& run_;
  absl::Duration period_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<DrillStore> etcd_store_;
  std::unique_ptr<EtcdReader> etcd_;
  Side own_, plain_;
  std::string good_;
  int version_ = 0, bad_ = 0, refusing_ = 0;
  std::string why_;
  uint64_t accepted_ = 0;
  bool all_serve_ = true, told_ = true;
  std::vector<std::vector<std::string>> rows_;
  int64_t begin_ns_ = 0, end_ns_ = 0;
};

}  // namespace

absl::Status November18(DrillRun& run) { return Replay(run).Play(); }

}  // namespace holdfast::bench
