// The connections of one client, one an endpoint, and how often it tries to make them.
//
// gRPC goes on connecting by itself once a call has asked for it: quickly at first, then more and
// more seldom. That is right for a short outage and too slow to notice the end of a long one, for a
// call on a connection that rests fails at once and hastens nothing. So while calls come, this
// client dials for them beside gRPC, one endpoint at a time, and never sooner than a tenth of how
// long that endpoint has been out (between Redial::kMin and kMax). What was dialed so does not go
// on by itself; until the next dial a call to that endpoint fails at once. Whence:
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
  // Whether a call that found no connection there may dial it; then nobody may for a while.
  bool Take(size_t endpoint, absl::Duration now);
  bool IsOut(size_t endpoint) const { return out_since_[endpoint].has_value(); }
  std::optional<absl::Duration> OutFor(size_t endpoint, absl::Duration now) const;

 private:
  std::vector<std::optional<absl::Duration>> out_since_;
  std::optional<absl::Duration> last_;  // of this client, whichever the endpoint
};

class Connections {
 public:
  Connections(std::vector<Endpoint> endpoints, std::shared_ptr<const base::Clock> clock);

  // An endpoint that is out and silent is not waited for longer than this, by all calls together.
  static constexpr absl::Duration kConnectMax = absl::Seconds(1);

  // What the next try to this endpoint goes over; null: it has been out for long and rests between
  // two attempts, so the try has failed.
  std::shared_ptr<grpc::Channel> ForTry(size_t endpoint);
  // What became of it: whether the call was taken by a connection.
  void OnTry(size_t endpoint, bool reached);

  std::optional<absl::Duration> OutFor(size_t endpoint) const;
  uint64_t redials() const;

 private:
  struct Slot {
    std::shared_ptr<grpc::Channel> channel;
    bool patient = false;  // does not dial again by itself
    // Since when it was always found connecting.
    std::optional<absl::Duration> connecting_since = std::nullopt;
  };

  absl::Duration Now() const { return absl::Nanoseconds(clock_->Sample().boot_ns); }
  // Whether a call would find no connection there, soon or at once.
  bool Rests(Slot& slot, absl::Duration now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::vector<Endpoint> endpoints_;
  const std::shared_ptr<const base::Clock> clock_;
  mutable absl::Mutex mutex_;
  Redial redial_ ABSL_GUARDED_BY(mutex_);
  std::vector<Slot> slots_ ABSL_GUARDED_BY(mutex_);
  uint64_t redials_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace holdfast::internal
