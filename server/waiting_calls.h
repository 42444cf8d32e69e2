// The calls that wait (Campaign, Lock, Observe): how many there may be, and their common end.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/inner_client.h"
#include "server/strand.h"

namespace holdfast::server {

class WaitingCalls;

// A state machine on a strand of its own, which may outlive the call that it serves until it has
// tidied up behind it.
class WaitingCall : public std::enable_shared_from_this<WaitingCall> {
 public:
  virtual ~WaitingCall();
  WaitingCall(const WaitingCall&) = delete;
  WaitingCall& operator=(const WaitingCall&) = delete;

  // Any thread; once it is over, nothing happens.
  void Stop(const absl::Status& why);

  // For its own parts. The call must be kept alive by whoever posts; a step need not do so.
  void Post(Strand::Step step);
  InnerClient& client();
  const WaitingCalls& calls() const { return *calls_; }

 protected:
  explicit WaitingCall(std::shared_ptr<WaitingCalls> calls) : calls_(std::move(calls)) {}

  // On the strand: answer `why`, if there was no answer yet, and tidy up.
  virtual void OnStop(const absl::Status& why) = 0;

 private:
  friend class WaitingCalls;
  const std::shared_ptr<WaitingCalls> calls_;
  Strand strand_;
  bool admitted_ = false;
};

// What Election and Lock have in common. Made with make_shared; outlives every call.
//
// Threads: all methods from any thread.
class WaitingCalls {
 public:
  struct Limits {
    // A waiting call takes a Watch stream and some 20 KB; together 200 MB.
    size_t calls_max = 10'000;
    // How long inner calls are tried again. Covers an election and the restart of a neighbour.
    std::chrono::milliseconds give_up_after{15'000};
  };

  WaitingCalls() : WaitingCalls(Limits()) {}
  explicit WaitingCalls(const Limits& limits) : limits_(limits) {}

  const Limits& limits() const { return limits_; }

  InnerClient& client() { return client_; }

  // ResourceExhausted: as many wait already. Unavailable: stopped.
  absl::Status Admit(const std::shared_ptr<WaitingCall>& call);
  size_t size() const;

  // All that wait are answered "etcdserver: server stopped"; none is admitted any more. Never
  // blocks.
  void StopAll();
  // Waits until all have tidied up; false if some have not in time. Not on a gRPC thread.
  bool Drain(absl::Duration timeout);

 private:
  friend class WaitingCall;
  void Leave(WaitingCall* call);

  const Limits limits_;
  InnerClient client_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<WaitingCall*, std::weak_ptr<WaitingCall>> calls_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::server
