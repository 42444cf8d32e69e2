#include "bench/compare.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/report.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;
// After the load: compactions and garbage collections that it started come to an end.
constexpr absl::Duration kSettleTime = absl::Seconds(3);

struct Side {
  std::string name;
  bool etcd = false;
  std::string version;
  // By workload, in its order; one list of metrics for each run.
  std::vector<std::vector<std::vector<Metric>>> runs;
  std::vector<nlohmann::json> json;
};

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

absl::Status TakeTurn(const Options& options, uint32_t run, const std::atomic<bool>& cancelled,
                      Side& side) {
  const auto progress = [&](const std::string& text) {
    fmt::print(stderr, "run {}/{} {:<9} {}\n", run + 1, options.runs, side.name, text);
  };
  auto cluster = StartLocal(options, side.etcd, cancelled);
  if (!cluster.ok()) return cluster.status();
  auto session = Session::Open(options, (*cluster)->Endpoints(), (*cluster)->Pids(), cancelled);
  if (!session.ok()) return session.status();
  side.version = (*session)->server_version();
  const auto load = (*session)->Load(options.load);
  if (!load.ok()) return load.status();
  absl::SleepFor(kSettleTime);
  side.runs[0].push_back(FootprintOf(**cluster, *load));
  progress(LoadText(*load).substr(std::string("load").size()));
  nlohmann::json json = {{"run", run}, {"side", side.name}, {"load", LoadJson(*load)}};
  for (const Metric& metric : side.runs[0].back()) json["footprint"][metric.name] = metric.value;
  for (size_t i = 0; i < options.workloads.size(); ++i) {
    const Workload& workload = options.workloads[i];
    const auto result = (*session)->RunOnce(workload, run);
    if (!result.ok()) return result.status();
    side.runs[i + 1].push_back(MetricsOf(*result));
    json["workloads"][workload.name] = RunJson(*result);
    progress(RunText(workload.name, *result).substr(1));
  }
  side.json.push_back(std::move(json));
  return absl::OkStatus();
}

std::string TableText(const std::string& title, const std::vector<Spread>& a,
                      const std::vector<Spread>& b, size_t runs) {
  std::string text =
      fmt::format("\n{:<18}{:<7}{:<28}{:<28}{}\n", title, "", "holdfast", "etcd", "holdfast/etcd");
  for (size_t i = 0; i < a.size(); ++i) {
    text += fmt::format("  {:<16}{:<7}{:<28}{:<28}{}\n", a[i].median.name, a[i].median.unit,
                        Cell(a[i], runs), Cell(b[i], runs), Verdict(a[i], b[i], runs));
  }
  return text;
}

std::string BinaryText(const std::string& name, const Side& side, const std::string& binary,
                       int members, const std::vector<std::string>& args) {
  std::string text =
      fmt::format("{:<10}{} version {}, {} members", name, binary, side.version, members);
  for (const std::string& arg : args) text += " " + arg;
  return text + "\n";
}

std::string ReportText(const Options& options, const Hardware& hardware, const Side& a,
                       const Side& b) {
  std::string text = HeaderText(options, hardware);
  text += BinaryText("holdfast", a, options.holdfastd, options.local, options.holdfastd_args);
  text += BinaryText("etcd", b, options.etcd, options.local_etcd, options.etcd_args);
  text += fmt::format(
      "load      {} clients, keys of {} B, values of {} B, {} keys; {} turns each\n",
      options.clients, options.key_size, options.value_size, options.load, options.runs);
  for (size_t i = 0; i < a.runs.size(); ++i) {
    const std::string title =
        i == 0 ? fmt::format("{} keys", options.load) : options.workloads[i - 1].name;
    text += TableText(title, SpreadOf(a.runs[i]), SpreadOf(b.runs[i]), options.runs);
  }
  return text;
}

nlohmann::json ReportJson(const Options& options, const Hardware& hardware, const Side& a,
                          const Side& b) {
  nlohmann::json json = HeaderJson(options, hardware);
  for (const Side* side : {&a, &b}) {
    nlohmann::json& out = json["sides"][side->name];
    out["version"] = side->version;
    out["runs"] = side->json;
    for (size_t i = 0; i < side->runs.size(); ++i) {
      const std::string title = i == 0 ? "footprint" : options.workloads[i - 1].name;
      out["summary"][title] = SpreadJson(SpreadOf(side->runs[i]));
    }
  }
  return json;
}

}  // namespace

absl::StatusOr<std::string> Compare(const Options& options, const std::atomic<bool>& cancelled) {
  const Hardware hardware = ReadHardware();
  Side a{.name = "holdfast", .etcd = false, .version = {}, .runs = {}, .json = {}};
  Side b{.name = "etcd", .etcd = true, .version = {}, .runs = {}, .json = {}};
  for (Side* side : {&a, &b}) side->runs.resize(options.workloads.size() + 1);
  for (uint32_t run = 0; run < options.runs; ++run) {
    for (Side* side : {&a, &b}) {
      const absl::Status status = TakeTurn(options, run, cancelled, *side);
      if (!status.ok()) {
        return absl::Status(status.code(),
                            base::ToAbsl(fmt::format("{}: {}", side->name, base::Message(status))));
      }
    }
  }
  if (options.json) return ReportJson(options, hardware, a, b).dump(2) + "\n";
  return ReportText(options, hardware, a, b);
}

}  // namespace holdfast::bench
