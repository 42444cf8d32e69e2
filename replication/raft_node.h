// The driver: gives the pure core its threads, disk, clock and network.
//
//   callers, transport, ticker --> [raft thread] drains all, steps, takes one Ready
//                                    | messages -> Transport (one call a turn)
//                                    | append   -> [log thread] one write, one fdatasync
//                                    |              -> after_durable, OnDurable
//                                    | apply    -> [apply thread] one Apply call -> waiters
//   a fetch thread reads old entries for slow members.
// A lone input: while the raft thread sleeps, its inbox is empty and at most one entry is not
// committed, whoever brings a small input (caller, transport, log or apply thread) takes the turn
// itself on the raft thread's place, and so saves the wake of a thread. One turn at a time, whoever
// has it; "raft thread" below means that place, except for ticks and snapshots, which stay with the
// thread itself. So callbacks may run within the call that brought the input: hold no lock that
// they take.
// Three owner threads, no lock in the core, natural batching: whoever is free takes everything.
// Why no queue can grow: proposals are refused at `max_queued_bytes` (inbox) and at the core's
// max_uncommitted_bytes; the log and apply queues only hold what the core handed out, which its
// own limits bound; messages from peers are refused (dropped, as a network may) at the same bound.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "replication/freshness.h"
#include "replication/freshness_record.h"
#include "replication/member_change.h"
#include "replication/raft_core.h"
#include "storage/log_store.h"

namespace holdfast::raft {

// How members reach each other. Implemented over gRPC in server/, over nothing in tests.
class Transport {
 public:
  virtual ~Transport() = default;
  // Raft and log thread. Takes a turn's messages; never blocks; may drop or reorder (Raft allows
  // it), but must never deliver a message twice: a forwarded proposal would be appended twice.
  virtual void Send(std::vector<Message> messages) = 0;
  // Raft thread. Copies the checkpoint directory to the peer in the background, with checksums
  // and a deadline; then calls `done` on any thread. The directory is removed by the caller.
  struct SnapshotToSend {
    NodeId to;
    Term term;
    storage::LogMark mark;
    std::string dir;
  };
  virtual void SendSnapshot(SnapshotToSend snapshot,
                            absl::AnyInvocable<void(absl::Status) &&> done) = 0;
  // Raft thread, at start and whenever membership changes: whom to talk to (RaftCore::Reachable:
  // also those that a change not yet committed leaves out, as learners). `removed` is as of the
  // newest committed membership: those, and none other, may be told that they are out.
  virtual void SetMembership(const Membership& membership) = 0;
};

// What applies committed entries. Implemented in server/state_machine.
class StateMachine {
 public:
  virtual ~StateMachine() = default;
  // Apply thread. Contiguous from applied() + 1 (empty and config entries included). One atomic
  // step; when it returns, reads see it. An error is final: the node stops.
  virtual absl::Status Apply(absl::Span<const EntryRef> entries) = 0;
  // Any thread: of the last Apply.
  virtual Index applied() const = 0;
  // Background thread, beside Apply. Makes everything applied so far survive a power cut; returns
  // up to where. The driver then compacts the log.
  virtual absl::StatusOr<Index> Flush() = 0;
  // Background thread, beside Apply. A checkpoint into a new directory below `parent`.
  struct Checkpoint {
    std::string dir;
    Index index;
    Term term;
  };
  virtual absl::StatusOr<Checkpoint> TakeCheckpoint() = 0;
  // Apply thread, with nothing being applied. Replaces the whole state by the checkpoint in `dir`
  // in one atomic step (the directory is consumed); applied() is mark.index after it.
  virtual absl::Status InstallCheckpoint(const std::string& dir, const storage::LogMark& mark) = 0;
  // The mark given to the newest InstallCheckpoint, kept with the data; nullopt if there was none.
  // After a crash between install and log reset (contract C7) the driver finishes from this.
  virtual std::optional<storage::LogMark> installed_mark() const = 0;
};

struct NodeOptions {
  CoreOptions core;  // ticks are of `tick`
  absl::Duration tick = absl::Milliseconds(10);
  uint64_t seed = 0;
  uint64_t boot = 0;  // random per process start (Freshness F1)
  base::Clock* clock = base::RealClock::Get();
  size_t max_queued_bytes = size_t{64} << 20;
  // Flush the state machine and cut the log once it holds this many entries, or bytes, more than
  // what is flushed; keep `catch_up_entries` behind for slow members.
  uint64_t snapshot_count = 100000;
  uint64_t snapshot_log_bytes = uint64_t{256} << 20;
  uint64_t catch_up_entries = 5000;
  // How long proposals wait for a leader before they fail as kNoLeader; in election timeouts.
  double leaderless_grace = 2.0;
  // A read or probe unanswered for this long is asked again.
  absl::Duration ask_again = absl::Milliseconds(500);
  // Keeps Freshness F4's record; not owned, null: none is kept.
  FreshnessRecord* freshness_record = nullptr;
  // Called on a broken promise of the disk (failed fsync, failed apply): logs and stops the process
  // by default.
  std::function<void(const absl::Status&)> on_fatal;
};

// A copy of what the node knows of itself; consistent, at most one turn old.
struct NodeStatus {
  Role role = Role::kFollower;
  NodeId id;
  NodeId leader;
  Term term;
  Index commit;
  Index applied;
  Index last;
  bool is_learner = false;
  // How long this member has known no leader; zero while it knows one.
  absl::Duration leaderless = absl::ZeroDuration();
  std::shared_ptr<const Membership> membership;  // never null
  bool membership_settled = false;               // committed, and not joint
};

class RaftNode {
 public:
  // Starts the threads. `bootstrap` is the first membership, used only when the log is empty and
  // without a mark. The log store, state machine and transport must outlive the node.
  // DataLoss: log and state machine do not fit each other.
  static absl::StatusOr<std::unique_ptr<RaftNode>> Start(NodeOptions options,
                                                         const Membership& bootstrap,
                                                         storage::LogStore* log,
                                                         StateMachine* machine,
                                                         Transport* transport);
  virtual ~RaftNode() = default;

