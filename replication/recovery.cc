#include "replication/recovery.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/check.h"
#include "base/strings.h"
#include "replication/core_log.h"
#include "storage/damage.h"

namespace holdfast::raft {
namespace {

using storage::Damage;

constexpr std::string_view kNoPromises =
    "a member must not vote or acknowledge on the strength of this: it is to be replaced by a new "
    "one that copies the others' data (docs/recovery.md)";

StartPlan Refuse(StartRow row, Damage::Part part, Index first, Index last, std::string what) {
  Damage damage;
  damage.part = part;
  damage.first_index = first;
  damage.last_index = last;
  damage.what = fmt::format("{} [{}]", what, StartRowName(row));
  StartPlan plan;
  plan.row = row;
  plan.status = storage::DamageError(damage, kNoPromises);
  return plan;
}

Term LastTerm(const RaftCore::Recovered& r) {
  return r.term_runs.empty() ? r.mark.term : std::max(r.mark.term, r.term_runs.back().term);
}

// The rows without a membership in the log.
StartPlan PlanWithoutMembership(const Membership& bootstrap, RaftCore::Recovered r,
                                bool any_installed) {
  if (r.last.value != 0) {
    return Refuse(StartRow::kNoMembership, Damage::Part::kLog, {}, {},
                  "the log has entries but no membership");
  }
  if (r.applied.value != 0 || any_installed) {
    return Refuse(StartRow::kLogLost, Damage::Part::kLog, Index(1), {},
                  fmt::format("the log is empty, and the data is at index {}", r.applied.value));
  }
  StartPlan plan;
  plan.row = StartRow::kFirstStart;
  r.mark.membership = bootstrap.Encode();
  plan.fix.emplace();
  plan.fix->reset = r.mark;
  plan.fix->hard_state = r.hard_state;
  plan.recovered = std::move(r);
  return plan;
}

// The rows that compare the log, as it is about to be, with the data.
StartPlan PlanFit(StartPlan plan) {
  const RaftCore::Recovered& r = plan.recovered;
  if (r.applied < r.mark.index) {
    return Refuse(StartRow::kDataLost, Damage::Part::kData, r.applied + 1, r.mark.index,
                  fmt::format("the data is at index {}, and the log begins behind {}",
                              r.applied.value, r.mark.index.value));
  }
  if (r.applied > r.last) {
    return Refuse(StartRow::kLogBehindData, Damage::Part::kLog, r.last + 1, r.applied,
                  fmt::format("the log ends at {}, and the data is at index {}", r.last.value,
                              r.applied.value));
  }
  if (r.hard_state.commit > r.last) {
    return Refuse(StartRow::kCommittedLost, Damage::Part::kLog, r.last + 1, r.hard_state.commit,
                  fmt::format("the log ends at {}, and {} is known to be committed", r.last.value,
                              r.hard_state.commit.value));
  }
  return plan;
}

}  // namespace

std::string_view StartRowName(StartRow row) {
  switch (row) {
    case StartRow::kFirstStart:
      return "first start";
    case StartRow::kNoMembership:
      return "no membership";
    case StartRow::kLogLost:
      return "log lost";
    case StartRow::kTermLost:
      return "term lost";
    case StartRow::kFinishInstall:
      return "finish install";
    case StartRow::kDataLost:
      return "data lost";
    case StartRow::kLogBehindData:
      return "log behind data";
    case StartRow::kCommittedLost:
      return "committed entries lost";
    case StartRow::kFits:
      return "fits";
  }
  return "unknown";
}

StartPlan PlanStart(const Membership& bootstrap, const storage::RecoveredLog& log, Index applied,
                    const std::optional<storage::LogMark>& installed) {
  RaftCore::Recovered r{log.hard_state, log.mark,           log.last,
                        log.term_runs,  log.config_entries, applied};
  if (r.mark.membership.empty()) {
    return PlanWithoutMembership(bootstrap, std::move(r), installed.has_value());
  }
  if (LastTerm(r) > r.hard_state.term) {
    return Refuse(StartRow::kTermLost, Damage::Part::kLog, {}, {},
                  fmt::format("the log holds an entry of term {}, and the term it remembers is {}",
                              LastTerm(r).value, r.hard_state.term.value));
  }
  StartPlan plan;
  const CoreLog view(r.mark.index, r.mark.term, r.last, r.term_runs);
  const bool unfinished = installed.has_value() && installed->index > r.mark.index &&
                          !view.Matches(installed->index, installed->term);
  if (unfinished) {
    plan.row = StartRow::kFinishInstall;
    r.mark = *installed;
    r.last = r.mark.index;
    r.term_runs.clear();
    r.config_entries.clear();
    if (r.mark.term > r.hard_state.term) {
      // The frame with the mark's term is what the crash took. A term without a vote is safe: this
      // member has said nothing in it.
      r.hard_state = {r.mark.term, NodeId(0), r.mark.index};
    }
    r.hard_state.commit = std::min(r.hard_state.commit, r.mark.index);
    plan.fix.emplace();
    plan.fix->reset = r.mark;
    plan.fix->hard_state = r.hard_state;
  }
  plan.recovered = std::move(r);
  return PlanFit(std::move(plan));
}

absl::StatusOr<RaftCore::Recovered> Recover(const Membership& bootstrap, storage::LogStore* log,
                                            const StateMachine& machine) {
  StartPlan plan =
      PlanStart(bootstrap, log->recovered(), machine.applied(), machine.installed_mark());
  if (!plan.status.ok()) return plan.status;
  if (plan.fix.has_value()) {
    if (absl::Status written = log->Append({*plan.fix}); !written.ok()) return written;
  }
  return std::move(plan.recovered);
}

absl::StatusOr<Membership> MembershipAtEnd(const RaftCore::Recovered& recovered) {
  return Membership::Decode(recovered.config_entries.empty()
                                ? recovered.mark.membership
                                : recovered.config_entries.back()->payload);
}

absl::StatusOr<storage::LogBatch> GoOnAlone(const RaftCore::Recovered& recovered, NodeId self,
                                            const std::vector<std::string>& peer_urls,
                                            std::string payload) {
  const absl::StatusOr<Membership> now = MembershipAtEnd(recovered);
  if (!now.ok()) return now.status();
  if (now->Removed(self) || !now->Contains(self)) {
    return absl::FailedPreconditionError(base::ToAbsl(fmt::format(
        "member {:x} does not belong to the cluster any more: start from the data of one that does",
        self.value)));
  }
  if (now->All() == std::vector<NodeId>{self} && now->voters.contains(self)) {
    return absl::FailedPreconditionError("this member is alone in its cluster already");
  }
  Membership alone;
  alone.voters = {self};
  alone.peer_urls[self] = peer_urls;
  alone.removed = now->removed;
  for (const NodeId id : now->All()) {
    if (id != self) alone.removed.push_back(id);
  }
  const size_t over = std::max(alone.removed.size(), Membership::kMaxRemoved);
  alone.removed.erase(
      alone.removed.begin(),
      alone.removed.begin() + static_cast<ptrdiff_t>(over - Membership::kMaxRemoved));

  storage::LogBatch batch;
  const Term term = Term(recovered.hard_state.term.value + 1);
  batch.entries = {std::make_shared<const storage::Entry>(storage::Entry{
                       term, recovered.last + 1, storage::EntryType::kConfig, alone.Encode()}),
                   std::make_shared<const storage::Entry>(storage::Entry{
                       term, recovered.last + 2, storage::EntryType::kNormal, std::move(payload)})};
  batch.hard_state = {term, NodeId(0), recovered.last + 2};
  return batch;
}

}  // namespace holdfast::raft
