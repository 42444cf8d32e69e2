#include "bench/catchup.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/drill_load.h"
#include "bench/local_cluster.h"
#include "bench/monotonic.h"
#include "bench/report.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kWarmup = absl::Seconds(2);
constexpr absl::Duration kSettle = absl::Seconds(1);  // after the kill, before the restart
constexpr absl::Duration kPoll = absl::Milliseconds(20);
constexpr absl::Duration kStatusTimeout = absl::Seconds(1);
constexpr absl::Duration kGiveUp = absl::Minutes(15);  // of catching up
constexpr double kMebibyte = 1024.0 * 1024.0;

absl::Status Interrupted() { return absl::CancelledError("interrupted"); }

std::string FileText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

class Drill {
 public:
  Drill(const Options& options, LocalCluster& cluster, const std::atomic<bool>& cancelled)
      : options_(options),
        cluster_(cluster),
        cancelled_(cancelled),
        load_(DrillLoad::Start(LoadOptionsOf(options, cluster.Endpoints()))) {}

  absl::StatusOr<CatchupResult> Run() {
    CatchupResult result;
    if (absl::Status status = Sleep(kWarmup); !status.ok()) return status;
    const absl::StatusOr<int> leader = cluster_.Leader();
    if (!leader.ok()) return leader.status();
    member_ = (*leader + 1) % cluster_.size();
    auto phase = Measure("before", [this] { return Sleep(options_.duration); });
    if (!phase.ok()) return phase.status();
    result.phases.push_back(*phase);

    if (absl::Status status = cluster_.Kill(member_); !status.ok()) return status;
    phase = Measure("member away", [this] { return WaitForBytes(); });
    if (!phase.ok()) return phase.status();
    result.phases.push_back(*phase);
    if (absl::Status status = Sleep(kSettle); !status.ok()) return status;

    const size_t log_bytes = FileText(cluster_.log_file(member_)).size();
    phase = Measure("catching up", [this] { return CatchUp(); });
    if (!phase.ok()) return phase.status();
    result.phases.push_back(*phase);
    result.snapshots = SnapshotsIn(FileText(cluster_.log_file(member_)).substr(log_bytes));

    phase = Measure("after", [this] { return Sleep(options_.duration); });
    if (!phase.ok()) return phase.status();
    result.phases.push_back(*phase);
    const auto rate = [&result](size_t i) {
      return double(result.phases[i].writes) / result.phases[i].seconds;
    };
    result.ratio = rate(2) / rate(0);
    return result;
  }

