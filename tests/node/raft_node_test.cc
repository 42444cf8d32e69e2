// The driver with its real threads: three nodes in one process, joined by queues instead of gRPC.
#include "replication/raft_node.h"

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/rng.h"
#include "base/strings.h"
#include "storage/memory_log.h"

namespace holdfast::raft {
namespace {

constexpr absl::Duration kSoon =
    absl::Seconds(20);  // far beyond what is expected, never waited out

// Remembers every payload; a checkpoint is a file with them.
class ListMachine : public StateMachine {
 public:
  explicit ListMachine(std::string dir) : dir_(std::move(dir)) {
    std::filesystem::create_directories(dir_);
  }
  absl::Status Apply(absl::Span<const EntryRef> entries) override {
    absl::MutexLock lock(&mutex_);
    for (const EntryRef& entry : entries) {
      EXPECT_EQ(entry->index, index_ + 1);
      index_ = entry->index;
      term_ = entry->term;
      if (entry->type == EntryType::kNormal) payloads_.push_back(entry->payload);
    }
    return absl::OkStatus();
  }
  Index applied() const override {
    absl::MutexLock lock(&mutex_);
    return index_;
  }
  absl::StatusOr<Index> Flush() override { return applied(); }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override {
    absl::MutexLock lock(&mutex_);
    Checkpoint c{dir_ + "/ckpt" + std::to_string(++checkpoints_), index_, term_};
    std::filesystem::create_directories(c.dir);
    saved()[c.dir] = payloads_;
    return c;
  }
  absl::Status InstallCheckpoint(const std::string& dir, const storage::LogMark& mark) override {
    absl::MutexLock lock(&mutex_);
    payloads_ = saved().at(dir);
    index_ = mark.index;
    term_ = mark.term;
    installed_ = mark;
    std::filesystem::remove_all(dir);
    return absl::OkStatus();
  }
  std::optional<storage::LogMark> installed_mark() const override {
    absl::MutexLock lock(&mutex_);
    return installed_;
  }

  void WaitForPayload(const std::string& payload) {
    absl::MutexLock lock(&mutex_);
    const auto has = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return std::find(payloads_.begin(), payloads_.end(), payload) != payloads_.end();
    };
    ASSERT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&has), kSoon)) << payload;
  }
  std::vector<std::string> payloads() const {
    absl::MutexLock lock(&mutex_);
    return payloads_;
  }
  static std::map<std::string, std::vector<std::string>>& saved() {
    static std::map<std::string, std::vector<std::string>> all;
    return all;
  }

 private:
  const std::string dir_;
  mutable absl::Mutex mutex_;
  std::vector<std::string> payloads_;
  Index index_;
  Term term_;
  int checkpoints_ = 0;
  std::optional<storage::LogMark> installed_;
};

class Net;

class NetTransport : public Transport {
 public:
  NetTransport(Net* net, NodeId self) : net_(net), self_(self) {}
  void Send(std::vector<Message> messages) override;
  void SendSnapshot(SnapshotToSend snapshot,
                    absl::AnyInvocable<void(absl::Status) &&> done) override;
  void SetMembership(const Membership&) override {}

 private:
  Net* const net_;
  const NodeId self_;
};

// Three members; any can be down (stopped) or cut off (up, but unheard).
class Net {
 public:
  explicit Net(uint64_t snapshot_count = 1000000)
      : snapshot_count_(snapshot_count), root_(testing::TempDir() + "raft_node_test") {
    std::filesystem::remove_all(root_);
    for (uint64_t i = 1; i <= 3; ++i) {
      Member& m = members_[NodeId(i)];
      m.machine = std::make_unique<ListMachine>(root_ + "/" + std::to_string(i));
      membership_.voters.insert(NodeId(i));
    }
    for (uint64_t i = 1; i <= 3; ++i) Start(NodeId(i));
  }
  ~Net() {
    for (auto& [id, m] : members_) Stop(id);
    std::filesystem::remove_all(root_);
  }

