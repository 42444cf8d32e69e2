#include "bench/scale.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/strings.h"
#include "bench/keys.h"
#include "bench/monotonic.h"
#include "bench/raw_calls.h"
#include "bench/session.h"
#include "etcd/rpc.grpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;
constexpr double kGoal = 0.2;  // of the first size's rate may be lost
// A key takes so much beside its own bytes, in every member: the same bytes in the log, in what the
// store keeps of history, and once more while files are merged.
constexpr uint64_t kDiskCopies = 3;
constexpr uint64_t kDiskPerKey = 160;
constexpr uint64_t kDiskPerMember = uint64_t{512} << 20;  // log files, whatever is in them
constexpr uint64_t kChunk = 250'000;                      // keys loaded at once
constexpr absl::Duration kSettleLimit = absl::Minutes(3);
constexpr absl::Duration kCallTimeout = absl::Minutes(2);
constexpr absl::Duration kStopTimeout = absl::Minutes(2);
constexpr absl::Duration kServeLimit = absl::Minutes(10);
constexpr absl::Duration kTryTimeout = absl::Seconds(2);
constexpr absl::Duration kTryPause = absl::Milliseconds(2);

double Seconds(int64_t from_ns) { return double(MonotonicNs() - from_ns) * 1e-9; }

// Over a connection of its own: one that outlives a try would go on with the client's backoff.
grpc::Status ReadOnce(const std::string& endpoint, const etcdserverpb::RangeRequest& request,
                      bool* found) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  auto stub = etcdserverpb::KV::NewStub(
      grpc::CreateCustomChannel(endpoint, grpc::InsecureChannelCredentials(), args));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(kTryTimeout));
  etcdserverpb::RangeResponse reply;
  const grpc::Status status = stub->Range(&context, request, &reply);
  *found = status.ok() && reply.kvs_size() == 1;
  return status;
}

// From `begin_ns` until the member answers a read of that one key.
absl::StatusOr<double> TimeToServe(LocalCluster& cluster, int member, const std::string& key,
                                   bool serializable, int64_t begin_ns,
                                   const std::atomic<bool>& cancelled) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  request.set_serializable(serializable);
  grpc::Status status;
  while (Seconds(begin_ns) < absl::ToDoubleSeconds(kServeLimit)) {
    if (cancelled) return absl::CancelledError("interrupted");
    if (!cluster.Running(member)) {
      return absl::UnavailableError(
          base::ToAbsl("the member has ended; its log ends:\n" + cluster.LogTail(member)));
    }
    bool found = false;
    status = ReadOnce(cluster.endpoint(member), request, &found);
    if (found) return Seconds(begin_ns);
    absl::SleepFor(kTryPause);
  }
  return absl::DeadlineExceededError(base::ToAbsl(fmt::format(
      "the member did not serve within {}; last answer: {} {}", absl::FormatDuration(kServeLimit),
      CodeName(status.error_code()), status.error_message())));
}

// One size of one side.
class Bench {
 public:
  Bench(const Options& options, uint64_t keys, Side side, int64_t give_up_ns,
        const std::atomic<bool>& cancelled)
      : options_(OptionsFor(options, keys)),
        keys_(keys),
        side_(side),
        give_up_ns_(give_up_ns),
        cancelled_(cancelled),
        shape_(options.key_prefix, options.key_size, options.value_size, options_.seed) {
    table_.title = fmt::format("{} keys", keys);
  }

  absl::StatusOr<Table> Run(std::string* version) {
    const int members = side_ == Side::kEtcd ? options_.local_etcd : options_.local;
    const uint64_t needed = ScaleDiskBytes(keys_, members, options_.key_size + options_.value_size);
    if (absl::Status status = CheckDiskSpace(needed, options_.data_dir_root); !status.ok()) {
      return status;
    }
    auto servers = OpenServers(options_, side_, cancelled_);
    if (!servers.ok()) return servers.status();
    servers_ = *std::move(servers);
    *version = servers_.version;
    auto session = Session::Open(options_, servers_.endpoints, servers_.pids, cancelled_);
    if (!session.ok()) return session.status();
    session_ = *std::move(session);
    absl::Status status = Load();
    if (status.ok()) status = Rates();
    if (status.ok()) status = Ranges();
    if (status.ok()) status = Restarts();
    if (!status.ok()) return status;
    return table_;
  }

