// Raft as a function: same state + same input = same output. No I/O, thread, clock, global or
// hidden randomness; a seeded Rng is injected. (Raft paper; thesis 3, 4, 6.4, 9.6, 10.2.1.)
//
// Use: give inputs in any number, then take ONE Ready and carry it out; repeat. Sending is decided
// when the Ready is taken, so that a turn with a thousand proposals makes one message a peer.
//
// Contract (docs/architecture.md section 2; one scenario test each):
//   C1 What may leave only after the disk has it (append replies, vote replies, vote requests)
//      sits in Ready::append.after_durable: the order of effects lives in the types.
//   C2 The leader's own disk write runs beside replication; it counts itself only once durable.
//   C3 Batches are numbered; OnDurable is cumulative and in order; what was overwritten since
//      never counts.
//   C4 Apply sees an entry only when it is committed and locally durable.
//   C5 Only entries of the leader's own term commit by counting (thesis 3.6.2).
//   C6 Reads: ReadIndex over shared, numbered rounds; followers ask the leader.
//   C7 A snapshot is installed before its batch is written (see AppendBatch::snapshot).
//   C8 Membership is derived from the log, never cached as a second truth.
//
// Threads: one. Ownership: entries are shared and immutable.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/ids.h"
#include "base/rng.h"
#include "replication/core_log.h"
#include "replication/membership.h"
#include "replication/messages.h"
#include "replication/progress.h"
#include "storage/log_store.h"

namespace holdfast::raft {

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };
std::string_view RoleName(Role role);

struct CoreOptions {
  NodeId id;
  // In ticks. A follower waits [election_ticks, election_ticks + election_spread_ticks) for its
  // leader. The spread may be small: pre-vote settles most collisions, and an election that is lost
  // is tried again soon (RetryTimeout), so that a silent leader costs little more than one timeout.
  uint32_t heartbeat_ticks = 10;
  uint32_t election_ticks = 100;
  uint32_t election_spread_ticks = 0;  // 0: a quarter of election_ticks
  // Limits, all with one reason: no queue or buffer of the core can grow without bound.
  size_t max_append_bytes = size_t{1} << 20;        // of entries in one message
  size_t max_inflight_messages = 256;               // append messages unanswered, a peer
  size_t max_inflight_bytes = size_t{32} << 20;     // append bytes unanswered, a peer
  size_t max_uncommitted_bytes = size_t{64} << 20;  // beyond it Propose answers kFull
  size_t max_apply_bytes = size_t{8} << 20;         // handed out and not yet OnApplied
  size_t max_unapplied_bytes = size_t{128} << 20;   // cached for apply; the rest is fetched back
  uint64_t max_unapplied_entries = 200000;          // committed or not: beyond it kFull
  size_t cached_entry_bytes = size_t{16} << 20;     // applied entries kept for slow peers
  size_t max_pending_reads = 65536;                 // beyond it followers' questions are dropped
  size_t max_pending_probes = 1024;
  absl::Status Validate() const;
};

// What the disk is asked to do, in `seq` order. May be empty but for after_durable: then it only
// waits for the batches before it.
struct AppendBatch {
  uint64_t seq = 0;
  storage::LogBatch log;
  // C7: if log.reset is set, the state machine must have installed the snapshot in this directory
  // before the batch is written.
  std::string snapshot_dir;
  // To send once this batch and all before it are durable. Those addressed to ourselves go back
  // into Step.
  std::vector<Message> after_durable;
  bool empty() const { return seq == 0; }
};

struct ReadGrant {
  uint64_t read_id = 0;
  Index index;  // answer once applied >= index
};

// Asks the driver for entries the core no longer caches. Answer with OnFetched(id, ...).
struct FetchRequest {
  uint64_t id = 0;
  Index first;
  Index last;
  size_t max_bytes = 0;
};

