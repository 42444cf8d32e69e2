// The cluster's logged time, by which sessions expire: a leader that has a quorum says through the
// log how much of it has passed (command.v1.SessionTime). Without a leader or a quorum it stands
// still, so an outage expires nobody; and it never runs ahead of true time.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/time/time.h"
#include "base/clock.h"
#include "base/ids.h"
#include "server/member_view.h"
#include "server/ticker.h"

namespace holdfast::server {

// When to propose, and how much time. Pure: time and leadership come in. Threads: one at a time.
class SessionClockCore {
 public:
  static constexpr absl::Duration kInterval = absl::Seconds(10);

  // What the member is as of `now`. `alive`: a quorum has lately answered it.
  struct Leading {
    bool leads = false;
    Term term = {};
    bool alive = false;
    bool sessions = false;  // there are some
  };
  // The milliseconds to propose; nullopt: nothing now. Whoever proposes calls OnDone.
  std::optional<uint64_t> Turn(const base::ClockSample& now, const Leading& leading);
  // `applied`: the entry certainly is. Otherwise it may still be, and what it carries would be
  // counted twice, so the measuring begins anew.
  void OnDone(Term term, bool applied, const base::ClockSample& now);

 private:
  Term term_;
  bool in_flight_ = false;
  // When this leader learned that its last entry of this term is applied. From here to the next
  // proposal is what that one carries.
  std::optional<base::ClockSample> since_;
};

// Threads: one of its own, and the pipeline's responders.
class SessionClock {
 public:
  struct Options {
    absl::Duration election_timeout = absl::Seconds(1);
    absl::Duration look_every = absl::Seconds(1);
  };
  SessionClock(const MemberView& member, const Options& options);
  ~SessionClock() { Stop(); }
  // Ends the thread. Idempotent. The member's pipeline may still call back afterwards.
  void Stop() { ticker_.Stop(); }

 private:
  struct State {
    std::mutex mutex;
    SessionClockCore core;
  };
  void Look();
  bool HasSessions() const;

  const MemberView member_;
  const Options options_;
  // Shared with the callbacks of proposals.
  const std::shared_ptr<State> state_ = std::make_shared<State>();
  Ticker ticker_;  // last: it uses everything above
};

}  // namespace holdfast::server
