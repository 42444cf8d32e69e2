#include "client/call.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "base/strings.h"
#include "client/claim.h"
#include "client/dispatcher.h"
#include "client/grpc_time.h"

namespace holdfast::internal {
namespace {

constexpr size_t kSaidMax = 200;  // bytes of what a server said
// Below this a try is not cut in half again: it gets all that is left.
constexpr absl::Duration kShortestTry = absl::Milliseconds(50);

constexpr absl::Duration kLongestPause = absl::Seconds(1);        // between two tries of one call
constexpr absl::Duration kShortestPause = absl::Milliseconds(1);  // where a server says how long

absl::Status StatusOf(absl::StatusCode code, const std::string& text) {
  return absl::Status(code, base::ToAbsl(text));
}

// gRPC's and Abseil's codes are the same numbers.
absl::StatusCode ToAbslCode(grpc::StatusCode code) { return static_cast<absl::StatusCode>(code); }

std::string WhatItSaid(const RpcReply& reply, absl::Duration timeout) {
  if (reply.status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
    return fmt::format("{} within {}", reply.sent ? "no answer" : "no connection",
                       absl::FormatDuration(absl::Trunc(timeout, absl::Milliseconds(1))));
  }
  if (reply.status.error_message().empty()) {
    return fmt::format("code {}", static_cast<int>(reply.status.error_code()));
  }
  // gRPC wraps the one interesting fact in two lines of its own.
  constexpr std::string_view kConnect = "Failed to connect to remote host: ";
  const std::string& text = reply.status.error_message();
  const size_t at = text.rfind(kConnect);
  if (at != text.npos)
    return "cannot connect: " + base::Printable(text.substr(at + kConnect.size()));
  return base::Printable(text, kSaidMax);
}

}  // namespace

std::string CallName::ToText() const {
  if (!key.has_value()) return std::string(verb);
  return fmt::format("{} \"{}\"", verb, base::Printable(*key));
}

Call::Call(Dispatcher* dispatcher, CallSpec&& spec, Done&& done)
    : dispatcher_(dispatcher), spec_(std::move(spec)), done_(std::move(done)) {
  CHECK(!spec_.rungs.empty());
  CHECK(!spec_.write || spec_.rungs.size() == 1);
}

void Call::Start() {
  MaybeVerdict verdict;
  {
    absl::MutexLock lock(&mutex_);
    verdict = Begin();
  }
  if (verdict.has_value()) Deliver(*std::move(verdict));
}

void Call::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  if (timer_ != nullptr) timer_->Cancel();
  hedge_armed_ = false;
  CancelTries();
}

void Call::CancelTries() {
  if (try_.has_value()) try_->Cancel();
  if (hedge_try_.has_value()) hedge_try_->Cancel();
}

void Call::Deliver(Verdict verdict) {
  if (!dispatcher_->loop().OnLoopThread()) {
    // Callbacks run on the client's thread only: a user may hold a lock while calling us.
    dispatcher_->loop().After(absl::ZeroDuration(),
                              [self = shared_from_this(), v = std::move(verdict)]() mutable {
                                self->Deliver(std::move(v));
                              });
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (std::exchange(probing_, false)) dispatcher_->router().OnProbeOver();
  }
  std::move(done_)(std::move(verdict));
  bool over;
  {
    absl::MutexLock lock(&mutex_);
    delivered_ = true;
    over = Over();
  }
  if (over) dispatcher_->Forget(*this);
}

void Call::OnTryDone(bool hedge, RpcReply& reply) {
  MaybeVerdict verdict;
  bool over;
  {
    absl::MutexLock lock(&mutex_);
    const Try of = hedge ? second_ : first_;
    (hedge ? hedge_try_ : try_).reset();
    --tries_under_way_;
    // A second try is for a first one that is silent.
    if (!of.hedge) hedge_armed_ = false;
    if (!judged_) {
      verdict = HandleReply(of, reply);
      judged_ = verdict.has_value();
      if (judged_) CancelTries();
    }
    over = Over();
  }
  if (verdict.has_value()) Deliver(*std::move(verdict));
  if (over) dispatcher_->Forget(*this);
}

