#include "bench/runner.h"

#include <sys/prctl.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "bench/monotonic.h"

namespace holdfast::bench {
namespace {

// How often cancellation and calls without an answer are looked for.
constexpr int64_t kCancelPollNs = 100'000'000;
// With a transport that delivers: how often pauses that are over, and the end, are looked for.
constexpr int64_t kDeliveredPollNs = 5'000'000;
constexpr unsigned long kPacerTimerSlackNs = 1000;  // the kernel's default adds 50 us
// Time for the threads to start before the first operation is due.
constexpr int64_t kThreadStartNs = 5'000'000;

class Worker {
 public:
  Worker(Schedule& schedule, Transport& transport, OperationSource& source, RunStats& stats)
      : schedule_(schedule), transport_(transport), source_(source), stats_(stats) {}

  // Sends all that is due; returns when to come again.
  int64_t SendDue() {
    absl::MutexLock lock(&mutex_);
    due_.clear();
    schedule_.Arrive(MonotonicNs(), due_);
    for (const Issue& issue : due_) transport_.Start(issue.slot, source_.Next());
    return schedule_.NextArrivalNs();
  }

  void TakeCompletion(const Completion& completion) {
    const int64_t now_ns = MonotonicNs();
    absl::MutexLock lock(&mutex_);
    stats_.Record(completion.kind, schedule_.IntendedNs(completion.slot), now_ns,
                  completion.outcome);
    source_.Ended(completion.kind, completion.first_key);
    const std::optional<Issue> next =
        schedule_.Complete(completion.slot, completion.outcome.code != 0, now_ns);
    if (next.has_value()) transport_.Start(next->slot, source_.Next());
  }

  void Stop(bool cancel_calls) {
    absl::MutexLock lock(&mutex_);
    schedule_.Stop();
    if (cancel_calls) transport_.CancelAll();
  }

  void CancelOverdue() {
    absl::MutexLock lock(&mutex_);
    transport_.CancelOverdue(MonotonicNs());
  }

  bool Done() {
    absl::MutexLock lock(&mutex_);
    return schedule_.Done();
  }

  int64_t NextArrivalNs() {
    absl::MutexLock lock(&mutex_);
    return schedule_.NextArrivalNs();
  }

