// The member's half of the age protocol, clause by clause.
#include "replication/freshness.h"

#include <gtest/gtest.h>

#include <set>

#include "member.h"

namespace holdfast::raft::test {
namespace {

constexpr uint64_t kBoot = 42;

base::ClockSample At(int64_t ms) {
  const int64_t ns = ms * 1'000'000;
  return {ns, ns, ns};
}

FreshnessTracker Tracker() { return FreshnessTracker(kBoot, /*seed=*/1); }

int64_t ClaimMs(const FreshnessTracker& tracker) {
  return tracker.claim() ? tracker.claim()->at.boot_ns / 1'000'000 : -1;
}

TEST(FreshnessF1, NoncesAreRandomAndDifferBetweenLives) {
  FreshnessTracker one(kBoot, 1), two(kBoot + 1, 2);
  std::set<uint64_t> seen;
  for (int i = 0; i < 200; ++i) {
    EXPECT_TRUE(seen.insert(one.NewProbe(At(i))).second);
    EXPECT_TRUE(seen.insert(two.NewProbe(At(i))).second);
  }
}

TEST(FreshnessF2, AConfirmMakesAClaimAsOldAsItsProbe) {
  FreshnessTracker tracker = Tracker();
  EXPECT_FALSE(tracker.claim());  // unknown, not zero
  const uint64_t nonce = tracker.NewProbe(At(100));
  tracker.OnConfirm(nonce, kBoot, Index(5), Index(5));
  ASSERT_TRUE(tracker.claim());
  EXPECT_EQ(ClaimMs(tracker), 100);
  EXPECT_EQ(tracker.claim()->index, Index(5));
  EXPECT_EQ(tracker.claim()->extra, absl::ZeroDuration());
  // Elapsed errs on the safe side: 0.2 % and a millisecond.
  EXPECT_GE(tracker.claim()->AgeAt(At(200)), absl::Milliseconds(101));
  EXPECT_LE(tracker.claim()->AgeAt(At(200)), absl::Milliseconds(102));
}

TEST(FreshnessF2, AConfirmOfAnOlderProbeIsAsOldAsThatProbe) {
  FreshnessTracker tracker = Tracker();
  const uint64_t older = tracker.NewProbe(At(100));
  const uint64_t newer = tracker.NewProbe(At(200));
  tracker.OnConfirm(older, kBoot, Index(5), Index(5));
  EXPECT_EQ(ClaimMs(tracker), 100);
  tracker.OnConfirm(newer, kBoot, Index(5), Index(5));
  EXPECT_EQ(ClaimMs(tracker), 200);
}

TEST(FreshnessF2, NothingIsClaimedBeforeApplyReachesTheIndex) {
  FreshnessTracker tracker = Tracker();
  tracker.OnConfirm(tracker.NewProbe(At(100)), kBoot, Index(5), Index(4));
  EXPECT_FALSE(tracker.claim());
  tracker.OnApplied(Index(4));
  EXPECT_FALSE(tracker.claim());
  tracker.OnApplied(Index(5));
  EXPECT_EQ(ClaimMs(tracker), 100);
}

TEST(FreshnessF2, UnknownNoncesAndOtherBootsAreIgnored) {
  FreshnessTracker tracker = Tracker();
  const uint64_t nonce = tracker.NewProbe(At(100));
  tracker.OnConfirm(nonce + 1, kBoot, Index(1), Index(9));
  tracker.OnConfirm(nonce, kBoot + 1, Index(1), Index(9));
  EXPECT_FALSE(tracker.claim());
  tracker.OnConfirm(nonce, kBoot, Index(1), Index(9));
  EXPECT_TRUE(tracker.claim());
}

TEST(FreshnessF2, AConfirmIsTakenOnce) {
  FreshnessTracker tracker = Tracker();
  const uint64_t nonce = tracker.NewProbe(At(100));
  tracker.OnConfirm(nonce, kBoot, Index(1), Index(9));
  tracker.OnConfirm(nonce, kBoot, Index(7), Index(9));
  EXPECT_EQ(tracker.claim()->index, Index(1));
}

TEST(FreshnessF2, TheClaimWithTheSmallerAgeStays) {
  FreshnessTracker tracker = Tracker();
  const uint64_t old = tracker.NewProbe(At(100));
  tracker.OnConfirm(old, kBoot, Index(9), Index(1));  // waits for apply
  const uint64_t young = tracker.NewProbe(At(300));
  tracker.OnConfirm(young, kBoot, Index(1), Index(1));
  EXPECT_EQ(ClaimMs(tracker), 300);
  tracker.OnApplied(Index(9));
  EXPECT_EQ(ClaimMs(tracker), 300);
}

TEST(FreshnessF2, ProbesThatAreNotAnsweredClaimNothing) {
  FreshnessTracker tracker = Tracker();
  tracker.NewProbe(At(100));
  tracker.OnApplied(Index(1000));
  EXPECT_FALSE(tracker.claim());
  ASSERT_TRUE(tracker.newest_pending_probe());
  EXPECT_EQ(tracker.newest_pending_probe()->boot_ns, At(100).boot_ns);
}

TEST(FreshnessF2, ALongBacklogKeepsTheNewestClaimAndIsBounded) {
  FreshnessTracker tracker = Tracker();
  for (int i = 1; i <= 1000; ++i) {
    tracker.OnConfirm(tracker.NewProbe(At(i)), kBoot, Index(static_cast<uint64_t>(i)), Index(0));
  }
  tracker.OnApplied(Index(1000));
  EXPECT_EQ(ClaimMs(tracker), 1000);
}

TEST(FreshnessF3, AStreamMayOnlyUseAPairItHasDelivered) {
  FreshnessTracker tracker = Tracker();
  for (int i = 1; i <= 5; ++i) {
    tracker.OnConfirm(tracker.NewProbe(At(100 * i)), kBoot, Index(static_cast<uint64_t>(10 * i)),
                      Index(99));
  }
  EXPECT_FALSE(tracker.ClaimFor(Index(9)));
  EXPECT_EQ(tracker.ClaimFor(Index(10))->at.boot_ns, At(100).boot_ns);
  EXPECT_EQ(tracker.ClaimFor(Index(39))->at.boot_ns, At(300).boot_ns);
  EXPECT_EQ(tracker.ClaimFor(Index(50))->at.boot_ns, At(500).boot_ns);
}

TEST(FreshnessF3, SixtyFourPairsAreKept) {
  FreshnessTracker tracker = Tracker();
  for (int i = 1; i <= 100; ++i) {
    tracker.OnConfirm(tracker.NewProbe(At(i)), kBoot, Index(static_cast<uint64_t>(i)), Index(999));
  }
  EXPECT_FALSE(tracker.ClaimFor(Index(36)));
  EXPECT_TRUE(tracker.ClaimFor(Index(37)));
}

TEST(FreshnessF4, ARestoredClaimHoldsOnceApplyIsBackThere) {
  FreshnessTracker tracker = Tracker();
  Claim kept;
  kept.at = At(100);
  kept.extra = absl::Milliseconds(30);
  kept.index = Index(5);
  tracker.Restore(kept, Index(3));
  EXPECT_FALSE(tracker.claim());
  tracker.OnApplied(Index(5));
  EXPECT_EQ(ClaimMs(tracker), 100);
  EXPECT_GE(tracker.claim()->AgeAt(At(100)), absl::Milliseconds(30));
}

TEST(FreshnessF4, AYoungerConfirmReplacesARestoredClaimAndAnOlderDoesNot) {
  FreshnessTracker tracker = Tracker();
  Claim kept;
  kept.at = At(100);
  kept.extra = absl::Milliseconds(90);  // as good as a sample at 10
  kept.index = Index(1);
  tracker.Restore(kept, Index(9));
  tracker.OnConfirm(tracker.NewProbe(At(50)), kBoot, Index(2), Index(9));
  EXPECT_EQ(ClaimMs(tracker), 50);
  kept.at = At(60);
  tracker.Restore(kept, Index(9));
  EXPECT_EQ(ClaimMs(tracker), 50);
}

TEST(FreshnessL4, AConfirmedRoundClaimsFromTheSampleBeforeIt) {
  FreshnessTracker tracker = Tracker();
  tracker.OnRoundStarted(1, At(100));
  tracker.OnRoundStarted(2, At(200));
  tracker.OnRoundStarted(3, At(300));
  tracker.OnRoundConfirmed(2, Index(5), Index(5));
  EXPECT_EQ(ClaimMs(tracker), 200);
  tracker.OnRoundConfirmed(2, Index(9), Index(9));  // known already
  tracker.OnRoundConfirmed(1, Index(9), Index(9));
  EXPECT_EQ(tracker.claim()->index, Index(5));
  tracker.OnRoundConfirmed(3, Index(6), Index(6));
  EXPECT_EQ(ClaimMs(tracker), 300);
}

TEST(FreshnessL4, RoundsOfAFormerTermAreForgotten) {
  FreshnessTracker tracker = Tracker();
  tracker.OnRoundStarted(1, At(100));
  tracker.ForgetRounds();
  tracker.OnRoundConfirmed(1, Index(5), Index(5));
  EXPECT_FALSE(tracker.claim());
}

TEST(FreshnessL4, ARoundWaitsForApplyToo) {
  FreshnessTracker tracker = Tracker();
  tracker.OnRoundStarted(1, At(100));
  tracker.OnRoundConfirmed(1, Index(5), Index(4));
  EXPECT_FALSE(tracker.claim());
  tracker.OnApplied(Index(6));
  EXPECT_EQ(ClaimMs(tracker), 100);
}

}  // namespace
}  // namespace holdfast::raft::test
