#include "bench/failover.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/drill_load.h"
#include "bench/local_cluster.h"
#include "bench/monotonic.h"
#include "bench/report.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

// Both systems' defaults; given to both all the same.
constexpr absl::Duration kHeartbeat = absl::Milliseconds(100);
constexpr absl::Duration kElection = absl::Seconds(1);
// Watched after the event, and longer until answers have flowed for kSteady.
constexpr absl::Duration kWatch = absl::Seconds(3);  // three of kElection
constexpr absl::Duration kWatchTransfer = absl::Seconds(1);
constexpr absl::Duration kSteady = absl::Milliseconds(500);
constexpr absl::Duration kGiveUp = absl::Seconds(60);
constexpr absl::Duration kQuiet = absl::Milliseconds(700);  // before each event
constexpr absl::Duration kPoll = absl::Milliseconds(10);
constexpr absl::Duration kStatusTimeout = absl::Seconds(1);
constexpr absl::Duration kMoveTimeout = absl::Seconds(5);

double Milliseconds(int64_t ns) { return double(ns) * 1e-6; }

absl::Status Interrupted() { return absl::CancelledError("interrupted"); }

absl::Status MoveLeader(LocalCluster& cluster, int leader) {
  const int to = (leader + 1) % cluster.size();
  const auto target = AskStatus(cluster.endpoint(to), kStatusTimeout);
  if (!target.ok()) return target.status();
  auto stub = etcdserverpb::Maintenance::NewStub(
      grpc::CreateChannel(cluster.endpoint(leader), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(kMoveTimeout));
  // The connection is not part of what is measured.
  context.set_wait_for_ready(true);
  etcdserverpb::MoveLeaderRequest request;
  request.set_targetid(target->header().member_id());
  etcdserverpb::MoveLeaderResponse response;
  const grpc::Status status = stub->MoveLeader(&context, request, &response);
  if (status.ok()) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("MoveLeader at {}: {}", cluster.endpoint(leader), status.error_message()));
}

class Drill {
 public:
  Drill(const Options& options, LocalCluster& cluster, const std::atomic<bool>& cancelled)
      : options_(options),
        cluster_(cluster),
        cancelled_(cancelled),
        load_(DrillLoad::Start(LoadOptionsOf(options, cluster.Endpoints()))) {}

  absl::StatusOr<FailoverRound> Round() {
    if (absl::Status status = WaitUntilWhole(); !status.ok()) return status;
    const int64_t quiet_from_ns = MonotonicNs();
    if (absl::Status status = Sleep(kQuiet); !status.ok()) return status;
    const absl::StatusOr<int> leader = cluster_.Leader();
    if (!leader.ok()) return leader.status();

    const int64_t event_ns = MonotonicNs();
    if (absl::Status status = Disturb(*leader); !status.ok()) return status;
    if (absl::Status status = WaitUntilSteady(event_ns); !status.ok()) return status;
    const int64_t watched_ns = MonotonicNs();
    if (absl::Status status = Restore(*leader); !status.ok()) return status;
    if (absl::Status status = WaitUntilWhole(); !status.ok()) return status;

    FailoverRound round;
    round.quiet_ms = Gap(quiet_from_ns, event_ns);
    round.gap_ms = Gap(event_ns, watched_ns);
    round.client_ms =
        Milliseconds(load_->SlowestClientNs(DrillLoad::Kind::kWrite, event_ns, watched_ns));
    round.return_ms = Gap(watched_ns, MonotonicNs());
    return round;
  }

  DrillLoad::Counts counts() const { return load_->counts(DrillLoad::Kind::kWrite); }

 private:
  double Gap(int64_t from_ns, int64_t to_ns) const {
    return Milliseconds(load_->LongestGapNs(DrillLoad::Kind::kWrite, from_ns, to_ns));
  }

  absl::Status Sleep(absl::Duration duration) const {
    const int64_t until_ns = MonotonicNs() + absl::ToInt64Nanoseconds(duration);
    while (MonotonicNs() < until_ns) {
      if (cancelled_) return Interrupted();
      absl::SleepFor(kPoll);
    }
    return absl::OkStatus();
  }

  absl::Status Disturb(int leader) {
    switch (options_.how) {
      case FailoverHow::kKill:
        return cluster_.Kill(leader);
      case FailoverHow::kPause:
        return cluster_.Pause(leader);
      case FailoverHow::kTerm:
        return cluster_.Stop(leader);
      case FailoverHow::kTransfer:
        return MoveLeader(cluster_, leader);
    }
    return absl::OkStatus();
  }

