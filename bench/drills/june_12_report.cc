// What june-12 showed: goals, the table of products, and the figure.
#include <fmt/format.h>

#include <algorithm>

#include "bench/drills/june_12_replay.h"

namespace holdfast::bench {
namespace {

// From then on a client knows that there is no quorum: RetryPolicy::quorum_patience and the calls
// under way.
constexpr absl::Duration kKnown = absl::Seconds(6);
constexpr double kAtOnce_s = 1;
constexpr double kHerdGoal = 2;

}  // namespace

std::vector<const Track*> June12Replay::TracksOf(Need need) const {
  std::vector<const Track*> tracks;
  for (size_t i = 0; i < tracks_.size(); ++i) {
    if (ProductsOfJune12()[i].need == need) tracks.push_back(tracks_[i]);
  }
  return tracks;
}

Track::Totals June12Replay::During(Need need) const {
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

void June12Replay::ReportClass(const std::string& what, Need need, bool refusals) {
  const Track::Totals totals = During(need);
  const uint64_t right = refusals ? totals.refused : totals.served;
  run_.AddGoal(
      what, totals.offered() > 0 && right == totals.offered(),
      ShareText(refusals ? totals.RefusedPercent() : totals.ServedPercent(), totals.offered()),
      "100 %");
}

void June12Replay::ReportWrites() {
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

void June12Replay::ReportReturn() {
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

void June12Replay::Report() {
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

void June12Replay::AddTable() {
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

void June12Replay::AddPlot() {
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

}  // namespace holdfast::bench
