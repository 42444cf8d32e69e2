// holdfast-bench compare: Holdfast, by its client library (native) and by etcd's unary API, and
// etcd, side by side on this machine.
//
// The targets take turns and only one cluster runs at a time, so that a slow hour of the machine or
// of its disk hits all, and none takes CPU from another; who comes first goes round from run to
// run. Every turn starts from empty data directories. Memory is compared in turns of its own.
#pragma once

#include <atomic>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/goals.h"
#include "bench/html_report.h"
#include "bench/options.h"
#include "bench/side_by_side.h"

namespace holdfast::bench {

std::string TargetName(Target target);  // "holdfast native", "holdfast unary", "etcd"
const char* TargetKey(Target target);   // "native", "unary", "etcd": for programs

// One thing that a turn measures.
struct Step {
  Workload workload = {};
  std::optional<Probe> probe = std::nullopt;  // it is one of the goals'
  uint32_t clients = 0;
  bool exactly_once = false;

  std::string Title() const;  // "put" or, of a probe, "put at 100 clients"
};
// In their order: reads first, for they leave no compaction behind; what writes values of another
// size last.
std::vector<Step> StepsOf(const Options& options, Target target);
// The targets of one run, in the order of their turns.
std::vector<Target> TurnsOf(const Options& options, uint32_t run);

// A step with what became of it, one entry for each run; a run that failed has no metrics.
struct StepRuns {
  Step step = {};
  std::vector<std::vector<Metric>> runs = {};
  nlohmann::json json = nlohmann::json::array();
  HtmlCurve curve = {};
};

struct ComparedTarget {
  Target target = Target::kUnary;
  std::string version = {};
  StepRuns load = {};  // load rate, and memory and disk of all members after it
  std::vector<StepRuns> steps = {};
};

struct Comparison {
  std::vector<ComparedTarget> targets = {};
  std::vector<Measurement> memory = {};  // after CompareOptions::memory_keys
  std::vector<std::string> wrong = {};   // turns that failed, and why
  double seconds = 0;                    // it took so long
};

// Pure: the report, text or JSON as the options say. Not passed if something is wrong; a goal that
// is missed is a result.
BenchReport CompareReportOf(const Options& options, const Hardware& hardware,
                            const Comparison& comparison);
HtmlReport CompareHtmlOf(const Options& options, const Hardware& hardware,
                         const Comparison& comparison);

// Progress goes to stderr. A turn that fails does not take the others' figures with it: it is told
// in the report. Only Cancelled, and a file of --html that cannot be written, are errors.
absl::StatusOr<BenchReport> Compare(const Options& options, const std::atomic<bool>& cancelled);

}  // namespace holdfast::bench
