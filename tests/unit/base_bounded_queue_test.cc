#include "base/bounded_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace holdfast::base {
namespace {

TEST(BoundedQueue, RefusesWhatDoesNotFitAndLeavesItUntouched) {
  BoundedQueue<std::unique_ptr<int>> queue(100);
  EXPECT_TRUE(queue.TryPush(std::make_unique<int>(1), 60));
  auto item = std::make_unique<int>(2);
  EXPECT_FALSE(queue.TryPush(std::move(item), 60));
  ASSERT_NE(item, nullptr);
  EXPECT_EQ(*item, 2);
  EXPECT_TRUE(queue.TryPush(std::move(item), 40));
  EXPECT_EQ(queue.bytes(), 100u);
}

TEST(BoundedQueue, TakesOneItemOfAnySizeWhenEmpty) {
  BoundedQueue<int> queue(10);
  EXPECT_TRUE(queue.TryPush(1, 1000));
  EXPECT_FALSE(queue.TryPush(2, 1));
}

TEST(BoundedQueue, PushIsNeverRefusedUnlessClosed) {
  BoundedQueue<int> queue(1);
  for (int i = 0; i < 10; ++i) queue.Push(int{i}, 5);
  EXPECT_EQ(queue.bytes(), 50u);
  EXPECT_EQ(queue.DrainAll().size(), 10u);
}

TEST(BoundedQueue, DrainTakesEverythingInOrderAndFreesTheBytes) {
  BoundedQueue<int> queue(100);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.TryPush(int{i}, 30));
  EXPECT_EQ(queue.DrainAll(), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(queue.bytes(), 0u);
  EXPECT_TRUE(queue.TryPush(3, 100));
}

TEST(BoundedQueue, CloseRefusesNewItemsAndKeepsTheOld) {
  BoundedQueue<int> queue(100);
  EXPECT_TRUE(queue.TryPush(1, 1));
  queue.Close();
  EXPECT_TRUE(queue.closed());
  EXPECT_FALSE(queue.TryPush(2, 1));
  queue.Push(3);
  EXPECT_EQ(queue.DrainAll(), std::vector<int>{1});
  EXPECT_TRUE(queue.DrainAll().empty());  // empty: closed
}

TEST(BoundedQueue, DrainForGivesUp) {
  BoundedQueue<int> queue(100);
  EXPECT_TRUE(queue.DrainFor(absl::Milliseconds(1)).empty());
  EXPECT_FALSE(queue.closed());
}

TEST(BoundedQueue, AWaitingConsumerGetsEveryItemOfEveryProducer) {
  constexpr int kProducers = 4;
  constexpr int kItems = 2000;
  BoundedQueue<int> queue(64);
  std::vector<std::thread> producers;
  for (int p = 0; p < kProducers; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < kItems; ++i) {
        while (!queue.TryPush(p * kItems + i, 1)) std::this_thread::yield();
      }
    });
  }
  std::vector<int> last(kProducers, -1);
  for (int seen = 0; seen < kProducers * kItems;) {
    for (const int item : queue.DrainAll()) {
      EXPECT_GT(item % kItems, last[static_cast<size_t>(item / kItems)]);  // each one's order
      last[static_cast<size_t>(item / kItems)] = item % kItems;
      ++seen;
    }
  }
  for (std::thread& producer : producers) producer.join();
  std::thread closer([&queue] { queue.Close(); });
  EXPECT_TRUE(queue.DrainAll().empty());
  closer.join();
}

// A consumer that sleeps in DrainFor until it is told to end.
class Sleeper {
 public:
  explicit Sleeper(BoundedQueue<int>* queue, absl::Duration nap = absl::Seconds(20))
      : thread_([this, queue, nap] {
          while (!queue->closed()) {
            for (const int item : queue->DrainFor(nap)) Work(item);
          }
          for (const int item : queue->DrainAll()) Work(item);
        }) {}
  ~Sleeper() { thread_.join(); }

  // Anybody's: never two at a time. Plain members, for the hand-over orders them.
  void Work(int item) {
    EXPECT_FALSE(std::exchange(at_work_, true));
    sum_ += item;
    ++count_;
    at_work_ = false;
  }
  // By whoever has the place.
  int64_t sum() const { return sum_; }
  int64_t count() const { return count_; }

 private:
  bool at_work_ = false;
  int64_t sum_ = 0;
  int64_t count_ = 0;
  std::thread thread_;
};