 private:
  static Options OptionsFor(Options options, uint64_t keys) {
    options.key_space = keys;
    options.load = keys;
    // The store's quota must not end the load. Both servers know the flag.
    const std::string quota = fmt::format(
        "--quota-backend-bytes={}",
        std::max<uint64_t>(uint64_t{8} << 30,
                           8 * keys * (options.key_size + options.value_size + kDiskPerKey)));
    options.holdfastd_args.insert(options.holdfastd_args.begin(), quota);
    options.etcd_args.insert(options.etcd_args.begin(), quota);
    return options;
  }

  void Say(const std::string& text) const {
    Progress(side_, fmt::format("{} keys: {}", keys_, text));
  }

  void Add(const std::string& name, const char* unit, double value, Better better) {
    table_.metrics.push_back({.name = name, .unit = unit, .value = value, .better = better});
  }

  absl::Status InTime() const {
    if (cancelled_) return absl::CancelledError("interrupted");
    if (MonotonicNs() < give_up_ns_) return absl::OkStatus();
    return absl::DeadlineExceededError(
        base::ToAbsl(fmt::format("{} keys: not done within --time-limit of {}", keys_,
                                 absl::FormatDuration(options_.scale.time_limit))));
  }

  absl::Status Load() {
    const int64_t begin_ns = MonotonicNs();
    const uint64_t chunk = kChunk / session_->TxnKeys() * session_->TxnKeys();
    for (uint64_t done = 0; done < keys_;) {
      if (absl::Status status = InTime(); !status.ok()) return status;
      const uint64_t part = std::min(chunk, keys_ - done);
      const auto load = session_->Write(done, part, 0);
      if (!load.ok()) return load.status();
      done += part;
      Say(fmt::format("{} loaded, {:.0f} a second", done, double(done) / Seconds(begin_ns)));
    }
    Add("load", "key/s", double(keys_) / Seconds(begin_ns), Better::kHigher);
    const auto settled = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_);
    if (!settled.ok()) return settled.status();
    Add("settle", "s", *settled, Better::kLower);
    if (absl::Status status = AddMemoryOfMembers(); !status.ok()) return status;
    const double members = double(servers_.pids.size());
    const double disk = double(servers_.cluster->DiskBytes());
    Add("disk_member", "MiB", disk / members / kMebibyte, Better::kLower);
    Add("disk_per_key", "B", disk / members / double(keys_), Better::kLower);
    return absl::OkStatus();
  }

  // Of the leader and of the largest follower.
  absl::Status AddMemoryOfMembers() {
    LocalCluster& cluster = *servers_.cluster;
    if (absl::Status status = cluster.WaitForLeader(kCallTimeout); !status.ok()) return status;
    const pid_t leader = servers_.LeaderPid();
    std::vector<pid_t> followers = servers_.pids;
    std::erase(followers, leader);
    AddMemory("leader_", LargestMemory({leader}), &table_.metrics);
    if (!followers.empty()) AddMemory("follower_", LargestMemory(followers), &table_.metrics);
    const Memory largest = LargestMemory(servers_.pids);
    Add("anon_per_key", "B", largest.anon_mib * kMebibyte / double(keys_), Better::kLower);
    return absl::OkStatus();
  }

  absl::Status Rates() {
    for (const bool reads : {false, true}) {
      if (absl::Status status = InTime(); !status.ok()) return status;
      const std::string name = reads ? "get" : "put";
      Say(name + "s");
      const auto result = session_->RunOnce({.workload = reads ? GetWorkload() : PutWorkload()});
      if (!result.ok()) return result.status();
      const RunStats& stats = result->stats;
      if (stats.ok() == 0) return absl::UnavailableError("no request succeeded");
      const LatencyHistogram latency = stats.AllLatencies();
      Add(name + "_rate", "/s", stats.Throughput(), Better::kHigher);
      Add(name + "_p50", "ms", double(latency.QuantileNs(0.5)) * 1e-6, Better::kLower);
      Add(name + "_p99", "ms", double(latency.QuantileNs(0.99)) * 1e-6, Better::kLower);
      Add(name + "_max", "ms", double(latency.max_ns()) * 1e-6, Better::kLower);
      Add(name + "_errors", "", double(stats.failed()), Better::kLower);
    }
    return absl::OkStatus();
  }

  struct RangePart {
    uint64_t first = 0;
    uint64_t end = 0;
    int64_t limit = 0;
    bool count_only = false;
  };

  // Asks for each part in turn, over one connection. `*kvs` and `*count` sum up the answers.
  absl::StatusOr<double> Ask(const std::vector<RangePart>& parts, uint64_t* kvs, uint64_t* count) {
    *kvs = 0;
    *count = 0;
    auto channels = RawChannels::Open({servers_.endpoints[0]}, 1);
    if (!channels.ok()) return channels.status();
    CallPlan plan;
    plan.method = "/etcdserverpb.KV/Range";
    plan.calls = parts.size();
    plan.clients = 1;
    plan.timeout = kCallTimeout;
    plan.request = [&](uint64_t n) {
      etcdserverpb::RangeRequest request;
      shape_.WriteKey(parts[n].first, request.mutable_key());
      shape_.WriteKey(parts[n].end, request.mutable_range_end());
      request.set_limit(parts[n].limit);
      request.set_count_only(parts[n].count_only);
      return Pack(request);
    };
    plan.reply = [&](uint64_t, int64_t, int64_t, const grpc::ByteBuffer& bytes) {
      etcdserverpb::RangeResponse reply;
      if (!Unpack(bytes, &reply)) return absl::InternalError("no RangeResponse");
      *kvs += uint64_t(reply.kvs_size());
      *count += uint64_t(reply.count());
      return absl::OkStatus();
    };
    const auto result = RunCalls(**channels, plan, cancelled_);
    if (!result.ok()) return result.status();
    return result->seconds;
  }

  absl::Status Ranges() {
    if (absl::Status status = InTime(); !status.ok()) return status;
    Say("ranges");
    const uint64_t keys = std::min(keys_, options_.scale.range_keys);
    const uint64_t first = (keys_ - keys) / 2;
    uint64_t kvs = 0;
    uint64_t count = 0;
    const auto whole = Ask({{.first = first, .end = first + keys}}, &kvs, &count);
    if (!whole.ok()) return whole.status();
    if (kvs != keys) return WrongAnswer("range", kvs, keys);
    Add("range_in_one", "s", *whole, Better::kLower);

    // As a client pages that knows its last key: each page goes to the range's end.
    std::vector<RangePart> pages;
    for (uint64_t k = first; k < first + keys; k += options_.scale.page) {
      pages.push_back({.first = k, .end = first + keys, .limit = int64_t(options_.scale.page)});
    }
    const auto paged = Ask(pages, &kvs, &count);
    if (!paged.ok()) return paged.status();
    if (kvs != keys) return WrongAnswer("pages", kvs, keys);
    Add("range_in_pages", "s", *paged, Better::kLower);

    const auto counted =
        Ask({{.first = 0, .end = keys_, .limit = 0, .count_only = true}}, &kvs, &count);
    if (!counted.ok()) return counted.status();
    if (count != keys_) return WrongAnswer("count", count, keys_);
    Add("count_all", "s", *counted, Better::kLower);
    return absl::OkStatus();
  }

  static absl::Status WrongAnswer(const char* what, uint64_t got, uint64_t expected) {
    return absl::DataLossError(
        base::ToAbsl(fmt::format("{}: {} keys, and there are {}", what, got, expected)));
  }

  // A follower, so that no election is part of it.
  absl::Status Restarts() {
    LocalCluster& cluster = *servers_.cluster;
    std::string key;
    shape_.WriteKey(keys_ / 2, &key);
    for (const bool kill : {false, true}) {
      if (absl::Status status = InTime(); !status.ok()) return status;
      Say(kill ? "restart after a kill" : "restart after a stop");
      if (absl::Status status = cluster.WaitForLeader(kServeLimit); !status.ok()) return status;
      const absl::StatusOr<int> leader = cluster.Leader();
      if (!leader.ok()) return leader.status();
      const int member = cluster.size() == 1 ? 0 : (*leader + 1) % cluster.size();
      const int64_t stop_ns = MonotonicNs();
      absl::Status status = kill ? cluster.Kill(member) : cluster.Stop(member, kStopTimeout);
      if (!status.ok()) return status;
      if (!kill) Add("stop", "s", Seconds(stop_ns), Better::kLower);
      const int64_t begin_ns = MonotonicNs();
      status = cluster.Restart(member);
      if (!status.ok()) return status;
      const std::string prefix = kill ? "after_kill_" : "after_stop_";
      for (const bool serializable : {true, false}) {
        const auto seconds = TimeToServe(cluster, member, key, serializable, begin_ns, cancelled_);
        if (!seconds.ok()) return seconds.status();
        Add(prefix + (serializable ? "own_read" : "read"), "s", *seconds, Better::kLower);
      }
    }
    return absl::OkStatus();
  }

  const Options options_;
  const uint64_t keys_;
  const Side side_;
  const int64_t give_up_ns_;
  const std::atomic<bool>& cancelled_;
  const DataShape shape_;
  Servers servers_;
  std::unique_ptr<Session> session_;
  Table table_;
};

