// One committed command at a time, on the real store: what etcd 3.4.23 answered to the same.
#include "server/apply_command.h"

#include <string>

#include <gtest/gtest.h>

#include "base/strings.h"
#include "kv_test_util.h"
#include "server/etcd_errors.h"
#include "server/kv_validate.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using testing::Parse;
using testing::Text;

class KvApply : public ::testing::Test {
 protected:
  // The answer in text format, or "CODE: text" of a refusal.
  std::string Apply(const std::string& command) {
    const auto result =
        testing::ApplyAlone(Parse<Command>(command), /*want_answer=*/true, *writer_);
    CHECK_MSG(result.ok(), result.status().ToString());
    CHECK_OK(writer_->Commit(store_->applied().index + 1, Term(1)));
    if (!result->status.ok()) return std::string(result->status.message());
    return result->response == nullptr ? "" : Text(*result->response);
  }
  int64_t revision() const { return store_->applied().revision; }

  testing::TempDir dir_;
  std::unique_ptr<storage::MvccStore> store_ = testing::OpenStore(dir_ / "db");
  std::unique_ptr<storage::MvccStore::Writer> writer_ = store_->NewWriter();
};

std::string TextOf(const absl::Status& status) { return std::string(status.message()); }

TEST_F(KvApply, PutAnswersWithTheNewRevisionAndThePreviousRecord) {
  EXPECT_EQ(Apply("put { key: 'a' value: '1' prev_kv: true }"), "header { revision: 2 }");
  EXPECT_EQ(Apply("put { key: 'a' value: '2' prev_kv: true }"),
            "header { revision: 3 } prev_kv { key: \"a\" create_revision: 2 mod_revision: 2 "
            "version: 1 value: \"1\" }");
  EXPECT_EQ(Apply("put { key: 'a' value: '3' }"), "header { revision: 4 }");
}

TEST_F(KvApply, IgnoreValueAndLeaseNeedAKey) {
  EXPECT_EQ(Apply("put { key: 'a' ignore_value: true }"), TextOf(ErrKeyNotFound()));
  EXPECT_EQ(Apply("put { key: 'a' value: 'x' ignore_lease: true }"), TextOf(ErrKeyNotFound()));
  EXPECT_EQ(revision(), 1);
  Apply("put { key: 'a' value: '1' }");
  EXPECT_EQ(Apply("put { key: 'a' ignore_value: true }"), "header { revision: 3 }");
  EXPECT_EQ(Apply("put { key: 'a' ignore_lease: true value: '2' prev_kv: true }"),
            "header { revision: 4 } prev_kv { key: \"a\" create_revision: 2 mod_revision: 3 "
            "version: 2 value: \"1\" }");
}

TEST_F(KvApply, NoLeaseIsEverFound) {
  EXPECT_EQ(Apply("put { key: 'a' lease: 7 }"), TextOf(ErrLeaseNotFound()));
  EXPECT_EQ(Apply("put { key: 'a' lease: -1 }"), TextOf(ErrLeaseNotFound()));
  EXPECT_EQ(Apply("put { key: 'a' lease: 7 ignore_value: true }"), TextOf(ErrLeaseNotFound()));
  EXPECT_EQ(Apply("txn { success { request_put { key: 'a' } } "
                  "success { request_put { key: 'b' lease: 7 } } }"),
            TextOf(ErrLeaseNotFound()));
  EXPECT_EQ(revision(), 1);
}

TEST_F(KvApply, DeleteOfNothingUsesNoRevision) {
  EXPECT_EQ(Apply("delete_range { key: 'a' }"), "header { revision: 1 }");
  Apply("put { key: 'a' value: '1' }");
  Apply("put { key: 'b' value: '2' }");
  EXPECT_EQ(Apply("delete_range { key: 'a' range_end: 'c' prev_kv: true }"),
            "header { revision: 4 } deleted: 2 "
            "prev_kvs { key: \"a\" create_revision: 2 mod_revision: 2 version: 1 value: \"1\" } "
            "prev_kvs { key: \"b\" create_revision: 3 mod_revision: 3 version: 1 value: \"2\" }");
  EXPECT_EQ(Apply("delete_range { key: 'b' range_end: 'a' }"), "header { revision: 4 }");
}

