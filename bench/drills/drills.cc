#include "bench/drills/drills.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <thread>

#include "base/strings.h"
#include "bench/drills/drill_run.h"
#include "bench/monotonic.h"
#include "bench/proc_stats.h"
#include "bench/report.h"

namespace holdfast::bench {
namespace {

std::string ListText() {
  std::string text = "holdfast-bench drill NAME... | NUMBER... | all\n\n";
  for (const DrillEntry& entry : AllDrills()) {
    text +=
        fmt::format("  {:>2}  {:<16} {}\n", entry.number > 0 ? fmt::to_string(entry.number) : "",
                    entry.name, entry.title);
  }
  return text;
}

// The files' names for the report; empty where the drill has no plot.
absl::StatusOr<std::string> WritePlotOf(const DrillEntry& entry, const DrillRun& run,
                                        const Hardware& hardware) {
  if (run.plot().panels.empty()) return std::string();
  Plot plot = run.plot();
  plot.footer = fmt::format("holdfast-bench drill {} · {} cores, {} · seed {}", entry.name,
                            hardware.cores, hardware.cpu_model, run.options().seed);
  const std::string base = (std::filesystem::path(run.options().drill.out) / entry.name).string();
  if (absl::Status status = WritePlot(plot, base); !status.ok()) return status;
  return base + ".svg, .png";
}

// Looks for how long this process was kept from running: on a machine that is busy with other
// things, times mean nothing.
class StallMeter {
 public:
  StallMeter() : thread_([this] { Run(); }) {}
  ~StallMeter() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  double longest_s() const { return double(longest_ns_) * 1e-9; }

 private:
  void Run() {
    while (!stop_) {
      const int64_t due_ns = MonotonicNs() + kStepNs;
      SleepUntilNs(due_ns);
      longest_ns_ = std::max(longest_ns_, MonotonicNs() - due_ns);
    }
  }

  static constexpr int64_t kStepNs = 10'000'000;
  std::atomic<bool> stop_{false};
  int64_t longest_ns_ = 0;  // the thread's own until it has ended
  std::thread thread_;
};
constexpr double kStallWorthANote_s = 0.3;

void PrintNow(const std::string& text) {
  fmt::print("{}", text);
  std::fflush(stdout);
}

// Ends early only if the bench was interrupted: one drill that could not be carried out does not
// take the others with it.
absl::Status RunOne(const DrillEntry& entry, const Options& options, const Hardware& hardware,
                    const std::atomic<bool>& cancelled, nlohmann::json& json, bool* passed) {
  DrillRun run(options, cancelled);
  StallMeter stalls;
  absl::Status status = entry.run(run);
  stalls.Stop();
  if (absl::IsCancelled(status)) return status;
  run.timeline().End();
  if (stalls.longest_s() > kStallWorthANote_s) {
    run.Note(
        fmt::format("this machine kept the drill from running for {:.1f} s at once: it was busy "
                    "with other things, and goals that are about time say little",
                    stalls.longest_s()));
  }
  if (!status.ok()) {
    run.AddGoal("the drill could be carried out", false, std::string(base::Message(status)), "yes");
  }
  const absl::StatusOr<std::string> files = WritePlotOf(entry, run, hardware);
  if (!files.ok())
    run.AddGoal("plot", false, std::string(base::Message(files.status())), "written");
  *passed = *passed && run.passed();
  json["drills"].push_back(DrillJson(entry, run));
  if (!options.json) PrintNow(DrillText(entry, run, files.ok() ? *files : ""));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<BenchReport> RunDrills(const Options& options, const std::atomic<bool>& cancelled) {
  if (options.drill.names == std::vector<std::string>{"list"}) {
    return BenchReport{.text = ListText(), .passed = true};
  }
  const auto drills = DrillsNamed(options.drill.names);
  if (!drills.ok()) return drills.status();
  std::error_code error;
  std::filesystem::create_directories(options.drill.out, error);
  if (error) {
    return absl::InvalidArgumentError(
        fmt::format("--out {}: {}", options.drill.out, error.message()));
  }
  const Hardware hardware = ReadHardware();
  nlohmann::json json = HeaderJson(options, hardware);
  if (!options.json) PrintNow(HeaderText(options, hardware));
  bool passed = true;
  for (const DrillEntry* entry : *drills) {
    if (absl::Status status = RunOne(*entry, options, hardware, cancelled, json, &passed);
        !status.ok()) {
      return status;
    }
  }
  std::string text;
  if (options.json) text = json.dump(2) + "\n";
  if (!options.json && drills->size() > 1) {
    text =
        fmt::format("\n{} drills: {}\n", drills->size(), passed ? "all passed" : "NOT all passed");
  }
  return BenchReport{.text = text, .passed = passed};
}

}  // namespace holdfast::bench