const Metric* Find(const Table& table, const std::string& name) {
  const auto it = std::ranges::find(table.metrics, name, &Metric::name);
  return it == table.metrics.end() ? nullptr : &*it;
}

}  // namespace

uint64_t ScaleDiskBytes(uint64_t keys, int members, size_t pair_bytes) {
  return uint64_t(members) * (kDiskPerMember + keys * (kDiskCopies * pair_bytes + kDiskPerKey));
}

absl::Status CheckDiskSpace(uint64_t needed_bytes, const std::string& root) {
  std::error_code error;
  const std::filesystem::path path =
      root.empty() ? std::filesystem::temp_directory_path(error) : std::filesystem::path(root);
  std::filesystem::create_directories(path, error);
  const std::filesystem::space_info space = std::filesystem::space(path, error);
  if (error) {
    return absl::InvalidArgumentError(
        base::ToAbsl(fmt::format("{}: {}", path.string(), error.message())));
  }
  if (space.available >= needed_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(base::ToAbsl(
      fmt::format("{} has {:.1f} GiB free and some {:.1f} GiB are needed; give less --keys, or a "
                  "larger disk by --data-dir-root",
                  path.string(), double(space.available) / kMebibyte / 1024,
                  double(needed_bytes) / kMebibyte / 1024)));
}

std::vector<std::string> ScaleNotes(const std::vector<Table>& tables) {
  std::vector<std::string> notes;
  for (size_t i = 1; i < tables.size(); ++i) {
    for (const char* name : {"put_rate", "get_rate", "put_p99", "get_p99"}) {
      const Metric* first = Find(tables[0], name);
      const Metric* here = Find(tables[i], name);
      if (first == nullptr || here == nullptr || first->value <= 0) continue;
      const double ratio = here->value / first->value;
      const bool met = here->better == Better::kHigher ? ratio >= 1 - kGoal : ratio <= 1 + kGoal;
      notes.push_back(fmt::format("{} at {}: {:.2f} of that at {}; goal within {:.0f} %: {}", name,
                                  tables[i].title, ratio, tables[0].title, kGoal * 100,
                                  met ? "met" : "MISSED"));
    }
  }
  return notes;
}

absl::StatusOr<BenchReport> ScaleBench(const Options& options, const std::atomic<bool>& cancelled) {
  const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(options.scale.time_limit);
  // Refused before hours are spent on the sizes before it.
  const uint64_t most = *std::ranges::max_element(options.scale.keys);
  const uint64_t needed =
      ScaleDiskBytes(most, std::max(options.local, 1), options.key_size + options.value_size);
  if (absl::Status status = CheckDiskSpace(needed, options.data_dir_root); !status.ok()) {
    return status;
  }
  const Hardware hardware = ReadHardware();
  std::vector<SideTurns> sides;
  for (const Side side : SidesOf(options)) sides.push_back({.side = side, .turns = {Turn()}});
  for (const uint64_t keys : options.scale.keys) {
    for (SideTurns& side : sides) {
      Turn& turn = side.turns[0];
      if (side.side == Side::kEtcd && keys > options.scale.etcd_max_keys) continue;
      if (!turn.wrong.empty()) continue;  // a greater size would fare no better
      auto table = Bench(options, keys, side.side, give_up_ns, cancelled).Run(&turn.version);
      if (absl::IsCancelled(table.status())) return table.status();
      if (table.ok()) {
        turn.tables.push_back(*std::move(table));
      } else {
        turn.wrong.push_back(fmt::format("{} keys: {}", keys, base::Message(table.status())));
        Progress(side.side, turn.wrong.back());
      }
    }
  }
  for (SideTurns& side : sides) side.turns[0].notes = ScaleNotes(side.turns[0].tables);
  const std::string load = fmt::format(
      "values of {} B, transactions of {} puts; {} clients in a closed loop, {} each",
      options.value_size, options.txn_ops, options.clients, absl::FormatDuration(options.duration));
  return ReportOf(options, hardware, load, sides);
}

}  // namespace holdfast::bench
