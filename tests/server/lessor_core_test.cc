// The rules of lessor_core.h, one by one and all together.
#include "server/lessor_core.h"

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "lessor_world.h"

namespace holdfast::server {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr absl::Duration kTimeout = absl::Seconds(1);

// A leader of term 1 whose rounds are answered as the test says.
class Leader {
 public:
  Leader() { clock_.Advance(absl::Seconds(1)); }

  void Begin(const std::map<int64_t, LeaseRecord>& leases = {}) {
    core_.BeginTerm(Term(1));
    for (const auto& [id, record] : leases) core_.Load(id, record);
    core_.EndLoad(Index(10), Now());
  }
  base::ClockSample Now() const { return clock_.Sample(); }
  void Granted(int64_t id, int64_t ttl_s) {
    core_.OnChange({++index_, id, LeaseChange::Kind::kGranted, ttl_s}, Now());
  }
  void Gone(int64_t id) { core_.OnChange({++index_, id, LeaseChange::Kind::kGone}, Now()); }
  void Checkpointed(int64_t id, int64_t ms) {
    LeaseChange change{++index_, id, LeaseChange::Kind::kCheckpoint};
    change.remaining_ms = ms;
    core_.OnChange(change, Now());
  }
  // Ticks, and gathers what is to be proposed.
  void Pass(absl::Duration time, bool alive = true) {
    for (; time > absl::ZeroDuration(); time -= LessorCore::kTick) {
      clock_.Advance(std::min(time, LessorCore::kTick));
      Turn(alive);
    }
  }
  // The process stands still.
  void Stall(absl::Duration time) { clock_.Advance(time); }
  void Turn(bool alive = true) {
    const LessorCore::Proposals proposals = core_.Turn(Now(), alive);
    for (const auto& ids : proposals.expiries) {
      expired_.insert(expired_.end(), ids.begin(), ids.end());
      batches_.push_back(ids);
    }
    for (const auto& one : proposals.checkpoint) checkpoints_.push_back(one);
  }
  // With a round that is answered at once.
  LeaseTime Ask(int64_t id, bool renew) {
    core_.Submit({.tag = 7, .renew = renew, .ids = {id}});
    const auto round = core_.StartRound(Now());
    EXPECT_TRUE(round.has_value());
    EXPECT_THAT(core_.TakeAnswers(), IsEmpty());
    core_.OnRound(*round, true, Now());
    const auto answers = core_.TakeAnswers();
    EXPECT_EQ(answers.size(), 1u);
    return answers.empty() ? LeaseTime() : answers.front().times.at(0);
  }

  base::FakeClock clock_;
  LessorCore core_{kTimeout};
  Index index_{100};
  std::vector<int64_t> expired_;
  std::vector<std::vector<int64_t>> batches_;
  std::vector<LessorCore::Proposals::Remaining> checkpoints_;
};

TEST(LessorCore, EndsALeaseAfterItsTtlAndNotBefore) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Seconds(5));
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Milliseconds(300));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
  leader.Pass(absl::Seconds(10));
  EXPECT_THAT(leader.expired_, ElementsAre(1)) << "proposed once, while nothing is known of it";
}

TEST(LessorCore, EndsThemInTheOrderOfTheirEnds) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 9);
  leader.Granted(2, 3);
  leader.Granted(3, 6);
  leader.Pass(absl::Seconds(10));
  EXPECT_THAT(leader.expired_, ElementsAre(2, 3, 1));
}

TEST(LessorCore, ARenewalGivesAllOfTheTtl) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Seconds(4));
  const LeaseTime renewed = leader.Ask(1, /*renew=*/true);
  EXPECT_TRUE(renewed.found());
  EXPECT_EQ(renewed.granted_s, 5);
  leader.Pass(absl::Seconds(5));
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Milliseconds(300));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
  EXPECT_FALSE(leader.Ask(2, /*renew=*/true).found());
}

