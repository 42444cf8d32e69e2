#include "replication/core_log.h"

#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"
#include "member.h"

namespace holdfast::raft::test {
namespace {

CoreLog LogOf(const std::vector<uint64_t>& terms, uint64_t mark = 0, uint64_t mark_term = 0) {
  std::vector<storage::TermRun> runs;
  uint64_t last = mark;
  for (const uint64_t term : terms) {
    ++last;
    if (runs.empty() || runs.back().term != Term(term)) runs.push_back({Index(last), Term(term)});
  }
  return CoreLog(Index(mark), Term(mark_term), Index(last), runs);
}

std::pair<Index, Term> At(uint64_t index, uint64_t term) { return {Index(index), Term(term)}; }

TEST(CoreLog, KnowsTheTermOfEveryIndexFromItsMarkOn) {
  const CoreLog log = LogOf({5, 5, 6, 9}, /*mark=*/10, /*mark_term=*/4);
  EXPECT_EQ(log.TermAt(Index(9)), std::nullopt);
  EXPECT_EQ(log.TermAt(Index(10)), Term(4));
  EXPECT_EQ(log.TermAt(Index(11)), Term(5));
  EXPECT_EQ(log.TermAt(Index(12)), Term(5));
  EXPECT_EQ(log.TermAt(Index(13)), Term(6));
  EXPECT_EQ(log.TermAt(Index(14)), Term(9));
  EXPECT_EQ(log.TermAt(Index(15)), std::nullopt);
  EXPECT_EQ(log.last_term(), Term(9));
  EXPECT_EQ(log.durable(), Index(14));
}

TEST(CoreLog, IsUpToDateByTermThenIndex) {
  const CoreLog log = LogOf({1, 2, 3});
  EXPECT_TRUE(log.IsUpToDate(Index(1), Term(4)));
  EXPECT_TRUE(log.IsUpToDate(Index(3), Term(3)));
  EXPECT_TRUE(log.IsUpToDate(Index(4), Term(3)));
  EXPECT_FALSE(log.IsUpToDate(Index(2), Term(3)));
  EXPECT_FALSE(log.IsUpToDate(Index(9), Term(2)));
}

TEST(CoreLog, FindConflictByTermSkipsWholeTerms) {
  const CoreLog log = LogOf({2, 2, 3, 3, 5, 5});
  EXPECT_EQ(log.FindConflictByTerm(Index(6), Term(5)), At(6, 5));
  EXPECT_EQ(log.FindConflictByTerm(Index(6), Term(4)), At(4, 3));
  EXPECT_EQ(log.FindConflictByTerm(Index(6), Term(3)), At(4, 3));
  EXPECT_EQ(log.FindConflictByTerm(Index(3), Term(5)), At(3, 3));
  EXPECT_EQ(log.FindConflictByTerm(Index(6), Term(2)), At(2, 2));
  EXPECT_EQ(log.FindConflictByTerm(Index(6), Term(1)), At(0, 0));
  EXPECT_EQ(log.FindConflictByTerm(Index(99), Term(9)), At(6, 5));
  EXPECT_EQ(LogOf({7}, 3, 2).FindConflictByTerm(Index(4), Term(1)), At(3, 2));
}

TEST(CoreLog, AppendReplacesAConflictingSuffix) {
  CoreLog log = LogOf({1, 1, 2, 2});
  log.Append(EntriesOf(2, {3, 3}));
  EXPECT_EQ(log.last(), Index(3));
  EXPECT_EQ(log.TermAt(Index(1)), Term(1));
  EXPECT_EQ(log.TermAt(Index(2)), Term(3));
  EXPECT_EQ(log.TermAt(Index(4)), std::nullopt);
  EXPECT_EQ(log.durable(), Index(1));
  const auto unwritten = log.TakeUnwritten();
  ASSERT_EQ(unwritten.size(), 2u);
  EXPECT_EQ(unwritten[0]->index, Index(2));
}

TEST(CoreLog, AppendRefusesGapsAndCompactedIndexes) {
  CoreLog log = LogOf({4, 4}, 5, 3);
  EXPECT_DEATH(log.Append(EntriesOf(9, {4})), "CHECK");
  EXPECT_DEATH(log.Append(EntriesOf(5, {4})), "CHECK");
  EXPECT_DEATH(log.Append(EntriesOf(8, {3})), "CHECK");  // terms never fall
}

TEST(CoreLog, WhatWasTakenIsNotTakenTwice) {
  CoreLog log = LogOf({});
  log.Append(EntriesOf(1, {1, 1}));
  EXPECT_TRUE(log.has_unwritten());
  EXPECT_EQ(log.TakeUnwritten().size(), 2u);
  EXPECT_FALSE(log.has_unwritten());
  EXPECT_TRUE(log.TakeUnwritten().empty());
  log.Append(EntriesOf(3, {1}));
  EXPECT_EQ(log.TakeUnwritten().size(), 1u);
}

TEST(CoreLog, DurableIsCumulativeAndInOrder) {
  CoreLog log = LogOf({});
  for (uint64_t seq = 1; seq <= 3; ++seq) {
    log.Append(EntriesOf(seq, {1}));
    log.TakeUnwritten();
    log.NoteBatch(seq);
  }
  EXPECT_TRUE(log.writing());
  EXPECT_EQ(log.durable(), Index(0));
  log.OnDurable(2);
  EXPECT_EQ(log.durable(), Index(2));
  log.OnDurable(1);  // old news
  EXPECT_EQ(log.durable(), Index(2));
  log.OnDurable(3);
  EXPECT_EQ(log.durable(), Index(3));
  EXPECT_FALSE(log.writing());
}

TEST(CoreLog, ABatchOfOverwrittenEntriesCountsOnlyForWhatIsLeft) {
  CoreLog log = LogOf({});
  log.Append(EntriesOf(1, {1, 1, 1}));
  log.TakeUnwritten();
  log.NoteBatch(1);
  log.Append(EntriesOf(2, {2, 2}));
  log.TakeUnwritten();
  log.NoteBatch(2);
  log.OnDurable(1);
  EXPECT_EQ(log.durable(), Index(1));
  log.OnDurable(2);
  EXPECT_EQ(log.durable(), Index(3));
}

TEST(CoreLog, TheCacheGivesAtLeastOneEntryAndKeepsTheLimit) {
  CoreLog log = LogOf({});
  log.Append(EntriesOf(1, {1, 1, 1, 1}));
  const size_t one = MakeEntry(1, 1)->bytes();
  EXPECT_EQ(log.Cached(Index(1), Index(4), 2 * one).size(), 2u);
  EXPECT_EQ(log.Cached(Index(1), Index(4), 1).size(), 1u);
  EXPECT_EQ(log.Cached(Index(2), Index(3), 100 * one).size(), 2u);
  EXPECT_TRUE(log.Cached(Index(5), Index(9), one).empty());
}

TEST(CoreLog, EvictionKeepsWhatIsNotWrittenAndWhatIsNotApplied) {
  CoreLog log = LogOf({});
  log.Append(EntriesOf(1, {1, 1, 1}));
  log.EvictTo(Index(3), 0);
  EXPECT_EQ(log.cache_first(), Index(1));
  log.TakeUnwritten();
  log.EvictTo(Index(2), 0);
  EXPECT_EQ(log.cache_first(), Index(3));
  EXPECT_TRUE(log.Cached(Index(2), Index(3), 9999).empty());
  EXPECT_EQ(log.Cached(Index(3), Index(3), 9999).size(), 1u);
  EXPECT_EQ(log.cached_bytes(), MakeEntry(3, 1)->bytes());
}

TEST(CoreLog, ResetForgetsEverythingAndWhatIsOnItsWay) {
  CoreLog log = LogOf({1, 1});
  log.Append(EntriesOf(3, {1, 1}));
  log.TakeUnwritten();
  log.NoteBatch(1);
  log.Reset(Index(10), Term(4));
  EXPECT_EQ(log.last(), Index(10));
  EXPECT_EQ(log.last_term(), Term(4));
  log.OnDurable(1);
  EXPECT_EQ(log.durable(), Index(10));
  log.Append(EntriesOf(11, {4}));
  EXPECT_EQ(log.TermAt(Index(11)), Term(4));
}

// Against a dumb twin: a map from index to term.
TEST(CoreLog, AgreesWithAPlainMap) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    base::Rng rng(seed);
    CoreLog log = LogOf({});
    std::map<uint64_t, uint64_t> twin = {{0, 0}};
    uint64_t seq = 0;
    for (int step = 0; step < 60; ++step) {
      const uint64_t mark = twin.begin()->first;
      const uint64_t last = twin.rbegin()->first;
      if (rng.OneIn(8)) {
        const uint64_t to = mark + rng.Below(last - mark + 1);
        log.CompactTo(Index(to));
        twin.erase(twin.begin(), twin.find(to));
      } else {
        const uint64_t first = mark + 1 + rng.Below(last - mark + 1);
        uint64_t term = twin.at(first - 1);
        std::vector<uint64_t> terms;
        for (uint64_t n = 1 + rng.Below(4); n > 0; --n) terms.push_back(term += rng.Below(2));
        log.Append(EntriesOf(first, terms));
        twin.erase(twin.lower_bound(first), twin.end());
        for (size_t i = 0; i < terms.size(); ++i) twin[first + i] = terms[i];
        log.TakeUnwritten();
        log.NoteBatch(++seq);
        if (rng.OneIn(2)) log.OnDurable(seq);
      }
      ASSERT_EQ(log.mark_index().value, twin.begin()->first);
      ASSERT_EQ(log.last().value, twin.rbegin()->first);
      for (uint64_t i = 0; i <= log.last().value + 1; ++i) {
        const auto it = twin.find(i);
        const std::optional<Term> want =
            it == twin.end() ? std::nullopt : std::optional(Term(it->second));
        ASSERT_EQ(log.TermAt(Index(i)), want) << "index " << i;
      }
      ASSERT_LE(log.durable(), log.last());
    }
  }
}

}  // namespace
}  // namespace holdfast::raft::test
