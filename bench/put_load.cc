#include "bench/put_load.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "bench/monotonic.h"
#include "bench/report.h"
#include "bench/runner.h"

namespace holdfast::bench {
namespace {

constexpr absl::Duration kConnectTimeout = absl::Seconds(5);
constexpr int64_t kThreadStartNs = 5'000'000;  // before the first put is due

double Milliseconds(int64_t ns) { return double(ns) * 1e-6; }

}  // namespace

// Stands between the worker and the schedule that it wraps, and is the source of the puts as well:
// so it knows both the moment at which a put was due and its number. The worker calls it under its
// own lock; only stop_ is touched by others.
class PutLoad::Recorder : public Schedule, public OperationSource {
 public:
  Recorder(std::unique_ptr<Schedule> inner, const PutLoadOptions& options)
      : inner_(std::move(inner)), options_(options), number_(options.clients) {}

  void RequestStop() { stop_ = true; }
  const std::deque<Put>& puts() const { return puts_; }

  int64_t NextArrivalNs() const override { return inner_->NextArrivalNs(); }

  void Arrive(int64_t now_ns, std::vector<Issue>& out) override {
    if (stop_) inner_->Stop();
    const size_t old = out.size();
    inner_->Arrive(now_ns, out);
    for (size_t i = old; i < out.size(); ++i) Note(out[i]);
  }

  std::optional<Issue> Complete(uint32_t slot, bool failed, int64_t now_ns) override {
    Put& put = puts_[number_[slot]];
    put.done_ns = now_ns;
    put.failed = failed;
    if (stop_) inner_->Stop();
    const std::optional<Issue> next = inner_->Complete(slot, failed, now_ns);
    if (next.has_value()) Note(*next);
    return next;
  }

  void Stop() override { inner_->Stop(); }
  bool Done() const override { return inner_->Done(); }
  int64_t IntendedNs(uint32_t slot) const override { return inner_->IntendedNs(slot); }
  Backlog backlog() const override { return inner_->backlog(); }

  Operation Next() override {
    const uint64_t n = unsent_.front();
    unsent_.pop_front();
    Operation put{.kind = OpKind::kPut, .first_key = options_.key(n), .keys = 1, .salt = n};
    if (options_.stamps) put.stamp = Stamp{.sequence = n, .due_ns = puts_[n].due_ns};
    return put;
  }

 private:
  void Note(const Issue& issue) {
    const uint64_t n = puts_.size();
    number_[issue.slot] = n;
    unsent_.push_back(n);
    puts_.push_back({.due_ns = issue.intended_ns, .done_ns = 0, .failed = false});
    if (puts_.size() >= kMaxNotedPuts) stop_ = true;
  }