TEST(LessorCore, TellsHowMuchIsLeftWithoutRenewing) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 10);
  leader.Pass(absl::Seconds(4));
  const LeaseTime time = leader.Ask(1, /*renew=*/false);
  EXPECT_EQ(time.granted_s, 10);
  EXPECT_NEAR(static_cast<double>(time.left_ms), 6000, 30);
  leader.Pass(absl::Milliseconds(6300));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
  EXPECT_EQ(leader.Ask(1, false).left_ms, 0);
  leader.Gone(1);
  EXPECT_EQ(leader.Ask(1, false).left_ms, -1);
}

TEST(LessorCore, AStallTakesNothingFromALease) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Seconds(2));
  leader.Stall(absl::Hours(1));
  leader.Turn();
  leader.Pass(absl::Milliseconds(2700));
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Milliseconds(500));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
}

TEST(LessorCore, WithoutAQuorumTimeStandsStill) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Minutes(10), /*alive=*/false);
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Seconds(5));
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Milliseconds(300));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
}

TEST(LessorCore, ANewLeaderGivesAllOrWhatTheCheckpointSaysPlusAnElectionTimeout) {
  Leader leader;
  leader.Begin({{1, {.ttl_s = 5}}, {2, {.ttl_s = 1000, .remaining_ms = 3000}}});
  leader.Pass(absl::Seconds(4));
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Milliseconds(300));
  EXPECT_THAT(leader.expired_, ElementsAre(2));
  leader.Pass(absl::Milliseconds(1700));
  EXPECT_THAT(leader.expired_, ElementsAre(2));
  leader.Pass(absl::Milliseconds(300));
  EXPECT_THAT(leader.expired_, ElementsAre(2, 1));
}

TEST(LessorCore, ChangesThatTheViewHadArePassedOver) {
  Leader leader;
  leader.index_ = Index(8);
  leader.Begin({{1, {.ttl_s = 5}}});
  leader.Granted(1, 5);  // at 9: in the view, which is of 10
  leader.Gone(1);        // at 10: of an earlier lease of that id
  EXPECT_EQ(leader.core_.size(), 1u);
  leader.Gone(1);
  EXPECT_EQ(leader.core_.size(), 0u);
}

TEST(LessorCore, ARenewalCountsOnlyAfterARound) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.core_.Submit({.tag = 1, .renew = true, .ids = {1}});
  EXPECT_THAT(leader.core_.TakeAnswers(), IsEmpty());
  const auto round = leader.core_.StartRound(leader.Now());
  ASSERT_TRUE(round.has_value());
  // The next one waits for the next round: this one began before it came.
  leader.core_.Submit({.tag = 2, .renew = true, .ids = {1}});
  EXPECT_FALSE(leader.core_.StartRound(leader.Now()).has_value());
  leader.core_.OnRound(*round, true, leader.Now());
  const auto answers = leader.core_.TakeAnswers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].ask.tag, 1u);
  EXPECT_TRUE(answers[0].led);
  EXPECT_TRUE(leader.core_.StartRound(leader.Now()).has_value());
}

TEST(LessorCore, ARoundThatFailsRenewsNothing) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Seconds(4));
  leader.core_.Submit({.tag = 1, .renew = true, .ids = {1}});
  const auto round = leader.core_.StartRound(leader.Now());
  leader.core_.OnRound(*round, false, leader.Now());
  const auto answers = leader.core_.TakeAnswers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_FALSE(answers[0].led);
  leader.Pass(absl::Milliseconds(1300));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
}

TEST(LessorCore, ARoundAnsweredTooLateIsBegunAnew) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 50);
  leader.core_.Submit({.tag = 1, .renew = true, .ids = {1}});
  const auto late = leader.core_.StartRound(leader.Now());
  leader.Pass(kTimeout + LessorCore::kTick);
  leader.core_.OnRound(*late, true, leader.Now());
  EXPECT_THAT(leader.core_.TakeAnswers(), IsEmpty());
  const auto round = leader.core_.StartRound(leader.Now());
  ASSERT_TRUE(round.has_value());
  leader.core_.OnRound(*late, true, leader.Now());
  EXPECT_THAT(leader.core_.TakeAnswers(), IsEmpty()) << "the answer of a round that is over";
  leader.core_.OnRound(*round, true, leader.Now());
  EXPECT_EQ(leader.core_.TakeAnswers().size(), 1u);
}

