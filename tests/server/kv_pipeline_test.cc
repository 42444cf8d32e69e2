// The pipeline between a node and its callers: every callback exactly once, with the right outcome,
// whoever comes first: the result, the refusal, the deadline, the lost quorum, or the stop.
#include "server/request_pipeline.h"

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "base/rng.h"
#include "kv_fake_node.h"
#include "kv_test_util.h"
#include "server/etcd_errors.h"

namespace holdfast::server {
namespace {

using command::v1::Command;
using testing::FakeNode;
using testing::Parse;
using Mode = FakeNode::Mode;

constexpr uint64_t kOrigin = 42;

// One callback's outcome. CHECKs that it comes once.
class Outcome {
 public:
  RequestPipeline::Done Done() {
    return [this](ApplyResult result) {
      status_ = result.status;
      thread_ = std::this_thread::get_id();
      if (result.response != nullptr) response_ = testing::Text(*result.response);
      CHECK(!done_.HasBeenNotified());
      done_.Notify();
    };
  }
  RequestPipeline::ReadDone ReadDone() {
    return [done = Done()](absl::Status status) mutable {
      std::move(done)({std::move(status), nullptr});
    };
  }
  absl::Status Wait() {
    done_.WaitForNotification();
    return status_;
  }
  bool done() const { return done_.HasBeenNotified(); }
  const std::string& response() const { return response_; }
  std::thread::id thread() const { return thread_; }

 private:
  absl::Notification done_;
  absl::Status status_;
  std::string response_;
  std::thread::id thread_;
};

class KvPipeline : public ::testing::Test {
 protected:
  KvPipeline() { Start({}); }
  ~KvPipeline() override { pipeline_->Stop(); }

  void Start(RequestPipeline::Options options) {
    options.origin = kOrigin;
    options.clock = &clock_;
    options.sweep_interval = absl::Milliseconds(1);
    pipeline_ = RequestPipeline::Create(options);
    pipeline_->SetNode(&node_);
    node_.set_proposals(Mode::kHold);
    node_.set_reads(Mode::kHold);
  }
  void Propose(Outcome* outcome) {
    pipeline_->Propose(Parse<Command>("put { key: 'k' }"), outcome->Done());
  }
  void Complete(uint64_t sequence, absl::Status status = absl::OkStatus()) {
    std::vector<RequestPipeline::Completion> completions(1);
    completions[0].sequence = sequence;
    completions[0].result.status = std::move(status);
    pipeline_->Complete(std::move(completions));
  }

  base::FakeClock clock_;
  FakeNode node_{nullptr};
  std::unique_ptr<RequestPipeline> pipeline_;
};

// Remembers what was proposed instead of holding it.
class RecordingNode : public FakeNode {
 public:
  RecordingNode() : FakeNode(nullptr) {}
  void Propose(std::string payload, absl::AnyInvocable<void(absl::Status) &&> refused) override {
    Command command;
    CHECK(command.ParseFromString(payload));
    absl::MutexLock lock(&mutex_);
    commands_.push_back(command);
  }
  std::vector<Command> commands() {
    absl::MutexLock lock(&mutex_);
    return commands_;
  }

