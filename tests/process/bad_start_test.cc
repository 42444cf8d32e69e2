// What a person gets wrong when starting a server: a clear text, an exit code, nothing lost.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "bench/endpoint.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

using testing::HasSubstr;

std::vector<std::string> Command(const std::vector<std::string>& args) {
  std::vector<std::string> argv{bench::BinaryBesideOwn("holdfastd")};
  argv.insert(argv.end(), args.begin(), args.end());
  return argv;
}

// A port that nobody listens on now.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

std::vector<std::string> Member(int client_port, int peer_port, const std::string& data_dir,
                                const std::string& token) {
  const std::string client = "http://127.0.0.1:" + std::to_string(client_port);
  const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port);
  return Command({"--name=n", "--data-dir=" + data_dir, "--listen-client-urls=" + client,
                  "--advertise-client-urls=" + client, "--listen-peer-urls=" + peer,
                  "--initial-advertise-peer-urls=" + peer, "--initial-cluster=n=" + peer,
                  "--initial-cluster-token=" + token});
}

TEST(BadStart, UnknownFlagIsNamed) {
  const ProgramEnd end = RunToEnd(Command({"--nmae=a"}));
  EXPECT_EQ(end.exit_code, 2);
  EXPECT_THAT(end.output, HasSubstr("nmae"));
}

TEST(BadStart, MalformedUrlIsNamed) {
  const ProgramEnd end = RunToEnd(Command({"--listen-client-urls=127.0.0.1:1"}));
  EXPECT_NE(end.exit_code, 0);
  EXPECT_THAT(end.output, HasSubstr("listen-client-urls"));
}

TEST(BadStart, PortInUseAndDataDirInUse) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const std::string fresh = testing::TempDir() + "bad_start_fresh";
  std::filesystem::remove_all(fresh);
  // The port belongs to a running member.
  const ProgramEnd taken = RunToEnd(Member(cluster->client_port(0), FreePort(), fresh, "t"));
  EXPECT_EQ(taken.exit_code, 1);
  EXPECT_THAT(taken.output, HasSubstr(std::to_string(cluster->client_port(0))));
  EXPECT_THAT(taken.output, HasSubstr("in use"));
  // So does the data directory.
  const ProgramEnd in_use = RunToEnd(Member(FreePort(), FreePort(), cluster->data_dir(0), "t"));
  EXPECT_EQ(in_use.exit_code, 1);
  EXPECT_THAT(in_use.output, HasSubstr(cluster->data_dir(0)));
  ASSERT_TRUE(cluster->Kill(0).ok());
  // None of that hurt it.
  ASSERT_TRUE(cluster->Restart(0).ok());
  EXPECT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  std::filesystem::remove_all(fresh);
}

// As in etcd: who has data is who its data says, whatever the flags of a first start say by now.
TEST(BadStart, FlagsOfAnotherClusterDoNotChangeWhoAMemberIs) {
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  const auto before = bench::GetEndpointStatus(cluster->endpoint(0), kGiveUp);
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_TRUE(cluster->Kill(0).ok());
  ASSERT_TRUE(cluster->Restart(0, {"--initial-cluster-token=other"}).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok()) << cluster->LogTail(0);
  const auto after = bench::GetEndpointStatus(cluster->endpoint(0), kGiveUp);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->member_id, before->member_id);
}

}  // namespace
}  // namespace holdfast
