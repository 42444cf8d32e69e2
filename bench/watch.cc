#include "bench/watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/keys.h"
#include "bench/monotonic.h"
#include "bench/put_load.h"
#include "bench/raw_calls.h"
#include "bench/watchers.h"

namespace holdfast::bench {
namespace {

constexpr uint64_t kKeysPerRange = 16;  // a true range, not a single key
// For events that are still on their way when the last put has been answered.
constexpr absl::Duration kDrainLimit = absl::Seconds(10);
constexpr absl::Duration kDrainPoll = absl::Milliseconds(5);
constexpr absl::Duration kSettleLimit = absl::Seconds(10);

// Any fixed permutation with well-mixed bits: put n's key without a table of all puts.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

double Milliseconds(int64_t ns) { return double(ns) * 1e-6; }

// What the puts of one phase were like, and what they cost.
struct Phase {
  PutLoad::Summary puts;
  CpuSample begin;
  CpuSample end;

  double ServerMicros() const {
    return puts.ok == 0 ? 0 : (end.servers - begin.servers) * 1e6 / double(puts.ok);
  }
};

class Bench {
 public:
  Bench(const Options& options, Side side, const std::atomic<bool>& cancelled)
      : options_(options),
        side_(side),
        cancelled_(cancelled),
        layout_(options),
        shape_(options.key_prefix, options.key_size, options.value_size, options.seed) {}

  absl::StatusOr<Turn> Run() {
    auto servers = OpenServers(options_, side_, cancelled_);
    if (!servers.ok()) return servers.status();
    servers_ = *std::move(servers);
    turn_.version = servers_.version;
    const auto quiet = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_);
    if (!quiet.ok()) return quiet.status();

    Progress(side_, "puts without watchers");
    std::unique_ptr<PutLoad> puts;
    Phase alone;
    if (absl::Status status = RunPuts(nullptr, &alone, &puts); !status.ok()) return status;
    const Memory before = LargestMemory(servers_.pids);

    Progress(side_, fmt::format("{} watchers on {} streams", layout_.watchers(), Streams()));
    const int64_t create_ns = MonotonicNs();
    auto channels = RawChannels::Open(servers_.endpoints, Connections());
    if (!channels.ok()) return channels.status();
    auto watchers = OpenWatchers(**channels);
    if (!watchers.ok()) return watchers.status();
    const double create_seconds = double(MonotonicNs() - create_ns) * 1e-9;
    if (const auto calm = SleepUntilQuiet(servers_.pids, kSettleLimit, cancelled_); !calm.ok()) {
      return calm.status();
    }
    const Memory idle = LargestMemory(servers_.pids);

    Progress(side_, "puts with watchers");
    Phase watched;
    if (absl::Status status = RunPuts(watchers->get(), &watched, &puts); !status.ok()) {
      return status;
    }
    if (absl::Status status = Drain(**watchers, *puts); !status.ok()) return status;
    const Memory end = LargestMemory(servers_.pids);
    const Watchers::Result result = (*watchers)->Close(puts->puts(), layout_.fan_out());

    ReportPuts("puts without watchers", alone);
    ReportWatch(alone, watched, result);
    Table cost{.title = "watchers", .metrics = {}};
    Add(&cost, "create", "s", create_seconds, Better::kLower);
    AddMemory("before_", before, &cost.metrics);
    AddMemory("idle_", idle, &cost.metrics);
    AddMemory("end_", end, &cost.metrics);
    turn_.tables.push_back(std::move(cost));
    Judge(result);
    return turn_;
  }

 private:
  size_t Streams() const { return options_.watch.streams; }
  size_t Connections() const {
    return options_.connections > 0 ? options_.connections : servers_.endpoints.size();
  }

  uint64_t PutsMax() const {
    const absl::Duration all = options_.warmup + options_.duration;
    // The pacer may be late to stop.
    return uint64_t(options_.rate * (absl::ToDoubleSeconds(all) + 5)) + 1000;
  }

  absl::StatusOr<std::unique_ptr<Watchers>> OpenWatchers(const RawChannels& channels) const {
    WatcherPlan plan;
    plan.watchers = layout_.watchers();
    plan.streams = Streams();
    plan.threads = options_.threads;
    plan.puts_max = PutsMax();
    plan.range = [this](uint64_t w) {
      std::pair<std::string, std::string> range;
      shape_.WriteKey(layout_.FirstKey(w), &range.first);
      shape_.WriteKey(layout_.EndKey(w), &range.second);
      return range;
    };
    plan.is_for = [this](uint64_t w, uint64_t put) { return layout_.IsFor(w, put); };
    return Watchers::Open(channels, plan, cancelled_);
  }

  // `watchers` may be null.
  absl::Status RunPuts(Watchers* watchers, Phase* phase, std::unique_ptr<PutLoad>* out) {
    PutLoadOptions load = PutLoadOptionsOf(options_, servers_.endpoints);
    load.key = [this](uint64_t n) { return layout_.KeyOf(n); };
    load.stamps = watchers != nullptr;
    load.limit = options_.warmup + options_.duration + absl::Seconds(2);
    const int64_t from_ns = MonotonicNs() + absl::ToInt64Nanoseconds(options_.warmup);
    const int64_t to_ns = from_ns + absl::ToInt64Nanoseconds(options_.duration);
    if (watchers != nullptr) watchers->SetWindow(from_ns, to_ns);
    auto puts = PutLoad::Start(shape_, load, cancelled_);
    if (!puts.ok()) return puts.status();
    absl::Status status = SleepFor(absl::Nanoseconds(from_ns - MonotonicNs()), cancelled_);
    phase->begin = TakeCpuSample(servers_.pids);
    if (status.ok()) status = SleepFor(absl::Nanoseconds(to_ns - MonotonicNs()), cancelled_);
    phase->end = TakeCpuSample(servers_.pids);
    (*puts)->Stop();
    if (!status.ok()) return status;
    phase->puts = (*puts)->Between(from_ns, to_ns);
    if (const std::string text = (*puts)->Complaint(); !text.empty()) turn_.notes.push_back(text);
    *out = *std::move(puts);
    return absl::OkStatus();
  }

