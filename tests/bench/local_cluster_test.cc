// LocalCluster over Debian's etcd, the reference; and the run of a whole session on it.
#include "bench/local_cluster.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "bench/endpoint.h"
#include "bench/session.h"

namespace holdfast::bench {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(30);

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time give_up = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > give_up) return false;
  }
  return true;
}

class LocalClusterTest : public testing::Test {
 protected:
  void SetUp() override {
    if (access("/usr/bin/etcd", X_OK) != 0) GTEST_SKIP() << "etcd is not installed";
    std::string pattern = testing::TempDir() + "local-cluster-test-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override {
    if (!root_.empty()) std::filesystem::remove_all(root_);
  }

  LocalClusterOptions Etcd(int members) const {
    LocalClusterOptions options;
    options.binary = "/usr/bin/etcd";
    options.members = members;
    options.root = root_;
    return options;
  }

  std::string root_;
};

TEST_F(LocalClusterTest, MembersCanBeKilledPausedStoppedAndBroughtBack) {
  auto started = LocalCluster::Start(Etcd(3));
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  ASSERT_EQ(cluster.size(), 3);
  EXPECT_EQ(cluster.Pids().size(), 3u);
  const auto leader = cluster.Leader();
  ASSERT_TRUE(leader.ok()) << leader.status();

  // The leader dies; the others agree on another.
  ASSERT_TRUE(cluster.Kill(*leader).ok());
  EXPECT_FALSE(cluster.Running(*leader));
  EXPECT_EQ(cluster.pid(*leader), 0);
  ASSERT_TRUE(cluster.wait_status(*leader).has_value());
  EXPECT_EQ(WTERMSIG(*cluster.wait_status(*leader)), SIGKILL);
  EXPECT_TRUE(absl::IsFailedPrecondition(cluster.Kill(*leader)));
  ASSERT_TRUE(cluster.WaitForLeader(kPatience).ok());
  const auto second = cluster.Leader();
  ASSERT_TRUE(second.ok());
  EXPECT_NE(*second, *leader);

  EXPECT_TRUE(absl::IsFailedPrecondition(cluster.Restart(*second)));
  ASSERT_TRUE(cluster.Restart(*leader).ok());
  ASSERT_TRUE(cluster.WaitForLeader(kPatience).ok());
  EXPECT_EQ(cluster.Pids().size(), 3u);

  // A paused member answers nothing, and again after its pause.
  ASSERT_TRUE(cluster.Pause(0).ok());
  EXPECT_TRUE(cluster.Running(0));
  EXPECT_FALSE(GetEndpointStatus(cluster.endpoint(0), absl::Milliseconds(300)).ok());
  ASSERT_TRUE(cluster.Resume(0).ok());
  EXPECT_TRUE(GetEndpointStatus(cluster.endpoint(0), kPatience).ok());

  ASSERT_TRUE(cluster.Stop(1).ok());
  EXPECT_FALSE(cluster.Running(1));
  EXPECT_GT(cluster.DiskBytes(), 0u);
}

