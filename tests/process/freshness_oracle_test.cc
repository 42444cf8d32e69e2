// The oracle of the age protocol on real processes: they share CLOCK_BOOTTIME with this one, so a
// claimed age can be checked against when writes really were acknowledged.
#include <time.h>

#include <atomic>
#include <thread>

#include <fmt/format.h>

#include "absl/synchronization/mutex.h"
#include "base/rng.h"
#include "tests/process/process_util.h"

namespace holdfast {
namespace {

int64_t BootNs() {
  timespec ts;
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec;
}

struct Ack {
  uint64_t revision;
  int64_t at_ns;
};

struct Answer {
  uint64_t revision;
  int64_t evaluated_ns;
  int64_t age_ns;
};

// One writer, and a reader of each member that takes any age. REQUIRES: the cluster outlives it.
class Oracle {
 public:
  explicit Oracle(bench::LocalCluster& cluster);
  ~Oracle() { Stop(); }

  void Stop();
  // Waits until the writer has `acks` more, and `member` has claimed an age of at least `age`, or
  // less than it, in an answer after this call.
  bool AwaitOlder(int member, absl::Duration age, int acks);
  bool AwaitYounger(int member, absl::Duration age);

  // After Stop(): claims that some write acknowledged before the claimed instant contradicts, were
  // every age that much smaller than it was told.
  int64_t Violations(int divisor) const;
  size_t claims() const;
  size_t acks() const { return acks_.size(); }

 private:
  void Write();
  void Read(size_t member);
  bool Await(int member, int acks, const std::function<bool(int64_t age_ns)>& wanted);

  bench::LocalCluster& cluster_;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
  // Each is its own thread's until that has ended; the newest are told to others.
  std::vector<Ack> acks_;
  std::vector<std::vector<Answer>> answers_;
  absl::Mutex mutex_;
  int64_t acked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Answer> newest_ ABSL_GUARDED_BY(mutex_);
};

Oracle::Oracle(bench::LocalCluster& cluster)
    : cluster_(cluster), answers_(size_t(cluster.size())), newest_(size_t(cluster.size())) {
  threads_.emplace_back([this] { Write(); });
  for (size_t m = 0; m < answers_.size(); ++m) {
    threads_.emplace_back([this, m] { Read(m); });
  }
}

void Oracle::Stop() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Oracle::Write() {
  const auto client = OpenClient(cluster_.Endpoints());
  for (int n = 0; !stop_; ++n) {
    const auto put =
        client->Put("/oracle", std::to_string(n), {.deadline = absl::Milliseconds(500)});
    if (!put.ok()) continue;
    acks_.push_back({put->token.revision, BootNs()});
    absl::MutexLock lock(&mutex_);
    ++acked_;
  }
}

void Oracle::Read(size_t member) {
  const auto client = OpenClient({cluster_.endpoint(int(member))});
  const auto any_age = ReadOptions::Bounded(absl::InfiniteDuration()).Deadline(absl::Seconds(1));
  while (!stop_) {
    const auto read = client->Get("/oracle", any_age);
    if (!read.ok() || read->fresh.proof() != Proof::kProven) continue;
    // The age first: it grows, so it is the smallest that belongs to an instant before `now`.
    const absl::Duration age = read->fresh.MaxAge();
    const Answer answer{read->fresh.revision(), BootNs(), absl::ToInt64Nanoseconds(age)};
    answers_[member].push_back(answer);
    absl::MutexLock lock(&mutex_);
    newest_[member] = answer;
  }
}

bool Oracle::Await(int member, int acks, const std::function<bool(int64_t age_ns)>& wanted) {
  const int64_t now_ns = BootNs();
  absl::MutexLock lock(&mutex_);
  const int64_t acked = acked_ + acks;
  const auto there = [&] {
    mutex_.AssertHeld();
    const Answer& newest = newest_[size_t(member)];
    return acked_ >= acked && newest.evaluated_ns > now_ns && wanted(newest.age_ns);
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&there), kGiveUp);
}

bool Oracle::AwaitOlder(int member, absl::Duration age, int acks) {
  const int64_t bound_ns = absl::ToInt64Nanoseconds(age);
  return Await(member, acks, [bound_ns](int64_t age_ns) { return age_ns >= bound_ns; });
}

bool Oracle::AwaitYounger(int member, absl::Duration age) {
  const int64_t bound_ns = absl::ToInt64Nanoseconds(age);
  return Await(member, 0, [bound_ns](int64_t age_ns) { return age_ns < bound_ns; });
}

int64_t Oracle::Violations(int divisor) const {
  int64_t violations = 0;
  for (size_t m = 0; m < answers_.size(); ++m) {
    const auto claimed_ns = [&](const Answer& a) { return a.evaluated_ns - a.age_ns / divisor; };
    std::vector<Answer> in_order = answers_[m];
    std::sort(in_order.begin(), in_order.end(),
              [&](const Answer& a, const Answer& b) { return claimed_ns(a) < claimed_ns(b); });
    size_t next = 0;         // acks are in order of time
    uint64_t must_have = 0;  // the newest revision acknowledged early enough
    for (const Answer& answer : in_order) {
      for (; next < acks_.size() && acks_[next].at_ns < claimed_ns(answer); ++next) {
        must_have = std::max(must_have, acks_[next].revision);
      }
      if (answer.revision >= must_have) continue;
      if (++violations <= 3 && divisor == 1) {
        ADD_FAILURE() << "member " << m << " claimed an age of " << double(answer.age_ns) / 1e6
                      << " ms at revision " << answer.revision << "; " << must_have
                      << " was acknowledged before that";
      }
    }
  }
  return violations;
}

size_t Oracle::claims() const {
  size_t sum = 0;
  for (const std::vector<Answer>& answers : answers_) sum += answers.size();
  return sum;
}

TEST(FreshnessOracle, NoAgeIsTooSmallUnderPausesAndKills) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);
  Oracle oracle(*cluster);
  // What makes a claim that was stamped too late lie.
  const auto client = OpenClient(cluster->Endpoints());
  for (int round = 0; round < 6; ++round) {
    const int victim = static_cast<int>(rng.Below(3));
    ASSERT_TRUE((round % 2 == 0 ? cluster->Pause(victim) : cluster->Kill(victim)).ok());
    for (int i = 0; i < 30; ++i) {
      (void)client->Put("/during", std::to_string(i), {.deadline = absl::Seconds(3)});
    }
    ASSERT_TRUE((round % 2 == 0 ? cluster->Resume(victim) : cluster->Restart(victim)).ok());
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  }
  oracle.Stop();
  EXPECT_EQ(oracle.Violations(1), 0);
  fmt::print("{} claims checked against {} acknowledged writes\n", oracle.claims(), oracle.acks());
  EXPECT_GT(oracle.claims(), 100u);
  EXPECT_GT(oracle.acks(), 10u);
}

