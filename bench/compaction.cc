#include "bench/compaction.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "bench/keys.h"
#include "bench/monotonic.h"
#include "bench/put_load.h"
#include "bench/raw_calls.h"
#include "bench/session.h"
#include "etcd/rpc.pb.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1024.0 * 1024.0;
constexpr double kGoalMs = 100;  // no put may take longer, whatever is compacted
constexpr absl::Duration kCompactTimeout = absl::Minutes(10);
constexpr absl::Duration kSettleLimit = absl::Minutes(2);
// Written at once, so that the progress can be told.
constexpr uint64_t kChunk = 200'000;

class Bench {
 public:
  Bench(const Options& options, Side side, const std::atomic<bool>& cancelled)
      : options_(options),
        side_(side),
        cancelled_(cancelled),
        shape_(options.key_prefix, options.key_size, options.value_size, options.seed) {}

  absl::StatusOr<Turn> Run() {
    auto servers = OpenServers(options_, side_, cancelled_);
    if (!servers.ok()) return servers.status();
    servers_ = *std::move(servers);
    turn_.version = servers_.version;
    auto session = Session::Open(options_, servers_.endpoints, servers_.pids, cancelled_);
    if (!session.ok()) return session.status();
    session_ = *std::move(session);
    auto channels = RawChannels::Open({servers_.endpoints[0]}, 1);
    if (!channels.ok()) return channels.status();
    channels_ = *std::move(channels);
    for (const bool physical : {false, true}) {
      if (absl::Status status = Round(physical); !status.ok()) return status;
    }
    return turn_;
  }

 private:
  static void Add(Table* table, const std::string& name, const char* unit, double value) {
    table->metrics.push_back(
        {.name = name, .unit = unit, .value = value, .better = Better::kLower});
  }

  absl::Status Round(bool physical) {
    Table table{.title = physical ? "compact, physical" : "compact", .metrics = {}};
    if (absl::Status status = WriteHistory(&table); !status.ok()) return status;
    if (auto quiet = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_); !quiet.ok()) {
      return quiet.status();
    }
    if (absl::Status status = AddSize("before_", &table); !status.ok()) return status;

    PutLoadOptions load = PutLoadOptionsOf(options_, servers_.endpoints);
    const uint64_t keys = options_.key_space;
    load.key = [keys](uint64_t n) { return n * 7919 % keys; };  // spread over all keys
    auto puts = PutLoad::Start(shape_, load, cancelled_);
    if (!puts.ok()) return puts.status();
    absl::Status status = SleepFor(options_.warmup, cancelled_);
    const int64_t before_ns = MonotonicNs();
    if (status.ok()) status = SleepFor(options_.duration, cancelled_);
    const int64_t begin_ns = MonotonicNs();
    double rpc_seconds = 0;
    if (status.ok()) status = Compact(physical, &rpc_seconds);
    const int64_t least_ns = begin_ns + absl::ToInt64Nanoseconds(options_.duration);
    if (status.ok()) status = SleepFor(absl::Nanoseconds(least_ns - MonotonicNs()), cancelled_);
    const int64_t end_ns = MonotonicNs();
    if (status.ok()) status = SleepFor(options_.duration, cancelled_);
    const int64_t after_ns = MonotonicNs();
    (*puts)->Stop();
    if (!status.ok()) return status;