void Call::OnHedgeTime() {
  absl::MutexLock lock(&mutex_);
  if (!std::exchange(hedge_armed_, false) || TimeLeft() <= absl::ZeroDuration()) return;
  const std::optional<size_t> endpoint =
      dispatcher_->router().ChooseHedge(rung().needs_quorum(), tried_);
  if (!endpoint.has_value()) return;
  dispatcher_->stats().hedges.Add();
  hedge_try_ = StartTry(*endpoint, /*hedge=*/true, Now());
}

void Call::OnTimer() {
  MaybeVerdict verdict;
  {
    absl::MutexLock lock(&mutex_);
    timer_ = nullptr;
    verdict = cancelled_ ? MaybeVerdict(Cancelled()) : NextTry(Now());
  }
  if (verdict.has_value()) Deliver(*std::move(verdict));
}

Call::MaybeVerdict Call::Begin() {
  if (cancelled_) return Cancelled();
  if (!spec_.invalid.ok()) return spec_.invalid;
  dispatcher_->router().OnCall();
  size_t first = 0;
  // Only a ladder asks the gate: who wants nothing but fresh data is never turned away.
  if (rung().linearizable && !last_rung()) {
    const FreshGate::Pass pass = dispatcher_->router().EnterFreshGate();
    probing_ = pass == FreshGate::Pass::kProbe;
    skipped_rung_ = pass == FreshGate::Pass::kNo;
    if (skipped_rung_) first = 1;
  }
  const Instant now = Now();
  start_ = now.steady;
  EnterRung(first, now.steady);
  return NextTry(now);
}

Call::Instant Call::Now() const { return {Steady::now(), dispatcher_->clock()->Sample()}; }

void Call::EnterRung(size_t rung, Steady::time_point now) {
  CHECK(rung < spec_.rungs.size());
  rung_ = rung;
  const absl::Duration total = std::min(spec_.deadline, kLongestWait);
  const absl::Duration spent = absl::FromChrono(now - start_);
  const absl::Duration left = total - spent;
  // The rungs below must have their chance: each but the last takes half of what is left.
  rung_deadline_ = start_ + absl::ToChronoNanoseconds(spent + (last_rung() ? left : left / 2));
  rung_attempts_ = 0;
  rung_sent_ = false;
  tried_.reset();
  swept_ = false;
  answered_ = false;
  waits_ = 0;
}

Call::MaybeVerdict Call::NextTry(const Instant& now) {
  if (TimeLeft(now.steady) <= absl::ZeroDuration()) return RungOver(RungEnd::kNoTime);
  if (rung_attempts_ >= dispatcher_->policy().max_attempts) {
    return RungOver(RungEnd::kAttemptsSpent);
  }
  Router::Pay pay = Router::Pay::kFree;
  if (sent_ || swept_) {
    // A ladder's next rung is what the caller falls back to in an outage: refusing its one request
    // to save one would defeat the ladder. The gate keeps this rare.
    pay = rung_ > 0 && !rung_sent_ ? Router::Pay::kDebt : Router::Pay::kToken;
  }
  const Router::Choice choice =
      dispatcher_->router().Choose(rung().needs_quorum(), tried_, pay, now.boot());
  switch (choice.kind) {
    case Router::Choice::Kind::kPushedBack:
      return WaitOutPushBack(choice.retry_after);
    case Router::Choice::Kind::kNoBudget:
      dispatcher_->stats().budget_denials.Add();
      if (in_doubt() && choice.retry_after < TimeLeft()) return WaitForBudget(choice.retry_after);
      healthy_left_ = choice.healthy_left;
      retry_after_ = choice.retry_after;
      return RungOver(RungEnd::kNoBudget);
    case Router::Choice::Kind::kAllTried: {
      // Members that answered "too old" or "behind" will say so again: waiting does not help.
      if (answered_ && !rung().linearizable) return RungOver(RungEnd::kAllAnswered);
      // Every endpoint was asked, and none has served anybody for long: waiting will not help.
      if (rung().needs_quorum() && dispatcher_->router().QuorumGivenUp()) {
        return RungOver(RungEnd::kNoQuorum);
      }
      tried_.reset();
      const bool waited = std::exchange(swept_, true);
      return waited ? NextTry(now) : Wait();
    }
    case Router::Choice::Kind::kTry:
      break;
  }
  paid_ = pay != Router::Pay::kFree;
  Send(choice.endpoint, now);
  return std::nullopt;
}