// A member that hears nothing new while writes go on elsewhere must say so: this is where an age
// that is too small shows. So the oracle also proves its own strength: were the ages half or a
// quarter of what they are, it would have to find that.
TEST(FreshnessOracle, AMemberCutOffFromItsPeersAgesWhileItsClientsGetThrough) {
  const uint64_t seed = SeedFromEnvironment();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  auto cluster = StartProxiedCluster(3);
  ASSERT_NE(cluster, nullptr);
  constexpr int kAll = bench::TcpProxy::kAll;
  constexpr absl::Duration kOld = absl::Seconds(3);
  Oracle oracle(*cluster);
  // The leader, a follower, and one-way silence of either direction.
  for (int round = 0; round < 4; ++round) {
    const auto leader = cluster->Leader();
    ASSERT_TRUE(leader.ok()) << leader.status();
    const int victim = round == 0 ? *leader : (*leader + 1 + int(rng.Below(2))) % 3;
    SCOPED_TRACE(fmt::format("round {}, member {}, leader {}", round, victim, *leader));
    // Only who has made a claim has one that ages.
    EXPECT_TRUE(oracle.AwaitYounger(victim, absl::Seconds(1))) << cluster->LogTail(victim);
    if (round < 2) cluster->links().Cut(victim, kAll);
    if (round == 2) cluster->links().Blackhole(victim, kAll);
    if (round == 3) cluster->links().Blackhole(kAll, victim);
    EXPECT_TRUE(oracle.AwaitOlder(victim, kOld, 20)) << cluster->LogTail(victim);
    cluster->links().HealAll();
    EXPECT_TRUE(oracle.AwaitYounger(victim, absl::Seconds(1))) << cluster->LogTail(victim);
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  }
  oracle.Stop();
  EXPECT_EQ(oracle.Violations(1), 0);
  const int64_t half = oracle.Violations(2);
  const int64_t quarter = oracle.Violations(4);
  fmt::print(
      "{} claims checked against {} acknowledged writes; of ages half as large {} would have been "
      "caught, of a quarter {}\n",
      oracle.claims(), oracle.acks(), half, quarter);
  EXPECT_GT(half, 100);
  EXPECT_GT(quarter, 100);
}

}  // namespace
}  // namespace holdfast
