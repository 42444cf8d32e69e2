#include "bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;

double Milliseconds(int64_t ns) { return double(ns) * 1e-6; }

void AddLatency(const std::string& prefix, const LatencyHistogram& latency,
                std::vector<Metric>& out) {
  const auto add = [&](const char* name, double ms) {
    out.push_back({.name = prefix + name, .unit = "ms", .value = ms, .better = Better::kLower});
  };
  add("mean", latency.mean_ns() * 1e-6);
  add("p50", Milliseconds(latency.QuantileNs(0.5)));
  add("p90", Milliseconds(latency.QuantileNs(0.9)));
  add("p99", Milliseconds(latency.QuantileNs(0.99)));
  add("p99.9", Milliseconds(latency.QuantileNs(0.999)));
  add("max", Milliseconds(latency.max_ns()));
}

// Per completed call, errors included: they cost CPU as well.
double MicrosecondsPerCall(double cpu_seconds, const RunStats& stats) {
  const uint64_t calls = stats.CompletedInWindow();
  return calls == 0 ? 0 : cpu_seconds * 1e6 / double(calls);
}

// The kinds that are told one by one: none if there is but one.
std::vector<OpKind> Kinds(const RunResult& result) {
  std::vector<OpKind> kinds;
  for (const OpKind kind :
       {OpKind::kGet, OpKind::kPut, OpKind::kLoad, OpKind::kScan, OpKind::kModify, OpKind::kTxn}) {
    const bool expected = std::ranges::find(result.kinds, kind) != result.kinds.end();
    if (expected || result.stats.latency(kind).count() > 0) kinds.push_back(kind);
  }
  if (kinds.size() < 2) kinds.clear();
  return kinds;
}

std::string LatencyText(const std::string& name, const LatencyHistogram& latency) {
  std::vector<Metric> metrics;
  AddLatency("", latency, metrics);
  std::string text = fmt::format("  {:<16}", name);
  for (const Metric& metric : metrics) {
    text += fmt::format("{} {}  ", metric.name, ShortNumber(metric.value));
  }
  return text + "ms\n";
}

std::string BacklogText(const Backlog& backlog) {
  if (backlog.max == 0 && backlog.dropped == 0) return "";
  return fmt::format(
      "  {:<16}at most {} arrivals waited for a free client; dropped {}, not sent {}\n", "backlog",
      backlog.max, backlog.dropped, backlog.not_sent);
}

std::string ServersText(const RunResult& result) {
  std::string text;
  double cpu_seconds = 0;
  uint64_t rss_bytes = 0;
  for (const ServerUsage& server : result.servers) {
    text +=
        fmt::format("  {:<16}pid {}  cpu {:.2f} s  rss {:.1f} MiB (anonymous {:.1f})\n", "server",
                    server.pid, server.cpu_seconds, double(server.end.rss_bytes) / kMebibyte,
                    double(server.end.rss_anon_bytes) / kMebibyte);
    cpu_seconds += server.cpu_seconds;
    rss_bytes += server.end.rss_bytes;
  }
  if (result.servers.empty()) return text;
  text +=
      fmt::format("  {:<16}cpu {:.1f} us/op  rss {:.1f} MiB\n", "all servers",
                  MicrosecondsPerCall(cpu_seconds, result.stats), double(rss_bytes) / kMebibyte);
  text += fmt::format("  {:<16}cpu {:.2f} cores{}\n", "other programs", result.other_cores,
                      result.other_cores > kUndisturbedCores ? ": they disturbed this run" : "");
  return text;
}

nlohmann::json SeriesJson(const TimeSeries& series) {
  nlohmann::json json = nlohmann::json::array();
  for (const TimeSeries::Point& point : series.Points()) {
    json.push_back({{"at", point.at_seconds},
                    {"seconds", point.seconds},
                    {"ok", point.ok},
                    {"failed", point.failed},
                    {"p50_ms", point.p50_ms},
                    {"p99_ms", point.p99_ms},
                    {"max_ms", point.max_ms}});
  }
  return json;
}

// The distribution, denser towards its end.
nlohmann::json QuantilesJson(const LatencyHistogram& latency) {
  nlohmann::json json = nlohmann::json::object();
  for (const double percent :
       {1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999}) {
    json[fmt::format("p{}", percent)] = Milliseconds(latency.QuantileNs(percent / 100));
  }
  json["max"] = Milliseconds(latency.max_ns());
  json["count"] = latency.count();
  return json;
}

}  // namespace

