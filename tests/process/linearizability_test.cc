// Several clients on a few keys while members and links fail in every way that a process test can
// do; the whole history must be linearizable, and there must be one: load goes on under each fault.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <filesystem>

#include <algorithm>
#include <optional>
#include <set>

#include "base/rng.h"
#include "etcd/rpc.grpc.pb.h"
#include "tests/process/process_util.h"
#include "tests/process/workload.h"

namespace holdfast {
namespace {

enum class Fault { kKill, kPause, kCut, kMute, kDeafen, kSlow, kPairCut, kDiskFull };
constexpr const char* kFaultNames[] = {"kill -9", "SIGSTOP",    "cut off",      "mute",
                                       "deaf",    "slow links", "one pair cut", "disk full"};
constexpr int kDiskMib = 400;
// Acknowledged writes that prove that load goes on: more than can be under way.
constexpr int64_t kProgress = 300;

class Storm {
 public:
  Storm(bench::LocalCluster& cluster, uint64_t seed) : cluster_(cluster), rng_(seed) {}

  // Puts one member's data on a disk that can be filled up; false without the right to mount.
  bool PrepareDisk(int member);

  // Returns what it did.
  std::string Begin(Fault fault, Workload& load);
  void End();
  base::Rng& rng() { return rng_; }

 private:
  // Any member that is well; every second time the leader.
  int Victim();