TEST_F(LocalClusterTest, NothingIsLeftBehind) {
  std::vector<pid_t> pids;
  {
    auto started = LocalCluster::Start(Etcd(1));
    ASSERT_TRUE(started.ok()) << started.status();
    pids = (*started)->Pids();
    ASSERT_TRUE((*started)->Pause(0).ok());  // a paused one must go as well
    EXPECT_FALSE(std::filesystem::is_empty(root_));
  }
  for (const pid_t pid : pids) EXPECT_EQ(kill(pid, 0), -1);
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(LocalClusterTest, ProxiedPeersCanBeCutOffWhileClientsGetThrough) {
  LocalClusterOptions options = Etcd(3);
  options.proxied_peers = true;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const auto leader = cluster.Leader();
  ASSERT_TRUE(leader.ok()) << leader.status();
  const int other = (*leader + 1) % 3;
  EXPECT_GT(cluster.links().Bytes(*leader, other), 0u);
  EXPECT_GT(cluster.links().Bytes(other, *leader), 0u);

  const uint64_t term_leader = GetEndpointStatus(cluster.endpoint(*leader), kPatience)->leader;
  cluster.links().Cut(*leader, TcpProxy::kAll);
  // The two others find a leader among them; the one that is cut off still answers its clients.
  EXPECT_TRUE(Eventually([&] {
    const auto status = GetEndpointStatus(cluster.endpoint(other), kPatience);
    return status.ok() && status->leader != 0 && status->leader != term_leader;
  }));
  EXPECT_TRUE(GetEndpointStatus(cluster.endpoint(*leader), kPatience).ok());
  cluster.links().HealAll();
  EXPECT_TRUE(cluster.WaitForLeader(kPatience).ok());
}

TEST_F(LocalClusterTest, MembersComeAndGo) {
  LocalClusterOptions options = Etcd(1);
  options.proxied_peers = true;
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  const auto second = cluster.AddMember();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(*second, 1);
  ASSERT_TRUE(cluster.WaitForLeader(kPatience).ok()) << cluster.LogTail(1);
  EXPECT_EQ(cluster.Endpoints().size(), 2u);
  EXPECT_TRUE(absl::IsFailedPrecondition(cluster.Wipe(1)));
  ASSERT_TRUE(cluster.Kill(1).ok());
  ASSERT_TRUE(cluster.Wipe(1).ok());
  EXPECT_TRUE(std::filesystem::is_empty(cluster.data_dir(1)));
  cluster.Retire(1);
  EXPECT_EQ(cluster.Endpoints().size(), 1u);
  // A flag that is given anew takes the place of the cluster's own.
  ASSERT_TRUE(cluster.Stop(0).ok());
  ASSERT_TRUE(
      cluster.Restart(0, {"--data-dir=" + root_ + "/elsewhere", "--initial-cluster-state=new"})
          .ok());
  EXPECT_TRUE(Eventually([&] { return std::filesystem::exists(root_ + "/elsewhere/member"); }));
}

constexpr int kHelperFd = 100;

// A child process starts a cluster and is killed: so must its server be.
TEST_F(LocalClusterTest, ServersDieWithTheirParent) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  setenv("HOLDFAST_HELPER_ROOT", root_.c_str(), 1);
  const pid_t parent = fork();
  if (parent == 0) {
    const char* const args[] = {"/proc/self/exe", "--gtest_filter=DISABLED_Helper.HoldsACluster",
                                "--gtest_also_run_disabled_tests", nullptr};
    dup2(pipe_fds[1], kHelperFd);
    execv(args[0], const_cast<char* const*>(args));
    _exit(127);
  }
  close(pipe_fds[1]);
  pid_t server = 0;
  ASSERT_EQ(read(pipe_fds[0], &server, sizeof(server)), ssize_t(sizeof(server)));
  ASSERT_GT(server, 0);
  const int server_fd = int(syscall(SYS_pidfd_open, server, 0));
  ASSERT_GE(server_fd, 0);
  kill(parent, SIGKILL);
  ASSERT_EQ(waitpid(parent, nullptr, 0), parent);
  pollfd ended = {.fd = server_fd, .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&ended, 1, int(absl::ToInt64Milliseconds(kPatience))), 1);
  close(server_fd);
  close(pipe_fds[0]);
}

// Not a test: the body of the child process above.
TEST(DISABLED_Helper, HoldsACluster) {
  LocalClusterOptions options;
  options.binary = "/usr/bin/etcd";
  options.members = 1;
  options.root = getenv("HOLDFAST_HELPER_ROOT");
  auto started = LocalCluster::Start(options);
  const pid_t pid = started.ok() ? (*started)->pid(0) : 0;
  ASSERT_EQ(write(kHelperFd, &pid, sizeof(pid)), ssize_t(sizeof(pid)));
  pause();
}

TEST_F(LocalClusterTest, AServerThatEndsAtOnceIsToldWithItsLog) {
  LocalClusterOptions options = Etcd(1);
  options.extra_args = {"--no-such-flag"};
  const auto started = LocalCluster::Start(options);
  ASSERT_TRUE(absl::IsUnavailable(started.status()));
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("no-such-flag"));
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

TEST_F(LocalClusterTest, BadOptionsAreRefused) {
  LocalClusterOptions options = Etcd(3);
  options.binary = "no-such-server-binary";
  EXPECT_TRUE(absl::IsInvalidArgument(LocalCluster::Start(options).status()));
  options.binary = "/nonexistent/etcd";
  EXPECT_TRUE(absl::IsInvalidArgument(LocalCluster::Start(options).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(LocalCluster::Start(Etcd(0)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(LocalCluster::Start(Etcd(kMaxLocalMembers + 1)).status()));
}

TEST_F(LocalClusterTest, ASessionLoadsAndReadsWhatItLoaded) {
  auto started = LocalCluster::Start(Etcd(3));
  ASSERT_TRUE(started.ok()) << started.status();
  Options options;
  options.load = options.key_space = 2000;
  options.total = 2000;
  options.clients = 20;
  options.warmup = absl::ZeroDuration();
  options.leader_only = true;
  options.seed = 1;
  const std::atomic<bool> cancelled{false};
  auto session = Session::Open(options, (*started)->Endpoints(), (*started)->Pids(), cancelled);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_EQ((*session)->targets().size(), 1u);
  const auto leader = (*started)->Leader();
  ASSERT_TRUE(leader.ok());
  EXPECT_EQ((*session)->targets()[0], (*started)->endpoint(*leader));
  const auto load = (*session)->Load(2000);
  ASSERT_TRUE(load.ok()) << load.status();
  const auto result = (*session)->RunOnce({.workload = GetWorkload()});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stats.ok(), 2000u);
  EXPECT_EQ(result->stats.not_found(), 0u);
  EXPECT_EQ(result->servers.size(), 3u);
}

}  // namespace
}  // namespace holdfast::bench
