#include "server/thread_policy.h"

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace holdfast::server {
namespace {

TEST(ThreadPolicy, ManyEntriesAnApplyBeginItAndFewEndIt) {
  BatchJudge judge;
  ApplyCounts now;
  const auto after = [&](uint64_t calls, uint64_t entries) {
    now.calls += calls;
    now.entries += entries;
    return judge.Look(now);
  };
  EXPECT_FALSE(after(100, 100));  // one writer
  EXPECT_FALSE(after(100, 799));
  EXPECT_TRUE(after(100, 800));
  EXPECT_TRUE(after(100, 400));  // what began it need not go on
  EXPECT_FALSE(after(100, 399));
  EXPECT_FALSE(after(100, 799));  // and not end as it began
  EXPECT_TRUE(after(3, 24));
  EXPECT_FALSE(after(0, 0));  // nobody writes any more
}

TEST(ThreadPolicy, OneLargeApplySaysNothing) {
  BatchJudge judge;
  EXPECT_FALSE(judge.Look({.calls = 2, .entries = 100000}));
}

// Tells which policy it has, and waits to be ended.
class Sleeper {
 public:
  Sleeper() : thread_([this] { Run(); }) {
    while (tid_ == 0) std::this_thread::yield();
  }
  ~Sleeper() {
    stop_ = true;
    thread_.join();
  }
  int policy() const { return sched_getscheduler(tid_); }
  void Set(int policy) {
    const sched_param none{};
    ASSERT_EQ(sched_setscheduler(tid_, policy, &none), 0);
  }

 private:
  void Run() {
    tid_ = gettid();
    while (!stop_) std::this_thread::yield();
  }
  std::atomic<pid_t> tid_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST(ThreadPolicy, AllThreadsGetItAndGiveItBackButNoOtherPolicyIsTouched) {
  Sleeper one;
  Sleeper background;
  background.Set(SCHED_IDLE);
  ASSERT_TRUE(ThreadPolicy::SetAll(true));
  EXPECT_EQ(one.policy(), SCHED_BATCH);
  EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
  EXPECT_EQ(background.policy(), SCHED_IDLE);
  ASSERT_TRUE(ThreadPolicy::SetAll(false));
  EXPECT_EQ(one.policy(), SCHED_OTHER);
  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
  EXPECT_EQ(background.policy(), SCHED_IDLE);
}

TEST(ThreadPolicy, ItFollowsTheCountsAndEndsWithItsStop) {
  std::atomic<uint64_t> entries_a_call = 100;
  std::atomic<uint64_t> entries = 0;
  std::atomic<uint64_t> looks = 0;
  ThreadPolicy policy([&] {
    const uint64_t look = ++looks;
    entries += 10 * entries_a_call;
    return ApplyCounts{.calls = 10 * look, .entries = entries};
  });
  const auto becomes = [](int wanted) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (sched_getscheduler(0) != wanted) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  };
  EXPECT_TRUE(becomes(SCHED_BATCH));
  entries_a_call = 1;
  EXPECT_TRUE(becomes(SCHED_OTHER));
  entries_a_call = 100;
  EXPECT_TRUE(becomes(SCHED_BATCH));
  policy.Stop();
  EXPECT_EQ(sched_getscheduler(0), SCHED_OTHER);
}

TEST(ThreadPolicy, WhoeverStartedUsWithAPolicyHasItsWay) {
  ASSERT_TRUE(ThreadPolicy::SetAll(true));
  std::atomic<uint64_t> looks = 0;
  ThreadPolicy policy([&] {
    const uint64_t look = ++looks;
    return ApplyCounts{.calls = 10 * look, .entries = 1000 * look};
  });
  while (looks < 3) std::this_thread::yield();
  EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
  policy.Stop();
  EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
  ASSERT_TRUE(ThreadPolicy::SetAll(false));
}

}  // namespace
}  // namespace holdfast::server
