#include "bench/mirror.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/strings.h"
#include "bench/keys.h"
#include "bench/monotonic.h"
#include "bench/operation.h"
#include "bench/put_load.h"
#include "bench/session.h"
#include "client/version_store.h"
#include "holdfast/client.h"

namespace holdfast::bench {
namespace {

constexpr double kMebibyte = 1 << 20;
constexpr absl::Duration kPoll = absl::Milliseconds(10);
constexpr absl::Duration kDrainLimit = absl::Seconds(10);
constexpr absl::Duration kSettleLimit = absl::Seconds(60);
constexpr absl::Duration kOpenLimit = absl::Minutes(5);
constexpr size_t kDiskValueSize = 1024;
constexpr int kDiskStarts = 5;
// Nobody listens there: what a client finds while every server is away.
constexpr const char* kDeadEndpoint = "127.0.0.1:1";

double Milliseconds(int64_t ns) { return double(ns) * 1e-6; }
double SecondsSince(int64_t ns) { return double(MonotonicNs() - ns) * 1e-9; }

// What one mirror has heard. Threads: the client's thread, and the bench's.
class Listener {
 public:
  void Listen(Mirror& mirror) {
    mirror.OnChange([this](const MirrorSnapshot& before, const MirrorSnapshot& after) {
      OnChange(before, after);
    });
  }
  // Changes of puts that were due in [from, to) are recorded from now on.
  void SetWindow(int64_t from_ns, int64_t to_ns) {
    const std::lock_guard lock(mutex_);
    from_ns_ = from_ns;
    to_ns_ = to_ns;
    latency_ = LatencyHistogram();
  }
  LatencyHistogram latency() const {
    const std::lock_guard lock(mutex_);
    return latency_;
  }
  uint64_t recorded() const {
    const std::lock_guard lock(mutex_);
    return latency_.count();
  }

 private:
  void OnChange(const MirrorSnapshot& before, const MirrorSnapshot& after) {
    const int64_t now_ns = MonotonicNs();
    if (before.size() == 0) return;  // the first copy
    const std::lock_guard lock(mutex_);
    internal::VersionStore::Diff(
        before, after, std::numeric_limits<size_t>::max(),
        [&](std::string_view, const EntryView*, const EntryView* entry) {
          if (entry == nullptr) return;
          const std::optional<Stamp> stamp = ReadStamp(entry->value);
          if (!stamp || stamp->due_ns < from_ns_ || stamp->due_ns >= to_ns_) return;
          latency_.Record(now_ns - stamp->due_ns);
        });
  }

  mutable std::mutex mutex_;
  int64_t from_ns_ = 0;
  int64_t to_ns_ = 0;
  LatencyHistogram latency_;
};

// Clients with one mirror each.
struct Mirrors {
  std::vector<std::unique_ptr<Listener>> listeners;
  std::vector<std::unique_ptr<Client>> clients;  // ends first: listeners are called by it
};

// Tells when a copy has been written to disk.
class DiskObserver : public Observer {
 public:
  void OnLastGoodWritten(std::string_view, uint64_t revision) override {
    const std::lock_guard lock(mutex_);
    revision_ = revision;
  }
  void OnDiskProblem(std::string_view, const absl::Status& status) override {
    const std::lock_guard lock(mutex_);
    problem_ = status;
  }
  uint64_t revision() const {
    const std::lock_guard lock(mutex_);
    return revision_;
  }
  absl::Status problem() const {
    const std::lock_guard lock(mutex_);
    return problem_;
  }

 private:
  mutable std::mutex mutex_;
  uint64_t revision_ = 0;
  absl::Status problem_;
};

class TempDir {
 public:
  explicit TempDir(const std::string& root) {
    std::string path =
        (root.empty() ? std::filesystem::temp_directory_path().string() : root) + "/mirror-XXXXXX";
    if (mkdtemp(path.data()) != nullptr) path_ = path;
  }
  ~TempDir() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }  // empty: could not be made

