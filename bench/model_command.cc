#include "bench/model_command.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "bench/fan_out_model.h"
#include "bench/plot.h"
#include "bench/proc_stats.h"
#include "bench/report.h"
#include "bench/scale_model.h"
#include "bench/scale_parameters.h"
#include "bench/scale_simulation.h"

namespace holdfast::bench {
namespace {

constexpr uint64_t kSimulatedLeast = 50'000;  // operations of one simulation, and of each caller
constexpr uint64_t kSimulatedEach = 20;
constexpr int kManyCallers = 10'000;  // where the cluster, not the callers, is to be the limit
constexpr int kStreams = 16;

struct Path {
  std::string name;
  PathCosts costs;
  bool read = false;
  bool batched = false;
};

std::vector<Path> PathsOf(const ScaleParameters& parameters) {
  std::vector<Path> paths = {{"put, unary", parameters.unary_put, false, false},
                             {"get, unary", parameters.unary_get, true, false}};
  if (parameters.native_put) paths.push_back({"put, native", *parameters.native_put, false, true});
  if (parameters.native_get) paths.push_back({"get, native", *parameters.native_get, true, true});
  return paths;
}

LoadModel LoadOf(const Path& path, int callers, double value_bytes = 256) {
  return {.read = path.read,
          .batched = path.batched,
          .streams = path.batched ? kStreams : 1,
          .callers = callers,
          .key_bytes = 24,
          .value_bytes = value_bytes};
}

uint64_t OperationsOf(const LoadModel& load) {
  return std::max(kSimulatedLeast, kSimulatedEach * uint64_t(load.callers));
}

std::string CostText(const std::string& name, const StageCost& cost) {
  if (cost.batch_us + cost.op_us + cost.byte_us == 0) return "";
  return fmt::format("  {:<15}{:>10.2f}{:>10.3f}{:>12.3f}\n", name, cost.batch_us, cost.op_us,
                     cost.byte_us * 1024);
}

std::string CostsText(const std::vector<Path>& paths) {
  std::string text;
  for (const Path& path : paths) {
    const PathCosts& c = path.costs;
    text += fmt::format("\n{}: us of CPU\n  {:<15}{:>10}{:>10}{:>12}\n", path.name, "", "a batch",
                        "each", "each KiB");
    for (const auto& [name, cost] : {std::pair{"client", &c.client},
                                     {"door", &c.door},
                                     {"raft", &c.raft},
                                     {"send", &c.send},
                                     {"receive", &c.receive},
                                     {"follower raft", &c.follower_raft},
                                     {"log", &c.log},
                                     {"apply", &c.apply},
                                     {"answer", &c.answer},
                                     {"store", &c.store}}) {
      text += CostText(name, *cost);
    }
  }
  return text;
}

// The machine that `stages` measured: everything on its cores.
ClusterModel MeasuredMachine(double fsync_us, double cores) {
  ClusterModel cluster = EvenCluster(3, cores, fsync_us, 0);
  cluster.host_cores = {cores};
  for (PlaceModel& place : cluster.members) place.host = 0;
  cluster.client_host = 0;
  return cluster;
}

// Formulas, simulation and measurement side by side.
std::string CheckText(const ScaleParameters& parameters, const std::vector<StagePoint>& points,
                      uint64_t seed) {
  std::string text = fmt::format(
      "\nThe machine that was measured ({} cores, less what others took)\n"
      "  {:<22}{:>10}{:>10}{:>10}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}\n",
      ReadHardware().cores, "", "measured", "formulas", "simulated", "ms", "ms", "ms", "a fsync",
      "a fsync", "a fsync");
  for (const StagePoint& point : points) {
    if (point.workload == "idle") continue;
    const double cores = std::max(0.25, double(ReadHardware().cores) - point.other_cores);
    const ClusterModel cluster = MeasuredMachine(parameters.fsync_us, cores);
    for (const Path& path : PathsOf(parameters)) {
      if (path.name != point.workload + ", " + point.transport) continue;
      LoadModel load = LoadOf(path, int(point.clients), point.value_bytes);
      load.streams = 1;
      const Prediction formula = Predict(path.costs, cluster, load);
      const SimulationResult played = Simulate(path.costs, cluster, load, OperationsOf(load), seed);
      text += fmt::format(
          "  {:<12}{:>5} x {:<4.0f}{:>8.0f}{:>10.0f}{:>10.0f}{:>9.2f}{:>9.2f}{:>9.2f}"
          "{:>9.1f}{:>9.1f}{:>9.1f}\n",
          path.name, point.clients, point.value_bytes, point.rate, formula.rate, played.rate,
          point.mean_ms, formula.mean_us / 1e3, played.mean_us / 1e3,
          point.members.empty() ? 0 : point.members[0].entries_per_fsync, formula.log_batch,
          played.log_batch);
    }
  }
  return text;
}

std::string RowText(const std::string& name, const Path& path, const ClusterModel& cluster,
                    const LoadModel& load, uint64_t seed) {
  const Prediction formula = Predict(path.costs, cluster, load);
  const SimulationResult played = Simulate(path.costs, cluster, load, OperationsOf(load), seed);
  return fmt::format("  {:<30}{:>10.0f}{:>10.0f}{:>9.2f}{:>9.2f}{:>9.2f}{:>8.0f}  {}\n", name,
                     formula.rate, played.rate, formula.mean_us / 1e3, played.p50_us / 1e3,
                     played.p99_us / 1e3, formula.log_batch, formula.limit);
}

std::string HeadText(const std::string& title) {
  return fmt::format("\n{}\n  {:<30}{:>10}{:>10}{:>9}{:>9}{:>9}{:>8}  {}\n", title, "",
                     "formulas/s", "simul./s", "mean ms", "p50 ms", "p99 ms", "batch",
                     "what ends growth");
}

std::string CoresText(const std::vector<Path>& paths, uint64_t seed) {
  std::string text;
  for (const Path& path : paths) {
    text +=
        HeadText(fmt::format("{}: cores of each of three members; fsync 100 us, 0.1 ms apart, "
                             "{} callers",
                             path.name, kManyCallers));
    for (const int cores : {1, 2, 4, 8, 16, 32, 64}) {
      text += RowText(fmt::format("{} cores", cores), path, EvenCluster(3, cores, 100, 100),
                      LoadOf(path, kManyCallers), seed);
    }
    text += "  ceilings with 64 cores:";
    for (const Resource& resource :
         Predict(path.costs, EvenCluster(3, 64, 100, 100), LoadOf(path, kManyCallers)).resources) {
      text += fmt::format(" {} {:.0f}/s;", resource.name, resource.ceiling);
    }
    text.back() = '\n';
  }
  return text;
}

std::string DisksText(const std::vector<Path>& paths, uint64_t seed) {
  std::string text;
  for (const Path& path : paths) {
    if (path.read) continue;
    text += HeadText(path.name + ": disks; 8 cores, 0.1 ms apart");
    for (const int callers : {1, 100, 10'000}) {
      for (const double fsync_us : {20.0, 100.0, 1000.0, 10'000.0}) {
        text += RowText(fmt::format("fsync {:g} us, {} callers", fsync_us, callers), path,
                        EvenCluster(3, 8, fsync_us, 100), LoadOf(path, callers), seed);
      }
    }
  }
  return text;
}

struct Placement {
  std::string name;
  std::vector<double> from_leader_ms;  // of the followers
  double client_ms;
};

std::string PlacesText(const std::vector<Path>& paths, uint64_t seed) {
  const std::vector<Placement> placements = {{"3: one rack", {0.1, 0.1}, 0.1},
                                             {"3: three zones", {1, 1}, 1},
                                             {"3: two near, one at 30 ms", {1, 30}, 1},
                                             {"3: two near, one at 80 ms", {1, 80}, 1},
                                             {"3: three regions, 30 ms", {30, 30}, 1},
                                             {"3: three providers, 80 ms", {80, 80}, 1},
                                             {"5: zones of one region", {1, 1, 1, 1}, 1},
                                             {"5: three near, 30 and 80 ms", {1, 1, 30, 80}, 1},
                                             {"5: two near, three far", {1, 30, 30, 80}, 1},
                                             {"5: five regions, 30 to 80 ms", {30, 30, 80, 80}, 1},
                                             {"3: zones, caller 80 ms away", {1, 1}, 80}};
  std::string text;
  for (const Path& path : paths) {
    for (const int callers : {1, 10'000}) {
      text += HeadText(fmt::format("{}, {} callers: places of members; 8 cores, fsync 100 us",
                                   path.name, callers));
      for (const Placement& placement : placements) {
        ClusterModel cluster = EvenCluster(placement.from_leader_ms.size() + 1, 8, 100, 0);
        for (size_t i = 0; i < placement.from_leader_ms.size(); ++i) {
          cluster.rtt_us[0][i + 1] = placement.from_leader_ms[i] * 1000;
        }
        cluster.client_rtt_us = placement.client_ms * 1000;
        text += RowText(placement.name, path, cluster, LoadOf(path, callers), seed);
      }
    }
  }
  return text;
}

std::string SizesText(const std::vector<Path>& paths, uint64_t seed) {
  std::string text;
  for (const Path& path : paths) {
    if (path.read) continue;
    text +=
        HeadText(path.name + ": sizes of values; 8 cores, fsync 100 us, 1 GB/s, 10 Gbit/s, 1 ms");
    for (const double bytes : {64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0}) {
      text += RowText(fmt::format("{:g} B", bytes), path, EvenCluster(3, 8, 100, 1000),
                      LoadOf(path, 10'000, bytes), seed);
    }
  }
  return text;
}

std::string FanOutText(const CrowdCosts& costs) {
  std::string text = fmt::format(
      "\n100,000 clients, one prefix each, a mark a second; replicas of 8 cores, half busy at "
      "most\n"
      "  {:<26}{:>12}{:>10}{:>10}{:>10}{:>12}  {}\n",
      "changes to each, a second", "a member", "members", "cores", "MB/s", "memory MB", "limit");
  for (const double changes : {0.0, 0.1, 1.0, 10.0, 100.0, 1000.0}) {
    const FanOut fan = FanOutOf(costs, {.changes_a_second = changes}, {});
    text +=
        fmt::format("  {:<26g}{:>12.0f}{:>10.0f}{:>10.2f}{:>10.1f}{:>12.0f}  {}\n", changes,
                    fan.a_member, fan.members, fan.cores_used, fan.mb_s, fan.memory_mb, fan.limit);
  }
  return text;
}

std::string LearnersText(const std::vector<Path>& paths, uint64_t seed) {
  std::string text;
  for (const Path& path : paths) {
    if (path.read) continue;
    text += HeadText(path.name + ": learners fed by the leader; 8 cores, fsync 100 us, 1 ms");
    for (const size_t learners : {0, 1, 2, 5, 10, 20, 60}) {
      ClusterModel cluster = EvenCluster(3, 8, 100, 1000);
      cluster.learners = learners;
      text +=
          RowText(fmt::format("{} learners", learners), path, cluster, LoadOf(path, 10'000), seed);
    }
  }
  return text;
}

struct NamedStorm {
  std::string name;
  StormModel storm;
};

std::vector<NamedStorm> StormsOf() {
  const std::array<StormClass, 3> resume = {{{.share = 0.1}, {.share = 0.6}, {.share = 0.3}}};
  const std::array<StormClass, 3> whole = {{{.share = 0.1, .copy_bytes = 64e3},
                                            {.share = 0.6, .copy_bytes = 256e3},
                                            {.share = 0.3, .copy_bytes = 1e6}}};
  std::vector<NamedStorm> storms;
  for (const uint32_t members : {3u, 10u, 20u}) {
    storms.push_back(
        {fmt::format("{} members, all go on", members), {.members = members, .classes = resume}});
    storms.push_back(
        {fmt::format("{} members, whole copies", members), {.members = members, .classes = whole}});
  }
  return storms;
}

std::string StormsText(const CrowdCosts& costs, uint64_t seed,
                       std::vector<std::pair<std::string, StormResult>>* results) {
  std::string text = fmt::format(
      "\n100,000 clients come back after an outage (back-off at its longest, 30 s); copies of 64 "
      "kB "
      "auth (10 %), 256 kB config (60 %), 1 MB bulk (30 %)\n"
      "  {:<26}{:>10}{:>10}{:>10}{:>12}{:>12}{:>12}{:>10}{:>10}\n",
      "", "half, s", "95 %, s", "all, s", "auth all", "config all", "bulk all", "requests",
      "peak/s");
  for (const NamedStorm& one : StormsOf()) {
    const StormResult r = Storm(costs, one.storm, seed);
    text += fmt::format(
        "  {:<26}{:>10.1f}{:>10.1f}{:>10.1f}{:>12.1f}{:>12.1f}{:>12.1f}{:>10}{:>10.0f}\n", one.name,
        r.together.half, r.together.most, r.together.all, r.of_class[0].all, r.of_class[1].all,
        r.of_class[2].all, r.asked, r.peak_a_second);
    results->emplace_back(one.name, r);
  }
  return text;
}

constexpr PlotColor kColors[] = {PlotColor::kBlue,   PlotColor::kOrange, PlotColor::kGreen,
                                 PlotColor::kPurple, PlotColor::kRed,    PlotColor::kSky};

PlotLine LineOf(const std::string& name, size_t number) {
  PlotLine line;
  line.name = name;
  line.color = kColors[number % std::size(kColors)];
  line.dash = number % 2 == 0 ? PlotDash::kSolid : PlotDash::kDashed;
  line.gap = 1e12;
  return line;
}

PlotPanel CoresPanel(const Path& path) {
  PlotPanel panel{.title = path.name, .y_label = "thousands / s"};
  PlotLine line = LineOf("", 0);
  for (int cores = 1; cores <= 64; ++cores) {
    const Prediction p =
        Predict(path.costs, EvenCluster(3, cores, 100, 100), LoadOf(path, kManyCallers));
    line.points.push_back({double(cores), p.rate / 1e3});
    if (cores < 64) continue;
    for (const Resource& resource : p.resources) {
      if (resource.ceiling > 1.6 * p.rate || panel.limits.size() == 2) break;
      panel.limits.push_back({resource.ceiling / 1e3, resource.name});
    }
  }
  panel.lines.push_back(std::move(line));
  return panel;
}

PlotPanel DistancePanel(const Path& path) {
  PlotPanel panel{.title = path.name, .y_label = "thousands / s"};
  size_t number = 0;
  for (const int callers : {1000, 10'000, 100'000}) {
    PlotLine line = LineOf(fmt::format("{} callers", callers), number++);
    for (double rtt_ms = 1; rtt_ms <= 100; rtt_ms += 1) {
      ClusterModel cluster = EvenCluster(3, 8, 100, rtt_ms * 1000);
      cluster.client_rtt_us = 1000;
      line.points.push_back(
          {rtt_ms, Predict(path.costs, cluster, LoadOf(path, callers)).rate / 1e3});
    }
    panel.lines.push_back(std::move(line));
  }
  return panel;
}

absl::Status Draw(const Options& options, const std::vector<Path>& paths,
                  const std::vector<std::pair<std::string, StormResult>>& storms) {
  const std::string dir = options.model.out + "/";
  Plot cores{.title = "Cores of each member",
             .subtitle = fmt::format(
                 "three members, fsync 100 us, 0.1 ms apart, {} callers; formulas", kManyCallers),
             .x_label = "cores",
             .x_min = 0,
             .x_max = 64};
  Plot distance{
      .title = "Distance between the members",
      .subtitle = "three members of 8 cores, fsync 100 us, clients 1 ms from the leader; formulas",
      .x_label = "round trip, ms",
      .x_min = 0,
      .x_max = 100};
  for (const Path& path : paths) {
    cores.panels.push_back(CoresPanel(path));
    distance.panels.push_back(DistancePanel(path));
  }
  Plot storm{.title = "100,000 clients come back",
             .subtitle = "simulated with the members' own admission; back-off at its longest",
             .x_label = "seconds after the members are back",
             .x_min = 0,
             .x_max = 1};
  PlotPanel live{.title = "live", .y_label = "thousands of clients"};
  live.height = 1.6;
  for (size_t i = 0; i < storms.size(); ++i) {
    PlotLine line = LineOf(storms[i].first, i);
    const std::vector<double>& at = storms[i].second.live_at;
    for (size_t s = 0; s < at.size(); ++s) line.points.push_back({double(s), at[s] / 1e3});
    storm.x_max = std::max(storm.x_max, double(at.size()));
    live.lines.push_back(std::move(line));
  }
  storm.panels.push_back(std::move(live));
  for (Plot* plot : {&cores, &distance, &storm}) plot->footer = options.command_line;
  if (absl::Status status = WritePlot(cores, dir + "scaling-cores"); !status.ok()) return status;
  if (absl::Status status = WritePlot(distance, dir + "scaling-distance"); !status.ok())
    return status;
  return WritePlot(storm, dir + "scaling-storm");
}

}  // namespace

absl::StatusOr<BenchReport> ModelBench(const Options& options, const std::atomic<bool>& cancelled) {
  const auto points = ReadStages(options.model.stages);
  if (!points.ok()) return points.status();
  ScaleParameters parameters = BuiltInParameters();
  if (!points->empty()) {
    auto fitted = FitParameters(*points);
    if (!fitted.ok()) return fitted.status();
    parameters = *std::move(fitted);
  }
  const std::vector<Path> paths = PathsOf(parameters);
  const CrowdCosts crowd;
  BenchReport report;
  report.text = fmt::format("costs     {}; fsync of the measured disk {:.0f} us; seed {}\n",
                            parameters.source, parameters.fsync_us, options.seed);
  report.text += CostsText(paths);
  report.text += CheckText(parameters, *points, options.seed);
  if (options.model.check) return report;
  std::vector<std::pair<std::string, StormResult>> storms;
  for (const auto text : {&CoresText, &DisksText, &PlacesText, &SizesText, &LearnersText}) {
    report.text += text(paths, options.seed);
    if (cancelled) return absl::CancelledError("interrupted");
  }
  report.text += FanOutText(crowd) + StormsText(crowd, options.seed, &storms);
  if (options.model.out.empty()) return report;
  std::error_code error;
  std::filesystem::create_directories(options.model.out, error);
  if (absl::Status status = Draw(options, paths, storms); !status.ok()) return status;
  return report;
}

}  // namespace holdfast::bench