  const std::unique_ptr<Schedule> inner_;
  const PutLoadOptions& options_;
  std::atomic<bool> stop_{false};
  std::deque<Put> puts_;          // by number
  std::vector<uint64_t> number_;  // of the put in flight, by slot
  std::deque<uint64_t> unsent_;   // issued, Next() not yet called: at most one for each slot
};

PutLoadOptions PutLoadOptionsOf(const Options& options, const std::vector<std::string>& endpoints) {
  PutLoadOptions load;
  load.endpoints = endpoints;
  load.connections = options.connections;
  load.clients = options.clients;
  load.rate = options.rate;
  load.poisson = options.poisson;
  load.timeout = options.timeout;
  load.seed = options.seed;
  return load;
}

std::string LoopName(const Options& options) {
  return options.rate > 0 ? fmt::format("{} a second", options.rate) : "a closed loop";
}

PutLoad::PutLoad(const PutLoadOptions& options) : options_(options) {}

absl::StatusOr<std::unique_ptr<PutLoad>> PutLoad::Start(const DataShape& shape,
                                                        const PutLoadOptions& options,
                                                        const std::atomic<bool>& cancelled) {
  CHECK(options.key != nullptr);
  std::unique_ptr<PutLoad> load(new PutLoad(options));
  const size_t count = options.connections > 0 ? options.connections : options.endpoints.size();
  auto connections = Connections::Open(options.endpoints, count, kConnectTimeout);
  if (!connections.ok()) return connections.status();
  load->connections_ = *std::move(connections);
  Window window;
  window.start_ns = MonotonicNs() + kThreadStartNs;
  window.begin_ns = window.start_ns;
  std::unique_ptr<Schedule> schedule;
  if (options.rate > 0) {
    schedule = NewOpenSchedule({.clients = options.clients,
                                .rate = options.rate,
                                .poisson = options.poisson,
                                .phase = 0,
                                .seed = options.seed,
                                .max_backlog = kMaxBacklog},
                               window);
  } else {
    schedule = NewClosedSchedule(options.clients, window);
  }
  load->recorder_ = std::make_unique<Recorder>(std::move(schedule), load->options_);
  load->transport_ = NewGrpcTransport(*load->connections_, shape,
                                      {.slots = options.clients,
                                       .first_connection = 0,
                                       .read = ReadLevel::kLinearizable,
                                       .timeout = options.timeout});
  load->stats_ = std::make_unique<RunStats>(window);
  const int64_t stop_at_ns = window.start_ns + absl::ToInt64Nanoseconds(options.limit);
  load->thread_ = std::thread([raw = load.get(), stop_at_ns, &cancelled] {
    RunWorker(*raw->recorder_, *raw->transport_, *raw->recorder_, raw->options_.rate > 0,
              stop_at_ns, cancelled, *raw->stats_);
  });
  return load;
}

PutLoad::~PutLoad() { Stop(); }

void PutLoad::Stop() {
  if (!thread_.joinable()) return;
  recorder_->RequestStop();
  thread_.join();
}

const std::deque<PutLoad::Put>& PutLoad::puts() const {
  CHECK(!thread_.joinable());
  return recorder_->puts();
}

PutLoad::Summary PutLoad::Between(int64_t from_ns, int64_t to_ns) const {
  Summary summary;
  summary.seconds = double(to_ns - from_ns) * 1e-9;
  // In the order of their sending, which need not be that in which they were due.
  for (const Put& put : puts()) {
    if (put.due_ns < from_ns || put.due_ns >= to_ns) continue;
    if (put.done_ns == 0 || put.failed) {
      ++summary.failed;
    } else {
      ++summary.ok;
      summary.latency.Record(put.done_ns - put.due_ns);
    }
  }
  return summary;
}

std::string PutLoad::Complaint() const {
  CHECK(!thread_.joinable());
  std::string text;
  for (const auto& [code, error] : stats_->errors()) {
    text += fmt::format("{} puts ended with {}, the first: {}. ", error.count, CodeName(code),
                        error.example);
  }
  const Backlog& backlog = stats_->backlog();
  if (backlog.dropped > 0 || backlog.not_sent > 0) {
    text += fmt::format("The puts did not keep their rate: dropped {}, not sent {}. ",
                        backlog.dropped, backlog.not_sent);
  }
  if (!text.empty()) text.pop_back();
  return text;
}

void AddPuts(const std::string& prefix, const PutLoad::Summary& puts, std::vector<Metric>* out) {
  const auto add = [&](const char* name, const char* unit, double value, Better better) {
    out->push_back({.name = prefix + name, .unit = unit, .value = value, .better = better});
  };
  add("rate", "put/s", puts.seconds > 0 ? double(puts.ok) / puts.seconds : 0, Better::kHigher);
  add("p50", "ms", Milliseconds(puts.latency.QuantileNs(0.5)), Better::kLower);
  add("p99", "ms", Milliseconds(puts.latency.QuantileNs(0.99)), Better::kLower);
  add("p99.9", "ms", Milliseconds(puts.latency.QuantileNs(0.999)), Better::kLower);
  add("max", "ms", Milliseconds(puts.latency.max_ns()), Better::kLower);
  add("failed", "", double(puts.failed), Better::kLower);
}

}  // namespace holdfast::bench
