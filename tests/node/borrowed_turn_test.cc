// A turn on the place of the raft thread, which sleeps (TryBorrow in base/bounded_queue.h): whoever
// brings an input carries it out. With real threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "replication/raft_node.h"
#include "storage/memory_log.h"

namespace holdfast::raft {
namespace {

constexpr absl::Duration kSoon = absl::Seconds(20);  // far beyond what is expected

// Nobody to talk to.
class NoTransport : public Transport {
 public:
  void Send(std::vector<Message>) override {}
  void SendSnapshot(SnapshotToSend, absl::AnyInvocable<void(absl::Status) &&> done) override {
    std::move(done)(absl::UnavailableError("not here"));
  }
  void SetMembership(const Membership&) override {}
};

class ListMachine : public StateMachine {
 public:
  absl::Status Apply(absl::Span<const EntryRef> entries) override {
    absl::MutexLock lock(&mutex_);
    for (const EntryRef& entry : entries) {
      if (entry->type == EntryType::kNormal) payloads_.push_back(entry->payload);
    }
    applied_ = entries.back()->index;
    return absl::OkStatus();
  }
  Index applied() const override {
    absl::MutexLock lock(&mutex_);
    return applied_;
  }
  absl::StatusOr<Index> Flush() override { return applied(); }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override {
    return absl::UnavailableError("not here");
  }
  absl::Status InstallCheckpoint(const std::string&, const storage::LogMark&) override {
    return absl::UnavailableError("not here");
  }
  std::optional<storage::LogMark> installed_mark() const override { return std::nullopt; }

  std::vector<std::string> WaitFor(size_t count) {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return payloads_.size() >= count;
    };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&enough), kSoon)) << payloads_.size();
    return payloads_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::string> payloads_ ABSL_GUARDED_BY(mutex_);
  Index applied_ ABSL_GUARDED_BY(mutex_);
};

// One member, which leads itself: its reads are answered within the turn that asks.
class BorrowedTurn : public testing::Test {
 protected:
  BorrowedTurn() {
    NodeOptions options;
    options.core.id = NodeId(1);
    options.tick = absl::Milliseconds(1);  // many turns of the raft thread's own in between
    Membership alone;
    alone.voters = {NodeId(1)};
    auto node = RaftNode::Start(std::move(options), alone, &log_, &machine_, &transport_);
    EXPECT_TRUE(node.ok()) << node.status();
    node_ = *std::move(node);
    EXPECT_TRUE(Read().ok());
  }
  ~BorrowedTurn() override { node_->Stop(); }

  absl::Status Read() {
    absl::Notification done;
    absl::Status result;
    node_->ReadIndex(kSoon, [&](absl::StatusOr<Index> index) {
      result = index.status();
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  // Until `call` has brought a callback on this thread.
  void UntilHere(const std::function<void(std::function<void()> here)>& call) {
    const absl::Time deadline = absl::Now() + kSoon;
    for (bool was_here = false; !was_here && absl::Now() < deadline;) {
      absl::Notification done;
      call([&, caller = std::this_thread::get_id()] {
        was_here = std::this_thread::get_id() == caller;
        done.Notify();
      });
      done.WaitForNotification();
      if (was_here) return;
    }
    FAIL() << "the place of a raft thread that sleeps was never lent";
  }

  storage::MemoryLog log_;
  ListMachine machine_;
  NoTransport transport_;
  std::unique_ptr<RaftNode> node_;
};

TEST_F(BorrowedTurn, ALoneReadIsAnsweredOnItsCallersThread) {
  UntilHere([this](std::function<void()> here) {
    node_->ReadIndex(kSoon, [here = std::move(here)](absl::StatusOr<Index> index) {
      EXPECT_TRUE(index.ok());
      here();
    });
  });
}

TEST_F(BorrowedTurn, ACallbackMayAskAgainAndWhatItAsksIsNotLeftBehind) {
  size_t proposed = 0;
  UntilHere([&](std::function<void()> here) {
    ++proposed;
    node_->ReadIndex(kSoon, [&, here = std::move(here)](absl::StatusOr<Index>) {
      // Within the turn: queued, and not a turn in a turn.
      node_->Propose("of a callback", [](absl::Status) { FAIL(); });
      node_->ReadIndex(kSoon, [](absl::StatusOr<Index>) {});
      here();
    });
  });
  EXPECT_TRUE(Read().ok());
  EXPECT_EQ(machine_.WaitFor(proposed).size(), proposed);
}

TEST_F(BorrowedTurn, ManyCallersAreEachServedOnceInTheirOrderAndNeverTwoTurnsAtATime) {
  constexpr int kThreads = 6;
  constexpr int kEach = 2000;
  // Plain: only whoever has the turn touches them.
  bool in_a_turn = false;
  int served = 0;
  absl::BlockingCounter answers(kThreads * kEach);
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        node_->Propose(std::to_string(t * kEach + i), [](absl::Status) { FAIL(); });
        node_->ReadIndex(kSoon, [&](absl::StatusOr<Index> index) {
          EXPECT_TRUE(index.ok()) << index.status();
          EXPECT_FALSE(std::exchange(in_a_turn, true));
          ++served;
          in_a_turn = false;
          answers.DecrementCount();
        });
        if (i % 8 == 0) std::this_thread::yield();
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  answers.Wait();
  EXPECT_EQ(served, kThreads * kEach);
  const std::vector<std::string> applied = machine_.WaitFor(kThreads * kEach);
  ASSERT_EQ(applied.size(), static_cast<size_t>(kThreads) * kEach);
  std::array<int, kThreads> next = {};
  for (const std::string& payload : applied) {
    const int value = std::stoi(payload);
    EXPECT_EQ(value % kEach, next[static_cast<size_t>(value / kEach)]++);
  }
}

TEST_F(BorrowedTurn, StopWaitsForTheTurnAndEveryCallerIsToldOnce) {
  constexpr int kThreads = 4;
  std::atomic<int> asked = 0;
  std::atomic<int> told = 0;
  std::atomic<bool> stopped = false;
  std::vector<std::thread> callers;
  for (int t = 0; t < kThreads; ++t) {
    callers.emplace_back([&] {
      while (!stopped) {
        ++asked;
        node_->ReadIndex(kSoon, [&](absl::StatusOr<Index>) { ++told; });
        std::this_thread::yield();
      }
    });
  }
  while (told < 1000) std::this_thread::yield();
  node_->Stop();
  stopped = true;
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(told.load(), asked.load());
}

}  // namespace
}  // namespace holdfast::raft
