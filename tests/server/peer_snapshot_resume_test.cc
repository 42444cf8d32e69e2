// Transfers of snapshots that break, and go on.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/numbers.h"
#include "peer_snapshot_test_util.h"
#include "peer_test_proxy.h"
#include "server/peer_snapshot_partials.h"
#include "server/peer_snapshot_rate.h"

namespace holdfast::server::test {
namespace {

using raft::v1::SnapshotAnswer;
using raft::v1::SnapshotChunk;
using raft::v1::SnapshotMeta;

const Files& SomeFiles() {
  static const auto& files = *new Files{{"a", std::string(2500, 'a')},
                                        {"b", ""},
                                        {"c", std::string(1000, 'c')},
                                        {"d", "last"},
                                        {"e", ""}};
  return files;
}

SnapshotMeta SomeMeta(uint64_t id, uint64_t term = 7) {
  SnapshotMeta meta = Meta({{"a", 2500}, {"b", 0}, {"c", 1000}, {"d", 4}, {"e", 0}}, 500, id);
  meta.set_term(term);
  return meta;
}

uint64_t BytesOf(const std::vector<SnapshotChunk>& chunks, size_t n) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < n; ++i) bytes += chunks[i].data().size();
  return bytes;
}

class SnapshotResume : public testing::Test {
 protected:
  // Sends the first `n` chunks and ends the call.
  grpc::Status SendPart(const SnapshotMeta& meta, size_t n) {
    const std::vector<SnapshotChunk> chunks = Chunks(meta, SomeFiles(), 1000);
    HandSender sender(two_);
    sender.Write(MetaChunk(meta));
    for (size_t i = 0; i < n; ++i) sender.Write(chunks[i]);
    return sender.Finish();
  }
  // What is there of it; leaves it so.
  uint64_t Have(const SnapshotMeta& meta) {
    HandSender sender(two_);
    sender.Write(MetaChunk(meta));
    const uint64_t have = sender.Have();
    sender.Finish();
    return have;
  }
  std::vector<std::string> Everything() const {
    std::vector<std::string> names;
    for (const auto& item : std::filesystem::directory_iterator(two_.options().snapshot_dir)) {
      names.push_back(item.path().filename().string());
    }
    return names;
  }
  TestMember two_{2};
};

TEST_F(SnapshotResume, GoesOnFromEveryChunkWhateverEndedTheCall) {
  const size_t n = Chunks(SomeMeta(1), SomeFiles(), 1000).size();
  two_.node().AnswerSnapshots(absl::OkStatus());
  for (uint64_t restart = 0; restart < 2; ++restart) {
    for (size_t cut = 0; cut <= n; ++cut) {
      const SnapshotMeta meta = SomeMeta(100 * (restart + 1) + cut);
      const std::vector<SnapshotChunk> chunks = Chunks(meta, SomeFiles(), 1000);
      if (cut < n) {
        EXPECT_EQ(SendPart(meta, cut).error_code(), grpc::ABORTED);
        if (restart == 1) {
          two_.Stop();
          two_.Start();
          two_.node().AnswerSnapshots(absl::OkStatus());
        }
      }
      HandSender sender(two_);
      ASSERT_TRUE(sender.Write(MetaChunk(meta)));
      const size_t from = cut < n ? cut : 0;
      ASSERT_EQ(sender.Have(), BytesOf(chunks, from)) << "cut at " << cut;
      for (size_t i = from; i < n; ++i) ASSERT_TRUE(sender.Write(chunks[i]));
      ASSERT_TRUE(sender.Finish().ok());
      const FakeNode::Snapshot received = two_.node().TakeSnapshot();
      EXPECT_EQ(Contents(received.dir), SomeFiles()) << "cut at " << cut;
      std::filesystem::remove_all(received.dir);
      EXPECT_TRUE(Everything().empty());
    }
  }
}

TEST_F(SnapshotResume, ADamagedChunkIsRefusedAndWhatCameBeforeStays) {
  const SnapshotMeta meta = SomeMeta(1);
  std::vector<SnapshotChunk> chunks = Chunks(meta, SomeFiles(), 1000);
  (*chunks[1].mutable_data())[500] ^= 1;
  HandSender sender(two_);
  sender.Write(MetaChunk(meta));
  for (const SnapshotChunk& chunk : chunks) sender.Write(chunk);
  const grpc::Status status = sender.Finish();
  EXPECT_EQ(status.error_code(), grpc::DATA_LOSS);
  EXPECT_NE(status.error_message().find("wrong checksum in a at 1000"), std::string::npos);
  EXPECT_EQ(Have(meta), 1000u);
}

