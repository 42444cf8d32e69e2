#include "peer_test_util.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/rng.h"
#include "server/peer_channel.h"

namespace holdfast::server::test {

uint64_t TestSeed() {
  const char* given = std::getenv("HOLDFAST_TEST_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : base::RandomSeed() % 1'000'000'000;
  fmt::print("HOLDFAST_TEST_SEED={}\n", seed);
  return seed;
}

bool Eventually(const std::function<bool()>& condition) {
  const SteadyTime give_up = SteadyNow() + ToSteady(kDeadline);
  absl::Notification never;
  while (!condition()) {
    if (SteadyNow() > give_up) return false;
    never.WaitForNotificationWithTimeout(absl::Milliseconds(2));
  }
  return true;
}

raft::Message Heartbeat(uint64_t from, uint64_t to, uint64_t round) {
  raft::Message message;
  message.type = raft::MessageType::kHeartbeat;
  message.from = NodeId(from);
  message.to = NodeId(to);
  message.term = Term(1);
  message.round = round;
  return message;
}

raft::Message Append(uint64_t from, uint64_t to, uint64_t prev_index, size_t payload_bytes) {
  raft::Message message = Heartbeat(from, to, prev_index);
  message.type = raft::MessageType::kAppend;
  message.prev_index = Index(prev_index);
  message.prev_term = Term(1);
  auto entry = std::make_shared<storage::Entry>();
  entry->term = Term(1);
  entry->index = Index(prev_index + 1);
  entry->payload.assign(payload_bytes, 'p');
  message.entries.push_back(std::move(entry));
  return message;
}

// --- FakeNode ---

bool FakeNode::WaitUntil(const std::function<bool()>& condition) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(
      absl::Condition(
          +[](const std::function<bool()>* c) { return (*c)(); }, &condition),
      kDeadline);
}

bool FakeNode::WaitConnected(uint64_t peer, int times) {
  return WaitUntil([this, peer, times] { return peers_[peer].connected >= times; });
}

bool FakeNode::WaitLost(uint64_t peer, int times) {
  return WaitUntil([this, peer, times] { return peers_[peer].lost >= times; });
}

bool FakeNode::WaitReceived(uint64_t peer, size_t messages) {
  return WaitUntil([this, peer, messages] { return peers_[peer].rounds.size() >= messages; });
}

bool FakeNode::WaitSnapshot() {
  return WaitUntil([this] { return !snapshots_.empty(); });
}

int FakeNode::connected(uint64_t peer) {
  absl::MutexLock lock(&mutex_);
  return peers_[peer].connected;
}

int FakeNode::lost(uint64_t peer) {
  absl::MutexLock lock(&mutex_);
  return peers_[peer].lost;
}

std::vector<uint64_t> FakeNode::rounds(uint64_t peer) {
  absl::MutexLock lock(&mutex_);
  return peers_[peer].rounds;
}

size_t FakeNode::receive_calls() {
  absl::MutexLock lock(&mutex_);
  return receive_calls_;
}

size_t FakeNode::most_bytes_at_once() {
  absl::MutexLock lock(&mutex_);
  return most_bytes_at_once_;
}

FakeNode::Snapshot FakeNode::TakeSnapshot() {
  absl::MutexLock lock(&mutex_);
  CHECK(!snapshots_.empty());
  Snapshot first = std::move(snapshots_.front());
  snapshots_.erase(snapshots_.begin());
  return first;
}

raft::NodeStatus FakeNode::status() const {
  raft::NodeStatus status;
  status.role = raft::Role::kLeader;
  status.term = Term(leading_term_);
  absl::MutexLock lock(&mutex_);
  status.membership = std::make_shared<raft::Membership>(membership_);
  status.last = Index(last_);
  status.commit = Index(commit_);
  return status;
}

void FakeNode::KnowRemoved(const std::vector<uint64_t>& removed, uint64_t last, uint64_t commit) {
  absl::MutexLock lock(&mutex_);
  membership_.removed.clear();
  for (const uint64_t id : removed) membership_.removed.push_back(NodeId(id));
  last_ = last;
  commit_ = commit;
}

void FakeNode::AnswerSnapshots(absl::Status answer) {
  absl::MutexLock lock(&mutex_);
  snapshot_answer_ = std::move(answer);
}

void FakeNode::CheckOpen(const char* call) {
  EXPECT_FALSE(closed_.load()) << call << " after Stop() had returned";
}

void FakeNode::Receive(std::vector<raft::Message> messages) {
  CheckOpen("Receive");
  absl::MutexLock lock(&mutex_);
  ++receive_calls_;
  size_t bytes = 0;
  for (const raft::Message& message : messages) {
    PerPeer& peer = peers_[message.from.value];
    EXPECT_EQ(peer.connected, peer.lost + 1) << "a message without a connection";
    peer.rounds.push_back(message.round);
    for (const raft::EntryRef& entry : message.entries) bytes += entry->payload.size();
  }
  most_bytes_at_once_ = std::max(most_bytes_at_once_, bytes);
}

void FakeNode::OnPeerConnected(NodeId peer) {
  CheckOpen("OnPeerConnected");
  absl::MutexLock lock(&mutex_);
  PerPeer& state = peers_[peer.value];
  EXPECT_EQ(state.connected, state.lost) << "connected twice";
  ++state.connected;
}

void FakeNode::OnPeerLost(NodeId peer) {
  CheckOpen("OnPeerLost");
  absl::MutexLock lock(&mutex_);
  PerPeer& state = peers_[peer.value];
  EXPECT_EQ(state.connected, state.lost + 1) << "lost without a connection";
  ++state.lost;
}

void FakeNode::OnSnapshotReceived(NodeId from, Term term, const storage::LogMark& mark,
                                  std::string dir, absl::AnyInvocable<void(absl::Status) &&> done) {
  CheckOpen("OnSnapshotReceived");
  std::optional<absl::Status> answer;
  {
    absl::MutexLock lock(&mutex_);
    answer = snapshot_answer_;
    if (answer) {
      snapshots_.push_back({from, term, mark, std::move(dir), nullptr});
    } else {
      snapshots_.push_back({from, term, mark, std::move(dir), std::move(done)});
    }
  }
  if (answer) std::move(done)(*answer);
}

// --- TestMember ---

TestMember::TestMember(uint64_t id, std::function<void(PeerTransport::Options*)> adjust) {
  static std::atomic<int> next{0};
  options_.self = NodeId(id);
  options_.cluster_id = kCluster;
  options_.snapshot_dir =
      fmt::format("{}/peer-{}-{}-{}", testing::TempDir(), ::getpid(), next.fetch_add(1), id);
  if (adjust) adjust(&options_);
  Start();
}

TestMember::~TestMember() {
  Stop();
  std::filesystem::remove_all(options_.snapshot_dir);
}

void TestMember::Start() {
  auto transport = PeerTransport::Create(options_);
  CHECK_OK(transport.status());
  transport_ = *std::move(transport);
  grpc::ServerBuilder builder;
  PeerTransport::ConfigureServer(options_, &builder);
  // The second start takes the port of the first: a port that the system gave us.
  builder.AddListeningPort(fmt::format("127.0.0.1:{}", port_), grpc::InsecureServerCredentials(),
                           &port_);
  builder.RegisterService(transport_->service());
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
  node_ = std::make_unique<FakeNode>();
  transport_->SetNode(node_.get());
}

void TestMember::Stop() {
  if (transport_ == nullptr) return;
  transport_->Stop();
  node_->ExpectNoMoreCalls();
  server_->Shutdown(std::chrono::system_clock::now());
  server_.reset();
  transport_.reset();
}

std::string TestMember::url() const { return fmt::format("http://127.0.0.1:{}", port_); }

void TestMember::Know(const std::vector<const TestMember*>& members) {
  std::map<uint64_t, std::vector<std::string>> urls;
  for (const TestMember* member : members) urls[member->id()] = {member->url()};
  KnowUrls(urls);
}

void TestMember::KnowUrls(const std::map<uint64_t, std::vector<std::string>>& urls) {
  raft::Membership membership;
  for (const auto& [id, list] : urls) {
    membership.voters.insert(NodeId(id));
    membership.peer_urls[NodeId(id)] = list;
  }
  transport_->SetMembership(membership);
}

void TestMember::Send(raft::Message message) {
  std::vector<raft::Message> messages;
  messages.push_back(std::move(message));
  transport_->Send(std::move(messages));
}

std::unique_ptr<raft::v1::Peer::Stub> TestMember::Dial() const {
  auto channel = CreatePeerChannel(options_, url());
  CHECK_OK(channel.status());
  return raft::v1::Peer::NewStub(*channel);
}

std::vector<std::string> TestMember::SnapshotDirs() const {
  std::vector<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(options_.snapshot_dir)) {
    if (item.is_directory()) names.push_back(item.path().filename().string());
  }
  return names;
}

// --- TestServer ---

TestServer::TestServer(grpc::Service* service) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(service);
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr);
}

TestServer::~TestServer() { server_->Shutdown(std::chrono::system_clock::now()); }

std::string TestServer::url() const { return fmt::format("http://127.0.0.1:{}", port_); }

raft::v1::Frame HelloFrame(uint64_t from, uint64_t to) {
  raft::v1::Frame frame;
  frame.mutable_hello()->set_protocol(kPeerProtocol);
  frame.mutable_hello()->set_cluster_id(kCluster);
  frame.mutable_hello()->set_from(from);
  frame.mutable_hello()->set_to(to);
  return frame;
}

}  // namespace holdfast::server::test
