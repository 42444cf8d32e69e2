// Replay: 12 June 2025. A store without quorum, then gone, for what was 2 h 36 min; beside it, the
// same reads of plain clients on etcd.
#include "bench/drills/june_12.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "bench/drills/all.h"
#include "bench/drills/june_12_etcd.h"
#include "bench/drills/request_rate.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kOutageInLife = absl::Minutes(156);
constexpr absl::Duration kOutage = absl::Seconds(52);
constexpr absl::Duration kCalm = absl::Seconds(8);
constexpr absl::Duration kBack = absl::Seconds(12);
constexpr absl::Duration kIdentityBound = absl::Hours(4);
constexpr absl::Duration kIdentityReduced = absl::Minutes(5);
constexpr absl::Duration kSessionBound = absl::Hours(1);
constexpr absl::Duration kLiveLimit = absl::Seconds(35);  // attempts are at most 30 s apart
// From then on a client knows that there is no quorum: RetryPolicy::quorum_patience and the calls
// under way.
constexpr absl::Duration kKnown = absl::Seconds(6);
constexpr size_t kProcesses = 6;      // clients, each with all the copies
constexpr double kMirrorReads = 500;  // a second and product
constexpr double kCalls = 10;         // a second and product, of what goes to the store
constexpr double kWrites = 20;
constexpr absl::Duration kRegistrationDeadline = absl::Seconds(2);
constexpr double kAtOnce_s = 1;
constexpr double kHerdGoal = 2;

// One run of it. Threads: one.
class Replay {
 public:
  explicit Replay(DrillRun& run) : run_(run) {}

  absl::Status Play();

 private:
  absl::Status StartStore();
  absl::Status StartClients();
  bool AllLive() const;
  void StartProduct(size_t number);
  absl::Status Outage();
  absl::Status Return();
  void StopAll();
  void Report();
  void ReportClass(const std::string& what, Need need, bool refusals);
  void ReportWrites();
  void ReportReturn();
  void AddTable();
  void AddPlot();
  Track::Totals During(Need need) const;
  std::vector<const Track*> TracksOf(Need need) const;

  DrillRun& run_;
  absl::Duration outage_;
  std::unique_ptr<DrillStore> store_;
  std::unique_ptr<EtcdTown> etcd_;
  std::unique_ptr<RequestRate> rate_;
  std::unique_ptr<Client> writers_client_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::map<Need, DrillOracle::History*> histories_;
  std::vector<Track*> tracks_;  // by product
  std::vector<std::unique_ptr<Writer>> writers_;
  std::vector<std::unique_ptr<Writer>> registrations_;
  std::vector<std::unique_ptr<MirrorReader>> readers_;
  std::vector<std::unique_ptr<Caller>> callers_;
  int64_t begin_ns_ = 0, fault_ns_ = 0, gone_ns_ = 0, back_ns_ = 0, end_ns_ = 0;
  double live_s_ = -1;
};

absl::Status Replay::Play() {
  const absl::Duration asked = run_.options().drill.length;
  outage_ = asked > absl::ZeroDuration() ? asked : kOutage;
  run_.SetFactor(
      absl::FDivDuration(kOutageInLife, outage_),
      fmt::format(
          "{:.0f} times as fast as life: 2 h 36 min of outage in {}, identity is "
          "marked after {:.2f} s (5 min) and would close after {:.1f} s (4 h), "
          "sessions close after {:.1f} s (1 h)",
          absl::FDivDuration(kOutageInLife, outage_), absl::FormatDuration(outage_),
          absl::ToDoubleSeconds(outage_) * absl::FDivDuration(kIdentityReduced, kOutageInLife),
          absl::ToDoubleSeconds(outage_) * absl::FDivDuration(kIdentityBound, kOutageInLife),
          absl::ToDoubleSeconds(outage_) * absl::FDivDuration(kSessionBound, kOutageInLife)));
  for (const auto step :
       {&Replay::StartStore, &Replay::StartClients, &Replay::Outage, &Replay::Return}) {
    if (absl::Status status = (this->*step)(); !status.ok()) return status;
  }
  StopAll();
  Report();
  return absl::OkStatus();
}

