// A full disk stops a member with a text that says so; with space again it starts and lacks
// nothing.
#include <fmt/format.h>

#include "tests/process/process_util.h"

namespace holdfast {
namespace {

TEST(DiskFull, StopsTheMemberAndLosesNothing) {
  const std::string dir = testing::TempDir() + "holdfast_small_disk";
  SmallDisk disk(dir);
  if (!disk.Mount(150)) GTEST_SKIP() << "mounting a tmpfs needs root";
  bench::LocalClusterOptions options;
  options.binary = bench::BinaryBesideOwn("holdfastd");
  options.root = dir;
  options.members = 1;
  // This is about what happens when it does run full: without the guard that comes before.
  options.extra_args = {"--disk-reserve-bytes=-1"};
  auto cluster = bench::LocalCluster::Start(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  auto client = OpenClient((*cluster)->Endpoints());
  const std::string value(256 * 1024, 'v');
  int acked = 0;
  // 150 MiB cannot hold this many.
  for (; acked < 2000; ++acked) {
    const auto put = client->Put(fmt::format("/big/{:05}", acked), value);
    if (!put.ok()) break;
  }
  ASSERT_GT(acked, 0);
  ASSERT_LT(acked, 2000);
  for (const absl::Time give_up = absl::Now() + kGiveUp;
       (*cluster)->Running(0) && absl::Now() < give_up;) {
    (void)client->Put("/more", value);
  }
  EXPECT_FALSE((*cluster)->Running(0)) << "a member must not go on without its disk";
  EXPECT_THAT((*cluster)->LogTail(0), testing::HasSubstr("space"));

  ASSERT_TRUE(disk.Grow(1000));
  ASSERT_TRUE((*cluster)->Restart(0).ok());
  ASSERT_TRUE((*cluster)->WaitForLeader(kGiveUp).ok()) << (*cluster)->LogTail(0);
  // A new client: the old one has given the store up, and takes its time to look again.
  client = OpenClient((*cluster)->Endpoints());
  for (int i = 0; i < acked; ++i) {
    const auto read =
        client->Get(fmt::format("/big/{:05}", i), ReadOptions::Linearizable().Deadline(kGiveUp));
    ASSERT_TRUE(read.ok()) << read.status() << "\n" << (*cluster)->LogTail(0);
    ASSERT_TRUE(read->value.has_value()) << i;
    ASSERT_EQ(read->value->value, value);
  }
  cluster->reset();
}

}  // namespace
}  // namespace holdfast
