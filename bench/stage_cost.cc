#include "bench/stage_cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/drills/request_rate.h"
#include "bench/exchange_load.h"
#include "bench/monotonic.h"
#include "bench/report.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

constexpr double kMega = 1e6;
constexpr absl::Duration kMetricsTimeout = absl::Seconds(2);
constexpr absl::Duration kQuietLimit = absl::Seconds(20);
// A stream that ends takes its connection, and what that carried, out of the last look.
constexpr absl::Duration kLonger = absl::Milliseconds(300);
constexpr absl::Duration kLeaderWait = absl::Seconds(10);
constexpr absl::Duration kIdle = absl::Seconds(3);

struct ClusterSample {
  int64_t taken_ns = 0;
  double bench_seconds = 0, machine_seconds = 0;
  std::vector<MemberSample> members;  // by index of the cluster
  std::vector<TcpEnd> ends;
};

std::set<uint16_t> Ports(const LocalCluster& cluster, int (LocalCluster::*port)(int) const) {
  std::set<uint16_t> ports;
  for (int i = 0; i < cluster.size(); ++i) ports.insert(uint16_t((cluster.*port)(i)));
  return ports;
}

absl::StatusOr<MemberSample> SampleMember(const LocalCluster& cluster, int i) {
  MemberSample sample;
  const auto text = HttpGet(cluster.endpoint(i), "/metrics", kMetricsTimeout);
  if (!text.ok()) return text.status();
  sample.committed = SumOfMetric(*text, "etcd_server_proposals_committed_total");
  sample.fsyncs = SumOfMetric(*text, "etcd_disk_wal_fsync_duration_seconds_count");
  sample.fsync_seconds = SumOfMetric(*text, "etcd_disk_wal_fsync_duration_seconds_sum");
  sample.applies = SumOfMetric(*text, "etcd_disk_backend_commit_duration_seconds_count");
  auto process = ReadProcessDetail(cluster.pid(i));
  if (!process.ok()) return process.status();
  sample.process = *std::move(process);
  return sample;
}

absl::StatusOr<ClusterSample> SampleCluster(const LocalCluster& cluster) {
  ClusterSample sample;
  for (int i = 0; i < cluster.size(); ++i) {
    auto member = SampleMember(cluster, i);
    if (!member.ok()) return member.status();
    sample.members.push_back(*std::move(member));
  }
  // A kernel without sock_diag costs these figures alone.
  if (auto ends = ReadTcpEnds(); ends.ok()) sample.ends = *std::move(ends);
  sample.bench_seconds = ReadOwnUsage().cpu_seconds;
  sample.machine_seconds = ReadMachineCpuSeconds();
  sample.taken_ns = MonotonicNs();
  return sample;
}

// `rate` operations a second happened between the two.
StagePoint PointBetween(const LocalCluster& cluster, const ClusterSample& begin,
                        const ClusterSample& end, double rate, int leader) {
  const double seconds = double(end.taken_ns - begin.taken_ns) * 1e-9;
  const double operations = rate * seconds;
  StagePoint point;
  point.rate = rate;
  double ours = end.bench_seconds - begin.bench_seconds;
  point.bench_cpu_us = ours * kMega / operations;
  for (size_t i = 0; i < end.members.size(); ++i) {
    MemberUse use = MemberUseBetween(begin.members[i], end.members[i], operations);
    use.leader = int(i) == leader;
    ours += use.cpu_us * operations / kMega;
    point.members.insert(use.leader ? point.members.begin() : point.members.end(), std::move(use));
  }
  point.other_cores = std::max(0.0, (end.machine_seconds - begin.machine_seconds - ours) / seconds);
  const std::set<uint16_t> peers = Ports(cluster, &LocalCluster::peer_port);
  const std::set<uint16_t> clients = Ports(cluster, &LocalCluster::client_port);
  // The end that listens; the other one would count the same bytes again.
  for (const TcpEnd& one : TcpBetween(begin.ends, end.ends)) {
    if (peers.contains(one.local_port)) {
      point.peer_bytes += double(one.sent_bytes + one.received_bytes) / operations;
      point.peer_segments += double(one.sent_segments) / operations;
    } else if (clients.contains(one.local_port)) {
      point.client_in_bytes += double(one.received_bytes) / operations;
      point.client_out_bytes += double(one.sent_bytes) / operations;
    }
  }
  return point;
}

