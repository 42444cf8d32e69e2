// holdfastctl cache: what it prints and what it tells the script that called it.
#include "client/ctl/cache_command.h"

#include <sys/stat.h>

#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/strings.h"
#include "client/override_file.h"
#include "tests/client/cache_fixture.h"

namespace holdfast::ctl {
namespace {

using nlohmann::json;
using test::FilesWith;
using test::InChild;
using test::ReadFile;
using test::WriteFile;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class CacheCtlTest : public test::CacheTest {
 protected:
  void SetUp() override {
    args_.dir = dir_.path();
    auto last_good = Open();
    ASSERT_TRUE(Write(*last_good, {{"/config/a", "1"}}, InfoAt(10)).ok());
    ASSERT_TRUE(Write(*last_good, {{"/config/a", "2"}, {"/config/b", "\xff"}}, InfoAt(20)).ok());
    machine_.Advance(absl::Seconds(30));
  }
  ExitCode Show() { return CacheShow(Fresh(), args_, machine_.surroundings(), io_); }
  ExitCode Verify() { return CacheVerify(Fresh(), args_, machine_.surroundings(), io_); }
  ExitCode Export() { return CacheExport(Fresh(), args_, machine_.surroundings(), io_); }
  ExitCode Override() { return CacheOverride(Fresh(), args_, io_); }
  const Common& Fresh() {
    out_.str("");
    err_.str("");
    return common_;
  }
  std::string Newest() { return dir_.path() + "/" + FilesWith(dir_.path(), ".0000").back(); }
  internal::Override InForce() {
    const auto content =
        internal::ReadOverride(internal::OverridePath(dir_.path(), kPrefix), kPrefix);
    CHECK(content.ok());
    return *content;
  }

  Common common_;
  CacheArgs args_;
  std::istringstream in_;
  std::ostringstream out_, err_;
  Io io_{in_, out_, err_};
};

TEST_F(CacheCtlTest, ShowListsWhatIsThere) {
  EXPECT_EQ(Show(), kOk);
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("PREFIX"), HasSubstr("/config/"), HasSubstr("good"),
                    HasSubstr("proven"), HasSubstr("30.0"), HasSubstr("2023-11-14T22:13:20Z")));
  common_.json = true;
  EXPECT_EQ(Show(), kOk);
  const json all = json::parse(out_.str());
  ASSERT_EQ(all["generations"].size(), 2U);
  EXPECT_EQ(all["generations"][0]["revision"], 20);
  EXPECT_EQ(all["generations"][0]["records"], 2);
  EXPECT_GE(all["generations"][0]["ageSeconds"], 30);
  machine_.Reboot(absl::Hours(1));
  machine_.wall.synchronized = false;
  EXPECT_EQ(Show(), kOk);
  EXPECT_TRUE(json::parse(out_.str())["generations"][0]["ageSeconds"].is_null());
}

TEST_F(CacheCtlTest, ShowOfNothingSaysSo) {
  args_.prefix = "/other/";
  EXPECT_EQ(Show(), kNotFound);
  EXPECT_THAT(err_.str(), HasSubstr("no copy of /other/"));
  args_.dir += "/missing";
  EXPECT_EQ(Show(), kRefused);
  EXPECT_THAT(err_.str(), HasSubstr("check the path"));
}

TEST_F(CacheCtlTest, ShowTellsWhatAProcessDiedOf) {
  EXPECT_EQ(InChild([&] {
              auto last_good = Open();
              _exit(Write(*last_good, {{"/config/a", "3"}}, InfoAt(30), true).ok() ? 3 : 1);
              return 0;
            }),
            3);
  EXPECT_EQ(Show(), kOk);
  EXPECT_THAT(out_.str(), HasSubstr("suspect (1)"));
  EXPECT_EQ(Export(), kOk);
  EXPECT_THAT(err_.str(), HasSubstr("rev=20")) << "as a service would begin";
}

TEST_F(CacheCtlTest, VerifysExitCodeTellsDamage) {
  EXPECT_EQ(Verify(), kOk);
  EXPECT_THAT(out_.str(), HasSubstr("sound, 2 records at revision 20"));
  std::string bytes = ReadFile(Newest());
  bytes[bytes.size() / 2] ^= 1;
  WriteFile(Newest(), bytes);
  EXPECT_EQ(Verify(), kRefused);
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("damaged"), HasSubstr("sound, 1 records")));
  common_.json = true;
  EXPECT_EQ(Verify(), kRefused);
  EXPECT_FALSE(json::parse(out_.str())["generations"][0]["sound"]);
  args_.prefix = "/other/";
  EXPECT_EQ(Verify(), kNotFound);
}

TEST_F(CacheCtlTest, VerifyReadsTheOverrideToo) {
  WriteFile(internal::OverridePath(dir_.path(), kPrefix), "{");
  EXPECT_EQ(Verify(), kRefused);
  EXPECT_THAT(out_.str(), HasSubstr("not JSON"));
  EXPECT_EQ(Show(), kOk);
  EXPECT_THAT(out_.str(), HasSubstr("override NOT USED"));
}

TEST_F(CacheCtlTest, ExportPrintsALineOfJsonPerRecord) {
  EXPECT_EQ(Export(), kOk);
  std::istringstream lines(out_.str());
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(json::parse(line)["key"], "L2NvbmZpZy9h");
  EXPECT_EQ(json::parse(line)["value"], "Mg==");
  EXPECT_EQ(json::parse(line)["mod_revision"], 20);
  ASSERT_TRUE(std::getline(lines, line));
  EXPECT_EQ(json::parse(line)["value"], "/w==");
  EXPECT_FALSE(std::getline(lines, line));
  EXPECT_THAT(err_.str(), AllOf(HasSubstr("rev=20"), HasSubstr("source=disk")));
  common_.json = true;
  EXPECT_EQ(Export(), kOk);
  EXPECT_EQ(json::parse(out_.str())["kvs"].size(), 2U);
  EXPECT_EQ(json::parse(out_.str())["freshness"]["source"], "disk");
}