  // Any thread, never blocks. The payload goes into one log entry. `refused` is called (on the raft
  // thread, or at once) only if it was certainly NOT proposed: Unavailable (no leader, stopping) or
  // ResourceExhausted. Otherwise success shows when the state machine applies it, or never: the
  // caller keeps its own deadline, after which the outcome is unknown.
  virtual void Propose(std::string payload, absl::AnyInvocable<void(absl::Status) &&> refused) = 0;

  // As Propose for each payload, in their order, at the price of one hand-over: one input of the
  // raft thread, whole or not at all, and at the leader each payload moves into its entry.
  // `refused` is called for each slot that was certainly not proposed, at most once a slot, never
  // for two at a time; the others may have been proposed (a part of a batch can find the log full).
  using RefusedMany = absl::AnyInvocable<void(size_t slot, const absl::Status&)>;
  virtual void ProposeMany(std::vector<std::string> payloads, RefusedMany refused) {
    const auto shared = std::make_shared<RefusedMany>(std::move(refused));
    for (size_t slot = 0; slot < payloads.size(); ++slot) {
      Propose(std::move(payloads[slot]),
              [shared, slot](absl::Status status) { (*shared)(slot, status); });
    }
  }

  // Any thread, never blocks. Calls `done` exactly once, in a turn (or at once, with
  // Unavailable or ResourceExhausted, if the node is stopping or overloaded), with an index that is
  // already applied: a read after it is linearizable with respect to the instant of this call.
  // Unavailable: no leader within leaderless_grace; DeadlineExceeded after `timeout`.
  using ReadDone = absl::AnyInvocable<void(absl::StatusOr<Index>) &&>;
  virtual void ReadIndex(absl::Duration timeout, ReadDone done) = 0;

