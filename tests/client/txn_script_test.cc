// The text form of holdfastctl's transactions.
#include <string>

#include <gtest/gtest.h>

#include "client/ctl/commands.h"
#include "client/ctl/txn_script.h"

namespace holdfast::ctl {
namespace {

TEST(TxnScript, ReadsThreeSections) {
  const auto txn = ParseTxnScript(
      "value(\"/config/a\") = \"old value\"\n"
      "mod(k) > \"7\"\n"
      "  version( \"k\" ) != 0\r\n"
      "\n"
      "put /config/a \"a\\n\\x00\\\"b\\\\\"\n"
      "del /old/ --prefix\n"
      "\n"
      "get /config/a\n");
  ASSERT_TRUE(txn.ok()) << txn.status();
  ASSERT_EQ(txn->compares().size(), 3u);
  EXPECT_EQ(txn->compares()[0].target(), Compare::Target::kValue);
  EXPECT_EQ(txn->compares()[0].value(), "old value");
  EXPECT_EQ(txn->compares()[1].target(), Compare::Target::kModRevision);
  EXPECT_EQ(txn->compares()[1].relation(), Compare::Relation::kGreater);
  EXPECT_EQ(txn->compares()[1].number(), 7);
  EXPECT_EQ(txn->compares()[2].relation(), Compare::Relation::kNotEqual);
  ASSERT_EQ(txn->then_ops().size(), 2u);
  EXPECT_EQ(txn->then_ops()[0].value(), std::string("a\n\0\"b\\", 6));
  EXPECT_EQ(txn->then_ops()[1].query().range_end, "/old0");
  ASSERT_EQ(txn->else_ops().size(), 1u);
  EXPECT_EQ(txn->else_ops()[0].kind(), Op::Kind::kGet);
}

TEST(TxnScript, NamesTheLineThatIsWrong) {
  for (const char* bad :
       {"", "value(k) = v\n", "frob(k) = 1\n\nget k\n", "mod(k) = x\n\nget k\n",
        "mod(k) ~ 1\n\nget k\n", "mod(k = 1\n\nget k\n", "mod k = 1\n\nget k\n", "\nput k\n",
        "\nput k v w\n", "\nfrob k\n", "\nget k --frob\n", "\nput \"k v\n", "\nput k \"\\q\"\n",
        "\nput k \"\\x1\"\n", "\nget a\n\nget b\n\nget c\n", "mod(k) = 1 2\n\nget k\n"}) {
    const auto txn = ParseTxnScript(bad);
    EXPECT_EQ(txn.status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(Consistency, IsParsed) {
  EXPECT_EQ(ParseConsistency("linearizable")->level(), ReadOptions::Level::kLinearizable);
  EXPECT_EQ(ParseConsistency("bounded=5s")->max_age(), absl::Seconds(5));
  EXPECT_EQ(ParseConsistency("stale")->max_age(), absl::InfiniteDuration());
  EXPECT_EQ(ParseConsistency("stale-if-down")->or_stale(), absl::InfiniteDuration());
  for (const char* bad : {"", "bounded", "bounded=", "bounded=-1s", "bounded=5", "fresh"}) {
    EXPECT_FALSE(ParseConsistency(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace holdfast::ctl
