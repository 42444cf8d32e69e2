// The commands about leases, applied: what goes, in which revision, and what does not count.
#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kv_test_util.h"
#include "server/apply_command.h"
#include "server/etcd_errors.h"
#include "server/lease_record.h"
#include "server/state_machine.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Kind = LeaseChange::Kind;

class LeaseApply : public ::testing::Test {
 protected:
  ApplyResult Do(const std::string& text, Term term = Term(3)) {
    return Do(testing::Parse<Command>(text), term);
  }
  ApplyResult Do(const Command& command, Term term = Term(3)) {
    AlarmSet alarms;
    effects_ = {};
    auto result = ApplyCommand(
        command, true, {.index = ++index_, .term = term, .alarms = &alarms, .effects = &effects_},
        *writer_);
    CHECK_OK(result.status());
    return *std::move(result);
  }
  void Grant(int64_t id, int64_t ttl_s = 60) {
    Command command;
    command.mutable_lease_grant()->set_id(id);
    command.mutable_lease_grant()->set_ttl_s(ttl_s);
    ASSERT_TRUE(Do(command).status.ok());
  }
  void Put(const std::string& key, int64_t lease) {
    Command command;
    command.mutable_put()->set_key(key);
    command.mutable_put()->set_lease(lease);
    ASSERT_TRUE(Do(command).status.ok());
  }
  ApplyResult Expire(std::vector<int64_t> ids, uint64_t proposed, Index as_of,
                     Term term = Term(3)) {
    Command command;
    command.mutable_lease_expiry()->set_term(proposed);
    command.mutable_lease_expiry()->set_as_of(as_of.value);
    command.mutable_lease_expiry()->mutable_ids()->Assign(ids.begin(), ids.end());
    return Do(command, term);
  }
  void Commit() { CHECK_OK(writer_->Commit(index_, Term(3))); }
  void Restart() {
    Commit();
    writer_.reset();
    CHECK_OK(store_->Flush().status());
    store_.reset();
    store_ = testing::OpenStore(dir_ / "db");
    writer_ = store_->NewWriter();
  }
  std::vector<std::string> KeysOf(int64_t lease) {
    std::vector<std::string> keys;
    CHECK_OK(writer_->ScanLeaseKeys(lease, [&](std::string_view key) {
      keys.emplace_back(key);
      return true;
    }));
    return keys;
  }
  bool Has(const std::string& key) { return (*writer_->Get(key)).has_value(); }
  bool HasLease(int64_t id) { return (*writer_->GetMeta(LeaseMetaKey(id))).has_value(); }
  int64_t Remaining(int64_t id) {
    LeaseRecord record;
    CHECK(DecodeLeaseRecord(**writer_->GetMeta(LeaseMetaKey(id)), &record));
    return record.remaining_ms;
  }

  testing::TempDir dir_;
  std::unique_ptr<storage::MvccStore> store_ = testing::OpenStore(dir_ / "db");
  std::unique_ptr<storage::MvccStore::Writer> writer_ = store_->NewWriter();
  Index index_;
  ApplyEffects effects_;
};

TEST_F(LeaseApply, AKeyIsAttachedToTheLeaseOfItsLastPut) {
  Grant(1);
  Grant(2);
  Put("a", 1);
  Put("b", 1);
  EXPECT_THAT(KeysOf(1), ElementsAre("a", "b"));
  Put("a", 2);
  EXPECT_THAT(KeysOf(1), ElementsAre("b"));
  EXPECT_THAT(KeysOf(2), ElementsAre("a"));
  Put("a", 0);
  EXPECT_THAT(KeysOf(2), IsEmpty());
  ASSERT_TRUE(Do("delete_range { key: 'b' }").status.ok());
  EXPECT_THAT(KeysOf(1), IsEmpty());
}

TEST_F(LeaseApply, IgnoreLeaseKeepsTheAttachmentAndIgnoreValueChangesIt) {
  Grant(1);
  Grant(2);
  Put("a", 1);
  ASSERT_TRUE(Do("put { key: 'a' value: 'new' ignore_lease: true }").status.ok());
  EXPECT_THAT(KeysOf(1), ElementsAre("a"));
  ASSERT_TRUE(Do("put { key: 'a' ignore_value: true lease: 2 }").status.ok());
  EXPECT_THAT(KeysOf(1), IsEmpty());
  EXPECT_THAT(KeysOf(2), ElementsAre("a"));
}

