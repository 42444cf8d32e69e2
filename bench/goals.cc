#include "bench/goals.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast::bench {
namespace {

// One line of the table: which figures, and what is asked of their ratio.
struct GoalDef {
  const char* name;
  const char* title;
  Probe probe;
  Target target;
  // Against etcd: with as many clients, or its best number of them.
  bool etcd_best;
  Probe etcd_probe;
  const char* metric;
  bool at_least;
  std::optional<double> goal;
};

const std::vector<GoalDef>& Definitions() {
  constexpr Target kNative = Target::kNative;
  constexpr Target kUnary = Target::kUnary;
  static const auto& defs = *new std::vector<GoalDef>{
      {"put_unary", "puts, unary", Probe::kPut, kUnary, false, Probe::kPut, "throughput", true, 3},
      {"get_unary", "linearizable gets, unary", Probe::kGet, kUnary, false, Probe::kGet,
       "throughput", true, 3},
      {"one_put_p50", "one client, put p50, unary", Probe::kOnePut, kUnary, false, Probe::kOnePut,
       "latency_p50", false, 0.5},
      {"put_native", "puts, native", Probe::kPut, kNative, true, Probe::kPut, "throughput", true,
       25},
      {"get_native", "linearizable gets, native", Probe::kGet, kNative, true, Probe::kGet,
       "throughput", true, 60},
      {"memory", "resident memory, largest member", Probe::kMemory, kUnary, false, Probe::kMemory,
       "rss", false, 0.25},
      {"put_cpu", "CPU per put, all members, native", Probe::kPut, kNative, true, Probe::kPut,
       "server_cpu", false, 1.0 / 15},
      {"one_put_p50_native", "one client, put p50, native", Probe::kOnePut, kNative, false,
       Probe::kOnePut, "latency_p50", false, std::nullopt},
      {"stamped_put_native", "puts, native, exactly once", Probe::kStampedPut, kNative, true,
       Probe::kPut, "throughput", true, std::nullopt},
      {"stamped_put_cpu", "CPU per put, exactly once", Probe::kStampedPut, kNative, true,
       Probe::kPut, "server_cpu", false, std::nullopt},
      {"memory_anon", "anonymous memory, largest member", Probe::kMemory, kUnary, false,
       Probe::kMemory, "rss_anon", false, std::nullopt},
  };
  return defs;
}

const Metric* FindMetric(const std::vector<Metric>& metrics, const std::string& name) {
  const auto it = std::ranges::find(metrics, name, &Metric::name);
  return it == metrics.end() ? nullptr : &*it;
}

std::vector<double> ValuesOf(const Measurement& measurement, const std::string& metric) {
  std::vector<double> values;
  for (const std::vector<Metric>& run : measurement.runs) {
    const Metric* found = FindMetric(run, metric);
    if (found != nullptr) values.push_back(found->value);
  }
  return values;
}

// Nothing if a run has failed: a table must not compare three runs with two.
std::optional<Spread> SpreadOfMetric(const Measurement& measurement, const std::string& metric) {
  std::vector<std::vector<Metric>> runs;
  for (const std::vector<Metric>& run : measurement.runs) {
    const Metric* found = FindMetric(run, metric);
    if (found == nullptr) return std::nullopt;
    runs.push_back({*found});
  }
  if (runs.empty()) return std::nullopt;
  return SpreadOf(runs)[0];
}

const Measurement* Pick(const std::vector<Measurement>& measured, Probe probe, Target target,
                        const GoalDef& def, uint32_t clients) {
  const Measurement* picked = nullptr;
  double best = 0;
  for (const Measurement& candidate : measured) {
    if (candidate.probe != probe || candidate.target != target) continue;
    if (clients != 0 && candidate.clients != clients) continue;
    const std::optional<Spread> spread = SpreadOfMetric(candidate, def.metric);
    if (!spread.has_value()) continue;
    const double value = spread->median.value;
    if (picked != nullptr && (def.at_least ? value <= best : value >= best)) continue;
    picked = &candidate;
    best = value;
  }
  return picked;
}

double MedianOr0(const Measurement& measurement, const std::string& metric) {
  const std::optional<Spread> spread = SpreadOfMetric(measurement, metric);
  return spread.has_value() ? spread->median.value : 0;
}

void SetRatio(const Measurement& holdfast, const Measurement& etcd, const std::string& metric,
              GoalRow& row) {
  if (row.etcd->spread.median.value <= 0 || row.holdfast->spread.median.value <= 0) return;
  row.ratio = row.holdfast->spread.median.value / row.etcd->spread.median.value;
  row.ratio_min = row.ratio_max = row.ratio;
  const std::vector<double> ours = ValuesOf(holdfast, metric);
  const std::vector<double> theirs = ValuesOf(etcd, metric);
  for (size_t run = 0; run < std::min(ours.size(), theirs.size()); ++run) {
    if (theirs[run] <= 0) continue;
    row.ratio_min = std::min(row.ratio_min, ours[run] / theirs[run]);
    row.ratio_max = std::max(row.ratio_max, ours[run] / theirs[run]);
  }
}

GoalRow RowOf(const GoalDef& def, const std::vector<Measurement>& measured, uint32_t clients) {
  GoalRow row{.name = def.name, .title = def.title, .unit = {}, .goal = def.goal};
  row.at_least = def.at_least;
  row.etcd_best = def.etcd_best;
  // The memory probe has no clients, that of one client has one.
  const bool unary_load =
      def.target == Target::kUnary && (def.probe == Probe::kPut || def.probe == Probe::kGet);
  const Measurement* holdfast =
      Pick(measured, def.probe, def.target, def, unary_load ? clients : 0);
  const Measurement* etcd =
      Pick(measured, def.etcd_probe, Target::kEtcd, def, unary_load ? clients : 0);
  const auto side = [&def](const Measurement& measurement) {
    return GoalSide{.spread = *SpreadOfMetric(measurement, def.metric),
                    .clients = measurement.clients};
  };
  if (holdfast != nullptr) {
    row.holdfast = side(*holdfast);
    row.unit = row.holdfast->spread.median.unit;
    row.holdfast_bench_cpu = MedianOr0(*holdfast, "bench_cpu");
  }
  if (etcd != nullptr) {
    row.etcd = side(*etcd);
    row.unit = row.etcd->spread.median.unit;
    row.etcd_bench_cpu = MedianOr0(*etcd, "bench_cpu");
  }
  if (holdfast != nullptr && etcd != nullptr) SetRatio(*holdfast, *etcd, def.metric, row);
  if (!def.goal.has_value()) {
    row.verdict = GoalVerdict::kNoGoal;
  } else if (row.ratio <= 0) {
    row.verdict = GoalVerdict::kNotMeasured;
  } else {
    const bool met = def.at_least ? row.ratio >= *def.goal : row.ratio <= *def.goal;
    row.verdict = met ? GoalVerdict::kMet : GoalVerdict::kMissed;
  }
  return row;
}

const char* VerdictName(GoalVerdict verdict) {
  switch (verdict) {
    case GoalVerdict::kMet:
      return "met";
    case GoalVerdict::kMissed:
      return "MISSED";
    case GoalVerdict::kNotMeasured:
      return "not measured";
    case GoalVerdict::kNoGoal:
      return "";
  }
  return "";
}

std::string SideCell(const std::optional<GoalSide>& side, bool best) {
  if (!side.has_value()) return "-";
  std::string text = ShortNumber(side->spread.median.value);
  if (side->spread.max > side->spread.min) {
    text += fmt::format(" ({}..{})", ShortNumber(side->spread.min), ShortNumber(side->spread.max));
  }
  if (side->clients > 0) text += fmt::format(" at {}{}", side->clients, best ? ", best" : "");
  return text;
}

// Ratios below 1 with what they mean the other way round: 0.0667x is 1/15.
std::string RatioText(double ratio) {
  if (ratio >= 0.2) return fmt::format("{:.3g}x", ratio);
  return fmt::format("1/{:.3g}", 1 / ratio);
}

nlohmann::json SideJson(const std::optional<GoalSide>& side) {
  if (!side.has_value()) return nullptr;
  return {{"median", side->spread.median.value},
          {"min", side->spread.min},
          {"max", side->spread.max},
          {"clients", side->clients}};
}

}  // namespace

