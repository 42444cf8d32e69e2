#include "bench/drills/standard.h"

#include <fmt/format.h>

#include <utility>

#include "bench/report.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kLive = absl::Seconds(30);

}  // namespace

// --- LinkLog ---

void LinkLog::OnState(const StateChange& change) {
  std::lock_guard lock(mutex_);
  changes_.push_back({BootNs(), change});
}

void LinkLog::OnRejected(const Rejection& /*rejection*/) {
  std::lock_guard lock(mutex_);
  ++rejections_;
}

void LinkLog::OnLastGoodWritten(std::string_view prefix, uint64_t revision) {
  std::lock_guard lock(mutex_);
  written_[std::string(prefix)] = revision;
}

int64_t LinkLog::FirstNs(const std::string& prefix, Link to, int64_t from_ns) const {
  std::lock_guard lock(mutex_);
  for (const Change& one : changes_) {
    if (one.at_ns >= from_ns && one.change.prefix == prefix && one.change.to == to) {
      return one.at_ns;
    }
  }
  return -1;
}

uint64_t LinkLog::rejections() const {
  std::lock_guard lock(mutex_);
  return rejections_;
}

uint64_t LinkLog::WrittenRevision(const std::string& prefix) const {
  std::lock_guard lock(mutex_);
  const auto it = written_.find(prefix);
  return it == written_.end() ? 0 : it->second;
}

// --- StandardLoad ---

absl::StatusOr<std::unique_ptr<StandardLoad>> StandardLoad::Start(DrillRun& run, DrillStore& store,
                                                                  const Terms& terms) {
  std::unique_ptr<StandardLoad> load(new StandardLoad(run));
  load->terms_ = terms;
  load->links_ = std::make_shared<LinkLog>(&run.timeline());
  auto writers = Client::Open({.endpoints = store.direct(), .seed = run.options().seed + 1});
  if (!writers.ok()) return writers.status();
  load->writers_client_ = *std::move(writers);

  Policy auth = Policy::FailClosedAfter(terms.auth_bound);
  if (terms.reduced_after > absl::ZeroDuration()) auth.ReducedAfter(terms.reduced_after);
  ClientOptions options = store.ServiceOptions(
      "service", {{kConfigPrefix, Policy::FailStatic()}, {kAuthPrefix, std::move(auth)}});
  options.observer = load->links_;
  options.seed = run.options().seed + 2;
  if (terms.change != nullptr) terms.change(options);
  auto client = Client::Open(std::move(options));
  if (!client.ok()) return client.status();
  load->client_ = *std::move(client);
  // Until the first bookmark nothing is known of the age.
  const absl::Status live = run.Await("the mirrors are live", kLive, [&] {
    return load->client_->state(kConfigPrefix) == Link::kLive &&
           load->client_->state(kAuthPrefix) == Link::kLive;
  });
  if (!live.ok()) return live;

  Timeline& timeline = run.timeline();
  DrillOracle& oracle = run.oracle();
  load->config_track = timeline.AddTrack("config");
  load->auth_track = timeline.AddTrack("auth");
  DrillOracle::History* const config_history = oracle.AddHistory();
  load->config_history_ = config_history;
  DrillOracle::History* const auth_history = oracle.AddHistory();
  load->config_writer_ =
      std::make_unique<Writer>(load->writers_client_.get(), kConfigKey, terms.writes,
                               timeline.AddTrack("writer"), config_history);
  load->auth_writer_ = std::make_unique<Writer>(load->writers_client_.get(), kAuthKey, terms.writes,
                                                timeline.AddTrack("auth writer"), auth_history);
  load->config_reader_ = std::make_unique<MirrorReader>(
      load->client_->mirror(kConfigPrefix), kConfigKey, terms.mirror_reads, load->config_track,
      oracle.AddReader(config_history, "config"));
  load->auth_reader_ = std::make_unique<MirrorReader>(load->client_->mirror(kAuthPrefix), kAuthKey,
                                                      terms.mirror_reads, load->auth_track,
                                                      oracle.AddReader(auth_history, "auth"));
  Client* const service = load->client_.get();
  if (terms.service_calls) {
    load->linearizable_track = timeline.AddTrack("linearizable");
    load->linearizable_ =
        std::make_unique<Caller>(terms.calls, load->linearizable_track, [service](int64_t) {
          return service->Get(kConfigKey, ReadOptions::Linearizable()).status();
        });
    load->write_track = timeline.AddTrack("writes");
    load->service_writer_ = std::make_unique<Writer>(service, "/service/written", terms.calls,
                                                     load->write_track, nullptr);
  }
  if (terms.bounded) {
    load->bounded_track = timeline.AddTrack("bounded");
    DrillOracle::Reader* const reader = oracle.AddReader(config_history, "bounded");
    load->bounded_ = std::make_unique<Caller>(
        terms.calls, load->bounded_track,
        [service, reader, bound = terms.bounded_by](int64_t) -> absl::Status {
          const auto read = service->Get(kConfigKey, ReadOptions::Bounded(bound));
          if (!read.ok()) return read.status();
          const int64_t at_ns = BootNs();
          reader->Read(read->value.has_value() ? read->value->mod_revision : 0, at_ns,
                       read->fresh.MaxAge(), read->fresh.proof());
          return absl::OkStatus();
        });
  }
  return load;
}