TEST_F(KvApply, Compares) {
  Apply("put { key: 'a' value: '1' }");
  Apply("put { key: 'a' value: '2' }");  // create 2, mod 3, version 2
  Apply("put { key: 'b' value: '5' }");  // create 4, mod 4, version 1
  const struct {
    const char* compare;
    bool holds;
  } cases[] = {
      // All etcd.
      {"key: 'a' target: VERSION version: 2", true},
      {"key: 'a' target: VERSION", false},
      {"key: 'a' target: VERSION result: GREATER value: 'x'", true},  // another field: 0
      {"key: 'a' target: CREATE result: LESS create_revision: 3", true},
      {"key: 'a' target: MOD result: NOT_EQUAL mod_revision: 3", false},
      {"key: 'a' target: VALUE value: '2'", true},
      {"key: 'a' target: VALUE", false},
      {"key: 'a' target: LEASE lease: 0", true},
      {"key: 'no' target: VALUE value: ''", false},
      {"key: 'no' target: VALUE result: NOT_EQUAL value: 'x'", false},
      {"key: 'no' target: VALUE result: LESS value: 'x'", false},
      {"key: 'no' target: VERSION result: LESS version: 1", true},
      {"key: 'no' target: LEASE lease: 0", true},
      {"key: 'no' range_end: 'np' target: VALUE value: 'q'", false},
      {"key: 'no' range_end: 'np' target: VERSION version: 7", false},
      {"key: 'no' range_end: 'np' target: VERSION", true},
      {"key: 'a' range_end: 'c' target: VERSION result: GREATER version: 0", true},
      {"key: 'a' range_end: 'c' target: VERSION result: GREATER version: 1", false},
      {"key: 'a' range_end: '\\000' target: VALUE result: GREATER value: '1'", true},
      {"key: 'a' range_end: '\\000' target: VALUE result: GREATER value: '2'", false},
      {"key: 'b' range_end: 'a' target: VERSION result: GREATER version: 3", false},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Apply(fmt::format("txn {{ compare {{ {} }} success {{ request_delete_range {{ key: "
                                "'zz' }} }} }}",
                                c.compare))
                      .find("succeeded: true") != std::string::npos,
              c.holds)
        << c.compare;
  }
  // A conjunction.
  EXPECT_EQ(Apply("txn { compare { key: 'a' target: VERSION version: 2 } "
                  "compare { key: 'b' target: VERSION version: 2 } }"),
            "header { revision: 4 }");
}

TEST_F(KvApply, ReadsInATransactionSeeItsWritesAndOneRevision) {
  Apply("put { key: 'a' value: '1' }");
  EXPECT_EQ(
      Apply("txn { "
            "success { request_range { key: 'a' keys_only: true } } "
            "success { request_put { key: 'b' value: '2' prev_kv: true } } "
            "success { request_delete_range { key: 'a' prev_kv: true } } "
            "success { request_range { key: 'a' range_end: '\\000' } } }"),
      "header { revision: 3 } succeeded: true "
      "responses { response_range { header { revision: 2 } kvs { key: \"a\" create_revision: 2 "
      "mod_revision: 2 version: 1 } count: 1 } } "
      "responses { response_put { header { revision: 3 } } } "
      "responses { response_delete_range { header { revision: 3 } deleted: 1 prev_kvs { key: "
      "\"a\" create_revision: 2 mod_revision: 2 version: 1 value: \"1\" } } } "
      "responses { response_range { header { revision: 3 } kvs { key: \"b\" create_revision: 3 "
      "mod_revision: 3 version: 1 value: \"2\" } count: 1 } }");
}

TEST_F(KvApply, NestedComparesSeeTheStateBeforeTheTransaction) {
  Apply("put { key: 'w' value: '2' }");
  const std::string answer = Apply(
      "txn { success { request_put { key: 'w' value: '3' } } "
      "success { request_txn { compare { key: 'w' target: VALUE value: '3' } "
      "success { request_range { key: 'w' } } } } }");
  EXPECT_EQ(answer,
            "header { revision: 3 } succeeded: true "
            "responses { response_put { header { revision: 3 } } } "
            "responses { response_txn { header { } } }");
}

