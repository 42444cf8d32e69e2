// Ids are etcd's: the numbers below were answered by etcd 3.4.23 started with the same flags.
#include <gtest/gtest.h>

#include "server/flags.h"
#include "server/identity.h"

namespace holdfast::server {
namespace {

Identity IdentityFrom(const std::vector<std::string>& args) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(args, {});
  EXPECT_TRUE(line.ok()) << line.status();
  absl::StatusOr<Identity> identity = IdentityOf(line->config);
  EXPECT_TRUE(identity.ok()) << identity.status();
  return *identity;
}

constexpr const char* kThree =
    "--initial-cluster=m1=http://127.0.0.1:21011,m2=http://127.0.0.1:21021,"
    "m3=http://127.0.0.1:21031";

TEST(Identity, OfThreeMembersEqualsEtcds) {
  const std::vector<std::pair<std::string, uint64_t>> expected = {
      {"m1", 15773742029964071933u}, {"m2", 13488710553597122164u}, {"m3", 11930258414655295465u}};
  for (const auto& [name, id] : expected) {
    const Identity identity =
        IdentityFrom({"--name=" + name, kThree, "--initial-cluster-token=tok-1"});
    EXPECT_EQ(identity.cluster_id, 6370449090540302014u);
    EXPECT_EQ(identity.self.value, id) << name;
    EXPECT_EQ(identity.bootstrap.voters.size(), 3u);
    EXPECT_EQ(identity.bootstrap.peer_urls.at(NodeId(13488710553597122164u)),
              std::vector<std::string>{"http://127.0.0.1:21021"});
  }
}

TEST(Identity, OfSeveralPeerUrlsAndDefaultTokenEqualsEtcds) {
  // Written in the other order than sorted: the id must not depend on it.
  const Identity identity = IdentityFrom(
      {"--name=solo", "--listen-peer-urls=http://127.0.0.1:21112,http://127.0.0.1:21111",
       "--initial-cluster=solo=http://127.0.0.1:21112,solo=http://127.0.0.1:21111"});
  EXPECT_EQ(identity.self.value, 16200189128135107170u);
  EXPECT_EQ(identity.cluster_id, 2346820175543732302u);
}

TEST(Identity, TokenChangesEveryId) {
  const Identity a = IdentityFrom({"--name=m1", kThree, "--initial-cluster-token=a"});
  const Identity b = IdentityFrom({"--name=m1", kThree, "--initial-cluster-token=b"});
  EXPECT_NE(a.cluster_id, b.cluster_id);
  EXPECT_NE(a.self, b.self);
}

TEST(Identity, OrderOfTheListDoesNotMatter) {
  EXPECT_EQ(ClusterId({NodeId(1), NodeId(2)}), ClusterId({NodeId(2), NodeId(1)}));
}

}  // namespace
}  // namespace holdfast::server