TEST_F(SnapshotResume, AnotherSnapshotDropsThePart) {
  ASSERT_EQ(SendPart(SomeMeta(1), 3).error_code(), grpc::ABORTED);
  EXPECT_EQ(Everything().size(), 2u);  // the part and its record
  // A new leader, or a new checkpoint of the same one.
  SnapshotMeta other = SomeMeta(2, 8);
  other.set_from(3);
  EXPECT_EQ(Have(other), 0u);
  EXPECT_TRUE(Everything().empty());
  EXPECT_EQ(Have(SomeMeta(1)), 0u);
}

TEST_F(SnapshotResume, AnOldLeadersPartIsNotKeptBesideANewLeaders) {
  HandSender old(two_);
  ASSERT_TRUE(old.Write(MetaChunk(SomeMeta(1))));
  ASSERT_EQ(old.Have(), 0u);
  ASSERT_TRUE(old.Write(Chunks(SomeMeta(1), SomeFiles(), 1000)[0]));
  SnapshotMeta newer = SomeMeta(2, 8);
  newer.set_from(3);
  ASSERT_EQ(SendPart(newer, 2).error_code(), grpc::ABORTED);
  EXPECT_EQ(old.Finish().error_code(), grpc::ABORTED);
  EXPECT_EQ(Everything().size(), 2u);
  EXPECT_EQ(Have(newer), 2000u);
}

TEST_F(SnapshotResume, APartWhoseBytesChangedMeanwhileStartsAgain) {
  const SnapshotMeta meta = SomeMeta(1);
  for (const char* damage : {"data", "record", "missing"}) {
    ASSERT_EQ(SendPart(meta, 3).error_code(), grpc::ABORTED);
    two_.Stop();
    ASSERT_EQ(two_.SnapshotDirs().size(), 1u);
    const std::string dir = two_.options().snapshot_dir + "/" + two_.SnapshotDirs()[0];
    if (damage == std::string("missing")) {
      std::filesystem::remove(dir + "/a");
    } else {
      const std::string path = damage == std::string("data") ? dir + "/a" : dir + kPartialSuffix;
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(60);
      file.put('!');
    }
    two_.Start();
    EXPECT_EQ(Have(meta), 0u) << damage;
    EXPECT_TRUE(Everything().empty()) << damage;
  }
}

TEST_F(SnapshotResume, WhatArrivedWholeIsNotSentAgainWhileTheNodeInstallsIt) {
  const SnapshotMeta meta = SomeMeta(1);
  HandSender first(two_);
  first.Write(MetaChunk(meta));
  const std::vector<SnapshotChunk> chunks = Chunks(meta, SomeFiles(), 1000);
  for (const SnapshotChunk& chunk : chunks) ASSERT_TRUE(first.Write(chunk));
  // The call must see its end before it breaks.
  std::thread finishing([&first] { first.Finish(); });
  ASSERT_TRUE(two_.node().WaitSnapshot());
  HandSender second(two_);  // replaces the first
  ASSERT_TRUE(second.Write(MetaChunk(meta)));
  EXPECT_EQ(second.Have(), 3504u);
  finishing.join();
  std::move(two_.node().TakeSnapshot().done)(absl::OkStatus());
  EXPECT_TRUE(second.Finish().ok());
  EXPECT_EQ(second.installed(), 500u);
}

// --- a real sender ---

// Ends the first calls as told, and notes with what each began.
class Unreliable : public raft::v1::Peer::Service {
 public:
  struct Call {
    uint64_t have;     // what it answers
    size_t chunks;     // taken before the call ends
    grpc::Status end;  // OK: takes everything and sends the receipt
  };
  explicit Unreliable(std::vector<Call> calls) : calls_(std::move(calls)) {}

  grpc::Status InstallSnapshot(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<SnapshotAnswer, SnapshotChunk>* stream) override {
    const size_t number = next_++;
    if (number >= calls_.size()) return {grpc::INTERNAL, "a call too many"};
    const Call& call = calls_[number];
    SnapshotChunk chunk;
    stream->Read(&chunk);
    ids.push_back(chunk.meta().snapshot_id());
    SnapshotAnswer answer;
    answer.set_have_bytes(call.have);
    stream->Write(answer);
    for (size_t i = 0; (call.end.ok() || i < call.chunks) && stream->Read(&chunk); ++i) {
      if (i == 0) first.emplace_back(chunk.file(), chunk.offset());
    }
    if (call.end.ok()) {
      answer.set_installed_index(500);
      stream->Write(answer);
    }
    return call.end;
  }
  // Of each call, valid when the sender is done.
  std::vector<std::pair<uint32_t, uint64_t>> first;
  std::vector<uint64_t> ids;

