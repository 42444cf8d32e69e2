#include "client/session.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#define XXH_INLINE_ALL  // no shared object for users of the library
#include <xxhash.h>

#include "absl/synchronization/blocking_counter.h"
#include "base/check.h"
#include "base/rng.h"
#include "base/strings.h"
#include "client/claim.h"
#include "client/grpc_time.h"
#include "client/process.h"
#include "holdfast/client.pb.h"
#include "holdfast/error.h"

namespace holdfast::internal {
namespace {

// A write that was sent once, into a session that the store had forgotten, goes into a new one.
// More than this often it would be something else that is wrong.
constexpr int kStampsMax = 3;

uint64_t DigestOf(const WriteRequest& request, uint64_t salt) {
  const uint64_t seed = XXH3_64bits_withSeed(&request.method, sizeof(request.method), salt);
  return XXH3_64bits_withSeed(request.body.data(), request.body.size(), seed);
}

absl::Duration TimeTo(std::chrono::steady_clock::time_point deadline) {
  return absl::FromChrono(deadline - std::chrono::steady_clock::now());
}

}  // namespace

bool OpenWrites::any_under_way() const {
  return std::ranges::find(row_, State::kUnderWay) != row_.end();
}

void OpenWrites::Add(uint64_t sequence) {
  if (row_.empty()) first_ = sequence;
  CHECK(sequence == first_ + row_.size());
  row_.push_back(State::kUnderWay);
}

void OpenWrites::Set(uint64_t sequence, bool under_way) {
  CHECK(sequence >= first_ && sequence - first_ < row_.size());
  row_[sequence - first_] = under_way ? State::kUnderWay : State::kAside;
}

void OpenWrites::Settle(uint64_t sequence) {
  CHECK(sequence >= first_ && sequence - first_ < row_.size());
  row_[sequence - first_] = State::kSettled;
  while (!row_.empty() && row_.front() == State::kSettled) {
    row_.pop_front();
    ++first_;
  }
}

WriteSessions::WriteSessions(Dispatcher* dispatcher, bool enabled)
    : dispatcher_(dispatcher), salt_(base::RandomSeed()), enabled_(enabled) {}

void WriteSessions::Start(WriteRequest request, Call::Done done) {
  auto job = std::make_shared<Job>();
  job->owner = this;
  job->deadline =
      Steady::now() + absl::ToChronoNanoseconds(std::min(request.deadline, kLongestWait));
  job->request = std::move(request);
  job->done = std::move(done);
  Work work;
  bool full = false;
  {
    absl::MutexLock lock(&mutex_);
    if (!enabled_) {
      work.launch.push_back(job);
    } else if (waiting_.size() >= kWaitingMax) {
      full = true;
    } else {
      // A child that goes on with this memory makes other digests: then the store tells the two
      // apart.
      job->digest = DigestOf(job->request, salt_ ^ static_cast<uint64_t>(ProcessId()));
      waiting_.push_back(job);
      Pump(&work);
      if (job->session == nullptr) ArmTimer(job->deadline);
    }
  }
  if (full) {
    FailWaiting({job}, absl::ResourceExhaustedError(base::ToAbsl(fmt::format(
                           "{}: {} writes wait for earlier ones to be answered already. It had no "
                           "effect. Try again later, with jitter.",
                           job->request.what.ToText(), kWaitingMax))));
    return;
  }
  Do(std::move(work));
}

// Stamps what waits, in order, as far as there is room.
void WriteSessions::Pump(Work* work) {
  while (!waiting_.empty()) {
    const std::shared_ptr<Job> job = waiting_.front();
    if (!enabled_) {
      // As below, without a stamp.
    } else if (const std::shared_ptr<Session> session = FindRoom(); session != nullptr) {
      job->session = session;
      job->sequence = session->next++;
      ++job->stamps;
      session->open.Add(job->sequence);
    } else {
      const bool may_open = sessions_.empty() ||
                            (sessions_.size() < kSessionsMax && Steady::now() >= open_not_before_);
      if (may_open && opening_for_ == nullptr) work->open_for = opening_for_ = job;
      return;  // a session that is opened, or an answer, makes room
    }
    waiting_.pop_front();
    work->launch.push_back(job);
  }
}

std::shared_ptr<WriteSessions::Session> WriteSessions::FindRoom() {
  // One is filled before the next is begun: a session that is not needed is not opened.
  for (size_t i = 0; i < sessions_.size();) {
    const size_t at = (filled_ + i) % sessions_.size();
    const std::shared_ptr<Session>& session = sessions_[at];
    if (session->has_room()) {
      filled_ = at;
      return session;
    }
    if (session->open.lowest_under_way()) {
      ++i;  // its answer makes room
      continue;
    }
    // The oldest is one that nobody asks for now. It stays where it is, and new writes go on
    // elsewhere.
    Retire(session);
    i = 0;
  }
  return nullptr;
}

void WriteSessions::Retire(const std::shared_ptr<Session>& session) {
  if (!std::exchange(session->in_use, false)) return;
  const std::shared_ptr<Session> kept = session;  // the argument may be the one that is erased
  sessions_.erase(std::find(sessions_.begin(), sessions_.end(), kept));
  filled_ = 0;
}

void WriteSessions::Do(Work work) {
  if (work.open_for != nullptr) OpenSession(work.open_for);
  for (const auto& job : work.launch) Launch(job);
  for (const uint64_t id : work.close) CloseSession(id, [](Call::Verdict) {});
}

// ---------------------------------------------------------------- opening and closing

void WriteSessions::OpenSession(const std::shared_ptr<Job>& job) {
  CallSpec spec;
  spec.what = job->request.what;  // an error is told to the writes that wait
  spec.method = Method::kSessionOpen;
  spec.write = true;
  spec.harmless = true;
  spec.rungs = {{}};
  spec.deadline = TimeTo(job->deadline);
  spec.encode = [](const Rung&) { return std::string(); };
  const auto response = std::make_shared<v1::SessionOpenResponse>();
  spec.decode = [response](RpcReply& reply, AnswerHeader* header) {
    using Traits = grpc::SerializationTraits<v1::SessionOpenResponse>;
    if (!Traits::Deserialize(&reply.body, response.get()).ok()) return false;
    *header = {response->header().cluster_id(), response->header().revision()};
    return response->session() != 0 && response->window() != 0;
  };
  dispatcher_->Start(std::move(spec), [this, job, response](Call::Verdict verdict) {
    OnOpened(job, response->session(), response->window(), verdict.status());
  });
}

void WriteSessions::OnOpened(const std::shared_ptr<Job>& job, uint64_t id, uint64_t window,
                             const absl::Status& status) {
  Work work;
  Jobs failed;
  {
    absl::MutexLock lock(&mutex_);
    opening_for_ = nullptr;
    if (status.ok()) {
      auto session = std::make_shared<Session>();
      session->id = id;
      session->window = window;
      session->in_use = true;
      filled_ = sessions_.size();
      sessions_.push_back(std::move(session));
    } else if (absl::IsUnimplemented(status) && sessions_.empty()) {
      enabled_ = false;  // etcd: for good
    } else {
      open_not_before_ = Steady::now() + absl::ToChronoNanoseconds(kOpenAgain);
      // If only this one's time was too short, the others go on trying in theirs.
      // So do all whose writes may go into a session that is open.
      const bool late =
          (TimeTo(job->deadline) <= absl::ZeroDuration() || !sessions_.empty()) && !closing_;
      for (auto it = waiting_.begin(); it != waiting_.end();) {
        if (late && TimeTo((*it)->deadline) > absl::ZeroDuration()) {
          ++it;
          continue;
        }
        failed.push_back(*it);
        it = waiting_.erase(it);
      }
    }
    Pump(&work);
    // The one that it was opened for has had no timer meanwhile.
    if (!waiting_.empty()) ArmTimer(waiting_.front()->deadline);
  }
  FailWaiting(failed, status);
  Do(std::move(work));
}

void WriteSessions::CloseSession(uint64_t id, Call::Done done) {
  CallSpec spec;
  spec.what = {.verb = "Close of a session"};
  spec.method = Method::kSessionClose;
  spec.write = true;
  spec.harmless = true;
  spec.rungs = {{}};
  spec.deadline = kCloseWait;
  v1::SessionCloseRequest request;
  request.set_session(id);
  spec.encode = [body = request.SerializeAsString()](const Rung&) { return body; };
  spec.decode = [](RpcReply& reply, AnswerHeader* header) {
    v1::SessionCloseResponse response;
    using Traits = grpc::SerializationTraits<v1::SessionCloseResponse>;
    if (!Traits::Deserialize(&reply.body, &response).ok()) return false;
    *header = {response.header().cluster_id(), response.header().revision()};
    return true;
  };
  dispatcher_->Start(std::move(spec), std::move(done));
}

void WriteSessions::Close() {
  std::vector<uint64_t> ids;
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
    // What still waits is answered when the dispatcher is closed.
    if (timer_ != nullptr) timer_->Cancel();
    if (dispatcher_->router().QuorumGivenUp()) return;
    for (const auto& session : sessions_) {
      // Writes under way would be refused for it, and end as unknown in any case.
      if (!session->open.any_under_way()) ids.push_back(session->id);
    }
    for (const auto& session : sessions_) session->in_use = false;
    sessions_.clear();
  }
  absl::BlockingCounter closed(static_cast<int>(ids.size()));
  for (const uint64_t id : ids) {
    CloseSession(id, [&closed](Call::Verdict) { closed.DecrementCount(); });
  }
  closed.Wait();
}

