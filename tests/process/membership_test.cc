// Members come, go and are replaced while clients read and write: no linearizable read fails or
// takes longer than an election, nothing is lost, the history is linearizable.
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/rng.h"
#include "bench/endpoint.h"
#include "bench/monotonic.h"
#include "tests/process/member_calls.h"
#include "tests/process/process_util.h"
#include "tests/process/workload.h"

namespace holdfast {
namespace {

// The default election timeout is 1 s, and each member draws between it and twice it; the rest is
// for a vote that is split once, on a machine that is busy with tests.
constexpr absl::Duration kElectionMax = absl::Seconds(4);
constexpr int64_t kProgress = 200;

WorkloadOptions Load(const bench::LocalCluster& cluster, uint64_t seed) {
  return {.endpoints = cluster.Endpoints(), .seed = seed, .deadline = absl::Seconds(10)};
}

void ExpectReadsWentOn(Workload& load, const std::string& during) {
  EXPECT_TRUE(load.AwaitWrites(kProgress, kGiveUp)) << during;
  const Workload::Reads reads = load.TakeReads();
  fmt::print("{}: {} linearizable reads, the longest {}; longest time without a write {}\n", during,
             reads.answered, absl::FormatDuration(reads.longest),
             absl::FormatDuration(load.TakeWriteGap()));
  EXPECT_GT(reads.answered, 0) << during;
  EXPECT_EQ(reads.failed, 0) << during << ": " << reads.failure;
  EXPECT_LT(reads.longest, kElectionMax) << during;
}

bool AllVote(const std::vector<ListedMember>& members, size_t count) {
  return members.size() == count &&
         std::all_of(members.begin(), members.end(),
                     [](const ListedMember& m) { return !m.learner && !m.name.empty(); });
}

// The member's own data, brought up to date by a linearizable read through it.
std::vector<Entry> UpToDateDump(bench::LocalCluster& cluster, int member, uint64_t revision) {
  const auto client = OpenClient({cluster.endpoint(member)});
  EXPECT_TRUE(Eventually([&] {
    return client->Get("h0", ReadOptions::Linearizable().Deadline(absl::Seconds(5))).ok();
  }));
  return DumpAt(cluster, member, revision);
}

void ExpectMembersEqual(bench::LocalCluster& cluster, const std::vector<int>& members) {
  const auto client = OpenClient(cluster.Endpoints());
  const auto last = client->Get("h0", ReadOptions::Linearizable().Deadline(kGiveUp));
  ASSERT_TRUE(last.ok()) << last.status();
  std::vector<std::string> dumps;
  for (const int member : members) {
    std::string text;
    for (const Entry& e : UpToDateDump(cluster, member, last->fresh.revision())) {
      text += fmt::format("{}={} created {} modified {} version {}\n", e.key, e.value,
                          e.create_revision, e.mod_revision, e.version);
    }
    EXPECT_FALSE(text.empty());
    dumps.push_back(std::move(text));
    EXPECT_EQ(dumps.back(), dumps.front()) << "member " << member;
  }
}

TEST(Membership, GrowsToFiveAndShrinksToThreeUnderLoad) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  // The log is truncated often, so that a new member may need a snapshot.
  const auto cluster = StartCluster({"--snapshot-count=1000"});
  ASSERT_NE(cluster, nullptr);
  for (int n = 0; n < 2; ++n) ASSERT_TRUE(cluster->NewMember().ok());
  Workload load(Load(*cluster, seed));  // knows all five, two of which are not there yet
  ExpectReadsWentOn(load, "three members");

  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(IdOf(cluster->endpoint(i)).value_or(0));
  for (const int i : {3, 4}) {
    // Any member will do: it asks the leader.
    const auto added = AddMember(cluster->endpoint(i - 3), cluster->peer_url(i));
    ASSERT_TRUE(added.ok()) << added.status();
    ids.push_back(*added);
    ASSERT_TRUE(cluster->Restart(i).ok());
    const auto members = AwaitMembers(cluster->endpoint(0),
                                      [&](const auto& now) { return AllVote(now, size_t(i) + 1); });
    ASSERT_TRUE(AllVote(members, size_t(i) + 1)) << cluster->LogTail(i);
    ExpectReadsWentOn(load, fmt::format("member {} added", i));
  }
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());

