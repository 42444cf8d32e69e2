#include "bench/side_by_side.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/endpoint.h"
#include "bench/monotonic.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;
constexpr absl::Duration kStatusTimeout = absl::Seconds(5);
constexpr absl::Duration kPoll = absl::Milliseconds(10);
constexpr absl::Duration kQuietFor = absl::Seconds(2);
constexpr double kQuietCores = 0.1;

// One metric of one side, over its turns.
const Spread* Find(const std::vector<Spread>& spreads, const std::string& name) {
  const auto it = std::ranges::find_if(
      spreads, [&name](const Spread& spread) { return spread.median.name == name; });
  return it == spreads.end() ? nullptr : &*it;
}

// Of the turns that have the table; a turn that failed half-way may lack it.
std::vector<std::vector<Metric>> RunsOf(const SideTurns& side, const std::string& title) {
  std::vector<std::vector<Metric>> runs;
  for (const Turn& turn : side.turns) {
    for (const Table& table : turn.tables) {
      if (table.title == title) runs.push_back(table.metrics);
    }
  }
  return runs;
}

std::vector<std::string> TitlesOf(const std::vector<SideTurns>& sides) {
  std::vector<std::string> titles;
  for (const SideTurns& side : sides) {
    for (const Turn& turn : side.turns) {
      for (const Table& table : turn.tables) {
        if (std::ranges::find(titles, table.title) == titles.end()) titles.push_back(table.title);
      }
    }
  }
  return titles;
}

std::string TableText(const std::vector<SideTurns>& sides, const std::string& title) {
  std::vector<std::vector<Spread>> spreads;
  std::vector<size_t> counts;
  std::string text = fmt::format("\n{:<28}{:<8}", title, "");
  for (const SideTurns& side : sides) {
    const std::vector<std::vector<Metric>> runs = RunsOf(side, title);
    spreads.push_back(runs.empty() ? std::vector<Spread>() : SpreadOf(runs));
    counts.push_back(runs.size());
    text += fmt::format("{:<28}", SideName(side.side));
  }
  text += sides.size() == 2 ? "holdfast/etcd\n" : "\n";
  std::vector<Metric> rows;
  for (const std::vector<Spread>& side : spreads) {
    for (const Spread& spread : side) {
      const auto same = [&](const Metric& row) { return row.name == spread.median.name; };
      if (std::ranges::none_of(rows, same)) rows.push_back(spread.median);
    }
  }
  for (const Metric& row : rows) {
    text += fmt::format("  {:<26}{:<8}", row.name, row.unit);
    for (size_t i = 0; i < sides.size(); ++i) {
      const Spread* spread = Find(spreads[i], row.name);
      text += fmt::format("{:<28}", spread == nullptr ? "-" : Cell(*spread, counts[i]));
    }
    if (sides.size() == 2) {
      const Spread* a = Find(spreads[0], row.name);
      const Spread* b = Find(spreads[1], row.name);
      if (a != nullptr && b != nullptr) text += Verdict(*a, *b, std::min(counts[0], counts[1]));
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += "\n";
  }
  return text;
}

std::string SideText(const Options& options, const SideTurns& side) {
  const std::string version = side.turns.empty() ? "" : side.turns[0].version;
  if (side.side == Side::kGiven) {
    return fmt::format("{:<10}{} version {}\n", "servers", options.endpoints, version);
  }
  const bool etcd = side.side == Side::kEtcd;
  std::string text = fmt::format("{:<10}{} version {}, {} members", SideName(side.side),
                                 etcd ? options.etcd : options.holdfastd, version,
                                 etcd ? options.local_etcd : options.local);
  for (const std::string& arg : etcd ? options.etcd_args : options.holdfastd_args) {
    text += " " + arg;
  }
  return text + "\n";
}

nlohmann::json SideJson(const SideTurns& side) {
  nlohmann::json json = {{"runs", nlohmann::json::array()}};
  for (const Turn& turn : side.turns) {
    json["version"] = turn.version;
    nlohmann::json run = {{"wrong", turn.wrong}, {"notes", turn.notes}};
    for (const Table& table : turn.tables) {
      for (const Metric& metric : table.metrics) {
        run["tables"][table.title][metric.name] = {{"value", metric.value}, {"unit", metric.unit}};
      }
    }
    json["runs"].push_back(std::move(run));
  }
  for (const std::string& title : TitlesOf({side})) {
    json["summary"][title] = SpreadJson(SpreadOf(RunsOf(side, title)));
  }
  return json;
}

// By table and metric, the median of the one divided by that of the other.
nlohmann::json RatiosJson(const SideTurns& a, const SideTurns& b) {
  nlohmann::json json = nlohmann::json::object();
  for (const std::string& title : TitlesOf({a})) {
    const auto b_runs = RunsOf(b, title);
    if (b_runs.empty()) continue;
    const std::vector<Spread> b_spreads = SpreadOf(b_runs);
    for (const Spread& spread : SpreadOf(RunsOf(a, title))) {
      const Spread* other = Find(b_spreads, spread.median.name);
      if (other == nullptr || other->median.value <= 0) continue;
      json[title][spread.median.name] = spread.median.value / other->median.value;
    }
  }
  return json;
}

}  // namespace

