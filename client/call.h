// One call of a user: a sequence of tries until an answer is good enough, or nothing more may or
// can be tried.
//
//   rung     what kind of answer is accepted now. A plain read or write has one; a ladder goes to
//            the next when the one above cannot be had.
//   sweep    the first round over the endpoints, without waits. After it every try waits first
//            (full jitter, doubling).
//   payment  the first try that leaves this process is free, every other takes a token.
//   hedge    a second try beside the first, of a read of one member's own data that takes long. The
//            first answer that is good enough wins and the other try is cancelled; one that is not
//            good enough waits for the other. Paid for by a budget of its own.
//
// The three rules that matter most stand in HandleReply: a write that may have taken effect is
// never sent again, unless under the stamp of its session, which can not take effect twice; an
// answer that misses its bound is never handed out; a definite no is final.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/event_loop.h"
#include "client/exchange_link.h"
#include "client/fresh_gate.h"
#include "client/outcome.h"
#include "client/router.h"
#include "client/rpc.h"
#include "holdfast/freshness.h"

namespace holdfast::internal {

class Dispatcher;

// What a read accepts. A write has one linearizable rung.
struct Rung {
  bool linearizable = true;
  absl::Duration max_age = absl::InfiniteDuration();  // of a serializable answer
  uint64_t min_revision = 0;

  bool bounded() const { return !linearizable && max_age != absl::InfiniteDuration(); }
  // Whether it takes a member in touch with the leader to satisfy it.
  bool needs_quorum() const { return linearizable || bounded() || min_revision > 0; }
};

// What a stamped write came to, beside its verdict. Read by whoever stamped it, in `done`.
struct WriteFate {
  // A try may have taken effect, or still may. Of a call that asks once more for an earlier one's
  // outcome, true from the start.
  bool in_doubt = false;
  SessionWord refusal = SessionWord::kNone;  // the store's last word on it
};

// What a call needs of an answer's header.
struct AnswerHeader {
  uint64_t cluster_id = 0;
  int64_t revision = 0;
};

// What a call is called in the texts of errors, which are rare: Get "/config/a".
struct CallName {
  std::string_view verb = {};  // of static storage
  std::optional<std::string> key = std::nullopt;

  std::string ToText() const;
};

struct CallSpec {
  CallName what;  // for error texts
  Method method = Method::kRange;
  bool write = false;
  std::vector<Rung> rungs;  // not empty
  absl::Duration deadline;
  uint64_t past_revision = 0;  // the read is of this revision; 0: of the newest
  uint64_t cluster_id = 0;     // that a token names; 0: any
  uint64_t incarnation = 0;    // that a token or an earlier page names; 0: any
  bool hedge = false;          // its serializable rungs may be hedged
  absl::Status invalid;        // not OK: the answer, without any try

  // Of a write in a session: the stamp, made anew for each try, for what is acknowledged goes on.
  absl::AnyInvocable<Stamp()> stamp;
  std::shared_ptr<WriteFate> fate;  // with `stamp`
  // Of a write: that it takes effect twice, or unheard, harms nobody (the opening of a session).
  bool harmless = false;

  absl::AnyInvocable<std::string(const Rung&)> encode;
  // Keeps the answer for the caller and says what its header holds; false if it cannot be parsed.
  // The last answer that was decoded is the one that the call succeeds with.
  absl::AnyInvocable<bool(RpcReply&, AnswerHeader*)> decode;
};

struct CallAnswer {
  Freshness fresh;
  uint64_t revision = 0;  // of the header
  uint64_t cluster_id = 0;
  uint64_t incarnation = 0;
  int attempts = 0;
  bool deduplicated = false;
};

// Threads: all methods from any thread; everything after Start runs on the loop's thread, and no
// two steps of one call run at the same time.
class Call : public TryOwner, public std::enable_shared_from_this<Call> {
 public:
  using Verdict = absl::StatusOr<CallAnswer>;
  using Done = absl::AnyInvocable<void(Verdict) &&>;

  Call(Dispatcher* dispatcher, CallSpec&& spec, Done&& done);
  void Start();
  // Ends the call soon: CANCELLED, or the outcome unknown if a write may have been sent.
  void Cancel();
  // For the Dispatcher: where it keeps this call, if it does. Set before Start.
  void set_place(size_t place) { place_ = place; }
  std::optional<size_t> place() const { return place_; }
  // For the HedgeQueue.
  void OnHedgeTime();
  // For the transports.
  void OnTryDone(bool hedge, RpcReply& reply) override;

 private:
  using Steady = std::chrono::steady_clock;
  // nullopt: the call is under way; it goes on with a reply or a timer.
  using MaybeVerdict = std::optional<Verdict>;
  enum class RungEnd { kNoTime, kAttemptsSpent, kAllAnswered, kNoBudget, kNoQuorum, kPushedBack };
  // One try under way: what its reply is judged by.
  struct Try {
    size_t endpoint = 0;
    base::ClockSample sampled = {};  // Freshness 5: before it was sent
    absl::Duration timeout = absl::ZeroDuration();
    Steady::time_point sent_at = {};
    bool paid = false;   // by a token
    bool hedge = false;  // beside the first
  };

  // The clocks, read once for all that a step does.
  struct Instant {
    Steady::time_point steady = {};
    base::ClockSample sampled = {};
    absl::Duration boot() const { return absl::Nanoseconds(sampled.boot_ns); }
  };
  Instant Now() const;

  // What one endpoint has answered so far.
  struct Said {
    std::string said;  // the last time
    int times = 0;
  };