 private:
  const std::vector<Call> calls_;
  std::atomic<size_t> next_{0};
};

void SmallChunks(PeerTransport::Options* options) { options->snapshot_chunk_bytes = 1000; }

TEST(SnapshotSenderRetries, FromWhereTheReceiverIsWithTheSameCheckpoint) {
  Unreliable receiver({{0, 2, {grpc::UNAVAILABLE, "connection reset"}},
                       {1000, 1, {grpc::DATA_LOSS, "wrong checksum"}},
                       {2500, 1, {grpc::RESOURCE_EXHAUSTED, "disk full"}},
                       {3500, 0, grpc::Status::OK}});
  TestServer server(&receiver);
  TestMember one(1, SmallChunks);
  one.KnowUrls({{2, {server.url()}}});
  const Checkpoint checkpoint(SomeFiles());
  EXPECT_TRUE(Send(one, 2, checkpoint.dir()).Wait().ok());
  const std::vector<std::pair<uint32_t, uint64_t>> expected = {{0, 0}, {0, 1000}, {2, 0}, {3, 0}};
  EXPECT_EQ(receiver.first, expected);
  ASSERT_EQ(receiver.ids.size(), 4u);
  for (const uint64_t id : receiver.ids) EXPECT_EQ(id, receiver.ids[0]);
}

TEST(SnapshotSenderRetries, ARefusalIsFinalAndALieIsToo) {
  for (const bool lie : {false, true}) {
    Unreliable receiver({{lie ? uint64_t{1} << 40 : 0, 0, {grpc::FAILED_PRECONDITION, "no"}}});
    TestServer server(&receiver);
    TestMember one(1);
    one.KnowUrls({{2, {server.url()}}});
    const Checkpoint checkpoint(SomeFiles());
    const absl::Status status = Send(one, 2, checkpoint.dir()).Wait();
    EXPECT_EQ(status.code(),
              lie ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kFailedPrecondition)
        << status;
    EXPECT_EQ(receiver.ids.size(), 1u);
  }
}

TEST(SnapshotSenderRetries, NoLongerThanTheTermAndTheMembershipHold) {
  for (const bool deposed : {true, false}) {
    TestMember one(1), two(2);
    one.Know({&one, &two});
    two.Stop();
    const Checkpoint checkpoint(SomeFiles());
    Outcome outcome = Send(one, 2, checkpoint.dir());
    if (deposed) {
      one.node().LeadIn(8);
    } else {
      one.Know({&one});
    }
    const absl::Status status = outcome.Wait();
    EXPECT_TRUE(absl::IsAborted(status) || absl::IsNotFound(status)) << status;
  }
}

TEST(SnapshotSenderRetries, ConnectionsCutAllTheWayCostLittle) {
  constexpr uint64_t kBytes = 6 << 20;
  constexpr uint64_t kCuts = 5;
  const uint64_t seed = TestSeed();
  const Files files = {{"000001.sst", RandomBytes(kBytes / 2, seed)},
                       {"000002.sst", RandomBytes(kBytes / 2, seed + 1)}};
  TestMember one(1, [](PeerTransport::Options* options) {
    options->snapshot_chunk_bytes = 64 << 10;
    options->snapshot_bytes_per_second = 4 << 20;
  });
  TestMember two(2);
  two.node().AnswerSnapshots(absl::OkStatus());
  int port = 0;
  ASSERT_TRUE(absl::SimpleAtoi(two.url().substr(two.url().rfind(':') + 1), &port));
  TcpProxy proxy(port);
  one.KnowUrls({{1, {one.url()}}, {2, {proxy.url()}}});
  const Checkpoint checkpoint(files);
  Outcome outcome = Send(one, 2, checkpoint.dir());
  for (uint64_t cut = 1; cut <= kCuts; ++cut) {
    ASSERT_TRUE(Eventually([&] { return proxy.bytes_from_client() > cut * kBytes / 8; }));
    proxy.Cut();
    if (cut == 3) {
      two.Stop();
      two.Start();
      two.node().AnswerSnapshots(absl::OkStatus());
    }
  }
  ASSERT_TRUE(outcome.Wait().ok());
  const FakeNode::Snapshot received = two.node().TakeSnapshot();
  EXPECT_EQ(Contents(received.dir), files);
  std::filesystem::remove_all(received.dir);
  // Again went only what was on the way at each cut: buffers of sockets, proxy and gRPC.
  EXPECT_LT(proxy.bytes_from_client(), kBytes + kCuts * (512 << 10));
}

