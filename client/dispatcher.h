// What the calls of one client share, and their register: none is forgotten when the client goes.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/channel.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "client/call.h"
#include "client/call_stats.h"
#include "client/connections.h"
#include "client/endpoint.h"
#include "client/event_loop.h"
#include "client/exchange_link.h"
#include "client/hedge_queue.h"
#include "client/router.h"
#include "holdfast/options.h"

namespace holdfast::internal {

// Threads: all methods from any thread.
class Dispatcher {
 public:
  // REQUIRES: options.Validate() is OK.
  explicit Dispatcher(const ClientOptions& options);
  // REQUIRES: Close() was called.
  ~Dispatcher() = default;

  // Cancels every call, waits until every `done` has run, stops the thread. Once; REQUIRES: not on
  // the loop's thread.
  void Close();

  // `done` runs exactly once, on the loop's thread and never inside Start. Two exceptions: a call
  // started from a callback while the client goes away is answered CANCELLED at once; and one in a
  // child process, where the loop's thread is not, is answered AfterFork() at once.
  void Start(CallSpec&& spec, Call::Done&& done);

  // False after a fork(), in the child: nothing but Start and AfterFork may be used.
  bool InOwnProcess() const;
  static absl::Status AfterFork();

  // What the calls came to, and what this client thinks of its endpoints: for people, a line each;
  // and as figures in the Prometheus text format, each family with its HELP and TYPE.
  void DumpTo(std::string* out);
  void MetricsTo(std::string* out);

  // For Call only.
  void Forget(const Call& call);
  EventLoop& loop() { return loop_; }
  Router& router() { return router_; }
  const std::vector<Endpoint>& endpoints() const { return endpoints_; }
  // `owner` is told exactly once, never inside this.
  TryHandle StartTry(size_t endpoint, const std::shared_ptr<grpc::Channel>& channel,
                     RpcRequest request, std::shared_ptr<TryOwner> owner, bool hedge);
  Connections& connections() { return connections_; }
  CallStats& stats() { return stats_; }
  HedgeQueue& hedges() { return hedges_; }
  const std::shared_ptr<const base::Clock>& clock() const { return clock_; }
  const RetryPolicy& policy() const { return policy_; }
  double max_clock_slow() const { return max_clock_slow_; }

 private:
  const int process_;
  const RetryPolicy policy_;
  const double max_clock_slow_;
  const std::shared_ptr<const base::Clock> clock_;
  std::vector<Endpoint> endpoints_;  // shuffled
  Connections connections_;          // of the same order
  CallStats stats_;
  Router router_;
  EventLoop loop_;
  HedgeQueue hedges_{&loop_};
  // By endpoint; none without ClientOptions::batch_stream.
  std::vector<std::unique_ptr<ExchangeLink>> links_;

  absl::Mutex mutex_;
  absl::CondVar empty_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  // The calls under way, each in a place of its own that it knows; and the places that are free.
  std::vector<std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
  std::vector<size_t> free_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::internal
