#include "server/lessor_core.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/check.h"

namespace holdfast::server {
namespace {

constexpr int64_t kMsPerSecond = 1000;

}  // namespace

LessorCore::LessorCore(absl::Duration election_timeout)
    : election_timeout_(election_timeout), table_(std::make_unique<LeaseTable>()) {}

// ---------------------------------------------------------------- terms

void LessorCore::BeginTerm(Term term) {
  EndTerm();
  term_ = term;
}

void LessorCore::Load(int64_t id, const LeaseRecord& record) {
  CHECK(!leads_);
  const int64_t full_ms = record.ttl_s * kMsPerSecond;
  const int64_t kept_ms = record.remaining_ms < 0 ? full_ms : record.remaining_ms;
  // The clock stands until EndLoad. The extension covers renewals that the last leader was about to
  // let count when this one was elected.
  Grant(id, record.ttl_s, kept_ms,
        clock_.now_ms() + kept_ms + absl::ToInt64Milliseconds(election_timeout_));
}

void LessorCore::EndLoad(Index view, const base::ClockSample& now) {
  CHECK(!leads_);
  leads_ = true;
  view_ = as_of_ = view;
  clock_.Advance(now, /*alive=*/false);
}

void LessorCore::EndTerm() {
  leads_ = false;
  term_ = Term();
  table_ = std::make_unique<LeaseTable>();
  clock_ = LeaseClock();
  view_ = as_of_ = Index();
  expiries_in_flight_ = 0;
  checkpoint_in_flight_ = false;
  again_.clear();
  resets_.clear();
  to_checkpoint_.clear();
  next_checkpoint_ms_ = 0;
  round_out_ = false;
  failed_at_.reset();
  expiring_ = 0;
  AnswerAll(std::exchange(in_round_, {}), /*led=*/false, {});
  AnswerAll(std::exchange(queued_, {}), /*led=*/false, {});
}

void LessorCore::Grant(int64_t id, int64_t ttl_s, int64_t kept_ms, int64_t deadline_ms) {
  LeaseEntry* lease = table_->Find(id);
  // A lease that is granted was not there: the log says so.
  CHECK(lease == nullptr);
  if (table_->size() == LeaseTable::kLeasesMax) return;
  lease = table_->Add(id);
  lease->ttl_s = ttl_s;
  lease->kept_ms = kept_ms;
  lease->deadline_ms = deadline_ms;
  table_->Wake(lease, NextWake(*lease));
}

int64_t LessorCore::NextWake(const LeaseEntry& lease) {
  if (lease.kept_ms <= kCheckpointAfterMs) return lease.deadline_ms;
  return lease.deadline_ms - lease.kept_ms + kCheckpointAfterMs;
}

void LessorCore::OnChange(const LeaseChange& change, const base::ClockSample& now) {
  if (!leads_ || change.index <= view_) return;
  as_of_ = change.index;
  LeaseEntry* lease = table_->Find(change.id);
  switch (change.kind) {
    case LeaseChange::Kind::kGranted: {
      const int64_t ms = change.ttl_s * kMsPerSecond;
      Grant(change.id, change.ttl_s, ms, clock_.UpperMs(now) + ms);
      return;
    }
    case LeaseChange::Kind::kGone:
      if (lease == nullptr) return;
      if (lease->expiring) {
        --expiring_;
        ++expired_;
      }
      table_->Remove(lease);
      return;
    case LeaseChange::Kind::kCheckpoint:
      if (lease == nullptr) return;
      lease->kept_ms = change.remaining_ms < 0 ? lease->ttl_s * kMsPerSecond : change.remaining_ms;
      if (lease->resetting && change.remaining_ms < 0) {
        // Somebody is about to ask again. Without this the lease would be due for a checkpoint
        // before he does.
        lease->resetting = false;
        lease->deadline_ms = std::max(lease->deadline_ms, clock_.UpperMs(now) + lease->kept_ms);
      }
      if (!lease->expiring) table_->Wake(lease, NextWake(*lease));
      return;
  }
}

// ---------------------------------------------------------------- time

LessorCore::Proposals LessorCore::Turn(const base::ClockSample& now, bool alive) {
  Proposals proposals;
  if (!leads_) return proposals;
  clock_.Advance(now, alive);
  if (RetryIsDue(now)) ProposeAgain(&proposals);
  const int64_t now_ms = clock_.now_ms();
  for (size_t wakes = 0;; ++wakes) {
    // Beyond the limit the leases stay where they are, and may still be renewed.
    if (!RoomForExpired(proposals)) break;
    if (wakes == kWakesPerTurnMax) {
      proposals.more = true;
      break;
    }
    LeaseEntry* lease = table_->NextAwake(now_ms);
    if (lease == nullptr) break;
    if (lease->deadline_ms <= now_ms) {
      NameExpired(lease, &proposals);
      continue;
    }
    if (NextWake(*lease) > now_ms) {
      table_->Wake(lease, NextWake(*lease));  // it was renewed
      continue;
    }
    if (!lease->checkpoint_queued) {
      lease->checkpoint_queued = true;
      to_checkpoint_.push_back(lease->id);
    }
    table_->Wake(lease, lease->deadline_ms);
  }
  if (!checkpoint_in_flight_ && RetryIsDue(now)) ProposeCheckpoint(&proposals);
  return proposals;
}

bool LessorCore::RetryIsDue(const base::ClockSample& now) const {
  return !failed_at_.has_value() || base::Elapsed(*failed_at_, now) >= kTick;
}

bool LessorCore::RoomForExpired(const Proposals& proposals) const {
  return expiries_in_flight_ < kExpiriesInFlightMax ||
         (!proposals.expiries.empty() && proposals.expiries.back().size() < kIdsPerEntryMax);
}

void LessorCore::NameExpired(LeaseEntry* lease, Proposals* proposals) {
  if (proposals->expiries.empty() || proposals->expiries.back().size() == kIdsPerEntryMax) {
    proposals->expiries.emplace_back();
    ++expiries_in_flight_;
  }
  proposals->expiries.back().push_back(lease->id);
  if (!lease->expiring) ++expiring_;
  lease->expiring = true;
}

void LessorCore::ProposeAgain(Proposals* proposals) {
  while (!again_.empty() && RoomForExpired(*proposals)) {
    LeaseEntry* lease = table_->Find(again_.back());
    again_.pop_back();
    if (lease != nullptr && lease->expiring) NameExpired(lease, proposals);
  }
}

void LessorCore::ProposeCheckpoint(Proposals* proposals) {
  const int64_t now_ms = clock_.now_ms();
  while (!resets_.empty() && proposals->checkpoint.size() < kIdsPerEntryMax) {
    const LeaseEntry* lease = table_->Find(resets_.back());
    resets_.pop_back();
    if (lease != nullptr && lease->resetting) proposals->checkpoint.push_back({lease->id, -1});
  }
  if (now_ms >= next_checkpoint_ms_) {
    while (!to_checkpoint_.empty() && proposals->checkpoint.size() < kIdsPerEntryMax) {
      LeaseEntry* lease = table_->Find(to_checkpoint_.front());
      to_checkpoint_.pop_front();
      if (lease == nullptr) continue;
      lease->checkpoint_queued = false;
      // Renewed meanwhile, or about to be, or about to go.
      if (lease->expiring || lease->resetting || NextWake(*lease) > now_ms) continue;
      // From now on the log may say so: a renewal must take it back.
      lease->kept_ms = std::max<int64_t>(lease->deadline_ms - now_ms, 0);
      proposals->checkpoint.push_back({lease->id, lease->kept_ms});
      table_->Wake(lease, NextWake(*lease));
      next_checkpoint_ms_ = now_ms + kCheckpointPaceMs;
    }
  }
  checkpoint_in_flight_ = !proposals->checkpoint.empty();
}

void LessorCore::OnExpiryDone(Term term, const std::vector<int64_t>& ids, bool applied,
                              const base::ClockSample& now) {
  if (!leads_ || term != term_) return;
  if (expiries_in_flight_ > 0) --expiries_in_flight_;
  if (!applied) failed_at_ = now;
  // ProposeAgain passes over those that went.
  if (!applied) again_.insert(again_.end(), ids.begin(), ids.end());
}

void LessorCore::OnCheckpointDone(Term term, const std::vector<Proposals::Remaining>& leases,
                                  bool applied, const base::ClockSample& now) {
  if (!leads_ || term != term_) return;
  checkpoint_in_flight_ = false;
  if (applied) return;
  failed_at_ = now;
  // The others need nothing: the log knows more time for them than they have.
  for (const Proposals::Remaining& one : leases) {
    if (one.ms < 0) resets_.push_back(one.id);
  }
}

// ---------------------------------------------------------------- renewals and questions

void LessorCore::Submit(Ask ask) {
  if (!term_) {
    AnswerAll({std::move(ask)}, /*led=*/false, {});
    return;
  }
  queued_.push_back(std::move(ask));
}

std::optional<uint64_t> LessorCore::StartRound(const base::ClockSample& now) {
  if (!leads_ || round_out_ || queued_.empty()) return std::nullopt;
  in_round_ = std::exchange(queued_, {});
  round_out_ = true;
  round_start_ = now;
  return ++round_;
}

void LessorCore::OnRound(uint64_t round, bool confirmed, const base::ClockSample& now) {
  if (!round_out_ || round != round_) return;
  round_out_ = false;
  std::vector<Ask> asks = std::exchange(in_round_, {});
  if (confirmed && base::Elapsed(round_start_, now) > election_timeout_) {
    // It proves too little by now: the next leader may have begun its time longer ago than it adds
    // to each lease.
    queued_.insert(queued_.begin(), std::make_move_iterator(asks.begin()),
                   std::make_move_iterator(asks.end()));
    return;
  }
  AnswerAll(std::move(asks), confirmed, now);
}

void LessorCore::AnswerAll(std::vector<Ask> asks, bool led, const base::ClockSample& now) {
  for (Ask& ask : asks) {
    Answer answer;
    answer.led = led;
    if (led) {
      answer.times.reserve(ask.ids.size());
      for (const int64_t id : ask.ids) {
        answer.times.push_back(ask.renew ? Renew(id, now) : TimeOf(id));
      }
    }
    answer.ask = std::move(ask);
    answers_.push_back(std::move(answer));
  }
}

LeaseTime LessorCore::Renew(int64_t id, const base::ClockSample& now) {
  LeaseEntry* lease = table_->Find(id);
  if (lease == nullptr) return {};
  const int64_t full_ms = lease->ttl_s * kMsPerSecond;
  LeaseTime time = {.granted_s = lease->ttl_s, .left_ms = full_ms};
  if (lease->expiring) {
    time.ask_again = true;
  } else if (lease->kept_ms != full_ms || lease->resetting) {
    if (!lease->resetting) resets_.push_back(id);
    lease->resetting = true;
    time.ask_again = true;
  } else {
    lease->deadline_ms = std::max(lease->deadline_ms, clock_.UpperMs(now) + full_ms);
    ++renewed_;
  }
  return time;
}

LeaseTime LessorCore::TimeOf(int64_t id) {
  const LeaseEntry* lease = table_->Find(id);
  if (lease == nullptr) return {};
  // What a new leader adds is not promised to anybody.
  const int64_t left_ms =
      std::clamp<int64_t>(lease->deadline_ms - clock_.now_ms(), 0, lease->ttl_s * kMsPerSecond);
  return {.granted_s = lease->ttl_s, .left_ms = left_ms};
}

}  // namespace holdfast::server