  absl::Status Restore(int leader) {
    switch (options_.how) {
      case FailoverHow::kKill:
      case FailoverHow::kTerm:
        return cluster_.Restart(leader);
      case FailoverHow::kPause:
        return cluster_.Resume(leader);
      case FailoverHow::kTransfer:
        return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // Answers have flowed for kSteady since the event, and it is long enough ago that the others must
  // have noticed.
  absl::Status WaitUntilSteady(int64_t event_ns) const {
    const int64_t watch_ns =
        absl::ToInt64Nanoseconds(options_.how == FailoverHow::kTransfer ? kWatchTransfer : kWatch);
    const int64_t steady_ns = absl::ToInt64Nanoseconds(kSteady);
    while (true) {
      if (cancelled_) return Interrupted();
      const int64_t now_ns = MonotonicNs();
      if (now_ns - event_ns > absl::ToInt64Nanoseconds(kGiveUp)) {
        return absl::DeadlineExceededError(fmt::format(
            "no steady flow of writes {} after the event", absl::FormatDuration(kGiveUp)));
      }
      if (now_ns - event_ns >= watch_ns &&
          load_->LongestGapNs(DrillLoad::Kind::kWrite, now_ns - steady_ns, now_ns) <
              steady_ns / 2) {
        return absl::OkStatus();
      }
      absl::SleepFor(kPoll);
    }
  }

  // All members run, agree on a leader, and have applied what it had a moment ago.
  absl::Status WaitUntilWhole() {
    if (absl::Status status = cluster_.WaitForLeader(kGiveUp); !status.ok()) return status;
    const absl::StatusOr<int> leader = cluster_.Leader();
    if (!leader.ok()) return WaitUntilWhole();
    const auto lead = AskStatus(cluster_.endpoint(*leader), kStatusTimeout);
    if (!lead.ok()) return lead.status();
    const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kGiveUp);
    for (int i = 0; i < cluster_.size();) {
      if (cancelled_) return Interrupted();
      const auto status = AskStatus(cluster_.endpoint(i), kStatusTimeout);
      if (status.ok() && status->raftappliedindex() >= lead->raftindex()) {
        ++i;
      } else if (MonotonicNs() > give_up_ns) {
        return absl::DeadlineExceededError(fmt::format("member m{} does not catch up", i));
      } else {
        absl::SleepFor(kPoll);
      }
    }
    return absl::OkStatus();
  }

  const Options& options_;
  LocalCluster& cluster_;
  const std::atomic<bool>& cancelled_;
  const std::unique_ptr<DrillLoad> load_;
};

absl::Status MeasureSide(const Options& options, bool etcd, const std::atomic<bool>& cancelled,
                         FailoverSide* side) {
  Options with_timeouts = options;
  for (std::vector<std::string>* args : {&with_timeouts.holdfastd_args, &with_timeouts.etcd_args}) {
    args->insert(args->begin(),
                 {fmt::format("--heartbeat-interval={}", absl::ToInt64Milliseconds(kHeartbeat)),
                  fmt::format("--election-timeout={}", absl::ToInt64Milliseconds(kElection))});
  }
  auto cluster = StartLocal(with_timeouts, etcd, cancelled);
  if (!cluster.ok()) return cluster.status();
  const auto status = AskStatus((*cluster)->endpoint(0), kStatusTimeout);
  if (!status.ok()) return status.status();
  side->version = status->version();
  Drill drill(options, **cluster, cancelled);
  for (uint32_t i = 0; i < options.rounds; ++i) {
    const absl::StatusOr<FailoverRound> round = drill.Round();
    if (!round.ok()) {
      return absl::Status(round.status().code(),
                          base::ToAbsl(fmt::format("{}, round {}: {}", side->name, i + 1,
                                                   base::Message(round.status()))));
    }
    side->rounds.push_back(*round);
    if (options.verbose) {
      fmt::print(stderr, "{} round {}/{}: gap {} ms, one client {}, before {}, at its return {}\n",
                 side->name, i + 1, options.rounds, ShortNumber(round->gap_ms),
                 ShortNumber(round->client_ms), ShortNumber(round->quiet_ms),
                 ShortNumber(round->return_ms));
    }
  }
  const DrillLoad::Counts counts = drill.counts();
  side->writes = counts.answered;
  side->failed_tries = counts.failed_tries;
  return absl::OkStatus();
}

struct Row {
  const char* name;
  double FailoverRound::*field;
};
constexpr Row kRows[] = {{"gap", &FailoverRound::gap_ms},
                         {"one client", &FailoverRound::client_ms},
                         {"before", &FailoverRound::quiet_ms},
                         {"at its return", &FailoverRound::return_ms}};

std::vector<double> Column(const FailoverSide& side, double FailoverRound::*field) {
  std::vector<double> values;
  for (const FailoverRound& round : side.rounds) values.push_back(round.*field);
  return values;
}

struct Quantile {
  const char* name;
  double q;
};
constexpr Quantile kQuantiles[] = {{"median", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"worst", 1}};

}  // namespace