absl::Duration Call::TryTimeout(absl::Duration left) const {
  // A write that was sent cannot be sent elsewhere, so there is nothing to save time for. Nor is
  // there with a single endpoint.
  if ((spec_.write && !repeatable()) || dispatcher_->endpoints().size() == 1 ||
      left <= kShortestTry)
    return left;
  return std::max(std::min(dispatcher_->policy().try_timeout, left / 2), kShortestTry);
}

void Call::Send(size_t endpoint, const Instant& now) {
  const bool first = rung_attempts_ == 0;
  try_ = StartTry(endpoint, /*hedge=*/false, now);
  if (first && spec_.hedge && !rung().linearizable && dispatcher_->endpoints().size() > 1) {
    ArmHedge();
  }
}

void Call::ArmHedge() {
  if (std::exchange(hedge_asked_, true)) return;
  const std::optional<absl::Duration> delay = dispatcher_->router().BeginHedgeable();
  if (!delay.has_value() || *delay >= TimeLeft()) return;
  hedge_armed_ = true;
  dispatcher_->hedges().Add(*delay, weak_from_this());
}

std::optional<TryHandle> Call::StartTry(size_t endpoint, bool hedge, const Instant& now) {
  tried_[endpoint] = true;
  ++attempts_;
  ++rung_attempts_;
  RpcRequest request;
  request.method = spec_.method;
  request.body = spec_.encode(rung());
  // A member without a leader says so at once instead of holding the request: a write then knows
  // that it had no effect, a ladder goes on. Other reads rather wait out an election there.
  request.require_leader = spec_.write || (rung().linearizable && !last_rung());
  if (rung().bounded()) request.max_age = std::max(rung().max_age, absl::ZeroDuration());
  if (spec_.stamp) request.stamp = spec_.stamp();
  request.timeout = TryTimeout(TimeLeft(now.steady));
  Try& of = hedge ? second_ : first_;
  of = {.endpoint = endpoint,
        .sampled = now.sampled,  // Freshness 5: before sending
        .timeout = request.timeout,
        .sent_at = now.steady,
        .paid = paid_ && !hedge,
        .hedge = hedge};
  if (!hedge) first_sent_at_ = of.sent_at;
  ++tries_under_way_;
  dispatcher_->stats().attempts.Add();
  const std::shared_ptr<grpc::Channel> channel = dispatcher_->connections().ForTry(endpoint);
  if (channel == nullptr) {
    dispatcher_->loop().After(absl::ZeroDuration(), [self = shared_from_this(), hedge] {
      RpcReply reply;
      reply.status = {grpc::StatusCode::UNAVAILABLE,
                      "it could not be reached for long, and is not tried again yet"};
      reply.sent = false;
      self->OnTryDone(hedge, reply);
    });
    return std::nullopt;
  }
  // Under the lock, which the reply's handler takes first: the handle is set before it is cleared.
  return dispatcher_->StartTry(endpoint, channel, std::move(request), shared_from_this(), hedge);
}

Call::MaybeVerdict Call::Wait() {
  // The budget bounds the load; a longer wait inside one call would only hide a recovery from it.
  const absl::Duration delay = std::min(dispatcher_->router().Jitter(waits_++), kLongestPause);
  if (delay >= TimeLeft()) return RungOver(RungEnd::kNoTime);
  timer_ = dispatcher_->loop().After(delay, [self = shared_from_this()] { self->OnTimer(); });
  return std::nullopt;
}

Call::MaybeVerdict Call::WaitForBudget(absl::Duration retry_after) {
  // What is in doubt is worth waiting for, and the budget is kept all the same. The jitter parts
  // those that wait for the same token.
  const absl::Duration delay =
      std::max(retry_after, absl::Milliseconds(1)) + dispatcher_->router().Jitter(waits_++);
  if (delay >= TimeLeft()) return RungOver(RungEnd::kNoBudget);
  timer_ = dispatcher_->loop().After(delay, [self = shared_from_this()] { self->OnTimer(); });
  return std::nullopt;
}