  std::string What() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return spec_.what.ToText(); }
  void Deliver(Verdict verdict);
  void OnTimer();

  MaybeVerdict Begin() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EnterRung(size_t rung, Steady::time_point now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict NextTry(const Instant& now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Send(size_t endpoint, const Instant& now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<TryHandle> StartTry(size_t endpoint, bool hedge, const Instant& now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArmHedge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return delivered_ && tries_under_way_ == 0;
  }
  void CancelTries() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NoteReadTime(const Try& of) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict Wait() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict WaitOutPushBack(absl::Duration delay) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict HandleReply(const Try& of, RpcReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a stamped write that the server did not answer with OK. nullopt: treat it as any other.
  MaybeVerdict HandleStamped(size_t endpoint, const RpcReply& reply, Outcome outcome,
                             const std::string& said) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict WaitForBudget(absl::Duration retry_after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether the write may go out once more whatever became of the tries before.
  bool repeatable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return spec_.harmless || spec_.fate != nullptr;
  }
  bool in_doubt() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return spec_.fate != nullptr && spec_.fate->in_doubt;
  }
  MaybeVerdict Success(size_t endpoint, RpcReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict Again(size_t endpoint, Outcome outcome, const std::string& said)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  MaybeVerdict RungOver(RungEnd why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Freshness FreshnessOf(const RpcReply& reply, uint64_t header_revision) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void KeepBest(const Freshness& fresh) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration TryTimeout(absl::Duration left) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration TimeLeft() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return TimeLeft(Steady::now());
  }
  absl::Duration TimeLeft(Steady::time_point now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return absl::FromChrono(rung_deadline_ - now);
  }
  const Rung& rung() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return spec_.rungs[rung_]; }
  bool last_rung() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return rung_ + 1 == spec_.rungs.size();
  }

  absl::Status Failure(RungEnd why) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status UnknownOutcome(size_t endpoint, const std::string& said) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status StillInDoubt(std::string_view why) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Cancelled() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string Tried() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Dispatcher* const dispatcher_;
  std::optional<size_t> place_;

  absl::Mutex mutex_;
  CallSpec spec_ ABSL_GUARDED_BY(mutex_);
  Done done_;  // used once, by Deliver
  // At most one of these two is set.
  std::optional<TryHandle> try_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<EventLoop::Timer> timer_ ABSL_GUARDED_BY(mutex_);
  // Of the rung's first try, and beside it.
  bool hedge_asked_ ABSL_GUARDED_BY(mutex_) = false;  // once a call
  bool hedge_armed_ ABSL_GUARDED_BY(mutex_) = false;  // the first try may still be hedged
  std::optional<TryHandle> hedge_try_ ABSL_GUARDED_BY(mutex_);
  Try first_ ABSL_GUARDED_BY(mutex_);   // what `try_` is judged by
  Try second_ ABSL_GUARDED_BY(mutex_);  // and `hedge_try_`
  // The call is forgotten after the last of them has come back.
  int tries_under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  bool judged_ ABSL_GUARDED_BY(mutex_) = false;     // there is a verdict
  bool delivered_ ABSL_GUARDED_BY(mutex_) = false;  // `done` has run
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;

  Steady::time_point start_ ABSL_GUARDED_BY(mutex_);
  size_t rung_ ABSL_GUARDED_BY(mutex_) = 0;
  Steady::time_point rung_deadline_ ABSL_GUARDED_BY(mutex_);
  int rung_attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  EndpointFlags tried_ ABSL_GUARDED_BY(mutex_);    // in this round
  bool swept_ ABSL_GUARDED_BY(mutex_) = false;     // the first round is over
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;  // in this rung, if with a "too old" or "behind"
  int waits_ ABSL_GUARDED_BY(mutex_) = 0;

  int attempts_ ABSL_GUARDED_BY(mutex_) = 0;
  bool sent_ ABSL_GUARDED_BY(mutex_) = false;       // some try may have left this process
  bool rung_sent_ ABSL_GUARDED_BY(mutex_) = false;  // one of this rung's
  bool reached_ ABSL_GUARDED_BY(mutex_) = false;    // some member answered, if with an error
  bool paid_ ABSL_GUARDED_BY(mutex_) = false;       // for the try that is sent next
  bool probing_ ABSL_GUARDED_BY(mutex_) = false;    // holds the gate's probe
  bool skipped_rung_ ABSL_GUARDED_BY(mutex_) = false;
  bool overloaded_ ABSL_GUARDED_BY(mutex_) = false;
  bool only_time_ran_out_ ABSL_GUARDED_BY(mutex_) =
      true;                                            // no try ended but by its deadline, unsent
  bool healthy_left_ ABSL_GUARDED_BY(mutex_) = false;  // when the budget was spent
  absl::Duration retry_after_ ABSL_GUARDED_BY(mutex_);
  // Of the try whose reply is looked at.
  absl::Duration try_timeout_ ABSL_GUARDED_BY(mutex_);
  base::ClockSample sampled_ ABSL_GUARDED_BY(mutex_);
  bool answered_once_ ABSL_GUARDED_BY(mutex_) = false;        // a reply came, whatever it said
  Steady::time_point first_sent_at_ ABSL_GUARDED_BY(mutex_);  // the first of two under way
  std::optional<Freshness> best_ ABSL_GUARDED_BY(mutex_);     // of the answers that were too old
  std::vector<Said> log_ ABSL_GUARDED_BY(mutex_);  // by endpoint, for error texts; or empty
};

}  // namespace holdfast::internal