// ---------------------------------------------------------------- a write's way

Stamp WriteSessions::StampOf(const Session& session, uint64_t sequence, uint64_t digest) {
  absl::MutexLock lock(&mutex_);
  // The write itself is in `open` until it is settled, so this is never above its own sequence.
  const uint64_t lowest =
      session.open.empty() ? sequence : std::min(sequence, session.open.lowest());
  return {session.id, sequence, lowest, digest};
}

void WriteSessions::Launch(const std::shared_ptr<Job>& job) {
  CallSpec spec;
  spec.what = job->request.what;
  spec.method = job->request.method;
  spec.write = true;
  spec.rungs = {{}};
  spec.deadline = TimeTo(job->deadline);
  // Nothing but the job is held, which a function has room for without an allocation. It stays as
  // it is while this call is under way.
  spec.encode = [job](const Rung&) { return job->request.body; };
  spec.decode = [job](RpcReply& reply, AnswerHeader* header) {
    return job->request.decode(reply, header);
  };
  if (job->session != nullptr) {
    job->fate = WriteFate();
    spec.fate = std::shared_ptr<WriteFate>(job, &job->fate);
    spec.stamp = [job] { return job->owner->StampOf(*job->session, job->sequence, job->digest); };
  }
  dispatcher_->Start(std::move(spec),
                     [job](Call::Verdict verdict) { job->owner->OnDone(job, std::move(verdict)); });
}