// Freshness L4. The driver samples its clock before it takes the Ready: that sample belongs to
// every round in `rounds_started`.
struct RoundConfirmed {
  uint64_t round = 0;
  Index index;  // the commit index when the round was sent
};

struct Ready {
  std::vector<Message> messages;  // send now
  AppendBatch append;
  std::vector<EntryRef> apply;  // contiguous, after everything handed out before
  std::vector<ReadGrant> reads;
  std::vector<uint64_t> reads_dropped;      // ask again: the leader changed
  std::vector<uint64_t> proposals_refused;  // propose ids: certainly not appended anywhere
  std::vector<Message> confirms;            // Freshness F2, for this member
  std::vector<FetchRequest> fetches;
  std::vector<NodeId> snapshots_wanted;  // peers that need one; answer with OnSnapshotSent
  std::optional<uint64_t> round_started;
  std::optional<RoundConfirmed> round_confirmed;  // only with L1's gate held at sending
  bool membership_changed = false;
  // Not empty: this member's disk lacks what it once acknowledged. It must stop.
  std::string damage;
};

enum class ProposeOutcome {
  kAppended,   // in our log at the indexes from `first` on
  kForwarded,  // sent to the leader; unknown from now on, unless proposals_refused names it
  kNoLeader,   // certainly not proposed; also while leadership is being handed over
  kFull,       // certainly not proposed: max_uncommitted_bytes
};

class RaftCore {
 public:
  // What a member remembers. `applied` is the state machine's; log.mark.index <= applied <= last.
  struct Recovered {
    storage::HardState hard_state;
    storage::LogMark mark;
    Index last;
    std::vector<storage::TermRun> term_runs;
    std::vector<EntryRef> config_entries;
    Index applied;
  };
  // REQUIRES: options.Validate().ok(); the mark's membership decodes.
  RaftCore(const CoreOptions& options, const Recovered& recovered, uint64_t seed);

  // --- inputs ---
  void Tick();
  void Step(Message message);
  ProposeOutcome Propose(uint64_t propose_id, std::vector<std::string> payloads);
  // The same at the leader, without an id: nobody has to be told. Payloads are moved from if they
  // were appended, and untouched otherwise. REQUIRES: role() == kLeader.
  ProposeOutcome ProposeAsLeader(absl::Span<std::string> payloads);
  // The answer is a ReadGrant or reads_dropped under the same id. Ids must rise, and must not be
  // those of a former life of this member: start them at random.
  void StartRead(uint64_t read_id);
  // Appends the first step towards `target` (thesis 4.3); the leader goes on by itself until the
  // joint configuration is left, and so does its successor. Returns the index of the first step:
  // the change is done when that entry is committed and membership_settled().
  // Unavailable: not the leader, no entry of its own term committed yet (thesis 4.1's correction),
  // or leadership is being handed over. FailedPrecondition: another change is under way.
  // REQUIRES: !target.joint() and target has voters.
  absl::StatusOr<Index> ProposeMembers(const Membership& target);
  // The membership in force is committed and not joint.
  bool membership_settled() const;
  // Everybody whom a configuration names, from the newest committed one on: with all of them there
  // is still something to say (a change under way needs its old members, and may be undone).
  // Those that the newest does not name come as learners; `removed` is as of the committed one.
  Membership Reachable() const;
  // Leader: `learner` has what it takes to vote: it caught up with the log in less than an election
  // timeout, lately (thesis 4.2.1's rounds).
  bool KeepsUp(NodeId learner) const;
  // Thesis 3.10. From here on nothing is proposed until `to` leads or an election timeout is over.
  // Ok also if `to` leads already or is just being asked. Unavailable: not the leader, or `to` is
  // not heard from. NotFound: `to` is no voter. FailedPrecondition: another hand-over is under way.
  absl::Status TransferLeadership(NodeId to);
  // Whom leadership is being handed to; 0: nobody.
  NodeId transferring_to() const { return transfer_to_; }
  void OnDurable(uint64_t seq);
  void OnApplied(Index index);
  // `entries` empty: not to be had (compacted away).
  void OnFetched(uint64_t fetch_id, std::vector<EntryRef> entries);
  // The connection to `peer` broke (a hint, never a proof).
  void OnPeerUnreachable(NodeId peer);
  // A snapshot at `index` reached the peer (or failed).
  void OnSnapshotSent(NodeId peer, Index index, bool ok);
  // Starts an election now, as if the timer had run out (for tests and single-member clusters).
  void Campaign();
  // Log truncation behind a mark. REQUIRES: index <= applied(). Returns the mark to write.
  storage::LogMark CompactTo(Index index);
  // The membership in force at `index`. REQUIRES: index >= the mark.
  const Membership& MembershipAt(Index index) const;

