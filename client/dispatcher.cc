#include "client/dispatcher.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/rng.h"
#include "client/claim.h"
#include "client/exchange_wire.h"
#include "client/process.h"

namespace holdfast::internal {
namespace {

std::shared_ptr<const base::Clock> ClockOf(const ClientOptions& options) {
  return options.clock != nullptr ? options.clock : RealClockPtr();
}

uint64_t SeedOf(const ClientOptions& options) {
  return options.seed.has_value() ? *options.seed : base::RandomSeed();
}

// Every client starts at another endpoint, or a restart of a fleet would meet on the first.
std::vector<Endpoint> Shuffled(const std::vector<std::string>& texts, uint64_t seed) {
  base::Rng rng(seed);
  std::vector<Endpoint> endpoints;
  for (const std::string& text : texts) endpoints.push_back(*ParseEndpoint(text));
  for (size_t i = endpoints.size(); i > 1; --i) {
    std::swap(endpoints[i - 1], endpoints[rng.Below(i)]);
  }
  return endpoints;
}

std::string Rounded(absl::Duration d) {
  return absl::FormatDuration(absl::Trunc(d, absl::Milliseconds(100)));
}

}  // namespace

Dispatcher::Dispatcher(const ClientOptions& options)
    : process_(ProcessId()),
      policy_(options.retry),
      max_clock_slow_(options.max_clock_slow),
      clock_(ClockOf(options)),
      endpoints_(Shuffled(options.endpoints, SeedOf(options))),
      connections_(endpoints_, clock_),
      router_(endpoints_.size(), policy_, options.hedge, clock_, SeedOf(options)) {
  for (size_t i = 0; options.batch_stream && i < endpoints_.size(); ++i) {
    links_.push_back(std::make_unique<ExchangeLink>(&loop_));
  }
}

void Dispatcher::Close() {
  CHECK_MSG(!loop_.OnLoopThread(),
            "a holdfast::Client was destroyed from one of its own callbacks");
  std::vector<std::shared_ptr<Call>> calls;
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    std::ranges::copy_if(calls_, std::back_inserter(calls),
                         [](const auto& call) { return call != nullptr; });
  }
  for (const auto& call : calls) call->Cancel();
  {
    absl::MutexLock lock(&mutex_);
    while (free_.size() < calls_.size()) empty_.Wait(&mutex_);
  }
  hedges_.Close();
  for (const auto& link : links_) link->Close();
  loop_.Stop();
}

bool Dispatcher::InOwnProcess() const { return ProcessId() == process_; }

absl::Status Dispatcher::AfterFork() {
  return absl::AbortedError(
      "SESSION_FORKED: this holdfast::Client was opened before a fork(), by the parent process, "
      "and its thread and connections are there. Nothing was sent. Open a Client in the child, "
      "after the fork");
}

void Dispatcher::Start(CallSpec&& spec, Call::Done&& done) {
  // Before any lock: a thread that is not here may have held it.
  if (!InOwnProcess()) return std::move(done)(AfterFork());
  const auto call = std::make_shared<Call>(this, std::move(spec), std::move(done));
  bool closing;
  {
    absl::MutexLock lock(&mutex_);
    closing = closing_;
    if (!closing) {
      if (free_.empty()) {
        free_.push_back(calls_.size());
        calls_.emplace_back();
      }
      call->set_place(free_.back());
      calls_[free_.back()] = call;
      free_.pop_back();
    }
  }
  stats_.calls.Add();
  if (closing) call->Cancel();
  call->Start();
}

TryHandle Dispatcher::StartTry(size_t endpoint, const std::shared_ptr<grpc::Channel>& channel,
                               RpcRequest request, std::shared_ptr<TryOwner> owner, bool hedge) {
  if (!links_.empty() && OnStream(request.method)) {
    return links_[endpoint]->Start(channel, std::move(request), std::move(owner), hedge);
  }
  return TryHandle(Rpc::Start(
      &loop_, channel, std::move(request),
      [owner = std::move(owner), hedge](RpcReply reply) { owner->OnTryDone(hedge, reply); }));
}

void Dispatcher::DumpTo(std::string* out) {
  stats_.DumpTo(out);
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const Router::EndpointView view = router_.View(i);
    const std::optional<absl::Duration> left_out = connections_.OutFor(i);
    *out += fmt::format(
        "endpoint {}{}: {}{}{}\n", endpoints_[i].name, view.in_use ? " (in use)" : "",
        left_out.has_value() ? fmt::format("cannot be reached for {}", Rounded(*left_out))
                             : (view.reachable ? "reachable" : "backing off"),
        view.reachable && view.quorum_suspect ? ", out of touch with the quorum" : "",
        view.alone_for > absl::ZeroDuration()
            ? fmt::format(", asked to be left alone for {}", Rounded(view.alone_for))
            : "");
  }
}

void Dispatcher::MetricsTo(std::string* out) {
  stats_.MetricsTo(out);
  *out +=
      "# HELP holdfast_client_redials_total Connections tried for calls in a long outage.\n"
      "# TYPE holdfast_client_redials_total counter\n";
  *out += fmt::format("holdfast_client_redials_total {}\n", connections_.redials());
  *out +=
      "# HELP holdfast_client_endpoint_up 1 if the endpoint could be reached the last time.\n"
      "# TYPE holdfast_client_endpoint_up gauge\n";
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const bool up = !connections_.OutFor(i).has_value() && router_.View(i).reachable;
    *out += fmt::format("holdfast_client_endpoint_up{{endpoint=\"{}\"}} {}\n", endpoints_[i].name,
                        up ? 1 : 0);
  }
}

void Dispatcher::Forget(const Call& call) {
  if (!call.place().has_value()) return;
  std::shared_ptr<Call> forgotten;  // it may end here, and not under the lock
  absl::MutexLock lock(&mutex_);
  forgotten = std::move(calls_[*call.place()]);
  CHECK(forgotten.get() == &call);
  free_.push_back(*call.place());
  if (free_.size() == calls_.size()) empty_.SignalAll();
}

}  // namespace holdfast::internal
