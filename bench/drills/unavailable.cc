// Drill 12: servers that are there and answer UNAVAILABLE to everything.
#include <fmt/format.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <map>
#include <mutex>

#include "bench/drills/all.h"
#include "bench/drills/load.h"
#include "bench/drills/standard.h"

namespace holdfast::bench {
namespace {

constexpr int kServers = 3;
constexpr double kCalls = 50;  // a second, of reads and of writes each
constexpr absl::Duration kLength = absl::Seconds(40);
constexpr absl::Duration kSettled = absl::Seconds(20);
constexpr double kRatio = 1.1;
constexpr double kInitial = 2;  // so that a first call can try three endpoints

// Counts what arrives, and says no.
class Refuser : public grpc::CallbackGenericService {
 public:
  Refuser() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterCallbackGenericService(this);
    server_ = builder.BuildAndStart();
  }
  ~Refuser() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string endpoint() const { return fmt::format("127.0.0.1:{}", port_); }
  void AddTo(std::map<std::string, uint64_t>& counts) const {
    std::lock_guard lock(mutex_);
    for (const auto& [method, count] : counts_) counts[method] += count;
  }

 private:
  class Reactor : public grpc::ServerGenericBidiReactor {
   public:
    Reactor() { Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "not today")); }
    void OnDone() override { delete this; }
  };
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    {
      std::lock_guard lock(mutex_);
      ++counts_[context->method()];
    }
    return new Reactor();
  }

  int port_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, uint64_t> counts_;  // guarded by mutex_
  std::unique_ptr<grpc::Server> server_;
};

// Of all servers: the mirrors' own (Load, Watch, Report), or what calls send.
uint64_t Sum(const Refuser (&servers)[kServers], bool mirrors) {
  std::map<std::string, uint64_t> counts;
  for (const Refuser& server : servers) server.AddTo(counts);
  uint64_t sum = 0;
  for (const auto& [method, count] : counts) {
    const bool own =
        method.find(".Mirror/") != std::string::npos || method.find(".Watch/") != std::string::npos;
    if (own == mirrors) sum += count;
  }
  return sum;
}

}  // namespace

absl::Status AlwaysUnavailable(DrillRun& run) {
  Refuser servers[kServers];
  ClientOptions options;
  for (const Refuser& server : servers) options.endpoints.push_back(server.endpoint());
  options.prefixes = {{kConfigPrefix, Policy::FailStatic()
                                          .MemoryOnly()
                                          .StartupWait(absl::Milliseconds(500))
                                          .Defaults({{.key = kConfigKey, .value = "built in"}})}};
  options.name = "drill";
  options.seed = run.options().seed;
  auto client = Client::Open(std::move(options));
  if (!client.ok()) return client.status();
  Timeline& timeline = run.timeline();
  const absl::Duration length =
      run.options().drill.length > absl::ZeroDuration() ? run.options().drill.length : kLength;
  Track* const config = timeline.AddTrack("config");
  Track* const reads = timeline.AddTrack("reads");
  Track* const writes = timeline.AddTrack("writes");
  timeline.Begin("UNAVAILABLE to everything", true);
  const int64_t begin_ns = Timeline::Now();
  MirrorReader mirror((*client)->mirror(kConfigPrefix), kConfigKey, 2000, config, nullptr);
  Caller reader(kCalls, reads, [&](int64_t) { return (*client)->Get("/elsewhere").status(); });
  Caller writer(kCalls, writes,
                [&](int64_t) { return (*client)->Put("/elsewhere", "x").status(); });
  // The copy's own attempts are counted once their back-off has grown.
  const absl::Duration settle = std::min(kSettled, length / 2);
  absl::Status slept = run.Sleep(settle);
  const uint64_t own_before = Sum(servers, true);
  const int64_t settled_ns = Timeline::Now();
  if (slept.ok()) slept = run.Sleep(length - settle);
  mirror.Stop();
  reader.Stop();
  writer.Stop();
  if (!slept.ok()) return slept;
  const int64_t end_ns = Timeline::Now();
  timeline.End();

  const uint64_t sent = Sum(servers, false);
  const uint64_t own_sent = Sum(servers, true) - own_before;
  const double own_s = double(end_ns - settled_ns) * 1e-9;
  const uint64_t offered =
      reader.Between(begin_ns, end_ns).size() + writer.Between(begin_ns, end_ns).size();
  const double seconds = double(end_ns - begin_ns) * 1e-9;
  const double most = kRatio * double(offered) + seconds + kInitial;
  run.AddGoal("requests that the calls send", offered > 0 && double(sent) <= most,
              fmt::format("{} for {} calls in {:.0f} s", sent, offered, seconds),
              fmt::format("<= {:.0f} = 1.1 x calls + 1/s + 2 at the start", most));
  run.AddGoal("requests that the copy sends by itself", double(own_sent) <= 1 + own_s / 10,
              fmt::format("{} in the last {:.0f} s", own_sent, own_s), "<= 1 in 10 s, and 1");
  const Track::Totals all = writes->All();
  run.AddGoal("calls that failed without a type", reads->All().failed + all.failed == 0,
              fmt::format("{}", reads->All().failed + all.failed), "0");
  const Track::Totals own = config->All();
  run.AddGoal("config served from what was built in",
              own.offered() > 0 && own.served == own.offered(),
              ShareText(own.ServedPercent(), own.offered()), "100 %");
  std::map<std::string, uint64_t> counts;
  for (const Refuser& server : servers) server.AddTo(counts);
  std::string by_method;
  for (const auto& [method, count] : counts) {
    by_method += fmt::format("{}{} {}", by_method.empty() ? "" : ", ", method, count);
  }
  run.Note("by method: " + by_method);
  Plot plot = timeline.NewPlot("Drill 12: servers answer UNAVAILABLE to everything",
                               "a closed loop of reads and writes; none is multiplied");
  PlotPanel panel;
  panel.title = "Calls";
  panel.y_label = "per second";
  panel.lines.push_back({.name = "reads refused",
                         .color = PlotColor::kRed,
                         .points = reads->PerSecond(CallOutcome::kRefused, end_ns)});
  panel.lines.push_back({.name = "writes refused",
                         .color = PlotColor::kOrange,
                         .dash = PlotDash::kDashed,
                         .points = writes->PerSecond(CallOutcome::kRefused, end_ns)});
  PlotPanel served;
  served.title = "Config served";
  served.y_label = "per second";
  served.lines.push_back({.name = "from defaults",
                          .color = PlotColor::kBlue,
                          .points = config->PerSecond(CallOutcome::kServed, end_ns)});
  plot.panels = {std::move(served), std::move(panel)};
  run.SetPlot(std::move(plot));
  return absl::OkStatus();
}

}  // namespace holdfast::bench