  // Any thread. The best claim now; nullopt: age unknown. A view of the state taken AFTER this call
  // may be given the claim's age.
  virtual std::optional<Claim> claim() const = 0;
  // Freshness F3. Any thread. The newest claim that holds for whoever has seen everything up to
  // `delivered`, and maybe nothing behind it; nullopt: none that young is kept.
  virtual std::optional<Claim> ClaimFor(Index delivered) const = 0;
  // Any thread. Calls `done` exactly once, as soon as the claim is no older than `max_age`, or when
  // that can not be had: no leader known, or `timeout` over. Then claim() tells what there is.
  virtual void FreshClaim(absl::Duration max_age, absl::Duration timeout,
                          absl::AnyInvocable<void() &&> done) = 0;

  // Any thread, never blocks. Changes the membership, one change at a time. `done` is called
  // exactly once, in a turn (or at once), with the membership in force when the change was
  // complete: committed, and no longer joint. For kAdd and kReplace that is the learner's arrival;
  // its promotion follows by itself. TargetOf's errors, and:
  //   FailedPrecondition  also: this member does not lead; another change is under way; kPromote of
  //                       a learner that does not keep up; kRemove or kDemote that would leave most
  //                       voters silent. Certainly not done.
  //   Unavailable         certainly not done: stopping, or the leader is too new; try again
  //   ResourceExhausted   certainly not done
  //   DeadlineExceeded    the outcome is unknown: list the members
  // The text of each status tells which (kNotLeaderText, kChangePendingText, kNotReadyText and
  // kUnhealthyText begin the texts that callers tell apart).
  static constexpr std::string_view kNotLeaderText = "this member does not lead";
  static constexpr std::string_view kChangePendingText = "another membership change is under way";
  static constexpr std::string_view kNotReadyText = "the learner does not keep up yet";
  static constexpr std::string_view kUnhealthyText = "the cluster would be left without a quorum";
  using ChangeDone = absl::AnyInvocable<void(absl::StatusOr<Membership>) &&>;
  virtual void ChangeMembers(MemberChange change, absl::Duration timeout, ChangeDone done) = 0;

  // Any thread, never blocks. Leadership goes to `to`, planned: everything committed first, no
  // election timeout waited for. `done` is called exactly once: ok when this member follows `to`.
  // FailedPrecondition: this member does not lead. NotFound: `to` is no voter. Unavailable: `to` is
  // not heard from. DeadlineExceeded: it did not take over within an election timeout (or
  // `timeout`); this member may go on leading.
  // `to` == 0: whichever voter is up to date.
  using TransferDone = absl::AnyInvocable<void(absl::Status) &&>;
  virtual void TransferLeadership(NodeId to, absl::Duration timeout, TransferDone done) = 0;

  // Any thread. What the leader knows of the others; empty elsewhere. At most one turn old.
  struct PeerStatus {
    NodeId id;
    Index match;
    ProgressState state = ProgressState::kProbe;
    bool active = false;    // answered within the last election timeout
    bool keeps_up = false;  // of a learner: could be promoted
  };
  virtual std::vector<PeerStatus> peers() const = 0;

  // From the transport, any thread; never block.
  virtual void Receive(std::vector<Message> messages) = 0;
  virtual void OnPeerConnected(NodeId peer) = 0;
  virtual void OnPeerLost(NodeId peer) = 0;
  // A whole, checked snapshot lies in `dir` on our disk. The node owns the directory from here.
  // `done` when installed (or found unneeded).
  virtual void OnSnapshotReceived(NodeId from, Term term, const storage::LogMark& mark,
                                  std::string dir,
                                  absl::AnyInvocable<void(absl::Status) &&> done) = 0;

  virtual NodeStatus status() const = 0;

  // Flushes the state machine, stops the threads, refuses everything still waiting (Unavailable).
  // Idempotent.
  virtual void Stop() = 0;
};

}  // namespace holdfast::raft