absl::Status Replay::StartStore() {
  auto store = DrillStore::Start(run_, {});
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  if (absl::Status status = store_->Fill(); !status.ok()) return status;
  for (const char* const prefix : {kSessionPrefix, kTokenPrefix}) {
    if (absl::Status status = store_->FillPrefix(prefix, 50, 300); !status.ok()) return status;
    const auto put = store_->admin().Put(std::string(prefix) + "1", "1");
    if (!put.ok()) return put.status();
  }
  if (!run_.options().drill.beside_etcd) return absl::OkStatus();
  auto etcd = EtcdTown::Start(run_, kCalls);
  if (absl::IsInvalidArgument(etcd.status())) {
    run_.Note("no etcd here: its columns are left out");
    return absl::OkStatus();
  }
  if (!etcd.ok()) return etcd.status();
  etcd_ = *std::move(etcd);
  return absl::OkStatus();
}

absl::Status Replay::StartClients() {
  auto writers = Client::Open({.endpoints = store_->direct(), .seed = run_.options().seed + 1});
  if (!writers.ok()) return writers.status();
  writers_client_ = *std::move(writers);
  for (const auto& [need, key] : {std::pair{Need::kConfig, std::string(kConfigKey)},
                                  {Need::kIdentity, std::string(kAuthKey)},
                                  {Need::kSession, std::string(kSessionPrefix) + "1"}}) {
    histories_[need] = run_.oracle().AddHistory();
    writers_.push_back(std::make_unique<Writer>(
        writers_client_.get(), key, kWrites, run_.timeline().AddTrack("writer"), histories_[need]));
  }
  for (size_t i = 0; i < kProcesses; ++i) {
    ClientOptions options = store_->ServiceOptions(
        fmt::format("process-{}", i),
        {{kConfigPrefix, Policy::FailStatic()},
         {kAuthPrefix, Policy::FailClosedAfter(run_.Played(kIdentityBound))
                           .ReducedAfter(run_.Played(kIdentityReduced))},
         {kSessionPrefix, Policy::FailClosedAfter(run_.Played(kSessionBound))},
         {kTokenPrefix, Policy::NeverStale()}});
    options.seed = run_.options().seed + 10 + i;
    auto client = Client::Open(std::move(options));
    if (!client.ok()) return client.status();
    clients_.push_back(*std::move(client));
  }
  const absl::Status live =
      run_.Await("all copies are live", kLiveLimit, [&] { return AllLive(); });
  if (!live.ok()) return live;
  rate_ = std::make_unique<RequestRate>(store_->direct(), &run_.timeline());
  for (size_t i = 0; i < ProductsOfJune12().size(); ++i) StartProduct(i);
  return absl::OkStatus();
}

bool Replay::AllLive() const {
  return std::ranges::all_of(clients_, [](const auto& client) {
    return client->state(kConfigPrefix) == Link::kLive &&
           client->state(kAuthPrefix) == Link::kLive &&
           client->state(kSessionPrefix) == Link::kLive;
  });
}

void Replay::StartProduct(size_t number) {
  const Product& product = ProductsOfJune12()[number];
  Client* const client = clients_[number % clients_.size()].get();
  Track* const track = run_.timeline().AddTrack(product.name);
  tracks_.push_back(track);
  const auto mirror = [&](const char* prefix, const std::string& key) {
    readers_.push_back(std::make_unique<MirrorReader>(
        client->mirror(prefix), key, kMirrorReads, track,
        run_.oracle().AddReader(histories_.at(product.need), product.name)));
  };
  switch (product.need) {
    case Need::kConfig:
      return mirror(kConfigPrefix, kConfigKey);
    case Need::kIdentity:
      return mirror(kAuthPrefix, kAuthKey);
    case Need::kSession:
      return mirror(kSessionPrefix, std::string(kSessionPrefix) + "1");
    case Need::kToken:
      // Asked for with the loosest ladder there is: the policy must not give in to it.
      callers_.push_back(std::make_unique<Caller>(kCalls, track, [client](int64_t) {
        return client
            ->Get(std::string(kTokenPrefix) + "1",
                  ReadOptions::Linearizable().OrStale(absl::InfiniteDuration()))
            .status();
      }));
      return;
    case Need::kRegistration:
      registrations_.push_back(
          std::make_unique<Writer>(client, fmt::format("/registrations/{}", number), kCalls, track,
                                   nullptr, kRegistrationDeadline));
      return;
  }
}