std::string HowName(FailoverHow how) {
  switch (how) {
    case FailoverHow::kKill:
      return "leader killed (SIGKILL)";
    case FailoverHow::kPause:
      return "leader silent (SIGSTOP)";
    case FailoverHow::kTransfer:
      return "leadership handed over (MoveLeader)";
    case FailoverHow::kTerm:
      return "leader asked to stop (SIGTERM)";
  }
  return "";
}

std::string FailoverText(const Options& options, const std::vector<FailoverSide>& sides) {
  std::string text = fmt::format(
      "load      {} writers over all endpoints, values of {} B, a try is given up after {} to {}\n"
      "timeouts  heartbeat {}, election {}\n\n{}, {} rounds; ms without an acknowledged write\n",
      options.clients, options.value_size, absl::FormatDuration(options.try_timeout / 2),
      absl::FormatDuration(options.try_timeout), absl::FormatDuration(kHeartbeat),
      absl::FormatDuration(kElection), HowName(options.how), options.rounds);
  for (const FailoverSide& side : sides) {
    text += fmt::format("{} version {}: {} writes, {} tries failed\n", side.name, side.version,
                        side.writes, side.failed_tries);
    text += fmt::format("  {:<16}", "");
    for (const Quantile& quantile : kQuantiles) text += fmt::format("{:>10}", quantile.name);
    text += "\n";
    for (const Row& row : kRows) {
      text += fmt::format("  {:<16}", row.name);
      for (const Quantile& quantile : kQuantiles) {
        text += fmt::format("{:>10}", ShortNumber(Percentile(Column(side, row.field), quantile.q)));
      }
      text += "\n";
    }
  }
  return text;
}

nlohmann::json FailoverJson(const Options& options, const std::vector<FailoverSide>& sides) {
  nlohmann::json json = {{"how", HowName(options.how)},
                         {"writers", options.clients},
                         {"try_timeout_ms", absl::ToDoubleMilliseconds(options.try_timeout)},
                         {"heartbeat_ms", absl::ToInt64Milliseconds(kHeartbeat)},
                         {"election_ms", absl::ToInt64Milliseconds(kElection)}};
  for (const FailoverSide& side : sides) {
    nlohmann::json& out = json["sides"][side.name];
    out["version"] = side.version;
    out["writes"] = side.writes;
    out["failed_tries"] = side.failed_tries;
    for (const Row& row : kRows) {
      const std::vector<double> values = Column(side, row.field);
      for (const Quantile& quantile : kQuantiles) {
        out["ms"][row.name][quantile.name] = Percentile(values, quantile.q);
      }
      out["ms"][row.name]["rounds"] = values;
    }
  }
  return json;
}

absl::StatusOr<std::string> Failover(const Options& options, const std::atomic<bool>& cancelled) {
  const Hardware hardware = ReadHardware();
  std::vector<FailoverSide> sides;
  for (const bool etcd : {false, true}) {
    if ((etcd ? options.local_etcd : options.local) == 0) continue;
    FailoverSide side;
    side.name = etcd ? "etcd" : "holdfast";
    if (absl::Status status = MeasureSide(options, etcd, cancelled, &side); !status.ok()) {
      return status;
    }
    sides.push_back(std::move(side));
  }
  if (!options.json) return HeaderText(options, hardware) + FailoverText(options, sides);
  nlohmann::json json = HeaderJson(options, hardware);
  json["failover"] = FailoverJson(options, sides);
  return json.dump(2) + "\n";
}

}  // namespace holdfast::bench
