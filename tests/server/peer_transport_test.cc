// Two or three real transports on loopback, and tests that play a bad peer by hand.
#include "server/peer_transport.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "absl/synchronization/notification.h"
#include "base/rng.h"
#include "peer_test_proxy.h"
#include "peer_test_util.h"
#include "server/peer_channel.h"
#include "server/peer_disks.h"

namespace holdfast::server::test {
namespace {

using raft::v1::Frame;
using FrameStream = grpc::ClientReaderWriter<Frame, Frame>;
using Options = PeerTransport::Options;

void Introduce(const std::vector<TestMember*>& members) {
  const std::vector<const TestMember*> all(members.begin(), members.end());
  for (TestMember* member : members) member->Know(all);
}

void ExpectConnected(TestMember& a, TestMember& b, int times = 1) {
  ASSERT_TRUE(a.node().WaitConnected(b.id(), times));
  ASSERT_TRUE(b.node().WaitConnected(a.id(), times));
}

int PortOf(const std::string& url) { return std::stoi(url.substr(url.rfind(':') + 1)); }

std::vector<uint64_t> UpTo(uint64_t n) {
  std::vector<uint64_t> numbers(n);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// A call of the test's own that ends at kDeadline, so that a peer that does not end it is a failure
// and not a hang.
struct HandContext : grpc::ClientContext {
  HandContext() {
    set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kDeadline));
  }
};

// What a stream that the test opened by hand ends with; DEADLINE_EXCEEDED if nobody ended it.
grpc::Status EndOf(FrameStream* stream) {
  Frame frame;
  while (stream->Read(&frame)) {
  }
  return stream->Finish();
}

bool WasEnded(const grpc::Status& status) {
  return !status.ok() && status.error_code() != grpc::StatusCode::DEADLINE_EXCEEDED;
}

TEST(PeerTransport, TheSmallerIdDialsAndBothDirectionsKeepOrder) {
  TestMember one(1), two(2);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  for (uint64_t i = 0; i < 1000; ++i) {
    one.Send(Heartbeat(1, 2, i));
    two.Send(Heartbeat(2, 1, i));
  }
  ASSERT_TRUE(two.node().WaitReceived(1, 1000));
  ASSERT_TRUE(one.node().WaitReceived(2, 1000));
  EXPECT_EQ(two.node().rounds(1), UpTo(1000));
  EXPECT_EQ(one.node().rounds(2), UpTo(1000));
  EXPECT_EQ(one.node().connected(2), 1);
  EXPECT_EQ(two.node().connected(1), 1);
}

TEST(PeerTransport, OneSendReachesSeveralPeers) {
  TestMember one(1), two(2), three(3);
  Introduce({&one, &two, &three});
  ExpectConnected(one, two);
  ExpectConnected(one, three);
  ExpectConnected(two, three);
  two.transport().Send({Heartbeat(2, 1, 10), Heartbeat(2, 3, 30), Heartbeat(2, 1, 11)});
  ASSERT_TRUE(one.node().WaitReceived(2, 2));
  ASSERT_TRUE(three.node().WaitReceived(2, 1));
  EXPECT_EQ(one.node().rounds(2), (std::vector<uint64_t>{10, 11}));
  EXPECT_EQ(three.node().rounds(2), (std::vector<uint64_t>{30}));
}

TEST(PeerTransport, MembershipWithoutSelfIsFine) {
  TestMember one(1), two(2);
  one.Know({&two});
  two.Know({&one});
  ExpectConnected(one, two);
}

TEST(PeerTransport, UnderLoadMessagesShareFramesAndNoneIsLost) {
  constexpr uint64_t kMessages = 100'000;
  TestMember one(1), two(2);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  for (uint64_t i = 0; i < kMessages; ++i) two.Send(Append(2, 1, i, 100));
  ASSERT_TRUE(one.node().WaitReceived(2, kMessages));
  EXPECT_EQ(one.node().rounds(2), UpTo(kMessages));
  EXPECT_LT(one.node().receive_calls(), kMessages / 2);
  fmt::print("{} messages in {} frames\n", kMessages, one.node().receive_calls());
}

TEST(PeerTransport, FramesAreCutAtTheirLimit) {
  const auto small_frames = [](Options* options) {
    options->max_frame_bytes = 64 << 10;
    options->snapshot_chunk_bytes = 4 << 10;
  };
  TestMember one(1, small_frames), two(2, small_frames);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  std::vector<raft::Message> turn;
  for (uint64_t i = 0; i < 500; ++i) turn.push_back(Append(1, 2, i, 10 << 10));
  one.transport().Send(std::move(turn));
  ASSERT_TRUE(two.node().WaitReceived(1, 500));
  EXPECT_EQ(two.node().rounds(1), UpTo(500));
  EXPECT_LE(two.node().most_bytes_at_once(), size_t{64} << 10);
  EXPECT_GE(two.node().most_bytes_at_once(), size_t{40} << 10);
}

TEST(PeerTransport, AMessageLongerThanAFrameIsDroppedAlone) {
  const auto small_frames = [](Options* options) {
    options->max_frame_bytes = 64 << 10;
    options->snapshot_chunk_bytes = 4 << 10;
  };
  TestMember one(1, small_frames), two(2, small_frames);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  one.transport().Send({Heartbeat(1, 2, 1), Append(1, 2, 2, 64 << 10), Heartbeat(1, 2, 3)});
  ASSERT_TRUE(two.node().WaitReceived(1, 2));
  EXPECT_EQ(two.node().rounds(1), (std::vector<uint64_t>{1, 3}));
  EXPECT_EQ(two.node().lost(1), 0);
}

TEST(PeerTransport, WithoutAConnectionEverythingIsDroppedAtOnce) {
  TestMember one(1), two(2);
  one.Send(Heartbeat(1, 2, 1));  // not even a member
  one.Know({&one, &two});
  one.Send(Heartbeat(1, 2, 2));  // not connected, or not yet
  ExpectConnected(one, two);
  one.Send(Heartbeat(1, 2, 3));
  ASSERT_TRUE(two.node().WaitReceived(1, 1));
  EXPECT_EQ(two.node().rounds(1), (std::vector<uint64_t>{3}));
}

TEST(PeerTransport, ARestartedPeerIsLostAndFoundAgain) {
  TestMember one(1), two(2);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  two.Stop();
  ASSERT_TRUE(one.node().WaitLost(2));
  two.Start();
  two.Know({&one, &two});
  ASSERT_TRUE(one.node().WaitConnected(2, 2));
  ASSERT_TRUE(two.node().WaitConnected(1));
  one.Stop();  // now the one that dials
  ASSERT_TRUE(two.node().WaitLost(1));
  one.Start();
  one.Know({&one, &two});
  ExpectConnected(one, two);
  ASSERT_TRUE(two.node().WaitConnected(1, 2));
  two.Send(Heartbeat(2, 1, 7));
  ASSERT_TRUE(one.node().WaitReceived(2, 1));
}

TEST(PeerTransport, AResetConnectionIsNoticedAtOnceByBothEnds) {
  const auto no_keepalive = [](Options* options) { options->keepalive = absl::Hours(1); };
  TestMember one(1, no_keepalive), two(2, no_keepalive);
  TcpProxy proxy(PortOf(two.url()));
  one.KnowUrls({{2, {proxy.url()}}});
  two.Know({&one});
  ExpectConnected(one, two);
  proxy.Cut();
  ASSERT_TRUE(one.node().WaitLost(2));
  ASSERT_TRUE(two.node().WaitLost(1));
  ExpectConnected(one, two, 2);
}

TEST(PeerTransport, AHalfOpenConnectionIsNoticedByKeepalive) {
  const auto keepalive = [](Options* options) { options->keepalive = absl::Milliseconds(300); };
  TestMember one(1, keepalive), two(2, keepalive);
  TcpProxy proxy(PortOf(two.url()));
  one.KnowUrls({{2, {proxy.url()}}});
  two.Know({&one});
  ExpectConnected(one, two);
  const SteadyTime frozen = SteadyNow();
  proxy.Freeze(true);
  ASSERT_TRUE(one.node().WaitLost(2));
  ASSERT_TRUE(two.node().WaitLost(1));
  const auto noticed = std::chrono::duration<double>(SteadyNow() - frozen).count();
  fmt::print("noticed after {:.2f} s\n", noticed);
  EXPECT_LT(noticed, 5.0);  // 0.6 s and room for a loaded machine; without pings it is minutes
  proxy.Freeze(false);
  proxy.Cut();
  ExpectConnected(one, two, 2);
}

TEST(PeerTransport, PingsOnAQuietStreamAreNoAbuse) {
  const auto keepalive = [](Options* options) { options->keepalive = absl::Milliseconds(250); };
  TestMember one(1, keepalive), two(2, keepalive);
  TcpProxy proxy(PortOf(two.url()));
  one.KnowUrls({{2, {proxy.url()}}});
  two.Know({&one});
  ExpectConnected(one, two);
  // Only pings of both ends and their answers pass now; gRPC's own limit is two in five minutes.
  const uint64_t before = proxy.reads_from_client();
  ASSERT_TRUE(Eventually([&] { return proxy.reads_from_client() >= before + 24; }));
  EXPECT_EQ(one.node().lost(2), 0);
  EXPECT_EQ(two.node().lost(1), 0);
}

TEST(PeerTransport, ADeadUrlIsPassedOver) {
  TestMember one(1), two(2);
  // Of a server that is gone: nobody listens there.
  TestMember gone(9);
  const std::string dead = gone.url();
  gone.Stop();
  one.KnowUrls({{2, {dead, "not a url", "https://127.0.0.1:1", two.url()}}});
  ExpectConnected(one, two);
}

TEST(PeerTransport, AMemberThatDoesNotKnowUsIsDialedByTheLargerId) {
  TestMember one(1), two(2);
  one.Know({&one});
  two.Know({&one, &two});
  ExpectConnected(one, two);
  one.Send(Heartbeat(1, 2, 5));
  ASSERT_TRUE(two.node().WaitReceived(1, 1));
  one.Know({&one, &two});  // it learns of us: the stream that stands is good
  two.Send(Heartbeat(2, 1, 6));
  ASSERT_TRUE(one.node().WaitReceived(2, 1));
  EXPECT_EQ(one.node().lost(2), 0);
}

TEST(PeerTransport, ARemovedMemberIsDisconnectedAndRefusedUntilItIsBack) {
  TestMember one(1), two(2);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  two.Know({&two});
  ASSERT_TRUE(two.node().WaitLost(1));
  ASSERT_TRUE(one.node().WaitLost(2));

  auto stub = two.Dial();
  HandContext context;
  auto stream = stub->Stream(&context);
  stream->Write(HelloFrame(1, 2));
  const grpc::Status status = EndOf(stream.get());
  EXPECT_EQ(status.error_message(), "member 1 is no longer a member of the cluster");
  EXPECT_EQ(two.node().connected(1), 1);

  two.Know({&one, &two});
  ASSERT_TRUE(two.node().WaitConnected(1, 2));
}

// Whom the others have removed, and committed it, stops; not before that, for it may be undone.
TEST(PeerTransport, ARemovedMemberIsToldOnceTheRemovalIsCommitted) {
  absl::Notification told;
  TestMember one(1,
                 [&told](Options* options) { options->on_removed = [&told] { told.Notify(); }; });
  TestMember two(2);
  two.Know({&two});
  two.node().KnowRemoved({1}, /*last=*/10, /*commit=*/9);
  one.Know({&one, &two});
  ASSERT_TRUE(two.node().WaitConnected(1));
  EXPECT_FALSE(told.HasBeenNotified());
  two.node().KnowRemoved({1}, /*last=*/12, /*commit=*/10);
  ASSERT_TRUE(two.node().WaitLost(1));
  EXPECT_TRUE(told.WaitForNotificationWithTimeout(kDeadline));
  auto stub = two.Dial();
  HandContext context;
  auto stream = stub->Stream(&context);
  stream->Write(HelloFrame(1, 2));
  EXPECT_EQ(EndOf(stream.get()).error_message(),
            "this member was removed from the cluster, says member 2");
  EXPECT_EQ(two.node().connected(1), 1);
}

// A leader that leaves has to commit that itself, so it is not cut off before.
TEST(PeerTransport, StreamsOfARemovedMemberStandUntilTheRemovalIsCommitted) {
  TestMember one(1), two(2);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  two.node().KnowRemoved({1}, /*last=*/10, /*commit=*/9);
  raft::Membership without;
  without.voters = {NodeId(2)};
  without.peer_urls = {{NodeId(2), {two.url()}}};
  without.removed = {NodeId(1)};
  two.transport().SetMembership(without);
  two.Send(Heartbeat(2, 1, 5));
  one.Send(Heartbeat(1, 2, 6));
  ASSERT_TRUE(one.node().WaitReceived(2, 1));
  ASSERT_TRUE(two.node().WaitReceived(1, 1));
  two.node().KnowRemoved({1}, /*last=*/10, /*commit=*/10);
  ASSERT_TRUE(two.node().WaitLost(1));
  ASSERT_TRUE(one.node().WaitLost(2));
}

TEST(PeerTransport, ARemovalThatWasCutOffTheLogIsForgotten) {
  TestMember one(1), two(2);
  Introduce({&one, &two});
  ExpectConnected(one, two);
  two.node().KnowRemoved({1}, /*last=*/10, /*commit=*/9);
  one.Stop();
  ASSERT_TRUE(two.node().WaitLost(1));
  one.Start();
  one.Know({&one, &two});
  ASSERT_TRUE(two.node().WaitConnected(1, 2));  // seen now: it is at 10
  two.node().KnowRemoved({}, /*last=*/8, /*commit=*/8);
  two.Know({&one, &two});
  two.node().KnowRemoved({1}, /*last=*/20, /*commit=*/19);
  one.Stop();
  ASSERT_TRUE(two.node().WaitLost(1, 2));
  one.Start();
  one.Know({&one, &two});
  EXPECT_TRUE(two.node().WaitConnected(1, 3)) << "this removal is another one, of index 20";
}

// A member that lost its data has another disk id, and may have forgotten a vote.
TEST(PeerTransport, WhoLostItsDataIsRefusedByBothEnds) {
  const auto publishes = [](uint64_t disk) {
    return [disk](Options* options) {
      options->disk_id = 0xd0 + options->self.value;
      options->published_disk = [disk](NodeId) { return disk; };
    };
  };
  {
    TestMember one(1, publishes(0xd2)), two(2, publishes(0xd1));
    Introduce({&one, &two});
    ExpectConnected(one, two);
  }
  {
    TestMember one(1, publishes(0xbad)), two(2, publishes(0xd1));  // one dials, and sees it
    Introduce({&one, &two});
    auto stub = two.Dial();
    HandContext context;
    auto stream = stub->Stream(&context);
    Frame hello = HelloFrame(1, 2);
    hello.mutable_hello()->set_disk_id(0xbad);
    stream->Write(hello);
    EXPECT_EQ(EndOf(stream.get()).error_message(),
              "member 1 has lost its data (disk id bad instead of d1) and must not take part under "
              "its old id, for it may have forgotten a vote: run `holdfastctl member replace 1`");
    EXPECT_EQ(one.node().connected(2), 0);
  }
}

// The store may know nothing yet when a member restarts, and the vote of one that forgot is what
// must not count then.
TEST(PeerTransport, TheDiskSeenFirstIsRememberedAcrossARestart) {
  const std::string path = fmt::format("{}/peer_disks_{}", testing::TempDir(), ::getpid());
  TestMember two(2, [&path](Options* options) { options->peer_disks_path = path; });
  const auto greet = [&two](grpc::ClientContext* context, uint64_t disk) {
    auto stream = two.Dial()->Stream(context);
    Frame hello = HelloFrame(1, 2);
    hello.mutable_hello()->set_disk_id(disk);
    stream->Write(hello);
    return stream;
  };
  {
    HandContext context;
    auto stream = greet(&context, 0xd1);
    ASSERT_TRUE(two.node().WaitConnected(1));
  }
  two.Stop();
  two.Start();
  {
    HandContext context;
    auto stream = greet(&context, 0xd9);
    EXPECT_NE(EndOf(stream.get()).error_message().find("disk id d9 instead of d1"),
              std::string::npos);
  }
  EXPECT_EQ(two.node().connected(1), 0);
  {
    HandContext context;
    auto stream = greet(&context, 0xd1);
    EXPECT_TRUE(two.node().WaitConnected(1));
  }
  two.Stop();
  std::filesystem::remove(path);
}

TEST(PeerTransport, AStreamIsCutOnceTheStoreTellsAnotherDisk) {
  std::atomic<uint64_t> published = 0;
  TestMember one(1, [](Options* options) { options->disk_id = 0xd9; });
  TestMember two(2,
                 [&](Options* o) { o->published_disk = [&](NodeId) { return published.load(); }; });
  Introduce({&one, &two});
  ExpectConnected(one, two);
  published = 0xd1;
  EXPECT_TRUE(two.node().WaitLost(1));
}

TEST(PeerDisks, ADamagedFileBeginsAnew) {
  const std::string path = fmt::format("{}/peer_disks_bad_{}", testing::TempDir(), ::getpid());
  ASSERT_TRUE(PeerDisks(path).Note(NodeId(0xabc), 0xd1).ok());
  EXPECT_EQ(PeerDisks(path).Of(NodeId(0xabc)), 0xd1u);
  std::ofstream(path) << "abc d1\nnonsense";
  PeerDisks anew(path);
  EXPECT_EQ(anew.Of(NodeId(0xabc)), 0u);
  ASSERT_TRUE(anew.Note(NodeId(2), 3).ok());
  anew.Forget({NodeId(2)});
  EXPECT_EQ(anew.Of(NodeId(2)), 0u);
  EXPECT_FALSE(PeerDisks("/nowhere/peer_disks").Note(NodeId(1), 1).ok());
  std::filesystem::remove(path);
}

TEST(PeerTransport, OnlyWhereBothKnowAnIncarnationMustItBeTheSame) {
  for (const uint64_t theirs : {uint64_t{0}, uint64_t{7}, uint64_t{8}}) {
    TestMember one(1, [theirs](Options* o) { o->incarnation = [theirs] { return theirs; }; });
    TestMember two(2, [](Options* o) { o->incarnation = [] { return uint64_t{7}; }; });
    if (theirs != 8) {
      Introduce({&one, &two});
      ExpectConnected(one, two);
      continue;
    }
    auto stub = two.Dial();
    HandContext context;
    auto stream = stub->Stream(&context);
    Frame hello = HelloFrame(1, 2);
    hello.mutable_hello()->set_incarnation(theirs);
    stream->Write(hello);
    EXPECT_NE(EndOf(stream.get()).error_message().find("belongs to incarnation 8"),
              std::string::npos);
  }
}

// The old member is dead, and its replacement listens at its URL.
TEST(PeerTransport, TwoMembersAtOneUrlDoNotDisturbEachOther) {
  TestMember one(1), three(3);
  one.KnowUrls({{1, {one.url()}}, {2, {three.url()}}, {3, {three.url()}}});
  three.Know({&one, &three});
  ExpectConnected(one, three);
  one.Send(Heartbeat(1, 3, 1));
  ASSERT_TRUE(three.node().WaitReceived(1, 1));
  EXPECT_EQ(one.node().connected(2), 0);
  EXPECT_EQ(three.node().lost(1), 0);
}

TEST(PeerTransport, AChangedUrlMovesTheStream) {
  TestMember one(1), two(2);
  TcpProxy proxy(PortOf(two.url()));
  one.KnowUrls({{2, {proxy.url()}}});
  two.Know({&one});
  ExpectConnected(one, two);
  one.Know({&two});
  ExpectConnected(one, two, 2);
}

TEST(PeerTransport, WrongHellosAreRefusedWithAReason) {
  TestMember two(2);
  struct Case {
    std::function<void(raft::v1::Hello*)> spoil;
    std::string says;
  };
  const std::vector<Case> cases = {
      {[](auto* hello) { hello->set_protocol(7); },
       "member 1 speaks peer protocol 7, member 2 speaks 2: upgrade the older one"},
      {[](auto* hello) { hello->set_cluster_id(0xbad); },
       "member 1 belongs to cluster bad, member 2 to cluster c1"},
      {[](auto* hello) { hello->set_to(3); },
       "member 1 looks for member 3 at the address of member 2"},
      {[](auto* hello) { hello->set_from(2); }, "answers as member 2"},
      {[](auto* hello) { hello->set_from(0); }, "answers as member 0"},
  };
  auto stub = two.Dial();
  for (const Case& c : cases) {
    Frame hello = HelloFrame(1, 2);
    c.spoil(hello.mutable_hello());
    HandContext context;
    auto stream = stub->Stream(&context);
    stream->Write(hello);
    const grpc::Status status = EndOf(stream.get());
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_NE(status.error_message().find(c.says), std::string::npos) << status.error_message();
  }
  HandContext context;
  auto stream = stub->Stream(&context);
  stream->Write(Frame());
  EXPECT_NE(EndOf(stream.get()).error_message().find("must be a hello"), std::string::npos);
  EXPECT_EQ(two.node().connected(1), 0);
}

TEST(PeerTransport, MembersOfTwoClustersStayApart) {
  TestMember one(1, [](Options* options) { options->cluster_id = 0xc2; });
  TestMember two(2), three(3);
  Introduce({&one, &two, &three});
  ExpectConnected(two, three);
  EXPECT_EQ(one.node().connected(2) + one.node().connected(3), 0);
  EXPECT_EQ(two.node().connected(1) + three.node().connected(1), 0);
}

// Notes when it is dialed, and answers with the hello of another cluster, or refuses.
class WrongPeer : public raft::v1::Peer::Service {
 public:
  explicit WrongPeer(bool greets) : greets_(greets) {}
  grpc::Status Stream(grpc::ServerContext*,
                      grpc::ServerReaderWriter<Frame, Frame>* stream) override {
    {
      absl::MutexLock lock(&mutex_);
      dials_.push_back(SteadyNow());
    }
    if (!greets_) return {grpc::StatusCode::FAILED_PRECONDITION, "go away"};
    Frame hello = HelloFrame(2, 1);
    hello.mutable_hello()->set_cluster_id(0xbad);
    stream->Write(hello);
    Frame frame;
    while (stream->Read(&frame)) {
    }
    return grpc::Status::OK;
  }
  std::vector<SteadyTime> WaitDials(size_t n) {
    const auto enough = [this, n] { return dials_.size() >= n; };
    absl::MutexLock lock(&mutex_);
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&enough), kDeadline));
    return dials_;
  }

 private:
  const bool greets_;
  absl::Mutex mutex_;
  std::vector<SteadyTime> dials_;
};

