// What a data directory may look like at start, and what happens then.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "base/strings.h"
#include "server/data_dir.h"

namespace holdfast::server {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class DataDirTest : public testing::Test {
 protected:
  DataDirTest()
      : root_(fs::path(testing::TempDir()) /
              ("data_dir_" + std::to_string(getpid()) + "_" +
               testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(root_);
  }
  ~DataDirTest() override { fs::remove_all(root_); }

  std::string dir() const { return (root_ / "member").string(); }
  static DataDir::Owner Owner() {
    return {.cluster_id = 0xc1, .member_id = NodeId(0xa1), .name = "a", .bootstrap = "\x02 bytes"};
  }
  void Make() { ASSERT_TRUE(DataDir::Open(dir(), Owner()).ok()); }
  void Write(const std::string& name, const std::string& text) {
    fs::create_directories(fs::path(dir() + "/" + name).parent_path());
    std::ofstream(dir() + "/" + name) << text;
  }
  void ExpectError(absl::StatusCode code, const std::string& part,
                   const DataDir::Owner& owner = Owner()) {
    const absl::Status status = DataDir::Open(dir(), owner).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(base::Message(status)), HasSubstr(part));
  }

  const fs::path root_;
};

TEST_F(DataDirTest, IsMadeOnceAndTakenUpAgain) {
  {
    auto made = DataDir::Open(dir(), Owner());
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE((*made)->created());
    for (const std::string& part :
         {(*made)->log_dir(), (*made)->db_dir(), (*made)->snapshot_dir()}) {
      EXPECT_TRUE(fs::is_directory(part)) << part;
    }
  }
  DataDir::Owner renamed = Owner();
  renamed.name = "another name";
  auto again = DataDir::Open(dir() + "/", renamed);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE((*again)->created());
}

TEST_F(DataDirTest, RelativePathsAndALostFoundAreFine) {
  fs::create_directories(dir() + "/lost+found");
  const fs::path before = fs::current_path();
  fs::current_path(root_);
  EXPECT_TRUE(DataDir::Open("member", Owner()).ok());
  EXPECT_TRUE(DataDir::Open("./fresh", Owner()).ok());
  fs::current_path(before);
}

TEST_F(DataDirTest, SecondProcessIsRefusedWithThePidOfTheFirst) {
  auto first = DataDir::Open(dir(), Owner());
  ASSERT_TRUE(first.ok());
  ExpectError(absl::StatusCode::kFailedPrecondition,
              "in use by another process (pid " + std::to_string(getpid()) + ")");
}

TEST_F(DataDirTest, LockEndsWithTheProcess) {
  const pid_t child = fork();
  if (child == 0) {
    const bool ok = DataDir::Open(dir(), Owner()).ok();
    _exit(ok ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_TRUE(DataDir::Open(dir(), Owner()).ok());
}

TEST_F(DataDirTest, OfAnotherClusterOrMemberIsRefused) {
  Make();
  DataDir::Owner owner = Owner();
  owner.cluster_id = 0xc2;
  ExpectError(absl::StatusCode::kFailedPrecondition,
              "belongs to cluster 00000000000000c1, and not to cluster 00000000000000c2", owner);
  owner = Owner();
  owner.member_id = NodeId(0xa2);
  ExpectError(absl::StatusCode::kFailedPrecondition, "belongs to member 00000000000000a1", owner);
}

TEST_F(DataDirTest, CreationCutShortAnywhereIsFinished) {
  // Every prefix of what Open leaves on disk, in its order.
  const std::vector<std::string> steps = {"LOCK", "log/", "db/", "snap/", "member.json.new"};
  for (size_t n = 0; n <= steps.size(); ++n) {
    fs::remove_all(dir());
    fs::create_directories(dir());
    for (size_t i = 0; i < n; ++i) {
      if (steps[i].ends_with('/')) {
        fs::create_directories(dir() + "/" + steps[i]);
      } else {
        Write(steps[i], "{\"for");  // torn
      }
    }
    auto opened = DataDir::Open(dir(), Owner());
    ASSERT_TRUE(opened.ok()) << n << ": " << opened.status();
    EXPECT_TRUE((*opened)->created());
    EXPECT_FALSE(fs::exists(dir() + "/member.json.new"));
  }
}

TEST_F(DataDirTest, EtcdsDataIsRefusedWithTheWayOut) {
  fs::create_directories(dir() + "/member/wal");
  ExpectError(absl::StatusCode::kFailedPrecondition, "data of an etcd member");
  EXPECT_FALSE(fs::exists(dir() + "/LOCK")) << "must leave the directory as it was";
}

TEST_F(DataDirTest, ForeignDirectoryIsRefusedAndLeftAlone) {
  Write("thesis.tex", "x");
  ExpectError(absl::StatusCode::kFailedPrecondition, "it holds 'thesis.tex'");
  EXPECT_FALSE(fs::exists(dir() + "/LOCK"));
}

TEST_F(DataDirTest, AFileIsNoDirectory) {
  std::ofstream(dir()) << "x";
  ExpectError(absl::StatusCode::kFailedPrecondition, "not a directory");
}

TEST_F(DataDirTest, ParentMustExist) {
  const absl::Status status = DataDir::Open(dir() + "/a/b", Owner()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("directory above it does not exist"));
}

TEST_F(DataDirTest, NotWritableIsSaid) {
  constexpr uid_t kNobody = 65534;
  fs::create_directories(dir());
  fs::permissions(dir(), fs::perms::owner_read | fs::perms::owner_exec);
  const pid_t child = fork();
  if (child == 0) {
    // Root may write everywhere.
    if (geteuid() == 0 && seteuid(kNobody) != 0) _exit(2);
    const absl::Status status = DataDir::Open(dir(), Owner()).status();
    const bool said = base::Message(status).find("right to write") != std::string_view::npos;
    _exit(absl::IsPermissionDenied(status) && said ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(DataDirTest, AFullDiskIsSaidBeforeAnythingIsOpened) {
  EXPECT_TRUE(DataDir::CheckFreeSpace(root_.string(), 1).ok());
  const absl::Status status = DataDir::CheckFreeSpace(root_.string(), UINT64_MAX);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(base::Message(status)), HasSubstr("is full"));
}

TEST_F(DataDirTest, APartThatVanishedLaterIsRefused) {
  for (const char* part : {"log", "db"}) {
    fs::remove_all(dir());
    Make();
    fs::remove_all(dir() + "/" + part);
    ExpectError(absl::StatusCode::kDataLoss, std::string("/") + part + ": it is missing");
  }
}

TEST_F(DataDirTest, IdentityThatVanishedFromUsedDataIsRefused) {
  Make();
  Write("log/segment", "entries");
  fs::remove(dir() + "/member.json");
  ExpectError(absl::StatusCode::kDataLoss, "has no member.json");
}

TEST_F(DataDirTest, UnreadableOrNewerIdentityIsRefused) {
  for (const char* text : {"", "{", "[]", "{\"format\": 1}",
                           "{\"format\": 1, \"cluster_id\": \"zz\", \"member_id\": \"a1\"}"}) {
    fs::remove_all(dir());
    Make();
    Write("member.json", text);
    ExpectError(absl::StatusCode::kDataLoss, "member.json cannot be read");
  }
  for (const char* text :
       {"\"bootstrap\": \"\"", "\"disk_id\": \"0\"", "\"disk_id\": \"1\", \"bootstrap\": \"f\"",
        "\"disk_id\": \"1\", \"bootstrap\": \"xy\""}) {
    Write("member.json",
          std::string("{\"format\": 2, \"cluster_id\": \"c1\", \"member_id\": \"a1\", ") + text +
              "}");
    ExpectError(absl::StatusCode::kDataLoss, "member.json cannot be read");
  }
  Write("member.json", "{\"format\": 3, \"cluster_id\": \"c1\", \"member_id\": \"a1\"}");
  ExpectError(absl::StatusCode::kFailedPrecondition, "has format 3");
}

TEST_F(DataDirTest, SaysWhoseItIsWithoutALock) {
  EXPECT_EQ(*DataDir::ReadOwner(dir()), std::nullopt);
  auto open = DataDir::Open(dir(), Owner());
  ASSERT_TRUE(open.ok()) << open.status();
  const auto owner = DataDir::ReadOwner(dir());
  ASSERT_TRUE(owner.ok()) << owner.status();
  EXPECT_EQ((*owner)->cluster_id, Owner().cluster_id);
  EXPECT_EQ((*owner)->member_id, Owner().member_id);
  EXPECT_EQ((*owner)->name, "a");
  EXPECT_EQ((*owner)->bootstrap, Owner().bootstrap);
}

TEST_F(DataDirTest, EveryDirectoryHasADiskIdOfItsOwnForGood) {
  uint64_t first = 0;
  for (int start = 0; start < 2; ++start) {
    auto open = DataDir::Open(dir(), Owner());
    ASSERT_TRUE(open.ok()) << open.status();
    EXPECT_NE((*open)->disk_id(), 0u);
    if (start == 0) first = (*open)->disk_id();
    EXPECT_EQ((*open)->disk_id(), first);
  }
  fs::remove_all(dir());
  EXPECT_NE((*DataDir::Open(dir(), Owner()))->disk_id(), first);
}

TEST_F(DataDirTest, ADirectoryOfTheFirstReleaseGetsItsDiskId) {
  Make();
  Write("member.json",
        "{\"format\": 1, \"cluster_id\": \"c1\", \"member_id\": \"a1\", \"name\": \"a\", "
        "\"created\": \"2026-01-01T00:00:00+00:00\"}");
  EXPECT_EQ((*DataDir::ReadOwner(dir()))->bootstrap, "");
  uint64_t disk_id = 0;
  {
    auto open = DataDir::Open(dir(), Owner());
    ASSERT_TRUE(open.ok()) << open.status();
    disk_id = (*open)->disk_id();
    EXPECT_NE(disk_id, 0u);
    EXPECT_FALSE((*open)->created());
  }
  EXPECT_EQ((*DataDir::ReadOwner(dir()))->bootstrap, Owner().bootstrap);
  EXPECT_EQ((*DataDir::Open(dir(), Owner()))->disk_id(), disk_id);
}

}  // namespace
}  // namespace holdfast::server
