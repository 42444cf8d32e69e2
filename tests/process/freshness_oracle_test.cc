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

TEST(FreshnessOracle, NoAgeIsEverTooSmall) {
  const uint64_t seed = base::RandomSeed();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  base::Rng rng(seed);
  auto cluster = StartCluster();
  ASSERT_NE(cluster, nullptr);

  std::atomic<bool> stop{false};
  std::vector<Ack> acks;
  std::thread writer([&] {
    auto client = OpenClient(cluster->Endpoints());
    for (int n = 0; !stop; ++n) {
      const auto put = client->Put("/oracle", std::to_string(n));
      if (put.ok()) acks.push_back({put->token.revision, BootNs()});
    }
  });
  std::vector<std::vector<Answer>> answers(3);
  std::vector<std::thread> readers;
  for (int m = 0; m < 3; ++m) {
    readers.emplace_back([&, m] {
      auto client = OpenClient({cluster->endpoint(m)});
      const auto any_age =
          ReadOptions::Bounded(absl::InfiniteDuration()).Deadline(absl::Seconds(1));
      while (!stop) {
        const auto read = client->Get("/oracle", any_age);
        if (!read.ok() || read->fresh.proof() != Proof::kProven) continue;
        // The age first: it grows, so it is the smallest that belongs to an instant before `now`.
        const absl::Duration age = read->fresh.MaxAge();
        answers[static_cast<size_t>(m)].push_back(
            {read->fresh.revision(), BootNs(), absl::ToInt64Nanoseconds(age)});
      }
    });
  }
  // Pauses and kills: what makes a claim that was stamped too late lie.
  const auto client = OpenClient(cluster->Endpoints());
  for (int round = 0; round < 6; ++round) {
    const int victim = static_cast<int>(rng.Below(3));
    if (round % 2 == 0) {
      ASSERT_TRUE(cluster->Pause(victim).ok());
    } else {
      ASSERT_TRUE(cluster->Kill(victim).ok());
    }
    for (int i = 0; i < 30; ++i) {
      (void)client->Put("/during", std::to_string(i), {.deadline = absl::Seconds(3)});
    }
    ASSERT_TRUE((round % 2 == 0 ? cluster->Resume(victim) : cluster->Restart(victim)).ok());
    ASSERT_TRUE(cluster->WaitForLeader(kGiveUp).ok());
  }
  stop = true;
  writer.join();
  for (std::thread& t : readers) t.join();

  size_t checked = 0;
  for (size_t m = 0; m < 3; ++m) {
    size_t next = 0;         // acks are in order of time
    uint64_t must_have = 0;  // the newest revision acknowledged early enough
    std::vector<Answer> in_order = answers[m];
    std::sort(in_order.begin(), in_order.end(), [](const Answer& a, const Answer& b) {
      return a.evaluated_ns - a.age_ns < b.evaluated_ns - b.age_ns;
    });
    for (const Answer& answer : in_order) {
      const int64_t claimed_ns = answer.evaluated_ns - answer.age_ns;
      for (; next < acks.size() && acks[next].at_ns < claimed_ns; ++next) {
        must_have = std::max(must_have, acks[next].revision);
      }
      ASSERT_GE(answer.revision, must_have)
          << "member " << m << " claimed an age of " << answer.age_ns / 1e6 << " ms";
      ++checked;
    }
  }
  fmt::print("{} claims checked against {} acknowledged writes\n", checked, acks.size());
  EXPECT_GT(checked, 100u);
  EXPECT_GT(acks.size(), 10u);
}

}  // namespace
}  // namespace holdfast