class Stages {
 public:
  Stages(const Options& options, const std::atomic<bool>& cancelled)
      : options_(options), cancelled_(cancelled) {}

  absl::Status Measure() {
    auto cluster = StartLocal(options_, /*etcd=*/false, cancelled_);
    if (!cluster.ok()) return cluster.status();
    cluster_ = *std::move(cluster);
    auto session = Session::Open(options_, cluster_->Endpoints(), cluster_->Pids(), cancelled_);
    if (!session.ok()) return session.status();
    if (const auto loaded = (*session)->Load(options_.load); !loaded.ok()) return loaded.status();
    if (absl::Status status = MeasureIdle(); !status.ok()) return status;
    for (const Workload& workload : options_.workloads) {
      for (const bool native : {false, true}) {
        for (const uint32_t clients : options_.stages.clients) {
          absl::Status status = MeasureOne(workload, clients, native);
          if (!status.ok()) return status;
        }
      }
    }
    return absl::OkStatus();
  }

  const std::vector<StagePoint>& points() const { return points_; }

 private:
  absl::Status MeasureIdle() {
    const auto quiet = SleepUntilQuiet(cluster_->Pids(), kQuietLimit, cancelled_);
    if (!quiet.ok()) return quiet.status();
    const auto begin = SampleCluster(*cluster_);
    if (!begin.ok()) return begin.status();
    if (absl::Status status = SleepFor(kIdle, cancelled_); !status.ok()) return status;
    return Add("idle", "", 0, begin, SampleCluster(*cluster_), 1, nullptr);
  }

  absl::Status MeasureOne(const Workload& workload, uint32_t clients, bool native) {
    Options options = options_;
    options.clients = clients;
    options.threads = std::min(options.threads, clients);
    auto session = Session::Open(options, cluster_->Endpoints(), cluster_->Pids(), cancelled_);
    if (!session.ok()) return session.status();
    // The run measures itself; the members are looked at from here, within its window.
    auto running = std::async(std::launch::async, [&] {
      return native ? RunNative(workload, clients, (*session)->targets()[0])
                    : RunUnary(workload, **session);
    });
    absl::Status slept = SleepFor(options.warmup, cancelled_);
    const auto begin = SampleCluster(*cluster_);
    if (slept.ok()) slept = SleepFor(options.duration, cancelled_);
    const auto end = SampleCluster(*cluster_);
    const absl::StatusOr<RunStats> stats = running.get();
    if (!slept.ok()) return slept;
    if (!stats.ok()) return stats.status();
    const double rate = stats->Throughput();
    if (rate <= 0 || stats->failed() > 0) {
      return absl::UnavailableError(base::ToAbsl(fmt::format(
          "{} with {} clients: {} requests failed: costs for an operation would be wrong",
          workload.name, clients, stats->failed())));
    }
    return Add(workload.name, native ? "native" : "unary", clients, begin, end, rate, &*stats);
  }

  absl::StatusOr<RunStats> RunUnary(const Workload& workload, Session& session) {
    auto result = session.RunOnce({.workload = workload, .run = uint32_t(points_.size())});
    if (!result.ok()) return result.status();
    return std::move(result->stats);
  }

  absl::StatusOr<RunStats> RunNative(const Workload& workload, uint32_t clients,
                                     const std::string& leader) {
    const DataShape shape(options_.key_prefix, options_.key_size, options_.value_size,
                          options_.seed);
    return RunExchange({.endpoint = leader,
                        .read = workload.get > 0,
                        .callers = clients,
                        .streams = options_.stages.streams,
                        .key_space = options_.key_space,
                        .seed = options_.seed + points_.size(),
                        .warmup = options_.warmup,
                        .duration = options_.duration + kLonger},
                       shape, cancelled_);
  }

