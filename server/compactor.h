// Automatic compaction: how much history is kept, and when the rest goes.
//
//   periodic  etcd's: what is older than the period goes, every hour, or every period if that is
//             shorter. The revision of that time is known from samples, ten of them an interval.
//   revision  etcd's: every five minutes everything but the newest so many revisions goes.
//   default   (no flag) what is older than kDefaultPeriod AND behind the newest kDefaultRevisions:
//             history does not grow for ever, and whoever resumes within the period, or within the
//             revisions, finds everything.
//   off
// Only the leader proposes; all sample, so that a new leader knows what the old one did. Compaction
// is one entry in the log, and a range delete when it is applied: nobody waits for it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "server/compaction_policy.h"
#include "server/member_view.h"

namespace holdfast::server {

// When and what, and nothing else: the time is told, so that tests make it.
// Threads: one.
class CompactionSchedule {
 public:
  // etcd's numbers.
  static constexpr absl::Duration kIntervalMax = absl::Hours(1);  // periodic
  static constexpr int kSamplesPerInterval = 10;
  static constexpr absl::Duration kRevisionInterval = absl::Minutes(5);
  // Of the default.
  static constexpr absl::Duration kDefaultInterval = absl::Minutes(1);

  // `now`: since any instant that stays the same, never going back.
  CompactionSchedule(const CompactionPolicy& policy, absl::Duration now);

  // To be called often; the revision to compact to, if it is time. Then OnDone follows, and until
  // then nothing else comes.
  struct State {
    int64_t revision = 0;          // the newest
    int64_t compact_revision = 0;  // the last compaction
    bool leading = false;
  };
  std::optional<int64_t> Tick(absl::Duration now, const State& state);
  // Not done: it is tried again with the next sample.
  void OnDone(absl::Duration now, bool done);

  absl::Duration sample_interval() const { return sample_interval_; }

 private:
  struct Sample {
    absl::Duration at;
    int64_t revision = 0;
  };

  void TakeSample(absl::Duration now, int64_t revision);
  // The newest revision that was old enough at `now`; 0: none is known.
  int64_t RevisionBefore(absl::Duration now) const;
  int64_t Target(absl::Duration now, int64_t revision) const;

  const CompactionPolicy policy_;
  absl::Duration interval_;         // between two compactions
  absl::Duration sample_interval_;  // also between a failure and the next try
  absl::Duration last_try_;
  absl::Duration last_done_;
  bool first_ = true;  // the first compaction waits a whole period
  bool under_way_ = false;
  // Oldest first; at most one older than the period. At most period / sample_interval + 2.
  std::deque<Sample> samples_;
};

// Threads: one of its own, until Stop.
class Compactor {
 public:
  Compactor(const MemberView& member, const CompactionPolicy& policy);
  ~Compactor();
  void Stop();

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::server