TEST(PeerTransport, RefusalsAreRedialedWithBackoffNotInABusyLoop) {
  for (const bool greets : {false, true}) {
    WrongPeer wrong(greets);
    TestServer server(&wrong);
    TestMember one(1, [](Options* options) {
      options->reconnect_min = absl::Milliseconds(2);
      options->reconnect_max = absl::Milliseconds(10);
      options->refused_redial = absl::Milliseconds(200);
    });
    one.KnowUrls({{2, {server.url()}}});
    const std::vector<SteadyTime> dials = wrong.WaitDials(4);
    EXPECT_GE(dials[3] - dials[0], std::chrono::milliseconds(500));
    EXPECT_EQ(one.node().connected(2), 0);
    one.Stop();
  }
}

// Says hello, then reads nothing until told to.
class StalledPeer : public raft::v1::Peer::Service {
 public:
  grpc::Status Stream(grpc::ServerContext*,
                      grpc::ServerReaderWriter<Frame, Frame>* stream) override {
    Frame frame;
    if (!stream->Read(&frame)) return grpc::Status::OK;
    stream->Write(HelloFrame(2, 1));
    resume_.WaitForNotification();
    while (stream->Read(&frame)) {
      absl::MutexLock lock(&mutex_);
      for (const raft::v1::Message& message : frame.messages()) {
        bytes_ += message.ByteSizeLong();
        if (message.nonce() != 0) marker_ = true;
      }
    }
    return grpc::Status::OK;
  }
  void Resume() { resume_.Notify(); }
  bool WaitMarker(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&marker_), timeout);
  }
  size_t bytes() {
    absl::MutexLock lock(&mutex_);
    return bytes_;
  }

 private:
  absl::Notification resume_;
  absl::Mutex mutex_;
  size_t bytes_ = 0;
  bool marker_ = false;
};

