// A member for the services that tell about members and change them: a node, a state machine, a
// store and a pipeline that say and do what the test wants.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "replication/raft_node.h"
#include "server/etcd_errors.h"
#include "server/request_pipeline.h"
#include "server/state_machine.h"

namespace holdfast::server {

inline constexpr NodeId kSelf(0xa);
inline constexpr NodeId kOther(0xb);

class FakeNode : public raft::RaftNode {
 public:
  void Propose(std::string, absl::AnyInvocable<void(absl::Status) &&>) override {}
  void ReadIndex(absl::Duration, ReadDone done) override { std::move(done)(read_answer_); }
  std::optional<raft::Claim> ClaimFor(Index) const override { return claim(); }
  std::optional<raft::Claim> claim() const override { return claim_; }
  void FreshClaim(absl::Duration, absl::Duration, absl::AnyInvocable<void() &&>) override {}
  void Receive(std::vector<raft::Message>) override {}
  void OnPeerConnected(NodeId) override {}
  void OnPeerLost(NodeId) override {}
  // The next of `change_errors_`; or the change is made, as raft::TargetOf says.
  void ChangeMembers(raft::MemberChange change, absl::Duration, ChangeDone done) override {
    absl::StatusOr<raft::Membership> answer;
    {
      std::lock_guard lock(mutex_);
      changes_.push_back(change);
      changed_.notify_all();
      if (hold_changes_) {
        held_.push_back(std::move(done));
        return;
      }
      if (!change_errors_.empty()) {
        answer = change_errors_.front();
        change_errors_.pop_front();
      } else {
        answer = raft::TargetOf(*status_.membership, change);
        if (answer.ok()) status_.membership = std::make_shared<raft::Membership>(*answer);
      }
    }
    std::move(done)(std::move(answer));
  }
  void TransferLeadership(NodeId to, absl::Duration, TransferDone done) override {
    transferred_to_ = to;
    std::move(done)(transfer_status_);
  }
  std::vector<PeerStatus> peers() const override {
    std::lock_guard lock(mutex_);
    return peers_;
  }
  void OnSnapshotReceived(NodeId, Term, const storage::LogMark&, std::string,
                          absl::AnyInvocable<void(absl::Status) &&>) override {}
  raft::NodeStatus status() const override {
    std::lock_guard lock(mutex_);
    return status_;
  }
  void Stop() override {}

  void set_status(const raft::NodeStatus& status) {
    std::lock_guard lock(mutex_);
    status_ = status;
  }
  void set_active(const std::vector<NodeId>& active) {
    std::lock_guard lock(mutex_);
    peers_.clear();
    for (const NodeId id : active) {
      PeerStatus peer;
      peer.id = id;
      peer.active = true;
      peers_.push_back(peer);
    }
  }
  void set_change_errors(std::deque<absl::Status> errors) {
    std::lock_guard lock(mutex_);
    change_errors_ = std::move(errors);
  }
  void HoldChanges() {
    std::lock_guard lock(mutex_);
    hold_changes_ = true;
  }
  std::vector<raft::MemberChange> changes() const {
    std::lock_guard lock(mutex_);
    return changes_;
  }
  void WaitForChanges(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return changes_.size() >= count; });
  }

  // Set before the calls.
  std::optional<raft::Claim> claim_;
  absl::StatusOr<Index> read_answer_ = Index(41);
  absl::Status transfer_status_;
  NodeId transferred_to_;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  raft::NodeStatus status_;
  std::vector<PeerStatus> peers_;
  std::deque<absl::Status> change_errors_;
  std::vector<raft::MemberChange> changes_;
  bool hold_changes_ = false;
  std::vector<ChangeDone> held_;  // never answered
};