Call::MaybeVerdict Call::WaitOutPushBack(absl::Duration delay) {
  retry_after_ = delay;
  overloaded_ = true;
  if (delay >= TimeLeft()) return RungOver(RungEnd::kPushedBack);
  timer_ = dispatcher_->loop().After(std::max(delay, kShortestPause),
                                     [self = shared_from_this()] { self->OnTimer(); });
  return std::nullopt;
}

// A read that was beaten by its hedge took at least as long as it had been under way.
void Call::NoteReadTime(const Try& of) {
  if (!spec_.hedge || rung().linearizable) return;
  const Steady::time_point since = of.hedge ? first_sent_at_ : of.sent_at;
  dispatcher_->router().OnReadTime(absl::FromChrono(Steady::now() - since));
  if (of.hedge) dispatcher_->stats().hedges_won.Add();
}

Call::MaybeVerdict Call::HandleReply(const Try& of, RpcReply& reply) {
  const size_t endpoint = of.endpoint;
  // Freshness 5. A stamped write's answer may be of any of its tries, so the first one's counts.
  if (spec_.fate == nullptr || !answered_once_) sampled_ = of.sampled;
  answered_once_ = true;
  try_timeout_ = of.timeout;
  // One that this client had no room for says nothing of the endpoint.
  const bool no_room =
      !reply.sent && reply.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED;
  // The budgets are about what servers have to bear: for them a refusal is a request.
  const bool reached = reply.sent || reply.refused_unsent;
  if (!no_room) dispatcher_->connections().OnTry(endpoint, reached);
  // After the first round a try that finds no connection costs its token all the same: in a total
  // outage most calls then fail at once instead of each waiting for its deadline.
  if (!reached && of.paid && !swept_) dispatcher_->router().Refund();
  sent_ = sent_ || reached;
  rung_sent_ = rung_sent_ || reached;
  if (reply.status.ok()) {
    MaybeVerdict verdict = Success(endpoint, reply);
    if (verdict.has_value() && verdict->ok()) NoteReadTime(of);
    return verdict;
  }

  const Asked asked{spec_.write, rung().bounded(), !rung().linearizable, reply.sent,
                    reply.retry_after.has_value()};
  const Outcome outcome = Classify(reply.status, asked);
  const std::string said = WhatItSaid(reply, try_timeout_);
  if (spec_.fate != nullptr) {
    MaybeVerdict verdict = HandleStamped(endpoint, reply, outcome, said);
    if (verdict.has_value()) return verdict;
  }
  if (cancelled_) {
    if (spec_.write && !repeatable() && !CertainlyNoEffect(outcome)) {
      return UnknownOutcome(endpoint, said);
    }
    return Cancelled();
  }
  dispatcher_->router().Report(endpoint, outcome, rung().needs_quorum());
  dispatcher_->stats().Count(outcome);
  if (outcome == Outcome::kOverloaded && reply.retry_after.has_value()) {
    dispatcher_->router().OnPushBack(endpoint, *reply.retry_after);
    retry_after_ = *reply.retry_after;
  }
  if (outcome == Outcome::kRefused && in_doubt()) {
    // No answer but the stamp's own settles it: another copy may be under way.
    return Again(endpoint, Outcome::kNoQuorum, said);
  }
  if (outcome == Outcome::kRefused) {
    return StatusOf(ToAbslCode(reply.status.error_code()),
                    fmt::format("{} was refused by {}: {}. The same request will be refused again.",
                                What(), dispatcher_->endpoints()[endpoint].name, said));
  }
  if (spec_.write && !repeatable() && reply.sent && !CertainlyNoEffect(outcome)) {
    return UnknownOutcome(endpoint, said);
  }
  if (outcome == Outcome::kTooOld) KeepBest(FreshnessOf(reply, 0));
  return Again(endpoint, outcome, said);
}

