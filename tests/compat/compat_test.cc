// The suite's own parts, and that its cases, its checklist and the documentation agree. The cases
// themselves are run by holdfast-compat.
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_split.h"
#include "case_file.h"
#include "checklist.h"
#include "etcd/rpc.pb.h"
#include "grpc_call.h"
#include "masks.h"
#include "program.h"
#include "suite.h"

namespace holdfast::compat {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string FileText(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::vector<Group> AllGroups() {
  const auto groups = LoadCases(std::string(COMPAT_DIR) + "/cases");
  EXPECT_TRUE(groups.ok()) << groups.status();
  return groups.ok() ? *groups : std::vector<Group>();
}

// --- the data ---

TEST(CompatChecklist, EveryLineHasACaseATestOrAReason) {
  std::set<std::string> cases;
  for (const Group& group : AllGroups()) {
    for (const Case& one : group.cases) cases.insert(one.name);
  }
  const auto items = ParseChecklist(FileText(std::string(COMPAT_DIR) + "/checklist.txt"));
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_GT(items->size(), 150u);
  for (const ChecklistItem& item : *items) {
    for (const std::string& name : item.cases) {
      EXPECT_TRUE(cases.contains(name)) << item.id << " names the case " << name;
    }
    for (const ChecklistTest& test : item.tests) {
      EXPECT_THAT(FileText(std::string(REPOSITORY_DIR) + "/" + test.path), HasSubstr(test.name))
          << item.id << " names a test in " << test.path;
    }
  }
}

// The first cells of the tables of docs/etcd-compatibility.md.
TEST(CompatReasons, EveryOneIsARowOfTheDocumentation) {
  std::set<std::string> rows;
  const std::string page = FileText(std::string(REPOSITORY_DIR) + "/docs/etcd-compatibility.md");
  for (const absl::string_view view : absl::StrSplit(page, '\n')) {
    const std::string line(view);
    if (line.starts_with("| ")) rows.insert(line.substr(2, line.find(" |", 2) - 2));
  }
  for (const Group& group : AllGroups()) {
    for (const Case& one : group.cases) {
      for (const Step& step : one.steps) {
        EXPECT_TRUE(step.why.empty() || rows.contains(step.why))
            << one.file << ":" << step.line << ": no row `" << step.why << "`";
      }
    }
  }
}

// --- the parts ---

TEST(CompatCases, AreReadWithTheirIntendedDifferences) {
  std::vector<Group> groups;
  const absl::Status status = ParseCases("x.cases",
                                         "server one members=3 --flag=1\narea KV\n"
                                         "case a: title\n"
                                         "  KV.Put key: 'a'\n    | value: 'b'\n    mask x => y\n"
                                         "  ! KV.Range\n    = other\n    why a row\n",
                                         &groups);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].members, 3);
  EXPECT_THAT(groups[0].args, ElementsAre("--flag=1"));
  const Case& one = groups[0].cases.at(0);
  EXPECT_EQ(one.steps.at(0).text, "KV.Put key: 'a' value: 'b'");
  EXPECT_EQ(one.steps[0].masks.at(0).text, "y");
  EXPECT_TRUE(one.steps.at(1).ours_only);
  EXPECT_TRUE(one.differs());
}

TEST(CompatCases, ADifferenceNeedsAReasonAndAReasonADifference) {
  const std::string begin = "server s\narea KV\ncase a: t\n  KV.Range\n";
  for (const std::string bad : {"  = x\n", "  why x\n", "  ! KV.Put\n"}) {
    std::vector<Group> groups;
    EXPECT_FALSE(ParseCases("x.cases", begin + bad, &groups).ok()) << bad;
  }
}

TEST(CompatMasks, HideIdsTermsAndWhereTheStoreStandsAndNothingElse) {
  Masks masks;
  masks.SetBaseRevision(10);
  masks.KnowId(0xabcdef123456789, "<leader>");
  etcdserverpb::RangeResponse response;
  response.mutable_header()->set_member_id(0xabcdef123456789);
  response.mutable_header()->set_revision(12);
  response.mutable_header()->set_raft_term(7);
  auto* const kv = response.add_kvs();
  kv->set_key("k");
  kv->set_mod_revision(9);
  kv->set_version(12);
  kv->set_lease(1234);
  EXPECT_EQ(masks.Print(response),
            "header { member_id: <leader> revision: R+2 raft_term: <term> } "
            "kvs { key: 'k' mod_revision: R-1 version: 12 lease: 1234 }");
  EXPECT_EQ(masks.Text("Member  abcdef123456789 removed"), "Member <leader> removed");
  EXPECT_EQ(masks.Json(R"({"version":"12","revision":"11","member_id":"773738363261118345"})"),
            R"({"member_id":"<leader>","revision":"R+1","version":"12"})");
  EXPECT_EQ(masks.Text("\"Revision\" : 10\n\"Version\" : 10"),
            "\"Revision\" : R\n\"Version\" : 10");
}

TEST(CompatMasks, TablesLoseTheirWidthsAlone) {
  Masks masks;
  EXPECT_EQ(
      masks.Text("+----+-----+\n|  A |  RAFT TERM  |\n+----+-----+\n|  x | 7 |\n+----+-----+"),
      "+--\n| A | RAFT TERM |\n+--\n| x | <term> |\n+--");
}

TEST(CompatProgram, SplitsAndRunsCommands) {
  EXPECT_THAT(SplitCommand(R"(a 'b c' "d\n" '')"), ElementsAre("a", "b c", "d\n", ""));
  Program program({"cat"});
  program.Type("one\ntwo");
  std::string line;
  EXPECT_TRUE(program.ReadLine(absl::Seconds(10), &line));
  EXPECT_EQ(line, "one");
  program.CloseInput();
  EXPECT_EQ(program.ReadAll(absl::Seconds(10)), "two");
  EXPECT_EQ(program.Wait(), 0);
}

TEST(CompatTable, CountsByArea) {
  const std::vector<CaseResult> results = {
      {.name = "a", .area = "KV", .title = "", .where = "", .verdict = Verdict::kEqual},
      {.name = "b", .area = "KV", .title = "", .where = "", .verdict = Verdict::kFailed},
      {.name = "c", .area = "Watch", .title = "", .where = "", .verdict = Verdict::kDifferent}};
  const std::string table = CompatTable(results);
  EXPECT_THAT(table, HasSubstr(fmt::format("{:18}{:>7}{:>8}{:>26}{:>8}\n", "KV", 2, 1, 0, 1)));
  EXPECT_THAT(table, HasSubstr(fmt::format("{:18}{:>7}{:>8}{:>26}{:>8}\n", "all", 3, 1, 1, 1)));
}

}  // namespace
}  // namespace holdfast::compat