  absl::Status Add(const std::string& workload, const std::string& transport, uint32_t clients,
                   const absl::StatusOr<ClusterSample>& begin,
                   const absl::StatusOr<ClusterSample>& end, double rate, const RunStats* stats) {
    if (!begin.ok()) return begin.status();
    if (!end.ok()) return end.status();
    // A machine that is busy with others makes members doubt their leader for moments.
    if (absl::Status status = cluster_->WaitForLeader(kLeaderWait); !status.ok()) return status;
    const auto leader = cluster_->Leader();
    if (!leader.ok()) return leader.status();
    StagePoint point = PointBetween(*cluster_, *begin, *end, rate, *leader);
    point.workload = workload;
    point.transport = transport;
    point.clients = clients;
    point.value_bytes = double(options_.value_size);
    if (stats != nullptr) {
      const LatencyHistogram latency = stats->AllLatencies();
      point.mean_ms = latency.mean_ns() * 1e-6;
      point.p50_ms = double(latency.QuantileNs(0.5)) * 1e-6;
      point.p99_ms = double(latency.QuantileNs(0.99)) * 1e-6;
    }
    points_.push_back(std::move(point));
    if (options_.verbose) {
      fmt::print(stderr, "{} {} clients: {:.0f}/s\n", workload, clients, rate);
    }
    return absl::OkStatus();
  }

  const Options& options_;
  const std::atomic<bool>& cancelled_;
  std::unique_ptr<LocalCluster> cluster_;
  std::vector<StagePoint> points_;
};

// Followers are told as their mean.
MemberUse MeanOf(const std::vector<MemberUse>& members) {
  MemberUse mean;
  double count = 0;
  for (const MemberUse& member : members) {
    if (member.leader) continue;
    ++count;
    for (const auto field :
         {&MemberUse::cpu_us, &MemberUse::disk_bytes, &MemberUse::fsyncs, &MemberUse::fsync_us,
          &MemberUse::entries_per_fsync, &MemberUse::entries_per_apply, &MemberUse::rss_anon_mib}) {
      mean.*field += member.*field;
    }
    for (const auto& [name, use] : member.stages) {
      for (const auto field :
           {&StageUse::cpu_us, &StageUse::system_us, &StageUse::waited_us, &StageUse::waits}) {
        mean.stages[name].*field += use.*field;
      }
    }
  }
  if (count == 0) return mean;
  for (const auto field :
       {&MemberUse::cpu_us, &MemberUse::disk_bytes, &MemberUse::fsyncs, &MemberUse::fsync_us,
        &MemberUse::entries_per_fsync, &MemberUse::entries_per_apply, &MemberUse::rss_anon_mib}) {
    mean.*field /= count;
  }
  for (auto& [name, use] : mean.stages) {
    for (const auto field :
         {&StageUse::cpu_us, &StageUse::system_us, &StageUse::waited_us, &StageUse::waits}) {
      use.*field /= count;
    }
  }
  return mean;
}

std::string MemberText(const std::string& title, const MemberUse& use) {
  std::string text = fmt::format(
      "  {:<9} cpu {:.1f} us; disk {:.0f} B; {:.3f} fsyncs of {:.0f} us, {:.1f} entries each; "
      "{:.1f} entries an apply; {:.0f} MiB\n",
      title, use.cpu_us, use.disk_bytes, use.fsyncs, use.fsync_us, use.entries_per_fsync,
      use.entries_per_apply, use.rss_anon_mib);
  for (const std::string_view stage : kStages) {
    const auto it = use.stages.find(std::string(stage));
    if (it == use.stages.end() || (it->second.cpu_us < 0.005 && it->second.waits < 0.005)) continue;
    text += fmt::format(
        "    {:<8}{:>9.2f} us  ({:>7.2f} in the kernel) {:>9.2f} us without a core"
        "{:>9.3f} sleeps\n",
        stage, it->second.cpu_us, it->second.system_us, it->second.waited_us, it->second.waits);
  }
  return text;
}