  // A new member, with nothing, that has been told of the others.
  void Join(NodeId id, const Membership& told) {
    {
      absl::MutexLock lock(&mutex_);
      members_[id].machine = std::make_unique<ListMachine>(root_ + "/" + std::to_string(id.value));
    }
    membership_ = told;
    Start(id);
  }
  void Start(NodeId id) {
    Member& m = members_.at(id);
    m.log.Reopen();
    NodeOptions options;
    options.core.id = id;
    options.core.heartbeat_ticks = 5;
    options.core.election_ticks = 30;
    options.tick = absl::Milliseconds(5);
    options.seed = id.value;
    options.boot = base::RandomSeed();
    options.snapshot_count = snapshot_count_;
    options.catch_up_entries = 10;
    m.record =
        std::make_unique<FreshnessFile>(root_ + "/" + std::to_string(id.value) + "/freshness");
    options.freshness_record = m.record.get();
    options.on_fatal = [](const absl::Status& s) { CHECK_OK(s); };
    m.transport = std::make_unique<NetTransport>(this, id);
    auto node = RaftNode::Start(std::move(options), membership_, &m.log, m.machine.get(),
                                m.transport.get());
    CHECK_OK(node.status());
    std::shared_ptr<RaftNode> shared = *std::move(node);
    absl::MutexLock lock(&mutex_);
    m.node = std::move(shared);
  }
  void Stop(NodeId id) {
    std::shared_ptr<RaftNode> node;
    {
      absl::MutexLock lock(&mutex_);
      node = std::exchange(members_.at(id).node, nullptr);
    }
    if (!node) return;
    node->Stop();
    for (const auto& [other, m] : members_) {
      if (auto peer = Reach(other)) peer->OnPeerLost(id);
    }
  }
  void Cut(NodeId id, bool cut) {
    absl::MutexLock lock(&mutex_);
    members_.at(id).cut = cut;
  }
  // Null if down or cut off.
  std::shared_ptr<RaftNode> Reach(NodeId id) {
    absl::MutexLock lock(&mutex_);
    const auto it = members_.find(id);
    return it == members_.end() || it->second.cut ? nullptr : it->second.node;
  }
  RaftNode* node(NodeId id) {
    absl::MutexLock lock(&mutex_);
    return members_.at(id).node.get();
  }
  ListMachine* machine(NodeId id) { return members_.at(id).machine.get(); }