  struct Active {
    Fault fault;
    int victim;
    int other;
  };
  bench::LocalCluster& cluster_;
  base::Rng rng_;
  std::optional<SmallDisk> disk_;
  int disk_member_ = -1;
  std::vector<Active> active_;
};

bool Storm::PrepareDisk(int member) {
  namespace fs = std::filesystem;
  EXPECT_TRUE(cluster_.Kill(member).ok());
  const std::string& dir = cluster_.data_dir(member);
  const std::string aside = dir + ".aside";
  fs::rename(dir, aside);
  disk_.emplace(dir);
  const bool mounted = disk_->Mount(kDiskMib);
  fs::copy(aside, dir, fs::copy_options::recursive);
  fs::remove_all(aside);
  if (mounted) disk_member_ = member;
  if (!mounted) disk_.reset();
  EXPECT_TRUE(cluster_.Restart(member).ok());
  EXPECT_TRUE(cluster_.WaitForLeader(kGiveUp).ok()) << cluster_.LogTail(member);
  return mounted;
}

int Storm::Victim() {
  std::vector<int> well;
  for (int i = 0; i < cluster_.size(); ++i) {
    const bool ill =
        std::any_of(active_.begin(), active_.end(), [i](const Active& a) { return a.victim == i; });
    if (!ill) well.push_back(i);
  }
  const auto leader = cluster_.Leader();
  if (leader.ok() && rng_.OneIn(2) && std::count(well.begin(), well.end(), *leader) > 0) {
    return *leader;
  }
  return well[rng_.Below(well.size())];
}

std::string Storm::Begin(Fault fault, Workload& load) {
  constexpr int kAll = bench::TcpProxy::kAll;
  const int victim = fault == Fault::kDiskFull ? disk_member_ : Victim();
  const int n = cluster_.size();
  const int other = (victim + 1 + int(rng_.Below(uint64_t(n - 1)))) % n;
  active_.push_back({fault, victim, other});
  bench::TcpProxy& links = cluster_.links();
  switch (fault) {
    case Fault::kKill:
      EXPECT_TRUE(cluster_.Kill(victim).ok());
      break;
    case Fault::kPause:
      EXPECT_TRUE(cluster_.Pause(victim).ok());
      break;
    case Fault::kCut:
      links.Cut(victim, kAll);
      break;
    case Fault::kMute:
      links.Blackhole(victim, kAll);
      break;
    case Fault::kDeafen:
      links.Blackhole(kAll, victim);
      break;
    case Fault::kSlow:
      links.Delay(victim, kAll, absl::Milliseconds(20 + rng_.Below(60)));
      links.Delay(kAll, victim, absl::Milliseconds(20 + rng_.Below(60)));
      break;
    case Fault::kPairCut:
      links.Cut(victim, other);
      break;
    case Fault::kDiskFull:
      disk_->Fill();
      // It notices when it next writes more than its files have room for.
      EXPECT_TRUE(Eventually([&] {
        return load.AwaitWrites(1, kGiveUp) && !cluster_.Running(victim);
      })) << "a member must not go on without its disk";
      EXPECT_THAT(cluster_.LogTail(victim), testing::HasSubstr("space"));
      break;
  }
  return fmt::format("{} of m{}; ", kFaultNames[size_t(fault)], victim);
}

void Storm::End() {
  cluster_.links().HealAll();
  for (const Active& a : active_) {
    if (a.fault == Fault::kPause) {
      EXPECT_TRUE(cluster_.Resume(a.victim).ok());
    }
    if (a.fault == Fault::kDiskFull) disk_->Free();
    if (!cluster_.Running(a.victim)) {
      EXPECT_TRUE(cluster_.Restart(a.victim).ok());
    }
  }
  active_.clear();
}

// Every member, by itself, answers a linearizable read: all are back.
void AwaitAllServe(bench::LocalCluster& cluster) {
  for (int i = 0; i < cluster.size(); ++i) {
    const auto client = OpenClient({cluster.endpoint(i)});
    absl::Status last;
    EXPECT_TRUE(Eventually([&] {
      last = client->Get("h0", ReadOptions().Deadline(absl::Seconds(2))).status();
      return last.ok();
    })) << last
        << "\n"
        << cluster.LogTail(i);
  }
}

// A member may have raised NOSPACE before its disk was full to the last byte. As in etcd, the alarm
// stays until an operator, who has made room, takes it back: until then puts are refused.
void TakeBackAlarms(bench::LocalCluster& cluster) {
  const auto stub = etcdserverpb::Maintenance::NewStub(
      grpc::CreateChannel(cluster.endpoint(0), grpc::InsecureChannelCredentials()));
  const auto call = [&stub](const etcdserverpb::AlarmRequest& request) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    etcdserverpb::AlarmResponse response;
    const bool ok = stub->Alarm(&context, request, &response).ok();
    return ok ? std::optional(response) : std::nullopt;
  };
  EXPECT_TRUE(Eventually([&call] {
    const auto alarms = call(etcdserverpb::AlarmRequest());
    if (!alarms.has_value()) return false;
    for (const etcdserverpb::AlarmMember& alarm : alarms->alarms()) {
      etcdserverpb::AlarmRequest request;
      request.set_action(etcdserverpb::AlarmRequest::DEACTIVATE);
      request.set_memberid(alarm.memberid());
      request.set_alarm(alarm.alarm());
      call(request);
    }
    return alarms->alarms().empty();
  }));
}

void RunStorm(bench::LocalCluster& cluster, std::vector<std::vector<Fault>> rounds, bool disk,
              uint64_t seed) {
  Storm storm(cluster, seed);
  if (disk && !storm.PrepareDisk(0)) {
    fmt::print("no right to mount a tmpfs: the full disk is left out\n");
    for (std::vector<Fault>& round : rounds) std::erase(round, Fault::kDiskFull);
  }
  for (size_t i = rounds.size(); i > 1; --i) {
    std::swap(rounds[i - 1], rounds[storm.rng().Below(i)]);
  }
  Workload load({.endpoints = cluster.Endpoints(), .seed = seed});
  for (const std::vector<Fault>& round : rounds) {
    std::string text;
    for (const Fault fault : round) text += storm.Begin(fault, load);
    SCOPED_TRACE(text);
    EXPECT_TRUE(load.AwaitWrites(kProgress, kGiveUp))
        << "no progress with a healthy majority; " << load.write_failure();
    storm.End();
    AwaitAllServe(cluster);
    if (std::ranges::find(round, Fault::kDiskFull) != round.end()) TakeBackAlarms(cluster);
    EXPECT_TRUE(load.AwaitWrites(kProgress, kGiveUp));
    fmt::print("{}longest time without an acknowledged write {}\n", text,
               absl::FormatDuration(load.TakeWriteGap()));
    if (testing::Test::HasFailure()) break;
  }
  ExpectLinearizable(load.Stop());
}

TEST(Linearizability, ThreeMembersUnderEveryFault) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  // Flushes and log truncation come often, so that faults hit them.
  const auto cluster = StartProxiedCluster(3, {"--snapshot-count=1000"});
  ASSERT_NE(cluster, nullptr);
  std::vector<std::vector<Fault>> rounds;
  for (int n = FromEnvironment("HOLDFAST_FAULT_ROUNDS", 1); n > 0; --n) {
    for (const Fault fault : {Fault::kKill, Fault::kPause, Fault::kCut, Fault::kMute,
                              Fault::kDeafen, Fault::kSlow, Fault::kPairCut, Fault::kDiskFull}) {
      rounds.push_back({fault});
    }
  }
  RunStorm(*cluster, rounds, true, seed);
}

TEST(Linearizability, FiveMembersUnderTwoFaultsAtOnce) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  const auto cluster = StartProxiedCluster(5, {"--snapshot-count=1000"});
  ASSERT_NE(cluster, nullptr);
  std::vector<std::vector<Fault>> rounds;
  for (int n = FromEnvironment("HOLDFAST_FAULT_ROUNDS", 1); n > 0; --n) {
    rounds.push_back({Fault::kKill, Fault::kKill});
    rounds.push_back({Fault::kPause, Fault::kMute});
    rounds.push_back({Fault::kDeafen, Fault::kCut});
    rounds.push_back({Fault::kSlow, Fault::kKill});
  }
  RunStorm(*cluster, rounds, false, seed);
}

}  // namespace
}  // namespace holdfast
