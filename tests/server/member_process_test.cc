// Members that come, go and come back, with real servers and the command line tools: what an
// operator does, and what he is told.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "bench/local_cluster.h"

namespace holdfast {
namespace {

using bench::LocalCluster;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Duration kGiveUp = absl::Seconds(60);

struct Said {
  int exit_code = -1;
  std::string text;  // standard output and error
};

Said Shell(const std::string& command) {
  Said said;
  FILE* const pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return said;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) said.text.append(buffer, n);
  const int status = pclose(pipe);
  said.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return said;
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time give_up = absl::Now() + kGiveUp;
  while (!condition()) {
    if (absl::Now() > give_up) return false;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

class MemberProcessTest : public testing::Test {
 protected:
  void StartCluster(int members) {
    bench::LocalClusterOptions options;
    options.binary = bench::BinaryBesideOwn("holdfastd");
    options.root = testing::TempDir();
    options.members = members;
    options.log_level = "info";
    auto cluster = LocalCluster::Start(options);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = *std::move(cluster);
  }

  // Asks member `i` alone.
  Said Ctl(int i, const std::string& command, const std::string& timeout = "20s") {
    return Shell(fmt::format("{} --endpoints={} --timeout={} {}",
                             bench::BinaryBesideOwn("holdfastctl"), cluster_->endpoint(i), timeout,
                             command));
  }
  // The row of the member at that index, as member `asked` lists it; its last row if several.
  std::vector<std::string> Row(int asked, int i) {
    std::vector<std::string> row;
    for (const auto line : absl::StrSplit(Ctl(asked, "member list").text, '\n')) {
      std::vector<std::string> cells = absl::StrSplit(line, absl::string_view(", "));
      if (cells.size() == 7 && cells[3] == cluster_->peer_url(i)) row = cells;
    }
    return row.empty() ? std::vector<std::string>(7) : row;
  }
  std::string IdOf(int i) { return Row(0, i)[0]; }
  bool HasRole(int asked, int i, const std::string& role) {
    return Eventually([&] { return Row(asked, i)[6] == role; });
  }
  bool Ended(int i) {
    return Eventually([&] { return !cluster_->Running(i); });
  }
  int Leader() {
    EXPECT_TRUE(cluster_->WaitForLeader(kGiveUp).ok());
    const auto leader = cluster_->Leader();
    return leader.ok() ? *leader : 0;
  }

  std::unique_ptr<LocalCluster> cluster_;
};

TEST_F(MemberProcessTest, AMemberIsAddedServesAndIsRemoved) {
  ASSERT_NO_FATAL_FAILURE(StartCluster(3));
  ASSERT_EQ(Ctl(0, "put k v").exit_code, 0);
  const auto added = cluster_->NewMember();
  ASSERT_TRUE(added.ok()) << added.status();
  const int follower = (Leader() + 1) % 3;
  const Said add =
      Ctl(follower, fmt::format("member add m3 --peer-urls={}", cluster_->peer_url(*added)));
  ASSERT_EQ(add.exit_code, 0) << add.text;
  EXPECT_THAT(add.text, AllOf(HasSubstr("added to cluster"), HasSubstr("HOLDFAST_NAME=\"m3\"\n"),
                              HasSubstr("HOLDFAST_INITIAL_CLUSTER=\"m3="),
                              HasSubstr("HOLDFAST_INITIAL_CLUSTER_STATE=\"existing\"\n")));
  EXPECT_EQ(Row(follower, *added)[1], "unstarted");
  EXPECT_EQ(Row(follower, *added)[6], "joining");

  ASSERT_TRUE(cluster_->Restart(*added).ok());
  ASSERT_TRUE(HasRole(0, *added, "voter")) << cluster_->LogTail(*added);
  ASSERT_TRUE(Eventually([&] { return Row(0, *added)[1] == "started"; }));
  EXPECT_THAT(Ctl(*added, "get k").text, "k\nv\n");

  // It is who its data says, whatever the flags say later.
  ASSERT_TRUE(cluster_->Kill(*added).ok());
  ASSERT_TRUE(cluster_->Restart(*added, {"--initial-cluster-token=another"}).ok());
  ASSERT_TRUE(Eventually([&] { return Ctl(*added, "get k").text == "k\nv\n"; }))
      << cluster_->LogTail(*added);

  EXPECT_EQ(Ctl(0, "member remove " + IdOf(*added)).exit_code, 0);
  ASSERT_TRUE(Ended(*added));
  EXPECT_EQ(WEXITSTATUS(*cluster_->wait_status(*added)), 0);
  EXPECT_THAT(cluster_->LogTail(*added), HasSubstr("this member was removed from the cluster"));
  EXPECT_EQ(Row(0, *added)[0], "");
}

TEST_F(MemberProcessTest, ALearnerServesLikeAnyMember) {
  ASSERT_NO_FATAL_FAILURE(StartCluster(1));
  const auto standby = cluster_->NewMember();
  ASSERT_TRUE(standby.ok()) << standby.status();
  ASSERT_EQ(Ctl(0, "member add s --learner --peer-urls=" + cluster_->peer_url(*standby)).exit_code,
            0);
  ASSERT_TRUE(cluster_->Restart(*standby).ok());
  ASSERT_TRUE(Eventually([&] { return Ctl(*standby, "put k v").exit_code == 0; }))
      << cluster_->LogTail(*standby);
  EXPECT_EQ(Ctl(*standby, "get k").text, "k\nv\n");
  EXPECT_EQ(Ctl(*standby, "get k --consistency bounded=5s").text, "k\nv\n");
  EXPECT_THAT(Ctl(*standby, "get k --consistency stale --freshness").text,
              AllOf(HasSubstr("proof=proven"), HasSubstr("k\nv\n")));
  EXPECT_TRUE(HasRole(*standby, *standby, "learner"));
  EXPECT_THAT(Ctl(0, "move-leader " + IdOf(*standby)).text,
              HasSubstr("etcdserver: bad leader transferee"));

  ASSERT_TRUE(
      Eventually([&] { return Ctl(*standby, "member promote " + IdOf(*standby)).exit_code == 0; }));
  EXPECT_EQ(Row(0, *standby)[6], "voter");
  const Said moved = Ctl(0, "move-leader " + IdOf(*standby));
  EXPECT_EQ(moved.exit_code, 0) << moved.text;
  EXPECT_THAT(moved.text, HasSubstr("Leadership transferred from "));
  EXPECT_EQ(Leader(), *standby);
  const Said demoted = Ctl(0, "member demote " + IdOf(0));
  EXPECT_EQ(demoted.exit_code, 0) << demoted.text;
  EXPECT_EQ(Row(*standby, 0)[6], "learner");
}

TEST_F(MemberProcessTest, AMemberThatLostItsDiskIsReplaced) {
  ASSERT_NO_FATAL_FAILURE(StartCluster(3));
  ASSERT_EQ(Ctl(0, "put k v").exit_code, 0);
  const std::string old_id = IdOf(2);
  ASSERT_TRUE(cluster_->Kill(2).ok());
  ASSERT_TRUE(cluster_->Wipe(2).ok());
  // However it is started, it says what to do. (With --repair=auto it does that itself.)
  for (const std::string state : {"existing", "new"}) {
    ASSERT_TRUE(cluster_->Restart(2, {"--initial-cluster-state=" + state, "--repair=manual"}).ok());
    ASSERT_TRUE(Ended(2));
    EXPECT_EQ(WEXITSTATUS(*cluster_->wait_status(2)), 1);
    EXPECT_THAT(cluster_->LogTail(2),
                AllOf(HasSubstr("`holdfastctl member replace " + old_id + "`"),
                      HasSubstr(state == "new" ? "already been bootstrapped" : "started before")));
  }

  const Said replace = Ctl(0, "member replace " + old_id);
  ASSERT_EQ(replace.exit_code, 0) << replace.text;
  EXPECT_THAT(replace.text,
              AllOf(HasSubstr("replaces " + old_id), HasSubstr("HOLDFAST_NAME=\"m2\""),
                    HasSubstr("HOLDFAST_INITIAL_CLUSTER=\"m2=")));
  EXPECT_THAT(Ctl(0, "member list").text, HasSubstr(", true, joining for " + old_id));
  ASSERT_TRUE(cluster_->Restart(2).ok());
  ASSERT_TRUE(Eventually([&] {
    return Ctl(0, "member list").text.find(old_id) == std::string::npos && Row(0, 2)[6] == "voter";
  })) << Ctl(0, "member list").text
      << cluster_->LogTail(2);
  ASSERT_TRUE(Eventually([&] { return Ctl(2, "get k").text == "k\nv\n"; }));
  // With it the cluster survives the loss of another.
  ASSERT_TRUE(cluster_->Kill(0).ok());
  EXPECT_TRUE(Eventually([&] { return Ctl(2, "put k w").exit_code == 0; }));
}

// Nobody else is up to stop it from starting, so the others do when they meet it.
TEST_F(MemberProcessTest, AnAmnesiacThatStartsFirstIsLetInByNobody) {
  ASSERT_NO_FATAL_FAILURE(StartCluster(3));
  ASSERT_EQ(Ctl(0, "put k v").exit_code, 0);
  const std::string old_id = IdOf(2);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(cluster_->Kill(i).ok());
  ASSERT_TRUE(cluster_->Wipe(2).ok());
  ASSERT_TRUE(cluster_->Restart(2, {"--initial-cluster-state=new"}).ok());
  ASSERT_TRUE(Eventually([&] { return Ctl(2, "status").exit_code == 0; })) << cluster_->LogTail(2);
  ASSERT_TRUE(cluster_->Restart(0).ok());
  // One of three, and one that has forgotten: no majority.
  ASSERT_TRUE(Eventually([&] {
    return cluster_->LogTail(0).find("has lost its data") != std::string::npos;
  })) << cluster_->LogTail(0);
  EXPECT_NE(Ctl(0, "put k w", "3s").exit_code, 0);
  ASSERT_TRUE(cluster_->Restart(1).ok());
  EXPECT_TRUE(Eventually([&] { return Ctl(0, "put k x").exit_code == 0; }));
  EXPECT_THAT(Ctl(0, "get k").text, "k\nx\n");
  EXPECT_THAT(Ctl(2, "get k --consistency stale").text, Not(HasSubstr("x")));
}

TEST_F(MemberProcessTest, WhomNobodyAddedDoesNotGetIn) {
  ASSERT_NO_FATAL_FAILURE(StartCluster(1));
  const auto stranger = cluster_->NewMember();
  ASSERT_TRUE(stranger.ok());
  ASSERT_TRUE(cluster_->Restart(*stranger).ok());
  ASSERT_TRUE(Ended(*stranger));
  EXPECT_THAT(cluster_->LogTail(*stranger), HasSubstr("run `holdfastctl member add m1"));
}

TEST_F(MemberProcessTest, BadIdsAndUnreachableEndpointsHaveTheirExitCodes) {
  ASSERT_NO_FATAL_FAILURE(StartCluster(1));
  EXPECT_EQ(Ctl(0, "member remove nonsense").exit_code, 2);
  EXPECT_EQ(Ctl(0, "member remove").exit_code, 2);
  EXPECT_EQ(Ctl(0, "member remove 1234").exit_code, 5);
  EXPECT_THAT(Ctl(0, "member remove " + IdOf(0)).text, HasSubstr("not enough started members"));
  ASSERT_TRUE(cluster_->Kill(0).ok());
  const Said down = Ctl(0, "member remove 1234", "500ms");
  EXPECT_EQ(down.exit_code, 3) << down.text;
  EXPECT_THAT(down.text, HasSubstr("nothing was changed"));
}

}  // namespace
}  // namespace holdfast