 private:
  absl::Status Sleep(absl::Duration duration) const {
    const int64_t until_ns = MonotonicNs() + absl::ToInt64Nanoseconds(duration);
    while (MonotonicNs() < until_ns) {
      if (cancelled_) return Interrupted();
      absl::SleepFor(kPoll);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<CatchupPhase> Measure(const std::string& name,
                                       const std::function<absl::Status()>& action) const {
    fmt::print(stderr, "{} ...\n", name);
    const DrillLoad::Counts begin = load_->counts(DrillLoad::Kind::kWrite);
    const int64_t begin_ns = MonotonicNs();
    if (absl::Status status = action(); !status.ok()) return status;
    const int64_t end_ns = MonotonicNs();
    const DrillLoad::Counts end = load_->counts(DrillLoad::Kind::kWrite);
    CatchupPhase phase;
    phase.name = name;
    phase.seconds = double(end_ns - begin_ns) * 1e-9;
    phase.writes = end.answered - begin.answered;
    phase.bytes = end.bytes - begin.bytes;
    phase.failed_tries = end.failed_tries - begin.failed_tries;
    phase.gap_ms = double(load_->LongestGapNs(DrillLoad::Kind::kWrite, begin_ns, end_ns)) * 1e-6;
    return phase;
  }

  absl::Status WaitForBytes() const {
    const uint64_t until = load_->counts(DrillLoad::Kind::kWrite).bytes + options_.bytes;
    while (load_->counts(DrillLoad::Kind::kWrite).bytes < until) {
      if (absl::Status status = Sleep(kPoll); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status CatchUp() {
    if (absl::Status status = cluster_.Restart(member_); !status.ok()) return status;
    const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kGiveUp);
    while (MonotonicNs() < give_up_ns) {
      if (!cluster_.Running(member_)) {
        return absl::UnavailableError("the member has ended; its log ends:\n" +
                                      cluster_.LogTail(member_));
      }
      // What another one has applied now is what the member must have applied a moment later.
      const int other = (member_ + 1) % cluster_.size();
      const auto mark = AskStatus(cluster_.endpoint(other), kStatusTimeout);
      if (absl::Status status = Sleep(kPoll); !status.ok()) return status;
      const auto mine = AskStatus(cluster_.endpoint(member_), kStatusTimeout);
      if (mark.ok() && mine.ok() && mark->raftappliedindex() > 0 &&
          mine->raftappliedindex() >= mark->raftappliedindex()) {
        return absl::OkStatus();
      }
    }
    return absl::DeadlineExceededError(
        fmt::format("not caught up within {}; the member's log ends:\n{}",
                    absl::FormatDuration(kGiveUp), cluster_.LogTail(member_)));
  }

  const Options& options_;
  LocalCluster& cluster_;
  const std::atomic<bool>& cancelled_;
  const std::unique_ptr<DrillLoad> load_;
  int member_ = 0;
};

}  // namespace

std::vector<ReceivedSnapshot> SnapshotsIn(std::string_view log) {
  std::vector<ReceivedSnapshot> snapshots;
  for (absl::string_view part : absl::StrSplit(base::ToAbsl(log), '\n')) {
    const std::string line(part);
    const size_t at = line.find("snapshot at index ");
    ReceivedSnapshot snapshot;
    unsigned long long index = 0;
    unsigned long long bytes = 0;
    if (at != std::string::npos &&
        std::sscanf(line.c_str() + at, "snapshot at index %llu received: %llu bytes in %lf s",
                    &index, &bytes, &snapshot.seconds) == 3) {
      snapshot.index = index;
      snapshot.bytes = bytes;
      snapshots.push_back(snapshot);
    }
  }
  return snapshots;
}

std::string CatchupText(const Options& options, const CatchupResult& result) {
  std::string text = fmt::format(
      "server    {} members, version {}\n"
      "load      {} writers over all endpoints, values of {} B; {:.0f} MiB written without one "
      "follower\n\n  {:<14}{:>10}{:>12}{:>10}{:>14}{:>12}\n",
      options.local, result.version, options.clients, options.value_size,
      double(options.bytes) / kMebibyte, "", "seconds", "writes/s", "MiB/s", "longest gap",
      "retries");
  for (const CatchupPhase& phase : result.phases) {
    text += fmt::format("  {:<14}{:>10.2f}{:>12.0f}{:>10.1f}{:>11} ms{:>12}\n", phase.name,
                        phase.seconds, double(phase.writes) / phase.seconds,
                        double(phase.bytes) / kMebibyte / phase.seconds, ShortNumber(phase.gap_ms),
                        phase.failed_tries);
  }
  text += fmt::format("\n  writes while it caught up: {:.2f} of the rate before\n", result.ratio);
  for (const ReceivedSnapshot& snapshot : result.snapshots) {
    text += fmt::format("  snapshot at index {}: {:.1f} MiB in {:.2f} s, {:.1f} MiB/s\n",
                        snapshot.index, double(snapshot.bytes) / kMebibyte, snapshot.seconds,
                        double(snapshot.bytes) / kMebibyte / snapshot.seconds);
  }
  if (result.snapshots.empty()) {
    text += "  no snapshot was needed: it caught up by the log. More --bytes make one necessary\n";
  }
  return text;
}

nlohmann::json CatchupJson(const Options& options, const CatchupResult& result) {
  nlohmann::json json = {{"version", result.version},
                         {"writers", options.clients},
                         {"bytes", options.bytes},
                         {"ratio", result.ratio},
                         {"snapshots", nlohmann::json::array()}};
  for (const CatchupPhase& phase : result.phases) {
    json["phases"].push_back({{"name", phase.name},
                              {"seconds", phase.seconds},
                              {"writes", phase.writes},
                              {"bytes", phase.bytes},
                              {"failed_tries", phase.failed_tries},
                              {"gap_ms", phase.gap_ms}});
  }
  for (const ReceivedSnapshot& snapshot : result.snapshots) {
    json["snapshots"].push_back(
        {{"index", snapshot.index}, {"bytes", snapshot.bytes}, {"seconds", snapshot.seconds}});
  }
  return json;
}

absl::StatusOr<std::string> Catchup(const Options& options, const std::atomic<bool>& cancelled) {
  const Hardware hardware = ReadHardware();
  LocalClusterOptions local;
  local.binary = options.holdfastd;
  local.members = options.local;
  local.extra_args = options.holdfastd_args;
  local.root = options.data_dir_root;
  local.log_level = "info";  // SnapshotsIn reads the member's log
  local.cancelled = &cancelled;
  auto cluster = LocalCluster::Start(local);
  if (!cluster.ok()) return cluster.status();
  const auto status = AskStatus((*cluster)->endpoint(0), kStatusTimeout);
  if (!status.ok()) return status.status();
  Drill drill(options, **cluster, cancelled);
  absl::StatusOr<CatchupResult> result = drill.Run();
  if (!result.ok()) return result.status();
  result->version = status->version();
  if (!options.json) return HeaderText(options, hardware) + CatchupText(options, *result);
  nlohmann::json json = HeaderJson(options, hardware);
  json["catchup"] = CatchupJson(options, *result);
  return json.dump(2) + "\n";
}

}  // namespace holdfast::bench
