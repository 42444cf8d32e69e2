// Batches through the pipeline: each slot is told exactly once, with the outcome that the same
// command would get alone, whoever comes first: result, refusal, deadline, stop.
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/rng.h"
#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/etcd_errors.h"
#include "server/request_pipeline.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using testing::FakeNode;
using Mode = FakeNode::Mode;

// What the slots of one batch were told. CHECKs that each is told once, and one call at a time.
class Told {
 public:
  explicit Told(size_t slots) : slots_(slots) {}
  RequestPipeline::BatchDone Done() {
    return [this](absl::Span<RequestPipeline::SlotResult> results) {
      CHECK(!calling_.exchange(true));
      {
        absl::MutexLock lock(&mutex_);
        for (const auto& one : results) {
          CHECK(one.slot < slots_);
          CHECK(statuses_.emplace(one.slot, one.result.status).second);
        }
      }
      calling_ = false;
    };
  }
  std::vector<absl::Status> Wait() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Told* told) { return told->statuses_.size() == told->slots_; }, this));
    std::vector<absl::Status> statuses;
    for (const auto& [slot, status] : statuses_) statuses.push_back(status);
    return statuses;
  }
  size_t count() {
    absl::MutexLock lock(&mutex_);
    return statuses_.size();
  }

 private:
  const size_t slots_;
  std::atomic<bool> calling_ = false;
  absl::Mutex mutex_;
  std::map<size_t, absl::Status> statuses_;
};

std::vector<Command> Puts(size_t count) {
  std::vector<Command> commands(count);
  for (size_t i = 0; i < count; ++i) commands[i].mutable_put()->set_key(std::to_string(i));
  return commands;
}

class KvPipelineBatch : public ::testing::Test {
 protected:
  KvPipelineBatch() { Start({}); }
  ~KvPipelineBatch() override { pipeline_->Stop(); }

  void Start(RequestPipeline::Options options) {
    if (pipeline_ != nullptr) pipeline_->Stop();
    options.origin = 42;
    options.clock = &clock_;
    options.sweep_interval = absl::Milliseconds(1);
    pipeline_ = RequestPipeline::Create(options);
    pipeline_->SetNode(&node_);
    node_.set_proposals(Mode::kHold);
  }
  void Propose(std::vector<Command>& commands, Told* told) {
    std::vector<Command*> pointers;
    for (Command& command : commands) pointers.push_back(&command);
    pipeline_->ProposeBatch(pointers, told->Done());
  }
  void Complete(const std::vector<uint64_t>& sequences) {
    std::vector<RequestPipeline::Completion> completions;
    for (const uint64_t sequence : sequences) completions.push_back({sequence, {}});
    pipeline_->Complete(std::move(completions));
  }

  base::FakeClock clock_;
  FakeNode node_{nullptr};
  std::unique_ptr<RequestPipeline> pipeline_;
};

TEST_F(KvPipelineBatch, SlotsAreToldAsTheirResultsComeInRunsAndBetweenOthers) {
  std::vector<Command> first = Puts(3), second = Puts(2);
  Told of_first(3), of_second(2), of_one(1);
  Propose(first, &of_first);    // sequences 1 to 3
  Propose(second, &of_second);  // 4 and 5
  absl::Notification alone;
  pipeline_->Propose(Puts(1)[0], [&](ApplyResult result) {
    CHECK(result.status.ok());
    alone.Notify();
  });  // 6
  EXPECT_EQ(first[2].sequence(), 3u);
  EXPECT_EQ(second[0].sequence(), 4u);
  EXPECT_EQ(second[0].origin(), 42u);
  EXPECT_EQ(node_.held_proposals(), 6u);

  Complete({2, 77, 5, 6, 1, 2});  // one of nobody's, and one twice
  alone.WaitForNotification();
  Complete({3, 4});
  for (const absl::Status& status : of_first.Wait()) EXPECT_TRUE(status.ok());
  for (const absl::Status& status : of_second.Wait()) EXPECT_TRUE(status.ok());
  Complete({1, 2, 3, 4, 5, 6});  // nobody waits any more
}

TEST_F(KvPipelineBatch, OneThatIsTooLargeIsRefusedAndTheOthersAreProposed) {
  std::vector<Command> commands = Puts(3);
  commands[1].mutable_put()->set_value(std::string(1536 * 1024, 'x'));
  Told told(3);
  Propose(commands, &told);
  EXPECT_EQ(node_.held_proposals(), 2u);
  Complete({1, 3});
  const std::vector<absl::Status> statuses = told.Wait();
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_EQ(statuses[1], ErrRequestTooLarge());
  EXPECT_TRUE(statuses[2].ok());
}