TEST(LessorCore, WhoDoesNotLeadSaysSoAtOnce) {
  LessorCore core(kTimeout);
  core.Submit({.tag = 1, .renew = true, .ids = {1}});
  auto answers = core.TakeAnswers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_FALSE(answers[0].led);
  // While it loads it lets them wait, and answers when it leads no more.
  core.BeginTerm(Term(2));
  core.Submit({.tag = 2, .renew = true, .ids = {1}});
  EXPECT_THAT(core.TakeAnswers(), IsEmpty());
  core.EndTerm();
  answers = core.TakeAnswers();
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_FALSE(answers[0].led);
}

TEST(LessorCore, ALeaseWhoseEndIsProposedIsNotRenewed) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Milliseconds(5300));
  ASSERT_THAT(leader.expired_, ElementsAre(1));
  EXPECT_TRUE(leader.Ask(1, /*renew=*/true).ask_again);
  // Refused, or lost: it is proposed again, and stays what it is.
  leader.core_.OnExpiryDone(Term(1), {1}, false, leader.Now());
  EXPECT_TRUE(leader.Ask(1, /*renew=*/true).ask_again);
  leader.Pass(absl::Milliseconds(200));
  EXPECT_THAT(leader.expired_, ElementsAre(1, 1));
  leader.Gone(1);
  EXPECT_FALSE(leader.Ask(1, /*renew=*/true).found());
  leader.core_.OnExpiryDone(Term(1), {1}, true, leader.Now());
  EXPECT_EQ(leader.core_.expired(), 1u);
  EXPECT_EQ(leader.core_.expiring(), 0u);
}

TEST(LessorCore, ManyEndsAtOnceGoInBatchesAndTheRestMayStillBeRenewed) {
  Leader leader;
  leader.Begin();
  const auto most =
      static_cast<int64_t>(LessorCore::kIdsPerEntryMax * LessorCore::kExpiriesInFlightMax);
  for (int64_t id = 1; id <= most + 10; ++id) leader.Granted(id, 5);
  leader.Pass(absl::Milliseconds(5300));
  EXPECT_EQ(leader.batches_.size(), LessorCore::kExpiriesInFlightMax);
  EXPECT_EQ(leader.expired_.size(), static_cast<size_t>(most));
  const std::set<int64_t> named(leader.expired_.begin(), leader.expired_.end());
  int64_t spared = 1;
  while (named.contains(spared)) ++spared;
  EXPECT_FALSE(leader.Ask(spared, /*renew=*/true).ask_again);
  leader.core_.OnExpiryDone(Term(1), leader.batches_[0], true, leader.Now());
  leader.Pass(absl::Milliseconds(200));
  EXPECT_EQ(leader.expired_.size(), static_cast<size_t>(most) + 9);
}

TEST(LessorCore, ALongLeaseIsCheckpointedAndARenewalTakesItBackFirst) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 1000);
  leader.Granted(2, 200);  // too short to be worth an entry
  leader.core_.Submit({});
  (void)leader.core_.StartRound(leader.Now());
  leader.Pass(absl::Seconds(150));
  EXPECT_THAT(leader.checkpoints_, IsEmpty());
  leader.Pass(absl::Seconds(152));
  ASSERT_EQ(leader.checkpoints_.size(), 1u);
  EXPECT_EQ(leader.checkpoints_[0].id, 1);
  EXPECT_NEAR(static_cast<double>(leader.checkpoints_[0].ms), 700'000, 1000);
}

