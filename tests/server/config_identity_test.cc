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

// --- of a member that has data ---

Config ConfigFrom(const std::vector<std::string>& args) {
  absl::StatusOr<CommandLine> line = ParseCommandLine(args, {});
  EXPECT_TRUE(line.ok()) << line.status();
  return line->config;
}

TEST(IdentityOfData, CountsAndNotTheFlags) {
  raft::Membership bootstrap;
  bootstrap.voters = {NodeId(1)};
  bootstrap.learners = {NodeId(7)};
  const DataDir::Owner found = {
      .cluster_id = 0xc1, .member_id = NodeId(7), .name = "m1", .bootstrap = bootstrap.Encode()};
  const auto identity = IdentityOf(ConfigFrom({"--name=m1", kThree}), found);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->cluster_id, 0xc1u);
  EXPECT_EQ(identity->self, NodeId(7));
  EXPECT_EQ(identity->bootstrap, bootstrap);
}

TEST(IdentityOfData, AReplacementOfAFirstMemberUnderItsFlagsIsFine) {
  const Identity first = IdentityFrom({"--name=m1", kThree});
  const auto identity =
      IdentityOf(ConfigFrom({"--name=m1", kThree}),
                 {.cluster_id = first.cluster_id, .member_id = NodeId(7), .name = "m1"});
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->self, NodeId(7));
}

TEST(IdentityOfData, TwoFirstMembersDirectoriesMixedUpAreRefused) {
  const Identity other = IdentityFrom({"--name=m2", kThree});
  const auto identity =
      IdentityOf(ConfigFrom({"--name=m1", kThree}),
                 {.cluster_id = other.cluster_id, .member_id = other.self, .name = "m2"});
  EXPECT_EQ(identity.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(IdentityOfData, OfTheFirstReleaseBeginsWithTheFlags) {
  const Identity first = IdentityFrom({"--name=m1", kThree});
  const DataDir::Owner found = {
      .cluster_id = first.cluster_id, .member_id = first.self, .name = "m1"};
  EXPECT_EQ(IdentityOf(ConfigFrom({"--name=m1", kThree}), found)->bootstrap, first.bootstrap);
  // The flags have changed since: whoever needs the membership has to say so.
  EXPECT_TRUE(IdentityOf(ConfigFrom({"--name=m1"}), found)->bootstrap.voters.empty());
}

TEST(Identity, OrderOfTheListDoesNotMatter) {
  EXPECT_EQ(ClusterId({NodeId(1), NodeId(2)}), ClusterId({NodeId(2), NodeId(1)}));
}

}  // namespace
}  // namespace holdfast::server
