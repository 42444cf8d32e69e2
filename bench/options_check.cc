// What of a command line cannot be meant: everything but what the parser sees by itself.
#include <string_view>

#include <fmt/format.h>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/strings.h"
#include "bench/endpoint.h"
#include "bench/local_cluster.h"
#include "bench/operation.h"
#include "bench/options.h"

namespace holdfast::bench {

bool IsSuite(Command command) {
  return command == Command::kWatch || command == Command::kScale ||
         command == Command::kCompaction || command == Command::kLease ||
         command == Command::kMirror;
}

bool IsDrill(Command command) {
  return command == Command::kFailover || command == Command::kCatchup ||
         command == Command::kMembers;
}

// Before the flags are read: what they leave alone.
namespace {

absl::Status OutOfRange(std::string_view flag, std::string_view range) {
  return absl::InvalidArgumentError(fmt::format("{} must be {}", flag, range));
}

absl::Status ValidateTargets(const Options& o) {
  const bool both = o.command == Command::kCompare || o.command == Command::kModel ||
                    o.command == Command::kStages || o.command == Command::kDrill ||
                    IsDrill(o.command) || IsSuite(o.command);
  const int given = (o.endpoints.empty() ? 0 : 1) + (o.local != 0) + (o.local_etcd != 0);
  if (IsSuite(o.command) && !o.endpoints.empty() && given > 1) {
    return absl::InvalidArgumentError("--endpoints excludes --local and --local-etcd");
  }
  if (!both && given != 1) {
    return absl::InvalidArgumentError(
        "exactly one of --endpoints, --local and --local-etcd is needed");
  }
  for (const auto& [flag, members] :
       {std::pair{"--local", o.local}, std::pair{"--local-etcd", o.local_etcd}}) {
    if (members < 0 || members > kMaxLocalMembers) {
      return OutOfRange(flag, fmt::format("1 to {}", kMaxLocalMembers));
    }
  }
  if (!o.pids.empty() && o.endpoints.empty()) {
    return absl::InvalidArgumentError(
        "--pids goes with --endpoints; of started servers they are "
        "known");
  }
  if (o.endpoints.empty()) return absl::OkStatus();
  return ParseEndpoints(o.endpoints).status();
}

absl::Status ValidateLoad(const Options& o) {
  if (o.connections > kMaxConnections) {
    return OutOfRange("--connections", fmt::format("at most {}", kMaxConnections));
  }
  if (o.clients < 1 || o.clients > kMaxClients) {
    return OutOfRange("--clients", fmt::format("1 to {}", kMaxClients));
  }
  if (o.threads < 1 || o.threads > kMaxThreads) {
    return OutOfRange("--threads", fmt::format("1 to {}", kMaxThreads));
  }
  if (o.total > 0 && o.duration != absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--total and --duration exclude each other");
  }
  if (!(o.rate >= 0 && o.rate <= kMaxRate)) {
    return OutOfRange("--rate", fmt::format("at most {:.0f}", kMaxRate));
  }
  if (o.poisson && o.rate == 0) return absl::InvalidArgumentError("--poisson needs --rate");
  if (o.runs < 1 || o.runs > kMaxRuns)
    return OutOfRange("--runs", fmt::format("1 to {}", kMaxRuns));
  return absl::OkStatus();
}

absl::Status ValidateData(const Options& o) {
  if (o.key_space < 1 || o.key_space > kMaxKeySpace) {
    return OutOfRange("--key-space", fmt::format("1 to {}", kMaxKeySpace));
  }
  if (o.load > o.key_space) return OutOfRange("--load", "at most --key-space");
  if (o.key_size > kMaxKeySize)
    return OutOfRange("--key-size", fmt::format("at most {}", kMaxKeySize));
  const size_t needed = o.key_prefix.size() + DataShape::DigitsFor(o.key_space);
  if (o.key_size < needed) {
    return OutOfRange("--key-size",
                      fmt::format("at least {} for this prefix and key space", needed));
  }
  if (o.value_size > kMaxValueSize) {
    return OutOfRange("--value-size", fmt::format("at most {}", kMaxValueSize));
  }
  if (!(o.read_ratio >= 0 && o.read_ratio <= 1)) return OutOfRange("--read-ratio", "0 to 1");
  if (o.txn_ops < 1 || o.txn_ops > kMaxTxnOps) {
    return OutOfRange("--txn-ops", fmt::format("1 to {}", kMaxTxnOps));
  }
  return absl::OkStatus();
}

absl::Status ValidateWorkloads(const Options& o) {
  const bool inserts = std::ranges::any_of(
      o.workloads, [](const Workload& workload) { return workload.insert > 0; });
  const size_t needed = o.key_prefix.size() + DataShape::DigitsFor(o.key_space + kMaxInserts);
  if (inserts && o.key_size < needed) {
    return OutOfRange("--key-size", fmt::format("at least {} where keys are inserted", needed));
  }
  for (const Workload& workload : o.workloads) {
    if (workload.read != ReadLevel::kMirror) continue;
    if (o.rate > 0) {
      return absl::InvalidArgumentError("--rate is not for get-mirror: no call of it is under way");
    }
    if (o.command != Command::kCompare && o.api != Api::kNative) {
      return absl::InvalidArgumentError("get-mirror needs --api native");
    }
  }
  if (o.exactly_once && o.api != Api::kNative) {
    return absl::InvalidArgumentError("--exactly-once needs --api native");
  }
  if (o.native_clients < 1 || o.native_clients > kMaxNativeClients) {
    return OutOfRange("--native-clients", fmt::format("1 to {}", kMaxNativeClients));
  }
  if (o.command != Command::kCompare) return absl::OkStatus();
  const CompareOptions& compare = o.compare;
  if (compare.goals && o.rate > 0) {
    return absl::InvalidArgumentError("--rate is for --workloads: goals are of closed loops");
  }
  if (compare.targets.empty()) return OutOfRange("--sides", "at least one of native, unary, etcd");
  if (compare.goals && compare.memory_keys > 0 &&
      o.key_size < o.key_prefix.size() + DataShape::DigitsFor(compare.memory_keys)) {
    return OutOfRange("--key-size", "large enough for --memory-keys");
  }
  if (compare.native_callers < 1 || compare.native_callers > kMaxClients) {
    return OutOfRange("--native-callers", fmt::format("1 to {}", kMaxClients));
  }
  if (compare.memory_keys > kMaxKeySpace) {
    return OutOfRange("--memory-keys", fmt::format("at most {}", kMaxKeySpace));
  }
  for (const uint32_t clients : compare.etcd_clients) {
    if (clients < 1 || clients > kMaxClients) {
      return OutOfRange("--etcd-clients", fmt::format("1 to {} each", kMaxClients));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateDrill(const Options& o) {
  if (!IsDrill(o.command)) return absl::OkStatus();
  if (o.clients > kMaxDrillClients) {
    return OutOfRange("--clients", fmt::format("at most {} in a drill", kMaxDrillClients));
  }
  if (o.rounds < 1 || o.rounds > kMaxRounds) {
    return OutOfRange("--rounds", fmt::format("1 to {}", kMaxRounds));
  }
  if (o.command != Command::kMembers && o.local < 3) {
    return OutOfRange("--local", "at least 3: with fewer nothing goes on without one member");
  }
  if (o.local_etcd != 0 && o.local_etcd < 3) return OutOfRange("--local-etcd", "at least 3");
  return absl::OkStatus();
}

absl::Status ValidateDrills(const Options& o) {
  if (o.command != Command::kDrill) return absl::OkStatus();
  if (o.drill.out.empty()) return absl::InvalidArgumentError("--out must name a directory");
  if (o.drill.simulated_clients > kMaxSimulatedClients) {
    return OutOfRange("--simulated-clients", fmt::format("at most {}", kMaxSimulatedClients));
  }
  if (o.drill.length > absl::Minutes(10)) return OutOfRange("--duration", "at most 10m");
  for (const std::string& name : o.drill.names) {
    if (name == "list" && o.drill.names.size() > 1) {
      return absl::InvalidArgumentError("'list' stands alone");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateWatch(const Options& o) {
  const WatchOptions& w = o.watch;
  if (w.watchers < 1 || w.watchers > kMaxWatchers) {
    return OutOfRange("--watchers", fmt::format("1 to {}", kMaxWatchers));
  }
  if (w.streams < 1 || w.streams > kMaxStreams) {
    return OutOfRange("--streams", fmt::format("1 to {}", kMaxStreams));
  }
  if (w.fan_out < 1 || w.fan_out > w.watchers) {
    return OutOfRange("--fan-out", "1 to --watchers");
  }
  if (!w.whole_prefix && w.watchers % w.streams != 0) {
    return OutOfRange("--watchers", "a multiple of --streams");
  }
  if (!w.whole_prefix && w.watchers % w.fan_out != 0) {
    return OutOfRange("--watchers", "a multiple of --fan-out");
  }
  if (o.value_size < kStampBytes) {
    return OutOfRange("--value-size", fmt::format("at least {} here", kStampBytes));
  }
  return absl::OkStatus();
}

absl::Status ValidateScale(const Options& o) {
  for (const uint64_t keys : o.scale.keys) {
    if (keys < 1 || keys > kMaxScaleKeys) {
      return OutOfRange("--keys", fmt::format("1 to {}", kMaxScaleKeys));
    }
  }
  if (o.rate > 0) return absl::InvalidArgumentError("--rate is not for scale: its loop is closed");
  if (o.scale.range_keys < 1) return OutOfRange("--range-keys", "at least 1");
  if (o.scale.page < 1) return OutOfRange("--page", "at least 1");
  return absl::OkStatus();
}

absl::Status ValidateLease(const Options& o) {
  const LeaseOptions& lease = o.lease;
  for (const auto& [flag, count] :
       {std::pair{"--leases", lease.leases}, std::pair{"--etcd-leases", lease.etcd_leases}}) {
    if (count < 1 || count > kMaxLeases)
      return OutOfRange(flag, fmt::format("1 to {}", kMaxLeases));
  }
  if (!(lease.attach >= 0 && lease.attach <= 1)) return OutOfRange("--attach", "0 to 1");
  if (lease.streams < 1 || lease.streams > kMaxStreams) {
    return OutOfRange("--streams", fmt::format("1 to {}", kMaxStreams));
  }
  if (lease.expire > kMaxLeases) {
    return OutOfRange("--expire", fmt::format("at most {}", kMaxLeases));
  }
  if (lease.revoke > std::min(lease.leases, lease.etcd_leases)) {
    return OutOfRange("--revoke", "at most --leases and --etcd-leases");
  }
  if (lease.expire_ttl < absl::Seconds(1)) return OutOfRange("--expire-ttl", "at least 1s");
  return absl::OkStatus();
}

absl::Status ValidateMirror(const Options& o) {
  const MirrorOptions& m = o.mirror;
  if (m.keys < 1 || m.keys > kMaxMirrorKeys) {
    return OutOfRange("--keys", fmt::format("1 to {}", kMaxMirrorKeys));
  }
  if (m.large_keys > kMaxMirrorKeys) {
    return OutOfRange("--large", fmt::format("at most {}", kMaxMirrorKeys));
  }
  if (m.mirrors < 1 || m.mirrors > kMaxMirrors) {
    return OutOfRange("--mirrors", fmt::format("1 to {}", kMaxMirrors));
  }
  if (!(m.idle_rate > 0 && m.idle_rate <= kMaxRate)) {
    return OutOfRange("--idle-rate", fmt::format("above 0, at most {:.0f}", kMaxRate));
  }
  if (!(m.many_rate > 0 && m.many_rate <= kMaxRate)) {
    return OutOfRange("--many-rate", fmt::format("above 0, at most {:.0f}", kMaxRate));
  }
  if (m.disk_bytes > uint64_t{1} << 30) return OutOfRange("--disk-bytes", "at most 1G");
  if (o.value_size < kStampBytes) {
    return OutOfRange("--value-size", fmt::format("at least {} here", kStampBytes));
  }
  return absl::OkStatus();
}

absl::Status ValidateSuite(const Options& o) {
  if (!IsSuite(o.command)) return absl::OkStatus();
  // What they wait for is an event, or the span of time that the puts are compared over.
  if (o.total > 0) return absl::InvalidArgumentError("--total is not for this command");
  if (o.closed && o.rate > 0) {
    return absl::InvalidArgumentError("--closed and --rate exclude each other");
  }
  const absl::Duration puts = o.warmup + o.duration;
  if (o.rate * absl::ToDoubleSeconds(puts) > double(kMaxNotedPuts / 2)) {
    return OutOfRange("--rate", fmt::format("at most {} puts in --duration", kMaxNotedPuts / 2));
  }
  switch (o.command) {
    case Command::kWatch:
      return ValidateWatch(o);
    case Command::kScale:
      return ValidateScale(o);
    case Command::kLease:
      return ValidateLease(o);
    case Command::kMirror:
      return ValidateMirror(o);
    default:
      break;
  }
  if (o.compaction.revisions < 1 || o.compaction.revisions > kMaxRevisions) {
    return OutOfRange("--revisions", fmt::format("1 to {}", kMaxRevisions));
  }
  if (o.key_space < o.txn_ops) return OutOfRange("--key-space", "at least --txn-ops");
  return absl::OkStatus();
}

absl::Status ValidateStages(const Options& o) {
  if (o.command != Command::kStages) return absl::OkStatus();
  if (o.total > 0 || o.rate > 0) {
    return absl::InvalidArgumentError("--total and --rate are not for this command");
  }
  if (o.stages.streams < 1 || o.stages.streams > kMaxThreads) {
    return OutOfRange("--streams", fmt::format("1 to {}", kMaxThreads));
  }
  for (const uint32_t clients : o.stages.clients) {
    if (clients < 1 || clients > kMaxClients) {
      return OutOfRange("--at", fmt::format("1 to {}", kMaxClients));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Options::Validate() const {
  absl::Status status = ValidateTargets(*this);
  if (status.ok()) status = ValidateLoad(*this);
  if (status.ok()) status = ValidateData(*this);
  if (status.ok()) status = ValidateWorkloads(*this);
  if (status.ok()) status = ValidateDrill(*this);
  if (status.ok()) status = ValidateSuite(*this);
  if (status.ok()) status = ValidateDrills(*this);
  if (status.ok()) status = ValidateStages(*this);
  return status;
}

}  // namespace holdfast::bench