std::string PointText(const StagePoint& point) {
  std::string text;
  double all_us = 0;
  for (const MemberUse& member : point.members) all_us += member.cpu_us;
  if (point.workload == "idle") {
    text = "\nidle, for one second\n";
  } else {
    text = fmt::format(
        "\n{} {} of {:.0f} B, {} clients: {:.0f}/s, mean {:.2f} p50 {:.2f} p99 {:.2f} ms; for "
        "one:\n"
        "  all members {:.1f} us, bench {:.1f} us; {:.0f} B in {:.3f} segments between members; "
        "clients {:.0f} B in, {:.0f} B out; others took {:.2f} cores\n",
        point.transport, point.workload, point.value_bytes, point.clients, point.rate,
        point.mean_ms, point.p50_ms, point.p99_ms, all_us, point.bench_cpu_us, point.peer_bytes,
        point.peer_segments, point.client_in_bytes, point.client_out_bytes, point.other_cores);
  }
  if (point.members.empty()) return text;
  text += MemberText("leader", point.members.front());
  if (point.members.size() > 1) text += MemberText("followers", MeanOf(point.members));
  return text;
}

}  // namespace

std::string_view StageOf(std::string_view name) {
  struct Known {
    std::string_view begins, stage;
  };
  static constexpr Known kKnown[] = {
      {"nexting_thread", "grpc"}, {"default-execut", "grpc"}, {"event_engine", "grpc"},
      {"grpc", "grpc"},           {"timer_manager", "grpc"},  {"resolver-execut", "grpc"},
      {"hf-raft", "raft"},        {"hf-log", "log"},          {"hf-apply", "apply"},
      {"hf-answer", "answer"},    {"hf-scan", "answer"},      {"hf-watch", "watch"},
      {"hf-catchup", "watch"},    {"hf-task", "upkeep"},      {"accept", "grpc"},
      {"http", "upkeep"},         {"rocksdb:", "store"}};
  for (const Known& known : kKnown) {
    if (name.starts_with(known.begins)) return known.stage;
  }
  return "other";
}

MemberUse MemberUseBetween(const MemberSample& begin, const MemberSample& end, double operations) {
  MemberUse use;
  use.cpu_us = (end.process.cpu_seconds - begin.process.cpu_seconds) * kMega / operations;
  use.disk_bytes =
      double(end.process.disk_write_bytes - begin.process.disk_write_bytes) / operations;
  const double committed = end.committed - begin.committed;
  const double fsyncs = end.fsyncs - begin.fsyncs;
  const double applies = end.applies - begin.applies;
  use.fsyncs = fsyncs / operations;
  if (fsyncs > 0) {
    use.fsync_us = (end.fsync_seconds - begin.fsync_seconds) * kMega / fsyncs;
    use.entries_per_fsync = committed / fsyncs;
  }
  if (applies > 0) use.entries_per_apply = committed / applies;
  use.rss_anon_mib = double(end.process.rss_anon_bytes) / double(1 << 20);
  for (const auto& [name, usage] : end.process.threads) {
    const auto before = begin.process.threads.find(name);
    const ThreadUsage spent =
        before == begin.process.threads.end() ? usage : usage - before->second;
    StageUse& stage = use.stages[std::string(StageOf(name))];
    stage.cpu_us += spent.cpu_seconds * kMega / operations;
    stage.system_us += spent.system_seconds * kMega / operations;
    stage.waited_us += spent.waited_seconds * kMega / operations;
    stage.waits += double(spent.waits) / operations;
  }
  return use;
}

