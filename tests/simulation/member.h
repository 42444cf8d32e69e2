// One simulated member: a real driver (raft::SteppedNode) on a simulated machine.
//
// The machine has a clock, a disk and a state machine that outlive the process; Start and Crash
// begin and end a life. The scheduler's work for one member is here: when its parts get to run,
// what holds them back, and the rules about what one member may show.
// Threads: one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "event_queue.h"
#include "replication/freshness_record.h"
#include "replication/stepped_node.h"
#include "sim_clock.h"
#include "sim_disk.h"
#include "sim_machine.h"
#include "witness.h"

namespace holdfast::sim {

class World;

class Member final : private raft::Transport, private raft::FreshnessRecord {
 public:
  Member(World* world, NodeId id, const raft::Membership& bootstrap);
  ~Member() override;

  NodeId id() const { return id_; }
  bool up() const { return node_ != nullptr; }
  bool paused() const { return paused_; }
  // Never comes back: removed and stopped, or its disk is gone.
  bool gone() const { return gone_; }
  bool runs() const { return up() && !paused_ && !gone_; }
  bool leads() const { return up() && node_->core().role() == raft::Role::kLeader; }
  bool slow_ticker() const { return slow_ticker_; }
  uint16_t life() const { return life_; }
  int64_t started_ns() const { return started_ns_; }
  raft::SteppedNode& node() { return *node_; }
  const raft::RaftCore& core() const { return node_->core(); }
  SimDisk& disk() { return disk_; }
  SimMachine& machine() { return machine_; }
  const SimMachine& machine() const { return machine_; }
  SimClock& clock() { return *clock_; }
  // Whom its transport was told to connect to.
  const raft::Membership& known() const { return known_; }

  // --- lives ---
  void Start();
  void Crash(bool power);
  void Stop(bool for_good);
  // The disk is lost for good: whatever is up ends now, and never starts again.
  void Die();
  void MarkLeaving() { leaving_ = true; }
  bool leaving() const { return leaving_; }
  void Pause(bool suspend);
  void Resume();
  // No pause, stall or slow ticker any more; what was drawn for this life no longer counts.
  void Calm();
  void StallDisk(int64_t until_ns) { disk_stalled_until_ns_ = until_ns; }
  void StallApply(int64_t until_ns) { apply_stalled_until_ns_ = until_ns; }
  // A fault was planted in disk or machine: stopping by itself is now the right thing to do.
  void ExpectFatal() { fatal_expected_ = true; }
  // The power goes in the middle of the next write.
  void TearNextWrite();

  // --- events; World sees to life and pause ---
  void Handle(const Event& event);
  void PutOff(const Event& event) { put_off_.push_back(event); }
  void Receive(std::vector<raft::Message> messages);
  // Something was given to the node from outside: its raft thread wakes up.
  void NeedTurn();

  // Rules about change in one node. Also in the middle of a turn, before what it says is judged.
  void Observe();
  // Freshness 1, now, against the true acknowledgements: a view taken now under `claim` is at least
  // as new as it says.
  void CheckClaim(const raft::Claim& claim, Index held);

 private:
  // raft::Transport
  void Send(std::vector<raft::Message> messages) override;
  void SendSnapshot(SnapshotToSend snapshot,
                    absl::AnyInvocable<void(absl::Status) &&> done) override;
  void SetMembership(const raft::Membership& membership) override { known_ = membership; }
  // raft::FreshnessRecord
  absl::Status Write(const raft::Claim& claim) override;
  std::optional<raft::Claim> Read() override;

  raft::NodeOptions DrawOptions();
  void NewClock();
  void EndLife();
  void AfterWork();
  void Turn();
  void ScheduleWake(int64_t at_ns);
  void ScheduleNextTurn();
  void ScheduleWorkers();
  void Work(EventKind kind, bool (raft::SteppedNode::*run)());
  // False if that is to come already.
  bool WorkLater(EventKind kind);
  int64_t WorkDelay(EventKind kind);
  void ObserveTerm();
  Term ObserveReign();
  void ObserveMembership();
  // `reign`: ObserveReign's; 0: none.
  void ObserveCommit(Term reign, const std::vector<storage::EntryRef>& may_be_new);
  void ObserveDurable();
  void ObserveClaim();
  void CheckPublished();
  std::vector<storage::EntryRef> NewEntriesOfReign(Term reign) const;

  World& world_;
  const NodeId id_;
  const raft::Membership bootstrap_;
  std::unique_ptr<SimClock> clock_;
  SimDisk disk_;
  SimMachine machine_;
  std::optional<raft::Claim> record_;
  raft::Membership known_;

  std::unique_ptr<raft::SteppedNode> node_;
  uint16_t life_ = 0;
  bool paused_ = false, suspended_ = false, gone_ = false, leaving_ = false;
  bool failed_ = false;  // on_fatal was called: the process is ending
  bool fatal_expected_ = false;
  bool power_goes_at_write_ = false;
  bool slow_ticker_ = false;
  std::string fatal_text_;
  int64_t started_ns_ = 0;

  // Scheduling.
  static constexpr int64_t kNever = INT64_MAX;
  int64_t wake_at_ns_ = kNever;
  int64_t held_until_ns_ = 0;
  int64_t disk_stalled_until_ns_ = 0;
  int64_t apply_stalled_until_ns_ = 0;
  uint8_t scheduled_ = 0;  // bits of EventKind: workers with an event underway
  std::vector<Event> put_off_;
  uint64_t installs_seen_ = 0;

  // What was last seen, for rules about change.
  Term seen_term_;
  NodeId seen_vote_;
  Index seen_commit_;
  Index seen_applied_;
  raft::Role seen_role_ = raft::Role::kFollower;
  Index seen_last_;  // while leading
  const Witness::Config* seen_config_ = nullptr;
  Index seen_durable_;
  int64_t seen_claim_boot_ns_ = INT64_MIN;
};

}  // namespace holdfast::sim