TEST_F(CacheCtlTest, ExportPassesDamageOverAndAsksForAPrefix) {
  WriteFile(Newest(), "gone");
  EXPECT_EQ(Export(), kOk);
  EXPECT_THAT(err_.str(), HasSubstr("rev=10"));
  auto other = options();
  other.prefix = "/auth/";
  auto records = [](internal::RecordVisitor visit) { visit({.key = "/auth/u"}); };
  ASSERT_TRUE(Open(other)->WriteRecords(records, InfoAt(5), false).ok());
  EXPECT_EQ(Export(), kUsage);
  EXPECT_THAT(err_.str(), AllOf(HasSubstr("--prefix"), HasSubstr("/auth/")));
  args_.prefix = "/auth/";
  EXPECT_EQ(Export(), kOk);
  for (const std::string& name : FilesWith(dir_.path(), ".0000")) {
    WriteFile(dir_.path() + "/" + name, "gone");
  }
  EXPECT_EQ(Export(), kRefused);
  EXPECT_THAT(err_.str(), HasSubstr("cache verify"));
}

TEST_F(CacheCtlTest, OverrideIsWrittenAddedToShownAndCleared) {
  args_.prefix = kPrefix;
  EXPECT_EQ(Override(), kNotFound);
  args_.put = {"/config/a=x=y", "/config/c="};
  args_.note = "INC-1";
  EXPECT_EQ(Override(), kOk);
  EXPECT_THAT(out_.str(), HasSubstr("OK " + dir_.path()));
  EXPECT_EQ(err_.str(), "");
  args_.put = {"/config/d=4"};
  args_.del = {"/config/c"};
  args_.note = "INC-2";
  EXPECT_EQ(Override(), kOk);
  const internal::Override content = InForce();
  ASSERT_EQ(content.put.size(), 2U);
  EXPECT_EQ(content.put[0].value, "x=y");
  EXPECT_EQ(content.put[1].key, "/config/d");
  EXPECT_THAT(content.deleted, ElementsAre("/config/c"));
  EXPECT_EQ(content.note, "INC-2");
  // The service takes it.
  auto last_good = Open();
  EXPECT_TRUE((**last_good->PollOverride()).present);
  EXPECT_EQ(Show(), kOk);
  EXPECT_THAT(out_.str(), HasSubstr("override in force for /config/: 2 put, 1 deleted"));
  args_.put.clear();
  args_.del.clear();
  EXPECT_EQ(Override(), kOk);
  EXPECT_EQ(json::parse(out_.str())["put"]["/config/d"], "4");
  args_.clear = true;
  EXPECT_EQ(Override(), kOk);
  EXPECT_FALSE((**last_good->PollOverride()).present);
  EXPECT_THAT(FilesWith(dir_.path(), "override"), ElementsAre());
  EXPECT_EQ(Override(), kOk) << "again does no harm";
}

TEST_F(CacheCtlTest, OverrideOfMistakesChangesNothing) {
  args_.put = {"/config/a=1"};
  args_.note = "why";
  EXPECT_EQ(Override(), kUsage) << "no prefix";
  args_.prefix = kPrefix;
  args_.note = "";
  EXPECT_EQ(Override(), kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--note"));
  args_.note = "why";
  for (const std::string bad : {"/config/a", "/auth/a=1"}) {
    args_.put = {bad};
    EXPECT_EQ(Override(), kUsage) << bad;
  }
  args_.put = {"/config/a=1"};
  args_.del = {"/config/a"};
  EXPECT_EQ(Override(), kUsage);
  EXPECT_THAT(err_.str(), HasSubstr("twice"));
  args_.del = {};
  args_.clear = true;
  EXPECT_EQ(Override(), kUsage);
  args_.clear = false;
  args_.put = {"/config/\xff=1"};
  EXPECT_EQ(Override(), kUsage);
  EXPECT_THAT(FilesWith(dir_.path(), "override"), ElementsAre());
  const std::string dir = std::exchange(args_.dir, dir_.path() + "/missing");
  args_.put = {"/config/a=1"};
  EXPECT_EQ(Override(), kRefused);
  args_.dir = dir;
  // One that was broken by hand is not overwritten silently.
  WriteFile(internal::OverridePath(dir_.path(), kPrefix), "{");
  EXPECT_EQ(Override(), kRefused);
  args_.put = {};
  args_.clear = true;
  EXPECT_EQ(Override(), kOk) << "but cleared";
}

TEST_F(CacheCtlTest, OverrideOfAPrefixThatNobodyMirrorsIsWarnedOf) {
  args_.prefix = "/config";
  args_.put = {"/config/a=1"};
  args_.note = "why";
  EXPECT_EQ(Override(), kOk);
  EXPECT_THAT(err_.str(), HasSubstr("warning: no copy of /config lies"));
}

TEST_F(CacheCtlTest, OverrideByRootBelongsToTheService) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  ASSERT_EQ(chown(dir_.path().c_str(), 1234, 1234), 0);
  args_.prefix = kPrefix;
  args_.put = {"/config/a=1"};
  args_.note = "why";
  EXPECT_EQ(Override(), kOk);
  struct stat info;
  ASSERT_EQ(stat(internal::OverridePath(dir_.path(), kPrefix).c_str(), &info), 0);
  EXPECT_EQ(info.st_uid, 1234U);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

}  // namespace
}  // namespace holdfast::ctl
