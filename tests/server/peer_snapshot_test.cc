// Snapshots between real transports, and from a sender played by hand.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/synchronization/notification.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "base/strings.h"
#include "peer_test_util.h"

namespace holdfast::server::test {
namespace {

using raft::v1::SnapshotChunk;
using raft::v1::SnapshotReceipt;

void SmallChunks(PeerTransport::Options* options) { options->snapshot_chunk_bytes = 1000; }

std::map<std::string, std::string> Contents(const std::string& dir) {
  std::map<std::string, std::string> files;
  for (const auto& item : std::filesystem::directory_iterator(dir)) {
    std::ifstream in(item.path(), std::ios::binary);
    files[item.path().filename().string()] = {std::istreambuf_iterator<char>(in), {}};
  }
  return files;
}

using Files = std::map<std::string, std::string>;

// A checkpoint directory that goes with the object.
class Checkpoint {
 public:
  explicit Checkpoint(const Files& files) {
    static std::atomic<int> next{0};
    dir_ = fmt::format("{}/checkpoint-{}-{}", testing::TempDir(), ::getpid(), next.fetch_add(1));
    std::filesystem::create_directories(dir_);
    for (const auto& [name, data] : files)
      std::ofstream(dir_ + "/" + name, std::ios::binary) << data;
  }
  ~Checkpoint() { std::filesystem::remove_all(dir_); }
  const std::string& dir() const { return dir_; }

 private:
  std::string dir_;
};

// The outcome of one SendSnapshot.
class Outcome {
 public:
  absl::AnyInvocable<void(absl::Status) &&> Done() {
    return [state = state_](absl::Status status) {
      state->status = std::move(status);
      state->called.Notify();  // a second call would abort
    };
  }
  absl::Status Wait() {
    EXPECT_TRUE(state_->called.WaitForNotificationWithTimeout(kDeadline));
    return state_->called.HasBeenNotified() ? state_->status : absl::UnknownError("never called");
  }
  bool called() const { return state_->called.HasBeenNotified(); }

