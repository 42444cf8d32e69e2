// A node without Raft: what is proposed becomes an entry at once, or is held, refused or lost, as
// the test says. All of it on the calling thread, so that a test decides the order of everything.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "replication/raft_node.h"
#include "storage/log_store.h"

namespace holdfast::server::testing {

// Threads: all methods from any thread.
class FakeNode : public raft::RaftNode {
 public:
  enum class Mode { kApply, kHold, kLose, kRefuse };
  static constexpr NodeId kSelf{1};

  explicit FakeNode(raft::StateMachine* machine) : machine_(machine) {
    status_.id = kSelf;
    status_.leader = kSelf;
    status_.role = raft::Role::kLeader;
    status_.term = Term(3);
  }

  // --- what the test says ---
  void set_proposals(Mode mode, absl::Status refusal = absl::UnavailableError("no leader")) {
    absl::MutexLock lock(&mutex_);
    proposals_ = mode;
    refusal_ = std::move(refusal);
  }
  // kApply: granted at once; kHold; kRefuse: answered with `answer`.
  void set_reads(Mode mode, absl::Status answer = absl::UnavailableError("no leader")) {
    absl::MutexLock lock(&mutex_);
    reads_ = mode;
    read_refusal_ = std::move(answer);
  }
  void set_leader(NodeId leader, Term term, absl::Duration leaderless = absl::ZeroDuration()) {
    absl::MutexLock lock(&mutex_);
    status_.leader = leader;
    status_.term = term;
    status_.leaderless = leaderless;
    status_.role = leader == kSelf ? raft::Role::kLeader : raft::Role::kFollower;
  }
  void set_claim(std::optional<raft::Claim> claim) {
    absl::MutexLock lock(&mutex_);
    claim_ = claim;
  }
  // What FreshClaim finds; without it FreshClaim finds nothing better.
  void set_fresh_claim(std::optional<raft::Claim> claim) {
    absl::MutexLock lock(&mutex_);
    fresh_claim_ = claim;
  }
  int fresh_claims_asked() const {
    absl::MutexLock lock(&mutex_);
    return fresh_claims_asked_;
  }
  absl::Duration last_fresh_claim_timeout() const {
    absl::MutexLock lock(&mutex_);
    return last_fresh_claim_timeout_;
  }
  size_t held_proposals() const {
    absl::MutexLock lock(&mutex_);
    return held_.size();
  }
  // Returns once somebody who asks for the status again and again (the pipeline's sweeper) has done
  // so with what it says now, and is done with it.
  void AwaitStatusTwice() {
    absl::MutexLock lock(&mutex_);
    const uint64_t before = status_calls_;
    while (status_calls_ < before + 2) status_called_.Wait(&mutex_);
  }
  size_t held_reads() const {
    absl::MutexLock lock(&mutex_);
    return held_reads_.size();
  }

  // Applies everything held, in one batch.
  void ReleaseHeld() {
    absl::MutexLock lock(&apply_mutex_);
    std::vector<raft::EntryRef> entries;
    for (Held& held : TakeHeld()) entries.push_back(MakeEntry(std::move(held.payload), entries));
    CHECK_OK(machine_->Apply(entries));
  }
  void RefuseHeld(const absl::Status& status) {
    for (Held& held : TakeHeld()) std::move(held.refused)(status);
  }
  // Answers the oldest held read.
  void AnswerRead(absl::StatusOr<Index> answer) {
    ReadDone done;
    {
      absl::MutexLock lock(&mutex_);
      CHECK(!held_reads_.empty());
      done = std::move(held_reads_.front());
      held_reads_.pop_front();
    }
    std::move(done)(std::move(answer));
  }
  // An entry as another member's proposal would come.
  void ApplyForeign(std::string payload) {
    absl::MutexLock lock(&apply_mutex_);
    CHECK_OK(machine_->Apply({MakeEntry(std::move(payload), {})}));
  }

