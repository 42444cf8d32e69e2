// Drill 10: many clients lose the store for a while, and all come back.
//
// The clients are the library's own mirrors (internal::MirrorSet), each with connections, back-off
// and jitter of its own, on a few threads that they share.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "bench/drill_load.h"
#include "bench/drills/all.h"
#include "bench/drills/request_rate.h"
#include "bench/drills/standard.h"
#include "client/claim.h"
#include "client/endpoint.h"
#include "client/machine_clock.h"
#include "client/mirror_set.h"
#include "client/scheduler.h"
#include "client/uplink.h"

namespace holdfast::bench {
namespace {

constexpr uint32_t kClients = 1000;
constexpr absl::Duration kOutageInLife = absl::Minutes(5);
constexpr absl::Duration kOutage = absl::Seconds(40);
constexpr absl::Duration kCalm = absl::Seconds(10);
constexpr absl::Duration kConnect = absl::Seconds(180);
constexpr absl::Duration kReturn = absl::Seconds(120);
constexpr absl::Duration kAfter = absl::Seconds(12);
constexpr double kPeakGoal = 2;
constexpr double kMoment_s = 0.1;
constexpr int kRecords = 20;
constexpr size_t kSchedulers = 2;

// One client's two links, by the times at which they came up and went down.
class Links : public Observer {
 public:
  void OnState(const StateChange& change) override {
    State& state = change.prefix == kAuthPrefix ? auth_ : config_;
    state.live = change.to == Link::kLive;
    if (state.live) {
      state.live_ns = BootNs();
    } else if (change.from == Link::kLive) {
      ++state.lost;
    }
  }

  struct State {
    std::atomic<bool> live{false};
    std::atomic<int64_t> live_ns{0};  // the last time that it became so
    std::atomic<int> lost{0};
  };
  const State& auth() const { return auth_; }
  const State& config() const { return config_; }
  bool live() const { return auth_.live && config_.live; }

 private:
  State auth_, config_;
};

class Run {
 public:
  explicit Run(DrillRun& run) : run_(run) {}
  ~Run() {
    for (const auto& set : sets_) set->Close();
    sets_.clear();
    for (const auto& scheduler : schedulers_) scheduler->Stop();
  }

  absl::Status Play() {
    const uint32_t asked = run_.options().drill.simulated_clients;
    clients_ = asked > 0 ? asked : kClients;
    const absl::Duration length = run_.options().drill.length;
    outage_ = length > absl::ZeroDuration() ? length : kOutage;
    run_.SetFactor(absl::FDivDuration(kOutageInLife, outage_),
                   fmt::format("the outage of 5 min is {} here, long enough for every back-off to "
                               "be at its longest (30 s); nothing of the client is compressed",
                               absl::FormatDuration(outage_)));
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
    for (const char* const prefix : {kConfigPrefix, kAuthPrefix}) {
      if (absl::Status status = store_->FillPrefix(prefix, kRecords, 300); !status.ok()) {
        return status;
      }
    }
    for (size_t i = 0; i < kSchedulers; ++i) {
      schedulers_.push_back(std::make_shared<internal::ThreadScheduler>());
      factories_.push_back(internal::MakeGrpcUplinks(schedulers_.back()));
    }
    for (uint32_t i = 0; i < clients_; ++i) {
      if (absl::Status status = AddClient(i); !status.ok()) return status;
      if (run_.cancelled()) return absl::CancelledError("interrupted");
    }
    const absl::Status live = run_.Await(fmt::format("{} clients are live", clients_), kConnect,
                                         [&] { return Live() == clients_; });
    if (!live.ok()) return live;
    rate_ = std::make_unique<RequestRate>(store_->direct(), &run_.timeline());
    return run_.Sleep(absl::Seconds(2));
  }

  absl::Status AddClient(uint32_t number) {
    internal::MirrorSet::Options options;
    std::vector<std::string> endpoints = store_->direct();
    std::rotate(endpoints.begin(), endpoints.begin() + number % endpoints.size(), endpoints.end());
    for (const std::string& text : endpoints) {
      auto endpoint = internal::ParseEndpoint(text);
      if (!endpoint.ok()) return endpoint.status();
      options.endpoints.push_back(*std::move(endpoint));
    }
    // Defaults, so that nobody waits for the one before.
    options.prefixes = {{kConfigPrefix, Policy::FailStatic()
                                            .MemoryOnly()
                                            .StartupWait(absl::ZeroDuration())
                                            .Defaults({{.key = "/config/default"}})},
                        {kAuthPrefix, Policy::FailClosedAfter(absl::Hours(4))
                                          .MemoryOnly()
                                          .StartupWait(absl::ZeroDuration())
                                          .Defaults({{.key = "/auth/default"}})}};
    options.name = "herd";
    links_.push_back(std::make_shared<Links>());
    options.observer = links_.back();
    options.clock = internal::RealClockPtr();
    options.seed = run_.options().seed + number;
    options.surroundings = internal::SurroundingsOf(nullptr);
    sets_.push_back(std::make_shared<internal::MirrorSet>(
        std::move(options), schedulers_[number % kSchedulers], factories_[number % kSchedulers]));
    return sets_.back()->Open();
  }

  uint32_t Live() const {
    return uint32_t(std::ranges::count_if(links_, [](const auto& one) { return one->live(); }));
  }