TEST_F(KvApply, DeleteEverythingAndPutAgain) {
  Apply("put { key: 'k' value: '1' }");
  Apply("put { key: 'k' value: '2' }");
  EXPECT_EQ(Apply("txn { success { request_delete_range { key: 'a' range_end: '\\000' } } "
                  "success { request_put { key: 'k' value: '9' prev_kv: true } } "
                  "success { request_range { key: 'k' } } }"),
            "header { revision: 4 } succeeded: true "
            "responses { response_delete_range { header { revision: 4 } deleted: 1 } } "
            "responses { response_put { header { revision: 4 } } } "
            "responses { response_range { header { revision: 4 } kvs { key: \"k\" "
            "create_revision: 4 mod_revision: 4 version: 1 value: \"9\" } count: 1 } }");
  // etcd 3.4 panics on the next one, in every member.
  EXPECT_EQ(Apply("txn { success { request_delete_range { key: 'a' range_end: '\\000' } } "
                  "success { request_put { key: 'k' ignore_value: true } } }"),
            TextOf(ErrKeyNotFound()));
  EXPECT_EQ(revision(), 4);
}

TEST_F(KvApply, ARefusedTransactionLeavesNothing) {
  Apply("put { key: 'a' value: '1' }");
  Apply("put { key: 'a' value: '2' }");
  Apply("compaction { revision: 3 }");
  const struct {
    const char* op;
    absl::Status expected;
  } cases[] = {
      {"request_put { key: 'no' ignore_value: true }", ErrKeyNotFound()},
      {"request_put { key: 'x' lease: 9 }", ErrLeaseNotFound()},
      {"request_range { key: 'a' revision: 4 }", ErrFutureRev()},
      {"request_range { key: 'a' revision: 2 }", ErrCompacted()},
      {"request_txn { success { request_put { key: 'no' ignore_lease: true } } }",
       ErrKeyNotFound()},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Apply(fmt::format("txn {{ success {{ request_put {{ key: 'w' value: '1' }} }} "
                                "success {{ request_delete_range {{ key: 'a' }} }} "
                                "success {{ {} }} }}",
                                c.op)),
              TextOf(c.expected))
        << c.op;
    EXPECT_EQ(revision(), 3);
    EXPECT_FALSE(store_->NewView()->Get("w")->has_value());
    EXPECT_TRUE(store_->NewView()->Get("a")->has_value());
  }
  // Off the chosen path nothing is asked.
  EXPECT_EQ(Apply("txn { failure { request_put { key: 'no' ignore_value: true } } }"),
            "header { revision: 3 } succeeded: true");
}

TEST_F(KvApply, Compaction) {
  for (int i = 0; i < 4; ++i) Apply("put { key: 'a' value: 'x' }");  // revision 5
  EXPECT_EQ(Apply("compaction { revision: 6 }"), TextOf(ErrFutureRev()));
  EXPECT_EQ(Apply("compaction { revision: -1 }"), TextOf(ErrCompacted()));
  EXPECT_EQ(Apply("compaction { revision: 3 }"), "header { revision: 5 }");
  EXPECT_EQ(Apply("compaction { revision: 3 }"), TextOf(ErrCompacted()));
  EXPECT_EQ(Apply("compaction { revision: 5 }"), "header { revision: 5 }");
  EXPECT_EQ(store_->applied().compact_revision, 5);
}

// Both are checked before the first write, on every member alike.
TEST_F(KvApply, AnswersTooLargeAreRefusedBeforeAnyWrite) {
  const std::string big(size_t{1} << 20, 'x');
  for (int i = 0; i < 65; ++i) {
    Command put;
    put.mutable_put()->set_key(fmt::format("big{:02}", i));
    put.mutable_put()->set_value(big);
    CHECK(testing::ApplyAlone(put, false, *writer_).ok());
  }
  CHECK_OK(writer_->Commit(Index(1), Term(1)));
  const int64_t before = revision();
  const std::string write = "txn { success { request_put { key: 'w' } } success { ";
  EXPECT_NE(Apply(write + "request_range { key: 'big' range_end: 'bih' } } }").find("page"),
            std::string::npos);
  EXPECT_NE(Apply(write + "request_delete_range { key: 'big' range_end: 'bih' prev_kv: true } } }")
                .find("without prev_kv"),
            std::string::npos);
  EXPECT_NE(Apply("txn { compare { key: 'big' range_end: 'bih' target: VALUE value: 'x' } "
                  "success { request_put { key: 'w' } } }")
                .find("compare smaller ranges"),
            std::string::npos);
  EXPECT_EQ(revision(), before);
  // Each of these fits: counted, keys only, limited, without the previous records.
  for (const char* op : {"request_range { key: 'big' range_end: 'bih' count_only: true }",
                         "request_range { key: 'big' range_end: 'bih' keys_only: true }",
                         "request_range { key: 'big' range_end: 'bih' limit: 3 }",
                         "request_delete_range { key: 'big' range_end: 'bih' }"}) {
    EXPECT_EQ(Apply(write + op + " } }").find("holdfast:"), std::string::npos) << op;
  }
  EXPECT_EQ(revision(), before + 4);
}

