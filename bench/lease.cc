#include "bench/lease.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "bench/keys.h"
#include "bench/lease_streams.h"
#include "bench/monotonic.h"
#include "bench/put_load.h"
#include "bench/raw_calls.h"
#include "etcd/rpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr int64_t kLongTtlSeconds = 24 * 3600;  // outlives every run
constexpr uint64_t kProgressEvery = 100'000;
// Short-lived leases are granted in parts, and each part's keys put at once: a part takes about so
// much of the TTL, at the rate that the grants before had, and is no greater than that.
constexpr double kExpirePart = 0.2;
constexpr uint64_t kExpirePartMax = 1'000;
constexpr absl::Duration kSettleLimit = absl::Seconds(30);
constexpr absl::Duration kIdle = absl::Seconds(3);
constexpr absl::Duration kPoll = absl::Milliseconds(20);
// Keys that are still there so long after they were due to go are told as never gone. etcd revokes
// a thousand leases a second.
constexpr absl::Duration kVanishLimit = absl::Seconds(60);
constexpr double kVanishPerSecond = 500;

double Milliseconds(int64_t ns) { return double(ns) * 1e-6; }

struct Granted {
  int64_t id = 0;
  int64_t ttl_ns = 0;  // as the server has it
  int64_t sent_ns = 0;
  int64_t answered_ns = 0;
};

class Bench {
 public:
  Bench(const Options& options, Side side, const std::atomic<bool>& cancelled)
      : options_(options),
        side_(side),
        cancelled_(cancelled),
        leases_(side == Side::kEtcd ? std::min(options.lease.leases, options.lease.etcd_leases)
                                    : options.lease.leases),
        shape_(options.key_prefix, options.key_size, options.value_size, options.seed) {}

  absl::StatusOr<Turn> Run() {
    auto servers = OpenServers(options_, side_, cancelled_);
    if (!servers.ok()) return servers.status();
    servers_ = *std::move(servers);
    turn_.version = servers_.version;
    auto channels =
        RawChannels::Open(servers_.endpoints, options_.connections > 0 ? options_.connections
                                                                       : servers_.endpoints.size());
    if (!channels.ok()) return channels.status();
    channels_ = *std::move(channels);
    absl::Status status = GrantAll();
    if (status.ok()) status = Attach();
    if (status.ok()) status = KeepAlive();
    if (status.ok()) status = Expire();
    if (status.ok()) status = Revoke();
    if (!status.ok() && absl::IsCancelled(status)) return status;
    // The tables of the steps before are still worth telling.
    if (!status.ok()) turn_.wrong.push_back(std::string(base::Message(status)));
    return turn_;
  }

 private:
  static void Add(Table* table, const char* name, const char* unit, double value, Better better) {
    table->metrics.push_back({.name = name, .unit = unit, .value = value, .better = better});
  }

  static void AddLatency(const LatencyHistogram& latency, Table* table) {
    Add(table, "p50", "ms", Milliseconds(latency.QuantileNs(0.5)), Better::kLower);
    Add(table, "p99", "ms", Milliseconds(latency.QuantileNs(0.99)), Better::kLower);
    Add(table, "max", "ms", Milliseconds(latency.max_ns()), Better::kLower);
  }

  Memory LeaderMemory() const {
    const pid_t leader = servers_.LeaderPid();
    return LargestMemory(leader != 0 ? std::vector<pid_t>{leader} : servers_.pids);
  }

  absl::StatusOr<CallsResult> Grant(uint64_t count, int64_t ttl_seconds,
                                    std::vector<Granted>* granted) {
    const size_t first = granted->size();
    granted->resize(first + count);
    CallPlan plan;
    plan.method = "/etcdserverpb.Lease/LeaseGrant";
    plan.calls = count;
    plan.clients = options_.clients;
    plan.request = [ttl_seconds](uint64_t) {
      etcdserverpb::LeaseGrantRequest request;
      request.set_ttl(ttl_seconds);
      return Pack(request);
    };
    plan.reply = [this, granted, first, answered = uint64_t{0}, count](
                     uint64_t n, int64_t sent_ns, int64_t now_ns,
                     const grpc::ByteBuffer& bytes) mutable -> absl::Status {
      etcdserverpb::LeaseGrantResponse reply;
      if (!Unpack(bytes, &reply) || reply.id() == 0) {
        return absl::InternalError("a lease was granted without an ID");
      }
      (*granted)[first + n] = {.id = reply.id(),
                               .ttl_ns = reply.ttl() * 1'000'000'000,
                               .sent_ns = sent_ns,
                               .answered_ns = now_ns};
      if (++answered % kProgressEvery == 0) {
        Progress(side_, fmt::format("{} of {} leases granted", answered, count));
      }
      return absl::OkStatus();
    };
    return RunCalls(*channels_, plan, cancelled_);
  }

