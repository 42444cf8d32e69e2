// The goals of Holdfast against etcd, and what runs made of them. Pure: from figures to verdicts.
//
// A ratio is that of the medians. The least and the greatest ratio beside it are those of the
// runs, each against the other side's run of the same turn.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/report.h"

namespace holdfast::bench {

// What is measured for the goals; each on the targets that its rows need.
enum class Probe { kPut, kGet, kOnePut, kStampedPut, kMemory };
const char* ProbeName(Probe probe);

// One probe on one target with one number of clients, over the runs.
struct Measurement {
  Probe probe = Probe::kPut;
  Target target = Target::kUnary;
  uint32_t clients = 0;
  std::vector<std::vector<Metric>> runs = {};  // of MetricsOf(); of memory: "rss", "rss_anon"
};

enum class GoalVerdict { kMet, kMissed, kNotMeasured, kNoGoal };

struct GoalSide {
  Spread spread;
  uint32_t clients = 0;
};

struct GoalRow {
  std::string name = {};  // a stable one, for programs
  std::string title = {};
  std::string unit = {};
  std::optional<GoalSide> holdfast = std::nullopt;
  std::optional<GoalSide> etcd = std::nullopt;
  bool etcd_best = false;  // of several numbers of clients
  double ratio = 0;        // holdfast / etcd; 0: there is none
  double ratio_min = 0;
  double ratio_max = 0;
  std::optional<double> goal = std::nullopt;
  bool at_least = true;           // the ratio must be at least, or at most, the goal
  double holdfast_bench_cpu = 0;  // the load generator's own, us/op; 0: it does not apply
  double etcd_bench_cpu = 0;
  GoalVerdict verdict = GoalVerdict::kNoGoal;
};

// `clients` is that of the unary rows.
std::vector<GoalRow> GoalRows(const std::vector<Measurement>& measured, uint32_t clients);

// "n of m goals met, k missed: ..."
std::string GoalsSummary(const std::vector<GoalRow>& rows);
std::string GoalsText(const std::vector<GoalRow>& rows);
nlohmann::json GoalsJson(const std::vector<GoalRow>& rows);

// The cells of a row, as text and HTML show them.
struct GoalCells {
  std::string title;
  std::string holdfast;
  std::string etcd;
  std::string ratio;
  std::string goal;
  std::string verdict;
  std::string bench_cpu;
};
GoalCells CellsOf(const GoalRow& row);

}  // namespace holdfast::bench