TEST_F(LeaseApply, WithinOneTransactionTheLastWordCounts) {
  Grant(1);
  Put("a", 0);
  ASSERT_TRUE(Do("txn { success { request_put { key: 'a' lease: 1 } }"
                 "      success { request_delete_range { key: 'a' } } }")
                  .status.ok());
  EXPECT_THAT(KeysOf(1), IsEmpty());
  ASSERT_TRUE(Do("txn { success { request_delete_range { key: 'a' range_end: 'z' } }"
                 "      success { request_put { key: 'a' lease: 1 } } }")
                  .status.ok());
  EXPECT_THAT(KeysOf(1), ElementsAre("a"));
}

TEST_F(LeaseApply, ALeaseThatIsNotThereIsRefusedBeforeAnythingIsWritten) {
  EXPECT_EQ(Do("put { key: 'a' lease: 9 }").status, ErrLeaseNotFound());
  EXPECT_EQ(Do("txn { success { request_put { key: 'b' } }"
               "      success { request_put { key: 'a' lease: 9 } } }")
                .status,
            ErrLeaseNotFound());
  EXPECT_FALSE(Has("b"));
  EXPECT_EQ(writer_->revision(), 1);
}

TEST_F(LeaseApply, ARevocationTakesTheKeysInTheirOrderInOneRevision) {
  Grant(1);
  Put("c", 1);
  Put("a", 1);
  Put("b", 0);
  const int64_t before = writer_->revision();
  std::vector<std::string> events;
  writer_->SetEventSink([&](const storage::EventView& event) {
    events.push_back(fmt::format("{}{} at {}.{}", event.is_delete ? "-" : "+", event.kv.key,
                                 event.revision - before, event.sub));
  });
  ApplyResult revoked = Do("lease_revoke { id: 1 }");
  ASSERT_TRUE(revoked.status.ok());
  EXPECT_THAT(events, ElementsAre("-a at 1.0", "-c at 1.1"));
  EXPECT_EQ(writer_->revision(), before + 1);
  EXPECT_EQ(
      static_cast<etcdserverpb::LeaseRevokeResponse*>(revoked.response.get())->header().revision(),
      before + 1);
  EXPECT_TRUE(Has("b"));
  ASSERT_EQ(effects_.leases.size(), 1u);
  EXPECT_EQ(effects_.leases[0].kind, Kind::kGone);
  EXPECT_EQ(Do("lease_revoke { id: 1 }").status, ErrLeaseNotFound());
  EXPECT_EQ(Do("lease_revoke { id: 0 }").status, ErrLeaseNotFound());
}

TEST_F(LeaseApply, ALeaseWithoutKeysUsesNoRevision) {
  Grant(1);
  EXPECT_EQ(writer_->revision(), 1);
  ASSERT_TRUE(Do("lease_revoke { id: 1 }").status.ok());
  EXPECT_EQ(writer_->revision(), 1);
}

TEST_F(LeaseApply, AnIdIsGrantedOnce) {
  Grant(1);
  EXPECT_EQ(Do("lease_grant { id: 1 ttl_s: 5 }").status, ErrLeaseExist());
  EXPECT_THAT(effects_.leases, IsEmpty());
}

TEST_F(LeaseApply, AnExpiryTakesEachLeaseInARevisionOfItsOwnAndPassesOverUnknownOnes) {
  Grant(1);
  Grant(2);
  Put("a", 1);
  Put("b", 2);
  const int64_t before = writer_->revision();
  ASSERT_TRUE(Expire({2, 77, 1}, 3, index_).status.ok());
  EXPECT_EQ(writer_->revision(), before + 2);
  EXPECT_FALSE(Has("a") || Has("b") || HasLease(1) || HasLease(2));
  ASSERT_EQ(effects_.leases.size(), 2u);
  EXPECT_EQ(effects_.leases[0].id, 2);
  EXPECT_EQ(effects_.leases[1].id, 1);
}

