// A disk that fills up: the cluster stops taking data while there is still room to go on with, and
// nobody stops.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/maint/maint_calls.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

constexpr char kNoSpaceText[] = "etcdserver: mvcc: database space exceeded";

void Disarm(MemberApi& api) {
  for (const etcdserverpb::AlarmMember& alarm : api.Alarms()) {
    std::vector<etcdserverpb::AlarmMember> cleared;
    EXPECT_TRUE(
        api.Alarm(etcdserverpb::AlarmRequest::DEACTIVATE, alarm.memberid(), alarm.alarm(), &cleared)
            .ok());
    EXPECT_EQ(cleared.size(), 1u);
  }
}

TEST(Space, TheReserveKeepsAMemberAliveOnAFullDisk) {
  const std::string dir = testing::TempDir() + "holdfast_reserve_disk";
  SmallDisk disk(dir);
  if (!disk.Mount(400)) GTEST_SKIP() << "mounting a tmpfs needs root";
  bench::LocalClusterOptions options;
  options.binary = bench::BinaryBesideOwn("holdfastd");
  options.root = dir;
  options.members = 1;
  options.extra_args = {"--disk-reserve-bytes=209715200", "--log-bytes=16777216"};
  auto cluster = bench::LocalCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  MemberApi api((*cluster)->endpoint(0));
  // Bytes that no compression makes smaller would be better; tmpfs counts the log anyway.
  std::string value(256 * 1024, 'v');
  uint64_t state = 1;
  for (char& c : value) c = static_cast<char>((state = state * 6364136223846793005u + 1) >> 56);
  grpc::Status put;
  int acked = 0;
  for (; acked < 3000 && put.ok(); ++acked) {
    put = api.Put(fmt::format("/big/{:05}", acked), value);
  }
  EXPECT_EQ(put.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(put.error_message(), kNoSpaceText);
  ASSERT_GT(acked, 20);
  ASSERT_TRUE(Eventually([&] { return api.Alarms().size() == 1; }));
  EXPECT_EQ(api.Alarms()[0].alarm(), etcdserverpb::NOSPACE);
  EXPECT_THAT((*cluster)->LogTail(0), testing::HasSubstr("etcdctl alarm disarm"));

  // It lives: reads, deletes, status, and goes on refusing.
  std::optional<mvccpb::KeyValue> kv;
  EXPECT_TRUE(api.Get("/big/00000", false, &kv).ok());
  EXPECT_TRUE(kv.has_value());
  EXPECT_TRUE(api.Delete("/big/00001").ok());
  EXPECT_EQ(api.Put("/small", "x").error_message(), kNoSpaceText);
  etcdserverpb::StatusResponse status;
  ASSERT_TRUE(api.Status(&status).ok());
  EXPECT_THAT(status.errors(), testing::Contains(testing::HasSubstr("alarm:NOSPACE")));

  // Cleared too early it comes back.
  Disarm(api);
  EXPECT_TRUE(Eventually([&] { return api.Alarms().size() == 1; }));
  EXPECT_TRUE((*cluster)->Running(0));

  // With room again it stays until somebody clears it.
  ASSERT_TRUE(disk.Grow(1500));
  EXPECT_TRUE(Eventually(
      [&] { return (*cluster)->LogTail(0).find("enough space again") != std::string::npos; }));
  EXPECT_EQ(api.Put("/small", "x").error_message(), kNoSpaceText);
  Disarm(api);
  EXPECT_TRUE(api.Put("/small", "x").ok());
  EXPECT_TRUE(api.Alarms().empty());
  cluster->reset();
}

TEST(Space, AQuotaIsForTheWholeClusterWhoeverIsAsked) {
  auto cluster = StartCluster({"--quota-backend-bytes=3000000", "--disk-reserve-bytes=-1"});
  ASSERT_NE(cluster, nullptr);
  MemberApi one(cluster->endpoint(0));
  MemberApi two(cluster->endpoint(1));
  const std::string value(100'000, 'v');
  EXPECT_TRUE(Eventually([&] {
    return one.Put("/q", value).error_message() == kNoSpaceText &&
           two.Put("/q", value).error_message() == kNoSpaceText;
  }));
  EXPECT_FALSE(two.Alarms().empty());
  etcdserverpb::StatusResponse status;
  ASSERT_TRUE(two.Status(&status).ok());
  EXPECT_EQ(status.dbsizequota(), 3000000);
}

}  // namespace
}  // namespace holdfast