Call::MaybeVerdict Call::HandleStamped(size_t endpoint, const RpcReply& reply, Outcome outcome,
                                       const std::string& said) {
  WriteFate& fate = *spec_.fate;
  const std::string& name = dispatcher_->endpoints()[endpoint].name;
  fate.refusal = SessionWordOf(reply.status);
  const auto report = [&] {
    dispatcher_->router().Report(endpoint, Outcome::kRefused, rung().needs_quorum());
  };
  switch (fate.refusal) {
    case SessionWord::kAnswerTooLarge:
      report();
      return StatusOf(absl::StatusCode::kAlreadyExists,
                      fmt::format("{}: {} says: {}", What(), name,
                                  base::Printable(reply.status.error_message(), kSaidMax)));
    case SessionWord::kForked:
      report();
      return StatusOf(
          absl::StatusCode::kAborted,
          fmt::format("{} was refused by {}: SESSION_FORKED: another process writes in this "
                      "client's session (fork(), a copied machine or container). It had no effect. "
                      "Open a holdfast::Client in each process, then write again",
                      What(), name));
    case SessionWord::kExpired:
    case SessionWord::kAcknowledged:
      report();
      if (fate.in_doubt) {
        return StillInDoubt(
            "the store has forgotten this client's session, and with it what became "
            "of the write");
      }
      return StatusOf(
          absl::StatusCode::kAborted,
          fmt::format("{} was refused by {}: {}. It had no effect. Write again", What(), name,
                      fate.refusal == SessionWord::kExpired
                          ? "SESSION_EXPIRED: the store does not know this client's session"
                          : "SESSION_FORKED: another process acknowledged it in this client's "
                            "session (fork(), a copied machine or container)"));
    case SessionWord::kNone:
      break;
  }
  if (reply.deduplicated.has_value()) {
    // The store's answer to this stamp, now and for ever.
    report();
    return StatusOf(ToAbslCode(reply.status.error_code()),
                    fmt::format("{} was refused by {}: {}. The same request will be refused again.",
                                What(), name, said));
  }
  if (reply.sent && !CertainlyNoEffect(outcome)) fate.in_doubt = true;
  return std::nullopt;
}

Call::MaybeVerdict Call::Success(size_t endpoint, RpcReply& reply) {
  const std::string& name = dispatcher_->endpoints()[endpoint].name;
  AnswerHeader header;
  if (!spec_.decode(reply, &header)) {
    if (in_doubt() || (spec_.write && !spec_.harmless)) {
      if (spec_.fate != nullptr) spec_.fate->in_doubt = true;
      return UnknownOutcome(endpoint, "an answer that cannot be read");
    }
    return absl::InternalError(base::ToAbsl(fmt::format(
        "{}: {} gave an answer that cannot be read; is it an etcd v3 server?", What(), name)));
  }
  const auto revision = static_cast<uint64_t>(std::max<int64_t>(0, header.revision));
  const Freshness fresh = FreshnessOf(reply, revision);
  Router& router = dispatcher_->router();
  if (spec_.cluster_id != 0 && header.cluster_id != spec_.cluster_id) {
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "{}: {} belongs to cluster {:x}, the token to cluster {:x}; use endpoints of the cluster "
        "that the token comes from",
        What(), name, header.cluster_id, spec_.cluster_id)));
  }
  // Freshness 7: data of another incarnation never merges, for its revisions are others.
  if (spec_.incarnation != 0 && reply.incarnation != 0 && reply.incarnation != spec_.incarnation) {
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "{}: {} is of incarnation {:x} of the cluster, what it is to go with of incarnation {:x}: "
        "the cluster was started anew from one member's data or a backup, and revisions from "
        "before mean nothing there; drop what was read before, and read anew",
        What(), name, reply.incarnation, spec_.incarnation)));
  }
  if (revision < rung().min_revision) {
    if (rung().linearizable) {
      return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
          "{}: the store is at revision {}, before the token's {}: it was restored from an older "
          "backup, or the token is of another store",
          What(), revision, rung().min_revision)));
    }
    router.Report(endpoint, Outcome::kBehind, rung().needs_quorum());
    dispatcher_->stats().Count(Outcome::kBehind);
    return Again(endpoint, Outcome::kBehind, fmt::format("only at revision {}", revision));
  }
  if (!rung().linearizable && !fresh.Within(rung().max_age)) {
    router.Report(endpoint, Outcome::kTooOld, rung().needs_quorum());
    dispatcher_->stats().Count(Outcome::kTooOld);
    KeepBest(fresh);
    const absl::Duration age = fresh.MaxAge();
    return Again(endpoint, Outcome::kTooOld,
                 age == absl::InfiniteDuration()
                     ? "an answer of unknown age"
                     : fmt::format("an answer up to {} old", absl::FormatDuration(age)));
  }
  router.Report(endpoint, Outcome::kOk, rung().needs_quorum());
  dispatcher_->stats().Count(Outcome::kOk);
  if (rung().linearizable) {
    router.OnFresh();
    probing_ = false;
  }
  return CallAnswer{fresh,
                    revision,
                    header.cluster_id,
                    reply.incarnation,
                    attempts_,
                    reply.deduplicated.value_or(false)};
}