TEST_F(KvPipelineBatch, RefusalsAreOfTheirSlot) {
  const std::pair<absl::Status, absl::Status> cases[] = {
      {absl::UnavailableError("no leader"), ErrNoLeader()},
      {absl::ResourceExhaustedError("full"), ErrTooManyRequests()}};
  uint64_t sequence = 0;
  for (const auto& [refusal, expected] : cases) {
    std::vector<Command> commands = Puts(3);
    Told told(3);
    Propose(commands, &told);
    Complete({sequence + 2});
    sequence += 3;
    node_.RefuseHeld(refusal);
    const std::vector<absl::Status> statuses = told.Wait();
    EXPECT_EQ(statuses[0], expected);
    EXPECT_TRUE(statuses[1].ok()) << "its result came before the refusal of the others";
    EXPECT_EQ(statuses[2], expected);
  }
}

TEST_F(KvPipelineBatch, EverySlotCountsAsWaiting) {
  RequestPipeline::Options options;
  options.max_waiting = 4;
  Start(options);
  std::vector<Command> three = Puts(3), two = Puts(2), one = Puts(1);
  Told of_three(3), of_two(2), of_one(1), of_next(3);
  Propose(three, &of_three);
  Propose(two, &of_two);  // 5 are too many: all of this batch
  for (const absl::Status& status : of_two.Wait()) EXPECT_EQ(status, ErrTooManyRequests());
  Propose(one, &of_one);
  Complete({1, 2, 3});
  of_three.Wait();
  std::vector<Command> next = Puts(3);
  Propose(next, &of_next);  // there is room again
  EXPECT_EQ(of_next.count(), 0u);
  node_.RefuseHeld(absl::UnavailableError("x"));
  for (const absl::Status& status : of_next.Wait()) EXPECT_EQ(status, ErrNoLeader());
}

TEST_F(KvPipelineBatch, DeadlineAndLostQuorumTellTheRest) {
  std::vector<Command> commands = Puts(3);
  Told told(3);
  Propose(commands, &told);
  Complete({2});
  while (told.count() == 0) std::this_thread::yield();  // a responder tells it
  clock_.Advance(absl::Seconds(6));
  node_.AwaitStatusTwice();
  EXPECT_EQ(told.count(), 1u);
  clock_.Advance(absl::Seconds(2));
  std::vector<absl::Status> statuses = told.Wait();
  EXPECT_EQ(statuses[0], ErrTimeout());
  EXPECT_TRUE(statuses[1].ok());
  Complete({1, 3});  // late

  std::vector<Command> more = Puts(2);
  Told without(2);
  Propose(more, &without);
  node_.set_leader(NodeId(0), Term(3), absl::Milliseconds(2100));
  clock_.Advance(absl::Milliseconds(2200));
  for (const absl::Status& status : without.Wait()) {
    EXPECT_EQ(status, ErrTimeoutDueToConnectionLost());
  }
}

TEST_F(KvPipelineBatch, StopTellsTheRestAndRefusesWhatComesLater) {
  std::vector<Command> commands = Puts(2), later = Puts(2);
  Told told(2), after(2);
  Propose(commands, &told);
  pipeline_->Stop();
  for (const absl::Status& status : told.Wait()) EXPECT_EQ(status, ErrStopped());
  Propose(later, &after);
  for (const absl::Status& status : after.Wait()) EXPECT_EQ(status, ErrStopped());
  Complete({1, 2});
  node_.RefuseHeld(absl::UnavailableError("stopping"));
}

// Results, refusals and stop from several threads at once: Told would CHECK.
TEST(KvPipelineBatchRaces, EverySlotIsToldExactlyOnce) {
  constexpr int kThreads = 3;
  constexpr int kBatches = 60;
  constexpr size_t kSlots = 20;
  FakeNode node(nullptr);
  node.set_proposals(Mode::kHold);
  RequestPipeline::Options options;
  options.origin = 42;
  options.sweep_interval = absl::Milliseconds(1);
  const auto pipeline = RequestPipeline::Create(options);
  pipeline->SetNode(&node);
  std::vector<std::vector<std::unique_ptr<Told>>> told(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      base::Rng rng(static_cast<uint64_t>(t) + 1);
      for (int b = 0; b < kBatches; ++b) {
        told[static_cast<size_t>(t)].push_back(std::make_unique<Told>(kSlots));
        std::vector<Command> commands = Puts(kSlots);
        std::vector<Command*> pointers;
        for (Command& command : commands) pointers.push_back(&command);
        pipeline->ProposeBatch(pointers, told[static_cast<size_t>(t)].back()->Done());
        std::vector<RequestPipeline::Completion> completions;
        for (size_t i = 0; i < kSlots; ++i) {
          completions.push_back({1 + rng.Below(kThreads * kBatches * kSlots), {}});
        }
        pipeline->Complete(std::move(completions));
        if (b % 10 == 9) node.RefuseHeld(absl::UnavailableError("no leader"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  pipeline->Stop();
  for (const auto& of_thread : told) {
    for (const auto& one : of_thread) EXPECT_EQ(one->Wait().size(), kSlots);
  }
}

}  // namespace
}  // namespace holdfast::server