TEST(PeerTransport, AStalledReceiverFillsTheQueueToItsBoundAndNoFurther) {
  constexpr size_t kQueue = size_t{1} << 20, kFrame = size_t{1} << 20, kSent = size_t{100} << 20;
  StalledPeer peer;
  TestServer server(&peer);
  TestMember one(1, [](Options* options) {
    options->max_queued_bytes = kQueue;
    options->max_frame_bytes = kFrame;
  });
  one.KnowUrls({{2, {server.url()}}});
  ASSERT_TRUE(one.node().WaitConnected(2));
  for (size_t sent = 0; sent < kSent; sent += 10 << 10) one.Send(Append(1, 2, sent, 10 << 10));
  peer.Resume();
  raft::Message marker = Heartbeat(1, 2, 0);
  marker.nonce = 1;
  const SteadyTime give_up = SteadyNow() + ToSteady(kDeadline);
  do {  // it is dropped, too, while the queue is full
    one.Send(marker);
  } while (!peer.WaitMarker(absl::Milliseconds(20)) && SteadyNow() < give_up);
  ASSERT_TRUE(peer.WaitMarker(absl::ZeroDuration()));
  // The queue, a frame being written, and what gRPC and the two sockets' buffers had taken.
  EXPECT_LT(peer.bytes(), kQueue + kFrame + (size_t{16} << 20));
  EXPECT_GT(peer.bytes(), kQueue / 2);
  EXPECT_EQ(one.node().lost(2), 0);
}