Freshness Call::FreshnessOf(const RpcReply& reply, uint64_t header_revision) const {
  Claim claim;
  claim.at = sampled_;
  claim.source = reply.age.source;
  claim.revision = header_revision;
  if (rung().linearizable) {
    // Everything acknowledged before the request was sent is in the answer, whoever gave it.
    claim.extra = absl::ZeroDuration();
    claim.proof = Proof::kProven;
  } else if (reply.age.age.has_value()) {
    claim.extra = *reply.age.age;
    claim.proof = Proof::kProven;
  }
  if (spec_.past_revision != 0) {
    claim.revision = spec_.past_revision;
    // What was written since is not in the answer, however fresh the member is.
    if (header_revision != spec_.past_revision) {
      claim.extra = absl::InfiniteDuration();
      claim.proof = Proof::kUnknown;
    }
  }
  return FreshnessAccess::Make(claim, dispatcher_->clock(), dispatcher_->max_clock_slow());
}

void Call::KeepBest(const Freshness& fresh) {
  if (!best_.has_value() || fresh.MaxAge() < best_->MaxAge()) best_ = fresh;
}

Call::MaybeVerdict Call::Again(size_t endpoint, Outcome outcome, const std::string& said) {
  if (cancelled_) return Cancelled();
  CHECK(MayDifferElsewhere(outcome));
  log_.resize(dispatcher_->endpoints().size());
  log_[endpoint].said = said;
  ++log_[endpoint].times;
  reached_ = reached_ || Reached(outcome);
  overloaded_ = outcome == Outcome::kOverloaded;
  answered_ = answered_ || outcome == Outcome::kTooOld || outcome == Outcome::kBehind;
  if (sent_ || outcome != Outcome::kTimedOut) only_time_ran_out_ = false;
  // Whichever of two tries comes last goes on.
  if (tries_under_way_ > 0) return std::nullopt;
  return swept_ ? Wait() : NextTry(Now());
}

Call::MaybeVerdict Call::RungOver(RungEnd why) {
  if (last_rung()) return Failure(why);
  if (rung().linearizable) {
    dispatcher_->router().OnNotFresh();
    probing_ = false;
  }
  const Instant now = Now();
  EnterRung(rung_ + 1, now.steady);
  return NextTry(now);
}

std::string Call::Tried() const {
  std::string out;
  for (size_t i = 0; i < log_.size(); ++i) {
    if (log_[i].times == 0) continue;
    out += fmt::format(
        "{}{}{}: {}", out.empty() ? "Tried: " : "; ", dispatcher_->endpoints()[i].name,
        log_[i].times == 1 ? "" : fmt::format(" ({} times)", log_[i].times), log_[i].said);
  }
  return out.empty() ? "No endpoint was tried." : out + ".";
}

