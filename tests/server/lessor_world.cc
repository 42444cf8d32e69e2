#include "lessor_world.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace holdfast::server::testing {
namespace {

const int64_t kTickUs = absl::ToInt64Microseconds(LessorCore::kTick);
const int64_t kTimeoutUs = absl::ToInt64Microseconds(LessorWorld::kElectionTimeout);

}  // namespace

LessorWorld::LessorWorld(const Options& options) : options_(options), rng_(options.seed) {
  for (Member& member : members_) member.rate = 0.999 + 0.002 * (Below(1000) / 1000.0);
}

base::ClockSample LessorWorld::ClockOf(int member) const {
  const auto ns = static_cast<int64_t>(1e12 + 1000.0 * now_us_ * members_[member].rate);
  return {ns, ns, ns};
}

void LessorWorld::Violation(std::string what) {
  violations_.push_back(fmt::format("at {} us, term {}: {}", now_us_, term_.value, what));
}

void LessorWorld::On(int member, int64_t after_us, std::function<void()> what) {
  After(after_us, [this, member, what = std::move(what)]() mutable {
    const int64_t stalled = members_[member].stalled_until_us;
    if (stalled <= now_us_) return what();
    // What waited runs in its order when the member goes on.
    At(stalled,
       [this, member, what = std::move(what)]() mutable { On(member, 0, std::move(what)); });
  });
}

// The new leader's log is the committed one; it loads when it gets to it. Whoever led before goes
// on believing that it leads, for a while.
void LessorWorld::Elect(int member) {
  const int former = leader_;
  if (member != former && members_[former].believes) {
    On(former, SomeDelay(), [this, former, term = term_] {
      if (members_[former].believes != term) return;
      members_[former].believes = Term();
      members_[former].core->EndTerm();
      Step(former);
    });
  }
  ++counts_.elections;
  leader_ = member;
  ++term_;
  On(member, Below(5000), [this, member, term = term_] {
    if (term != term_) return;
    Member& m = members_[member];
    m.believes = term;
    m.loading = true;
    m.claim.reset();
    m.inbox.clear();
    m.core->BeginTerm(term);
    On(member, SomeDelay(), [this, member, term] {
      Member& loader = members_[member];
      // Its round of the term: not if another was elected meanwhile.
      if (loader.believes != term || term != term_) return;
      for (const auto& [id, lease] : leases_) loader.core->Load(id, lease.record);
      loader.core->EndLoad(last_, ClockOf(member));
      loader.loading = false;
    });
  });
}

void LessorWorld::Tick(int member) {
  Step(member);
  On(member, kTickUs, [this, member] { Tick(member); });
}

// A leader's heartbeat round: the claim is of its begin, and comes when a quorum has answered in
// its term.
void LessorWorld::Beat(int member) {
  const Term term = members_[member].believes;
  if (term) {
    After(SomeDelay(), [this, member, term, sent = ClockOf(member)] {
      if (term != term_) return;
      On(member, 0, [this, member, term, sent] {
        Member& m = members_[member];
        const bool younger = !m.claim || m.claim->boot_ns < sent.boot_ns;
        if (m.believes == term && younger) m.claim = sent;
      });
    });
  }
  On(member, kTickUs, [this, member] { Beat(member); });
}

// As the lessor's thread: changes, then time, proposals, rounds, answers.
void LessorWorld::Step(int member) {
  Member& m = members_[member];
  const base::ClockSample now = ClockOf(member);
  for (const LeaseChange& change : std::exchange(m.inbox, {})) m.core->OnChange(change, now);
  const bool alive = m.claim && base::Elapsed(*m.claim, now) < kElectionTimeout;
  const LessorCore::Proposals proposals = m.core->Turn(now, alive);
  for (const auto& ids : proposals.expiries) {
    Entry entry;
    entry.proposed_term = m.core->term();
    entry.as_of = m.core->as_of();
    entry.kind = Entry::Kind::kExpiry;
    entry.ids = ids;
    entry.done = [this, member, term = m.core->term(), ids](bool applied) {
      On(member, Below(5000), [this, member, term, ids, applied] {
        Step(member);  // what was applied before comes before
        members_[member].core->OnExpiryDone(term, ids, applied, ClockOf(member));
      });
    };
    Propose(std::move(entry));
  }
  if (!proposals.checkpoint.empty()) {
    Entry entry;
    entry.proposed_term = m.core->term();
    entry.as_of = m.core->as_of();
    entry.kind = Entry::Kind::kCheckpoint;
    entry.remaining = proposals.checkpoint;
    entry.done = [this, member, term = m.core->term(),
                  leases = proposals.checkpoint](bool applied) {
      On(member, Below(5000), [this, member, term, leases, applied] {
        Step(member);
        members_[member].core->OnCheckpointDone(term, leases, applied, ClockOf(member));
      });
    };
    Propose(std::move(entry));
  }
  if (const auto round = m.core->StartRound(now)) Round(member, *round);
  for (const LessorCore::Answer& answer : m.core->TakeAnswers()) Answered(member, answer);
}