// Empty.
class FakeView : public storage::MvccStore::View {
 public:
  const storage::AppliedState& applied() const override { return applied_; }
  absl::Status Range(const storage::RangeOptions&, storage::RangeResult*) const override {
    return absl::OkStatus();
  }
  absl::StatusOr<std::optional<storage::KeyValue>> Get(std::string_view) const override {
    return std::optional<storage::KeyValue>();
  }
  absl::StatusOr<std::optional<std::string>> GetMeta(std::string_view) const override {
    return std::optional<std::string>();
  }
  absl::Status ScanMeta(std::string_view, std::string_view,
                        const storage::MvccStore::MetaVisitor&) const override {
    return absl::OkStatus();
  }
  absl::Status ScanRecords(
      std::string_view, const std::function<bool(const storage::KeyValueView&)>&) const override {
    return absl::OkStatus();
  }
  absl::Status ScanRecordsAt(
      int64_t, std::string_view,
      const std::function<bool(const storage::KeyValueView&)>&) const override {
    return absl::OkStatus();
  }
  absl::Status ScanHistory(int64_t,
                           const std::function<bool(const storage::EventView&)>&) const override {
    return absl::OkStatus();
  }
  absl::Status ScanLeaseKeys(int64_t, const std::function<bool(std::string_view)>&) const override {
    return absl::OkStatus();
  }

 private:
  const storage::AppliedState applied_;
};

class FakeStore : public storage::MvccStore {
 public:
  storage::AppliedState applied() const override { return {}; }
  std::unique_ptr<View> NewView() const override { return std::make_unique<FakeView>(); }
  std::unique_ptr<Writer> NewWriter() override { return nullptr; }
  absl::StatusOr<Index> Flush() override {
    ++flushes_;
    if (!flush_status_.ok()) return flush_status_;
    return Index(1);
  }
  absl::StatusOr<storage::AppliedState> Checkpoint(const std::string&) override {
    return storage::AppliedState{};
  }
  absl::Status Defragment(std::atomic<bool>*) override { return Flush().status(); }
  uint64_t disk_bytes() const override { return 4096; }
  uint64_t in_use_bytes() const override { return 1000; }

  int flushes_ = 0;
  absl::Status flush_status_;
};

class FakeMachine : public KvStateMachine {
 public:
  absl::Status Apply(absl::Span<const raft::EntryRef>) override { return absl::OkStatus(); }
  Index applied() const override { return Index(41); }
  absl::StatusOr<Index> Flush() override { return Index(41); }
  absl::StatusOr<Checkpoint> TakeCheckpoint() override { return Checkpoint{}; }
  absl::Status InstallCheckpoint(const std::string&, const storage::LogMark&) override {
    return absl::OkStatus();
  }
  std::optional<storage::LogMark> installed_mark() const override { return std::nullopt; }
  std::shared_ptr<storage::MvccStore> store() const override { return store_; }
  storage::AppliedState applied_state() const override {
    return {.index = Index(41), .term = Term(3), .revision = 17};
  }
  std::optional<MemberAttributes> member(uint64_t id) const override {
    std::lock_guard lock(mutex_);
    const auto it = members_.find(id);
    return it == members_.end() ? std::nullopt : std::optional(it->second);
  }
  uint64_t incarnation() const override {
    std::lock_guard lock(mutex_);
    return incarnation_;
  }

  AlarmSet alarms() const override {
    std::lock_guard lock(mutex_);
    return alarms_;
  }
  void AddListener(ApplyListener*) override {}

  void set_member(uint64_t id, MemberAttributes attributes) {
    std::lock_guard lock(mutex_);
    members_[id] = std::move(attributes);
  }
  void set_alarms(const AlarmSet& alarms) {
    std::lock_guard lock(mutex_);
    alarms_ = alarms;
  }
  void set_incarnation(uint64_t incarnation) {
    std::lock_guard lock(mutex_);
    incarnation_ = incarnation;
  }

  const std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>();

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, MemberAttributes> members_;
  uint64_t incarnation_ = 0;
  AlarmSet alarms_;
};