void WriteSessions::OnDone(const std::shared_ptr<Job>& job, Call::Verdict verdict) {
  if (job->session == nullptr) return std::move(job->done)(std::move(verdict));
  const WriteFate fate = job->fate;
  Work work;
  bool again = false;
  {
    absl::MutexLock lock(&mutex_);
    const std::shared_ptr<Session> session = job->session;
    const bool lost = fate.refusal == SessionWord::kExpired ||
                      fate.refusal == SessionWord::kForked ||
                      fate.refusal == SessionWord::kAcknowledged;
    if (lost) Abandon(session);
    if (!verdict.ok() && MaybeCommitted(verdict.status()) && !session->dead) {
      absl::Status status = verdict.status();
      SetWriteTicket(status, Keep(*job, &work));
      verdict = std::move(status);
    } else {
      Settle(session, job->sequence, &work);
    }
    // It was sent once, and that one did nothing: another session cannot make it happen twice.
    again = fate.refusal == SessionWord::kExpired && !fate.in_doubt && !closing_ &&
            job->stamps < kStampsMax && TimeTo(job->deadline) > absl::ZeroDuration();
    if (again) {
      job->session = nullptr;
      waiting_.push_front(job);
    }
    Pump(&work);
    if (again && job->session == nullptr) ArmTimer(job->deadline);
  }
  Do(std::move(work));
  if (!again) std::move(job->done)(std::move(verdict));
}

void WriteSessions::ArmTimer(Steady::time_point deadline) {
  if (closing_ || (timer_ != nullptr && timer_at_ <= deadline)) return;
  timer_at_ = deadline;
  // One that is cancelled runs soon, and is set anew.
  if (timer_ != nullptr) return timer_->Cancel();
  timer_ = dispatcher_->loop().After(TimeTo(deadline), [this] { OnTimer(); });
}

void WriteSessions::OnTimer() {
  Jobs late;
  bool opening = false;
  {
    absl::MutexLock lock(&mutex_);
    timer_ = nullptr;
    if (closing_) return;
    opening = opening_for_ != nullptr;
    const Steady::time_point now = Steady::now();
    std::optional<Steady::time_point> next;
    std::erase_if(waiting_, [&](const std::shared_ptr<Job>& job) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      // The opening of a session in this one's time ends just then, and its answer tells more.
      if (job == opening_for_) return false;
      if (job->deadline <= now) {
        late.push_back(job);
        return true;
      }
      next = std::min(next.value_or(job->deadline), job->deadline);
      return false;
    });
    if (next.has_value()) ArmTimer(*next);
  }
  const std::string why =
      opening ? "no session could be opened"
              : "earlier writes of this client were not answered, and no more may be under way";
  for (const auto& job : late) {
    std::move(job->done)(absl::DeadlineExceededError(base::ToAbsl(fmt::format(
        "{}: the deadline of {} passed before anything was sent: {}. It had no effect. Give it "
        "more time, or write less at once.",
        job->request.what.ToText(), absl::FormatDuration(job->request.deadline), why))));
  }
}

