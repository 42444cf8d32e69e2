// Freshness: how old an answer can be at most, and what that rests on.
//
// Every answer of the library carries one. The bound needs no synchronized clocks: it is built from
// durations of single machines only, and it goes on growing after the answer was given.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/time/time.h"

namespace holdfast {

namespace base {
class Clock;
}  // namespace base
namespace internal {
struct FreshnessAccess;
}  // namespace internal

// From the best to the worst.
enum class Proof {
  kProven,     // holds without comparing two machines' clocks
  kEstimated,  // rests on this machine's wall clock: a copy on disk from before a reboot
  kUnknown,    // nothing is known: the data may be arbitrarily old
};

// Who gave the data.
enum class Source {
  kLeader,
  kFollower,
  kUnknown,   // the server does not say (plain etcd)
  kMirror,    // this process's copy, fed by the store
  kDisk,      // the copy that an earlier run left on disk
  kDefault,   // what the service was built with
  kOverride,  // an operator's file
};

// At most so old, and proven: fresh, as far as anybody can tell.
inline constexpr absl::Duration kFreshWithin = absl::Seconds(3);

// What a prefix's policy makes of the age.
enum class Grade {
  kFresh,         // proven to be at most kFreshWithin
  kStaleAllowed,  // older than that, and served
  kReduced,       // older than ReducedAfter(), or of no proven age where one was asked for
};

std::string_view ToString(Proof proof);
std::string_view ToString(Source source);
std::string_view ToString(Grade grade);

// The claim "this data shows every write that was acknowledged more than MaxAge() ago".
// Threads: immutable; all methods from any thread. Cheap to copy. May outlive the Client.
class Freshness {
 public:
  // Of unknown age, at revision 0.
  Freshness() = default;

  // Evaluated anew at every call, so it grows while the data is kept; it never shrinks.
  // InfiniteDuration if the age is unknown.
  absl::Duration MaxAge() const;
  Proof proof() const { return proof_; }
  Source source() const { return source_; }
  // The store's revision that the data shows exactly.
  uint64_t revision() const { return revision_; }
  // True if a newer revision was seen and not taken (refused, or held back): then the data is older
  // than the connection.
  bool superseded() const { return superseded_; }
  // What the policy of the key's prefix makes of the age now.
  Grade grade() const;
  // True if the age is at most `max_age` now, proven at least so well. Within(InfiniteDuration())
  // always is.
  bool Within(absl::Duration max_age, Proof at_least = Proof::kProven) const;

 private:
  friend struct internal::FreshnessAccess;

  // One instant on the kernel's boot, monotonic and raw clocks (base::ClockSample).
  struct Instant {
    int64_t boot_ns = 0;
    int64_t mono_ns = 0;
    int64_t raw_ns = 0;
  };

  Instant at_;                                       // taken before the request was sent
  absl::Duration extra_ = absl::InfiniteDuration();  // the age that the server told
  double max_clock_slow_ = 0;
  std::shared_ptr<const base::Clock> clock_;  // null: unknown age
  Proof proof_ = Proof::kUnknown;
  Source source_ = Source::kUnknown;
  absl::Duration reduced_after_ = absl::InfiniteDuration();
  bool superseded_ = false;
  uint64_t revision_ = 0;
};

}  // namespace holdfast
