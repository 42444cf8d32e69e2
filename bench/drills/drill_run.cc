#include "bench/drills/drill_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/clock.h"
#include "base/strings.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kStep = absl::Milliseconds(10);

// Columns as wide as their widest cell.
std::string TableText(const DrillTable& table) {
  std::vector<size_t> widths;
  for (const std::string& column : table.columns) widths.push_back(column.size());
  for (const auto& row : table.rows) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text = " ";
    for (size_t i = 0; i < cells.size() && i < widths.size(); ++i) {
      text += i == 0 ? fmt::format(" {:<{}}", cells[i], widths[i])
                     : fmt::format("  {:>{}}", cells[i], widths[i]);
    }
    return text + "\n";
  };
  std::string text = "\n  " + table.title + "\n" + line(table.columns);
  for (const auto& row : table.rows) text += line(row);
  return text;
}

}  // namespace

void DrillRun::SetFactor(double factor, std::string how) {
  factor_ = factor;
  factor_text_ = std::move(how);
}

void DrillRun::AddGoal(std::string what, bool met, std::string measured, std::string wanted) {
  goals_.push_back({std::move(what), std::move(measured), std::move(wanted), met});
}

void DrillRun::Judge(bool must_bite) {
  const DrillOracle::Verdict verdict = oracle_.Check();
  AddGoal("oracle: ages that were too small", verdict.violations == 0,
          fmt::format("{} of {} claims against {} writes", verdict.violations, verdict.claims,
                      verdict.acks),
          "0");
  AddGoal("oracle: reads taken back in revision", verdict.backwards == 0,
          fmt::format("{}", verdict.backwards), "0");
  if (must_bite) {
    AddGoal("oracle: it would have caught ages of half the size", verdict.caught_if_half > 0,
            fmt::format("{} times", verdict.caught_if_half), "> 0");
  }
  if (verdict.unproven > 0) {
    Note(fmt::format("{} reads told an age without a proof, or none: there is nothing to check",
                     verdict.unproven));
  }
  for (const std::string& example : verdict.examples) Note("VIOLATION: " + example);
}

absl::Status DrillRun::Sleep(absl::Duration duration) const {
  const int64_t until_ns = Timeline::Now() + absl::ToInt64Nanoseconds(duration);
  while (Timeline::Now() < until_ns) {
    if (cancelled_) return absl::CancelledError("interrupted");
    absl::SleepFor(std::min(kStep, absl::Nanoseconds(until_ns - Timeline::Now())));
  }
  return absl::OkStatus();
}

absl::Status DrillRun::Await(const std::string& what, absl::Duration limit,
                             const std::function<bool()>& done) const {
  const int64_t until_ns = Timeline::Now() + absl::ToInt64Nanoseconds(limit);
  while (!done()) {
    if (cancelled_) return absl::CancelledError("interrupted");
    if (Timeline::Now() > until_ns) {
      return absl::DeadlineExceededError(
          fmt::format("not within {}: {}", absl::FormatDuration(limit), what));
    }
    absl::SleepFor(kStep);
  }
  return absl::OkStatus();
}

void DrillRun::Say(const std::string& text) const {
  if (!options_.verbose) return;
  fmt::print(stderr, "{:7.2f} s  {}\n", timeline_.Seconds(Timeline::Now()), text);
}

bool DrillRun::passed() const {
  return !goals_.empty() && std::ranges::all_of(goals_, [](const Goal& goal) { return goal.met; });
}

std::string DrillText(const DrillEntry& entry, const DrillRun& run, const std::string& plot_files) {
  const std::string number = entry.number > 0 ? fmt::format("{} ", entry.number) : "";
  std::string text = fmt::format("\ndrill {}{}: {}\n  time      {}\n", number, entry.name,
                                 entry.title, run.factor_text());
  size_t what = 0, measured = 0;
  for (const Goal& goal : run.goals()) {
    what = std::max(what, goal.what.size());
    measured = std::max(measured, goal.measured.size());
  }
  for (const Goal& goal : run.goals()) {
    text += fmt::format("  {:<4}  {:<{}}  {:<{}}  wanted: {}\n", goal.met ? "ok" : "FAIL",
                        goal.what, what, goal.measured, measured, goal.wanted);
  }
  for (const DrillTable& table : run.tables()) text += TableText(table);
  for (const std::string& note : run.notes()) text += "  note      " + note + "\n";
  if (!plot_files.empty()) text += "  plot      " + plot_files + "\n";
  text += fmt::format("  {}\n", run.passed() ? "PASSED" : "FAILED");
  return text;
}

nlohmann::json DrillJson(const DrillEntry& entry, const DrillRun& run) {
  nlohmann::json json = {
      {"number", entry.number},          {"name", entry.name},     {"title", entry.title},
      {"factor", run.factor()},          {"passed", run.passed()}, {"notes", run.notes()},
      {"goals", nlohmann::json::array()}};
  for (const Goal& goal : run.goals()) {
    json["goals"].push_back({{"what", goal.what},
                             {"measured", goal.measured},
                             {"wanted", goal.wanted},
                             {"met", goal.met}});
  }
  for (const DrillTable& table : run.tables()) {
    json["tables"].push_back(
        {{"title", table.title}, {"columns", table.columns}, {"rows", table.rows}});
  }
  for (const Phase& phase : run.timeline().phases()) {
    json["phases"].push_back({{"name", phase.name},
                              {"fault", phase.fault},
                              {"from_s", run.timeline().Seconds(phase.from_ns)},
                              {"to_s", run.timeline().Seconds(phase.to_ns)}});
  }
  return json;
}

}  // namespace holdfast::bench