nlohmann::json PointJson(const StagePoint& point) {
  nlohmann::json json = {{"workload", point.workload},
                         {"transport", point.transport},
                         {"clients", point.clients},
                         {"value_bytes", point.value_bytes},
                         {"rate", point.rate},
                         {"mean_ms", point.mean_ms},
                         {"p50_ms", point.p50_ms},
                         {"p99_ms", point.p99_ms},
                         {"bench_cpu_us", point.bench_cpu_us},
                         {"other_cores", point.other_cores},
                         {"peer_bytes", point.peer_bytes},
                         {"peer_segments", point.peer_segments},
                         {"client_in_bytes", point.client_in_bytes},
                         {"client_out_bytes", point.client_out_bytes},
                         {"members", nlohmann::json::array()}};
  for (const MemberUse& member : point.members) {
    nlohmann::json out = {{"leader", member.leader},
                          {"cpu_us", member.cpu_us},
                          {"disk_bytes", member.disk_bytes},
                          {"fsyncs", member.fsyncs},
                          {"fsync_us", member.fsync_us},
                          {"entries_per_fsync", member.entries_per_fsync},
                          {"entries_per_apply", member.entries_per_apply},
                          {"rss_anon_mib", member.rss_anon_mib}};
    for (const auto& [name, use] : member.stages) {
      out["stages"][name] = {{"cpu_us", use.cpu_us},
                             {"system_us", use.system_us},
                             {"waited_us", use.waited_us},
                             {"waits", use.waits}};
    }
    json["members"].push_back(std::move(out));
  }
  return json;
}

absl::StatusOr<StagePoint> PointOf(const nlohmann::json& json) {
  try {
    StagePoint point;
    point.workload = json.at("workload");
    point.transport = json.at("transport");
    point.clients = json.at("clients");
    point.value_bytes = json.at("value_bytes");
    point.rate = json.at("rate");
    point.mean_ms = json.at("mean_ms");
    point.p50_ms = json.at("p50_ms");
    point.p99_ms = json.at("p99_ms");
    point.bench_cpu_us = json.at("bench_cpu_us");
    point.other_cores = json.at("other_cores");
    point.peer_bytes = json.at("peer_bytes");
    point.peer_segments = json.at("peer_segments");
    point.client_in_bytes = json.at("client_in_bytes");
    point.client_out_bytes = json.at("client_out_bytes");
    for (const nlohmann::json& from : json.at("members")) {
      MemberUse member;
      member.leader = from.at("leader");
      member.cpu_us = from.at("cpu_us");
      member.disk_bytes = from.at("disk_bytes");
      member.fsyncs = from.at("fsyncs");
      member.fsync_us = from.at("fsync_us");
      member.entries_per_fsync = from.at("entries_per_fsync");
      member.entries_per_apply = from.at("entries_per_apply");
      member.rss_anon_mib = from.at("rss_anon_mib");
      for (const auto& [name, use] : from.at("stages").items()) {
        member.stages[name] = {.cpu_us = use.at("cpu_us"),
                               .system_us = use.at("system_us"),
                               .waited_us = use.at("waited_us"),
                               .waits = use.at("waits")};
      }
      point.members.push_back(std::move(member));
    }
    return point;
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("no point of 'holdfast-bench stages -w json': {}", error.what())));
  }
}

absl::StatusOr<BenchReport> StagesBench(const Options& options,
                                        const std::atomic<bool>& cancelled) {
  const Hardware hardware = ReadHardware();
  Stages stages(options, cancelled);
  if (absl::Status status = stages.Measure(); !status.ok()) return status;
  BenchReport report;
  if (options.json) {
    nlohmann::json json = HeaderJson(options, hardware);
    for (const StagePoint& point : stages.points()) json["points"].push_back(PointJson(point));
    report.text = json.dump(2) + "\n";
    return report;
  }
  report.text = HeaderText(options, hardware);
  for (const StagePoint& point : stages.points()) report.text += PointText(point);
  return report;
}

}  // namespace holdfast::bench
