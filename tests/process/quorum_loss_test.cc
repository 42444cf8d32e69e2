// Two of three gone: the last one goes on answering, each answer with an age that holds.
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

const auto kAnyAge = ReadOptions::Bounded(absl::InfiniteDuration());

TEST(QuorumLoss, SurvivorServesAgingReadsAlsoAfterItsOwnRestart) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  auto all = OpenClient(cluster->Endpoints());
  ASSERT_TRUE(all->Put("/config/a", "1", {.deadline = kGiveUp}).ok());
  const int survivor = (*cluster->Leader() + 1) % 3;
  auto lone = OpenClient({cluster->endpoint(survivor)});
  // The survivor has the write before the others go.
  ASSERT_TRUE(lone->Get("/config/a", ReadOptions::Linearizable().Deadline(kGiveUp)).ok());

  const absl::Time lost = absl::Now();
  for (int m = 0; m < 3; ++m) {
    if (m != survivor) {
      ASSERT_TRUE(cluster->Kill(m).ok());
    }
  }
  const auto first = lone->Get("/config/a", kAnyAge);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE(first->value.has_value());
  EXPECT_EQ(first->value->value, "1");
  EXPECT_EQ(first->fresh.proof(), Proof::kProven);

  // Refused for certain, and typed: nothing was written.
  const auto put = lone->Put("/config/a", "2");
  EXPECT_TRUE(absl::IsUnavailable(put.status()) || MaybeCommitted(put.status())) << put.status();
  const auto again = lone->Put("/config/a", "2");
  EXPECT_TRUE(absl::IsUnavailable(again.status())) << again.status();
  EXPECT_FALSE(lone->Get("/config/a", ReadOptions::Linearizable()).ok());

  // No claim can be made any more, so the age is at least the time since the loss, less what an
  // answer under way then was worth.
  const auto later = lone->Get("/config/a", kAnyAge);
  ASSERT_TRUE(later.ok()) << later.status();
  EXPECT_EQ(later->value->value, "1");
  EXPECT_GE(later->fresh.MaxAge(), absl::Now() - lost - absl::Seconds(1));
  const auto bounded = lone->Get("/config/a", ReadOptions::Bounded(absl::Milliseconds(1)));
  EXPECT_TRUE(absl::IsFailedPrecondition(bounded.status())) << bounded.status();
  ASSERT_TRUE(BestAvailable(bounded.status()).has_value());

  ASSERT_TRUE(cluster->Kill(survivor).ok());
  ASSERT_TRUE(cluster->Restart(survivor).ok());
  absl::StatusOr<Read<std::optional<Entry>>> alone = absl::UnavailableError("not asked yet");
  for (const absl::Time give_up = absl::Now() + kGiveUp; !alone.ok() && absl::Now() < give_up;) {
    alone = lone->Get("/config/a", kAnyAge);
  }
  ASSERT_TRUE(alone.ok()) << alone.status() << cluster->LogTail(survivor);
  ASSERT_TRUE(alone->value.has_value());
  EXPECT_EQ(alone->value->value, "1");
  // Freshness F4: the same boot, so the age goes on where it was; it is never younger.
  if (alone->fresh.proof() == Proof::kProven) {
    EXPECT_GE(alone->fresh.MaxAge(), later->fresh.MaxAge() - absl::Seconds(2));
  }
}

}  // namespace
}  // namespace holdfast
