// Members in one process: a real PeerTransport and gRPC server each, with a node that only notes
// what it is told.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "holdfast/raft.grpc.pb.h"
#include "replication/raft_node.h"
#include "server/peer_transport.h"

namespace holdfast::server::test {

// Long enough for a loaded machine; reached only when something is broken.
inline constexpr absl::Duration kDeadline = absl::Seconds(30);
inline constexpr uint64_t kCluster = 0xc1;

// From HOLDFAST_TEST_SEED or the system; printed, so that a failure can be replayed.
uint64_t TestSeed();

// For what nobody notifies about, like a directory's contents: asks again and again until true;
// false at kDeadline.
bool Eventually(const std::function<bool()>& condition);

raft::Message Heartbeat(uint64_t from, uint64_t to, uint64_t round);
raft::Message Append(uint64_t from, uint64_t to, uint64_t prev_index, size_t payload_bytes);

class FakeNode : public raft::RaftNode {
 public:
  struct Snapshot {
    NodeId from;
    Term term;
    storage::LogMark mark;
    std::string dir;
    absl::AnyInvocable<void(absl::Status) &&> done;
  };

  // --- what the test asks ---
  bool WaitConnected(uint64_t peer, int times = 1);
  bool WaitLost(uint64_t peer, int times = 1);
  bool WaitReceived(uint64_t peer, size_t messages);
  bool WaitSnapshot();
  int connected(uint64_t peer);
  int lost(uint64_t peer);
  // Of every message from `peer`, in order of arrival.
  std::vector<uint64_t> rounds(uint64_t peer);
  size_t receive_calls();
  size_t most_bytes_at_once();
  Snapshot TakeSnapshot();
  // From here on a call from the transport is a failure.
  void ExpectNoMoreCalls() { closed_ = true; }
  // While true, a snapshot is answered at once with snapshot_answer.
  void AnswerSnapshots(absl::Status answer);
  // The term in which status() says that this member leads: at first the one of the tests'
  // snapshots.
  void LeadIn(uint64_t term) { leading_term_ = term; }
  // What status() says of the log: `removed` are no members any more, as of index `last`.
  void KnowRemoved(const std::vector<uint64_t>& removed, uint64_t last, uint64_t commit);

  // --- what the transport calls ---
  void Receive(std::vector<raft::Message> messages) override;
  void OnPeerConnected(NodeId peer) override;
  void OnPeerLost(NodeId peer) override;
  void OnSnapshotReceived(NodeId from, Term term, const storage::LogMark& mark, std::string dir,
                          absl::AnyInvocable<void(absl::Status) &&> done) override;

  // --- what it never calls ---
  void Propose(std::string, absl::AnyInvocable<void(absl::Status) &&>) override {}
  void ReadIndex(absl::Duration, ReadDone) override {}
  std::optional<raft::Claim> ClaimFor(Index) const override { return claim(); }
  std::optional<raft::Claim> claim() const override { return std::nullopt; }
  void ChangeMembers(raft::MemberChange, absl::Duration, ChangeDone) override {}
  void TransferLeadership(NodeId, absl::Duration, TransferDone) override {}
  std::vector<PeerStatus> peers() const override { return {}; }
  void FreshClaim(absl::Duration, absl::Duration, absl::AnyInvocable<void() &&>) override {}
  raft::NodeStatus status() const override;
  void Stop() override {}

 private:
  struct PerPeer {
    int connected = 0;
    int lost = 0;
    std::vector<uint64_t> rounds;
  };
  void CheckOpen(const char* call);
  // Waits until `condition` holds, which only a call to this node can bring about; evaluated under
  // the lock.
  bool WaitUntil(const std::function<bool()>& condition);

  std::atomic<bool> closed_{false};
  std::atomic<uint64_t> leading_term_{7};
  mutable absl::Mutex mutex_;
  std::map<uint64_t, PerPeer> peers_;
  size_t receive_calls_ = 0;
  size_t most_bytes_at_once_ = 0;
  std::vector<Snapshot> snapshots_;
  std::optional<absl::Status> snapshot_answer_;
  raft::Membership membership_;
  uint64_t last_ = 0;
  uint64_t commit_ = 0;
};

// One member; its server can be stopped and started again on the same port.
class TestMember {
 public:
  explicit TestMember(uint64_t id, std::function<void(PeerTransport::Options*)> adjust = nullptr);
  ~TestMember();

  void Start();
  // Ends transport and server, as when the process ends orderly.
  void Stop();

  uint64_t id() const { return options_.self.value; }
  std::string url() const;
  FakeNode& node() { return *node_; }
  PeerTransport& transport() { return *transport_; }
  const PeerTransport::Options& options() const { return options_; }
  void Know(const std::vector<const TestMember*>& members);
  void KnowUrls(const std::map<uint64_t, std::vector<std::string>>& urls);
  void Send(raft::Message message);
  // A stub of the member's own peer service, for tests that play a peer by hand.
  std::unique_ptr<raft::v1::Peer::Stub> Dial() const;
  std::vector<std::string> SnapshotDirs() const;

 private:
  PeerTransport::Options options_;
  int port_ = 0;
  std::unique_ptr<FakeNode> node_;
  std::unique_ptr<PeerTransport> transport_;
  std::unique_ptr<grpc::Server> server_;
};

// A server in whose place the test answers.
class TestServer {
 public:
  explicit TestServer(grpc::Service* service);
  ~TestServer();
  std::string url() const;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

raft::v1::Frame HelloFrame(uint64_t from, uint64_t to);

}  // namespace holdfast::server::test
