// The age protocol at one member (docs/freshness.md sections 1, 3 and 4).
//
// A claim says: the applied state holds every write acknowledged before (instant of `at`) - extra.
// It is made in two ways only: by our own confirmed round while we lead (L4), or by the leader's
// Confirm for a probe of ours (F2). No append, vote, snapshot or step-down ever makes one.
// Threads: one (the raft thread). The driver publishes copies for others.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/rng.h"

namespace holdfast::raft {

// Freshness 1. `index`: the claim holds for every state with applied >= index.
struct Claim {
  base::ClockSample at;
  absl::Duration extra = absl::ZeroDuration();
  Index index;

  absl::Duration AgeAt(const base::ClockSample& now) const {
    return extra + base::Elapsed(at, now);
  }
};

class FreshnessTracker {
 public:
  // `boot`: random per process start, so that a Confirm for a former life is never taken (F1).
  FreshnessTracker(uint64_t boot, uint64_t seed);

  // F1: a nonce for a probe about to be sent. `sample` must be taken before sending.
  uint64_t NewProbe(const base::ClockSample& sample);
  uint64_t boot() const { return boot_; }
  // The youngest probe still unanswered, if any.
  std::optional<base::ClockSample> newest_pending_probe() const;

  // F2: takes effect once applied >= index.
  void OnConfirm(uint64_t nonce, uint64_t boot, Index index, Index applied);
  // L4. `sample` was taken before the Ready that sent `round`.
  void OnRoundStarted(uint64_t round, const base::ClockSample& sample);
  void OnRoundConfirmed(uint64_t round, Index index, Index applied);
  // Rounds are named within a term: a change of role or term forgets them.
  void ForgetRounds() { rounds_.clear(); }
  void OnApplied(Index applied);
  // F4: a claim kept across a restart of this process in the same boot of the kernel.
  void Restore(const Claim& claim, Index applied);

  // nullopt: unknown age. The claim's index is <= applied.
  const std::optional<Claim>& claim() const { return claim_; }
  // F3: the last claims taken, oldest first, and how many were ever taken.
  const std::deque<Claim>& pairs() const { return pairs_; }
  uint64_t taken() const { return taken_; }
  // F3: the newest claim whose index is <= delivered.
  std::optional<Claim> ClaimFor(Index delivered) const { return ClaimAmong(pairs_, delivered); }
  static std::optional<Claim> ClaimAmong(const std::deque<Claim>& pairs, Index delivered);

 private:
  void Offer(const Claim& claim, Index applied);
  void Take(const Claim& claim);

  // Limits: probes and rounds unanswered, claims waiting for apply, and F3's pairs.
  static constexpr size_t kMaxProbes = 256;
  static constexpr size_t kMaxRounds = 256;
  static constexpr size_t kMaxWaiting = 64;
  static constexpr size_t kKeptPairs = 64;

  const uint64_t boot_;
  base::Rng rng_;
  std::deque<std::pair<uint64_t, base::ClockSample>> probes_;
  std::deque<std::pair<uint64_t, base::ClockSample>> rounds_;
  std::deque<Claim> waiting_;  // confirmed, not yet applied that far
  std::optional<Claim> claim_;
  std::deque<Claim> pairs_;
  uint64_t taken_ = 0;
};

}  // namespace holdfast::raft