  // Waits for the events of all puts that were answered.
  absl::Status Drain(const Watchers& watchers, const PutLoad& puts) const {
    uint64_t expected = 0;
    for (const PutLoad::Put& put : puts.puts()) {
      if (put.done_ns > 0 && !put.failed) expected += layout_.fan_out();
    }
    const int64_t give_up_ns = MonotonicNs() + absl::ToInt64Nanoseconds(kDrainLimit);
    while (watchers.events() < expected && MonotonicNs() < give_up_ns) {
      if (absl::Status status = SleepFor(kDrainPoll, cancelled_); !status.ok()) return status;
    }
    // One more delivery than expected may still be on its way.
    return SleepFor(kDrainPoll, cancelled_);
  }

  static void Add(Table* table, const char* name, const char* unit, double value, Better better) {
    table->metrics.push_back({.name = name, .unit = unit, .value = value, .better = better});
  }

  void ReportPuts(const std::string& title, const Phase& phase) {
    Table table{.title = title, .metrics = {}};
    AddPuts("", phase.puts, &table.metrics);
    if (!servers_.pids.empty()) {
      Add(&table, "server_cpu", "us/put", phase.ServerMicros(), Better::kLower);
      Add(&table, "others_cpu", "cores", OtherCores(phase.begin, phase.end), Better::kNeither);
    }
    turn_.tables.push_back(std::move(table));
  }

  void ReportWatch(const Phase& alone, const Phase& watched, const Watchers::Result& result) {
    ReportPuts("puts with watchers", watched);
    Table table{.title = "events", .metrics = {}};
    const double seconds = watched.puts.seconds;
    const double events = double(result.latency.count());
    Add(&table, "rate", "event/s", seconds > 0 ? events / seconds : 0, Better::kHigher);
    for (const auto& [name, q] :
         {std::pair{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}, {"max", 1.0}}) {
      Add(&table, name, "ms", Milliseconds(result.latency.QuantileNs(q)), Better::kLower);
    }
    Add(&table, "delivered", "", double(result.events), Better::kNeither);
    Add(&table, "missed", "", double(result.missed), Better::kLower);
    Add(&table, "doubled", "", double(result.doubled), Better::kLower);
    Add(&table, "out_of_order", "", double(result.out_of_order), Better::kLower);
    Add(&table, "strangers", "", double(result.strangers), Better::kLower);
    const double per_response = double(std::max<uint64_t>(1, result.responses));
    Add(&table, "per_response", "event", double(result.events) / per_response, Better::kNeither);
    const double bench = watched.end.bench - watched.begin.bench;
    Add(&table, "bench_cpu", "us/ev", events > 0 ? bench * 1e6 / events : 0, Better::kNeither);
    if (!servers_.pids.empty() && events > 0) {
      // What the watchers add: each phase's CPU for its puts, the difference for the events.
      const double more =
          (watched.ServerMicros() - alone.ServerMicros()) * double(watched.puts.ok) / events;
      Add(&table, "server_cpu_added", "us/ev", std::max(0.0, more), Better::kLower);
    }
    turn_.tables.push_back(std::move(table));
  }

  void Judge(const Watchers::Result& result) {
    const auto must_be_none = [this](const char* what, uint64_t count) {
      if (count > 0) turn_.wrong.push_back(fmt::format("{} events {}", count, what));
    };
    must_be_none("missed", result.missed);
    must_be_none("doubled", result.doubled);
    must_be_none("out of order", result.out_of_order);
    must_be_none("of a put that was not this watcher's", result.strangers);
    for (const std::string& error : result.errors) turn_.wrong.push_back(error);
  }

  const Options& options_;
  const Side side_;
  const std::atomic<bool>& cancelled_;
  const WatchLayout layout_;
  const DataShape shape_;
  Servers servers_;
  Turn turn_;
};

}  // namespace

WatchLayout::WatchLayout(const Options& options) : seed_(options.seed) {
  if (options.watch.whole_prefix) {
    watchers_ = options.watch.streams;
    ranges_ = 1;
    keys_per_range_ = options.key_space;
  } else {
    watchers_ = options.watch.watchers;
    ranges_ = watchers_ / options.watch.fan_out;
    keys_per_range_ = kKeysPerRange;
  }
}

uint64_t WatchLayout::KeyOf(uint64_t put) const { return Mix(put + seed_) % keys(); }

absl::StatusOr<BenchReport> WatchBench(const Options& options, const std::atomic<bool>& cancelled) {
  const WatchLayout layout(options);
  const std::string load = fmt::format(
      "{} puts/s of {} B, {} watchers on {} streams, {}, each put for {} of them", options.rate,
      options.value_size, layout.watchers(), options.watch.streams,
      options.watch.whole_prefix ? "one on the whole prefix each" : "each on a range of keys",
      layout.fan_out());
  return SideBySide(options, load,
                    [&](Side side, uint32_t) { return Bench(options, side, cancelled).Run(); });
}

}  // namespace holdfast::bench
