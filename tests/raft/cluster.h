// A whole Raft cluster with clients on one thread, from one seed: the real cores and freshness
// trackers; a network, disks, state machines, clocks and crashes that are simulated honestly.
//
// Time is virtual. A step moves it by up to a few milliseconds and lets every part do a random
// amount of its work: deliver what is due, write some batches, tell the core, apply, take a Ready.
// Witness judges every step. Same seed, same run (Digest() proves it).
// Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/rng.h"
#include "fake_disk.h"
#include "replication/freshness.h"
#include "replication/raft_core.h"
#include "virtual_clock.h"
#include "witness.h"

namespace holdfast::raft::test {

// How one run is to be. Chances are in thousandths: of a step, or of a message where it says so.
struct SimOptions {
  uint64_t seed = 0;
  size_t voters = 3;
  size_t learners = 0;
  size_t steps = 600;
  CoreOptions core;  // id is set for each node
  // Clients.
  uint64_t propose = 300;
  uint64_t read = 150;
  size_t payload_bytes_max = 60;
  // Network, per message.
  uint64_t loss = 0;
  uint64_t duplicate = 0;
  uint64_t slow = 0;  // delayed up to slow_ms_max instead of 2 ms
  int64_t slow_ms_max = 300;
  uint64_t cut = 0;
  uint64_t heal = 15;
  // Processes.
  uint64_t crash = 0;
  uint64_t restart = 25;
  uint64_t pause = 0;
  uint64_t resume = 30;
  // Of a start: that this life's ticker runs four times too slow. A leader of that kind goes on
  // leading, and answering, long after the others have moved on.
  uint64_t slow_ticker = 0;
  // How eagerly each part of a node works, per node and step.
  uint64_t turn = 1000;  // take a Ready
  uint64_t disk = 1000;
  uint64_t apply = 1000;
  uint64_t probe = 100;
  uint64_t fetch = 500;
  uint64_t flush = 30;
  uint64_t compact = 0;
  uint64_t peer_lost = 0;
  uint64_t campaign = 0;
  uint64_t transfer = 0;  // of leadership, planned

  // A swarm: most kinds of trouble are off in a given run, and the others are strong.
  static SimOptions FromSeed(uint64_t seed);
  std::string ToString() const;
};

// What happened, so that a run that tested nothing shows.
struct Figures {
  uint64_t runs = 0, steps = 0, elections = 0, commits = 0, proposed = 0, refused = 0;
  uint64_t reads_granted = 0, reads_dropped = 0, follower_reads = 0;
  uint64_t claims = 0, claims_checked = 0, claims_restored = 0, leader_claims = 0;
  uint64_t crashes = 0, snapshots_sent = 0, snapshots_installed = 0, half_installed = 0;
  uint64_t compactions = 0, fetches = 0, truncations = 0, commit_hints = 0;
  uint64_t transfers = 0;
  uint64_t messages = 0, lost = 0, duplicated = 0, cuts = 0, pauses = 0;
  uint64_t recovery_ticks_max = 0;
  void Add(const Figures& other);
  std::string ToString() const;
};

class Cluster {
 public:
  explicit Cluster(const SimOptions& options);

  // The safety phase: `options.steps` steps under faults. False once a rule is broken.
  bool RunSteps();
  // The liveness phase: everything heals; a leader must be elected and a new proposal be applied
  // by every member, every read be answered, and every member's age be known and small, within
  // kRecoveryTicks and a little for each entry of backlog.
  bool Recover();

  const std::string& failure() const { return witness_.failure(); }
  const Figures& figures() const { return figures_; }
  // Of the whole run; equal seeds must give equal digests.
  uint64_t Digest();

  static constexpr int64_t kTickNs = 10'000'000;
  static constexpr uint64_t kRecoveryTicks = 200;  // twenty election timeouts

 private:
  struct DiskJob {
    AppendBatch batch;  // or, if empty():
    std::optional<storage::LogMark> compact;
  };
  struct ApplyJob {
    std::vector<EntryRef> entries;  // or, if empty, install:
    uint64_t install_seq = 0;       // the batch that waits for it
    std::string dir;
  };
  struct Snapshot {
    storage::LogMark mark;
    AppliedState state;
  };
  struct FetchJob {
    uint64_t id = 0;
    std::vector<EntryRef> entries;
  };
  struct Node {
    NodeId id;
    bool up = false;
    bool paused = false;
    bool crash_soon = false;
    uint64_t next_id = 0;  // of reads and proposals
    int64_t paused_at_ns = 0;
    int64_t next_tick_ns = 0;
    int64_t tick_ns = kTickNs;
    std::unique_ptr<RaftCore> core;
    std::unique_ptr<FreshnessTracker> tracker;
    std::unique_ptr<VirtualClock> clock;
    std::vector<Message> inbox;  // arrived while paused