  // --- output ---
  bool HasReady() const;
  Ready TakeReady();

  // --- state, for status and tests ---
  const CoreOptions& options() const { return options_; }
  NodeId id() const { return options_.id; }
  Role role() const { return role_; }
  Term term() const { return hard_state_.term; }
  NodeId vote() const { return hard_state_.vote; }
  NodeId leader() const { return leader_; }
  Index commit() const { return commit_; }
  Index applied() const { return applied_; }
  Index durable() const { return log_.durable(); }
  const CoreLog& log() const { return log_; }
  const Membership& membership() const { return membership_; }
  const std::map<NodeId, Progress>& progress() const { return progress_; }
  bool own_term_committed() const;

  // Whole-state invariants; CHECKs. Run after every step in the simulator.
  void CheckInvariants() const;

 private:
  struct PendingRead {
    NodeId from;  // ourselves or the follower that asked
    uint64_t id = 0;
  };
  struct PendingProbe {
    NodeId from;
    uint64_t nonce = 0;
    uint64_t boot = 0;
    bool urgent = false;
  };
  // Freshness L2: rounds are named (term, n); this is round n of the present term.
  struct Round {
    uint64_t n = 0;
    Index commit_at_send;
    bool gate_held = false;  // L1
    bool on_demand = false;  // a read or an urgent probe waits for it
    std::vector<PendingRead> reads;
    std::vector<PendingProbe> probes;
  };

  // Roles.
  void BecomeFollower(Term term, NodeId leader);
  void BecomePreCandidate();
  // `forced`: by the leader's wish, so that stickiness does not count (thesis 4.2.3).
  void BecomeCandidate(bool forced = false);
  void BecomeLeader();
  void ResetForTerm(Term term);
  void ResetElectionTimer();
  void DropReads();
  void StartElection();
  bool Promotable() const;

  // Messages, by role.
  bool StepTerm(const Message& m);
  bool IgnoreVoteByStickiness(const Message& m) const;
  void StepVoteRequest(const Message& m);
  void StepVoteReply(const Message& m);
  void StepAppend(Message m);
  void StepHeartbeat(const Message& m);
  void StepSnapshot(const Message& m);
  void StepAppendReply(const Message& m);
  void StepHeartbeatReply(const Message& m);
  void StepReadIndex(const Message& m);
  void StepPropose(Message m);
  void RefuseProposal(const Message& m);
  void StepReadIndexReply(const Message& m);
  void StepProbe(const Message& m);
  void StepTimeoutNow(const Message& m);
  void HearLeader(const Message& m);

  // Leader.
  void TickLeader();
  bool QuorumActive() const;
  void AppendAsLeader(std::vector<EntryRef> entries);
  void MaybeCommit();
  void StartRound();
  bool RoundDue() const;
  static bool AnyUrgent(const std::vector<PendingProbe>& probes);
  void ConfirmRounds();
  void SendAppends(NodeId peer, Progress& progress);
  bool SendOneAppend(NodeId peer, Progress& progress);
  void SendFetched(NodeId peer, std::vector<EntryRef> entries);
  void EmitAppend(NodeId peer, Progress& progress, std::vector<EntryRef> entries);
  void WantSnapshot(NodeId peer, Progress& progress);
  void SpreadCommit();
  void CheckForLostAppends();
  void GrantRead(const PendingRead& read, Index index);

