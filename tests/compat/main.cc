// holdfast-compat: what an etcd client finds here, beside a real etcd.
//
// Exit codes: 0 equal or different with a reason, 1 a difference without one, 2 bad usage, 77 no
// etcd on this machine (ctest counts that as skipped).
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "bench/local_cluster.h"
#include "suite.h"

namespace holdfast::compat {
namespace {

constexpr int kFailed = 1;
constexpr int kBadUsage = 2;
constexpr int kSkipped = 77;

int List(const SuiteOptions& options) {
  const auto groups = LoadCases(options.cases_dir);
  if (!groups.ok()) {
    std::cerr << groups.status() << "\n";
    return kFailed;
  }
  for (const Group& group : *groups) {
    for (const Case& one : group.cases) {
      if (one.name.find(options.only) == std::string::npos) continue;
      std::cout << fmt::format("{:14}{:12}{}: {}{}\n", one.area, group.server, one.name, one.title,
                               one.differs() ? " (differs on purpose)" : "");
    }
  }
  return 0;
}

int Main(int argc, char** argv) {
  SuiteOptions options;
  options.cases_dir = COMPAT_CASES_DIR;
  options.holdfastd = bench::BinaryBesideOwn("holdfastd");
  bool list = false;
  CLI::App app(
      "The same requests to a real etcd and to Holdfast, and where the answers differ.\n"
      "tests/README.md says how the cases are written.");
  app.add_option("--cases", options.cases_dir, "Directory of the *.cases");
  app.add_option("--etcd", options.etcd, "etcd's server");
  app.add_option("--holdfastd", options.holdfastd, "Holdfast's server");
  app.add_option("--only", options.only, "Cases whose name contains this");
  app.add_option("--parallel", options.parallel, "Groups of cases at a time");
  app.add_flag("--self", options.self, "etcd beside etcd: shows what the masks leave over");
  app.add_flag("--verbose", options.verbose, "Print every case");
  app.add_flag("--answers", options.answers, "Print every step with etcd's answer");
  app.add_flag("--list", list, "Name the cases and stop");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  }
  if (list) return List(options);
  if (access(options.etcd.c_str(), X_OK) != 0) {
    std::cout << options.etcd << " is not here: nothing to compare with\n";
    return kSkipped;
  }
  const auto results = RunSuite(options, std::cout);
  if (!results.ok()) {
    std::cerr << results.status() << "\n";
    return kFailed;
  }
  const bool failed = std::ranges::any_of(
      *results, [](const CaseResult& one) { return one.verdict == Verdict::kFailed; });
  return failed || results->empty() ? kFailed : 0;
}

}  // namespace
}  // namespace holdfast::compat

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  return holdfast::compat::Main(argc, argv);
}