  // A linearizable read anywhere is the way to wait for a leader.
  absl::Status Read(NodeId id, absl::Duration timeout = kSoon) {
    absl::Notification done;
    absl::Status result;
    node(id)->ReadIndex(timeout, [&](absl::StatusOr<Index> index) {
      result = index.status();
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  NodeId Leader(NodeId asked) {
    CHECK_OK(Read(asked));
    return node(asked)->status().leader;
  }
  absl::StatusOr<Membership> Change(NodeId at, MemberChange change) {
    absl::Notification done;
    absl::StatusOr<Membership> result;
    node(at)->ChangeMembers(std::move(change), kSoon, [&](absl::StatusOr<Membership> members) {
      result = std::move(members);
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  absl::Status Transfer(NodeId at, NodeId to) {
    absl::Notification done;
    absl::Status result;
    node(at)->TransferLeadership(to, kSoon, [&](absl::Status status) {
      result = status;
      done.Notify();
    });
    done.WaitForNotification();
    return result;
  }
  // Asks with linearizable reads until the membership is as wished, everywhere named.
  void WaitForMembers(NodeId asked, const std::function<bool(const Membership&)>& wished) {
    const absl::Time deadline = absl::Now() + kSoon;
    while (absl::Now() < deadline) {
      CHECK_OK(Read(asked));
      const NodeStatus status = node(asked)->status();
      if (status.membership_settled && wished(*status.membership)) return;
    }
    FAIL() << "the membership did not become what was wished";
  }
  void Propose(NodeId id, const std::string& payload) {
    node(id)->Propose(payload, [](absl::Status refused) { FAIL() << refused; });
  }

 private:
  struct Member {
    storage::MemoryLog log;
    std::unique_ptr<ListMachine> machine;
    std::unique_ptr<NetTransport> transport;
    std::unique_ptr<FreshnessFile> record;
    std::shared_ptr<RaftNode> node;
    bool cut = false;
  };
  const uint64_t snapshot_count_;
  const std::string root_;
  Membership membership_;
  absl::Mutex mutex_;
  std::map<NodeId, Member> members_;
};

void NetTransport::Send(std::vector<Message> messages) {
  if (!net_->Reach(self_)) return;
  for (Message& m : messages) {
    if (auto peer = net_->Reach(m.to)) peer->Receive({std::move(m)});
  }
}

void NetTransport::SendSnapshot(SnapshotToSend snapshot,
                                absl::AnyInvocable<void(absl::Status) &&> done) {
  auto peer = net_->Reach(snapshot.to);
  if (!peer || !net_->Reach(self_)) return std::move(done)(absl::UnavailableError("cut off"));
  const std::string copy = snapshot.dir + ".copy" + std::to_string(snapshot.to.value);
  std::filesystem::create_directories(copy);
  ListMachine::saved()[copy] = ListMachine::saved().at(snapshot.dir);
  peer->OnSnapshotReceived(self_, snapshot.term, snapshot.mark, copy, std::move(done));
}

TEST(RaftNode, CommitsWhatLeaderAndFollowersPropose) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  for (uint64_t i = 1; i <= 3; ++i) net.Propose(NodeId(i), "from " + std::to_string(i));
  for (uint64_t at = 1; at <= 3; ++at) {
    for (uint64_t i = 1; i <= 3; ++i) {
      net.machine(NodeId(at))->WaitForPayload("from " + std::to_string(i));
    }
  }
  EXPECT_TRUE(net.Read(leader).ok());
}

TEST(RaftNodeMembers, ALearnerIsPromotedByItselfOnceItKeepsUp) {
  Net net(/*snapshot_count=*/50);
  const NodeId leader = net.Leader(NodeId(1));
  for (int i = 0; i < 300; ++i) net.Propose(leader, std::to_string(i));
  const auto added =
      net.Change(leader, {MemberChange::Kind::kAdd, NodeId(4), {"http://four"}, NodeId(0)});
  ASSERT_TRUE(added.ok()) << added.status();
  EXPECT_TRUE(added->learners.contains(NodeId(4)));
  net.Join(NodeId(4), *added);
  net.WaitForMembers(leader, [](const Membership& m) { return m.voters.contains(NodeId(4)); });
  net.machine(NodeId(4))->WaitForPayload("299");
  EXPECT_TRUE(net.Read(NodeId(4)).ok());
}

TEST(RaftNodeMembers, ADeadMemberIsReplacedInOneStep) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId dead(leader.value % 3 + 1);
  net.Stop(dead);
  const auto told =
      net.Change(leader, {MemberChange::Kind::kReplace, NodeId(9), {"http://nine"}, dead});
  ASSERT_TRUE(told.ok()) << told.status();
  net.Join(NodeId(9), *told);
  net.WaitForMembers(leader, [&](const Membership& m) { return m.voters.contains(NodeId(9)); });
  const auto now = net.node(leader)->status().membership;
  EXPECT_EQ(now->voters.size(), 3u);
  EXPECT_TRUE(now->Removed(dead));
  // One of two old members may go now: the new one counts.
  for (uint64_t id = 1; id <= 3; ++id) {
    if (NodeId(id) != leader && NodeId(id) != dead) net.Stop(NodeId(id));
  }
  EXPECT_TRUE(net.Read(NodeId(9)).ok());
}

TEST(RaftNodeMembers, ALeaderThatIsRemovedHandsOverAndAnswers) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId other(leader.value % 3 + 1);
  const auto removed = net.Change(leader, {MemberChange::Kind::kRemove, leader, {}, NodeId(0)});
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(removed->voters.size(), 2u);
  net.Stop(leader);
  EXPECT_NE(net.Leader(other), leader);
}

TEST(RaftNodeMembers, RefusesWhatCannotBe) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId other(leader.value % 3 + 1);
  const auto code = [&](NodeId at, MemberChange change) {
    return net.Change(at, std::move(change)).status();
  };
  using Kind = MemberChange::Kind;
  const absl::Status elsewhere = code(other, {Kind::kAdd, NodeId(4), {"http://4"}, NodeId(0)});
  EXPECT_EQ(elsewhere.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(base::ToStd(elsewhere.message()),
              testing::StartsWith(std::string(RaftNode::kNotLeaderText)));
  EXPECT_EQ(code(leader, {Kind::kRemove, NodeId(77), {}, NodeId(0)}).code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(code(leader, {Kind::kAdd, other, {"http://4"}, NodeId(0)}).code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(net.Change(leader, {Kind::kAddLearner, NodeId(4), {"http://4"}, NodeId(0)}).ok());
  const absl::Status not_ready = code(leader, {Kind::kPromote, NodeId(4), {}, NodeId(0)});
  EXPECT_THAT(base::ToStd(not_ready.message()),
              testing::StartsWith(std::string(RaftNode::kNotReadyText)));
}

TEST(RaftNodeTransfer, LeadershipGoesWhereItIsSent) {
  Net net;
  NodeId leader = net.Leader(NodeId(1));
  for (int i = 0; i < 5; ++i) {
    const NodeId to(leader.value % 3 + 1);
    net.Propose(leader, "before " + std::to_string(i));
    ASSERT_TRUE(net.Transfer(leader, i % 2 == 0 ? to : NodeId(0)).ok());
    const NodeId now = net.Leader(to);
    EXPECT_NE(now, leader);
    net.Propose(leader, "after " + std::to_string(i));
    net.machine(now)->WaitForPayload("after " + std::to_string(i));
    leader = now;
  }
  EXPECT_EQ(net.Transfer(leader, NodeId(77)).code(), absl::StatusCode::kNotFound);
}

TEST(RaftNode, ThousandsOfProposalsKeepTheirOrder) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  std::vector<std::string> sent;
  for (int i = 0; i < 5000; ++i) {
    sent.push_back(std::to_string(i));
    net.Propose(leader, sent.back());
  }
  for (uint64_t at = 1; at <= 3; ++at) {
    net.machine(NodeId(at))->WaitForPayload("4999");
    EXPECT_EQ(net.machine(NodeId(at))->payloads(), sent);
  }
}

TEST(RaftNode, BatchesFromLeaderAndFollowersKeepTheirOrder) {
  Net net;
  net.Leader(NodeId(1));
  for (int batch = 0; batch < 50; ++batch) {
    for (uint64_t i = 1; i <= 3; ++i) {
      std::vector<std::string> payloads;
      for (int k = 0; k < 100; ++k) {
        payloads.push_back(std::to_string(i) + ":" + std::to_string(batch * 100 + k));
      }
      net.node(NodeId(i))->ProposeMany(std::move(payloads), [](size_t slot, const absl::Status& s) {
        FAIL() << slot << ": " << s;
      });
    }
  }
  for (uint64_t at = 1; at <= 3; ++at) {
    for (uint64_t i = 1; i <= 3; ++i) {
      net.machine(NodeId(at))->WaitForPayload(std::to_string(i) + ":4999");
    }
    std::map<char, int> next;
    for (const std::string& payload : net.machine(NodeId(at))->payloads()) {
      EXPECT_EQ(payload.substr(2), std::to_string(next[payload[0]]++));
    }
  }
}

TEST(RaftNode, EveryMemberClaimsAFreshAge) {
  Net net;
  net.Leader(NodeId(1));
  for (uint64_t i = 1; i <= 3; ++i) {
    absl::Notification done;
    net.node(NodeId(i))->FreshClaim(absl::Milliseconds(500), kSoon, [&] { done.Notify(); });
    done.WaitForNotification();
    const auto claim = net.node(NodeId(i))->claim();
    ASSERT_TRUE(claim.has_value()) << i;
    EXPECT_LE(claim->index, net.machine(NodeId(i))->applied());
  }
}

TEST(RaftNode, SurvivesTheLossOfItsLeader) {
  Net net;
  const NodeId old_leader = net.Leader(NodeId(1));
  net.Propose(old_leader, "before");
  for (uint64_t i = 1; i <= 3; ++i) net.machine(NodeId(i))->WaitForPayload("before");
  net.Stop(old_leader);
  const NodeId survivor(old_leader.value == 1 ? 2 : 1);
  const NodeId new_leader = net.Leader(survivor);
  EXPECT_NE(new_leader, old_leader);
  net.Propose(survivor, "after");
  net.machine(survivor)->WaitForPayload("after");
  net.Start(old_leader);
  net.machine(old_leader)->WaitForPayload("after");
}

TEST(RaftNode, WithoutAQuorumFailsFastAndAgesHonestly) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId survivor(leader.value == 3 ? 2 : 3);
  absl::Notification known;  // an age, before the others go
  net.node(survivor)->FreshClaim(kSoon, kSoon, [&] { known.Notify(); });
  known.WaitForNotification();
  for (uint64_t i = 1; i <= 3; ++i) {
    if (NodeId(i) != survivor) net.Stop(NodeId(i));
  }
  // Refused for certain, long before the caller's own deadline.
  absl::Notification refused;
  net.node(survivor)->Propose("lost", [&](absl::Status s) {
    EXPECT_EQ(s.code(), absl::StatusCode::kUnavailable);
    refused.Notify();
  });
  refused.WaitForNotification();
  EXPECT_EQ(net.Read(survivor).code(), absl::StatusCode::kUnavailable);
  // FreshClaim gives up at once when nobody leads; what there is only grows older.
  absl::Notification done;
  net.node(survivor)->FreshClaim(absl::ZeroDuration(), kSoon, [&] { done.Notify(); });
  done.WaitForNotification();
  const auto claim = net.node(survivor)->claim();
  ASSERT_TRUE(claim.has_value());
  const auto later = net.node(survivor)->claim();
  EXPECT_EQ(claim->at.boot_ns, later->at.boot_ns);
}

// The oracle of the age protocol: one process, one clock, and a member that serves while it is cut
// off from peers who go on writing. Its claims must leave out every write it does not have.
TEST(RaftNode, AMemberCutOffFromWritersNeverClaimsToHaveTheirWrites) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId cut(leader.value == 3 ? 2 : 3);
  absl::Notification fresh;
  net.node(cut)->FreshClaim(absl::Milliseconds(500), kSoon, [&] { fresh.Notify(); });
  fresh.WaitForNotification();
  ASSERT_TRUE(net.node(cut)->claim().has_value());
  net.Cut(cut, true);
  base::RealClock* clock = base::RealClock::Get();
  const base::ClockSample start = clock->Sample();
  std::map<std::string, int64_t> acked_ns;
  int checked = 0;
  for (int i = 0; clock->Sample().boot_ns - start.boot_ns < 400'000'000; ++i) {
    const std::string payload = "w" + std::to_string(i);
    net.Propose(leader, payload);
    net.machine(leader)->WaitForPayload(payload);
    acked_ns[payload] = clock->Sample().boot_ns;
    // In this order: the claim may be given to a state read after it.
    const auto claim = net.node(cut)->claim();
    const auto have = net.machine(cut)->payloads();
    ASSERT_TRUE(claim.has_value());
    const base::ClockSample now = clock->Sample();
    const int64_t claimed_ns = now.boot_ns - absl::ToInt64Nanoseconds(claim->AgeAt(now));
    for (const auto& [write, at_ns] : acked_ns) {
      if (at_ns >= claimed_ns) continue;
      ASSERT_NE(std::find(have.begin(), have.end(), write), have.end()) << write;
    }
    ++checked;
  }
  EXPECT_GT(checked, 10);
  // Heard again, it catches up and is fresh again.
  net.Cut(cut, false);
  net.machine(cut)->WaitForPayload(acked_ns.begin()->first);
}

TEST(RaftNode, ClaimSurvivesARestartInTheSameBoot) {
  Net net;
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId follower(leader.value == 3 ? 2 : 3);
  net.Propose(leader, "x");
  net.machine(follower)->WaitForPayload("x");
  // The record is written about once a second; wait for its file.
  const std::string record =
      testing::TempDir() + "raft_node_test/" + std::to_string(follower.value) + "/freshness";
  absl::Time give_up = absl::Now() + kSoon;
  while (!std::filesystem::exists(record) && absl::Now() < give_up) {
    ASSERT_TRUE(net.Read(follower).ok());
  }
  net.Cut(follower, true);
  net.Stop(follower);
  net.Start(follower);
  const auto claim = net.node(follower)->claim();
  ASSERT_TRUE(claim.has_value());
  EXPECT_LE(claim->index, net.machine(follower)->applied());
}

TEST(RaftNode, AMemberTooFarBehindGetsASnapshot) {
  Net net(/*snapshot_count=*/50);
  const NodeId leader = net.Leader(NodeId(1));
  const NodeId away(leader.value == 3 ? 2 : 3);
  net.Stop(away);
  // Enough that the leader's log no longer reaches back.
  for (int i = 0; i < 20; ++i) {
    for (int k = 0; k < 20; ++k) net.Propose(leader, std::to_string(i * 20 + k));
    net.machine(leader)->WaitForPayload(std::to_string(i * 20 + 19));
  }
  net.Start(away);
  net.machine(away)->WaitForPayload("399");
  EXPECT_EQ(net.machine(away)->payloads().size(), 400u);
  EXPECT_TRUE(net.machine(away)->installed_mark().has_value());
  net.Propose(leader, "on");
  net.machine(away)->WaitForPayload("on");
}

TEST(RaftNode, StopRefusesEverybodyWhoWaits) {
  Net net;
  net.Leader(NodeId(1));
  for (uint64_t i = 2; i <= 3; ++i) net.Stop(NodeId(i));
  absl::Notification read;
  net.node(NodeId(1))->ReadIndex(absl::Hours(1), [&](absl::StatusOr<Index> index) {
    EXPECT_FALSE(index.ok());
    read.Notify();
  });
  net.Stop(NodeId(1));
  EXPECT_TRUE(read.HasBeenNotified());
}

}  // namespace
}  // namespace holdfast::raft