void BorrowSoon(BoundedQueue<int>& queue) {
  while (!queue.TryBorrow()) std::this_thread::yield();
}

TEST(BoundedQueue, NobodyBorrowsFromAConsumerThatIsAwake) {
  BoundedQueue<int> queue(100);
  EXPECT_FALSE(queue.TryBorrow());
  queue.Push(1);
  EXPECT_THAT(queue.DrainFor(absl::ZeroDuration()), ::testing::ElementsAre(1));
  EXPECT_FALSE(queue.TryBorrow());
}

TEST(BoundedQueue, APlaceIsLentOnceAndNotWhileSomethingIsQueuedOrAtTheEnd) {
  BoundedQueue<int> queue(100);
  std::optional<Sleeper> sleeper(&queue);
  BorrowSoon(queue);
  EXPECT_FALSE(queue.TryBorrow());
  queue.Push(1);
  EXPECT_EQ(sleeper->count(), 0);  // the place is ours: nobody takes the item
  queue.Close();
  EXPECT_EQ(sleeper->count(), 0);
  queue.GiveBack();
  EXPECT_FALSE(queue.TryBorrow());
  sleeper.reset();
}

TEST(BoundedQueue, WhatCameWhileThePlaceWasLentWakesTheConsumer) {
  BoundedQueue<int> queue(100);
  Sleeper sleeper(&queue);
  BorrowSoon(queue);
  queue.Push(5);
  queue.GiveBack();
  // Lent again only when the item is gone.
  BorrowSoon(queue);
  EXPECT_EQ(sleeper.sum(), 5);
  queue.GiveBack();
  queue.Close();
}

TEST(BoundedQueue, AConsumerWhoseTimeIsOverWaitsForTheBorrower) {
  BoundedQueue<int> queue(100);
  std::atomic<bool> lent = false;
  std::atomic<bool> back = false;
  std::thread consumer([&] {
    while (!lent) EXPECT_TRUE(queue.DrainFor(absl::Milliseconds(1)).empty());
    // It was lent within the last of these, which returned only after GiveBack.
    EXPECT_TRUE(back);
  });
  BorrowSoon(queue);
  lent = true;
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
  while (std::chrono::steady_clock::now() < until) std::this_thread::yield();
  back = true;
  queue.GiveBack();
  consumer.join();
}

TEST(BoundedQueue, BorrowersDoNotKeepAConsumerFromItsOwnWorkWhoseTimeHasCome) {
  BoundedQueue<int> queue(100);
  std::thread consumer([&] { EXPECT_TRUE(queue.DrainFor(absl::Milliseconds(20)).empty()); });
  BorrowSoon(queue);
  // One borrower after the other, with nothing in between that a consumer could wake up in.
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  bool lent = true;
  for (int i = 1; lent && std::chrono::steady_clock::now() < until; ++i) {
    if (i % 1000 == 0) std::this_thread::yield();
    queue.GiveBack();
    lent = queue.TryBorrow();
  }
  EXPECT_FALSE(lent);
  if (lent) queue.GiveBack();
  consumer.join();
}

TEST(BoundedQueue, ManyProducersAndBorrowersDoEverythingOnceAndNeverTwoAtATime) {
  BoundedQueue<int> queue(SIZE_MAX);
  constexpr int kThreads = 6;
  constexpr int kItems = 20'000;
  std::atomic<int> borrowed = 0;
  std::optional<Sleeper> sleeper;
  sleeper.emplace(&queue, absl::Microseconds(50));
  std::vector<std::thread> producers;
  for (int t = 0; t < kThreads; ++t) {
    producers.emplace_back([&] {
      for (int i = 1; i <= kItems; ++i) {
        if (queue.TryBorrow()) {
          ++borrowed;
          sleeper->Work(i);
          queue.GiveBack();
        } else {
          queue.Push(int{i});
        }
        if (i % 16 == 0) std::this_thread::yield();  // so that the consumer sleeps now and then
      }
    });
  }
  for (std::thread& producer : producers) producer.join();
  BorrowSoon(queue);  // everything was taken
  EXPECT_EQ(sleeper->count(), int64_t{kThreads} * kItems);
  EXPECT_EQ(sleeper->sum(), int64_t{kThreads} * kItems * (kItems + 1) / 2);
  queue.GiveBack();
  EXPECT_GT(borrowed.load(), 0);
  queue.Close();
  sleeper.reset();
}

}  // namespace
}  // namespace holdfast::base
