// How the library makes a Freshness, and carries one inside an absl::Status.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "holdfast/freshness.h"

namespace holdfast::internal {

// Freshness 1: the data holds every write acknowledged earlier than (instant of `at`) - `extra`.
struct Claim {
  base::ClockSample at;  // Freshness 5: taken before the request was sent
  absl::Duration extra = absl::InfiniteDuration();
  Proof proof = Proof::kUnknown;
  Source source = Source::kUnknown;
  uint64_t revision = 0;
  absl::Duration reduced_after = absl::InfiniteDuration();  // of the prefix's policy
  bool superseded = false;
};

struct FreshnessAccess {
  // REQUIRES: clock, the one that took claim.at.
  static Freshness Make(const Claim& claim, std::shared_ptr<const base::Clock> clock,
                        double max_clock_slow);
  static Claim ToClaim(const Freshness& fresh);
  static const std::shared_ptr<const base::Clock>& Clock(const Freshness& fresh);
  static double MaxClockSlow(const Freshness& fresh);
};

// The kernel's clocks, by a pointer that counts no references: an age is part of every read, on any
// number of threads.
std::shared_ptr<const base::Clock> RealClockPtr();

// The payloads that holdfast/error.h reads.
void SetMaybeCommitted(absl::Status& status);
// By which Client::Resolve knows the write again; 0: not in the status. Numbers are of one process.
void SetWriteTicket(absl::Status& status, uint64_t ticket);
uint64_t WriteTicket(const absl::Status& status);
void SetRetryAfter(absl::Status& status, absl::Duration delay);
void SetBestAvailable(absl::Status& status, const Freshness& fresh);

}  // namespace holdfast::internal