TEST(PeerTransport, StopDoesNotWaitForAStalledReceiver) {
  StalledPeer peer;
  TestServer server(&peer);
  TestMember one(1);
  one.KnowUrls({{2, {server.url()}}});
  ASSERT_TRUE(one.node().WaitConnected(2));
  for (uint64_t i = 0; i < 1000; ++i) one.Send(Append(1, 2, i, 10 << 10));
  one.Stop();
  EXPECT_EQ(one.node().lost(2), 1);
  peer.Resume();
}

TEST(PeerTransport, ANewerStreamOfTheSameMemberReplacesTheOlder) {
  TestMember two(2);
  auto stub = two.Dial();
  Frame frame;
  HandContext first_context, second_context;
  auto first = stub->Stream(&first_context);
  ASSERT_TRUE(first->Write(HelloFrame(1, 2)));
  ASSERT_TRUE(first->Read(&frame));
  EXPECT_EQ(frame.hello().from(), 2u);
  auto second = stub->Stream(&second_context);
  ASSERT_TRUE(second->Write(HelloFrame(1, 2)));
  ASSERT_TRUE(second->Read(&frame));
  EXPECT_TRUE(WasEnded(EndOf(first.get())));
  EXPECT_EQ(two.node().connected(1), 2);
  EXPECT_EQ(two.node().lost(1), 1);

  Frame messages;
  messages.add_messages()->set_type(static_cast<uint32_t>(raft::MessageType::kHeartbeat));
  messages.mutable_messages(0)->set_from(1);
  messages.mutable_messages(0)->set_to(2);
  messages.mutable_messages(0)->set_round(9);
  ASSERT_TRUE(second->Write(messages));
  EXPECT_TRUE(two.node().WaitReceived(1, 1));
  two.Send(Heartbeat(2, 1, 4));
  ASSERT_TRUE(second->Read(&frame));
  EXPECT_EQ(frame.messages(0).round(), 4u);
  second_context.TryCancel();
  EndOf(second.get());
  EXPECT_TRUE(two.node().WaitLost(1, 2));
}

