// Results as text for people and as JSON for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/proc_stats.h"
#include "bench/runner.h"
#include "bench/session.h"

namespace holdfast::bench {

// Interrupts, which belong to no process, take up to so many cores under load.
inline constexpr double kUndisturbedCores = 0.25;

enum class Better { kHigher, kLower, kNeither };

struct Metric {
  std::string name;
  std::string unit;
  double value = 0;
  Better better = Better::kNeither;
};

// The figures of one run, always the same ones in the same order for one workload.
std::vector<Metric> MetricsOf(const RunResult& result);

// One metric over several runs.
struct Spread {
  Metric median;  // of an even number, the mean of the two in the middle
  double min = 0;
  double max = 0;
};
// REQUIRES: not empty, and every run has the same metrics.
std::vector<Spread> SpreadOf(const std::vector<std::vector<Metric>>& runs);

std::string CodeName(int grpc_code);
// 4 significant digits.
std::string ShortNumber(double value);

// Three lines: machine, command line, seed.
std::string HeaderText(const Options& options, const Hardware& hardware);
nlohmann::json HeaderJson(const Options& options, const Hardware& hardware);

std::string LoadText(const LoadResult& load);
nlohmann::json LoadJson(const LoadResult& load);

std::string RunText(const std::string& title, const RunResult& result);
nlohmann::json RunJson(const RunResult& result);

std::string SpreadText(const std::vector<Spread>& spreads, size_t runs);
nlohmann::json SpreadJson(const std::vector<Spread>& spreads);

// Rows of a table as lines, each column as wide as its widest cell.
std::string AlignedText(const std::vector<std::vector<std::string>>& rows);

// One metric on two sides: a side's cell of a table, and the ratio with who wins.
std::string Cell(const Spread& spread, size_t runs);
std::string Verdict(const Spread& a, const Spread& b, size_t runs);

}  // namespace holdfast::bench
