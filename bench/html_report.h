// A report in one HTML file that opens without a network: plots are inline SVG, style is inline,
// and there is no script.
//
// Threads: functions without state.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "bench/goals.h"
#include "bench/histogram.h"
#include "bench/runner.h"
#include "bench/time_series.h"

namespace holdfast::bench {

// One line in a section's plots: one run, or several of one target merged.
struct HtmlCurve {
  std::string name = {};
  LatencyHistogram latency = {};
  // Of each run, drawn in one colour.
  std::vector<std::vector<TimeSeries::Point>> series = {};
};
HtmlCurve CurveOf(const std::string& name, const RunResult& result);
// Another run of the same.
void AddRun(const RunResult& result, HtmlCurve& curve);

struct HtmlSection {
  std::string title = {};
  std::string text = {};  // preformatted: the figures
  std::vector<HtmlCurve> curves = {};
};

struct HtmlReport {
  std::string title = {};
  std::string head = {};  // preformatted: machine, command, versions, load
  std::vector<std::string> notes = {};
  std::vector<GoalRow> goals = {};
  std::vector<HtmlSection> sections = {};
};

std::string HtmlOf(const HtmlReport& report);
// Unavailable, with the file's name, if it cannot be written.
absl::Status WriteHtml(const HtmlReport& report, const std::string& file);

}  // namespace holdfast::bench