  // Leader: membership and hand-over (raft_core_members.cc).
  void AppendMembership(const Membership& next);
  void AdvanceMembership();
  void TickLearners();
  void PromoteLearners();
  void StepDownAsRemoved();
  void TickTransfer();
  void MaybeSendTimeoutNow();

  // Output.
  Message Make(MessageType type, NodeId to) const;
  void Send(Message m) { ready_.messages.push_back(std::move(m)); }
  void SendAfterDurable(Message m) { after_durable_.push_back(std::move(m)); }
  void BuildAppendBatch();
  void BuildApply();
  void AdvanceCommit(Index index);
  void AppendToLog(std::vector<EntryRef> entries);
  void DeriveMembership();
  std::vector<EntryRef> NextToApply(Index limit, size_t max_bytes);
  void SyncProgressWithMembership();
  uint32_t RandomElectionTimeout();
  uint32_t RetryTimeout();
  Index newest_config() const;

  const CoreOptions options_;
  base::Rng rng_;

  storage::HardState hard_state_;        // term and vote now; commit is filled when written
  storage::HardState hard_state_given_;  // last handed to the disk
  CoreLog log_;
  // Membership in force and where it stands: 0 = the mark's. Newest config entry appended counts.
  Membership membership_;
  Membership mark_membership_;
  std::map<Index, Membership> config_entries_;

  Role role_ = Role::kFollower;
  NodeId leader_;
  // Invariant: applied_ <= applying_ <= commit_ <= log_.last(). commit_ never falls.
  Index commit_;
  Index applying_;  // handed out in Ready::apply
  Index applied_;
  size_t applying_bytes_ = 0;
  std::deque<std::pair<Index, size_t>> apply_sizes_;  // of batches handed out
  bool apply_fetch_pending_ = false;
  std::vector<EntryRef> fetched_apply_;

  uint32_t election_elapsed_ = 0;  // ticks since we heard a leader, or granted a vote
  uint32_t randomized_timeout_ = 0;
  uint32_t election_attempts_ = 0;  // since we heard a leader or gave our vote away
  uint32_t heartbeat_elapsed_ = 0;
  uint32_t quorum_check_elapsed_ = 0;
  uint32_t disk_stall_elapsed_ = 0;  // ticks with a batch in flight and none finished
  std::map<NodeId, bool> votes_;

  // Leader only.
  std::map<NodeId, Progress> progress_;  // everybody but ourselves
  Index term_start_;                     // our first entry of this term
  size_t uncommitted_bytes_ = 0;
  std::deque<std::pair<Index, size_t>> uncommitted_sizes_;
  uint64_t round_ = 0;
  std::deque<Round> rounds_;  // sent, not yet confirmed by a quorum
  std::vector<PendingRead> pending_reads_;
  std::vector<PendingProbe> pending_probes_;
  bool heartbeat_due_ = false;
  bool commit_to_spread_ = false;
  NodeId transfer_to_;
  uint32_t transfer_elapsed_ = 0;
  bool sends_due_ = false;  // a peer's progress changed: look whether it can be sent more

  // Follower: read ids forwarded to leader_ and not yet answered.
  std::vector<uint64_t> forwarded_reads_;

  uint64_t next_seq_ = 1;
  std::vector<Message> after_durable_;
  std::optional<storage::LogMark> reset_;
  std::string snapshot_dir_;
  bool commit_hint_due_ = false;
  uint64_t next_fetch_id_ = 1;
  std::map<uint64_t, NodeId> fetches_;  // id -> peer, or none: for apply

  Ready ready_;
};

}  // namespace holdfast::raft