std::string SideName(Side side) {
  switch (side) {
    case Side::kHoldfast:
      return "holdfast";
    case Side::kEtcd:
      return "etcd";
    case Side::kGiven:
      return "servers";
  }
  return "";
}

std::vector<Side> SidesOf(const Options& options) {
  if (!options.endpoints.empty()) return {Side::kGiven};
  std::vector<Side> sides;
  if (options.local > 0) sides.push_back(Side::kHoldfast);
  if (options.local_etcd > 0) sides.push_back(Side::kEtcd);
  return sides;
}

pid_t Servers::LeaderPid() const {
  if (cluster == nullptr) return 0;
  const absl::StatusOr<int> leader = cluster->Leader();
  return leader.ok() ? cluster->pid(*leader) : 0;
}

absl::StatusOr<Servers> OpenServers(const Options& options, Side side,
                                    const std::atomic<bool>& cancelled) {
  Servers servers;
  if (side == Side::kGiven) {
    auto endpoints = ParseEndpoints(options.endpoints);
    if (!endpoints.ok()) return endpoints.status();
    servers.endpoints = *std::move(endpoints);
    servers.pids = options.pids;
  } else {
    auto cluster = StartLocal(options, side == Side::kEtcd, cancelled);
    if (!cluster.ok()) return cluster.status();
    servers.cluster = *std::move(cluster);
    servers.endpoints = servers.cluster->Endpoints();
    servers.pids = servers.cluster->Pids();
  }
  const auto status = GetEndpointStatus(servers.endpoints[0], kStatusTimeout);
  if (!status.ok()) return status.status();
  servers.version = status->version;
  return servers;
}

Memory LargestMemory(const std::vector<pid_t>& pids) {
  Memory largest;
  for (const pid_t pid : pids) {
    const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(pid);
    if (!usage.ok()) continue;
    largest.rss_mib = std::max(largest.rss_mib, double(usage->rss_bytes) / kMebibyte);
    largest.anon_mib = std::max(largest.anon_mib, double(usage->rss_anon_bytes) / kMebibyte);
  }
  return largest;
}

void AddMemory(const std::string& prefix, const Memory& memory, std::vector<Metric>* out) {
  out->push_back(
      {.name = prefix + "rss", .unit = "MiB", .value = memory.rss_mib, .better = Better::kLower});
  out->push_back(
      {.name = prefix + "anon", .unit = "MiB", .value = memory.anon_mib, .better = Better::kLower});
}

CpuSample TakeCpuSample(const std::vector<pid_t>& pids) {
  CpuSample sample{.taken_ns = MonotonicNs(),
                   .servers = 0,
                   .bench = ReadOwnUsage().cpu_seconds,
                   .machine = ReadMachineCpuSeconds()};
  for (const pid_t pid : pids) {
    const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(pid);
    if (usage.ok()) sample.servers += usage->cpu_seconds;
  }
  return sample;
}