    Add(&table, "rpc", "s", rpc_seconds);
    const auto quiet = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_);
    if (!quiet.ok()) return quiet.status();
    if (absl::Status size = AddSize("after_", &table); !size.ok()) return size;
    turn_.tables.push_back(std::move(table));
    Report(PutsTitle(physical), **puts, before_ns, begin_ns, end_ns, after_ns);
    return absl::OkStatus();
  }

  static std::string PutsTitle(bool physical) { return physical ? "puts, physical" : "puts"; }

  absl::Status WriteHistory(Table* table) {
    // Whole transactions, so that none holds a key twice.
    const uint64_t space = options_.key_space / session_->TxnKeys() * session_->TxnKeys();
    const int64_t begin_ns = MonotonicNs();
    for (uint64_t done = 0; done < options_.compaction.revisions;) {
      const uint64_t left = options_.compaction.revisions - done;
      const uint64_t part =
          left <= kChunk ? left : kChunk / session_->TxnKeys() * session_->TxnKeys();
      const auto load = session_->Write(written_, part, space);
      if (!load.ok()) return load.status();
      written_ += (part + session_->TxnKeys() - 1) / session_->TxnKeys() * session_->TxnKeys();
      done += part;
      Progress(side_,
               fmt::format("{} of {} versions written", done, options_.compaction.revisions));
    }
    const double seconds = double(MonotonicNs() - begin_ns) * 1e-9;
    table->metrics.push_back({.name = "load",
                              .unit = "key/s",
                              .value = double(options_.compaction.revisions) / seconds,
                              .better = Better::kHigher});
    return absl::OkStatus();
  }

  absl::Status AddSize(const std::string& prefix, Table* table) {
    if (servers_.cluster != nullptr) {
      Add(table, prefix + "disk", "MiB", double(servers_.cluster->DiskBytes()) / kMebibyte);
    }
    etcdserverpb::StatusResponse status;
    // Over the connection that stands: on a busy machine a new one may take its time.
    CallPlan ask;
    ask.method = "/etcdserverpb.Maintenance/Status";
    ask.calls = 1;
    ask.request = [](uint64_t) { return Pack(etcdserverpb::StatusRequest()); };
    ask.reply = [&status](uint64_t, int64_t, int64_t, const grpc::ByteBuffer& bytes) {
      if (!Unpack(bytes, &status)) return absl::InternalError("no StatusResponse");
      return absl::OkStatus();
    };
    if (auto asked = RunCalls(*channels_, ask, cancelled_); !asked.ok()) return asked.status();
    Add(table, prefix + "db_in_use", "MiB", double(status.dbsizeinuse()) / kMebibyte);
    AddMemory(prefix, LargestMemory(servers_.pids), &table->metrics);
    return absl::OkStatus();
  }

  // Of everything below the present revision.
  absl::Status Compact(bool physical, double* seconds) {
    int64_t head = 0;
    CallPlan ask;
    ask.method = "/etcdserverpb.KV/Range";
    ask.calls = 1;
    ask.request = [](uint64_t) {
      etcdserverpb::RangeRequest request;
      request.set_key("no such key");
      return Pack(request);
    };
    ask.reply = [&head](uint64_t, int64_t, int64_t, const grpc::ByteBuffer& bytes) {
      etcdserverpb::RangeResponse reply;
      if (!Unpack(bytes, &reply)) return absl::InternalError("no RangeResponse");
      head = reply.header().revision();
      return absl::OkStatus();
    };
    if (auto asked = RunCalls(*channels_, ask, cancelled_); !asked.ok()) return asked.status();
    Progress(side_, fmt::format("compacting at {}{}", head, physical ? ", physical" : ""));
    CallPlan compact;
    compact.method = "/etcdserverpb.KV/Compact";
    compact.calls = 1;
    compact.timeout = kCompactTimeout;
    compact.request = [head, physical](uint64_t) {
      etcdserverpb::CompactionRequest request;
      request.set_revision(head);
      request.set_physical(physical);
      return Pack(request);
    };
    const auto done = RunCalls(*channels_, compact, cancelled_);
    if (!done.ok()) return done.status();
    *seconds = double(done->latency.max_ns()) * 1e-9;
    return absl::OkStatus();
  }

  void Report(const std::string& title, const PutLoad& puts, int64_t before_ns, int64_t begin_ns,
              int64_t end_ns, int64_t after_ns) {
    Table table{.title = title, .metrics = {}};
    AddPuts("before_", puts.Between(before_ns, begin_ns), &table.metrics);
    const PutLoad::Summary during = puts.Between(begin_ns, end_ns);
    AddPuts("during_", during, &table.metrics);
    AddPuts("after_", puts.Between(end_ns, after_ns), &table.metrics);
    turn_.tables.push_back(std::move(table));
    const double worst_ms = double(during.latency.max_ns()) * 1e-6;
    turn_.notes.push_back(fmt::format("{}: the longest while compacting took {} ms; goal {} ms: {}",
                                      title, ShortNumber(worst_ms), kGoalMs,
                                      worst_ms <= kGoalMs ? "met" : "MISSED"));
    if (const std::string text = puts.Complaint(); !text.empty()) turn_.notes.push_back(text);
  }

  const Options& options_;
  const Side side_;
  const std::atomic<bool>& cancelled_;
  const DataShape shape_;
  Servers servers_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<RawChannels> channels_;
  uint64_t written_ = 0;  // versions, over both rounds
  Turn turn_;
};

}  // namespace

absl::StatusOr<BenchReport> CompactionBench(const Options& options,
                                            const std::atomic<bool>& cancelled) {
  const std::string load =
      fmt::format("{} versions of {} keys of {} B, twice; puts: {}, at most {} in flight",
                  options.compaction.revisions, options.key_space, options.value_size,
                  LoopName(options), options.clients);
  return SideBySide(options, load,
                    [&](Side side, uint32_t) { return Bench(options, side, cancelled).Run(); });
}

}  // namespace holdfast::bench