  // --- raft::RaftNode ---
  void Propose(std::string payload, absl::AnyInvocable<void(absl::Status) &&> refused) override {
    Mode mode;
    absl::Status refusal;
    {
      absl::MutexLock lock(&mutex_);
      mode = proposals_;
      refusal = refusal_;
      if (mode == Mode::kHold) {
        held_.push_back({std::move(payload), std::move(refused)});
        return;
      }
    }
    if (mode == Mode::kRefuse) return std::move(refused)(refusal);
    if (mode == Mode::kApply) ApplyForeign(std::move(payload));
  }
  void ReadIndex(absl::Duration timeout, ReadDone done) override {
    absl::StatusOr<Index> answer = absl::UnavailableError("no leader");
    {
      absl::MutexLock lock(&mutex_);
      if (reads_ == Mode::kHold) {
        held_reads_.push_back(std::move(done));
        return;
      }
      if (reads_ == Mode::kRefuse) answer = read_refusal_;
      if (reads_ == Mode::kApply) answer = machine_->applied();
    }
    std::move(done)(std::move(answer));
  }
  std::optional<raft::Claim> ClaimFor(Index) const override { return claim(); }
  std::optional<raft::Claim> claim() const override {
    absl::MutexLock lock(&mutex_);
    return claim_;
  }
  void FreshClaim(absl::Duration max_age, absl::Duration timeout,
                  absl::AnyInvocable<void() &&> done) override {
    {
      absl::MutexLock lock(&mutex_);
      ++fresh_claims_asked_;
      last_fresh_claim_timeout_ = timeout;
      if (fresh_claim_.has_value()) claim_ = fresh_claim_;
    }
    std::move(done)();
  }
  void Receive(std::vector<raft::Message> messages) override {}
  void OnPeerConnected(NodeId peer) override {}
  void OnPeerLost(NodeId peer) override {}
  void OnSnapshotReceived(NodeId from, Term term, const storage::LogMark& mark, std::string dir,
                          absl::AnyInvocable<void(absl::Status) &&> done) override {}
  // --- set before the calls; not guarded ---
  absl::StatusOr<raft::Membership> change_answer = raft::Membership();
  std::vector<raft::MemberChange> changes;
  absl::Status transfer_answer;
  std::vector<NodeId> transfers;
  std::vector<PeerStatus> peer_list;

  void ChangeMembers(raft::MemberChange change, absl::Duration, ChangeDone done) override {
    changes.push_back(std::move(change));
    std::move(done)(change_answer);
  }
  void TransferLeadership(NodeId to, absl::Duration, TransferDone done) override {
    transfers.push_back(to);
    std::move(done)(transfer_answer);
  }
  std::vector<PeerStatus> peers() const override { return peer_list; }
  raft::NodeStatus status() const override {
    absl::MutexLock lock(&mutex_);
    ++status_calls_;
    status_called_.SignalAll();
    return status_;
  }
  void Stop() override {}

 private:
  struct Held {
    std::string payload;
    absl::AnyInvocable<void(absl::Status) &&> refused;
  };
  std::vector<Held> TakeHeld() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(held_, {});
  }
  raft::EntryRef MakeEntry(std::string payload, const std::vector<raft::EntryRef>& before) const {
    auto entry = std::make_shared<storage::Entry>();
    entry->term = status().term;
    entry->index = machine_->applied() + before.size() + 1;
    entry->payload = std::move(payload);
    return entry;
  }

  raft::StateMachine* const machine_;
  absl::Mutex apply_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);  // the apply thread's place
  mutable absl::Mutex mutex_;
  mutable absl::CondVar status_called_;
  mutable uint64_t status_calls_ ABSL_GUARDED_BY(mutex_) = 0;
  Mode proposals_ ABSL_GUARDED_BY(mutex_) = Mode::kApply;
  Mode reads_ ABSL_GUARDED_BY(mutex_) = Mode::kApply;
  absl::Status refusal_ ABSL_GUARDED_BY(mutex_);
  absl::Status read_refusal_ ABSL_GUARDED_BY(mutex_);
  raft::NodeStatus status_ ABSL_GUARDED_BY(mutex_);
  std::optional<raft::Claim> claim_ ABSL_GUARDED_BY(mutex_);
  std::optional<raft::Claim> fresh_claim_ ABSL_GUARDED_BY(mutex_);
  int fresh_claims_asked_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration last_fresh_claim_timeout_ ABSL_GUARDED_BY(mutex_);
  std::vector<Held> held_ ABSL_GUARDED_BY(mutex_);
  std::deque<ReadDone> held_reads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace holdfast::server::testing