 private:
  absl::Mutex mutex_;
  std::vector<Command> commands_;
};

TEST_F(KvPipeline, ProposesWithOriginAndItsOwnSequenceAndHandsOverTheResult) {
  RecordingNode node;
  RequestPipeline::Options options;
  options.origin = kOrigin;
  const auto pipeline = RequestPipeline::Create(options);
  pipeline->SetNode(&node);
  Outcome first, second;
  pipeline->Propose(Parse<Command>("put { key: 'a' }"), first.Done());
  pipeline->Propose(Parse<Command>("put { key: 'b' }"), second.Done());
  const std::vector<Command> commands = node.commands();
  ASSERT_EQ(commands.size(), 2u);
  EXPECT_EQ(commands[0].origin(), kOrigin);
  EXPECT_NE(commands[0].sequence(), commands[1].sequence());
  EXPECT_EQ(commands[0].put().key(), "a");

  std::vector<RequestPipeline::Completion> completions(1);
  completions[0].sequence = commands[1].sequence();
  auto response = std::make_unique<etcdserverpb::PutResponse>();
  response->mutable_header()->set_revision(5);
  completions[0].result.response = std::move(response);
  pipeline->Complete(std::move(completions));
  EXPECT_TRUE(second.Wait().ok());
  EXPECT_EQ(second.response(), "header { revision: 5 }");
  EXPECT_NE(second.thread(), std::this_thread::get_id());
  EXPECT_FALSE(first.done());
  pipeline->Stop();
  EXPECT_EQ(first.Wait(), ErrStopped());
}

TEST_F(KvPipeline, SequencesAreUniqueAcrossThreads) {
  RecordingNode node;
  RequestPipeline::Options options;
  options.origin = kOrigin;
  const auto pipeline = RequestPipeline::Create(options);
  pipeline->SetNode(&node);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&pipeline] {
      for (int i = 0; i < 500; ++i) pipeline->Propose(Command(), [](ApplyResult) {});
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint64_t> sequences;
  for (const Command& command : node.commands()) sequences.insert(command.sequence());
  EXPECT_EQ(sequences.size(), 2000u);
  pipeline->Stop();
}

TEST_F(KvPipeline, RefusalsByCause) {
  const struct {
    absl::Status refusal;
    absl::Status expected;
  } cases[] = {{absl::UnavailableError("no leader"), ErrNoLeader()},
               {absl::ResourceExhaustedError("full"), ErrTooManyRequests()}};
  for (const auto& c : cases) {
    Outcome at_once;
    node_.set_proposals(Mode::kRefuse, c.refusal);
    Propose(&at_once);
    EXPECT_EQ(at_once.Wait(), c.expected);
    EXPECT_NE(at_once.thread(), std::this_thread::get_id());

    Outcome later;
    node_.set_proposals(Mode::kHold);
    Propose(&later);
    EXPECT_FALSE(later.done());
    node_.RefuseHeld(c.refusal);
    EXPECT_EQ(later.Wait(), c.expected);
  }
}

TEST_F(KvPipeline, TooLargeIsRefusedAndNotProposed) {
  Command command;
  command.mutable_put()->set_key("k");
  command.mutable_put()->set_value(std::string(1536 * 1024, 'x'));
  Outcome outcome;
  pipeline_->Propose(command, outcome.Done());
  EXPECT_EQ(outcome.Wait(), ErrRequestTooLarge());
  EXPECT_EQ(node_.held_proposals(), 0u);
}

// It would be written, and stop every member when read.
TEST_F(KvPipeline, TextThatIsNoUtf8IsNotProposed) {
  Command command;
  command.mutable_member_attributes()->set_name("\xff\xfe");
  Outcome outcome;
  pipeline_->Propose(command, outcome.Done());
  EXPECT_TRUE(absl::IsInvalidArgument(outcome.Wait()));
  EXPECT_EQ(node_.held_proposals(), 0u);
}

TEST_F(KvPipeline, NoMoreThanMaxWaiting) {
  RequestPipeline::Options options;
  options.max_waiting = 3;
  pipeline_->Stop();
  Start(options);
  std::vector<std::unique_ptr<Outcome>> waiting;
  for (int i = 0; i < 2; ++i) {
    waiting.push_back(std::make_unique<Outcome>());
    Propose(waiting.back().get());
  }
  Outcome read, fourth, after;
  pipeline_->LinearizableRead(read.ReadDone());  // reads count too
  Propose(&fourth);
  EXPECT_EQ(fourth.Wait(), ErrTooManyRequests());
  node_.AnswerRead(Index(1));
  EXPECT_TRUE(read.Wait().ok());
  Propose(&after);
  EXPECT_FALSE(after.done());
  node_.RefuseHeld(absl::UnavailableError("x"));
  EXPECT_EQ(after.Wait(), ErrNoLeader());
}

TEST_F(KvPipeline, TimeoutIsPlainWithASteadyLeader) {
  Outcome outcome;
  Propose(&outcome);
  clock_.Advance(absl::Seconds(6));
  node_.AwaitStatusTwice();
  EXPECT_FALSE(outcome.done());
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(outcome.Wait(), ErrTimeout());
}

TEST_F(KvPipeline, TimeoutTellsOfALeaderChange) {
  Outcome outcome, after_it;
  Propose(&outcome);
  node_.AwaitStatusTwice();
  clock_.Advance(absl::Seconds(1));
  node_.set_leader(NodeId(2), Term(4));
  node_.AwaitStatusTwice();
  clock_.Advance(absl::Seconds(1));
  Propose(&after_it);
  clock_.Advance(absl::Seconds(5) + absl::Milliseconds(500));
  EXPECT_EQ(outcome.Wait(), ErrTimeoutDueToLeaderFail());
  EXPECT_FALSE(after_it.done());
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(after_it.Wait(), ErrTimeout());
}

TEST_F(KvPipeline, WithoutQuorumWhatWaitsIsAnsweredSoon) {
  Outcome older, younger;
  Propose(&older);
  clock_.Advance(absl::Milliseconds(1500));
  Propose(&younger);
  node_.set_leader(NodeId(0), Term(3), absl::Milliseconds(2100));
  clock_.Advance(absl::Milliseconds(700));  // 2.2 s and 0.7 s old
  EXPECT_EQ(older.Wait(), ErrTimeoutDueToConnectionLost());
  node_.AwaitStatusTwice();
  EXPECT_FALSE(younger.done());
  clock_.Advance(absl::Milliseconds(1500));
  EXPECT_EQ(younger.Wait(), ErrTimeoutDueToConnectionLost());
}

TEST_F(KvPipeline, AShortTimeWithoutLeaderFailsNothing) {
  Outcome outcome;
  Propose(&outcome);
  node_.set_leader(NodeId(0), Term(3), absl::Milliseconds(1900));
  clock_.Advance(absl::Seconds(5));
  node_.AwaitStatusTwice();
  EXPECT_FALSE(outcome.done());
  clock_.Advance(absl::Seconds(3));  // late by now, and the text says why
  EXPECT_EQ(outcome.Wait(), ErrTimeoutDueToConnectionLost());
}

TEST_F(KvPipeline, AResultAfterTheDeadlineIsDropped) {
  Outcome outcome, next;
  Propose(&outcome);  // sequence 1
  clock_.Advance(absl::Seconds(8));
  EXPECT_EQ(outcome.Wait(), ErrTimeout());
  Complete(1);
  node_.RefuseHeld(absl::UnavailableError("late"));
  Complete(99);  // never ours
  Propose(&next);
  Complete(2);
  EXPECT_TRUE(next.Wait().ok());
}

TEST_F(KvPipeline, Reads) {
  const struct {
    absl::StatusOr<Index> answer;
    absl::Status expected;
  } cases[] = {{Index(4), absl::OkStatus()},
               {absl::UnavailableError("no leader"), ErrNoLeader()},
               {absl::ResourceExhaustedError("full"), ErrTooManyRequests()},
               {absl::DeadlineExceededError("late"), ErrTimeout()}};
  for (const auto& c : cases) {
    Outcome outcome;
    pipeline_->LinearizableRead(outcome.ReadDone());
    node_.AnswerRead(c.answer);
    EXPECT_EQ(outcome.Wait(), c.expected);
    EXPECT_NE(outcome.thread(), std::this_thread::get_id());
  }
  Outcome late;
  pipeline_->LinearizableRead(late.ReadDone());
  clock_.Advance(absl::Seconds(8));
  EXPECT_EQ(late.Wait(), ErrTimeout());
  node_.AnswerRead(Index(9));  // nobody waits any more
}

TEST_F(KvPipeline, FreshClaimComesBackOnAResponder) {
  absl::Notification done;
  std::thread::id thread;
  pipeline_->FreshClaim(absl::Seconds(1), absl::Milliseconds(200), [&] {
    thread = std::this_thread::get_id();
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_NE(thread, std::this_thread::get_id());
  EXPECT_EQ(node_.last_fresh_claim_timeout(), absl::Milliseconds(200));
}

TEST_F(KvPipeline, ALoneShortResultIsToldWhereItIsAppliedAndNoOtherIs) {
  const auto propose_short = [this](Outcome* outcome) {
    pipeline_->ProposeShort(Parse<Command>("put { key: 'k' }"), outcome->Done());
  };
  Outcome alone, plain, first, second;
  propose_short(&alone);
  Complete(1);
  EXPECT_TRUE(alone.done());
  EXPECT_EQ(alone.thread(), std::this_thread::get_id());
  Complete(1);  // once
  Propose(&plain);
  Complete(2);
  EXPECT_TRUE(plain.Wait().ok());
  EXPECT_NE(plain.thread(), std::this_thread::get_id());
  // Two in one step of applying: the apply thread goes on at once.
  propose_short(&first);
  propose_short(&second);
  std::vector<RequestPipeline::Completion> completions(2);
  completions[0].sequence = 3;
  completions[1].sequence = 4;
  pipeline_->Complete(std::move(completions));
  EXPECT_TRUE(first.Wait().ok());
  EXPECT_TRUE(second.Wait().ok());
  EXPECT_NE(first.thread(), std::this_thread::get_id());
  EXPECT_NE(second.thread(), std::this_thread::get_id());
}

TEST_F(KvPipeline, StopWaitsForAShortResultThatIsBeingTold) {
  absl::Notification begun;
  std::atomic<bool> told = false;
  pipeline_->ProposeShort(Parse<Command>("put { key: 'k' }"), [&](ApplyResult) {
    begun.Notify();
    // Until Stop is so far that it refuses, and some time longer.
    const auto stopping = std::make_shared<std::atomic<bool>>(false);
    while (!*stopping) {
      pipeline_->Propose(Command(), [stopping](ApplyResult result) {
        if (result.status == ErrStopped()) *stopping = true;
      });
      std::this_thread::yield();
    }
    for (int i = 0; i < 10'000; ++i) std::this_thread::yield();
    told = true;
  });
  std::thread apply([this] { Complete(1); });
  begun.WaitForNotification();
  pipeline_->Stop();
  EXPECT_TRUE(told);
  apply.join();
}

TEST_F(KvPipeline, StopAnswersWhatWaitsAndRefusesTheRest) {
  Outcome proposal, read, after, read_after;
  Propose(&proposal);
  pipeline_->LinearizableRead(read.ReadDone());
  pipeline_->Stop();
  EXPECT_TRUE(proposal.done() && read.done());
  EXPECT_EQ(proposal.Wait(), ErrStopped());
  EXPECT_EQ(read.Wait(), ErrStopped());
  Propose(&after);
  pipeline_->LinearizableRead(read_after.ReadDone());
  EXPECT_EQ(after.Wait(), ErrStopped());
  EXPECT_EQ(read_after.Wait(), ErrStopped());
  // What the node still brings finds nobody.
  Complete(1);
  node_.RefuseHeld(absl::UnavailableError("stopping"));
  node_.AnswerRead(absl::UnavailableError("stopping"));
  pipeline_->Stop();
}

// Results, refusals, deadlines, lost quorum and stop, all at once from many threads: each request
// is answered exactly once (Outcome would CHECK), and none is forgotten.
TEST(KvPipelineRaces, EveryRequestIsAnsweredExactlyOnce) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 400;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    base::FakeClock clock;
    FakeNode node(nullptr);
    node.set_proposals(Mode::kHold);
    node.set_reads(Mode::kHold);
    RequestPipeline::Options options;
    options.origin = kOrigin;
    options.clock = &clock;
    options.responder_threads = 2;
    options.sweep_interval = absl::Microseconds(100);
    const auto pipeline = RequestPipeline::Create(options);
    pipeline->SetNode(&node);

    std::vector<std::atomic<int>> answers(kThreads * kRequests);
    absl::BlockingCounter answered(kThreads * kRequests);
    std::vector<std::thread> callers;
    for (int t = 0; t < kThreads; ++t) {
      callers.emplace_back([&, t] {
        for (int i = 0; i < kRequests; ++i) {
          std::atomic<int>* count = &answers[t * kRequests + i];
          const auto note = [count, &answered] {
            CHECK(count->fetch_add(1) == 0);
            answered.DecrementCount();
          };
          if (i % 3 == 0) {
            pipeline->LinearizableRead([note](absl::Status) { note(); });
          } else {
            pipeline->Propose(Command(), [note](ApplyResult) { note(); });
          }
        }
      });
    }
    std::atomic<bool> over = false;
    std::thread disturber([&] {
      base::Rng rng(seed);
      while (!over.load()) {
        switch (rng.Below(6)) {
          case 0:
            node.RefuseHeld(absl::UnavailableError("refused"));
            break;
          case 1:
            if (node.held_reads() > 0) node.AnswerRead(Index(1));
            break;
          case 2:
            clock.Advance(absl::Milliseconds(rng.Below(3000)));
            break;
          case 3:
            node.set_leader(NodeId(rng.Below(3)), Term(rng.Below(9)), absl::Seconds(3));
            break;
          default: {
            std::vector<RequestPipeline::Completion> completions;
            for (int i = 0; i < 20; ++i) {
              completions.push_back({1 + rng.Below(kThreads * kRequests), ApplyResult()});
            }
            pipeline->Complete(std::move(completions));
          }
        }
      }
    });
    // Half of the runs are stopped in the middle, half after everything was handed in.
    if (seed % 2 == 0) pipeline->Stop();
    for (std::thread& caller : callers) caller.join();
    pipeline->Stop();
    answered.Wait();
    over = true;
    disturber.join();
    for (const std::atomic<int>& count : answers) ASSERT_EQ(count.load(), 1);
  }
}

}  // namespace
}  // namespace holdfast::server