TEST_F(LeaseApply, AnExpiryOfAnotherTermMeansNothing) {
  Grant(1);
  Put("a", 1);
  ASSERT_TRUE(Expire({1}, /*proposed=*/2, index_, Term(3)).status.ok());
  EXPECT_TRUE(Has("a") && HasLease(1));
  EXPECT_THAT(effects_.leases, IsEmpty());
}

TEST_F(LeaseApply, AnExpiryLeavesALeaseThatWasGrantedBehindItsDecision) {
  Grant(1);
  const Index decided = index_;
  ASSERT_TRUE(Do("lease_revoke { id: 1 }").status.ok());
  Grant(1);
  Put("a", 1);
  ASSERT_TRUE(Expire({1}, 3, decided).status.ok());
  EXPECT_TRUE(Has("a") && HasLease(1));
}

TEST_F(LeaseApply, ACheckpointCountsInItsTermForTheLeaseThatItMeant) {
  Grant(1, 1000);
  const auto checkpoint = [this](uint64_t term, uint64_t as_of, int64_t ms) {
    return Do(
        fmt::format("lease_checkpoint {{ term: {} as_of: {} leases {{ id: 1 ms: {} }} "
                    "leases {{ id: 9 ms: 1 }} }}",
                    term, as_of, ms));
  };
  ASSERT_TRUE(checkpoint(3, index_.value, 5000).status.ok());
  EXPECT_EQ(Remaining(1), 5000);
  ASSERT_EQ(effects_.leases.size(), 1u);
  EXPECT_EQ(effects_.leases[0].remaining_ms, 5000);
  ASSERT_TRUE(checkpoint(2, index_.value, 1).status.ok());
  EXPECT_EQ(Remaining(1), 5000);
  ASSERT_TRUE(checkpoint(3, 0, 1).status.ok());
  EXPECT_EQ(Remaining(1), 5000);
  ASSERT_TRUE(checkpoint(3, index_.value, -1).status.ok());
  EXPECT_EQ(Remaining(1), -1);
}

TEST_F(LeaseApply, EverythingIsThereAfterARestart) {
  Grant(1, 1000);
  Grant(2);
  Put("a", 1);
  Put("b", 1);
  Put("b", 2);
  Restart();
  EXPECT_TRUE(HasLease(1) && HasLease(2));
  EXPECT_THAT(KeysOf(1), ElementsAre("a"));
  EXPECT_THAT(KeysOf(2), ElementsAre("b"));
  ASSERT_TRUE(Do("lease_revoke { id: 2 }").status.ok());
  Restart();
  EXPECT_FALSE(Has("b") || HasLease(2));
}

TEST_F(LeaseApply, EverythingIsThereInACheckpointOfTheStore) {
  Grant(1);
  Put("a", 1);
  Commit();
  CHECK_OK(store_->Checkpoint(dir_ / "copy").status());
  const auto copy = testing::OpenStore(dir_ / "copy");
  const auto view = copy->NewView();
  EXPECT_TRUE((*view->GetMeta(LeaseMetaKey(1))).has_value());
  std::vector<std::string> keys;
  CHECK_OK(view->ScanLeaseKeys(1, [&](std::string_view key) {
    keys.emplace_back(key);
    return true;
  }));
  EXPECT_THAT(keys, ElementsAre("a"));
}

TEST(LeaseRecordTest, KeysSortByIdAndForeignOnesAreToldApart) {
  EXPECT_LT(LeaseMetaKey(1), LeaseMetaKey(256));
  int64_t id = 0;
  EXPECT_TRUE(ParseLeaseMetaKey(LeaseMetaKey(-7), &id));
  EXPECT_EQ(id, -7);
  EXPECT_FALSE(ParseLeaseMetaKey("lease/short", &id));
  EXPECT_FALSE(ParseLeaseMetaKey("member/12345678", &id));
  LeaseRecord record;
  EXPECT_FALSE(DecodeLeaseRecord("", &record));
  EXPECT_TRUE(
      DecodeLeaseRecord(EncodeLeaseRecord({.ttl_s = 5, .remaining_ms = 7, .granted = 9}), &record));
  EXPECT_EQ(record.ttl_s, 5);
  EXPECT_EQ(record.remaining_ms, 7);
  EXPECT_EQ(record.granted, 9u);
}

}  // namespace
}  // namespace holdfast::server
