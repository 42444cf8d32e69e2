// What is refused before it is proposed. The answers marked "etcd" were taken from etcd 3.4.23
// (holdfast-compat asks it again where it is installed).
#include "server/kv_validate.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "holdfast/command.pb.h"
#include "kv_test_util.h"
#include "server/etcd_errors.h"

namespace holdfast::server {
namespace {

using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::PutRequest;
using etcdserverpb::RangeRequest;
using etcdserverpb::TxnRequest;
using testing::Parse;

TEST(KvValidate, Range) {
  EXPECT_EQ(CheckRange(Parse<RangeRequest>("")), ErrEmptyKey());
  EXPECT_EQ(CheckRange(Parse<RangeRequest>("range_end: 'x'")), ErrEmptyKey());
  EXPECT_TRUE(CheckRange(Parse<RangeRequest>("key: 'a' limit: -1 revision: -3")).ok());
  EXPECT_EQ(CheckRange(Parse<RangeRequest>("key: 'a' sort_order: 9")), ErrInvalidSortOption());
  EXPECT_EQ(CheckRange(Parse<RangeRequest>("key: 'a' sort_target: 9")), ErrInvalidSortOption());
}

TEST(KvValidate, Put) {
  const struct {
    const char* request;
    absl::Status expected;
  } cases[] = {
      {"", ErrEmptyKey()},
      {"value: 'x' ignore_value: true", ErrEmptyKey()},
      {"key: 'a'", absl::OkStatus()},
      {"key: 'a' value: 'x' ignore_value: true", ErrValueProvided()},
      {"key: 'a' ignore_value: true", absl::OkStatus()},
      {"key: 'a' lease: 5 ignore_lease: true", ErrLeaseProvided()},
      {"key: 'a' value: 'x' lease: 5 ignore_lease: true ignore_value: true", ErrValueProvided()},
      {"key: 'a' ignore_lease: true", absl::OkStatus()},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(CheckPut(Parse<PutRequest>(c.request)), c.expected) << c.request;
  }
}

TEST(KvValidate, DeleteRange) {
  EXPECT_EQ(CheckDeleteRange(Parse<DeleteRangeRequest>("range_end: 'b'")), ErrEmptyKey());
  EXPECT_TRUE(CheckDeleteRange(Parse<DeleteRangeRequest>("key: 'b' range_end: 'a'")).ok());
}

absl::Status Check(const std::string& text, size_t max_ops = 128) {
  return CheckTxn(Parse<TxnRequest>(text), {.max_ops = max_ops});
}

TEST(KvValidate, TxnOperationsAreCheckedAsIfTheyStoodAlone) {
  EXPECT_TRUE(Check("").ok());
  EXPECT_TRUE(Check("success { request_txn {} }").ok());
  EXPECT_EQ(Check("success {}"), ErrKeyNotFound());
  EXPECT_EQ(Check("failure {}"), ErrKeyNotFound());
  EXPECT_EQ(Check("success { request_txn { failure {} } }"), ErrKeyNotFound());
  EXPECT_EQ(Check("compare {}"), ErrEmptyKey());
  EXPECT_EQ(Check("success { request_put {} }"), ErrEmptyKey());
  EXPECT_EQ(Check("failure { request_range {} }"), ErrEmptyKey());
  EXPECT_EQ(Check("success { request_delete_range {} }"), ErrEmptyKey());
  EXPECT_EQ(Check("success { request_txn { success { request_put {} } } }"), ErrEmptyKey());
  EXPECT_EQ(Check("success { request_range { key: 'a' sort_order: 9 } }"), ErrInvalidSortOption());
}

TEST(KvValidate, UnknownCompareIsRefusedAndNamed) {
  const absl::Status target = Check("compare { key: 'a' target: 9 }");
  EXPECT_TRUE(absl::IsInvalidArgument(target));
  EXPECT_NE(target.message().find("unknown compare target 9"), absl::string_view::npos) << target;
  const absl::Status result = Check("compare { key: 'a' result: 7 }");
  EXPECT_TRUE(absl::IsInvalidArgument(result));
  EXPECT_NE(result.message().find("unknown compare result 7"), absl::string_view::npos) << result;
}

TEST(KvValidate, TooManyOperationsByLevel) {
  const auto ops = [](int n, const char* where) {
    std::string text;
    for (int i = 0; i < n; ++i) {
      text += fmt::format("{} {{ request_range {{ key: 'k{}' }} }} ", where, i);
    }
    return text;
  };
  EXPECT_TRUE(Check(ops(4, "success") + ops(4, "failure"), 4).ok());  // the longest list counts
  EXPECT_EQ(Check(ops(5, "success"), 4), ErrTooManyOps());
  EXPECT_EQ(Check(ops(5, "failure"), 4), ErrTooManyOps());
  EXPECT_EQ(Check("compare { key: 'a' } compare { key: 'a' } compare { key: 'a' }", 2),
            ErrTooManyOps());
  // One operation at the top leaves three for the nested level.
  EXPECT_TRUE(Check("success { request_txn { " + ops(3, "success") + "} }", 4).ok());
  EXPECT_EQ(Check("success { request_txn { " + ops(4, "success") + "} }", 4), ErrTooManyOps());
}

TEST(KvValidate, DuplicateKeys) {
  const std::string put = "request_put { key: 'k' }";
  const std::string del = "request_delete_range { key: 'k' }";
  const auto span = [](const char* key, const char* end) {
    return fmt::format("request_delete_range {{ key: '{}' range_end: '{}' }}", key, end);
  };
  const auto txn = [](const std::string& success, const std::string& failure = "") {
    return "request_txn { success { " + success + " }" +
           (failure.empty() ? "" : " failure { " + failure + " }") + " }";
  };
  const struct {
    std::vector<std::string> ops;
    bool duplicate;
  } cases[] = {
      // All etcd.
      {{put, put}, true},
      {{put, del}, true},
      {{del, put}, true},
      {{del, del}, false},
      {{span("j", "l"), put}, true},
      {{span("k", "l"), put}, true},
      {{span("j", "k"), put}, false},
      {{span("k", "a"), put}, false},
      {{span("j", "\\000"), put}, false},
      {{put, txn(put)}, true},
      {{txn(put), put}, true},
      {{put, txn("request_range { key: 'k' }", put)}, true},
      {{put, txn(del)}, true},
      {{del, txn(put)}, true},
      {{txn(put), del}, true},
      {{txn(del), put}, true},
      {{txn(put, put)}, false},
      {{txn(put, del)}, false},
      {{txn(put, put), txn(put)}, true},
      {{txn(del), txn(del)}, false},
      {{txn(put), txn(del)}, false},
      {{txn(del), txn(put)}, true},
      {{txn(txn(put)), txn(txn(put))}, true},
      {{txn(txn(put), txn(put))}, false},
  };
  for (const auto& c : cases) {
    for (const char* branch : {"success", "failure"}) {
      std::string text;
      for (const std::string& op : c.ops) text += fmt::format("{} {{ {} }} ", branch, op);
      EXPECT_EQ(Check(text), c.duplicate ? ErrDuplicateKey() : absl::OkStatus()) << text;
    }
  }
  EXPECT_TRUE(Check("success { " + put + " } failure { " + put + " }").ok());
}

TxnRequest Nested(int depth) {
  TxnRequest txn;
  TxnRequest* level = &txn;
  for (int i = 1; i < depth; ++i) level = level->add_success()->mutable_request_txn();
  level->add_success()->mutable_request_put()->set_key("k");
  return txn;
}

TEST(KvValidate, DeepNestingIsRefusedWithAHint) {
  EXPECT_TRUE(CheckTxn(Nested(kMaxTxnDepth), {.max_ops = 1000}).ok());
  const absl::Status status = CheckTxn(Nested(kMaxTxnDepth + 1), {.max_ops = 1000});
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_NE(status.message().find("flatten"), absl::string_view::npos) << status;
}

// An entry that is accepted and then does not parse would stop every member.
TEST(KvValidate, TheDeepestAcceptedCommandParses) {
  command::v1::Command command;
  *command.mutable_txn() = Nested(kMaxTxnDepth);
  command::v1::Command parsed;
  EXPECT_TRUE(parsed.ParseFromString(command.SerializeAsString()));
}

TEST(KvValidate, ReadOnlyAndSerializable) {
  const struct {
    const char* request;
    bool read_only;
    bool serializable;
  } cases[] = {
      {"", true, false},
      {"compare { key: 'a' }", true, false},
      {"success { request_range { key: 'a' } }", true, false},
      {"success { request_range { key: 'a' serializable: true } }", true, true},
      {"success { request_range { key: 'a' serializable: true } } "
       "failure { request_range { key: 'a' } }",
       true, false},
      {"success { request_txn { success { request_range { key: 'a' serializable: true } } } }",
       true, true},
      {"success { request_put { key: 'a' } }", false, false},
      {"failure { request_delete_range { key: 'a' } }", false, false},
      {"success { request_txn { failure { request_put { key: 'a' } } } }", false, false},
  };
  for (const auto& c : cases) {
    const auto request = Parse<TxnRequest>(c.request);
    EXPECT_EQ(IsReadOnly(request), c.read_only) << c.request;
    if (c.read_only) {
      EXPECT_EQ(IsSerializable(request), c.serializable) << c.request;
    }
  }
}

}  // namespace
}  // namespace holdfast::server
