// The judge of the drills, against answers that lie in known ways.
#include "bench/drill_oracle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/rng.h"

namespace holdfast::bench {
namespace {

using testing::HasSubstr;

constexpr int64_t kSecond = 1'000'000'000;

class DrillOracleTest : public testing::Test {
 protected:
  // Revision r is acknowledged at second r.
  void AckEverySecond(int n) {
    for (int r = 1; r <= n; ++r) history_->Acked(uint64_t(r), r * kSecond);
  }

  DrillOracle oracle_;
  DrillOracle::History* const history_ = oracle_.AddHistory();
  DrillOracle::Reader* const reader_ = oracle_.AddReader(history_, "reader");
};

TEST_F(DrillOracleTest, HonestAgesPass) {
  AckEverySecond(10);
  // At second 8.5 shown 5: the first write missing, 6, was acknowledged 2.5 s ago.
  reader_->Read(5, 8 * kSecond + kSecond / 2, absl::Milliseconds(2500), Proof::kProven);
  reader_->Read(8, 8 * kSecond + kSecond / 2, absl::ZeroDuration(), Proof::kProven);
  const DrillOracle::Verdict verdict = oracle_.Check();
  EXPECT_TRUE(verdict.ok());
  EXPECT_EQ(verdict.claims, 2u);
  EXPECT_EQ(verdict.acks, 10u);
  EXPECT_EQ(verdict.caught_if_half, 1u);  // 1.25 s would have been a lie
}

TEST_F(DrillOracleTest, AnAgeThatIsTooSmallIsFoundAndTold) {
  AckEverySecond(10);
  reader_->Read(5, 8 * kSecond + kSecond / 2, absl::Milliseconds(2499), Proof::kProven);
  const DrillOracle::Verdict verdict = oracle_.Check();
  EXPECT_EQ(verdict.violations, 1u);
  ASSERT_EQ(verdict.examples.size(), 1u);
  EXPECT_THAT(verdict.examples[0], HasSubstr("reader: was shown revision 5"));
  EXPECT_THAT(verdict.examples[0], HasSubstr("revision 6 was"));
}

TEST_F(DrillOracleTest, OneLieAmongMillionsOfHonestReadsIsFound) {
  AckEverySecond(10);
  for (int i = 0; i < 2'000'000; ++i) {
    reader_->Read(5, 6 * kSecond, absl::Seconds(1), Proof::kProven);
    if (i == 1'234'567) reader_->Read(5, 6 * kSecond + 2, absl::Nanoseconds(1), Proof::kProven);
  }
  EXPECT_EQ(oracle_.Check().claims, 2'000'001u);
  EXPECT_EQ(oracle_.Check().violations, 1u);
}

TEST_F(DrillOracleTest, WritesThatAreTooFreshOrNotAcknowledgedDemandNothing) {
  history_->Acked(3, 3 * kSecond);
  reader_->Read(2, 3 * kSecond, absl::ZeroDuration(), Proof::kProven);  // the same instant
  // Of a write that nobody was told of, a reader may show what it likes.
  reader_->Read(9, 4 * kSecond, absl::ZeroDuration(), Proof::kProven);
  EXPECT_TRUE(oracle_.Check().ok());
}

TEST_F(DrillOracleTest, AcksMayComeOutOfOrder) {
  history_->Acked(8, 9 * kSecond);
  history_->Acked(7, 5 * kSecond);
  history_->Acked(6, 4 * kSecond);
  reader_->Read(6, 6 * kSecond, absl::Milliseconds(500), Proof::kProven);
  EXPECT_EQ(oracle_.Check().violations, 1u);
}

TEST_F(DrillOracleTest, AgesWithoutAProofAreCountedAndNotJudged) {
  AckEverySecond(10);
  reader_->Read(1, 9 * kSecond, absl::ZeroDuration(), Proof::kEstimated);
  reader_->Read(1, 9 * kSecond, absl::InfiniteDuration(), Proof::kUnknown);
  const DrillOracle::Verdict verdict = oracle_.Check();
  EXPECT_TRUE(verdict.ok());
  EXPECT_EQ(verdict.claims, 0u);
  EXPECT_EQ(verdict.unproven, 2u);
}

TEST_F(DrillOracleTest, AReaderIsNeverTakenBack) {
  reader_->Read(5, 1 * kSecond, absl::Seconds(9), Proof::kProven);
  reader_->Read(4, 2 * kSecond, absl::Seconds(9), Proof::kProven);
  reader_->Read(5, 3 * kSecond, absl::InfiniteDuration(), Proof::kUnknown);
  EXPECT_EQ(oracle_.Check().backwards, 1u);
  EXPECT_FALSE(oracle_.Check().ok());
}

TEST_F(DrillOracleTest, AnotherIncarnationMayBeginAnew) {
  reader_->Read(5, 1 * kSecond, absl::Seconds(9), Proof::kProven);
  reader_->NewIncarnation();
  reader_->Read(2, 2 * kSecond, absl::Seconds(9), Proof::kProven);
  EXPECT_TRUE(oracle_.Check().ok());
}

TEST_F(DrillOracleTest, GroupsOfAnotherProcessCountAsItsReads) {
  AckEverySecond(10);
  DrillOracle child;
  DrillOracle::Reader* const grouping = child.AddReader(nullptr, "");
  grouping->Read(5, 6 * kSecond, absl::Seconds(3), Proof::kProven);
  grouping->Read(5, 7 * kSecond + 1, absl::Seconds(1), Proof::kProven);
  grouping->Read(7, 8 * kSecond, absl::Seconds(1), Proof::kProven);
  const std::vector<ClaimGroup> groups = grouping->Take();
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_TRUE(grouping->Take().empty());
  for (const ClaimGroup& group : groups) reader_->Add(group);
  const DrillOracle::Verdict verdict = oracle_.Check();
  EXPECT_EQ(verdict.claims, 3u);
  EXPECT_EQ(verdict.violations, 1u);  // at 7 s + 1 ns, 1 s old, without the write of second 6
}

// Against a judge that keeps every read.
TEST_F(DrillOracleTest, AgreesWithOneThatForgetsNothing) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    base::Rng rng(seed);
    DrillOracle oracle;
    DrillOracle::History* const history = oracle.AddHistory();
    DrillOracle::Reader* const reader = oracle.AddReader(history, "r");
    struct Ack {
      uint64_t revision;
      int64_t at_ns;
    };
    std::vector<Ack> acks;
    for (uint64_t r = 1; r <= 20; ++r) {
      acks.push_back({r, int64_t(r * 10 + rng.Below(15))});
      history->Acked(acks.back().revision, acks.back().at_ns);
    }
    bool lie = false;
    uint64_t shown = 0;
    for (int i = 0; i < 30; ++i) {
      shown += rng.Below(2);
      const int64_t at_ns = 10 + int64_t(rng.Below(200));
      const int64_t age_ns = int64_t(rng.Below(200));
      reader->Read(shown, at_ns, absl::Nanoseconds(age_ns), Proof::kProven);
      for (const Ack& ack : acks) {
        lie = lie || (ack.at_ns < at_ns - age_ns && ack.revision > shown);
      }
    }
    ASSERT_EQ(oracle.Check().violations > 0, lie) << "seed " << seed;
  }
}

TEST_F(DrillOracleTest, WritersAndReadersRunBesideEachOther) {
  std::thread writer([&] {
    for (uint64_t r = 1; r <= 10'000; ++r) history_->Acked(r, BootNs());
  });
  for (int i = 0; i < 10'000; ++i) {
    reader_->Read(0, BootNs(), absl::Hours(24), Proof::kProven);
  }
  writer.join();
  EXPECT_EQ(oracle_.Check().acks, 10'000u);
  EXPECT_TRUE(oracle_.Check().ok());
}

}  // namespace
}  // namespace holdfast::bench