// --- what stays on the disk ---

TEST(SnapshotPartialsTest, NobodyGoesOnWithItForTooLong) {
  const std::string dir = testing::TempDir() + "/partials-" + std::to_string(::getpid());
  std::filesystem::remove_all(dir);
  const SteadyTime start{};
  SnapshotPartials partials(storage::PosixFileSystem(), dir, absl::Seconds(60));
  ASSERT_TRUE(partials.Open(start).ok());
  auto assembler = partials.Claim(SomeMeta(1));
  ASSERT_TRUE(assembler.ok()) << assembler.status();
  ASSERT_TRUE((*assembler)->Take(Chunks(SomeMeta(1), SomeFiles(), 1000)[0]).ok());
  partials.Park(*std::move(assembler), start);
  partials.Expire(start + std::chrono::seconds(60));
  EXPECT_FALSE(std::filesystem::is_empty(dir));
  partials.Expire(start + std::chrono::seconds(61));
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  std::filesystem::remove_all(dir);
}

TEST(SnapshotPartialsTest, AtStartTheNewestPartStaysAndNothingElse) {
  const std::string dir = testing::TempDir() + "/partials-start-" + std::to_string(::getpid());
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir + "/recv-1-9-9");  // whole, and never installed
  for (const uint64_t term : {8, 9, 7}) {
    const std::string name = "recv-1-500-" + std::to_string(term);
    auto part =
        SnapshotAssembler::Create(storage::PosixFileSystem(), SomeMeta(term, term), dir, name);
    ASSERT_TRUE(part.ok()) << part.status();
    ASSERT_TRUE((*part)->Take(Chunks(SomeMeta(1), SomeFiles(), 1000)[0]).ok());
    ASSERT_TRUE((*part)->Pause().ok());
    (*part)->LeaveOnDisk();
  }
  SnapshotPartials partials(storage::PosixFileSystem(), dir, absl::Seconds(60));
  ASSERT_TRUE(partials.Open(SteadyTime()).ok());
  Files left;
  for (const auto& item : std::filesystem::directory_iterator(dir)) {
    left[item.path().filename().string()];
  }
  EXPECT_EQ(left, (Files{{"recv-1-500-9", ""}, {"recv-1-500-9.partial", ""}}));
  const auto part = partials.Claim(SomeMeta(9, 9));
  ASSERT_TRUE(part.ok());
  EXPECT_EQ((*part)->have_bytes(), 1000u);
  std::filesystem::remove_all(dir);
}

// --- the rate ---

TEST(SnapshotRateTest, ManySendersTogetherKeepIt) {
  SnapshotRate rate(1'000'000);
  const SteadyTime start = SteadyTime() + std::chrono::hours(1);
  // Three senders, each sleeping until its chunk's moment.
  SteadyTime now[3] = {start, start, start};
  for (int i = 0; i < 3000; ++i) {
    SteadyTime& mine = *std::min_element(now, now + 3);
    mine = std::max(mine, rate.Reserve(1000, mine));
  }
  const std::chrono::duration<double> took = *std::max_element(now, now + 3) - start;
  EXPECT_NEAR(took.count(), 3.0, 0.025);
}

TEST(SnapshotRateTest, WhatWasNotUsedIsLostButForABurst) {
  SnapshotRate rate(1'000'000);
  SteadyTime now = SteadyTime() + std::chrono::hours(1);
  EXPECT_LE(rate.Reserve(1000, now), now);
  now += std::chrono::minutes(1);
  int at_once = 0;
  while (rate.Reserve(1000, now) <= now) ++at_once;
  EXPECT_NEAR(at_once, 20, 1);  // kSnapshotBurst
}

TEST(SnapshotRateTest, NoLimitIsNoWaitAndALowOneMakesSmallChunks) {
  SnapshotRate unlimited(0);
  const SteadyTime now = SteadyTime() + std::chrono::hours(1);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(unlimited.Reserve(1 << 30, now), now);
  EXPECT_EQ(unlimited.ChunkBytes(1000), 1000u);
  EXPECT_EQ(SnapshotRate(64 << 10).ChunkBytes(256 << 10), 3276u);
  EXPECT_EQ(SnapshotRate(64 << 20).ChunkBytes(256 << 10), 262144u);
}

}  // namespace
}  // namespace holdfast::server::test