const char* ProbeName(Probe probe) {
  switch (probe) {
    case Probe::kPut:
      return "put";
    case Probe::kGet:
      return "get";
    case Probe::kOnePut:
      return "one_put";
    case Probe::kStampedPut:
      return "stamped_put";
    case Probe::kMemory:
      return "memory";
  }
  return "";
}

std::vector<GoalRow> GoalRows(const std::vector<Measurement>& measured, uint32_t clients) {
  std::vector<GoalRow> rows;
  for (const GoalDef& def : Definitions()) rows.push_back(RowOf(def, measured, clients));
  return rows;
}

GoalCells CellsOf(const GoalRow& row) {
  GoalCells cells;
  cells.title = row.unit.empty() ? row.title : fmt::format("{} ({})", row.title, row.unit);
  cells.holdfast = SideCell(row.holdfast, false);
  cells.etcd = SideCell(row.etcd, row.etcd_best);
  cells.ratio = "-";
  if (row.ratio > 0) {
    cells.ratio = RatioText(row.ratio);
    if (row.ratio_max > row.ratio_min) {
      cells.ratio += fmt::format(" ({}..{})", RatioText(row.ratio_min), RatioText(row.ratio_max));
    }
  }
  if (row.goal.has_value()) {
    cells.goal = fmt::format("{} {}", row.at_least ? ">=" : "<=", RatioText(*row.goal));
  }
  cells.verdict = VerdictName(row.verdict);
  if (row.holdfast_bench_cpu > 0 || row.etcd_bench_cpu > 0) {
    cells.bench_cpu = fmt::format("{} / {}", ShortNumber(row.holdfast_bench_cpu),
                                  ShortNumber(row.etcd_bench_cpu));
  }
  return cells;
}