// Confirmed if a quorum answered before it voted for another leader.
void LessorWorld::Round(int member, uint64_t round) {
  const Term term = members_[member].believes;
  After(SomeDelay(), [this, member, round, term] {
    const bool quorum = term == term_;
    On(member, SomeDelay(), [this, member, round, term, quorum] {
      Step(member);
      members_[member].core->OnRound(round, quorum && members_[member].believes == term,
                                     ClockOf(member));
      Step(member);
    });
  });
}

// From the leader of the entry's term into its log and out of it; or, if it is none any more, lost,
// or brought to the log by the later leader, or kept in the log that the later leader has.
void LessorWorld::Propose(Entry entry) {
  const Term term = term_;
  if (entry.proposed_term && entry.proposed_term != term) {
    // Forwarded by a member that has begun to follow.
    if (rng_.OneIn(2)) After(SomeDelay(), [this, entry] { Commit(entry); });
    return;
  }
  if (faults_ && rng_.OneIn(20)) {
    if (entry.done) After(SomeDelay(), [done = entry.done] { done(false); });
    // Lost only in the eyes of the proposer, half of the time.
    if (rng_.OneIn(2)) return;
    entry.done = nullptr;
  }
  After(SomeDelay(), [this, term, entry]() mutable {
    if (term != term_ && entry.proposed_term) {
      if (rng_.OneIn(2)) return;
    }
    Commit(std::move(entry));
  });
}

void LessorWorld::Commit(Entry entry) {
  entry.term = term_;
  ++last_;
  Apply(entry);
  if (entry.done) entry.done(true);
}

void LessorWorld::End(int64_t id, bool expired) {
  const auto it = leases_.find(id);
  if (expired && now_us_ < it->second.safe_until_us) {
    Violation(
        fmt::format("lease {} ended {} us too early", id, it->second.safe_until_us - now_us_));
  }
  leases_.erase(it);
  gone_at_us_[id] = now_us_;
  ++counts_.ended;
}

void LessorWorld::Apply(const Entry& entry) {
  std::vector<LeaseChange> changes;
  const bool counts = !entry.proposed_term || entry.proposed_term == entry.term;
  if (!counts) ++counts_.void_entries;
  switch (entry.kind) {
    case Entry::Kind::kGrant:
      if (leases_.contains(entry.id)) return;
      leases_[entry.id] = {.record = {.ttl_s = entry.ttl_s, .granted = last_.value},
                           .safe_until_us = now_us_ + entry.ttl_s * 1'000'000};
      changes.push_back({last_, entry.id, LeaseChange::Kind::kGranted, entry.ttl_s});
      break;
    case Entry::Kind::kRevoke:
      if (!leases_.contains(entry.id)) return;
      End(entry.id, /*expired=*/false);
      changes.push_back({last_, entry.id, LeaseChange::Kind::kGone});
      break;
    case Entry::Kind::kExpiry:
      for (const int64_t id : entry.ids) {
        const auto it = leases_.find(id);
        if (!counts || it == leases_.end() || it->second.record.granted > entry.as_of.value)
          continue;
        End(id, /*expired=*/true);
        changes.push_back({last_, id, LeaseChange::Kind::kGone});
      }
      break;
    case Entry::Kind::kCheckpoint:
      for (const auto& one : entry.remaining) {
        const auto it = leases_.find(one.id);
        if (!counts || it == leases_.end() || it->second.record.granted > entry.as_of.value)
          continue;
        ++(one.ms < 0 ? counts_.resets : counts_.checkpoints);
        it->second.record.remaining_ms = one.ms;
        LeaseChange change{last_, one.id, LeaseChange::Kind::kCheckpoint};
        change.remaining_ms = one.ms;
        changes.push_back(change);
      }
      break;
  }
  for (Member& member : members_) {
    if (member.believes && !member.loading) {
      member.inbox.insert(member.inbox.end(), changes.begin(), changes.end());
    }
  }
}

