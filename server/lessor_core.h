// What the leader does with its knowledge of time, without threads or I/O: which leases are over,
// which renewals count, which checkpoints the log needs. Stepped by the lessor (lessor.h) and by
// tests in virtual time.
//
// The rules, and why they hold.
//  - No lease ends by a clock alone. This core only names the leases to be proposed as expired, in
//  a
//    command that counts only in the proposer's own term (LeaseExpiry). A later leader has begun
//    its own time, and an old leader's opinion that reaches the log through it means nothing.
//  - A lease that is named stays named for the rest of the term, for the entry may be in the log
//    even if its proposal seems lost. It is not renewed any more: the asker is told to ask again,
//    until the lease is gone, or another term has begun.
//  - A renewal counts only after a round that confirmed this leader and began after the renewal
//    came, and if no more than an election timeout has passed since the round began (else another
//    round). Why that is enough: let the round begin at s and the renewal count at r <= s + one
//    election timeout. A voter of the round's majority is in the majority that elects any later
//    leader, and voted for it after s; so the later leader begins its time after s. It gives each
//    lease all of its time plus an election timeout, so none ends before s + timeout + TTL >= r +
//    TTL. A deposed leader never gets its round.
//  - A checkpoint takes that promise back in part: the next leader gives the rest only. So a lease
//    of which the log says, or may come to say, less than its whole TTL is renewed only after a
//    checkpoint that says "all of it" has been applied.
//  - Ids are used again. Commands carry the index up to which this core knows the log; what was
//    granted behind it is another lease and stays.
//
// How late an expiry is proposed: at most kTick after the lease's end, by the lease clock
// (lease_clock.h), plus one commit for each kIdsPerEntryMax * kExpiriesInFlightMax leases that end
// at the same time.
//
// Threads: one. Cost of a turn: bounded by kWakesPerTurnMax, however many leases there are.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"
#include "server/apply_listener.h"
#include "server/lease_clock.h"
#include "server/lease_record.h"
#include "server/lease_table.h"

namespace holdfast::server {

// What the leader knows of a lease's time.
struct LeaseTime {
  int64_t granted_s = 0;
  int64_t left_ms = -1;  // -1: there is no such lease
  // Of a renewal: not renewed, and not gone; an entry about it is on its way through the log.
  bool ask_again = false;

  bool found() const { return left_ms >= 0; }
};

class LessorCore {
 public:
  // How often time is looked at.
  static constexpr absl::Duration kTick = absl::Milliseconds(100);
  // One entry's leases: each takes its keys along at apply, which no other entry may wait for long.
  static constexpr size_t kIdsPerEntryMax = 1000;
  static constexpr size_t kExpiriesInFlightMax = 4;
  static constexpr size_t kWakesPerTurnMax = 20'000;
  // When a lease's rest has shrunk by so much since the log heard of it, the log is told. Shorter
  // leases are never checkpointed: a leader change gives them at most this much too much.
  static constexpr int64_t kCheckpointAfterMs = 5 * 60 * 1000;
  // One entry at a time, and not more often: 10,000 leases a second at most. (What renewals wait
  // for is not held back.)
  static constexpr int64_t kCheckpointPaceMs = 100;

  // `election_timeout` is what a new leader adds to each lease.
  explicit LessorCore(absl::Duration election_timeout);

  // This member leads in `term`, and loads: one Load per record of a view, then EndLoad.
  void BeginTerm(Term term);
  void Load(int64_t id, const LeaseRecord& record);
  // `view`: the index that the records are of. From here on the leases' time passes.
  void EndLoad(Index view, const base::ClockSample& now);
  // Forgets everything.
  void EndTerm();
  // Loaded, and leading as far as the caller knows.
  bool leads() const { return leads_; }
  Term term() const { return term_; }

  // In the order of the log, each once; those that the view already had are passed over.
  void OnChange(const LeaseChange& change, const base::ClockSample& now);