TEST(LessorCore, ARenewalOfACheckpointedLeaseWaitsUntilTheLogSaysAllOfIt) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 1000);
  leader.Pass(absl::Seconds(302));
  ASSERT_EQ(leader.checkpoints_.size(), 1u);
  // Not even applied yet: it may be.
  EXPECT_TRUE(leader.Ask(1, /*renew=*/true).ask_again);
  leader.Checkpointed(1, leader.checkpoints_[0].ms);
  leader.core_.OnCheckpointDone(Term(1), leader.checkpoints_, true, leader.Now());
  EXPECT_TRUE(leader.Ask(1, /*renew=*/true).ask_again);
  leader.Turn();
  ASSERT_EQ(leader.checkpoints_.size(), 2u) << "asked for once, however often somebody asks";
  EXPECT_EQ(leader.checkpoints_[1].ms, -1);
  EXPECT_TRUE(leader.Ask(1, /*renew=*/true).ask_again);
  leader.Checkpointed(1, -1);
  leader.core_.OnCheckpointDone(Term(1), {leader.checkpoints_[1]}, true, leader.Now());
  leader.Turn();
  EXPECT_EQ(leader.checkpoints_.size(), 2u) << "no new checkpoint before the renewal comes again";
  EXPECT_FALSE(leader.Ask(1, /*renew=*/true).ask_again);
}

TEST(LessorCore, ALeaseThatIsRenewedIsNeverCheckpointed) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 1000);
  for (int i = 0; i < 10; ++i) {
    leader.Pass(absl::Seconds(200));
    EXPECT_FALSE(leader.Ask(1, /*renew=*/true).ask_again);
  }
  EXPECT_THAT(leader.checkpoints_, IsEmpty());
}

TEST(LessorCore, AnIdThatIsUsedAgainIsANewLease) {
  Leader leader;
  leader.Begin();
  leader.Granted(1, 5);
  leader.Pass(absl::Seconds(3));
  leader.Gone(1);
  leader.Granted(1, 5);
  leader.Pass(absl::Seconds(4));
  EXPECT_THAT(leader.expired_, IsEmpty());
  leader.Pass(absl::Milliseconds(1300));
  EXPECT_THAT(leader.expired_, ElementsAre(1));
  // A proposal names what it knew, so that a later lease of that id stays.
  EXPECT_EQ(leader.core_.as_of(), leader.index_);
}

// ---------------------------------------------------------------- many

TEST(LessorCore, AMillionLeasesCostLittleAndATickIsShort) {
  constexpr int64_t kLeases = 1'000'000;
  Leader leader;
  leader.core_.BeginTerm(Term(1));
  base::Rng rng(1);
  for (int64_t i = 0; i < kLeases; ++i) {
    leader.core_.Load(static_cast<int64_t>(rng.Next() >> 1),
                      {.ttl_s = 10 + static_cast<int64_t>(rng.Below(100))});
  }
  leader.core_.EndLoad(Index(10), leader.Now());
  const double bytes = static_cast<double>(leader.core_.memory_bytes()) / kLeases;
  double longest_us = 0, sum_us = 0;
  int turns = 0;
  std::set<size_t> sizes;
  for (int tick = 0; tick < 1200; ++tick) {
    leader.clock_.Advance(LessorCore::kTick);
    for (bool more = true; more; ++turns) {
      const auto start = std::chrono::steady_clock::now();
      const LessorCore::Proposals proposals = leader.core_.Turn(leader.Now(), true);
      const double us =
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
              .count();
      longest_us = std::max(longest_us, us);
      sum_us += us;
      more = proposals.more;
      for (const auto& ids : proposals.expiries) {
        sizes.insert(ids.size());
        for (const int64_t id : ids) leader.Gone(id);
        leader.core_.OnExpiryDone(Term(1), ids, true, leader.Now());
        more = true;
      }
    }
  }
  std::printf("a million leases: %.1f bytes each, %d turns, %.1f us each, the longest %.0f us\n",
              bytes, turns, sum_us / turns, longest_us);
  EXPECT_EQ(leader.core_.size(), 0u) << "all of them are over";
  EXPECT_LT(bytes, 100);
  EXPECT_LE(*sizes.rbegin(), LessorCore::kIdsPerEntryMax);
}