  // First the leader itself goes, then one that follows. Both stay up until they are out.
  for (const bool the_leader : {true, false}) {
    const auto leader = cluster->Leader();
    ASSERT_TRUE(leader.ok()) << leader.status();
    int victim = *leader;
    while (!the_leader && (victim == *leader || cluster->retired(victim))) {
      victim = (victim + 1) % cluster->size();
    }
    int other = (victim + 1) % cluster->size();
    while (cluster->retired(other)) other = (other + 1) % cluster->size();
    const absl::Status removed = RemoveMember(cluster->endpoint(other), ids[size_t(victim)]);
    EXPECT_TRUE(removed.ok()) << removed;
    ExpectReadsWentOn(load, the_leader ? "leader removed" : "follower removed");
    const auto members = ListMembers(cluster->endpoint(other));
    ASSERT_TRUE(members.ok()) << members.status();
    EXPECT_EQ(FindMember(*members, ids[size_t(victim)]), nullptr);
    cluster->Retire(victim);
    ExpectReadsWentOn(load, "removed member stopped");
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  }
  ExpectLinearizable(load.Stop());
  std::vector<int> left;
  for (int i = 0; i < cluster->size(); ++i) {
    if (!cluster->retired(i)) left.push_back(i);
  }
  ASSERT_EQ(left.size(), 3u);
  ExpectMembersEqual(*cluster, left);
}

// All three vote, `with` among them and `without` not.
std::function<bool(const std::vector<ListedMember>&)> ThreeWith(uint64_t with, uint64_t without) {
  return [=](const std::vector<ListedMember>& now) {
    return AllVote(now, 3) && (with == 0 || FindMember(now, with) != nullptr) &&
           FindMember(now, without) == nullptr;
  };
}

TEST(Membership, ADeadMemberIsReplacedUnderLoad) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  const auto cluster = StartCluster({"--snapshot-count=1000", "--repair=manual"});
  ASSERT_NE(cluster, nullptr);
  const int dead = int(base::Rng(seed).Below(3));
  const int alive = (dead + 1) % 3;
  const absl::StatusOr<uint64_t> old_id = IdOf(cluster->endpoint(dead));
  ASSERT_TRUE(old_id.ok()) << old_id.status();
  Workload load(Load(*cluster, seed));
  AwaitMembers(cluster->endpoint(alive), ThreeWith(*old_id, 0));
  ASSERT_TRUE(load.AwaitWrites(kProgress, kGiveUp));
  ASSERT_TRUE(cluster->Kill(dead).ok());
  ExpectReadsWentOn(load, "a member died");

  // Its disk is gone too. Under its old id it must not come back: it may have forgotten a vote.
  ASSERT_TRUE(cluster->Wipe(dead).ok());
  ASSERT_TRUE(cluster->Restart(dead, {"--initial-cluster-state=new"}).ok());
  EXPECT_TRUE(Eventually([&] { return !cluster->Running(dead); })) << "it started without its data";
  EXPECT_THAT(cluster->LogTail(dead), testing::HasSubstr("member replace"));

  const absl::StatusOr<uint64_t> new_id = ReplaceMember(cluster->endpoint(alive), *old_id);
  ASSERT_TRUE(new_id.ok()) << new_id.status();
  EXPECT_NE(*new_id, *old_id);
  ASSERT_TRUE(cluster->Restart(dead).ok());
  const auto replaced = ThreeWith(*new_id, *old_id);
  ASSERT_TRUE(replaced(AwaitMembers(cluster->endpoint(alive), replaced))) << cluster->LogTail(dead);
  ExpectReadsWentOn(load, "replaced");

  // It counts: with another one gone, nothing commits without it.
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  ASSERT_TRUE(cluster->Kill(alive).ok());
  EXPECT_TRUE(load.AwaitWrites(kProgress, kGiveUp));
  ASSERT_TRUE(cluster->Restart(alive).ok());
  ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  ExpectLinearizable(load.Stop());
  ExpectMembersEqual(*cluster, {0, 1, 2});
}