std::vector<Metric> MetricsOf(const RunResult& result) {
  const RunStats& stats = result.stats;
  std::vector<Metric> metrics = {{.name = "throughput",
                                  .unit = "op/s",
                                  .value = stats.Throughput(),
                                  .better = Better::kHigher}};
  AddLatency("latency_", stats.AllLatencies(), metrics);
  for (const OpKind kind : Kinds(result)) {
    AddLatency(std::string(OpKindName(kind)) + "_", stats.latency(kind), metrics);
  }
  const auto add = [&metrics](const char* name, const char* unit, double value, Better better) {
    metrics.push_back({.name = name, .unit = unit, .value = value, .better = better});
  };
  add("errors", "", double(stats.failed()), Better::kLower);
  add("retries", "", double(stats.retries()), Better::kNeither);
  add("bench_cpu", "us/op", MicrosecondsPerCall(result.bench_cpu_seconds, stats), Better::kNeither);
  if (result.servers.empty()) return metrics;
  add("others_cpu", "cores", result.other_cores, Better::kNeither);
  double cpu_seconds = 0;
  double rss_bytes = 0;
  double anon_bytes = 0;
  for (const ServerUsage& server : result.servers) {
    cpu_seconds += server.cpu_seconds;
    rss_bytes += double(server.end.rss_bytes);
    anon_bytes += double(server.end.rss_anon_bytes);
  }
  add("server_cpu", "us/op", MicrosecondsPerCall(cpu_seconds, stats), Better::kLower);
  add("server_rss", "MiB", rss_bytes / kMebibyte, Better::kLower);
  add("server_rss_anon", "MiB", anon_bytes / kMebibyte, Better::kLower);
  return metrics;
}

std::vector<Spread> SpreadOf(const std::vector<std::vector<Metric>>& runs) {
  CHECK(!runs.empty());
  std::vector<Spread> spreads;
  for (size_t i = 0; i < runs[0].size(); ++i) {
    std::vector<double> values;
    for (const std::vector<Metric>& run : runs) {
      CHECK(run.size() == runs[0].size());
      CHECK(run[i].name == runs[0][i].name);
      values.push_back(run[i].value);
    }
    std::sort(values.begin(), values.end());
    Spread spread{.median = runs[0][i], .min = values.front(), .max = values.back()};
    const size_t half = values.size() / 2;
    spread.median.value =
        values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
    spreads.push_back(spread);
  }
  return spreads;
}

std::string CodeName(int grpc_code) {
  static const char* const kNames[] = {"OK",
                                       "CANCELLED",
                                       "UNKNOWN",
                                       "INVALID_ARGUMENT",
                                       "DEADLINE_EXCEEDED",
                                       "NOT_FOUND",
                                       "ALREADY_EXISTS",
                                       "PERMISSION_DENIED",
                                       "RESOURCE_EXHAUSTED",
                                       "FAILED_PRECONDITION",
                                       "ABORTED",
                                       "OUT_OF_RANGE",
                                       "UNIMPLEMENTED",
                                       "INTERNAL",
                                       "UNAVAILABLE",
                                       "DATA_LOSS",
                                       "UNAUTHENTICATED"};
  if (grpc_code < 0 || size_t(grpc_code) >= std::size(kNames)) {
    return fmt::format("CODE_{}", grpc_code);
  }
  return kNames[grpc_code];
}

std::string ShortNumber(double value) {
  if (value >= 1000 || value == 0) return fmt::format("{:.0f}", value);
  return fmt::format("{:.4g}", value);
}

std::string HeaderText(const Options& options, const Hardware& hardware) {
  return fmt::format("machine   {}, {} cores, {:.1f} GiB, {}\ncommand   {}\nseed      {}\n",
                     hardware.cpu_model, hardware.cores,
                     double(hardware.memory_bytes) / kMebibyte / 1024, hardware.kernel,
                     options.command_line, options.seed);
}

nlohmann::json HeaderJson(const Options& options, const Hardware& hardware) {
  return {{"hardware",
           {{"cpu", hardware.cpu_model},
            {"cores", hardware.cores},
            {"memory_bytes", hardware.memory_bytes},
            {"kernel", hardware.kernel}}},
          {"command", options.command_line},
          {"seed", options.seed},
          {"clients", options.clients},
          {"threads", options.threads},
          {"key_size", options.key_size},
          {"value_size", options.value_size},
          {"key_space", options.key_space},
          {"rate", options.rate}};
}

std::string LoadText(const LoadResult& load) {
  return fmt::format("load      {} keys in {:.2f} s, {:.0f} keys/s, {} in a transaction\n",
                     load.keys, load.seconds,
                     load.seconds > 0 ? double(load.keys) / load.seconds : 0, load.keys_per_txn);
}

nlohmann::json LoadJson(const LoadResult& load) {
  return {{"keys", load.keys}, {"seconds", load.seconds}, {"keys_per_txn", load.keys_per_txn}};
}