TEST(LessorCore, MassRenewalsAreTakenUpAFewAtATime) {
  constexpr int64_t kLeases = 100'000;
  Leader leader;
  leader.core_.BeginTerm(Term(1));
  for (int64_t id = 1; id <= kLeases; ++id) leader.core_.Load(id, {.ttl_s = 10});
  leader.core_.EndLoad(Index(10), leader.Now());
  leader.Pass(absl::Seconds(5));
  for (int64_t id = 1; id <= kLeases; id += 1000) {
    std::vector<int64_t> ids;
    for (int64_t i = id; i < id + 1000; ++i) ids.push_back(i);
    leader.core_.Submit({.tag = 1, .renew = true, .ids = std::move(ids)});
  }
  leader.core_.OnRound(*leader.core_.StartRound(leader.Now()), true, leader.Now());
  EXPECT_EQ(leader.core_.renewed(), static_cast<uint64_t>(kLeases));
  leader.Pass(absl::Milliseconds(5900));
  // All wake at the same time, and all are put back.
  int turns = 0;
  leader.clock_.Advance(LessorCore::kTick * 2);
  for (bool more = true; more; ++turns) {
    const LessorCore::Proposals proposals = leader.core_.Turn(leader.Now(), true);
    EXPECT_THAT(proposals.expiries, IsEmpty());
    more = proposals.more;
  }
  EXPECT_GE(turns, kLeases / static_cast<int64_t>(LessorCore::kWakesPerTurnMax));
}

// ---------------------------------------------------------------- worlds

void RunWorld(testing::LessorWorld::Options options, testing::LessorWorld::Counts* sum) {
  testing::LessorWorld world(options);
  for (const std::string& violation : world.Run()) {
    ADD_FAILURE() << "HOLDFAST_SEED=" << options.seed << ": " << violation;
  }
  const auto& counts = world.counts();
  sum->elections += counts.elections;
  sum->stalls += counts.stalls;
  sum->renewals += counts.renewals;
  sum->refused += counts.refused;
  sum->ended += counts.ended;
  sum->void_entries += counts.void_entries;
  sum->checkpoints += counts.checkpoints;
  sum->resets += counts.resets;
  sum->reused += counts.reused;
}

testing::LessorWorld::Counts RunWorlds(testing::LessorWorld::Options options, uint64_t worlds) {
  testing::LessorWorld::Counts sum;
  uint64_t first = base::RandomSeed() % 1'000'000'000;
  if (const char* seed = std::getenv("HOLDFAST_SEED")) {
    first = std::stoull(seed);
    worlds = 1;
  }
  for (uint64_t i = 0; i < worlds && !::testing::Test::HasFailure(); ++i) {
    options.seed = i < worlds / 2 ? i + 1 : first + i;
    if (worlds == 1) options.seed = first;
    RunWorld(options, &sum);
  }
  std::printf(
      "%d elections, %d stalls, %d renewals, %d refused, %d leases ended, %d entries void, "
      "%d checkpoints, %d taken back, %d ids used again\n",
      sum.elections, sum.stalls, sum.renewals, sum.refused, sum.ended, sum.void_entries,
      sum.checkpoints, sum.resets, sum.reused);
  return sum;
}

TEST(LessorWorlds, NoLeaseEndsTooEarlyAndNoneLivesForEver) {
  const auto sum = RunWorlds({}, 60);
  EXPECT_GT(sum.elections, 0);
  EXPECT_GT(sum.renewals, 0);
  EXPECT_GT(sum.ended, 0);
}

TEST(LessorWorlds, NorDoLongOnesWithCheckpoints) {
  const auto sum = RunWorlds({.life = absl::Minutes(60), .long_ttls = true}, 12);
  EXPECT_GT(sum.checkpoints, 0);
  EXPECT_GT(sum.resets, 0);
}

}  // namespace
}  // namespace holdfast::server
