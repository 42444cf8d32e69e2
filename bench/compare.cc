#include "bench/compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <utility>

#include "base/strings.h"
#include "bench/monotonic.h"
#include "bench/report.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;
// After a load, compactions and collections that it started come to an end, within this.
constexpr absl::Duration kSettleLimit = absl::Seconds(10);
constexpr absl::Duration kMemorySettleLimit = absl::Seconds(30);

// Memory and disk of the whole cluster right after loading: "at that many keys".
std::vector<Metric> FootprintOf(const LocalCluster& cluster, const LoadResult& load) {
  double rss_bytes = 0;
  double anon_bytes = 0;
  for (const pid_t pid : cluster.Pids()) {
    const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(pid);
    if (!usage.ok()) continue;
    rss_bytes += double(usage->rss_bytes);
    anon_bytes += double(usage->rss_anon_bytes);
  }
  return {{.name = "load",
           .unit = "keys/s",
           .value = load.seconds > 0 ? double(load.keys) / load.seconds : 0,
           .better = Better::kHigher},
          {.name = "rss", .unit = "MiB", .value = rss_bytes / kMebibyte, .better = Better::kLower},
          {.name = "rss_anon",
           .unit = "MiB",
           .value = anon_bytes / kMebibyte,
           .better = Better::kLower},
          {.name = "disk",
           .unit = "MiB",
           .value = double(cluster.DiskBytes()) / kMebibyte,
           .better = Better::kLower}};
}

nlohmann::json MetricsJson(const std::vector<Metric>& metrics) {
  nlohmann::json json;
  for (const Metric& metric : metrics) json[metric.name] = metric.value;
  return json;
}

class Comparer {
 public:
  Comparer(const Options& options, const std::atomic<bool>& cancelled)
      : options_(options), cancelled_(cancelled) {
    for (const Target target : options.compare.targets) {
      ComparedTarget compared{.target = target};
      for (const Step& step : StepsOf(options, target)) {
        compared.steps.push_back({.step = step});
      }
      result_.targets.push_back(std::move(compared));
    }
  }

  absl::StatusOr<Comparison> Run() {
    const int64_t begin_ns = MonotonicNs();
    for (uint32_t run = 0; run < options_.runs; ++run) {
      for (const Target target : TurnsOf(options_, run)) {
        ComparedTarget& compared =
            *std::ranges::find(result_.targets, target, &ComparedTarget::target);
        absl::Status status = TakeTurn(run, compared);
        if (absl::IsCancelled(status)) return status;
        if (!status.ok()) Wrong(fmt::format("run {}, {}", run + 1, TargetName(target)), status);
        CloseRun(run, compared);
      }
    }
    if (options_.compare.goals && options_.compare.memory_keys > 0) {
      for (const Target target : MemoryTargets()) {
        absl::Status status = MeasureMemory(target);
        if (absl::IsCancelled(status)) return status;
        if (!status.ok()) Wrong(fmt::format("memory, {}", TargetName(target)), status);
      }
    }
    result_.seconds = double(MonotonicNs() - begin_ns) * 1e-9;
    return std::move(result_);
  }

 private:
  static void Say(const std::string& text) {
    fmt::print(stderr, "{}\n", text);
    std::fflush(stderr);
  }

  void Wrong(const std::string& where, const absl::Status& status) {
    result_.wrong.push_back(fmt::format("{}: {}", where, base::Message(status)));
    Say("WRONG  " + result_.wrong.back());
  }

