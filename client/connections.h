// The connections of one client, one an endpoint, and how often it tries to make them.
//
// gRPC goes on connecting by itself once a call has asked for it: quickly at first, then more and
// more seldom. That is right for a short outage and too slow to notice the end of a long one, for a
// call on a connection that rests fails at once and hastens nothing. So while calls come, this
// client dials for them beside gRPC, one endpoint at a time, and never sooner than a tenth of how
// long that endpoint has been out (between kRedialMin and kRedialMax). What was dialed so does not
// go on by itself. Whence:
//   - an outage's end is noticed within a tenth of its length and 10 s, while there are calls;
//   - in a long outage a client connects at most once in 10 s, with calls or without.
// Threads: all methods from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <grpcpp/channel.h>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/endpoint.h"

namespace holdfast::internal {

// When an endpoint that cannot be reached is dialed for a call. Pure. Threads: one.
class Redial {
 public:
  // Until then gRPC's own attempts are frequent enough.
  static constexpr absl::Duration kOwnFor = absl::Seconds(5);
  static constexpr absl::Duration kMin = absl::Milliseconds(500);
  static constexpr absl::Duration kMax = absl::Seconds(10);

  explicit Redial(size_t endpoints) : out_since_(endpoints) {}

  void OnReached(size_t endpoint) { out_since_[endpoint].reset(); }
  // True: it is out since now.
  bool OnUnreachable(size_t endpoint, absl::Duration now);
  // Whether this call may dial it; then nobody may for a while. `failed`: the connection is neither
  // there nor being made.
  bool Take(size_t endpoint, bool failed, absl::Duration now);
  std::optional<absl::Duration> OutFor(size_t endpoint, absl::Duration now) const;

 private:
  std::vector<std::optional<absl::Duration>> out_since_;
  std::optional<absl::Duration> last_;  // of this client, whichever the endpoint
};

class Connections {
 public:
  Connections(std::vector<Endpoint> endpoints, std::shared_ptr<const base::Clock> clock);

  // What the next try, or the next stream, to this endpoint goes over. Never null. It may be one
  // that rests between two attempts to connect: a call on it then fails at once.
  std::shared_ptr<grpc::Channel> ForTry(size_t endpoint);
  // What became of it: whether the call was taken by a connection.
  void OnTry(size_t endpoint, bool reached);

  std::optional<absl::Duration> OutFor(size_t endpoint) const;
  uint64_t redials() const;

 private:
  absl::Duration Now() const { return absl::Nanoseconds(clock_->Sample().boot_ns); }

  const std::vector<Endpoint> endpoints_;
  const std::shared_ptr<const base::Clock> clock_;
  mutable absl::Mutex mutex_;
  Redial redial_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> patient_ ABSL_GUARDED_BY(mutex_);  // does not dial again by itself
  uint64_t redials_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace holdfast::internal