void StandardLoad::Stop() {
  if (config_writer_ != nullptr) config_writer_->Stop();
  if (auth_writer_ != nullptr) auth_writer_->Stop();
  if (service_writer_ != nullptr) service_writer_->Stop();
  if (linearizable_ != nullptr) linearizable_->Stop();
  if (bounded_ != nullptr) bounded_->Stop();
  if (config_reader_ != nullptr) config_reader_->Stop();
  if (auth_reader_ != nullptr) auth_reader_->Stop();
}

void StandardLoad::WantServed(const std::string& what, const Track& track, int64_t from_ns,
                              int64_t to_ns) {
  const Track::Totals totals = track.Between(from_ns, to_ns);
  run_.AddGoal(what, totals.offered() > 0 && totals.served == totals.offered(),
               ShareText(totals.ServedPercent(), totals.offered()), "100 %");
}

Plot StandardLoad::PlotOf(const std::string& title, const std::string& subtitle) const {
  const int64_t end_ns = run_.timeline().end_ns();
  Plot plot = run_.timeline().NewPlot(title, subtitle);
  PlotPanel served = {.title = "Served", .y_label = "% of calls"};
  served.y_max = 105;
  PlotPanel age = {.title = "Age of what was read", .y_label = "seconds"};
  PlotPanel errors = {.title = "Refused or failed", .y_label = "per second"};
  errors.height = 0.7;
  const auto add = [&](const Track* track, const std::string& name, PlotColor color,
                       PlotDash dash) {
    if (track == nullptr) return;
    served.lines.push_back(
        {.name = name, .color = color, .dash = dash, .points = track->ServedPercent(end_ns)});
    errors.lines.push_back({.name = name + " refused",
                            .color = color,
                            .dash = dash,
                            .points = track->PerSecond(CallOutcome::kRefused, end_ns)});
    if (track->All().failed > 0) {
      errors.lines.push_back({.name = name + " failed",
                              .color = PlotColor::kBlack,
                              .dash = dash,
                              .width = 1.2,
                              .points = track->PerSecond(CallOutcome::kFailed, end_ns)});
    }
  };
  add(config_track, "config", PlotColor::kBlue, PlotDash::kSolid);
  add(auth_track, "auth", PlotColor::kGreen, PlotDash::kDashed);
  add(linearizable_track, "linearizable", PlotColor::kRed, PlotDash::kSolid);
  add(bounded_track, "bounded", PlotColor::kPurple, PlotDash::kDashed);
  add(write_track, "writes", PlotColor::kOrange, PlotDash::kDotted);
  // Mirrors that refuse do so thousands of times a second, which would flatten the others.
  std::erase_if(errors.lines, [](const PlotLine& line) {
    return line.name == "config refused" || line.name == "auth refused";
  });
  age.lines.push_back({.name = "config, largest",
                       .color = PlotColor::kBlue,
                       .points = config_track->AgeMax(end_ns)});
  age.lines.push_back({.name = "auth, largest",
                       .color = PlotColor::kGreen,
                       .dash = PlotDash::kDashed,
                       .points = auth_track->AgeMax(end_ns)});
  age.lines.push_back({.name = "auth, median",
                       .color = PlotColor::kGray,
                       .dash = PlotDash::kDotted,
                       .width = 1.2,
                       .points = auth_track->AgeMedian(end_ns)});
  const double bound_s = absl::ToDoubleSeconds(terms_.auth_bound);
  if (bound_s < 2 * plot.x_max) {
    age.limits.push_back({.y = bound_s, .label = fmt::format("auth closes at {:.3g} s", bound_s)});
  }
  plot.panels = {std::move(served), std::move(age)};
  if (!errors.lines.empty()) plot.panels.push_back(std::move(errors));
  return plot;
}

std::string ShareText(double percent, uint64_t of) {
  const std::string plain = fmt::to_string(of);
  std::string digits;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (i > 0 && (plain.size() - i) % 3 == 0) digits += ',';
    digits += plain[i];
  }
  // 99.999 % must not look like 100.
  return percent == 100 || percent == 0 ? fmt::format("{:.0f} % of {}", percent, digits)
                                        : fmt::format("{:.3f} % of {}", percent, digits);
}

std::string SecondsText(double seconds) { return fmt::format("{:.2f} s", seconds); }

}  // namespace holdfast::bench