  // How many are live, by time, for the figure.
  absl::Status Watch(absl::Duration length, bool until_all_live) {
    const int64_t until_ns = Timeline::Now() + absl::ToInt64Nanoseconds(length);
    while (Timeline::Now() < until_ns) {
      const uint32_t live = Live();
      live_points_.push_back({run_.timeline().Seconds(Timeline::Now()), double(live)});
      if (until_all_live && live == clients_) return absl::OkStatus();
      if (absl::Status status = run_.Sleep(absl::Milliseconds(200)); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Outage() {
    run_.timeline().Begin("all well");
    begin_ns_ = Timeline::Now();
    if (absl::Status status = Watch(kCalm, false); !status.ok()) return status;
    run_.timeline().Begin("every server gone", true);
    fault_ns_ = Timeline::Now();
    store_->KillAll();
    return Watch(outage_, false);
  }

  absl::Status Return() {
    run_.timeline().Begin("back");
    back_ns_ = Timeline::Now();
    if (absl::Status status = store_->BringBack(); !status.ok()) return status;
    if (absl::Status status = Watch(kReturn, true); !status.ok()) return status;
    all_live_ = Live() == clients_;
    live_ns_ = Timeline::Now();
    lost_before_ = Lost();
    run_.timeline().Begin("all live");
    if (absl::Status status = Watch(kAfter, false); !status.ok()) return status;
    run_.timeline().End();
    end_ns_ = Timeline::Now();
    rate_->Stop();
    return absl::OkStatus();
  }

  int Lost() const {
    int lost = 0;
    for (const auto& one : links_) lost += one->auth().lost + one->config().lost;
    return lost;
  }

  void Report() {
    run_.AddGoal("clients", true, fmt::format("{}", clients_),
                 "10,000 by the table; --simulated-clients sets it");
    const double normal = rate_->Mean(begin_ns_ + 1'000'000'000, fault_ns_);
    const double peak = rate_->Peak(back_ns_, end_ns_);
    run_.AddGoal("peak of requests after the return", normal > 0 && peak <= kPeakGoal * normal,
                 fmt::format("{:.0f}/s, {:.2f} x the normal {:.0f}/s", peak, peak / normal, normal),
                 fmt::format("<= {} x", kPeakGoal));
    run_.AddGoal("all live again", all_live_,
                 fmt::format("{} of {} after {}", Live(), clients_,
                             SecondsText(double(live_ns_ - back_ns_) * 1e-9)),
                 fmt::format("within {}", absl::FormatDuration(kReturn)));
    std::vector<double> auth_s, config_s;
    for (const auto& one : links_) {
      auth_s.push_back(double(one->auth().live_ns - back_ns_) * 1e-9);
      config_s.push_back(double(one->config().live_ns - back_ns_) * 1e-9);
    }
    // A client loads two prefixes at once, auth first: they end within moments of each other.
    const double auth_p95 = Percentile(auth_s, 0.95), config_p95 = Percentile(config_s, 0.95);
    run_.AddGoal("auth is live no later than config, of 95 % of the clients",
                 auth_p95 <= config_p95 + kMoment_s,
                 fmt::format("{} and {}; of half of them {} and {}", SecondsText(auth_p95),
                             SecondsText(config_p95), SecondsText(Percentile(auth_s, 0.5)),
                             SecondsText(Percentile(config_s, 0.5))),
                 fmt::format("not by more than {} s", kMoment_s));
    run_.AddGoal("links lost again after that", Lost() == lost_before_,
                 fmt::format("{}", Lost() - lost_before_), "0: no second collapse");
    if (clients_ < 10'000) {
      run_.Note(
          fmt::format("{} clients are what this run had: with the members on the same "
                      "machine, 10,000 send it 20,000 marks a second",
                      clients_));
    }
    Plot plot = run_.timeline().NewPlot(
        fmt::format("Drill 10: {} clients come back", clients_),
        "each reconnects with full jitter of its own; auth is loaded before config");
    PlotPanel live;
    live.title = "Clients whose copies are live";
    live.y_label = "clients";
    live.lines.push_back({.name = "", .color = PlotColor::kBlue, .points = live_points_});
    PlotPanel rate;
    rate.title = "Requests that reach the members";
    rate.y_label = "per second";
    rate.lines.push_back(
        {.name = "", .color = PlotColor::kBlack, .points = rate_->Points(end_ns_)});
    rate.limits.push_back({kPeakGoal * normal, "twice the normal rate"});
    plot.panels = {std::move(live), std::move(rate)};
    run_.SetPlot(std::move(plot));
  }

  DrillRun& run_;
  uint32_t clients_ = 0;
  absl::Duration outage_;
  std::unique_ptr<DrillStore> store_;
  std::vector<std::shared_ptr<internal::ThreadScheduler>> schedulers_;
  std::vector<std::shared_ptr<internal::UplinkFactory>> factories_;
  std::vector<std::shared_ptr<Links>> links_;
  std::vector<std::shared_ptr<internal::MirrorSet>> sets_;
  std::unique_ptr<RequestRate> rate_;
  std::vector<PlotPoint> live_points_;
  int64_t begin_ns_ = 0, fault_ns_ = 0, back_ns_ = 0, live_ns_ = 0, end_ns_ = 0;
  int lost_before_ = 0;
  bool all_live_ = false;
};

}  // namespace

absl::Status Herd(DrillRun& run) { return Run(run).Play(); }

}  // namespace holdfast::bench
