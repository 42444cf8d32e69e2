#include "server/session_clock.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/strings.h"
#include "server/session_table.h"

namespace holdfast::server {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

// What has passed at least: the slowest of the kernel's clocks, less what a clock may gain.
int64_t CertainMs(const base::ClockSample& from, const base::ClockSample& to) {
  const int64_t least =
      std::min({to.boot_ns - from.boot_ns, to.mono_ns - from.mono_ns, to.raw_ns - from.raw_ns});
  return static_cast<int64_t>(static_cast<double>(std::max<int64_t>(least, 0)) *
                              (1 - base::kDefaultMaxClockSlow)) /
         kNsPerMs;
}

}  // namespace

std::optional<uint64_t> SessionClockCore::Turn(const base::ClockSample& now,
                                               const Leading& leading) {
  if (!leading.leads || leading.term != term_) {
    term_ = leading.leads ? leading.term : Term();
    in_flight_ = false;
    since_.reset();
  }
  if (!leading.leads || in_flight_ || !leading.alive) return std::nullopt;
  if (!leading.sessions) {
    since_.reset();
    return std::nullopt;
  }
  int64_t ms = 0;
  if (since_.has_value()) {
    ms = CertainMs(*since_, now);
    if (ms < absl::ToInt64Milliseconds(kInterval)) return std::nullopt;
  }
  in_flight_ = true;
  return std::min(static_cast<uint64_t>(ms), kSessionAdvanceMsMax);
}

void SessionClockCore::OnDone(Term term, bool applied, const base::ClockSample& now) {
  if (term != term_ || !in_flight_) return;
  in_flight_ = false;
  if (applied) {
    since_ = now;
  } else {
    since_.reset();
  }
}

SessionClock::SessionClock(const MemberView& member, const Options& options)
    : member_(member), options_(options), ticker_(options.look_every, [this] { Look(); }) {}

void SessionClock::Look() {
  const raft::NodeStatus status = member_.node->status();
  const bool leads = status.role == raft::Role::kLeader;
  // The lookup is cheap, and still nothing that followers need to do.
  const bool sessions = leads && HasSessions();
  const std::optional<raft::Claim> claim = member_.node->claim();
  const base::ClockSample now = member_.clock->Sample();
  const bool alive = claim.has_value() && claim->AgeAt(now) < options_.election_timeout;
  std::optional<uint64_t> advance_ms;
  {
    const std::lock_guard lock(state_->mutex);
    advance_ms = state_->core.Turn(
        now, {.leads = leads, .term = status.term, .alive = alive, .sessions = sessions});
  }
  if (!advance_ms.has_value()) return;
  command::v1::Command command;
  command.mutable_session_time()->set_term(status.term.value);
  command.mutable_session_time()->set_advance_ms(*advance_ms);
  member_.pipeline->Propose(std::move(command), [state = state_, clock = member_.clock,
                                                 term = status.term](ApplyResult result) {
    const std::lock_guard lock(state->mutex);
    state->core.OnDone(term, result.status.ok(), clock->Sample());
  });
}

bool SessionClock::HasSessions() const {
  const auto bytes = member_.machine->store()->NewView()->GetMeta(kMetaSessionClock);
  SessionClockRecord record;
  if (!bytes.ok()) {
    // The next commit or read that matters meets the same disk, and stops the member.
    LOG_WARN("cannot read the sessions' clock: {}", base::Message(bytes.status()));
    return false;
  }
  return bytes->has_value() && Decode(**bytes, &record) && record.sessions > 0;
}

}  // namespace holdfast::server