TEST(PeerTransport, WhatNoMemberSaysEndsTheStreamAndNothingElse) {
  TestMember two(2);
  auto stub = two.Dial();
  const auto heartbeat = [] {
    Frame frame;
    frame.add_messages()->set_type(static_cast<uint32_t>(raft::MessageType::kHeartbeat));
    frame.mutable_messages(0)->set_from(1);
    frame.mutable_messages(0)->set_to(2);
    return frame;
  };
  std::vector<Frame> bad(4, heartbeat());
  bad[0].mutable_messages(0)->set_type(99);
  bad[1].mutable_messages(0)->set_from(3);
  bad[2].mutable_messages(0)->set_to(3);
  bad[3] = HelloFrame(1, 2);
  int times = 0;
  for (const Frame& frame : bad) {
    HandContext context;
    auto stream = stub->Stream(&context);
    Frame hello;
    ASSERT_TRUE(stream->Write(HelloFrame(1, 2)));
    ASSERT_TRUE(stream->Read(&hello));
    ASSERT_TRUE(stream->Write(frame));
    EXPECT_TRUE(WasEnded(EndOf(stream.get())));
    EXPECT_TRUE(two.node().WaitLost(1, ++times));
  }
  EXPECT_TRUE(two.node().rounds(1).empty());
  HandContext context;
  auto stream = stub->Stream(&context);
  ASSERT_TRUE(stream->Write(HelloFrame(1, 2)));
  ASSERT_TRUE(stream->Write(heartbeat()));
  EXPECT_TRUE(two.node().WaitReceived(1, 1));
  context.TryCancel();
  EndOf(stream.get());
}

