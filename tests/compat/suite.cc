#include "suite.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <ostream>
#include <regex>
#include <set>
#include <string_view>
#include <thread>

#include "absl/strings/str_join.h"
#include "session.h"

namespace holdfast::compat {
namespace {

namespace fs = std::filesystem;

using Outcomes = std::vector<Outcome>;  // of a case, by step

class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (fs::temp_directory_path() / "holdfast-compat-XXXXXX").string();
    if (mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One server's answers to all cases of a group.
std::vector<Outcomes> RunSide(const Group& group, const std::string& binary, bool ours) {
  std::vector<Outcomes> all;
  const auto target = Target::Start(binary, group);
  bool alive = target.ok();
  for (size_t i = 0; i < group.cases.size(); ++i) {
    const Case& one = group.cases[i];
    alive = alive && (*target)->MakeReady() && (*target)->LeadFromFirst();
    if (!alive) {
      const std::string why = target.ok()
                                  ? "the server has ended: " + (*target)->cluster().LogTail(0)
                                  : target.status().ToString();
      all.emplace_back(one.steps.size(), Outcome{"BROKEN: " + why, true});
      continue;
    }
    const ScratchDirectory scratch;
    Session session(**target, one, int(i), scratch.path());
    Outcomes outcomes;
    for (const Step& step : one.steps) {
      outcomes.push_back(step.ours_only && !ours ? Outcome{} : session.Run(step));
    }
    all.push_back(std::move(outcomes));
  }
  return all;
}

std::string Indented(std::string_view label, const std::string& text) {
  std::string out = fmt::format("    {:9}", label);
  for (const char c : text) {
    out += c;
    if (c == '\n') out += "             ";
  }
  return out + "\n";
}

// Empty: as it must be.
std::string Compare(const Step& step, const Outcome& etcd, const Outcome& ours, bool self) {
  const std::string wanted = absl::StrJoin(step.ours, "\n");
  std::string what;
  if (etcd.broken || ours.broken) {
    what = "not carried out";
  } else if (self || step.ours.empty()) {
    if (!(self && step.ours_only) && etcd.text != ours.text) what = "different";
  } else if (step.ours_is_regex ? !std::regex_match(ours.text, std::regex(wanted))
                                : ours.text != wanted) {
    what = "not the intended difference";
  } else if (!step.ours_only && etcd.text == ours.text) {
    what = "no difference any more";
  }
  if (what.empty()) return "";
  std::string report = fmt::format("  line {}: {}: {}\n", step.line, what, step.text);
  report += Indented("etcd:", etcd.text) + Indented("holdfast:", ours.text);
  if (!step.ours.empty() && !self) report += Indented("intended:", wanted);
  return report;
}

CaseResult Judge(const Case& one, const Outcomes& etcd, const Outcomes& ours, bool self) {
  CaseResult result{.name = one.name,
                    .area = one.area,
                    .title = one.title,
                    .where = fmt::format("{}:{}", one.file, one.line),
                    .verdict = one.differs() && !self ? Verdict::kDifferent : Verdict::kEqual,
                    .answers = "",
                    .report = ""};
  for (size_t i = 0; i < one.steps.size(); ++i) {
    result.answers += fmt::format("  {}\n", one.steps[i].text) + Indented("", etcd[i].text);
    result.report += Compare(one.steps[i], etcd[i], ours[i], self);
  }
  if (!result.report.empty()) result.verdict = Verdict::kFailed;
  return result;
}

bool Wanted(const std::string& name, const std::string& only) {
  return name.find(only) != std::string::npos;
}

}  // namespace

std::vector<CaseResult> RunGroup(const Group& group, const SuiteOptions& options) {
  std::vector<Outcomes> etcd, ours;
  // Threads of their own: the kernel ends a member when the thread that started it ends.
  std::thread other([&] { etcd = RunSide(group, options.etcd, false); });
  ours = RunSide(group, options.self ? options.etcd : options.holdfastd, !options.self);
  other.join();
  std::vector<CaseResult> results;
  for (size_t i = 0; i < group.cases.size(); ++i) {
    results.push_back(Judge(group.cases[i], etcd[i], ours[i], options.self));
  }
  return results;
}

absl::StatusOr<std::vector<CaseResult>> RunSuite(const SuiteOptions& options, std::ostream& out) {
  absl::StatusOr<std::vector<Group>> loaded = LoadCases(options.cases_dir);
  if (!loaded.ok()) return loaded.status();
  std::vector<Group> groups = *std::move(loaded);
  std::erase_if(groups, [&](const Group& group) {
    return std::ranges::none_of(group.cases,
                                [&](const Case& one) { return Wanted(one.name, options.only); });
  });
  std::vector<std::vector<CaseResult>> by_group(groups.size());
  std::atomic<size_t> next = 0;
  std::mutex printing;
  std::vector<std::thread> workers;
  for (int i = 0; i < std::max(1, options.parallel); ++i) {
    workers.emplace_back([&] {
      for (size_t at; (at = next++) < groups.size();) {
        std::vector<CaseResult> results = RunGroup(groups[at], options);
        std::erase_if(results,
                      [&](const CaseResult& one) { return !Wanted(one.name, options.only); });
        const std::lock_guard<std::mutex> lock(printing);
        for (const CaseResult& one : results) {
          static constexpr const char* kWords[] = {"equal", "different with a reason", "FAILED"};
          if (options.verbose || options.answers || one.verdict == Verdict::kFailed) {
            out << fmt::format("{:24}{}: {} ({})\n", kWords[int(one.verdict)], one.name, one.title,
                               one.where)
                << (options.answers ? one.answers : "") << one.report;
          }
        }
        by_group[at] = std::move(results);
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  std::vector<CaseResult> all;
  for (std::vector<CaseResult>& results : by_group) {
    std::ranges::move(results, std::back_inserter(all));
  }
  out << CompatTable(all) << std::flush;
  return all;
}

std::string CompatTable(const std::vector<CaseResult>& results) {
  std::vector<std::string> areas;
  for (const CaseResult& one : results) {
    if (std::ranges::find(areas, one.area) == areas.end()) areas.push_back(one.area);
  }
  std::string table = fmt::format("{:18}{:>7}{:>8}{:>26}{:>8}\n", "area", "cases", "equal",
                                  "different with a reason", "failed");
  const auto row = [&](const std::string& title, const std::string& area) {
    int counts[3] = {};
    for (const CaseResult& one : results) {
      if (area.empty() || one.area == area) ++counts[int(one.verdict)];
    }
    table += fmt::format("{:18}{:>7}{:>8}{:>26}{:>8}\n", title, counts[0] + counts[1] + counts[2],
                         counts[0], counts[1], counts[2]);
  };
  for (const std::string& area : areas) row(area, area);
  row("all", "");
  return table;
}

}  // namespace holdfast::compat