// Renews now and then, at whoever thinks that it leads; sometimes revokes it and takes the id
// again at once; grants it anew when it is gone.
void LessorWorld::Client(int64_t id) {
  if (!faults_) return;
  const int64_t pause_us = options_.long_ttls ? Below(1'200'000'000) : Below(4'000'000);
  After(pause_us, [this, id] { Client(id); });
  const int64_t ttl_s = options_.long_ttls ? 400 + Below(1500) : 2 + Below(5);
  if (!leases_.contains(id) || rng_.OneIn(40)) {
    Entry grant;
    grant.id = id;
    grant.ttl_s = ttl_s;
    if (leases_.contains(id)) {
      ++counts_.reused;
      Entry revoke;
      revoke.kind = Entry::Kind::kRevoke;
      revoke.id = id;
      Commit(std::move(revoke));
    }
    return Commit(std::move(grant));
  }
  for (int member = 0; member < 3; ++member) {
    Member& m = members_[member];
    if (!m.believes && !rng_.OneIn(10)) continue;
    On(member, Below(3000), [this, member, id, asked_us = now_us_] {
      Member& asked = members_[member];
      asked.asked[++tag_] = {id, asked_us};
      asked.core->Submit({.tag = tag_, .renew = true, .ids = {id}});
      Step(member);
    });
  }
}

void LessorWorld::Answered(int member, const LessorCore::Answer& answer) {
  const auto node = members_[member].asked.extract(answer.ask.tag);
  const auto [id, asked_us] = node.mapped();
  if (!answer.led) {
    ++counts_.refused;
    return;
  }
  const LeaseTime& time = answer.times.front();
  if (time.ask_again) {
    On(member, 20'000, [this, member, id = id, asked_us = asked_us] {
      if (!members_[member].believes) return;
      members_[member].asked[++tag_] = {id, asked_us};
      members_[member].core->Submit({.tag = tag_, .renew = true, .ids = {id}});
      Step(member);
    });
    return;
  }
  const auto lease = leases_.find(id);
  if (!time.found()) {
    // Known to everybody who asked after it was granted: unless it is there and was so before.
    return;
  }
  ++counts_.renewals;
  if (lease == leases_.end()) {
    if (gone_at_us_.at(id) < asked_us) {
      Violation(fmt::format("lease {} was renewed, and had gone before", id));
    }
    return;
  }
  if (lease->second.record.ttl_s != time.granted_s) return;  // an earlier one of that id
  // From the moment that it counted on, and not from when the client asked.
  if (!gone_at_us_.contains(id) || gone_at_us_.at(id) < asked_us) {
    lease->second.safe_until_us =
        std::max(lease->second.safe_until_us, now_us_ + time.granted_s * 1'000'000);
  }
}

void LessorWorld::Fault() {
  if (!faults_) return;
  const double pause_us = (options_.long_ttls ? 200e6 : 6e6) / options_.faults;
  After(Below(static_cast<int64_t>(pause_us)), [this] { Fault(); });
  if (rng_.OneIn(2)) {
    Elect(static_cast<int>(rng_.Below(3)));
  } else {
    ++counts_.stalls;
    Member& member = members_[rng_.Below(3)];
    member.stalled_until_us = now_us_ + (rng_.OneIn(3) ? Below(10'000'000) : Below(500'000));
  }
}

std::vector<std::string> LessorWorld::Run() {
  Elect(0);
  for (int member = 0; member < 3; ++member) {
    Tick(member);
    Beat(member);
  }
  for (int64_t id = 1; id <= options_.leases; ++id) Client(id);
  Fault();
  const int64_t life_us = absl::ToInt64Microseconds(options_.life);
  // Then a healthy cluster and no client: everything must go.
  const int64_t ttl_max_us = (options_.long_ttls ? 1900 : 7) * int64_t{1'000'000};
  const int64_t bound_us =
      life_us + 15'000'000 + ttl_max_us * 101 / 100 + kTimeoutUs + 10 * kTickUs;
  At(life_us, [this] {
    faults_ = false;
    for (Member& member : members_) member.stalled_until_us = 0;
    Elect(static_cast<int>(rng_.Below(3)));
  });
  while (!events_.empty() && events_.begin()->first < bound_us && violations_.empty()) {
    auto event = events_.extract(events_.begin());
    now_us_ = event.key();
    event.mapped()();
  }
  if (violations_.empty() && !leases_.empty()) {
    Violation(fmt::format("{} leases that nobody renews are still there", leases_.size()));
  }
  return violations_;
}

}  // namespace holdfast::server::testing