absl::Status Replay::Outage() {
  Timeline& timeline = run_.timeline();
  timeline.Begin("all well");
  begin_ns_ = Timeline::Now();
  if (absl::Status status = run_.Sleep(std::min(kCalm, outage_)); !status.ok()) return status;
  timeline.Begin("no quorum", true);
  if (absl::Status status = store_->KillTwo(); !status.ok()) return status;
  if (etcd_ != nullptr) {
    if (absl::Status status = etcd_->store().KillTwo(); !status.ok()) return status;
  }
  fault_ns_ = Timeline::Now();
  if (absl::Status status = run_.Sleep(outage_ / 3); !status.ok()) return status;
  timeline.Begin("every server gone", true);
  store_->KillAll();
  if (etcd_ != nullptr) etcd_->store().KillAll();
  gone_ns_ = Timeline::Now();
  if (absl::Status status = run_.Sleep(outage_ * 2 / 3); !status.ok()) return status;
  timeline.Begin("back");
  back_ns_ = Timeline::Now();
  return absl::OkStatus();
}

absl::Status Replay::Return() {
  if (absl::Status status = store_->BringBack(); !status.ok()) return status;
  if (etcd_ != nullptr) {
    if (absl::Status status = etcd_->store().BringBack(); !status.ok()) return status;
  }
  const int64_t leader_ns = Timeline::Now();
  const absl::Status live =
      run_.Await("all copies are live again", kLiveLimit, [&] { return AllLive(); });
  if (absl::IsCancelled(live)) return live;
  if (live.ok()) live_s_ = double(Timeline::Now() - leader_ns) * 1e-9;
  if (absl::Status status = run_.Sleep(std::min(kBack, outage_)); !status.ok()) return status;
  run_.timeline().End();
  end_ns_ = Timeline::Now();
  return absl::OkStatus();
}

void Replay::StopAll() {
  for (const auto& writer : writers_) writer->Stop();
  for (const auto& writer : registrations_) writer->Stop();
  for (const auto& reader : readers_) reader->Stop();
  for (const auto& caller : callers_) caller->Stop();
  if (etcd_ != nullptr) etcd_->Stop();
  rate_->Stop();
}

std::vector<const Track*> Replay::TracksOf(Need need) const {
  std::vector<const Track*> tracks;
  for (size_t i = 0; i < tracks_.size(); ++i) {
    if (ProductsOfJune12()[i].need == need) tracks.push_back(tracks_[i]);
  }
  return tracks;
}

Track::Totals Replay::During(Need need) const {
  Track::Totals sum;
  for (const Track* track : TracksOf(need)) {
    const Track::Totals one = track->Between(fault_ns_, back_ns_);
    sum.served += one.served;
    sum.reduced += one.reduced;
    sum.refused += one.refused;
    sum.failed += one.failed;
    sum.age_s_max = std::max(sum.age_s_max, one.age_s_max);
  }
  return sum;
}

void Replay::ReportClass(const std::string& what, Need need, bool refusals) {
  const Track::Totals totals = During(need);
  const uint64_t right = refusals ? totals.refused : totals.served;
  run_.AddGoal(
      what, totals.offered() > 0 && right == totals.offered(),
      ShareText(refusals ? totals.RefusedPercent() : totals.ServedPercent(), totals.offered()),
      "100 %");
}

void Replay::ReportWrites() {
  const Track::Totals totals = During(Need::kRegistration);
  run_.AddGoal("registrations taken in the outage", totals.served == 0,
               fmt::format("{}", totals.served), "0");
  uint64_t untyped = 0, unknown = 0;
  std::vector<Caller::Made> known;
  const int64_t known_ns = fault_ns_ + absl::ToInt64Nanoseconds(kKnown);
  for (const auto& writer : registrations_) {
    for (const Caller::Made& call : writer->caller().Between(fault_ns_, back_ns_)) {
      if (call.code == absl::StatusCode::kUnknown) ++unknown;
      if (call.outcome == CallOutcome::kFailed && call.code != absl::StatusCode::kUnknown)
        ++untyped;
      if (call.at_ns >= known_ns) known.push_back(call);
    }
  }
  run_.AddGoal("registrations that failed without a type", untyped == 0,
               fmt::format("{}; {} of unknown outcome, and said so", untyped, unknown), "0");
  const double slowest_s = LongestSeconds(known, CallOutcome::kRefused);
  run_.AddGoal("slowest refusal of a registration", !known.empty() && slowest_s < kAtOnce_s,
               SecondsText(slowest_s), fmt::format("< {} s", kAtOnce_s));
}

