// Snapshots between real transports, and from a sender played by hand.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/synchronization/notification.h"
#include "peer_snapshot_test_util.h"

namespace holdfast::server::test {
namespace {

using raft::v1::SnapshotChunk;

void SmallChunks(PeerTransport::Options* options) { options->snapshot_chunk_bytes = 1000; }
void NoRetries(PeerTransport::Options* options) {
  options->snapshot_retry_for = absl::ZeroDuration();
}

class PeerSnapshot : public testing::Test {
 protected:
  void Introduce() {
    one_.Know({&one_, &two_});
    two_.Know({&one_, &two_});
  }
  TestMember one_{1, SmallChunks};
  TestMember two_{2, SmallChunks};
};

TEST_F(PeerSnapshot, ArrivesByteForByteAndIsAnsweredOnceInstalled) {
  const Files files = {{"CURRENT", "MANIFEST-1\n"},
                       {"empty", ""},
                       {"exact", std::string(2000, 'x')},
                       {"000042.sst", RandomBytes(1'234'567, TestSeed())}};
  const Checkpoint checkpoint(files);
  Introduce();

  for (auto [from, to] : {std::pair{&one_, &two_}, std::pair{&two_, &one_}}) {
    Outcome outcome = Send(*from, to->id(), checkpoint.dir());
    ASSERT_TRUE(to->node().WaitSnapshot());
    FakeNode::Snapshot received = to->node().TakeSnapshot();
    EXPECT_EQ(received.from.value, from->id());
    EXPECT_EQ(received.term, Term(7));
    EXPECT_EQ(received.mark.index, Index(500));
    EXPECT_EQ(received.mark.term, Term(6));
    EXPECT_EQ(received.mark.membership, "members");
    EXPECT_EQ(Contents(received.dir), files);
    EXPECT_FALSE(outcome.called());
    std::move(received.done)(absl::OkStatus());
    EXPECT_TRUE(outcome.Wait().ok());
    // The node owns it: it is still there.
    EXPECT_TRUE(std::filesystem::exists(received.dir));
  }
}

TEST_F(PeerSnapshot, TheReceiversRefusalReachesTheSender) {
  const Checkpoint checkpoint(Files{{"a", "data"}});
  Introduce();
  two_.node().AnswerSnapshots(absl::FailedPreconditionError("term 7 is old news"));
  const absl::Status status = Send(one_, 2, checkpoint.dir()).Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(Says(status, "term 7 is old news")) << status;
}

TEST_F(PeerSnapshot, WhomWeDoNotKnowOrReachGetsNone) {
  const Checkpoint checkpoint(Files{{"a", "data"}});
  TestMember one(1, NoRetries);
  EXPECT_EQ(Send(one, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kNotFound);
  one.Know({&one, &two_});
  two_.Stop();
  EXPECT_EQ(Send(one, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kUnavailable);
}

TEST_F(PeerSnapshot, ABadCheckpointDirectoryIsAnError) {
  const Checkpoint checkpoint(Files{{"a", "data"}});
  Introduce();
  EXPECT_TRUE(Says(Send(one_, 2, checkpoint.dir() + "/missing").Wait(), "cannot read"));
  std::filesystem::create_directories(checkpoint.dir() + "/sub");
  EXPECT_TRUE(Says(Send(one_, 2, checkpoint.dir()).Wait(), "holds files only"));
}

TEST_F(PeerSnapshot, OneAtATimeToAMember) {
  const Checkpoint checkpoint(Files{{"a", "data"}});
  Introduce();
  Outcome first = Send(one_, 2, checkpoint.dir());
  EXPECT_EQ(Send(one_, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(two_.node().WaitSnapshot());
  std::move(two_.node().TakeSnapshot().done)(absl::OkStatus());
  EXPECT_TRUE(first.Wait().ok());
  two_.node().AnswerSnapshots(absl::OkStatus());
  EXPECT_TRUE(Send(one_, 2, checkpoint.dir()).Wait().ok());
}

TEST_F(PeerSnapshot, MessagesFlowBesideIt) {
  const Checkpoint checkpoint(Files{{"a", std::string(20 << 20, 'x')}});
  Introduce();
  ASSERT_TRUE(one_.node().WaitConnected(2));
  ASSERT_TRUE(two_.node().WaitConnected(1));
  Outcome outcome = Send(one_, 2, checkpoint.dir());
  one_.Send(Heartbeat(1, 2, 1));
  ASSERT_TRUE(two_.node().WaitReceived(1, 1));
  two_.Send(Heartbeat(2, 1, 1));
  ASSERT_TRUE(one_.node().WaitReceived(2, 1));
  ASSERT_TRUE(two_.node().WaitSnapshot());
  std::move(two_.node().TakeSnapshot().done)(absl::OkStatus());
  EXPECT_TRUE(outcome.Wait().ok());
}

TEST_F(PeerSnapshot, WhatWasLeftFromAnEarlierLifeIsRemovedAtStart) {
  two_.Stop();
  std::filesystem::create_directories(two_.options().snapshot_dir + "/recv-1-500-1");
  std::ofstream(two_.options().snapshot_dir + "/recv-1-500-1/a") << "half";
  two_.Start();
  EXPECT_TRUE(two_.SnapshotDirs().empty());
}

// --- a sender played by hand ---

TEST_F(PeerSnapshot, WhatIsWrongIsRefusedWithAReasonAndLeavesNothing) {
  SnapshotChunk damaged = DataChunk(0, 0, "data");
  damaged.set_crc32c(damaged.crc32c() ^ 1);
  SnapshotChunk other_cluster = MetaChunk(Meta({{"a", 4}}));
  other_cluster.mutable_meta()->set_cluster_id(0xbad);
  SnapshotChunk for_another = MetaChunk(Meta({{"a", 4}}));
  for_another.mutable_meta()->set_to(3);
  struct Case {
    std::vector<SnapshotChunk> chunks;
    grpc::StatusCode code;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{MetaChunk(Meta({{"a", 4}})), damaged}, grpc::DATA_LOSS, "wrong checksum in a at 0"},
      {{MetaChunk(Meta({{"a", 5}}))}, grpc::ABORTED, "ended at byte 0 of a"},
      {{MetaChunk(Meta({{"a", 4}}, 500, 0))}, grpc::INVALID_ARGUMENT, "it has no id"},
      {{MetaChunk(Meta({{"../a", 4}}))}, grpc::INVALID_ARGUMENT, "'../a' is no plain file name"},
      {{MetaChunk(Meta({{"/tmp/a", 4}}))}, grpc::INVALID_ARGUMENT, "is no plain file name"},
      {{MetaChunk(Meta({{"a", 4}})), MetaChunk(Meta({{"a", 4}}))},
       grpc::INVALID_ARGUMENT,
       "second snapshot"},
      {{DataChunk(0, 0, "data")}, grpc::INVALID_ARGUMENT, "must start with its meta data"},
      {{}, grpc::INVALID_ARGUMENT, "must start with its meta data"},
      {{other_cluster}, grpc::FAILED_PRECONDITION, "member 1 belongs to cluster bad"},
      {{for_another}, grpc::FAILED_PRECONDITION, "for member 3 came to member 2"},
  };
  for (const Case& c : cases) {
    HandSender sender(two_);
    for (const SnapshotChunk& chunk : c.chunks) sender.Write(chunk);
    const grpc::Status status = sender.Finish();
    EXPECT_EQ(status.error_code(), c.code) << status.error_message();
    EXPECT_NE(status.error_message().find(c.says), std::string::npos) << status.error_message();
    EXPECT_TRUE(two_.SnapshotDirs().empty()) << c.says;
  }
}

TEST_F(PeerSnapshot, ASenderThatGoesAwayBeforeAnyByteLeavesNothing) {
  HandSender sender(two_);
  ASSERT_TRUE(sender.Write(MetaChunk(Meta({{"a", 8}}))));
  ASSERT_TRUE(Eventually([this] { return !two_.SnapshotDirs().empty(); }));
  EXPECT_EQ(sender.Cancel().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([this] { return two_.SnapshotDirs().empty(); }));
}

TEST_F(PeerSnapshot, ANewerOneOfTheSameSenderReplacesTheOlder) {
  HandSender older(two_), newer(two_);
  ASSERT_TRUE(older.Write(MetaChunk(Meta({{"a", 8}}, 500))));
  ASSERT_TRUE(older.Write(DataChunk(0, 0, "data")));
  ASSERT_TRUE(Eventually([this] { return two_.SnapshotDirs().size() == 1; }));
  ASSERT_TRUE(newer.Write(MetaChunk(Meta({{"a", 4}}, 600, 2))));
  EXPECT_EQ(older.Wait().error_code(), grpc::StatusCode::CANCELLED);
  two_.node().AnswerSnapshots(absl::OkStatus());
  ASSERT_TRUE(newer.Write(DataChunk(0, 0, "data")));
  EXPECT_TRUE(newer.Finish().ok());
  EXPECT_EQ(newer.installed(), 600u);
  EXPECT_EQ(two_.node().TakeSnapshot().mark.index, Index(600));
  EXPECT_TRUE(Eventually([this] { return two_.SnapshotDirs().size() == 1; }));
}

TEST_F(PeerSnapshot, StopEndsWhatIsBeingReceived) {
  HandSender half(two_);
  ASSERT_TRUE(half.Write(MetaChunk(Meta({{"a", 8}}))));
  ASSERT_TRUE(Eventually([this] { return two_.SnapshotDirs().size() == 1; }));
  two_.transport().Stop();
  two_.node().ExpectNoMoreCalls();
  EXPECT_EQ(half.Wait().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(two_.SnapshotDirs().empty());
  HandSender late(two_);
  const grpc::Status status = late.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "this member is stopping");
}

TEST_F(PeerSnapshot, StopOfEitherEndWhileTheNodeInstalls) {
  const Checkpoint checkpoint(Files{{"a", "data"}});
  Introduce();
  Outcome outcome = Send(one_, 2, checkpoint.dir());
  ASSERT_TRUE(two_.node().WaitSnapshot());
  FakeNode::Snapshot received = two_.node().TakeSnapshot();
  two_.transport().Stop();
  std::move(received.done)(absl::OkStatus());  // nobody waits any more: must be harmless

  // The sender comes again.
  two_.Stop();
  two_.Start();
  ASSERT_TRUE(two_.node().WaitSnapshot());
  one_.transport().Stop();
  EXPECT_TRUE(outcome.called());
  EXPECT_FALSE(outcome.Wait().ok());
  EXPECT_EQ(Send(one_, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kUnavailable);
}

// Takes the call and reads nothing.
class Deaf : public raft::v1::Peer::Service {
 public:
  grpc::Status InstallSnapshot(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<raft::v1::SnapshotAnswer, SnapshotChunk>*) override {
    called.Notify();
    release.WaitForNotification();
    return grpc::Status::OK;
  }
  absl::Notification called, release;
};

TEST(PeerSnapshotSender, AReceiverThatTakesNothingIsGivenUp) {
  Deaf deaf;
  TestServer server(&deaf);
  TestMember one(1, [](PeerTransport::Options* options) {
    options->snapshot_stall_timeout = absl::Milliseconds(200);
    NoRetries(options);
  });
  one.KnowUrls({{2, {server.url()}}});
  const Checkpoint checkpoint(Files{{"a", std::string(64 << 20, 'x')}});
  const absl::Status status = Send(one, 2, checkpoint.dir()).Wait();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Says(status, "took nothing for 200ms")) << status;
  deaf.release.Notify();
}

TEST(PeerSnapshotSender, StopDoesNotWaitForAReceiverThatTakesNothing) {
  Deaf deaf;
  TestServer server(&deaf);
  TestMember one(1);
  one.KnowUrls({{2, {server.url()}}});
  const Checkpoint checkpoint(Files{{"a", std::string(64 << 20, 'x')}});
  Outcome outcome = Send(one, 2, checkpoint.dir());
  deaf.called.WaitForNotification();
  one.transport().Stop();
  EXPECT_TRUE(outcome.called());
  EXPECT_FALSE(outcome.Wait().ok());
  deaf.release.Notify();
}

}  // namespace
}  // namespace holdfast::server::test