    std::unique_ptr<FakeDisk> disk;
    std::deque<DiskJob> disk_queue;
    std::deque<AppendBatch> written;  // durable, the core not yet told
    AppliedState machine;
    AppliedState flushed;  // what of it survives a crash
    std::deque<ApplyJob> apply_queue;
    Index handed_to_apply;
    uint64_t installed_seq = 0;
    std::deque<FetchJob> fetches;
    std::optional<Claim> record;  // Freshness F4

    // What was last seen, for rules about change.
    Term seen_term;
    NodeId seen_vote;
    Index seen_commit;
    Index seen_applied;
    Role seen_role = Role::kFollower;
    Index seen_last;
    Term ready_term;  // as of the last Ready
    Role ready_role = Role::kFollower;
    std::optional<Claim> seen_claim;
    uint64_t last_seq = 0;
  };
  struct OpenRead {
    NodeId node;
    Index acked_at_start;
  };
  struct SnapshotInFlight {
    NodeId from, to;
    Term term;
    std::string dir;
    int64_t arrives_ns;
    bool lost;
  };

  // Faults and clients (cluster_world.cc).
  void InjectFaults();
  void CutLinks();
  NodeId SomeLeader();
  void Crash(Node& node);
  void Start(Node& node);
  void FinishHalfInstall(Node& node);
  void Pause(Node& node);
  void Resume(Node& node);
  void Clients();
  std::string NewPayload();
  void Propose(Node& node, const std::vector<std::string>& payloads);
  void Read(Node& node);
  bool Recovered(const std::string& payload) const;
  void HealEverything();
  uint64_t RecoveryTicks() const;

  // The work of a step.
  void Step();
  void Work(Node& node);
  void TickIfDue(Node& node);
  void Deliver();
  void DeliverSnapshots();
  void StepCore(Node& node, Message message);
  void Probe(Node& node);
  void RunDisk(Node& node, bool crashing);
  void TellDurable(Node& node);
  void RunApply(Node& node);
  void RunFetches(Node& node);
  void FlushAndCompact(Node& node);
  void TakeReady(Node& node);
  void HandleReady(Node& node, Ready ready, const base::ClockSample& sample);
  void SendSnapshot(Node& node, NodeId to);
  void Send(Node& node, Message message);

  // Rules about one node (witness_ has those about the cluster).
  void Observe(Node& node);
  void ObserveCommit(Node& node);
  void CheckReady(Node& node, const Ready& ready);
  void CheckMayLeave(const Node& node, const Message& message);
  void CheckClaim(Node& node);
  void CheckClaimCovers(Node& node, const Claim& claim, Index held);

  Node& At(NodeId id) { return nodes_.at(id); }
  bool Chance(uint64_t thousandths) { return rng_.Below(1000) < thousandths; }
  int64_t Instant() { return ++now_ns_; }  // no two events share one
  base::ClockSample Sample(Node& node) { return node.clock->Sample(Instant()); }
  Node* RandomUp();
  void Trace(const Node& node, const std::string& what);

  SimOptions options_;  // as asked; HealEverything calms it
  const Membership membership_;
  base::Rng rng_;
  int64_t now_ns_ = 1'000'000'000;
  bool faults_ = true;
  bool trace_ = false;
  std::map<NodeId, Node> nodes_;
  std::map<std::pair<NodeId, NodeId>, bool> cut_;
  std::multimap<int64_t, Message> network_;
  std::map<std::string, Snapshot> snapshots_;
  std::vector<SnapshotInFlight> snapshots_in_flight_;
  std::vector<std::pair<int64_t, std::pair<SnapshotInFlight, bool>>> snapshot_results_;
  std::map<uint64_t, OpenRead> reads_;
  std::map<uint64_t, std::string> proposals_;  // forwarded: refused later, or unknown
  uint64_t next_snapshot_ = 1;
  uint64_t next_payload_ = 1;
  Witness::Disks disks_;
  Witness witness_;
  Figures figures_;
};

// Printed by the handler of SIGABRT: a failed CHECK in the core names its seed too.
void NameSeedOnAbort(uint64_t seed);

}  // namespace holdfast::raft::test