 private:
  struct State {
    absl::Notification called;
    absl::Status status;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

Outcome Send(TestMember& from, uint64_t to, const std::string& dir, uint64_t index = 500) {
  Outcome outcome;
  from.transport().SendSnapshot({NodeId(to), Term(7), {Index(index), Term(6), "members"}, dir},
                                outcome.Done());
  return outcome;
}

bool Says(const absl::Status& status, std::string_view text) {
  return base::Message(status).find(text) != std::string_view::npos;
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
  base::Rng rng(TestSeed());
  std::map<std::string, std::string> files = {
      {"CURRENT", "MANIFEST-1\n"}, {"empty", ""}, {"exact", std::string(2000, 'x')}};
  std::string big(1'234'567, '\0');
  for (char& c : big) c = static_cast<char>(rng.Below(256));
  files["000042.sst"] = big;
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
  EXPECT_EQ(Send(one_, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kNotFound);
  Introduce();
  two_.Stop();
  EXPECT_EQ(Send(one_, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kUnavailable);
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

SnapshotChunk MetaChunk(const std::vector<std::pair<std::string, uint64_t>>& files,
                        uint64_t index = 500) {
  SnapshotChunk chunk;
  raft::v1::SnapshotMeta* meta = chunk.mutable_meta();
  meta->set_cluster_id(kCluster);
  meta->set_from(1);
  meta->set_to(2);
  meta->set_term(7);
  meta->set_index(index);
  meta->set_index_term(6);
  for (const auto& [name, size] : files) {
    raft::v1::SnapshotFile* file = meta->add_files();
    file->set_name(name);
    file->set_size(size);
  }
  return chunk;
}

SnapshotChunk DataChunk(uint32_t file, uint64_t offset, const std::string& data) {
  SnapshotChunk chunk;
  chunk.set_file(file);
  chunk.set_offset(offset);
  chunk.set_data(data);
  chunk.set_crc32c(base::Crc32c(data));
  return chunk;
}

class HandSender {
 public:
  explicit HandSender(const TestMember& to) : stub_(to.Dial()) {
    context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kDeadline));
    writer_ = stub_->InstallSnapshot(&context_, &receipt_);
  }
  bool Write(const SnapshotChunk& chunk) { return writer_->Write(chunk); }
  grpc::Status Finish() {
    writer_->WritesDone();
    return writer_->Finish();
  }
  grpc::Status Cancel() {
    context_.TryCancel();
    return writer_->Finish();
  }
  grpc::Status Wait() { return writer_->Finish(); }

 private:
  std::unique_ptr<raft::v1::Peer::Stub> stub_;
  grpc::ClientContext context_;
  SnapshotReceipt receipt_;
  std::unique_ptr<grpc::ClientWriter<SnapshotChunk>> writer_;
};

TEST_F(PeerSnapshot, WhatIsWrongIsRefusedWithAReasonAndLeavesNothing) {
  SnapshotChunk damaged = DataChunk(0, 0, "data");
  damaged.set_crc32c(damaged.crc32c() ^ 1);
  SnapshotChunk other_cluster = MetaChunk({{"a", 4}});
  other_cluster.mutable_meta()->set_cluster_id(0xbad);
  SnapshotChunk for_another = MetaChunk({{"a", 4}});
  for_another.mutable_meta()->set_to(3);
  struct Case {
    std::vector<SnapshotChunk> chunks;
    grpc::StatusCode code;
    std::string says;
  };
  const std::vector<Case> cases = {
      {{MetaChunk({{"a", 4}}), damaged}, grpc::DATA_LOSS, "wrong checksum in a at 0"},
      {{MetaChunk({{"a", 5}}), DataChunk(0, 0, "data")},
       grpc::INVALID_ARGUMENT,
       "ended at byte 4 of a"},
      {{MetaChunk({{"../a", 4}})}, grpc::INVALID_ARGUMENT, "'../a' is no plain file name"},
      {{MetaChunk({{"/tmp/a", 4}})}, grpc::INVALID_ARGUMENT, "is no plain file name"},
      {{MetaChunk({{"a", 4}}), MetaChunk({{"a", 4}})}, grpc::INVALID_ARGUMENT, "second snapshot"},
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

TEST_F(PeerSnapshot, ASenderThatGoesAwayLeavesNothing) {
  HandSender sender(two_);
  ASSERT_TRUE(sender.Write(MetaChunk({{"a", 8}})));
  ASSERT_TRUE(sender.Write(DataChunk(0, 0, "data")));
  ASSERT_TRUE(Eventually([this] { return !two_.SnapshotDirs().empty(); }));
  EXPECT_EQ(sender.Cancel().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([this] { return two_.SnapshotDirs().empty(); }));
}

TEST_F(PeerSnapshot, ANewerOneOfTheSameSenderReplacesTheOlder) {
  HandSender older(two_), newer(two_);
  ASSERT_TRUE(older.Write(MetaChunk({{"a", 8}}, 500)));
  ASSERT_TRUE(older.Write(DataChunk(0, 0, "data")));
  ASSERT_TRUE(Eventually([this] { return two_.SnapshotDirs().size() == 1; }));
  ASSERT_TRUE(newer.Write(MetaChunk({{"a", 4}}, 600)));
  EXPECT_EQ(older.Wait().error_code(), grpc::StatusCode::CANCELLED);
  two_.node().AnswerSnapshots(absl::OkStatus());
  ASSERT_TRUE(newer.Write(DataChunk(0, 0, "data")));
  EXPECT_TRUE(newer.Finish().ok());
  EXPECT_EQ(two_.node().TakeSnapshot().mark.index, Index(600));
  EXPECT_TRUE(Eventually([this] { return two_.SnapshotDirs().size() == 1; }));
}

TEST_F(PeerSnapshot, StopEndsWhatIsBeingReceived) {
  HandSender half(two_);
  ASSERT_TRUE(half.Write(MetaChunk({{"a", 8}})));
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
  EXPECT_FALSE(outcome.Wait().ok());
  std::move(received.done)(absl::OkStatus());  // nobody waits any more: must be harmless

  two_.Stop();
  two_.Start();
  Outcome second = Send(one_, 2, checkpoint.dir());
  ASSERT_TRUE(two_.node().WaitSnapshot());
  one_.transport().Stop();
  EXPECT_TRUE(second.called());
  EXPECT_FALSE(second.Wait().ok());
  EXPECT_EQ(Send(one_, 2, checkpoint.dir()).Wait().code(), absl::StatusCode::kUnavailable);
}

// Takes the call and reads nothing.
class Deaf : public raft::v1::Peer::Service {
 public:
  grpc::Status InstallSnapshot(grpc::ServerContext*, grpc::ServerReader<SnapshotChunk>*,
                               SnapshotReceipt*) override {
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