TEST(PeerTransport, ASilentStrangerIsCutOff) {
  TestMember two(2);
  auto stub = two.Dial();
  HandContext context;
  auto stream = stub->Stream(&context);
  stream->WaitForInitialMetadata();
  EXPECT_TRUE(WasEnded(EndOf(stream.get())));
}

TEST(PeerTransport, BadOptionsAreRefused) {
  TestMember good(1);
  const std::vector<std::function<void(Options*)>> spoils = {
      [](Options* o) { o->self = NodeId(); },
      [](Options* o) { o->snapshot_dir.clear(); },
      [](Options* o) { o->max_frame_bytes = 0; },
      [](Options* o) { o->snapshot_chunk_bytes = o->max_frame_bytes + 1; },
      [](Options* o) { o->reconnect_max = o->reconnect_min / 2; },
      [](Options* o) { o->keepalive = absl::ZeroDuration(); },
  };
  for (const auto& spoil : spoils) {
    Options options = good.options();
    spoil(&options);
    EXPECT_EQ(PeerTransport::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

// Life's end is where such code breaks: every stage of a stream meets Stop here.
TEST(PeerTransport, StopDuringTraffic) {
  constexpr int kRounds = 20;
  base::Rng rng(TestSeed());
  TestMember one(1), three(3);
  for (int round = 0; round < kRounds; ++round) {
    TestMember two(2);
    Introduce({&one, &two, &three});
    std::atomic<bool> running{true};
    const auto talk = [&running](TestMember* from, uint64_t to) {
      for (uint64_t i = 0; running; ++i) from->Send(Append(from->id(), to, i, 1000));
    };
    std::thread to_two(talk, &one, 2), from_two(talk, &two, 3);
    // From "nothing yet" to "well under way".
    const size_t messages = rng.Below(4) * rng.Below(300);
    if (messages > 0) {
      ASSERT_TRUE(two.node().WaitReceived(1, messages));
      ASSERT_TRUE(three.node().WaitReceived(2, messages));
    }
    std::thread other_stop([&two] { two.transport().Stop(); });
    two.transport().Stop();
    two.node().ExpectNoMoreCalls();
    EXPECT_EQ(two.node().connected(1), two.node().lost(1));
    EXPECT_EQ(two.node().connected(3), two.node().lost(3));
    other_stop.join();
    running = false;
    to_two.join();
    from_two.join();
    two.Stop();
    one.Know({&one, &three});
    three.Know({&one, &three});
  }
}

}  // namespace
}  // namespace holdfast::server::test