std::string RunText(const std::string& title, const RunResult& result) {
  const RunStats& stats = result.stats;
  const double seconds = stats.Seconds();
  std::string text = fmt::format(
      "\n{}\n  {:<16}{:.1f} op/s over {:.2f} s; {} ok, {} errors; payload {:.2f} MiB/s\n", title,
      "throughput", stats.Throughput(), seconds, stats.ok(), stats.failed(),
      seconds > 0 ? double(stats.bytes()) / kMebibyte / seconds : 0);
  text += LatencyText("latency", stats.AllLatencies());
  for (const OpKind kind : Kinds(result)) {
    text += LatencyText(fmt::format("  of {}s", OpKindName(kind)), stats.latency(kind));
  }
  for (const auto& [code, error] : stats.errors()) {
    text += fmt::format("  {:<16}{} x {}, first: {}\n", "error", error.count, CodeName(code),
                        error.example);
  }
  if (stats.not_found() > 0) {
    text += fmt::format("  {:<16}{} gets found no key; write them first with --load\n", "note",
                        stats.not_found());
  }
  if (stats.retries() > 0) {
    text += fmt::format(
        "  {:<16}{}: read-modify-writes that found their key changed, and calls that "
        "the library sent again\n",
        "retries", stats.retries());
  }
  text += BacklogText(stats.backlog());
  text += fmt::format("  {:<16}cpu {:.1f} us/op\n", "bench",
                      MicrosecondsPerCall(result.bench_cpu_seconds, stats));
  return text + ServersText(result);
}

nlohmann::json RunJson(const RunResult& result) {
  nlohmann::json json;
  for (const Metric& metric : MetricsOf(result)) json["metrics"][metric.name] = metric.value;
  json["seconds"] = result.stats.Seconds();
  json["ok"] = result.stats.ok();
  json["bytes"] = result.stats.bytes();
  json["not_found"] = result.stats.not_found();
  json["series"] = SeriesJson(result.stats.series());
  json["latency_ms"] = QuantilesJson(result.stats.AllLatencies());
  json["errors"] = nlohmann::json::object();
  for (const auto& [code, error] : result.stats.errors()) {
    json["errors"][CodeName(code)] = {{"count", error.count}, {"example", error.example}};
  }
  const Backlog& backlog = result.stats.backlog();
  json["backlog"] = {
      {"max", backlog.max}, {"dropped", backlog.dropped}, {"not_sent", backlog.not_sent}};
  json["servers"] = nlohmann::json::array();
  for (const ServerUsage& server : result.servers) {
    json["servers"].push_back({{"pid", server.pid},
                               {"cpu_seconds", server.cpu_seconds},
                               {"rss_bytes", server.end.rss_bytes},
                               {"rss_anon_bytes", server.end.rss_anon_bytes}});
  }
  return json;
}

std::string SpreadText(const std::vector<Spread>& spreads, size_t runs) {
  std::string text = fmt::format("\nmedian of {} runs (least to greatest)\n", runs);
  for (const Spread& spread : spreads) {
    text += fmt::format("  {:<18}{:>9} {:<6} ({} to {})\n", spread.median.name,
                        ShortNumber(spread.median.value), spread.median.unit,
                        ShortNumber(spread.min), ShortNumber(spread.max));
  }
  return text;
}

nlohmann::json SpreadJson(const std::vector<Spread>& spreads) {
  nlohmann::json json;
  for (const Spread& spread : spreads) {
    json[spread.median.name] = {{"median", spread.median.value},
                                {"min", spread.min},
                                {"max", spread.max},
                                {"unit", spread.median.unit}};
  }
  return json;
}

std::string AlignedText(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const std::vector<std::string>& row : rows) {
    if (widths.size() < row.size()) widths.resize(row.size());
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const std::vector<std::string>& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) line += fmt::format("  {:<{}}", row[i], widths[i]);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::string Cell(const Spread& spread, size_t runs) {
  if (runs == 1) return ShortNumber(spread.median.value);
  return fmt::format("{} ({}..{})", ShortNumber(spread.median.value), ShortNumber(spread.min),
                     ShortNumber(spread.max));
}

// Where the two sides' runs overlap nobody wins: the same server on both sides gives ratios of 0.9
// and 1.1 as well.
std::string Verdict(const Spread& a, const Spread& b, size_t runs) {
  if (a.median.value <= 0 || b.median.value <= 0) return "";
  const std::string ratio = fmt::format("{:.2f}", a.median.value / b.median.value);
  if (a.median.better == Better::kNeither || runs == 1) return ratio;
  if (a.min <= b.max && b.min <= a.max) return ratio + "  runs overlap";
  const bool a_wins = (a.median.better == Better::kHigher) == (a.min > b.max);
  return ratio + (a_wins ? "  holdfast better" : "  etcd better");
}

}  // namespace holdfast::bench