double OtherCores(const CpuSample& begin, const CpuSample& end) {
  const double seconds = double(end.taken_ns - begin.taken_ns) * 1e-9;
  const double ours = end.servers - begin.servers + end.bench - begin.bench;
  if (seconds <= 0) return 0;
  return std::max(0.0, (end.machine - begin.machine - ours) / seconds);
}

absl::Status SleepFor(absl::Duration duration, const std::atomic<bool>& cancelled) {
  const int64_t until_ns = MonotonicNs() + absl::ToInt64Nanoseconds(duration);
  while (MonotonicNs() < until_ns) {
    if (cancelled) return absl::CancelledError("interrupted");
    const absl::Duration left = absl::Nanoseconds(until_ns - MonotonicNs());
    absl::SleepFor(std::clamp(left, absl::ZeroDuration(), kPoll));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> SleepUntilQuiet(const std::vector<pid_t>& pids, absl::Duration limit,
                                       const std::atomic<bool>& cancelled) {
  const int64_t begin_ns = MonotonicNs();
  const auto waited = [begin_ns] { return double(MonotonicNs() - begin_ns) * 1e-9; };
  while (waited() < absl::ToDoubleSeconds(limit)) {
    const CpuSample before = TakeCpuSample(pids);
    if (absl::Status status = SleepFor(std::min(kQuietFor, limit), cancelled); !status.ok()) {
      return status;
    }
    const CpuSample after = TakeCpuSample(pids);
    const double seconds = double(after.taken_ns - before.taken_ns) * 1e-9;
    if (after.servers - before.servers < kQuietCores * seconds) break;
  }
  return waited();
}

void Progress(Side side, const std::string& text) {
  fmt::print(stderr, "{:<9} {}\n", SideName(side), text);
}

BenchReport ReportOf(const Options& options, const Hardware& hardware, const std::string& load,
                     const std::vector<SideTurns>& sides) {
  BenchReport report;
  std::string lines;
  for (const SideTurns& side : sides) {
    for (size_t run = 0; run < side.turns.size(); ++run) {
      const std::string where = fmt::format("{} {}", SideName(side.side), run + 1);
      for (const std::string& text : side.turns[run].notes) {
        lines += fmt::format("note      {}: {}\n", where, text);
      }
      for (const std::string& text : side.turns[run].wrong) {
        lines += fmt::format("WRONG     {}: {}\n", where, text);
        report.passed = false;
      }
    }
  }
  if (options.json) {
    nlohmann::json json = HeaderJson(options, hardware);
    json["load"] = load;
    json["passed"] = report.passed;
    for (const SideTurns& side : sides) json["sides"][SideName(side.side)] = SideJson(side);
    if (sides.size() == 2) json["ratio"] = RatiosJson(sides[0], sides[1]);
    report.text = json.dump(2) + "\n";
    return report;
  }
  report.text = HeaderText(options, hardware);
  for (const SideTurns& side : sides) report.text += SideText(options, side);
  report.text += fmt::format("load      {}; {} turns each\n", load, options.runs);
  for (const std::string& title : TitlesOf(sides)) report.text += TableText(sides, title);
  if (!lines.empty()) report.text += "\n" + lines;
  return report;
}

absl::StatusOr<BenchReport> SideBySide(const Options& options, const std::string& load,
                                       const TakeTurn& take_turn) {
  const Hardware hardware = ReadHardware();
  std::vector<SideTurns> sides;
  for (const Side side : SidesOf(options)) sides.push_back({.side = side, .turns = {}});
  for (uint32_t run = 0; run < options.runs; ++run) {
    for (SideTurns& side : sides) {
      absl::StatusOr<Turn> turn = take_turn(side.side, run);
      if (absl::IsCancelled(turn.status())) return turn.status();
      if (!turn.ok()) {
        const std::string text(base::Message(turn.status()));
        Progress(side.side, text);
        turn = Turn{.version = "?", .tables = {}, .wrong = {text}, .notes = {}};
      }
      side.turns.push_back(*std::move(turn));
    }
  }
  return ReportOf(options, hardware, load, sides);
}

}  // namespace holdfast::bench
