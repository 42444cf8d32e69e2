#include "base/bounded_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

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

}  // namespace
}  // namespace holdfast::base