  // Puts the keys first, first + 1... , one for each lease.
  absl::StatusOr<CallsResult> PutKeys(const std::vector<Granted>& leases, size_t begin, size_t end,
                                      uint64_t first_key) {
    const uint64_t batch = options_.txn_ops;
    CallPlan plan;
    plan.method = "/etcdserverpb.KV/Txn";
    plan.calls = (end - begin + batch - 1) / batch;
    plan.request = [this, &leases, begin, end, first_key, batch](uint64_t n) {
      etcdserverpb::TxnRequest request;
      const size_t from = begin + n * batch;
      for (size_t i = from; i < std::min<size_t>(end, from + batch); ++i) {
        etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
        const uint64_t key = first_key + i;
        shape_.WriteKey(key, put.mutable_key());
        put.set_value(std::string(shape_.Value(key, 0)));
        put.set_lease(leases[i].id);
      }
      return Pack(request);
    };
    return RunCalls(*channels_, plan, cancelled_);
  }

  absl::Status GrantAll() {
    if (auto quiet = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_); !quiet.ok()) {
      return quiet.status();
    }
    const Memory before = LeaderMemory();
    Progress(side_, fmt::format("granting {} leases", leases_));
    const CpuSample begin = TakeCpuSample(servers_.pids);
    const auto calls = Grant(leases_, kLongTtlSeconds, &granted_);
    if (!calls.ok()) return calls.status();
    grant_rate_ = calls->Rate();
    const CpuSample end = TakeCpuSample(servers_.pids);
    if (auto quiet = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_); !quiet.ok()) {
      return quiet.status();
    }
    const CpuSample idle_begin = TakeCpuSample(servers_.pids);
    if (absl::Status status = SleepFor(kIdle, cancelled_); !status.ok()) return status;
    const CpuSample idle_end = TakeCpuSample(servers_.pids);
    const double idle_seconds = double(idle_end.taken_ns - idle_begin.taken_ns) * 1e-9;

    Table table{.title = "grant", .metrics = {}};
    Add(&table, "leases", "", double(leases_), Better::kNeither);
    Add(&table, "rate", "/s", calls->Rate(), Better::kHigher);
    AddLatency(calls->latency, &table);
    if (!servers_.pids.empty()) {
      Add(&table, "server_cpu", "us", (end.servers - begin.servers) * 1e6 / double(leases_),
          Better::kLower);
      Add(&table, "idle_cpu", "cores", (idle_end.servers - idle_begin.servers) / idle_seconds,
          Better::kLower);
      const Memory after = LeaderMemory();
      AddMemory("leader_before_", before, &table.metrics);
      AddMemory("leader_after_", after, &table.metrics);
      Add(&table, "leader_anon_more", "B/lease",
          (after.anon_mib - before.anon_mib) * 1024 * 1024 / double(leases_), Better::kLower);
    }
    turn_.tables.push_back(std::move(table));
    return absl::OkStatus();
  }

  absl::Status Attach() {
    const size_t keys = size_t(options_.lease.attach * double(leases_));
    if (keys == 0) return absl::OkStatus();
    Progress(side_, fmt::format("attaching {} keys", keys));
    const auto calls = PutKeys(granted_, 0, keys, 0);
    if (!calls.ok()) return calls.status();
    Table table{.title = "attach", .metrics = {}};
    Add(&table, "rate", "key/s", double(keys) / calls->seconds, Better::kHigher);
    if (!servers_.pids.empty()) AddMemory("leader_", LeaderMemory(), &table.metrics);
    turn_.tables.push_back(std::move(table));
    return absl::OkStatus();
  }

  absl::Status KeepAlive() {
    Progress(side_, "keep-alives");
    KeepAlivePlan plan;
    for (const Granted& lease : granted_) plan.leases.push_back(lease.id);
    plan.streams = size_t(std::min<uint64_t>(options_.lease.streams, leases_));
    plan.threads = options_.threads;
    plan.in_flight = std::max<uint32_t>(1, options_.clients / uint32_t(plan.streams));
    const std::unique_ptr<KeepAlives> alive = KeepAlives::Start(*channels_, std::move(plan));
    absl::Status status = SleepFor(options_.warmup, cancelled_);
    const uint64_t begin = alive->answers();
    const CpuSample before = TakeCpuSample(servers_.pids);
    if (status.ok()) status = SleepFor(options_.duration, cancelled_);
    const CpuSample after = TakeCpuSample(servers_.pids);
    const double answers = double(alive->answers() - begin);
    const double seconds = double(after.taken_ns - before.taken_ns) * 1e-9;
    const KeepAlives::Result result = alive->Stop();
    if (!status.ok()) return status;
    Table table{.title = "keep-alive", .metrics = {}};
    Add(&table, "rate", "/s", answers / seconds, Better::kHigher);
    AddLatency(result.latency, &table);
    if (!servers_.pids.empty() && answers > 0) {
      Add(&table, "server_cpu", "us", (after.servers - before.servers) * 1e6 / answers,
          Better::kLower);
    }
    turn_.tables.push_back(std::move(table));
    if (result.lost > 0) {
      turn_.wrong.push_back(fmt::format("{} keep-alives found no lease", result.lost));
    }
    for (const std::string& error : result.errors) turn_.wrong.push_back(error);
    return absl::OkStatus();
  }

  absl::Status Expire() {
    const uint64_t count = options_.lease.expire;
    if (count == 0) return absl::OkStatus();
    const uint64_t first_key = options_.lease.leases;
    auto watch = VanishWatch::Open(*channels_, shape_, first_key, count);
    if (!watch.ok()) return watch.status();
    PutLoadOptions load = PutLoadOptionsOf(options_, servers_.endpoints);
    const uint64_t other_keys = options_.key_space - first_key - count;
    load.key = [=](uint64_t n) { return first_key + count + n * 7919 % other_keys; };
    auto puts = PutLoad::Start(shape_, load, cancelled_);
    if (!puts.ok()) return puts.status();
    if (absl::Status status = SleepFor(options_.warmup, cancelled_); !status.ok()) return status;
    const int64_t before_ns = MonotonicNs();
    if (absl::Status status = SleepFor(options_.duration, cancelled_); !status.ok()) return status;
    const int64_t grant_ns = MonotonicNs();

    Progress(side_, fmt::format("{} leases of {}", count,
                                absl::FormatDuration(options_.lease.expire_ttl)));
    std::vector<Granted> leases;
    const int64_t ttl = absl::ToInt64Seconds(options_.lease.expire_ttl);
    const uint64_t part =
        std::clamp<uint64_t>(uint64_t(grant_rate_ * double(ttl) * kExpirePart), 1, kExpirePartMax);
    while (leases.size() < count) {
      const size_t begin = leases.size();
      const auto grants = Grant(std::min(part, count - begin), ttl, &leases);
      if (!grants.ok()) return grants.status();
      const auto keys = PutKeys(leases, begin, leases.size(), first_key);
      if (!keys.ok()) {
        return absl::Status(
            keys.status().code(),
            base::ToAbsl(fmt::format("{} (a lease that is not found is over: --expire-ttl is too "
                                     "short for the rate of these servers)",
                                     base::Message(keys.status()))));
      }
    }
    int64_t due_first_ns = INT64_MAX;
    int64_t due_last_ns = 0;
    for (const Granted& lease : leases) {
      due_first_ns = std::min(due_first_ns, lease.answered_ns + lease.ttl_ns);
      due_last_ns = std::max(due_last_ns, lease.answered_ns + lease.ttl_ns);
    }
    const int64_t give_up_ns = due_last_ns + absl::ToInt64Nanoseconds(kVanishLimit) +
                               int64_t(double(count) / kVanishPerSecond * 1e9);
    while ((*watch)->vanished() < count && (*watch)->Error().empty() &&
           MonotonicNs() < give_up_ns) {
      if (absl::Status status = SleepFor(kPoll, cancelled_); !status.ok()) return status;
    }
    const int64_t end_ns = std::max(MonotonicNs(), due_first_ns + 1);
    (*puts)->Stop();
    if (const std::string error = (*watch)->Error(); !error.empty()) turn_.wrong.push_back(error);
    ReportExpiry(leases, (*watch)->Close());
    Table table{.title = "puts meanwhile", .metrics = {}};
    AddPuts("before_", (*puts)->Between(before_ns, grant_ns), &table.metrics);
    AddPuts("expiring_", (*puts)->Between(due_first_ns, end_ns), &table.metrics);
    turn_.tables.push_back(std::move(table));
    if (const std::string text = (*puts)->Complaint(); !text.empty()) turn_.notes.push_back(text);
    return absl::OkStatus();
  }

  void ReportExpiry(const std::vector<Granted>& leases, const std::vector<int64_t>& vanished_ns) {
    LatencyHistogram late;
    uint64_t early = 0;
    uint64_t remained = 0;
    int64_t first_ns = INT64_MAX;
    int64_t last_ns = 0;
    for (size_t i = 0; i < leases.size(); ++i) {
      const int64_t gone_ns = vanished_ns[i];
      if (gone_ns == 0) {
        ++remained;
        continue;
      }
      // The server began to count somewhere between the request and its answer.
      if (gone_ns < leases[i].sent_ns + leases[i].ttl_ns) ++early;
      late.Record(gone_ns - leases[i].answered_ns - leases[i].ttl_ns);
      first_ns = std::min(first_ns, gone_ns);
      last_ns = std::max(last_ns, gone_ns);
    }
    Table table{.title = "expire", .metrics = {}};
    Add(&table, "leases", "", double(leases.size()), Better::kNeither);
    Add(&table, "late_p50", "ms", Milliseconds(late.QuantileNs(0.5)), Better::kLower);
    Add(&table, "late_p99", "ms", Milliseconds(late.QuantileNs(0.99)), Better::kLower);
    Add(&table, "late_max", "ms", Milliseconds(late.max_ns()), Better::kLower);
    Add(&table, "rate", "/s",
        last_ns > first_ns ? double(late.count()) * 1e9 / double(last_ns - first_ns) : 0,
        Better::kHigher);
    Add(&table, "early", "", double(early), Better::kLower);
    Add(&table, "remained", "", double(remained), Better::kLower);
    turn_.tables.push_back(std::move(table));
    if (early > 0) {
      turn_.wrong.push_back(fmt::format("{} keys went before their lease's TTL was over", early));
    }
    if (remained > 0) {
      turn_.wrong.push_back(fmt::format("{} keys of expired leases did not go", remained));
    }
  }

  absl::Status Revoke() {
    const uint64_t count = std::min<uint64_t>(options_.lease.revoke, leases_);
    if (count == 0) return absl::OkStatus();
    Progress(side_, fmt::format("revoking {} leases", count));
    CallPlan plan;
    plan.method = "/etcdserverpb.Lease/LeaseRevoke";
    plan.calls = count;
    plan.clients = options_.clients;
    plan.request = [this](uint64_t n) {
      etcdserverpb::LeaseRevokeRequest request;
      request.set_id(granted_[n].id);
      return Pack(request);
    };
    const auto calls = RunCalls(*channels_, plan, cancelled_);
    if (!calls.ok()) return calls.status();
    Table table{.title = "revoke", .metrics = {}};
    Add(&table, "rate", "/s", calls->Rate(), Better::kHigher);
    AddLatency(calls->latency, &table);
    if (!servers_.pids.empty()) AddMemory("leader_end_", LeaderMemory(), &table.metrics);
    turn_.tables.push_back(std::move(table));
    return absl::OkStatus();
  }

  const Options& options_;
  const Side side_;
  const std::atomic<bool>& cancelled_;
  const uint64_t leases_;
  const DataShape shape_;
  Servers servers_;
  std::unique_ptr<RawChannels> channels_;
  std::vector<Granted> granted_;
  double grant_rate_ = 0;  // a second
  Turn turn_;
};

}  // namespace

absl::StatusOr<BenchReport> LeaseBench(const Options& options, const std::atomic<bool>& cancelled) {
  std::string load = fmt::format("{} leases", options.lease.leases);
  if (options.local_etcd > 0 && options.lease.etcd_leases < options.lease.leases) {
    load += fmt::format(" ({} on etcd)", options.lease.etcd_leases);
  }
  load += fmt::format(", {:.0f} % with a key; {} calls in flight; puts: {}; {} leases expire",
                      options.lease.attach * 100, options.clients, LoopName(options),
                      options.lease.expire);
  return SideBySide(options, load,
                    [&](Side side, uint32_t) { return Bench(options, side, cancelled).Run(); });
}

}  // namespace holdfast::bench