TEST(Membership, AMemberThatLostItsDiskReplacesItselfUnderLoad) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  const auto cluster = StartCluster({"--snapshot-count=1000"});
  ASSERT_NE(cluster, nullptr);
  Workload load(Load(*cluster, seed));
  // Every one in turn, so that at last no member of the first hour is left.
  for (int lost = 0; lost < 3; ++lost) {
    const int other = (lost + 1) % 3;
    const absl::StatusOr<uint64_t> old_id = IdOf(cluster->endpoint(lost));
    ASSERT_TRUE(old_id.ok()) << old_id.status();
    AwaitMembers(cluster->endpoint(other), ThreeWith(*old_id, 0));
    ASSERT_TRUE(load.AwaitWrites(kProgress, kGiveUp));
    ASSERT_TRUE(cluster->Kill(lost).ok());
    ASSERT_TRUE(cluster->Wipe(lost).ok());
    // As an init script would, which knows nothing of the disk.
    ASSERT_TRUE(cluster->Restart(lost, {"--initial-cluster-state=new"}).ok());
    const auto replaced = ThreeWith(0, *old_id);
    ASSERT_TRUE(replaced(AwaitMembers(cluster->endpoint(other), replaced)))
        << cluster->LogTail(lost);
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    ExpectReadsWentOn(load, fmt::format("member {} lost its disk", lost));
  }
  ExpectLinearizable(load.Stop());
  ExpectMembersEqual(*cluster, {0, 1, 2});
}

TEST(Membership, LeadershipMovesUnderLoad) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  const auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(IdOf(cluster->endpoint(i)).value_or(0));
  Workload load(Load(*cluster, seed));
  ASSERT_TRUE(load.AwaitWrites(kProgress, kGiveUp));
  std::vector<double> took_ms;
  for (int n = FromEnvironment("HOLDFAST_TRANSFERS", 10); n > 0; --n) {
    const auto leader = cluster->Leader();
    ASSERT_TRUE(leader.ok()) << leader.status();
    const int to = (*leader + 1 + int(rng.Below(2))) % 3;
    const int64_t begin_ns = bench::MonotonicNs();
    const absl::Status moved = MoveLeader(cluster->endpoint(*leader), ids[size_t(to)]);
    ASSERT_TRUE(moved.ok()) << moved;
    took_ms.push_back(double(bench::MonotonicNs() - begin_ns) / 1e6);
    EXPECT_TRUE(load.AwaitWrites(kProgress, kGiveUp));
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
    EXPECT_EQ(cluster->Leader().value_or(-1), to);
  }
  std::sort(took_ms.begin(), took_ms.end());
  fmt::print("{} transfers: median {:.1f} ms, longest {:.1f} ms\n", took_ms.size(),
             took_ms[took_ms.size() / 2], took_ms.back());
  // Planned: nobody waits for an election timeout (1 s).
  EXPECT_LT(took_ms[took_ms.size() / 2], 500);
  ExpectReadsWentOn(load, "transfers");
  // Only the leader can hand over, and only to a member.
  const auto leader = cluster->Leader();
  ASSERT_TRUE(leader.ok());
  EXPECT_FALSE(MoveLeader(cluster->endpoint((*leader + 1) % 3), ids[size_t(*leader)]).ok());
  EXPECT_FALSE(MoveLeader(cluster->endpoint(*leader), 12345).ok());
  ExpectLinearizable(load.Stop());
}

}  // namespace
}  // namespace holdfast