  // What to propose, all with term() and as_of().
  struct Proposals {
    std::vector<std::vector<int64_t>> expiries;
    struct Remaining {
      int64_t id;
      int64_t ms;  // -1: all of it
    };
    std::vector<Remaining> checkpoint;  // empty: none
    bool more = false;                  // call again without waiting for a tick
  };
  // `alive`: the leader's own claim (RaftNode::claim) is younger than an election timeout.
  Proposals Turn(const base::ClockSample& now, bool alive);
  Index as_of() const { return as_of_; }
  // An expiry or checkpoint that Turn gave in `term` has come to an end. `applied` false: refused,
  // or nobody knows.
  void OnExpiryDone(Term term, const std::vector<int64_t>& ids, bool applied,
                    const base::ClockSample& now);
  void OnCheckpointDone(Term term, const std::vector<Proposals::Remaining>& leases, bool applied,
                        const base::ClockSample& now);

  // Renewals and questions share rounds: while one is out, others gather for the next.
  struct Ask {
    uint64_t tag = 0;  // the caller's
    bool renew = false;
    std::vector<int64_t> ids;
  };
  struct Answer {
    Ask ask;
    bool led = false;              // false: this member does not lead; nothing was done
    std::vector<LeaseTime> times;  // of each id
  };
  void Submit(Ask ask);
  // A number: the caller is to start a round now, and to report its end under it.
  std::optional<uint64_t> StartRound(const base::ClockSample& now);
  // `confirmed`: after the round this member still led in term(), which it led in before.
  void OnRound(uint64_t round, bool confirmed, const base::ClockSample& now);
  std::vector<Answer> TakeAnswers() { return std::exchange(answers_, {}); }

  size_t size() const { return table_->size(); }
  size_t memory_bytes() const { return table_->memory_bytes(); }
  // Named as expired, and not gone yet.
  size_t expiring() const { return expiring_; }
  // Counted over all terms: renewals that counted.
  uint64_t renewed() const { return renewed_; }
  // Leases whose end this core proposed and saw.
  uint64_t expired() const { return expired_; }

 private:
  void Grant(int64_t id, int64_t ttl_s, int64_t kept_ms, int64_t deadline_ms);
  // When it must be looked at: its end, or its checkpoint.
  static int64_t NextWake(const LeaseEntry& lease);
  bool RetryIsDue(const base::ClockSample& now) const;
  bool RoomForExpired(const Proposals& proposals) const;
  void NameExpired(LeaseEntry* lease, Proposals* proposals);
  void ProposeAgain(Proposals* proposals);
  void ProposeCheckpoint(Proposals* proposals);
  LeaseTime Renew(int64_t id, const base::ClockSample& now);
  LeaseTime TimeOf(int64_t id);
  void AnswerAll(std::vector<Ask> asks, bool led, const base::ClockSample& now);

  const absl::Duration election_timeout_;
  Term term_;
  bool leads_ = false;
  Index view_;   // what was loaded
  Index as_of_;  // the newest change that is in
  LeaseClock clock_;
  std::unique_ptr<LeaseTable> table_;

  size_t expiries_in_flight_ = 0;
  bool checkpoint_in_flight_ = false;
  // Named, and to be proposed once more: the proposal was refused or lost. Bounded by the leases.
  std::vector<int64_t> again_;
  // Renewals wait for these. Bounded by the leases.
  std::vector<int64_t> resets_;
  // Of which the log is to be told how much is left. Bounded by the leases.
  std::deque<int64_t> to_checkpoint_;
  int64_t next_checkpoint_ms_ = 0;
  // Not before: what was refused would be refused again.
  std::optional<base::ClockSample> failed_at_;

  // Bounded by the caller (Lessor::kQueuedIdsMax).
  std::vector<Ask> queued_;
  std::vector<Ask> in_round_;
  bool round_out_ = false;
  uint64_t round_ = 0;
  base::ClockSample round_start_;
  std::vector<Answer> answers_;

  size_t expiring_ = 0;
  uint64_t renewed_ = 0;
  uint64_t expired_ = 0;
};

}  // namespace holdfast::server
