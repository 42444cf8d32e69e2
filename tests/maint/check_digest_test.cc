// The digest that a Check asks for, over real stores: equal states give equal ones, and every way
// in which two members can differ shows in it, at the borders between two checks too.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "server/apply_check.h"
#include "tests/storage_mvcc/mvcc_test_util.h"

namespace holdfast::server {
namespace {

using command::v1::Check;
using storage::MustCommit;
using storage::MustPut;
using storage::MvccStore;
using storage::ScratchDir;

class Member {
 public:
  Member() : store_(storage::MustOpen(dir_.store())), writer_(store_->NewWriter()) {}

  CheckResult Run(const Check& check) const {
    ApplyEffects effects;
    ApplyContext context;
    context.index = Index(9);
    context.effects = &effects;
    EXPECT_TRUE(ApplyCheck(check, context, *writer_).ok());
    EXPECT_EQ(effects.checks.size(), 1u);
    return effects.checks.at(0);
  }
  // As the leader goes over all data with these limits; digests in order.
  std::vector<uint64_t> Pass(uint64_t max_records, const std::vector<std::string>* froms = nullptr,
                             std::vector<std::string>* used = nullptr) const {
    std::vector<uint64_t> digests;
    Check check;
    check.set_part(Check::DATA);
    check.set_max_records(max_records);
    check.set_max_bytes(1 << 20);
    for (size_t i = 0;; ++i) {
      if (froms != nullptr) {
        if (i == froms->size()) return digests;
        check.set_from((*froms)[i]);
      }
      if (used != nullptr) used->push_back(check.from());
      const CheckResult result = Run(check);
      digests.push_back(result.low);
      if (froms == nullptr) {
        if (result.next.empty()) return digests;
        check.set_from(result.next);
      }
    }
  }

  ScratchDir dir_;
  std::unique_ptr<MvccStore> store_;
  std::unique_ptr<MvccStore::Writer> writer_;
};

void Fill(Member& member, const std::string& value_of_k5 = "v5") {
  for (int i = 0; i < 10; ++i) {
    MustPut(*member.writer_, "k" + std::to_string(i),
            i == 5 ? value_of_k5 : "v" + std::to_string(i));
  }
  MustCommit(*member.writer_, 9);
}

// One revision that leaves no live record behind.
void EmptyRevision(Member& member) {
  member.writer_->BeginRevision();
  EXPECT_TRUE(member.writer_->Put("y", "v", 0, nullptr).ok());
  EXPECT_TRUE(member.writer_->DeleteRange("y", "", nullptr).ok());
  EXPECT_TRUE(member.writer_->EndRevision());
  MustCommit(*member.writer_, 10);
}

TEST(CheckDigest, EqualStatesGiveEqualDigestsInAnyPieces) {
  Member one, two;
  Fill(one);
  Fill(two);
  ASSERT_TRUE(one.store_->Flush().ok());
  for (const uint64_t records : {1, 3, 100}) EXPECT_EQ(one.Pass(records), two.Pass(records));
  EXPECT_EQ(one.Pass(3).size(), 4u);
  EXPECT_EQ(one.Pass(100).size(), 1u);
}

TEST(CheckDigest, AnotherValueOfTheSameLengthShows) {
  Member one, two;
  Fill(one);
  Fill(two, "w5");
  EXPECT_EQ(one.store_->applied().revision, two.store_->applied().revision);
  EXPECT_NE(one.Pass(100), two.Pass(100));
}

// A key that one member lacks, wherever it falls between two checks, shows when the other's borders
// are used.
TEST(CheckDigest, AMissingKeyShowsAtEveryBorder) {
  for (int missing = 0; missing < 10; ++missing) {
    Member whole, lacking;
    Fill(whole);
    Fill(lacking);
    EmptyRevision(whole);
    storage::MustDelete(*lacking.writer_, "k" + std::to_string(missing));
    MustCommit(*lacking.writer_, 10);
    ASSERT_EQ(whole.store_->applied().revision, lacking.store_->applied().revision);
    for (const uint64_t records : {1, 2, 3, 4}) {
      for (const auto& [leader, other] : {std::pair(&whole, &lacking), {&lacking, &whole}}) {
        std::vector<std::string> froms;
        const std::vector<uint64_t> theirs = leader->Pass(records, nullptr, &froms);
        EXPECT_NE(theirs, other->Pass(records, &froms)) << missing << " in pieces of " << records;
      }
    }
  }
}

TEST(CheckDigest, TheStateMachinesOwnRecordsCount) {
  Member one, two;
  Fill(one);
  Fill(two);
  Check check;
  check.set_part(Check::META);
  check.set_max_records(10);
  check.set_max_bytes(1000);
  EXPECT_EQ(one.Run(check).low, two.Run(check).low);
  two.writer_->PutMeta("alarm/x", "");
  EXPECT_NE(one.Run(check).low, two.Run(check).low);
}

}  // namespace
}  // namespace holdfast::server