  absl::Status TakeTurn(uint32_t run, ComparedTarget& compared) {
    const std::string who =
        fmt::format("run {}/{}  {:<16}", run + 1, options_.runs, TargetName(compared.target));
    auto cluster = StartLocal(options_, compared.target == Target::kEtcd, cancelled_);
    if (!cluster.ok()) return cluster.status();
    auto session = Session::Open(options_, (*cluster)->Endpoints(), (*cluster)->Pids(), cancelled_);
    if (!session.ok()) return session.status();
    compared.version = (*session)->server_version();
    const auto load = (*session)->Load(options_.load);
    if (!load.ok()) return load.status();
    const auto settled = SleepUntilQuiet((*cluster)->Pids(), kSettleLimit, cancelled_);
    if (!settled.ok()) return settled.status();
    compared.load.runs.push_back(FootprintOf(**cluster, *load));
    compared.load.json.push_back(MetricsJson(compared.load.runs.back()));
    for (StepRuns& step : compared.steps) {
      absl::Status status = TakeStep(run, who, compared.target, **session, step);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // A step that does not succeed once is an error; one with a few failures tells them as "errors".
  absl::Status TakeStep(uint32_t run, const std::string& who, Target target, Session& session,
                        StepRuns& out) {
    const Step& step = out.step;
    const auto result =
        session.RunOnce({.workload = step.workload,
                         .run = run,
                         .api = target == Target::kNative ? Api::kNative : Api::kUnary,
                         .exactly_once = step.exactly_once,
                         .clients = step.clients});
    if (!result.ok()) {
      return absl::Status(
          result.status().code(),
          base::ToAbsl(fmt::format("{}: {}", step.Title(), base::Message(result.status()))));
    }
    if (result->stats.ok() == 0) {
      std::string why = "none succeeded";
      for (const auto& [code, error] : result->stats.errors()) {
        why =
            fmt::format("none succeeded, {} x {}: {}", error.count, CodeName(code), error.example);
      }
      return absl::UnavailableError(base::ToAbsl(fmt::format("{}: {}", step.Title(), why)));
    }
    out.runs.push_back(MetricsOf(*result));
    out.json.push_back(RunJson(*result));
    AddRun(*result, out.curve);
    Say(fmt::format("{}  {:<28}{:>9} op/s  p50 {} ms  p99 {} ms", who, step.Title(),
                    ShortNumber(result->stats.Throughput()),
                    ShortNumber(double(result->stats.AllLatencies().QuantileNs(0.5)) * 1e-6),
                    ShortNumber(double(result->stats.AllLatencies().QuantileNs(0.99)) * 1e-6)));
    return absl::OkStatus();
  }

  // What a failed turn has not measured is a run without metrics: runs stay those of their turn.
  static void CloseRun(uint32_t run, ComparedTarget& compared) {
    const auto close = [run](StepRuns& step) {
      if (step.runs.size() > run) return;
      step.runs.emplace_back();
      step.json.push_back(nullptr);
    };
    close(compared.load);
    for (StepRuns& step : compared.steps) close(step);
  }

  // Of the two ways to a Holdfast one is enough: it is the same server.
  std::vector<Target> MemoryTargets() const {
    std::vector<Target> targets;
    for (const Target target : options_.compare.targets) {
      const Target server = target == Target::kNative ? Target::kUnary : target;
      if (std::ranges::find(targets, server) == targets.end()) targets.push_back(server);
    }
    return targets;
  }

  absl::Status MeasureMemory(Target target) {
    Options options = options_;
    options.load = options.key_space = options.compare.memory_keys;
    auto cluster = StartLocal(options, target == Target::kEtcd, cancelled_);
    if (!cluster.ok()) return cluster.status();
    auto session = Session::Open(options, (*cluster)->Endpoints(), (*cluster)->Pids(), cancelled_);
    if (!session.ok()) return session.status();
    const auto load = (*session)->Load(options.load);
    if (!load.ok()) return load.status();
    const auto settled = SleepUntilQuiet((*cluster)->Pids(), kMemorySettleLimit, cancelled_);
    if (!settled.ok()) return settled.status();
    Measurement measured{.probe = Probe::kMemory, .target = target};
    const Memory memory = LargestMemory((*cluster)->Pids());
    measured.runs.push_back({{.name = "rss", .unit = "MiB", .value = memory.rss_mib},
                             {.name = "rss_anon", .unit = "MiB", .value = memory.anon_mib}});
    result_.memory.push_back(std::move(measured));
    Say(
        fmt::format("memory   {:<16}  {} keys in {:.1f} s: largest member {:.0f} MiB, {:.0f} of "
                    "them anonymous",
                    target == Target::kEtcd ? "etcd" : "holdfast", load->keys, load->seconds,
                    memory.rss_mib, memory.anon_mib));
    return absl::OkStatus();
  }

  const Options& options_;
  const std::atomic<bool>& cancelled_;
  Comparison result_;
};

// Ascending, with that of the unary rows among them.
std::set<uint32_t> EtcdClients(const Options& options) {
  std::set<uint32_t> clients(options.compare.etcd_clients.begin(),
                             options.compare.etcd_clients.end());
  clients.insert(options.clients);
  return clients;
}

}  // namespace

std::string TargetName(Target target) {
  switch (target) {
    case Target::kNative:
      return "holdfast native";
    case Target::kUnary:
      return "holdfast unary";
    case Target::kEtcd:
      return "etcd";
  }
  return "";
}

const char* TargetKey(Target target) {
  switch (target) {
    case Target::kNative:
      return "native";
    case Target::kUnary:
      return "unary";
    case Target::kEtcd:
      return "etcd";
  }
  return "";
}

std::string Step::Title() const {
  if (!probe.has_value()) return workload.name;
  return fmt::format("{} at {} client{}", ProbeName(*probe), clients, clients == 1 ? "" : "s");
}

std::vector<Step> StepsOf(const Options& options, Target target) {
  std::vector<Step> steps;
  const auto add = [&steps](Probe probe, uint32_t clients) {
    steps.push_back({.workload = probe == Probe::kGet ? GetWorkload() : PutWorkload(),
                     .probe = probe,
                     .clients = clients,
                     .exactly_once = probe == Probe::kStampedPut});
  };
  if (options.compare.goals) {
    std::set<uint32_t> many = {options.clients};
    if (target == Target::kNative) many = {options.compare.native_callers};
    if (target == Target::kEtcd) many = EtcdClients(options);
    for (const uint32_t clients : many) add(Probe::kGet, clients);
    add(Probe::kOnePut, 1);
    for (const uint32_t clients : many) add(Probe::kPut, clients);
    if (target == Target::kNative) add(Probe::kStampedPut, options.compare.native_callers);
  }
  std::vector<Workload> workloads = options.workloads;
  std::ranges::stable_partition(workloads,
                                [](const Workload& workload) { return workload.value_size == 0; });
  for (const Workload& workload : workloads) {
    if (workload.read == ReadLevel::kMirror && target != Target::kNative) continue;
    steps.push_back({.workload = workload, .clients = options.clients});
  }
  return steps;
}

std::vector<Target> TurnsOf(const Options& options, uint32_t run) {
  std::vector<Target> turns = options.compare.targets;
  std::ranges::rotate(turns, turns.begin() + std::ptrdiff_t(run % turns.size()));
  return turns;
}

absl::StatusOr<BenchReport> Compare(const Options& options, const std::atomic<bool>& cancelled) {
  const Hardware hardware = ReadHardware();
  // Written at once, so that ten minutes do not end at a name that cannot be written.
  if (!options.html.empty()) {
    absl::Status status = WriteHtml({.title = "under way"}, options.html);
    if (!status.ok()) return status;
  }
  const absl::StatusOr<Comparison> comparison = Comparer(options, cancelled).Run();
  if (!comparison.ok()) return comparison.status();
  if (!options.html.empty()) {
    absl::Status status = WriteHtml(CompareHtmlOf(options, hardware, *comparison), options.html);
    if (!status.ok()) return status;
  }
  return CompareReportOf(options, hardware, *comparison);
}

}  // namespace holdfast::bench