 private:
  absl::Mutex mutex_;
  Schedule& schedule_ ABSL_GUARDED_BY(mutex_);
  Transport& transport_;
  OperationSource& source_ ABSL_GUARDED_BY(mutex_);
  RunStats& stats_ ABSL_GUARDED_BY(mutex_);
  std::vector<Issue> due_ ABSL_GUARDED_BY(mutex_);
};

void Pace(Worker& worker) {
  prctl(PR_SET_TIMERSLACK, kPacerTimerSlackNs);
  // Stop() makes the next arrival kNever, so short sleeps are all that a cancel needs.
  for (int64_t next_ns = worker.NextArrivalNs(); next_ns != kNever; next_ns = worker.SendDue()) {
    SleepUntilNs(std::min(next_ns, MonotonicNs() + kCancelPollNs));
  }
}

uint64_t ShareOf(uint64_t total, uint64_t worker, uint64_t workers) {
  return total / workers + (worker < total % workers ? 1 : 0);
}

// Everything one worker thread needs, made before any starts.
struct Lane {
  std::unique_ptr<Schedule> schedule;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<OperationSource> source;
  RunStats stats;
};

Lane MakeLane(const Connections& connections, const DataShape& shape, const RunPlan& plan,
              const Window& whole, uint32_t index, uint32_t lanes) {
  Window window = whole;
  if (plan.total > 0) window.total = ShareOf(plan.total, index, lanes);
  const uint32_t clients = uint32_t(ShareOf(plan.clients, index, lanes));
  Lane lane{.schedule = nullptr,
            .transport = plan.transport != nullptr
                             ? plan.transport(index, clients)
                             : NewGrpcTransport(connections, shape,
                                                {.slots = clients,
                                                 .first_connection = index * clients,
                                                 .read = plan.read,
                                                 .timeout = plan.timeout}),
            .source = plan.source(index, lanes),
            .stats = RunStats(window)};
  if (plan.rate > 0) {
    lane.schedule = NewOpenSchedule({.clients = clients,
                                     .rate = plan.rate / lanes,
                                     .poisson = plan.poisson,
                                     .phase = double(index) / lanes,
                                     .seed = plan.seed + index,
                                     .max_backlog = kMaxBacklog / lanes},
                                    window);
  } else {
    lane.schedule = NewClosedSchedule(clients, window);
  }
  return lane;
}

struct Sample {
  int64_t taken_ns = 0;
  double machine_cpu_seconds = 0;
  ProcessUsage bench;
  std::vector<ProcessUsage> servers;
};

absl::StatusOr<Sample> TakeSample(const std::vector<pid_t>& pids) {
  Sample sample{.taken_ns = MonotonicNs(),
                .machine_cpu_seconds = ReadMachineCpuSeconds(),
                .bench = ReadOwnUsage(),
                .servers = {}};
  for (const pid_t pid : pids) {
    const absl::StatusOr<ProcessUsage> usage = ReadProcessUsage(pid);
    if (!usage.ok()) return usage.status();
    sample.servers.push_back(*usage);
  }
  return sample;
}

void SleepUnlessCancelled(int64_t until_ns, const std::atomic<bool>& cancelled) {
  for (int64_t now = MonotonicNs(); now < until_ns && !cancelled; now = MonotonicNs()) {
    SleepUntilNs(std::min(until_ns, now + kCancelPollNs));
  }
}

RunResult Summarize(const RunPlan& plan, const Sample& begin, const Sample& end, RunStats stats) {
  RunResult result{.stats = std::move(stats),
                   .bench_cpu_seconds = end.bench.cpu_seconds - begin.bench.cpu_seconds,
                   .other_cores = 0,
                   .servers = {}};
  double ours = result.bench_cpu_seconds;
  for (size_t i = 0; i < plan.pids.size(); ++i) {
    result.servers.push_back(
        {.pid = plan.pids[i],
         .cpu_seconds = end.servers[i].cpu_seconds - begin.servers[i].cpu_seconds,
         .end = end.servers[i]});
    ours += result.servers.back().cpu_seconds;
  }
  const double seconds = double(end.taken_ns - begin.taken_ns) * 1e-9;
  const double others = end.machine_cpu_seconds - begin.machine_cpu_seconds - ours;
  if (seconds > 0) result.other_cores = std::max(0.0, others / seconds);
  return result;
}

}  // namespace

void RunWorker(Schedule& schedule, Transport& transport, OperationSource& source, bool open_loop,
               int64_t stop_at_ns, const std::atomic<bool>& cancelled, RunStats& stats) {
  Worker worker(schedule, transport, source, stats);
  std::thread pacer;
  if (open_loop) pacer = std::thread([&worker] { Pace(worker); });
  const bool delivered = transport.Deliver(
      [&worker](const Completion& completion) { worker.TakeCompletion(completion); });
  int64_t next_check_ns = MonotonicNs() + kCancelPollNs;
  while (!worker.Done()) {
    int64_t wake_ns = next_check_ns;
    if (!open_loop) wake_ns = std::min(wake_ns, worker.NextArrivalNs());
    if (delivered) {
      SleepUntilNs(std::min(wake_ns, MonotonicNs() + kDeliveredPollNs));
    } else if (const auto completion = transport.Next(wake_ns); completion.has_value()) {
      worker.TakeCompletion(*completion);
    }
    if (!open_loop && worker.NextArrivalNs() <= MonotonicNs()) worker.SendDue();
    if (MonotonicNs() < next_check_ns) continue;
    next_check_ns = MonotonicNs() + kCancelPollNs;
    worker.CancelOverdue();
    // Both are harmless when repeated.
    if (cancelled || MonotonicNs() >= stop_at_ns) worker.Stop(/*cancel_calls=*/cancelled);
  }
  if (pacer.joinable()) pacer.join();
  transport.Settle();
  stats.AddBacklog(schedule.backlog());
}

absl::StatusOr<RunResult> Run(const Connections& connections, const DataShape& shape,
                              const RunPlan& plan, const std::atomic<bool>& cancelled) {
  CHECK(plan.clients > 0);
  const uint32_t lane_count = std::clamp(plan.threads, 1u, plan.clients);
  Window window;
  window.start_ns = MonotonicNs() + kThreadStartNs;
  window.begin_ns = window.start_ns + absl::ToInt64Nanoseconds(plan.warmup);
  int64_t stop_at_ns = kNever;
  if (plan.total == 0) {
    window.end_ns = window.begin_ns + absl::ToInt64Nanoseconds(plan.duration);
    stop_at_ns = window.end_ns + kDrainLimitNs;
  }
  std::vector<Lane> lanes;
  for (uint32_t i = 0; i < lane_count; ++i) {
    lanes.push_back(MakeLane(connections, shape, plan, window, i, lane_count));
  }
  std::vector<std::thread> threads;
  for (Lane& lane : lanes) {
    threads.emplace_back([&lane, &plan, &cancelled, stop_at_ns] {
      RunWorker(*lane.schedule, *lane.transport, *lane.source, plan.rate > 0, stop_at_ns, cancelled,
                lane.stats);
    });
  }
  SleepUnlessCancelled(window.begin_ns, cancelled);
  const absl::StatusOr<Sample> begin = TakeSample(plan.pids);
  if (plan.observe != nullptr) plan.observe(/*begin=*/true);
  absl::StatusOr<Sample> end = absl::UnknownError("not taken");
  // With a window that has an end, the draining behind it is not part of the use of CPU.
  if (window.end_ns != kNever) {
    SleepUnlessCancelled(window.end_ns, cancelled);
    end = TakeSample(plan.pids);
    if (plan.observe != nullptr) plan.observe(/*begin=*/false);
  }
  for (std::thread& thread : threads) thread.join();
  if (window.end_ns == kNever) {
    end = TakeSample(plan.pids);
    if (plan.observe != nullptr) plan.observe(/*begin=*/false);
  }
  if (cancelled) return absl::CancelledError("interrupted");
  if (!begin.ok()) return begin.status();
  if (!end.ok()) return end.status();
  RunStats stats(window);
  for (const Lane& lane : lanes) stats.Merge(lane.stats);
  return Summarize(plan, *begin, *end, std::move(stats));
}

}  // namespace holdfast::bench
