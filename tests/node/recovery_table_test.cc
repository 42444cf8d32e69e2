// The decision table of log x state machine, row by row, and the last resort.
#include "replication/recovery.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "base/strings.h"
#include "storage/damage.h"
#include "storage/memory_log.h"

namespace holdfast::raft {
namespace {

using storage::Damage;
using storage::LogMark;
using storage::RecoveredLog;

const NodeId kSelf(1);

Membership Three() {
  Membership m;
  m.voters = {NodeId(1), NodeId(2), NodeId(3)};
  for (const NodeId id : m.voters) {
    m.peer_urls[id] = {"http://m" + std::to_string(id.value)};
  }
  return m;
}

LogMark MarkAt(uint64_t index, uint64_t term) {
  return {Index(index), Term(term), Three().Encode()};
}

// Entries (mark, last], all of `entry_term`.
RecoveredLog LogOf(LogMark mark, uint64_t last, uint64_t entry_term, uint64_t term,
                   uint64_t commit) {
  RecoveredLog log;
  log.hard_state = {Term(term), NodeId(2), Index(commit)};
  log.mark = std::move(mark);
  log.last = Index(last);
  if (log.last > log.mark.index) log.term_runs = {{log.mark.index + 1, Term(entry_term)}};
  return log;
}

struct Case {
  std::string name;
  StartRow row;
  RecoveredLog log;
  uint64_t applied = 0;
  std::optional<LogMark> installed = std::nullopt;
  // What the damage must name; part kLog and {0, 0} where nothing is refused.
  Damage::Part part = Damage::Part::kLog;
  uint64_t first_lost = 0, last_lost = 0;
};
void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

constexpr StartRow kAllRows[] = {
    StartRow::kFirstStart,    StartRow::kNoMembership,  StartRow::kLogLost,
    StartRow::kTermLost,      StartRow::kFinishInstall, StartRow::kDataLost,
    StartRow::kLogBehindData, StartRow::kCommittedLost, StartRow::kFits,
};

std::vector<Case> AllCases() {
  using Row = StartRow;
  constexpr auto kData = Damage::Part::kData;
  const LogMark none;
  return {
      {"nothing anywhere", Row::kFirstStart, LogOf(none, 0, 0, 0, 0)},
      {"a term but nothing else", Row::kFirstStart, LogOf(none, 0, 0, 4, 0)},
      {"entries without a membership", Row::kNoMembership, LogOf(none, 3, 1, 1, 0)},
      {"empty log and data that grew here",
       Row::kLogLost,
       LogOf(none, 0, 0, 0, 0),
       7,
       {},
       Damage::Part::kLog,
       1,
       0},
      {"empty log and data from a snapshot", Row::kLogLost, LogOf(none, 0, 0, 0, 0), 7,
       MarkAt(7, 2), Damage::Part::kLog, 1, 0},
      {"an entry of a term that was forgotten", Row::kTermLost, LogOf(MarkAt(0, 0), 3, 5, 4, 0)},
      {"a mark of a term that was forgotten", Row::kTermLost, LogOf(MarkAt(9, 5), 9, 0, 4, 9), 9},
      {"a log that was never written to", Row::kFits, LogOf(MarkAt(0, 0), 0, 0, 0, 0)},
      {"log ahead of data", Row::kFits, LogOf(MarkAt(5, 1), 20, 2, 2, 12), 8},
      {"log and data at the same index", Row::kFits, LogOf(MarkAt(5, 1), 20, 2, 2, 20), 20},
      {"data flushed just up to the mark", Row::kFits, LogOf(MarkAt(5, 1), 20, 2, 2, 20), 5},
      // C7, the snapshot at 30 of term 3 is in the data, and the log knows nothing of it.
      {"installed and not yet reset", Row::kFinishInstall, LogOf(MarkAt(5, 1), 20, 2, 3, 12), 30,
       MarkAt(30, 3)},
      {"installed and not yet reset nor the term raised", Row::kFinishInstall,
       LogOf(MarkAt(5, 1), 20, 2, 2, 12), 30, MarkAt(30, 3)},
      {"installed over entries that conflict", Row::kFinishInstall,
       LogOf(MarkAt(5, 1), 40, 2, 3, 12), 30, MarkAt(30, 3)},
      {"installed on a learner that has nothing yet", Row::kFinishInstall,
       LogOf(MarkAt(0, 0), 0, 0, 1, 0), 30, MarkAt(30, 1)},
      {"installed and reset", Row::kFits, LogOf(MarkAt(30, 3), 30, 0, 3, 30), 30, MarkAt(30, 3)},
      {"installed and reset and gone on", Row::kFits, LogOf(MarkAt(30, 3), 44, 3, 3, 40), 35,
       MarkAt(30, 3)},
      {"installed what the log holds too", Row::kFits, LogOf(MarkAt(5, 1), 40, 2, 3, 12), 30,
       MarkAt(30, 2)},
      {"installed long ago", Row::kFits, LogOf(MarkAt(50, 3), 60, 3, 3, 60), 55, MarkAt(30, 3)},
      {"data older than the log begins",
       Row::kDataLost,
       LogOf(MarkAt(30, 3), 44, 3, 3, 40),
       12,
       {},
       kData,
       13,
       30},
      {"data wiped", Row::kDataLost, LogOf(MarkAt(30, 3), 44, 3, 3, 40), 0, {}, kData, 1, 30},
      {"installed mark of data that is older", Row::kDataLost, LogOf(MarkAt(5, 1), 20, 2, 3, 12),
       12, MarkAt(30, 3), kData, 13, 30},
      {"log older than the data",
       Row::kLogBehindData,
       LogOf(MarkAt(5, 1), 20, 2, 2, 12),
       25,
       {},
       Damage::Part::kLog,
       21,
       25},
      {"log older than the data behind a snapshot", Row::kLogBehindData,
       LogOf(MarkAt(5, 1), 20, 2, 3, 12), 35, MarkAt(30, 3), Damage::Part::kLog, 31, 35},
      {"log ends before what was committed",
       Row::kCommittedLost,
       LogOf(MarkAt(5, 1), 20, 2, 2, 22),
       8,
       {},
       Damage::Part::kLog,
       21,
       22},
  };
}

class StartRowTest : public testing::TestWithParam<Case> {};

TEST_P(StartRowTest, IsTaken) {
  const Case& one = GetParam();
  const StartPlan plan = PlanStart(Three(), one.log, Index(one.applied), one.installed);
  EXPECT_EQ(plan.row, one.row) << StartRowName(plan.row) << " " << plan.status;
  const bool starts = one.row == StartRow::kFits || one.row == StartRow::kFirstStart ||
                      one.row == StartRow::kFinishInstall;
  ASSERT_EQ(plan.status.ok(), starts) << plan.status;
  EXPECT_EQ(plan.fix.has_value(),
            one.row == StartRow::kFirstStart || one.row == StartRow::kFinishInstall);
  if (starts) {
    EXPECT_EQ(plan.recovered.applied, Index(one.applied));
    EXPECT_FALSE(plan.recovered.mark.membership.empty());
    return;
  }
  const std::optional<Damage> damage = storage::DamageOf(plan.status);
  ASSERT_TRUE(damage.has_value());
  EXPECT_EQ(damage->part, one.part);
  EXPECT_EQ(damage->first_index.value, one.first_lost);
  EXPECT_EQ(damage->last_index.value, one.last_lost);
  EXPECT_THAT(std::string(base::Message(plan.status)), testing::HasSubstr("must not vote"));
}

// "log ahead of data" -> "LogAheadOfData".
std::string TestName(const testing::TestParamInfo<Case>& info) {
  std::string name;
  bool upper = true;
  for (const char c : info.param.name) {
    const bool letter = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (letter) name += upper ? static_cast<char>(std::toupper(c)) : c;
    upper = !letter;
  }
  return name;
}
INSTANTIATE_TEST_SUITE_P(Table, StartRowTest, testing::ValuesIn(AllCases()), TestName);

TEST(StartTable, EveryRowHasACase) {
  const std::vector<Case> cases = AllCases();
  for (const StartRow row : kAllRows) {
    EXPECT_TRUE(std::ranges::any_of(cases, [&](const Case& one) { return one.row == row; }))
        << StartRowName(row);
  }
}

TEST(StartTable, AFinishedInstallTakesTheMarkAndForgetsTheVote) {
  const StartPlan plan =
      PlanStart(Three(), LogOf(MarkAt(5, 1), 20, 2, 2, 12), Index(30), MarkAt(30, 3));
  ASSERT_TRUE(plan.fix.has_value());
  EXPECT_EQ(plan.fix->reset->index, Index(30));
  EXPECT_EQ(plan.fix->hard_state, (storage::HardState{Term(3), NodeId(0), Index(30)}));
  EXPECT_EQ(plan.recovered.last, Index(30));
  EXPECT_TRUE(plan.recovered.term_runs.empty());
}

TEST(StartTable, AFinishedInstallKeepsAVoteOfItsTerm) {
  const StartPlan plan =
      PlanStart(Three(), LogOf(MarkAt(5, 1), 20, 2, 3, 12), Index(30), MarkAt(30, 3));
  EXPECT_EQ(plan.recovered.hard_state.vote, NodeId(2));
  EXPECT_EQ(plan.recovered.hard_state.term, Term(3));
}

// Every small input: whatever is let through is something a core may start from, and starting from
// what the fix makes of it decides nothing new.
TEST(StartTable, WhatStartsIsSoundForEverySmallInput) {
  int starts = 0, refused = 0;
  for (int bits = 0; bits < 4 * 4 * 4 * 3 * 3 * 4 * 2; ++bits) {
    int rest = bits;
    const auto draw = [&rest](int n) {
      const int value = rest % n;
      rest /= n;
      return static_cast<uint64_t>(value);
    };
    const uint64_t mark = draw(4), more = draw(4), applied = draw(4) * 2, entry_term = 1 + draw(3),
                   term = draw(3), installed = draw(4) * 2, has_membership = draw(2);
    LogMark at = MarkAt(mark, mark == 0 ? 0 : 1);
    if (has_membership == 0) at = {};
    const RecoveredLog log = LogOf(at, at.index.value + more, entry_term, term, at.index.value);
    const auto from = installed == 0 ? std::nullopt : std::optional(MarkAt(installed, 2));
    const StartPlan plan = PlanStart(Three(), log, Index(applied), from);
    if (!plan.status.ok()) {
      ++refused;
      EXPECT_TRUE(storage::DamageOf(plan.status).has_value());
      continue;
    }
    ++starts;
    const RaftCore::Recovered& r = plan.recovered;
    EXPECT_LE(r.mark.index, r.applied);
    EXPECT_LE(r.applied, r.last);
    EXPECT_LE(r.hard_state.commit, r.last);
    EXPECT_LE(r.mark.term, r.hard_state.term);
    EXPECT_GE(r.hard_state.term, log.hard_state.term) << "a term was forgotten";
    RecoveredLog next{r.hard_state, r.mark, r.last, r.term_runs, r.config_entries};
    const StartPlan again = PlanStart(Three(), next, Index(applied), from);
    EXPECT_EQ(again.row, StartRow::kFits) << StartRowName(plan.row);
  }
  EXPECT_GT(starts, 50);
  EXPECT_GT(refused, 50);
}

// --- the last resort ---

RaftCore::Recovered RecoveredOf(const RecoveredLog& log) {
  return PlanStart(Three(), log, log.mark.index, std::nullopt).recovered;
}

TEST(GoOnAlone, KeepsEverythingRaisesTheTermAndRemovesTheOthers) {
  const RaftCore::Recovered found = RecoveredOf(LogOf(MarkAt(5, 1), 20, 2, 4, 12));
  const auto batch = GoOnAlone(found, kSelf, {"http://new"}, "birth");
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_FALSE(batch->reset.has_value());
  EXPECT_EQ(batch->hard_state, (storage::HardState{Term(5), NodeId(0), Index(22)}));
  ASSERT_EQ(batch->entries.size(), 2u);
  EXPECT_EQ(batch->entries[0]->index, Index(21));  // nothing is cut, committed or not
  EXPECT_EQ(batch->entries[0]->term, Term(5));
  EXPECT_EQ(batch->entries[0]->type, storage::EntryType::kConfig);
  EXPECT_EQ(batch->entries[1]->payload, "birth");
  EXPECT_EQ(batch->entries[1]->type, storage::EntryType::kNormal);
  const auto alone = Membership::Decode(batch->entries[0]->payload);
  ASSERT_TRUE(alone.ok());
  EXPECT_EQ(alone->voters, std::set<NodeId>{kSelf});
  EXPECT_FALSE(alone->joint());
  EXPECT_TRUE(alone->learners.empty());
  EXPECT_TRUE(alone->promotions.empty());
  EXPECT_TRUE(alone->Removed(NodeId(2)));
  EXPECT_TRUE(alone->Removed(NodeId(3)));
  EXPECT_EQ(alone->peer_urls.at(kSelf), std::vector<std::string>{"http://new"});
}

TEST(GoOnAlone, StartsFromTheNewestConfigEntryAlsoAJointOne) {
  RecoveredLog log = LogOf(MarkAt(5, 1), 20, 2, 4, 12);
  Membership joint = Three();
  joint.voters = {NodeId(1), NodeId(4)};
  joint.voters_outgoing = {NodeId(1), NodeId(2), NodeId(3)};
  joint.learners = {NodeId(9)};
  joint.promotions = {{NodeId(9), NodeId(2)}};
  joint.removed = {NodeId(7)};
  log.config_entries = {std::make_shared<const storage::Entry>(
      storage::Entry{Term(2), Index(18), storage::EntryType::kConfig, joint.Encode()})};
  const auto batch = GoOnAlone(RecoveredOf(log), kSelf, {"http://new"}, "");
  ASSERT_TRUE(batch.ok());
  const auto alone = Membership::Decode(batch->entries[0]->payload);
  EXPECT_FALSE(alone->joint());
  for (const uint64_t gone : {2, 3, 4, 7, 9}) EXPECT_TRUE(alone->Removed(NodeId(gone))) << gone;
}

TEST(GoOnAlone, ALearnerMayBeTheSurvivor) {
  RecoveredLog log = LogOf(MarkAt(5, 1), 20, 2, 4, 12);
  Membership with_learner = Three();
  with_learner.learners = {NodeId(9)};
  log.mark.membership = with_learner.Encode();
  const auto batch = GoOnAlone(RecoveredOf(log), NodeId(9), {"http://new"}, "");
  ASSERT_TRUE(batch.ok());
  const auto alone = Membership::Decode(batch->entries[0]->payload);
  EXPECT_EQ(alone->voters, std::set<NodeId>{NodeId(9)});
  EXPECT_TRUE(alone->learners.empty());
}

TEST(GoOnAlone, RefusesWhoLeftAndWhoIsAlone) {
  RecoveredLog log = LogOf(MarkAt(5, 1), 20, 2, 4, 12);
  EXPECT_TRUE(absl::IsFailedPrecondition(
      GoOnAlone(RecoveredOf(log), NodeId(8), {"http://x"}, "").status()));
  Membership alone;
  alone.voters = {kSelf};
  alone.removed = {NodeId(2)};
  log.mark.membership = alone.Encode();
  EXPECT_TRUE(
      absl::IsFailedPrecondition(GoOnAlone(RecoveredOf(log), kSelf, {"http://x"}, "").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      GoOnAlone(RecoveredOf(log), NodeId(2), {"http://x"}, "").status()));
}

TEST(GoOnAlone, OldRemovedIdsMakeRoom) {
  RecoveredLog log = LogOf(MarkAt(5, 1), 20, 2, 4, 12);
  Membership full = Three();
  for (size_t i = 0; i < Membership::kMaxRemoved; ++i) full.removed.push_back(NodeId(1000 + i));
  log.mark.membership = full.Encode();
  const auto batch = GoOnAlone(RecoveredOf(log), kSelf, {"http://x"}, "");
  ASSERT_TRUE(batch.ok());
  const auto alone = Membership::Decode(batch->entries[0]->payload);
  EXPECT_EQ(alone->removed.size(), Membership::kMaxRemoved);
  EXPECT_FALSE(alone->Removed(NodeId(1000)));
  EXPECT_TRUE(alone->Removed(NodeId(3)));
}

}  // namespace
}  // namespace holdfast::raft