std::string GoalsSummary(const std::vector<GoalRow>& rows) {
  int goals = 0;
  int met = 0;
  std::string missed;
  std::string unmeasured;
  const auto append = [](std::string& list, const std::string& title) {
    list += (list.empty() ? "" : "; ") + title;
  };
  for (const GoalRow& row : rows) {
    if (row.verdict == GoalVerdict::kNoGoal) continue;
    ++goals;
    if (row.verdict == GoalVerdict::kMet) ++met;
    if (row.verdict == GoalVerdict::kMissed) append(missed, row.title);
    if (row.verdict == GoalVerdict::kNotMeasured) append(unmeasured, row.title);
  }
  std::string text = fmt::format("{} of {} goals met", met, goals);
  if (!missed.empty()) text += "; MISSED: " + missed;
  if (!unmeasured.empty()) text += "; not measured: " + unmeasured;
  return text;
}

std::string GoalsText(const std::vector<GoalRow>& rows) {
  std::vector<std::vector<std::string>> lines = {
      {"", "holdfast", "etcd", "ratio (of runs)", "goal", "", "bench CPU us/op"}};
  for (const GoalRow& row : rows) {
    const GoalCells cells = CellsOf(row);
    lines.push_back({cells.title, cells.holdfast, cells.etcd, cells.ratio, cells.goal,
                     cells.verdict, cells.bench_cpu});
  }
  return AlignedText(lines) + "  " + GoalsSummary(rows) + "\n";
}

nlohmann::json GoalsJson(const std::vector<GoalRow>& rows) {
  nlohmann::json json = nlohmann::json::array();
  for (const GoalRow& row : rows) {
    nlohmann::json one = {{"name", row.name},
                          {"title", row.title},
                          {"unit", row.unit},
                          {"holdfast", SideJson(row.holdfast)},
                          {"etcd", SideJson(row.etcd)},
                          {"etcd_best", row.etcd_best},
                          {"bench_cpu_us", {row.holdfast_bench_cpu, row.etcd_bench_cpu}}};
    if (row.ratio > 0) {
      one["ratio"] = {{"median", row.ratio}, {"min", row.ratio_min}, {"max", row.ratio_max}};
    }
    if (row.goal.has_value()) {
      one["goal"] = {{row.at_least ? "at_least" : "at_most", *row.goal}};
      one["verdict"] = VerdictName(row.verdict);
    }
    json.push_back(std::move(one));
  }
  return json;
}

}  // namespace holdfast::bench
