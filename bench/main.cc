// holdfast-bench: see docs/bench.md.
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "base/strings.h"
#include "bench/catchup.h"
#include "bench/compaction.h"
#include "bench/compare.h"
#include "bench/drills/drills.h"
#include "bench/drills/service.h"
#include "bench/endpoint.h"
#include "bench/failover.h"
#include "bench/html_report.h"
#include "bench/lease.h"
#include "bench/members.h"
#include "bench/mirror.h"
#include "bench/model_command.h"
#include "bench/options.h"
#include "bench/report.h"
#include "bench/scale.h"
#include "bench/session.h"
#include "bench/stage_cost.h"
#include "bench/watch.h"

namespace holdfast::bench {
namespace {

constexpr int kFailure = 1;
constexpr int kInterrupted = 130;

// Set by the first SIGINT or SIGTERM: the run unwinds, and with it go servers and their files.
std::atomic<bool> cancelled{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// At the second one the process ends at once; started servers die with it.
void OnSignal(int) {
  if (cancelled.exchange(true)) _exit(kInterrupted);
}

void InstallSignalHandlers() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

int Fail(const absl::Status& status) {
  fmt::print(stderr, "holdfast-bench: {}\n", base::Message(status));
  return absl::IsCancelled(status) ? kInterrupted : kFailure;
}

std::string RunTitle(const Workload& workload, const Options& options, uint32_t run) {
  return fmt::format("{} {}/{}", workload.name, run + 1, options.runs);
}

std::string TargetText(const Options& options, const Session& session) {
  std::string targets;
  for (const std::string& target : session.targets()) targets += " " + target;
  const std::string loop =
      options.rate > 0 ? fmt::format("open loop of {}{} op/s", options.poisson ? "poisson " : "",
                                     ShortNumber(options.rate))
                       : "closed loop";
  const std::string carriers =
      options.api == Api::kNative
          ? fmt::format("client library, {} clients of it, exactly once {}", options.native_clients,
                        options.exactly_once ? "on" : "off")
          : fmt::format("{} connections, {} threads", session.connections(), options.threads);
  return fmt::format(
      "server   {} version {}\nload      {}, {} clients, {}; "
      "keys of {} B, values of {} B, {} keys\n",
      targets, session.server_version(), loop, options.clients, carriers, options.key_size,
      options.value_size, options.key_space);
}

absl::Status Measure(const Options& options, Session& session) {
  const Hardware hardware = ReadHardware();
  nlohmann::json json = HeaderJson(options, hardware);
  const auto print = [&options](const std::string& text) {
    if (options.json) return;
    fmt::print("{}", text);
    std::fflush(stdout);
  };
  print(HeaderText(options, hardware) + TargetText(options, session));
  json["targets"] = session.targets();
  json["server_version"] = session.server_version();
  if (options.load > 0) {
    const auto load = session.Load(options.load);
    if (!load.ok()) return load.status();
    print(LoadText(*load));
    json["load"] = LoadJson(*load);
  }
  uint64_t ok = 0;
  HtmlReport html = {.title = "holdfast-bench",
                     .head = HeaderText(options, hardware) + TargetText(options, session)};
  for (const Workload& workload : options.workloads) {
    std::vector<std::vector<Metric>> runs;
    HtmlSection section = {.title = workload.name};
    for (uint32_t run = 0; run < options.runs; ++run) {
      const auto result = session.RunOnce({.workload = workload,
                                           .run = run,
                                           .api = options.api,
                                           .exactly_once = options.exactly_once});
      if (!result.ok()) return result.status();
      print(RunText(RunTitle(workload, options, run), *result));
      json["runs"].push_back(RunJson(*result));
      json["runs"].back()["workload"] = workload.name;
      runs.push_back(MetricsOf(*result));
      ok += result->stats.ok();
      section.curves.push_back(CurveOf(fmt::format("run {}", run + 1), *result));
    }
    const std::vector<Spread> spreads = SpreadOf(runs);
    if (options.runs > 1) print(SpreadText(spreads, runs.size()));
    json["workloads"][workload.name] = SpreadJson(spreads);
    if (options.workloads.size() == 1) json["summary"] = SpreadJson(spreads);
    section.text = SpreadText(spreads, runs.size());
    html.sections.push_back(std::move(section));
  }
  if (!options.html.empty()) {
    if (absl::Status status = WriteHtml(html, options.html); !status.ok()) return status;
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  return ok > 0 ? absl::OkStatus() : absl::UnavailableError("no request succeeded");
}

int RunAgainstCluster(const Options& options) {
  std::unique_ptr<LocalCluster> cluster;
  std::vector<std::string> endpoints;
  std::vector<pid_t> pids = options.pids;
  if (options.endpoints.empty()) {
    auto started = StartLocal(options, options.local_etcd > 0, cancelled);
    if (!started.ok()) return Fail(started.status());
    cluster = *std::move(started);
    endpoints = cluster->Endpoints();
    pids = cluster->Pids();
  } else {
    auto parsed = ParseEndpoints(options.endpoints);
    if (!parsed.ok()) return Fail(parsed.status());
    endpoints = *std::move(parsed);
  }
  auto session = Session::Open(options, endpoints, pids, cancelled);
  if (!session.ok()) return Fail(session.status());
  const absl::Status status = Measure(options, **session);
  return status.ok() ? 0 : Fail(status);
}

absl::StatusOr<BenchReport> Passed(const absl::StatusOr<std::string>& text) {
  if (!text.ok()) return text.status();
  return BenchReport{.text = *text, .passed = true};
}

absl::StatusOr<BenchReport> RunCommand(const Options& options) {
  switch (options.command) {
    case Command::kFailover:
      return Passed(Failover(options, cancelled));
    case Command::kCatchup:
      return Passed(Catchup(options, cancelled));
    case Command::kMembers:
      return Passed(Members(options, cancelled));
    case Command::kWatch:
      return WatchBench(options, cancelled);
    case Command::kScale:
      return ScaleBench(options, cancelled);
    case Command::kCompaction:
      return CompactionBench(options, cancelled);
    case Command::kLease:
      return LeaseBench(options, cancelled);
    case Command::kMirror:
      return MirrorBench(options, cancelled);
    case Command::kDrill:
      return RunDrills(options, cancelled);
    case Command::kStages:
      return StagesBench(options, cancelled);
    case Command::kModel:
      return ModelBench(options, cancelled);
    default:
      return Compare(options, cancelled);
  }
}

int Main(int argc, char** argv) {
  // A service that a drill plays in a process of its own; not for people.
  if (argc > 1 && std::string_view(argv[1]) == kServiceCommand) {
    return RunService(std::vector<std::string>(argv + 2, argv + argc));
  }
  const ParseResult parsed = ParseCommandLine(std::vector<std::string>(argv + 1, argv + argc));
  if (!parsed.run) {
    fmt::print(parsed.exit_code == 0 ? stdout : stderr, "{}", parsed.text);
    return parsed.exit_code;
  }
  // Debian builds Abseil with deadlock detection on: a global lock and a graph for each Mutex.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  InstallSignalHandlers();
  switch (parsed.options.command) {
    case Command::kPut:
    case Command::kGet:
    case Command::kMixed:
    case Command::kRun:
      return RunAgainstCluster(parsed.options);
    default:
      break;
  }
  const absl::StatusOr<BenchReport> report = RunCommand(parsed.options);
  if (!report.ok()) return Fail(report.status());
  fmt::print("{}", report->text);
  return report->passed ? 0 : kFailure;
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) { return holdfast::bench::Main(argc, argv); }