void WriteSessions::FailWaiting(const Jobs& jobs, const absl::Status& status) {
  for (const auto& job : jobs) {
    if (dispatcher_->loop().OnLoopThread()) {
      std::move(job->done)(status);
      continue;
    }
    // Callbacks run on the client's thread only.
    CallSpec spec;
    spec.rungs = {{}};
    spec.invalid = status;
    dispatcher_->Start(std::move(spec), std::move(job->done));
  }
}

// ---------------------------------------------------------------- what is settled, and what is not

void WriteSessions::Settle(const std::shared_ptr<Session>& session, uint64_t sequence, Work* work) {
  session->open.Settle(sequence);
  if (session->open.empty() && !session->in_use && !session->dead && !closing_) {
    session->dead = true;
    work->close.push_back(session->id);
  }
}

void WriteSessions::Abandon(const std::shared_ptr<Session>& session) {
  session->dead = true;
  Retire(session);
}

uint64_t WriteSessions::Keep(const Job& job, Work* work) {
  job.session->open.Set(job.sequence, false);
  unresolved_bytes_ += job.request.body.size();
  const uint64_t ticket = ++last_ticket_;
  unresolved_.emplace(ticket, Unresolved{.what = job.request.what,
                                         .method = job.request.method,
                                         .body = job.request.body,
                                         .digest = job.digest,
                                         .session = job.session,
                                         .sequence = job.sequence});
  for (auto it = unresolved_.begin();
       it != unresolved_.end() &&
       (unresolved_.size() > kUnresolvedMax || unresolved_bytes_ > kUnresolvedBytesMax);) {
    if (it->second.asked) {
      ++it;
      continue;
    }
    unresolved_bytes_ -= it->second.body.size();
    Settle(it->second.session, it->second.sequence, work);
    it = unresolved_.erase(it);
  }
  return ticket;
}

bool WriteSessions::Resolve(uint64_t ticket, absl::Duration deadline, DecodeAny decode,
                            Call::Done& done) {
  CallSpec spec;
  const auto fate = std::make_shared<WriteFate>();
  fate->in_doubt = true;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = unresolved_.find(ticket);
    if (it == unresolved_.end() || it->second.asked) return false;
    Unresolved& write = it->second;
    write.asked = true;
    write.session->open.Set(write.sequence, true);
    spec.what = write.what;
    spec.method = write.method;
    spec.encode = [body = write.body](const Rung&) { return body; };
    spec.decode = [decode = std::move(decode), method = write.method](RpcReply& reply,
                                                                      AnswerHeader* header) {
      return decode(method, reply, header);
    };
    spec.stamp = [this, session = write.session, sequence = write.sequence, digest = write.digest] {
      return StampOf(*session, sequence, digest);
    };
  }
  spec.write = true;
  spec.fate = fate;
  spec.rungs = {{}};
  spec.deadline = deadline;
  dispatcher_->Start(std::move(spec),
                     [this, ticket, fate, done = std::move(done)](Call::Verdict verdict) mutable {
                       OnResolved(ticket, *fate, &verdict);
                       std::move(done)(std::move(verdict));
                     });
  return true;
}

void WriteSessions::OnResolved(uint64_t ticket, const WriteFate& fate, Call::Verdict* verdict) {
  Work work;
  {
    absl::MutexLock lock(&mutex_);
    const auto it = unresolved_.find(ticket);
    CHECK(it != unresolved_.end());
    Unresolved& write = it->second;
    write.asked = false;
    if (fate.refusal != SessionWord::kNone && fate.refusal != SessionWord::kAnswerTooLarge) {
      Abandon(write.session);
    }
    if (!verdict->ok() && MaybeCommitted(verdict->status()) && !write.session->dead) {
      write.session->open.Set(write.sequence, false);
      absl::Status status = verdict->status();
      SetWriteTicket(status, ticket);
      *verdict = std::move(status);
    } else {
      unresolved_bytes_ -= write.body.size();
      Settle(write.session, write.sequence, &work);
      unresolved_.erase(it);
    }
    Pump(&work);
  }
  Do(std::move(work));
}

}  // namespace holdfast::internal