// Applies what is proposed to the machine at once, or refuses the first `refusals_`.
class FakePipeline : public RequestPipeline {
 public:
  explicit FakePipeline(FakeMachine* machine) : machine_(machine) {}
  void SetNode(raft::RaftNode*) override {}
  void Propose(command::v1::Command command, Done done) override {
    ApplyResult result;
    {
      std::lock_guard lock(mutex_);
      proposed_.push_back(command);
      changed_.notify_all();
      if (refusals_ > 0) {
        --refusals_;
        result.status = ErrTimeout();
      }
    }
    if (result.status.ok()) Apply(command, &result);
    std::move(done)(std::move(result));
  }
  void ProposeBatch(absl::Span<command::v1::Command* const> commands, BatchDone done) override {
    for (size_t slot = 0; slot < commands.size(); ++slot) {
      Propose(*commands[slot], [&done, slot](ApplyResult result) {
        SlotResult told{slot, std::move(result)};
        done(absl::MakeSpan(&told, 1));
      });
    }
  }
  void LinearizableRead(ReadDone done) override {
    ++reads_;
    std::move(done)(read_status_);
  }
  void FreshClaim(absl::Duration, absl::Duration, absl::AnyInvocable<void() &&>) override {}
  void Complete(std::vector<Completion>) override {}
  uint64_t origin() const override { return 1; }
  void Stop() override {}

  std::vector<command::v1::Command> WaitForProposals(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return proposed_.size() >= count; });
    return proposed_;
  }
  size_t proposals() {
    std::lock_guard lock(mutex_);
    return proposed_.size();
  }

  absl::Status read_status_;
  int reads_ = 0;
  int refusals_ = 0;

 private:
  void Apply(const command::v1::Command& command, ApplyResult* result) {
    if (command.has_alarm()) {
      AlarmSet alarms = machine_->alarms();
      const AlarmSet::Alarm alarm = {command.alarm().member_id(),
                                     static_cast<AlarmType>(command.alarm().type())};
      if (command.alarm().action() == command::v1::Alarm::ACTIVATE) alarms.Raise(alarm);
      if (command.alarm().action() == command::v1::Alarm::DEACTIVATE) alarms.Clear(alarm);
      machine_->set_alarms(alarms);
      auto response = std::make_unique<etcdserverpb::AlarmResponse>();
      response->mutable_header()->set_revision(17);
      for (const AlarmSet::Alarm& one : alarms.alarms()) {
        response->add_alarms()->set_memberid(one.first);
      }
      result->response = std::move(response);
      return;
    }
    if (command.has_downgrade()) {
      result->response = std::make_unique<etcdserverpb::DowngradeResponse>();
      return;
    }
    if (command.has_compaction()) return;
    if (command.has_cluster_birth()) {
      machine_->set_incarnation(command.cluster_birth().incarnation());
    } else {
      const auto& attributes = command.member_attributes();
      machine_->set_member(attributes.id(), {.name = attributes.name(),
                                             .client_urls = {attributes.client_urls().begin(),
                                                             attributes.client_urls().end()},
                                             .disk_id = attributes.disk_id()});
    }
  }
  FakeMachine* const machine_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<command::v1::Command> proposed_;
};

inline raft::NodeStatus LedStatus() {
  raft::NodeStatus status;
  status.role = raft::Role::kFollower;
  status.id = kSelf;
  status.leader = kOther;
  status.term = Term(3);
  status.commit = Index(42);
  raft::Membership membership;
  membership.voters = {kSelf, kOther};
  membership.peer_urls = {{kSelf, {"http://a:2380"}}, {kOther, {"http://b:2380"}}};
  status.membership = std::make_shared<raft::Membership>(membership);
  return status;
}

inline raft::NodeStatus LeaderlessStatus() {
  raft::NodeStatus status = LedStatus();
  status.leader = NodeId();
  return status;
}

}  // namespace holdfast::server