void Replay::ReportReturn() {
  run_.AddGoal("all copies live again, after the store has a leader", live_s_ >= 0,
               live_s_ < 0 ? "not in time" : SecondsText(live_s_),
               fmt::format("<= {}", absl::FormatDuration(kLiveLimit)));
  const double normal = rate_->Mean(begin_ns_ + 2'000'000'000, fault_ns_);
  const double peak = rate_->Peak(back_ns_, end_ns_);
  run_.AddGoal("peak of requests after the return", normal > 0 && peak <= kHerdGoal * normal,
               fmt::format("{:.0f}/s, {:.2f} x the normal {:.0f}/s", peak, peak / normal, normal),
               fmt::format("<= {} x", kHerdGoal));
  uint64_t unproven = 0;
  for (const auto& reader : readers_) unproven += reader->unproven();
  run_.AddGoal("answers from copies without a proven age", unproven == 0,
               fmt::format("{}", unproven), "0");
}

void Replay::Report() {
  ReportClass("config reads served in the outage", Need::kConfig, false);
  ReportClass("identity reads served in the outage", Need::kIdentity, false);
  const Track::Totals sessions = During(Need::kSession);
  const double session_s = absl::ToDoubleSeconds(run_.Played(kSessionBound));
  run_.AddGoal("oldest session data served",
               sessions.age_s_max <= session_s && sessions.failed == 0,
               fmt::format("{}; {:.0f} % served, then refused with a type",
                           SecondsText(sessions.age_s_max), sessions.ServedPercent()),
               fmt::format("<= {:.1f} s", session_s));
  ReportClass("single-use tokens refused in the outage, with a type", Need::kToken, true);
  ReportWrites();
  ReportReturn();
  run_.Judge();
  AddTable();
  AddPlot();
}

void Replay::AddTable() {
  const auto percent = [](double value) {
    return value == 0 ? std::string("-") : fmt::format("{:.1f} %", value);
  };
  DrillTable table;
  table.title = "in the outage, of each product's calls";
  table.columns = {"product", "needs", "Holdfast served", "refused", "failed or unknown"};
  if (etcd_ != nullptr) {
    table.columns.insert(table.columns.end(), {"etcd linearizable served", "failed",
                                               "serializable served, age unknown", "failed"});
  }
  for (size_t i = 0; i < tracks_.size(); ++i) {
    const Product& product = ProductsOfJune12()[i];
    const Track::Totals own = tracks_[i]->Between(fault_ns_, back_ns_);
    std::vector<std::string> row = {product.name, NeedText(product.need),
                                    percent(own.ServedPercent()), percent(own.RefusedPercent()),
                                    percent(own.FailedPercent())};
    if (etcd_ != nullptr) {
      for (const Track* track : {&etcd_->linearizable(i), &etcd_->serializable(i)}) {
        const Track::Totals other = track->Between(fault_ns_, back_ns_);
        row.push_back(
            percent(other.ServedPercent()) +
            (product.need == Need::kToken && track == &etcd_->serializable(i) ? " stale!" : ""));
        row.push_back(percent(other.FailedPercent()));
      }
    }
    table.rows.push_back(std::move(row));
  }
  run_.AddTable(std::move(table));
}

void Replay::AddPlot() {
  Plot plot = run_.timeline().NewPlot(
      "12 June 2025, replayed: 2 h 36 min without a store",
      fmt::format("{:.0f} times as fast as life; identity may be 4 h old (marked after 5 min), "
                  "sessions 1 h, tokens never",
                  run_.factor()));
  PlotPanel own = {.title = "Holdfast client: served", .y_label = "% of calls"};
  own.y_max = 105;
  const auto add = [&](const char* name, Need need, PlotColor color, PlotDash dash) {
    own.lines.push_back({.name = name,
                         .color = color,
                         .dash = dash,
                         .width = 2.2,
                         .points = Track::ServedPercent(TracksOf(need), end_ns_)});
  };
  add("single-use tokens", Need::kToken, PlotColor::kOrange, PlotDash::kSolid);
  add("registrations", Need::kRegistration, PlotColor::kRed, PlotDash::kDotted);
  add("sessions", Need::kSession, PlotColor::kPurple, PlotDash::kSolid);
  add("identity", Need::kIdentity, PlotColor::kGreen, PlotDash::kSolid);
  add("config", Need::kConfig, PlotColor::kBlue, PlotDash::kDashed);
  plot.panels.push_back(std::move(own));
  if (etcd_ != nullptr) {
    PlotPanel other = {.title = "Plain etcd client: served", .y_label = "% of reads"};
    other.y_max = 105;
    other.lines.push_back({.name = "linearizable",
                           .color = PlotColor::kBlack,
                           .points = Track::ServedPercent(etcd_->Reads(false), end_ns_)});
    other.lines.push_back({.name = "serializable, of unknown age",
                           .color = PlotColor::kSky,
                           .dash = PlotDash::kDashed,
                           .points = Track::ServedPercent(etcd_->Reads(true), end_ns_)});
    plot.panels.push_back(std::move(other));
  }
  PlotPanel age = {.title = "Holdfast client: age that each answer told, at most",
                   .y_label = "minutes of life"};
  const auto in_life = [&](std::vector<PlotPoint> points) {
    for (PlotPoint& point : points) point.y *= run_.factor() / 60;
    return points;
  };
  age.lines.push_back({.name = "identity",
                       .color = PlotColor::kGreen,
                       .points = in_life(Track::AgeMax(TracksOf(Need::kIdentity), end_ns_))});
  age.lines.push_back({.name = "sessions",
                       .color = PlotColor::kPurple,
                       .points = in_life(Track::AgeMax(TracksOf(Need::kSession), end_ns_))});
  age.lines.push_back({.name = "config",
                       .color = PlotColor::kBlue,
                       .dash = PlotDash::kDashed,
                       .points = in_life(Track::AgeMax(TracksOf(Need::kConfig), end_ns_))});
  age.limits.push_back({60, "sessions close"});
  plot.panels.push_back(std::move(age));
  PlotPanel rate = {.title = "Requests that reach the store's members", .y_label = "per second"};
  rate.height = 0.7;
  rate.lines.push_back({.name = "", .color = PlotColor::kBlack, .points = rate_->Points(end_ns_)});
  const double normal = rate_->Mean(begin_ns_ + 2'000'000'000, fault_ns_);
  rate.limits.push_back({kHerdGoal * normal, "twice the normal rate"});
  plot.panels.push_back(std::move(rate));
  run_.SetPlot(std::move(plot));
}

}  // namespace

const std::vector<Product>& ProductsOfJune12() {
  static const auto& products =
      *new std::vector<Product>{{"Access", Need::kIdentity},
                                {"Gateway", Need::kConfig},
                                {"WARP registration", Need::kRegistration},
                                {"Turnstile", Need::kToken},
                                {"dashboard", Need::kSession},
                                {"Workers AI", Need::kIdentity},
                                {"AutoRAG", Need::kConfig},
                                {"AI Gateway", Need::kConfig},
                                {"Images uploads", Need::kToken},
                                {"Stream", Need::kIdentity},
                                {"Zaraz", Need::kConfig},
                                {"Pages builds", Need::kRegistration},
                                {"Queues", Need::kConfig},
                                {"Durable Objects", Need::kConfig}};
  return products;
}

std::string NeedText(Need need) {
  switch (need) {
    case Need::kConfig:
      return "config";
    case Need::kIdentity:
      return "identity, 4 h";
    case Need::kSession:
      return "sessions, 1 h";
    case Need::kToken:
      return "single-use tokens";
    case Need::kRegistration:
      break;
  }
  return "writes";
}

absl::Status June12(DrillRun& run) { return Replay(run).Play(); }

}  // namespace holdfast::bench
