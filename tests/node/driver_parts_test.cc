// The parts of the driver, one by one: queues, workers, the freshness record.
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/notification.h"
#include "base/crc32c.h"
#include "replication/freshness_record.h"
#include "replication/proposal_queue.h"
#include "replication/raft_node.h"
#include "replication/read_queue.h"
#include "replication/workers.h"
#include "storage/memory_log.h"

namespace holdfast::raft {
namespace {

using testing::ElementsAre;

RaftCore Follower(NodeId leader) {
  CoreOptions options;
  options.id = NodeId(1);
  Membership membership;
  membership.voters = {NodeId(1), NodeId(2), NodeId(3)};
  RaftCore::Recovered nothing;
  nothing.mark.membership = membership.Encode();
  RaftCore core(options, nothing, 1);
  Message heartbeat;
  heartbeat.type = MessageType::kHeartbeat;
  heartbeat.from = leader;
  heartbeat.to = NodeId(1);
  heartbeat.term = Term(1);
  if (leader) core.Step(heartbeat);
  core.TakeReady();
  return core;
}

std::vector<Message> Proposals(Ready ready) {
  std::vector<Message> out;
  for (Message& m : ready.messages) {
    if (m.type == MessageType::kPropose) out.push_back(std::move(m));
  }
  return out;
}

// ---------------------------------------------------------------- ProposalQueue

TEST(ProposalQueue, ARefusedBatchIsOfferedAgainAtTheNextTickAndNotForEver) {
  RaftCore core = Follower(NodeId(2));
  ProposalQueue queue(/*boot=*/77, /*max_wait_ns=*/1000);
  std::vector<absl::StatusCode> refusals;
  queue.Add({"x", [&](absl::Status s) { refusals.push_back(s.code()); }}, 0);
  queue.OfferTo(core, 0);
  auto sent = Proposals(core.TakeReady());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_THAT(sent[0].payloads, ElementsAre("x"));

  queue.Refused(sent[0].propose_id);
  queue.OfferTo(core, 10);
  EXPECT_TRUE(Proposals(core.TakeReady()).empty());  // not at round-trip rate
  queue.ReleaseRefused();
  queue.OfferTo(core, 20);
  sent = Proposals(core.TakeReady());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_TRUE(refusals.empty());

  queue.Refused(sent[0].propose_id);
  queue.ReleaseRefused();
  queue.OfferTo(core, 2000);  // its caller has given up
  EXPECT_TRUE(Proposals(core.TakeReady()).empty());
  EXPECT_THAT(refusals, ElementsAre(absl::StatusCode::kUnavailable));
}

TEST(ProposalQueue, ARefusalOfAFormerLifeOrTooLateIsIgnored) {
  RaftCore core = Follower(NodeId(2));
  ProposalQueue queue(77, 1000);
  queue.Add({"x", [](absl::Status) { FAIL(); }}, 0);
  queue.OfferTo(core, 0);
  const uint64_t id = Proposals(core.TakeReady()).at(0).propose_id;
  queue.Refused(1);  // ids do not start at 1: that was another process
  queue.ForgetForwarded(5000);
  queue.Refused(id);  // the outcome is the caller's to time out by now
  queue.ReleaseRefused();
  queue.OfferTo(core, 5000);
  EXPECT_TRUE(Proposals(core.TakeReady()).empty());
}

TEST(ProposalQueue, WhatWaitsForALeaderIsRefusedForCertain) {
  ProposalQueue queue(77, 1000);
  int refused = 0;
  for (int i = 0; i < 3; ++i) queue.Add({"x", [&](absl::Status) { ++refused; }}, 0);
  queue.RefuseWaiting(absl::UnavailableError("no leader"));
  EXPECT_EQ(refused, 3);
}

// ---------------------------------------------------------------- the core across terms

TEST(ForwardedProposal, IsRefusedByAMemberOfALaterTermAndTheRefusalCounts) {
  RaftCore later = Follower(NodeId(2));
  Message bump;
  bump.type = MessageType::kHeartbeat;
  bump.from = NodeId(3);
  bump.to = NodeId(1);
  bump.term = Term(5);
  later.Step(bump);
  later.TakeReady();
  Message propose;
  propose.type = MessageType::kPropose;
  propose.from = NodeId(2);
  propose.to = NodeId(1);
  propose.term = Term(1);
  propose.propose_id = 42;
  propose.payloads = {"x"};
  later.Step(propose);
  const Ready answer = later.TakeReady();
  ASSERT_EQ(answer.messages.size(), 1u);
  EXPECT_EQ(answer.messages[0].type, MessageType::kProposeReply);
  EXPECT_EQ(answer.messages[0].propose_id, 42u);
  // And a refusal that was said in an earlier term still is one.
  Message old_refusal = answer.messages[0];
  old_refusal.from = NodeId(2);
  old_refusal.to = NodeId(1);
  old_refusal.term = Term(2);
  later.Step(old_refusal);
  EXPECT_THAT(later.TakeReady().proposals_refused, ElementsAre(42));
}

TEST(Apply, LaggingBehindTheLogIsBoundedAtTheLeader) {
  CoreOptions options;
  options.id = NodeId(1);
  options.max_unapplied_entries = 50;
  options.max_unapplied_bytes = 10000;
  options.max_apply_bytes = 100;
  Membership alone;
  alone.voters = {NodeId(1)};
  RaftCore::Recovered nothing;
  nothing.mark.membership = alone.Encode();
  RaftCore core(options, nothing, 1);
  core.Campaign();
  const auto write = [&] {
    while (core.HasReady()) {
      const Ready ready = core.TakeReady();
      for (const Message& m : ready.append.after_durable) core.Step(m);
      if (!ready.append.empty()) core.OnDurable(ready.append.seq);
    }
  };
  write();
  // Everything commits and nothing is ever applied: the disk is fast, RocksDB stands still.
  int appended = 0;
  while (core.Propose(1, {std::string(1000, 'v')}) == ProposeOutcome::kAppended) {
    ASSERT_LT(++appended, 100) << "an unapplied backlog must not grow for ever";
    write();
    // Memory is bounded too: what waits for apply can be fetched back from the disk.
    EXPECT_LE(core.log().cached_bytes(), 12000u);
  }
  EXPECT_GT(appended, 40);
  EXPECT_EQ(core.Propose(2, {"x"}), ProposeOutcome::kFull);
}

// ---------------------------------------------------------------- ReadQueue

TEST(ReadQueue, AnswersOnceWhenAppliedAndAsksAgain) {
  ReadQueue queue(/*ask_again_ns=*/500, /*boot=*/77);
  int answered = 0, failed = 0;
  const auto waiter = [&](int64_t deadline_ns) {
    return ReadWaiter{deadline_ns,
                      [&](absl::StatusOr<Index> index) { ++(index.ok() ? answered : failed); }};
  };
  EXPECT_FALSE(queue.Ask(0).has_value());
  queue.Add(waiter(1'000'000'000));
  queue.Add(waiter(1'000'000'000));
  const uint64_t first = *queue.Ask(0);
  queue.AskAgain(first);  // the leader changed
  const uint64_t second = *queue.Ask(10);
  EXPECT_GT(second, first);
  queue.Grant(first, Index(1));  // late answer to a question nobody waits on
  queue.OnApplied(Index(100));
  EXPECT_EQ(answered, 0);
  queue.Grant(second, Index(7));
  queue.OnApplied(Index(6));
  EXPECT_EQ(answered, 0);
  queue.OnApplied(Index(7));
  EXPECT_EQ(answered, 2);
  queue.Add(waiter(60'000'000));
  queue.Expire(50'000'000);
  EXPECT_EQ(failed, 0);
  queue.Expire(200'000'000);
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(answered, 2);
}

// ---------------------------------------------------------------- LogWorker

class FailingLog : public storage::MemoryLog {
 public:
  absl::Status Append(absl::Span<const storage::LogBatch>) override {
    return absl::DataLossError("fsync failed");
  }
};

TEST(LogWorker, AcknowledgesNothingAfterAFailedWrite) {
  FailingLog log;
  int acknowledged = 0, fatal = 0;
  LogWorker worker(
      &log, [&](uint64_t, std::vector<Message>) { ++acknowledged; },
      [&](const absl::Status&) { ++fatal; });
  worker.Start();
  AppendBatch with_entry;
  with_entry.seq = 1;
  auto entry = std::make_shared<storage::Entry>();
  entry->index = Index(1);
  with_entry.log.entries = {entry};
  worker.Append(with_entry);
  // Only waits for the batches before it: the one that must not slip through.
  AppendBatch empty;
  empty.seq = 2;
  empty.after_durable.resize(1);
  worker.Append(empty);
  worker.Stop();
  EXPECT_EQ(acknowledged, 0);
  EXPECT_EQ(fatal, 1);
}

// ---------------------------------------------------------------- the freshness record (F4)

class FreshnessRecord : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove(path_); }
  void TearDown() override { std::filesystem::remove(path_); }
  Claim Now() const { return {base::RealClock::Get()->Sample(), absl::Milliseconds(3), Index(42)}; }
  std::string Line() const {
    std::ifstream in(path_);
    std::string line;
    std::getline(in, line);
    return line;
  }
  void Write(const std::string& body) const {
    std::ofstream(path_) << body << ' ' << base::Crc32c(body) << '\n';
  }
  const std::string path_ = testing::TempDir() + "holdfast_freshness_record";
};

TEST_F(FreshnessRecord, ComesBackInTheSameBoot) {
  const Claim claim = Now();
  ASSERT_TRUE(WriteFreshnessRecord(path_, claim).ok());
  const auto read = ReadFreshnessRecord(path_);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->index, claim.index);
  EXPECT_EQ(read->extra, claim.extra);
  EXPECT_EQ(read->at.boot_ns, claim.at.boot_ns);
  EXPECT_EQ(read->at.raw_ns, claim.at.raw_ns);
}

TEST_F(FreshnessRecord, OfAnotherBootOrTheFutureOrDamagedIsWorthNothing) {
  EXPECT_FALSE(ReadFreshnessRecord(path_).has_value());
  ASSERT_TRUE(WriteFreshnessRecord(path_, Now()).ok());
  const std::string good = Line();
  const std::string body = good.substr(0, good.rfind(' '));

  std::string other_boot = body;
  const size_t boot = other_boot.find(' ') + 1;
  other_boot[boot] = other_boot[boot] == '0' ? '1' : '0';
  Write(other_boot);
  EXPECT_FALSE(ReadFreshnessRecord(path_).has_value());

  Claim future = Now();
  future.at.boot_ns += 3'600'000'000'000;
  ASSERT_TRUE(WriteFreshnessRecord(path_, future).ok());
  EXPECT_FALSE(ReadFreshnessRecord(path_).has_value());

  std::string flipped = good;
  flipped[flipped.size() / 2] ^= 1;
  std::ofstream(path_) << flipped << '\n';
  EXPECT_FALSE(ReadFreshnessRecord(path_).has_value());
  std::ofstream(path_) << good.substr(0, good.size() / 2) << '\n';
  EXPECT_FALSE(ReadFreshnessRecord(path_).has_value());
}

}  // namespace
}  // namespace holdfast::raft
