// What compare tells of its turns: text, JSON, HTML.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "bench/compare.h"
#include "bench/report.h"

namespace holdfast::bench {
namespace {

std::vector<std::vector<Metric>> Succeeded(const StepRuns& step) {
  std::vector<std::vector<Metric>> runs;
  for (const std::vector<Metric>& run : step.runs) {
    if (!run.empty()) runs.push_back(run);
  }
  return runs;
}

std::vector<Measurement> MeasurementsOf(const Comparison& comparison) {
  std::vector<Measurement> measured = comparison.memory;
  for (const ComparedTarget& target : comparison.targets) {
    for (const StepRuns& step : target.steps) {
      if (!step.step.probe.has_value()) continue;
      measured.push_back({.probe = *step.step.probe,
                          .target = target.target,
                          .clients = step.step.clients,
                          .runs = step.runs});
    }
  }
  return measured;
}

std::string TargetLine(const Options& options, const ComparedTarget& target) {
  const bool etcd = target.target == Target::kEtcd;
  std::string text = fmt::format("{:<16}  {} version {}, {} members", TargetName(target.target),
                                 etcd ? options.etcd : options.holdfastd,
                                 target.version.empty() ? "?" : target.version,
                                 etcd ? options.local_etcd : options.local);
  for (const std::string& arg : etcd ? options.etcd_args : options.holdfastd_args) {
    text += " " + arg;
  }
  if (target.target == Target::kNative) {
    text += fmt::format("; by the client library, {} clients of it carry all callers",
                        options.native_clients);
  }
  return text + "\n";
}

std::string HeadOf(const Options& options, const Hardware& hardware, const Comparison& comparison) {
  std::string text = HeaderText(options, hardware);
  for (const ComparedTarget& target : comparison.targets) text += TargetLine(options, target);
  return text + fmt::format(
                    "load      keys of {} B, values of {} B, {} keys before measuring; {} "
                    "turns each of {} a step; took {:.0f} s\n",
                    options.key_size, options.value_size, options.load, options.runs,
                    options.total > 0 ? fmt::format("{} requests", options.total)
                                      : absl::FormatDuration(options.duration),
                    comparison.seconds);
}

bool SaysUnsafe(const std::vector<std::string>& args) {
  return std::ranges::any_of(args, [](const std::string& arg) {
    return arg.find("unsafe") != std::string::npos || arg.find("fsync") != std::string::npos;
  });
}

// What a reader must know to judge the figures.
std::vector<std::string> NotesOf(const Options& options) {
  std::vector<std::string> notes = {
      "one machine and one disk for all; one target at a time, in turns from empty directories; "
      "the order of the turns goes round"};
  notes.push_back(SaysUnsafe(options.etcd_args) || SaysUnsafe(options.holdfastd_args)
                      ? "A SERVER WAS GIVEN A FLAG ABOUT FSYNC OR SAFETY: see its line above"
                      : "both with their defaults: a put is answered after fsync on a majority");
  notes.push_back(
      "the load generator runs on the same cores: its own CPU for each operation stands beside");
  notes.push_back(
      options.rate > 0
          ? "open loop: latency counts from the moment at which a request was due"
          : "closed loop: each client sends when it has been answered; throughput is the greatest "
            "at that number of clients, and latency that at such a load");
  notes.push_back(
      "native: the client library's public calls; exactly once is off but in the rows that say so "
      "(unary calls and etcd have none)");
  if (options.compare.goals) {
    std::string counts;
    for (const uint32_t clients : options.compare.etcd_clients) {
      counts += fmt::format("{}{}", counts.empty() ? "" : ", ", clients);
    }
    notes.push_back(fmt::format("etcd's best: the best median over {} clients", counts));
    notes.push_back("a ratio is that of the medians; in brackets, those of the single runs");
    if (options.compare.memory_keys > 0) {
      notes.push_back(
          fmt::format("memory: once, after {} keys and 30 s at most to become quiet; "
                      "etcd's holds its mapped database",
                      options.compare.memory_keys));
    }
  }
  if (std::ranges::any_of(options.workloads, [](const Workload& workload) {
        return workload.read == ReadLevel::kBounded;
      })) {
    notes.push_back("get-bounded: an etcd answers with its own state of any age, proving nothing");
  }
  return notes;
}

// One table's column of one target; null where it did not measure that.
struct Column {
  Target target;
  const StepRuns* step = nullptr;
};

struct Group {
  std::string title = {};
  std::vector<Column> columns = {};
};

// The footprint first, then the workloads; the goals' probes have a table of their own.
std::vector<Group> GroupsOf(const Options& options, const Comparison& comparison) {
  std::vector<Group> groups = {{.title = fmt::format("after {} keys", options.load)}};
  for (const ComparedTarget& target : comparison.targets) {
    groups[0].columns.push_back({.target = target.target, .step = &target.load});
  }
  for (const Workload& workload : options.workloads) {
    Group group{.title = workload.name};
    for (const ComparedTarget& target : comparison.targets) {
      const auto step = std::ranges::find_if(target.steps, [&](const StepRuns& candidate) {
        return !candidate.step.probe.has_value() && candidate.step.workload.name == workload.name;
      });
      group.columns.push_back(
          {.target = target.target, .step = step == target.steps.end() ? nullptr : &*step});
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

std::string TableText(const Group& group) {
  struct Side {
    Target target;
    std::vector<Spread> spreads = {};
    size_t runs = 0;
  };
  std::vector<Side> sides;
  std::string text = fmt::format("\n{:<18}{:<7}", group.title, "");
  for (const Column& column : group.columns) {
    Side side{.target = column.target};
    if (column.step != nullptr) {
      const auto runs = Succeeded(*column.step);
      side.runs = runs.size();
      if (!runs.empty()) side.spreads = SpreadOf(runs);
    }
    text += fmt::format("{:<28}", TargetName(side.target));
    sides.push_back(std::move(side));
  }
  const auto etcd = std::ranges::find(sides, Target::kEtcd, &Side::target);
  for (const Side& side : sides) {
    if (etcd == sides.end() || side.target == Target::kEtcd) continue;
    text += fmt::format("{:<26}", std::string(TargetKey(side.target)) + "/etcd");
  }
  std::vector<Spread> rows;
  for (const Side& side : sides) {
    if (side.spreads.size() > rows.size()) rows = side.spreads;
  }
  const auto find = [](const Side& side, const std::string& name) -> const Spread* {
    for (const Spread& spread : side.spreads) {
      if (spread.median.name == name) return &spread;
    }
    return nullptr;
  };
  for (const Spread& row : rows) {
    const std::string& name = row.median.name;
    text.erase(text.find_last_not_of(' ') + 1);
    text += fmt::format("\n  {:<16}{:<7}", name, row.median.unit);
    for (const Side& side : sides) {
      const Spread* spread = find(side, name);
      text += fmt::format("{:<28}", spread == nullptr ? "-" : Cell(*spread, side.runs));
    }
    for (const Side& side : sides) {
      if (etcd == sides.end() || side.target == Target::kEtcd) continue;
      const Spread* ours = find(side, name);
      const Spread* theirs = find(*etcd, name);
      text += fmt::format("{:<26}", ours == nullptr || theirs == nullptr
                                        ? ""
                                        : Verdict(*ours, *theirs, std::min(side.runs, etcd->runs)));
    }
  }
  text.erase(text.find_last_not_of(' ') + 1);
  return text + "\n";
}

// The figures behind the goals: what each step of each target reached.
std::string StepsText(const Comparison& comparison) {
  std::vector<std::vector<std::string>> lines = {
      {"", "", "op/s", "p50 ms", "p99 ms", "servers' CPU us/op", "others' cores", "errors"}};
  for (const ComparedTarget& target : comparison.targets) {
    for (const StepRuns& step : target.steps) {
      const auto runs = Succeeded(step);
      if (!step.step.probe.has_value() || runs.empty()) continue;
      const std::vector<Spread> spreads = SpreadOf(runs);
      std::vector<std::string> line = {TargetName(target.target), step.step.Title()};
      for (const char* name :
           {"throughput", "latency_p50", "latency_p99", "server_cpu", "others_cpu", "errors"}) {
        const auto it = std::ranges::find_if(
            spreads, [name](const Spread& spread) { return spread.median.name == name; });
        line.push_back(it == spreads.end() ? "-" : Cell(*it, runs.size()));
      }
      lines.push_back(std::move(line));
    }
  }
  return "\n" + AlignedText(lines);
}

// What other programs took from the measurement; "" if it was let alone.
std::string DisturbanceOf(const Comparison& comparison) {
  size_t steps = 0;
  size_t disturbed = 0;
  double most = 0;
  for (const ComparedTarget& target : comparison.targets) {
    for (const StepRuns& step : target.steps) {
      for (const std::vector<Metric>& run : Succeeded(step)) {
        const auto others = std::ranges::find(run, "others_cpu", &Metric::name);
        if (others == run.end()) continue;
        ++steps;
        most = std::max(most, others->value);
        if (others->value > kUndisturbedCores) ++disturbed;
      }
    }
  }
  if (disturbed == 0) return "";
  return fmt::format(
      "DISTURBED: other programs took more than {} cores in {} of {} measurements, at most {:.2f} "
      "cores; do not quote these figures",
      kUndisturbedCores, disturbed, steps, most);
}

std::vector<std::string> AllNotes(const Options& options, const Comparison& comparison) {
  std::vector<std::string> notes = NotesOf(options);
  if (std::string text = DisturbanceOf(comparison); !text.empty()) notes.push_back(std::move(text));
  return notes;
}

nlohmann::json ReportJson(const Options& options, const Hardware& hardware,
                          const Comparison& comparison) {
  nlohmann::json json = HeaderJson(options, hardware);
  json["notes"] = AllNotes(options, comparison);
  json["wrong"] = comparison.wrong;
  json["seconds"] = comparison.seconds;
  for (const ComparedTarget& target : comparison.targets) {
    nlohmann::json& side = json["sides"][TargetKey(target.target)];
    side["name"] = TargetName(target.target);
    side["version"] = target.version;
    const auto add = [&side](const std::string& title, const StepRuns& step) {
      const auto runs = Succeeded(step);
      side["steps"][title] = {{"clients", step.step.clients},
                              {"exactly_once", step.step.exactly_once},
                              {"runs", step.json}};
      if (!runs.empty()) side["steps"][title]["summary"] = SpreadJson(SpreadOf(runs));
    };
    add("footprint", target.load);
    for (const StepRuns& step : target.steps) add(step.step.Title(), step);
  }
  for (const Measurement& memory : comparison.memory) {
    for (const Metric& metric : memory.runs[0]) {
      json["memory"][memory.target == Target::kEtcd ? "etcd" : "holdfast"][metric.name] =
          metric.value;
    }
  }
  if (options.compare.goals) {
    json["goals"] = GoalsJson(GoalRows(MeasurementsOf(comparison), options.clients));
  }
  return json;
}

}  // namespace

BenchReport CompareReportOf(const Options& options, const Hardware& hardware,
                            const Comparison& comparison) {
  BenchReport report{.text = {}, .passed = comparison.wrong.empty()};
  if (options.json) {
    report.text = ReportJson(options, hardware, comparison).dump(2) + "\n";
    return report;
  }
  report.text = HeadOf(options, hardware, comparison);
  for (const std::string& note : AllNotes(options, comparison))
    report.text += "note      " + note + "\n";
  for (const Group& group : GroupsOf(options, comparison)) report.text += TableText(group);
  if (options.compare.goals) {
    report.text += StepsText(comparison);
    report.text += "\n" + GoalsText(GoalRows(MeasurementsOf(comparison), options.clients));
  }
  for (const std::string& wrong : comparison.wrong) report.text += "WRONG     " + wrong + "\n";
  return report;
}

HtmlReport CompareHtmlOf(const Options& options, const Hardware& hardware,
                         const Comparison& comparison) {
  HtmlReport html{.title = "Holdfast and etcd, side by side",
                  .head = HeadOf(options, hardware, comparison),
                  .notes = AllNotes(options, comparison)};
  for (const std::string& wrong : comparison.wrong) html.notes.push_back("WRONG: " + wrong);
  if (options.compare.goals) {
    html.goals = GoalRows(MeasurementsOf(comparison), options.clients);
  }
  // A section for each probe, with a curve for each target and number of clients.
  for (const Probe probe : {Probe::kPut, Probe::kGet, Probe::kOnePut, Probe::kStampedPut}) {
    HtmlSection section{.title = ProbeName(probe)};
    for (const ComparedTarget& target : comparison.targets) {
      for (const StepRuns& step : target.steps) {
        if (step.step.probe != probe || step.curve.series.empty()) continue;
        HtmlCurve curve = step.curve;
        curve.name = fmt::format("{}, {}", TargetName(target.target), step.step.clients);
        section.curves.push_back(std::move(curve));
      }
    }
    if (!section.curves.empty()) html.sections.push_back(std::move(section));
  }
  if (!html.sections.empty()) html.sections.back().text = StepsText(comparison);
  for (const Group& group : GroupsOf(options, comparison)) {
    HtmlSection section{.title = group.title, .text = TableText(group)};
    for (const Column& column : group.columns) {
      if (column.step == nullptr || column.step->curve.series.empty()) continue;
      HtmlCurve curve = column.step->curve;
      curve.name = TargetName(column.target);
      section.curves.push_back(std::move(curve));
    }
    html.sections.push_back(std::move(section));
  }
  return html;
}

}  // namespace holdfast::bench