absl::Status Call::Failure(RungEnd why) const {
  if (in_doubt()) {
    switch (why) {
      case RungEnd::kNoTime:
        return StillInDoubt(
            fmt::format("no answer within {}", absl::FormatDuration(spec_.deadline)));
      case RungEnd::kNoBudget:
        return StillInDoubt("this client's retry budget is spent");
      case RungEnd::kNoQuorum:
        return StillInDoubt("no quorum");
      case RungEnd::kPushedBack:
        return StillInDoubt("the servers pushed back");
      case RungEnd::kAttemptsSpent:
      case RungEnd::kAllAnswered:
        return StillInDoubt("no attempts left");
    }
  }
  const std::string deadline = absl::FormatDuration(spec_.deadline);
  const std::string tried =
      Tried() +
      (skipped_rung_ ? " (Linearizable reads have been failing; this read left them out.)" : "");
  const char* effect = spec_.write ? "It had no effect. " : "";
  if (best_.has_value()) {
    const bool unknown = best_->MaxAge() == absl::InfiniteDuration();
    absl::Status status = StatusOf(
        absl::StatusCode::kFailedPrecondition,
        fmt::format("{}: no answer within the bound of {}. {} {}", What(),
                    absl::FormatDuration(rung().max_age), tried,
                    unknown ? "If the servers tell no age (plain etcd), read Linearizable() or "
                              "accept any age."
                            : "Accept an older answer with OrStale(), or read Linearizable()."));
    SetBestAvailable(status, *best_);
    return status;
  }
  if (why == RungEnd::kNoTime && only_time_ran_out_) {
    return StatusOf(absl::StatusCode::kDeadlineExceeded,
                    fmt::format("{}: the deadline of {} passed before anything was sent. {} "
                                "{}Give it more time, or check that the endpoints are reachable.",
                                What(), deadline, tried, effect));
  }
  // After a whole round the answer is the store's, not the budget's.
  if (overloaded_ || (why == RungEnd::kNoBudget && healthy_left_ && !swept_)) {
    absl::Status status = StatusOf(
        absl::StatusCode::kResourceExhausted,
        fmt::format("{}: {}. {} {}Try again later, with jitter.", What(),
                    overloaded_ ? "the servers pushed back"
                                : "this client's retry budget is spent, so no further endpoint "
                                  "was asked",
                    tried, effect));
    SetRetryAfter(status, retry_after_ > absl::ZeroDuration()
                              ? retry_after_
                              : dispatcher_->policy().base * (1 << std::min(attempts_, 6)));
    return status;
  }
  return StatusOf(
      absl::StatusCode::kUnavailable,
      fmt::format("{}: {}{}. {} {}{}", What(),
                  reached_ ? "no quorum" : "no endpoint can be reached",
                  why == RungEnd::kNoTime ? fmt::format(" within {}", deadline) : "", tried, effect,
                  spec_.write ? "Try again once a majority of the servers is up."
                  : rung().linearizable
                      ? "Check the servers; OrStale() would serve what a member still has."
                      : "Check the servers."));
}

absl::Status Call::UnknownOutcome(size_t endpoint, const std::string& said) const {
  absl::Status status = StatusOf(
      absl::StatusCode::kUnknown,
      fmt::format(
          "{}: outcome unknown. It was sent to {}, which gave: {}. It may have taken effect, "
          "or may within the next seconds. Read the key back, or write with a compare (Txn), "
          "before writing again.{}",
          What(), dispatcher_->endpoints()[endpoint].name, said,
          attempts_ == 1 ? "" : " Before that: " + Tried()));
  SetMaybeCommitted(status);
  return status;
}

absl::Status Call::StillInDoubt(std::string_view why) const {
  absl::Status status = StatusOf(
      absl::StatusCode::kUnknown,
      fmt::format("{}: outcome unknown: {}. It was sent, and may have taken effect, or may "
                  "within the next seconds; not more than once. {} Ask again with "
                  "Client::Resolve(), or read the key back, before writing again.",
                  What(), why, Tried()));
  SetMaybeCommitted(status);
  return status;
}

absl::Status Call::Cancelled() const {
  if (in_doubt()) return StillInDoubt("the client was closed before an answer came");
  return StatusOf(absl::StatusCode::kCancelled,
                  fmt::format("{}: the client was closed before an answer came.{}", What(),
                              spec_.write ? " It had no effect." : ""));
}

}  // namespace holdfast::internal