// The one way past the check: a delete moves larger records into a limited range.
TEST_F(KvApply, AnAnswerGrownByTheTransactionsOwnWritesIsCutAndSaysSo) {
  Command put;
  for (int i = 0; i < 200; ++i) {
    put.mutable_put()->set_key(fmt::format("a{:03}", i));
    CHECK(testing::ApplyAlone(put, false, *writer_).ok());
  }
  put.mutable_put()->set_value(std::string(size_t{1} << 20, 'x'));
  for (int i = 0; i < 200; ++i) {
    put.mutable_put()->set_key(fmt::format("b{:03}", i));
    CHECK(testing::ApplyAlone(put, false, *writer_).ok());
  }
  CHECK_OK(writer_->Commit(Index(1), Term(1)));
  EXPECT_EQ(Apply("txn { success { request_delete_range { key: 'a' range_end: 'b' } } "
                  "success { request_range { key: 'a' range_end: 'c' limit: 150 } } }"),
            "header { revision: 402 } succeeded: true "
            "responses { response_delete_range { header { revision: 402 } deleted: 200 } } "
            "responses { response_range { header { revision: 402 } more: true count: 200 } }");
}

TEST_F(KvApply, ClusterRecords) {
  EXPECT_EQ(Apply("cluster_birth { incarnation: 7 }"), "");
  EXPECT_EQ(Apply("cluster_birth { incarnation: 8 }"), "");
  const auto view = store_->NewView();
  EXPECT_EQ(base::ReadBigEndian64(**view->GetMeta(kMetaIncarnation)), 7u);
  EXPECT_EQ(revision(), 1);
}

// A newer version's command must not be skipped in silence: the members would differ.
TEST_F(KvApply, AnUnknownCommandIsFatal) {
  EXPECT_EQ(
      testing::ApplyAlone(Parse<Command>("origin: 1 sequence: 2"), true, *writer_).status().code(),
      absl::StatusCode::kDataLoss);
}

TEST_F(KvApply, AReadOnlyTransactionOnAView) {
  Apply("put { key: 'a' value: '1' }");
  Apply("put { key: 'a' value: '2' }");
  const auto view = store_->NewView();
  etcdserverpb::TxnResponse response;
  const auto evaluate = [&](const std::string& text, size_t max_bytes = 1000) {
    response.Clear();
    const auto request = Parse<etcdserverpb::TxnRequest>(text);
    CHECK(IsReadOnly(request));
    return EvaluateReadOnly(request, *view, max_bytes, /*take=*/nullptr, &response);
  };
  ASSERT_TRUE(evaluate("compare { key: 'a' target: VERSION version: 2 } "
                       "success { request_range { key: 'a' revision: 2 } } "
                       "success { request_txn { failure { request_range { key: 'z' } } } }")
                  .ok());
  EXPECT_EQ(Text(response),
            "header { revision: 3 } succeeded: true "
            "responses { response_range { header { revision: 3 } kvs { key: \"a\" "
            "create_revision: 2 mod_revision: 2 version: 1 value: \"1\" } count: 1 } } "
            "responses { response_txn { header { } succeeded: true } }");
  EXPECT_EQ(evaluate("success { request_range { key: 'a' revision: 4 } }"), ErrFutureRev());
  // The limit is one for all ranges together: two bytes each.
  EXPECT_TRUE(evaluate("success { request_range { key: 'a' } }", 3).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(evaluate(
      "success { request_range { key: 'a' } } success { request_range { key: 'a' } }", 3)));
}

}  // namespace
}  // namespace holdfast::server