 private:
  std::string path_;
};

// Every set is taken: the bench changes more at once than a service should.
Policy TakesAll() {
  return Policy::FailStatic()
      .HoldIfDeletes(1)
      .HoldIfGrows(std::numeric_limits<double>::infinity())
      .MaxBytes(size_t{16} << 30)
      .StartupWait(kOpenLimit);
}

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
    absl::Status status = Propagation();
    if (status.ok()) status = Large();
    if (status.ok()) status = Disk();
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
    for (const auto& [name, q] :
         {std::pair{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1.0}}) {
      Add(table, name, "ms", Milliseconds(latency.QuantileNs(q)), Better::kLower);
    }
  }

  absl::Status Load(const Options& options, uint64_t keys) {
    Progress(side_, fmt::format("loading {} keys of {}", keys, options.key_prefix));
    auto session = Session::Open(options, servers_.endpoints, servers_.pids, cancelled_);
    if (!session.ok()) return session.status();
    if (const auto load = (*session)->Load(keys); !load.ok()) return load.status();
    return SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_).status();
  }

  absl::StatusOr<std::unique_ptr<Client>> OpenClient(const std::string& prefix, Policy policy) {
    return Client::Open({.endpoints = servers_.endpoints,
                         .prefixes = {{.prefix = prefix, .policy = std::move(policy)}},
                         .name = "holdfast-bench"});
  }

  // REQUIRES: the prefix has `keys` keys.
  absl::Status OpenMirrors(const std::string& prefix, uint64_t keys, size_t count, Mirrors* out) {
    while (out->clients.size() < count) {
      if (cancelled_) return absl::CancelledError("interrupted");
      auto client = OpenClient(prefix, TakesAll().MemoryOnly());
      if (!client.ok()) return client.status();
      Mirror* mirror = (*client)->mirror(prefix);
      out->listeners.push_back(std::make_unique<Listener>());
      out->listeners.back()->Listen(*mirror);
      out->clients.push_back(*std::move(client));
      const size_t records = mirror->status().records;
      if (records != keys) {
        return absl::InternalError(
            base::ToAbsl(fmt::format("a mirror was open with {} of {} keys", records, keys)));
      }
    }
    return absl::OkStatus();
  }

  // --- put to visible

  absl::Status Propagation() {
    if (absl::Status status = Load(options_, options_.mirror.keys); !status.ok()) return status;
    Mirrors mirrors;
    absl::Status status = OpenMirrors(options_.key_prefix, options_.mirror.keys, 1, &mirrors);
    if (status.ok()) status = Phase("idle", options_.mirror.idle_rate, mirrors);
    if (status.ok()) status = Phase("one mirror", options_.rate, mirrors);
    if (status.ok()) status = Phase("one, as many", options_.mirror.many_rate, mirrors);
    if (!status.ok()) return status;

    const uint32_t count = options_.mirror.mirrors;
    Progress(side_, fmt::format("{} mirrors", count));
    const int64_t open_ns = MonotonicNs();
    status = OpenMirrors(options_.key_prefix, options_.mirror.keys, count, &mirrors);
    if (!status.ok()) return status;
    const double seconds = SecondsSince(open_ns);
    status = Phase(fmt::format("{} mirrors", count), options_.mirror.many_rate, mirrors);
    if (!status.ok()) return status;
    Add(&turn_.tables.back(), "open", "s", seconds, Better::kLower);
    return status;
  }

  absl::Status Phase(const std::string& title, double rate, Mirrors& mirrors) {
    const auto quiet = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_);
    if (!quiet.ok()) return quiet.status();
    Progress(side_, title);
    return RunPuts(title, shape_, options_.mirror.keys, rate, mirrors);
  }

  absl::Status RunPuts(const std::string& title, const DataShape& shape, uint64_t keys, double rate,
                       Mirrors& mirrors) {
    PutLoadOptions load = PutLoadOptionsOf(options_, servers_.endpoints);
    load.rate = rate;
    // One after the other: two changes of one key would be seen as one, had they come together.
    load.key = [keys](uint64_t n) { return n % keys; };
    load.stamps = true;
    load.limit = options_.warmup + options_.duration + absl::Seconds(2);
    const int64_t from_ns = MonotonicNs() + absl::ToInt64Nanoseconds(options_.warmup);
    const int64_t to_ns = from_ns + absl::ToInt64Nanoseconds(options_.duration);
    for (const auto& listener : mirrors.listeners) listener->SetWindow(from_ns, to_ns);
    auto puts = PutLoad::Start(shape, load, cancelled_);
    if (!puts.ok()) return puts.status();
    absl::Status status = SleepFor(absl::Nanoseconds(from_ns - MonotonicNs()), cancelled_);
    const CpuSample begin = TakeCpuSample(servers_.pids);
    if (status.ok()) status = SleepFor(absl::Nanoseconds(to_ns - MonotonicNs()), cancelled_);
    const CpuSample end = TakeCpuSample(servers_.pids);
    (*puts)->Stop();
    if (!status.ok()) return status;
    const PutLoad::Summary summary = (*puts)->Between(from_ns, to_ns);
    if (const std::string text = (*puts)->Complaint(); !text.empty()) turn_.notes.push_back(text);
    status = Drain(summary.ok, mirrors);
    if (status.ok()) Report(title, summary, begin, end, mirrors);
    return status;
  }

  // Until every mirror shows every put that was answered.
  absl::Status Drain(uint64_t puts, const Mirrors& mirrors) const {
    const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kDrainLimit);
    const auto behind = [&](const std::unique_ptr<Listener>& listener) {
      return listener->recorded() < puts;
    };
    while (std::ranges::any_of(mirrors.listeners, behind) && MonotonicNs() < give_up_ns) {
      if (absl::Status status = SleepFor(kPoll, cancelled_); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  void Report(const std::string& title, const PutLoad::Summary& puts, const CpuSample& begin,
              const CpuSample& end, const Mirrors& mirrors) {
    LatencyHistogram latency;
    uint64_t missed = 0;
    for (const auto& listener : mirrors.listeners) {
      const LatencyHistogram own = listener->latency();
      missed += puts.ok - std::min(puts.ok, own.count());
      latency.Merge(own);
    }
    Table table{.title = title, .metrics = {}};
    Add(&table, "puts", "put/s", puts.seconds > 0 ? double(puts.ok) / puts.seconds : 0,
        Better::kHigher);
    Add(&table, "put_p50", "ms", Milliseconds(puts.latency.QuantileNs(0.5)), Better::kLower);
    Add(&table, "put_p99", "ms", Milliseconds(puts.latency.QuantileNs(0.99)), Better::kLower);
    AddLatency(latency, &table);
    Add(&table, "visible", "", double(latency.count()), Better::kNeither);
    Add(&table, "missed", "", double(missed), Better::kLower);
    if (!servers_.pids.empty() && puts.ok > 0) {
      const double micros = (end.servers - begin.servers) * 1e6 / double(puts.ok);
      Add(&table, "server_cpu", "us/put", micros, Better::kLower);
      Add(&table, "others_cpu", "cores", OtherCores(begin, end), Better::kNeither);
    }
    const double bench = (end.bench - begin.bench) * 1e6;
    if (latency.count() > 0) {
      // The puts' cost is in it.
      Add(&table, "bench_cpu", "us/ch", bench / double(latency.count()), Better::kNeither);
    }
    turn_.tables.push_back(std::move(table));
    if (missed > 0) {
      turn_.wrong.push_back(fmt::format("{}: {} changes were not seen", title, missed));
    }
  }

  // --- one large mirror

  absl::Status Large() {
    const uint64_t keys = options_.mirror.large_keys;
    if (keys == 0) return absl::OkStatus();
    Options large = options_;
    large.key_prefix = "large/";
    large.key_space = keys;
    large.key_size = large.key_prefix.size() + DataShape::DigitsFor(keys);
    if (absl::Status status = Load(large, keys); !status.ok()) return status;
    Progress(side_, fmt::format("a mirror of {} keys", keys));
    const uint64_t before = ReadOwnUsage().rss_anon_bytes;
    const int64_t open_ns = MonotonicNs();
    Mirrors mirrors;
    if (absl::Status status = OpenMirrors(large.key_prefix, keys, 1, &mirrors); !status.ok()) {
      return status;
    }
    const double seconds = SecondsSince(open_ns);
    const double grown = double(ReadOwnUsage().rss_anon_bytes) - double(before);
    const double bytes = double(mirrors.clients[0]->mirror(large.key_prefix)->status().bytes);

    const DataShape shape(large.key_prefix, large.key_size, large.value_size, large.seed);
    absl::Status status = RunPuts("large mirror", shape, keys, 0, mirrors);
    if (!status.ok()) return status;
    Table& table = turn_.tables.back();
    Add(&table, "load", "s", seconds, Better::kLower);
    Add(&table, "load_rate", "key/s", double(keys) / seconds, Better::kHigher);
    Add(&table, "data", "MiB", bytes / kMebibyte, Better::kNeither);
    Add(&table, "anon_added", "MiB", grown / kMebibyte, Better::kLower);
    Add(&table, "overhead", "B/key", (grown - bytes) / double(keys), Better::kLower);
    return absl::OkStatus();
  }

  // --- from disk

  absl::Status Disk() {
    if (options_.mirror.disk_bytes == 0) return absl::OkStatus();
    Options small = options_;
    small.key_prefix = "disk/";
    small.value_size = kDiskValueSize;
    small.key_space = std::max<uint64_t>(options_.mirror.disk_bytes / kDiskValueSize, 1);
    small.key_size = small.key_prefix.size() + DataShape::DigitsFor(small.key_space);
    if (absl::Status status = Load(small, small.key_space); !status.ok()) return status;
    const TempDir dir(options_.data_dir_root);
    if (dir.path().empty()) return absl::UnavailableError("no directory for the copy on disk");
    if (absl::Status status = WriteCopy(small, dir.path()); !status.ok()) return status;

    Progress(side_, "starting from disk without servers");
    std::vector<double> open_ms;
    for (int n = 0; n < kDiskStarts; ++n) {
      const int64_t open_ns = MonotonicNs();
      auto client = Client::Open(FromDisk(small.key_prefix, dir.path(), {kDeadEndpoint}, nullptr));
      open_ms.push_back(SecondsSince(open_ns) * 1e3);
      if (!client.ok()) return client.status();
      const auto snapshot = (*client)->mirror(small.key_prefix)->Snapshot();
      if (!snapshot.ok()) return snapshot.status();
      if (snapshot->value.size() != small.key_space) {
        return absl::DataLossError(base::ToAbsl(
            fmt::format("{} of {} keys came from disk", snapshot->value.size(), small.key_space)));
      }
    }
    std::ranges::sort(open_ms);
    Table table{.title = "start from disk", .metrics = {}};
    Add(&table, "data", "MiB", double(small.key_space * kDiskValueSize) / kMebibyte,
        Better::kNeither);
    Add(&table, "open_min", "ms", open_ms.front(), Better::kLower);
    Add(&table, "open_median", "ms", open_ms[open_ms.size() / 2], Better::kLower);
    Add(&table, "open_max", "ms", open_ms.back(), Better::kLower);
    turn_.tables.push_back(std::move(table));
    return absl::OkStatus();
  }

  static ClientOptions FromDisk(const std::string& prefix, const std::string& dir,
                                std::vector<std::string> endpoints,
                                std::shared_ptr<Observer> observer) {
    return {.endpoints = std::move(endpoints),
            .prefixes = {{.prefix = prefix, .policy = TakesAll().Probation(absl::ZeroDuration())}},
            .disk_dir = dir,
            .name = "holdfast-bench",
            .observer = std::move(observer)};
  }

  // Runs a client until its data is on disk.
  absl::Status WriteCopy(const Options& small, const std::string& dir) {
    const auto observer = std::make_shared<DiskObserver>();
    auto client = Client::Open(FromDisk(small.key_prefix, dir, servers_.endpoints, observer));
    if (!client.ok()) return client.status();
    const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kSettleLimit);
    while (observer->revision() == 0) {
      if (absl::Status status = SleepFor(kPoll, cancelled_); !status.ok()) return status;
      if (!observer->problem().ok()) return observer->problem();
      if (MonotonicNs() > give_up_ns) {
        return absl::DeadlineExceededError("no copy was written to disk within a minute");
      }
    }
    return absl::OkStatus();
  }

  const Options& options_;
  const Side side_;
  const std::atomic<bool>& cancelled_;
  const DataShape shape_;
  Servers servers_;
  Turn turn_;
};

}  // namespace

absl::StatusOr<BenchReport> MirrorBench(const Options& options,
                                        const std::atomic<bool>& cancelled) {
  const std::string load = fmt::format(
      "mirrors of {} keys; puts: {} a second, then {}; with {} mirrors {} a second; then one "
      "mirror "
      "of {} keys",
      options.mirror.keys, options.mirror.idle_rate, LoopName(options), options.mirror.mirrors,
      options.mirror.many_rate, options.mirror.large_keys);
  return SideBySide(options, load,
                    [&](Side side, uint32_t) { return Bench(options, side, cancelled).Run(); });
}

}  // namespace holdfast::bench
