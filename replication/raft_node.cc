#include "replication/raft_node.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <variant>

#include "absl/cleanup/cleanup.h"
#include "absl/synchronization/mutex.h"
#include "base/bounded_queue.h"
#include "base/check.h"
#include "base/log.h"
#include "base/strings.h"
#include "replication/freshness_record.h"
#include "replication/member_queue.h"
#include "replication/proposal_queue.h"
#include "replication/read_queue.h"
#include "replication/recovery.h"
#include "replication/stepped_node.h"
#include "replication/workers.h"

namespace holdfast::raft {
namespace {

// Limits of the driver.
constexpr size_t kMaxFreshWaiters = 10000;
constexpr size_t kMaxTasks = 1024;      // fetches and maintenance waiting for their thread
constexpr int kMaxTicksATurn = 5;       // after a pause: time that nobody lived through is dropped
constexpr size_t kInputOverhead = 128;  // bytes that an input costs beside its payload
// Larger inputs are no lone requests: whoever brings them has better things to do than a turn.
constexpr size_t kMaxInlineBytes = size_t{16} << 10;
// Entries that are not committed, beside which an input is still a lone one. With more, several
// writers are at work, and inputs that wait for the raft thread's turn together share its work:
// taken one by one they made rounds smaller, and a put of 100 clients an eighth dearer.
constexpr uint64_t kMaxLoneEntries = 1;
constexpr absl::Duration kUrgentProbeEvery = absl::Milliseconds(20);
constexpr absl::Duration kRecordEvery = absl::Seconds(1);

// True while this thread is in a turn of any node. A transport that delivers at once (in tests)
// would otherwise go from turn to turn on one stack.
thread_local bool in_turn = false;

size_t BytesOf(const std::vector<Message>& messages) {
  size_t bytes = 0;
  for (const Message& m : messages) {
    bytes += sizeof(Message);
    for (const EntryRef& entry : m.entries) bytes += entry->bytes();
    for (const std::string& payload : m.payloads) bytes += payload.size();
  }
  return bytes;
}

class RaftNodeImpl final : public SteppedNode {
 public:
  RaftNodeImpl(NodeOptions options, const RaftCore::Recovered& recovered, storage::LogStore* log,
               StateMachine* machine, Transport* transport);
  // Without threads: a crash.
  ~RaftNodeImpl() override {
    if (raft_thread_.joinable()) Stop();
  }

  void StartThreads();

  void Propose(std::string payload, absl::AnyInvocable<void(absl::Status) &&> refused) override;
  void ProposeMany(std::vector<std::string> payloads, RefusedMany refused) override;
  void ReadIndex(absl::Duration timeout, ReadDone done) override;
  std::optional<Claim> claim() const override;
  std::optional<Claim> ClaimFor(Index delivered) const override;
  void FreshClaim(absl::Duration max_age, absl::Duration timeout,
                  absl::AnyInvocable<void() &&> done) override;
  void Receive(std::vector<Message> messages) override;
  void OnPeerConnected(NodeId peer) override;
  void OnPeerLost(NodeId peer) override;
  void OnSnapshotReceived(NodeId from, Term term, const storage::LogMark& mark, std::string dir,
                          absl::AnyInvocable<void(absl::Status) &&> done) override;
  void ChangeMembers(MemberChange change, absl::Duration timeout, ChangeDone done) override;
  void TransferLeadership(NodeId to, absl::Duration timeout, TransferDone done) override;
  std::vector<PeerStatus> peers() const override;
  NodeStatus status() const override;
  void Stop() override;

  void RunRaft() override;
  bool HasInput() const override { return !inbox_.empty(); }
  int64_t next_tick_ns() const override { return next_tick_ns_; }
  bool RunLog() override { return log_worker_.RunOnce(); }
  bool RunApply() override { return apply_worker_.RunOnce(); }
  bool RunFetch() override { return fetcher_.RunOnce(); }
  bool RunMaintenance() override { return maintenance_.RunOnce(); }
  bool HasLogWork() const override { return log_worker_.has_work(); }
  bool HasApplyWork() const override { return apply_worker_.has_work(); }
  bool HasFetchWork() const override { return fetcher_.has_work(); }
  bool HasMaintenanceWork() const override { return maintenance_.has_work(); }
  const RaftCore& core() const override { return core_; }

 private:
  using Input = absl::AnyInvocable<void()>;  // runs in a turn

  void OnDurable(uint64_t seq, std::vector<Message> after_durable);

  // In a turn.
  void Run();
  enum class Ticks { kRun, kLeave };
  void Turn(absl::Span<Input> inputs, Ticks ticks);
  void RunTicks();
  void OfferProposals();
  void OfferReads();
  void OfferFresh();
  Message MakeProbe(NodeId leader, Term term, bool urgent);
  void Carry(Ready ready);
  void InstallSnapshot(AppendBatch& append);
  void SendMessages(std::vector<Message> messages);
  void Fetch(const FetchRequest& request);
  void SendSnapshotTo(NodeId peer);
  void MaybeFlush();
  void CompactLog(Index flushed);
  void MaybeWriteRecord();
  void TellTransport();
  void Publish();
  void PublishPeers();
  void RefuseAll();

  int64_t DeadlineAfter(absl::Duration timeout) const {
    return options_.clock->Sample().boot_ns + absl::ToInt64Nanoseconds(timeout);
  }
  bool leaderless_too_long() const {
    return leaderless_since_ns_ && now_.boot_ns - *leaderless_since_ns_ > grace_ns_;
  }
  // Any thread. Nothing leaves this member after it, whatever on_fatal does.
  void Fatal(const absl::Status& status) {
    dead_ = true;
    options_.on_fatal(status);
  }
  void Take(ProposalBatch batch);
  void Post(Input input, size_t bytes = 0) { inbox_.Push(std::move(input), bytes); }
  // Any thread. Queues the input or, if the raft thread sleeps, takes its place for one turn. False
  // if the inbox is full or closed. For inputs that can not lead to a wait: never a snapshot.
  [[nodiscard]] bool TryHere(Input input, size_t bytes);
  // As TryHere for inputs that are bounded elsewhere: refused only at the end.
  void PostOrHere(Input input);
  void BorrowedTurn(Input input);

  const NodeOptions options_;
  storage::LogStore* const log_;
  StateMachine* const machine_;
  Transport* const transport_;
  const int64_t tick_ns_;
  const int64_t grace_ns_;

  // Whoever has the turn: the raft thread, or who borrowed its place from the inbox.
  RaftCore core_;
  FreshnessTracker tracker_;
  ProposalQueue proposals_;
  ReadQueue reads_;
  MemberQueue members_;
  base::ClockSample now_;
  int64_t next_tick_ns_ = 0;
  bool ticked_ = false;           // in this turn
  bool borrowed_ = false;         // this turn is not the raft thread's
  std::atomic<bool> lone_{true};  // written in turns; as of the last one, see kMaxLoneEntries
  std::optional<int64_t> leaderless_since_ns_;
  Term seen_term_;
  Role seen_role_ = Role::kFollower;
  Role published_role_ = Role::kFollower;
  int64_t last_probe_ns_ = 0;
  int64_t last_urgent_ns_ = 0;
  int64_t last_record_ns_ = 0;
  std::atomic<bool> record_pending_{false};
  struct FreshWaiter {
    absl::Duration max_age;
    int64_t deadline_ns;
    absl::AnyInvocable<void() &&> done;
  };
  std::vector<FreshWaiter> fresh_waiters_;
  struct SnapshotIn {
    std::string dir;
    absl::AnyInvocable<void(absl::Status) &&> done;
  };
  std::map<std::string, SnapshotIn> snapshots_in_;
  Index flushed_;
  uint64_t log_bytes_at_flush_ = 0;
  bool flushing_ = false;
  // Being made or sent: the log keeps what follows them. At most one a peer and term.
  std::map<std::pair<NodeId, Term>, Index> snapshots_out_;
  std::shared_ptr<const Membership> membership_;
  bool settled_ = false;  // membership_settled(), as the transport was told
  std::atomic<bool> dead_{false};

  base::BoundedQueue<Input> inbox_;

  mutable absl::Mutex published_mutex_;
  NodeStatus published_ ABSL_GUARDED_BY(published_mutex_);
  std::optional<int64_t> published_leaderless_since_ns_ ABSL_GUARDED_BY(published_mutex_);
  std::optional<Claim> published_claim_ ABSL_GUARDED_BY(published_mutex_);
  std::deque<Claim> published_pairs_ ABSL_GUARDED_BY(published_mutex_);
  uint64_t published_pairs_taken_ ABSL_GUARDED_BY(published_mutex_) = 0;
  std::vector<PeerStatus> published_peers_ ABSL_GUARDED_BY(published_mutex_);

  absl::Mutex stop_mutex_;
  bool stopped_ ABSL_GUARDED_BY(stop_mutex_) = false;

  TaskWorker fetcher_{kMaxTasks};
  TaskWorker maintenance_{kMaxTasks};
  ApplyWorker apply_worker_;
  LogWorker log_worker_;
  std::thread raft_thread_;
};

RaftNodeImpl::RaftNodeImpl(NodeOptions options, const RaftCore::Recovered& recovered,
                           storage::LogStore* log, StateMachine* machine, Transport* transport)
    : options_(std::move(options)),
      log_(log),
      machine_(machine),
      transport_(transport),
      tick_ns_(absl::ToInt64Nanoseconds(options_.tick)),
      grace_ns_(static_cast<int64_t>(options_.leaderless_grace *
                                     static_cast<double>(tick_ns_ * options_.core.election_ticks))),
      core_(options_.core, recovered, options_.seed),
      tracker_(options_.boot, options_.seed ^ options_.boot),
      proposals_(options_.boot, 2 * grace_ns_),
      reads_(absl::ToInt64Nanoseconds(options_.ask_again), options_.boot),
      now_(options_.clock->Sample()),
      next_tick_ns_(now_.boot_ns + tick_ns_),
      leaderless_since_ns_(now_.boot_ns),
      flushed_(recovered.applied),
      log_bytes_at_flush_(log->disk_bytes()),
      membership_(std::make_shared<Membership>(core_.membership())),
      inbox_(options_.max_queued_bytes),
      apply_worker_(
          machine, [this](Index index) { PostOrHere([this, index] { core_.OnApplied(index); }); },
          [this](const absl::Status& s) { Fatal(s); }),
      log_worker_(
          log,
          [this](uint64_t seq, std::vector<Message> after_durable) {
            OnDurable(seq, std::move(after_durable));
          },
          [this](const absl::Status& s) { Fatal(s); }) {
  if (options_.freshness_record != nullptr) {
    if (const auto kept = options_.freshness_record->Read()) {
      tracker_.Restore(*kept, core_.applied());
    }
  }
  TellTransport();
  // Nobody else could lead: no reason to wait for a timeout.
  if (core_.membership().voters == std::set<NodeId>{options_.core.id}) core_.Campaign();
  Publish();
}

void RaftNodeImpl::StartThreads() {
  fetcher_.Start();
  maintenance_.Start();
  apply_worker_.Start();
  log_worker_.Start();
  raft_thread_ = std::thread([this] { Run(); });
}

// ---------------------------------------------------------------- any thread

// Log thread. What waited for the disk leaves right from here, one hop earlier; what is addressed
// to ourselves (a candidate's own vote) goes through the core.
void RaftNodeImpl::OnDurable(uint64_t seq, std::vector<Message> after_durable) {
  std::vector<Message> own;
  const auto to_self = [this](const Message& m) { return m.to == options_.core.id; };
  const auto first_own = std::stable_partition(after_durable.begin(), after_durable.end(),
                                               [&](const Message& m) { return !to_self(m); });
  own.assign(std::make_move_iterator(first_own), std::make_move_iterator(after_durable.end()));
  after_durable.erase(first_own, after_durable.end());
  if (!after_durable.empty() && !dead_) transport_->Send(std::move(after_durable));
  PostOrHere([this, seq, own = std::move(own)]() mutable {
    core_.OnDurable(seq);
    SendMessages(std::move(own));
  });
}

bool RaftNodeImpl::TryHere(Input input, size_t bytes) {
  if (in_turn || bytes > kMaxInlineBytes || !lone_ || !inbox_.TryBorrow()) {
    return inbox_.TryPush(std::move(input), bytes);
  }
  BorrowedTurn(std::move(input));
  return true;
}

void RaftNodeImpl::PostOrHere(Input input) {
  if (in_turn || !lone_ || !inbox_.TryBorrow()) return Post(std::move(input));
  BorrowedTurn(std::move(input));
}

void RaftNodeImpl::BorrowedTurn(Input input) {
  Turn(absl::MakeSpan(&input, 1), Ticks::kLeave);
  inbox_.GiveBack();
}

void RaftNodeImpl::Propose(std::string payload, absl::AnyInvocable<void(absl::Status) &&> refused) {
  Take(ProposalBatch(std::move(payload), std::move(refused)));
}

void RaftNodeImpl::ProposeMany(std::vector<std::string> payloads, RefusedMany refused) {
  if (payloads.empty()) return;
  Take(ProposalBatch(std::move(payloads), std::move(refused)));
}

void RaftNodeImpl::Take(ProposalBatch batch) {
  const size_t bytes = batch.bytes + kInputOverhead;
  const auto shared = std::make_shared<ProposalBatch>(std::move(batch));
  if (TryHere([this, shared] { proposals_.Add(std::move(*shared), now_.boot_ns); }, bytes)) {
    return;
  }
  shared->RefuseAll(inbox_.closed() ? absl::UnavailableError("the node is stopping")
                                    : absl::ResourceExhaustedError("too many requests are queued"));
}

void RaftNodeImpl::ReadIndex(absl::Duration timeout, ReadDone done) {
  auto waiter = std::make_shared<ReadWaiter>(ReadWaiter{DeadlineAfter(timeout), std::move(done)});
  if (TryHere([this, waiter] { reads_.Add(std::move(*waiter)); }, kInputOverhead)) return;
  std::move(waiter->done)(inbox_.closed()
                              ? absl::UnavailableError("the node is stopping")
                              : absl::ResourceExhaustedError("too many requests are queued"));
}

std::optional<Claim> RaftNodeImpl::claim() const {
  absl::MutexLock lock(&published_mutex_);
  return published_claim_;
}

std::optional<Claim> RaftNodeImpl::ClaimFor(Index delivered) const {
  absl::MutexLock lock(&published_mutex_);
  return FreshnessTracker::ClaimAmong(published_pairs_, delivered);
}

void RaftNodeImpl::FreshClaim(absl::Duration max_age, absl::Duration timeout,
                              absl::AnyInvocable<void() &&> done) {
  auto waiter =
      std::make_shared<FreshWaiter>(FreshWaiter{max_age, DeadlineAfter(timeout), std::move(done)});
  const auto wait = [this, waiter] {
    // Beyond the limit the caller gets what there is, as it would after its timeout.
    if (fresh_waiters_.size() >= kMaxFreshWaiters) return std::move(waiter->done)();
    fresh_waiters_.push_back(std::move(*waiter));
  };
  if (inbox_.TryPush(wait, kInputOverhead)) return;
  std::move(waiter->done)();
}

void RaftNodeImpl::Receive(std::vector<Message> messages) {
  const size_t bytes = BytesOf(messages);
  // A full inbox loses messages, as a network may.
  (void)TryHere(
      [this, messages = std::move(messages)]() mutable {
        for (Message& m : messages) core_.Step(std::move(m));
      },
      bytes);
}

void RaftNodeImpl::OnPeerConnected(NodeId) {}

void RaftNodeImpl::OnPeerLost(NodeId peer) {
  Post([this, peer] { core_.OnPeerUnreachable(peer); });
}

void RaftNodeImpl::OnSnapshotReceived(NodeId from, Term term, const storage::LogMark& mark,
                                      std::string dir,
                                      absl::AnyInvocable<void(absl::Status) &&> done) {
  Message m;
  m.type = MessageType::kSnapshot;
  m.from = from;
  m.to = options_.core.id;
  m.term = term;
  m.prev_index = mark.index;
  m.prev_term = mark.term;
  m.payloads = {mark.membership, dir};
  auto in = std::make_shared<SnapshotIn>(SnapshotIn{dir, std::move(done)});
  if (inbox_.TryPush(
          [this, in, m = std::move(m)]() mutable {
            snapshots_in_[in->dir] = std::move(*in);
            core_.Step(std::move(m));
          },
          kInputOverhead)) {
    return;
  }
  std::filesystem::remove_all(in->dir);
  std::move(in->done)(absl::UnavailableError("the member is busy or stopping"));
}

void RaftNodeImpl::ChangeMembers(MemberChange change, absl::Duration timeout, ChangeDone done) {
  auto waiting = std::make_shared<ChangeDone>(std::move(done));
  const auto begin = [this, change = std::move(change), deadline = DeadlineAfter(timeout),
                      waiting] { members_.Change(core_, change, deadline, std::move(*waiting)); };
  if (inbox_.TryPush(begin, kInputOverhead)) return;
  std::move (*waiting)(inbox_.closed() ? absl::UnavailableError("the node is stopping")
                                       : absl::ResourceExhaustedError("too many requests wait"));
}

void RaftNodeImpl::TransferLeadership(NodeId to, absl::Duration timeout, TransferDone done) {
  auto waiting = std::make_shared<TransferDone>(std::move(done));
  const auto begin = [this, to, deadline = DeadlineAfter(timeout), waiting] {
    members_.Transfer(core_, to, deadline, std::move(*waiting));
  };
  if (inbox_.TryPush(begin, kInputOverhead)) return;
  std::move (*waiting)(inbox_.closed() ? absl::UnavailableError("the node is stopping")
                                       : absl::ResourceExhaustedError("too many requests wait"));
}

std::vector<RaftNode::PeerStatus> RaftNodeImpl::peers() const {
  absl::MutexLock lock(&published_mutex_);
  return published_peers_;
}

NodeStatus RaftNodeImpl::status() const {
  NodeStatus status;
  std::optional<int64_t> since;
  {
    absl::MutexLock lock(&published_mutex_);
    status = published_;
    since = published_leaderless_since_ns_;
  }
  if (since) status.leaderless = absl::Nanoseconds(options_.clock->Sample().boot_ns - *since);
  return status;
}

void RaftNodeImpl::Stop() {
  absl::MutexLock lock(&stop_mutex_);
  if (std::exchange(stopped_, true)) return;
  inbox_.Close();
  if (raft_thread_.joinable()) {
    raft_thread_.join();
  } else {
    RefuseAll();
  }
  fetcher_.Stop();
  maintenance_.Stop();
  log_worker_.Stop();
  apply_worker_.Stop();
  // So that the next start replays nothing. A failure only costs that replay.
  const auto flushed = machine_->Flush();
  if (!flushed.ok()) LOG_WARN("flush at stop failed: {}", flushed.status().ToString());
}

// ---------------------------------------------------------------- raft thread

void RaftNodeImpl::Run() {
  prctl(PR_SET_NAME, "hf-raft");
  while (!inbox_.closed()) {
    const int64_t wait_ns = next_tick_ns_ - options_.clock->Sample().boot_ns;
    // Also when a tick is overdue: what was heard meanwhile counts before time does.
    // Nobody borrows before DrainFor, so next_tick_ns_ is ours to read above.
    std::vector<Input> inputs = inbox_.DrainFor(absl::Nanoseconds(std::max<int64_t>(0, wait_ns)));
    Turn(absl::MakeSpan(inputs), Ticks::kRun);
  }
  RefuseAll();
}

void RaftNodeImpl::RunRaft() {
  std::vector<Input> inputs = inbox_.TakeNow();
  Turn(absl::MakeSpan(inputs), Ticks::kRun);
}

// Ticks::kLeave: on a borrowed place. Time is the raft thread's, which wakes for it by itself.
void RaftNodeImpl::Turn(absl::Span<Input> inputs, Ticks ticks) {
  if (dead_) return;
  const auto leave = absl::MakeCleanup([was = std::exchange(in_turn, true)] { in_turn = was; });
  borrowed_ = ticks == Ticks::kLeave;
  // Taken before anything of this turn is sent: the sample of its probes and rounds.
  now_ = options_.clock->Sample();
  for (Input& input : inputs) input();
  ticked_ = false;
  if (ticks == Ticks::kRun) RunTicks();
  OfferProposals();
  OfferReads();
  do {
    Carry(core_.TakeReady());
  } while (core_.HasReady() && !dead_);
  tracker_.OnApplied(core_.applied());
  reads_.OnApplied(core_.applied());
  OfferFresh();
  MaybeFlush();
  MaybeWriteRecord();
  Publish();
  // Whoever is told here finds what it was told in status().
  members_.Offer(core_, now_.boot_ns);
  lone_ = core_.log().last().value - core_.commit().value <= kMaxLoneEntries;
}

void RaftNodeImpl::RunTicks() {
  ticked_ = now_.boot_ns >= next_tick_ns_;
  for (int i = 0; i < kMaxTicksATurn && now_.boot_ns >= next_tick_ns_; ++i) {
    core_.Tick();
    proposals_.ReleaseRefused();
    next_tick_ns_ += tick_ns_;
  }
  if (now_.boot_ns >= next_tick_ns_) next_tick_ns_ = now_.boot_ns + tick_ns_;
  reads_.Expire(now_.boot_ns);
}

void RaftNodeImpl::OfferProposals() {
  if (core_.leader() && !core_.transferring_to()) {
    proposals_.OfferTo(core_, now_.boot_ns);
  } else if (leaderless_too_long()) {
    proposals_.RefuseWaiting(absl::UnavailableError("no leader"));
  }
  proposals_.ForgetForwarded(now_.boot_ns);
}

void RaftNodeImpl::OfferReads() {
  if (core_.leader()) {
    if (const auto id = reads_.Ask(now_.boot_ns)) core_.StartRead(*id);
  } else if (leaderless_too_long()) {
    reads_.Refuse(absl::UnavailableError("no leader"));
  }
}

void RaftNodeImpl::OfferFresh() {
  if (fresh_waiters_.empty()) return;
  std::vector<FreshWaiter> still;
  for (FreshWaiter& waiter : std::exchange(fresh_waiters_, {})) {
    const auto& claim = tracker_.claim();
    const bool fresh = claim && claim->AgeAt(now_) <= waiter.max_age;
    if (fresh || !core_.leader() || now_.boot_ns >= waiter.deadline_ns) {
      if (fresh) {
        // The caller asks claim() next, before this turn's Publish.
        absl::MutexLock lock(&published_mutex_);
        published_claim_ = claim;
      }
      std::move(waiter.done)();
    } else {
      still.push_back(std::move(waiter));
    }
  }
  fresh_waiters_ = std::move(still);
  const bool ask = now_.boot_ns - last_urgent_ns_ >= absl::ToInt64Nanoseconds(kUrgentProbeEvery);
  if (fresh_waiters_.empty() || !ask) return;
  last_urgent_ns_ = now_.boot_ns;
  if (core_.role() == Role::kLeader) {
    core_.StartRead(reads_.NextId());  // nobody waits for the read; its round makes the claim (L4)
    return;
  }
  transport_->Send({MakeProbe(core_.leader(), core_.term(), /*urgent=*/true)});
}

// F1: the sample is this turn's, taken before anything of it is sent.
Message RaftNodeImpl::MakeProbe(NodeId leader, Term term, bool urgent) {
  Message probe;
  probe.type = MessageType::kProbe;
  probe.from = options_.core.id;
  probe.to = leader;
  probe.term = term;
  probe.nonce = tracker_.NewProbe(now_);
  probe.boot = tracker_.boot();
  probe.urgent = urgent;
  return probe;
}

void RaftNodeImpl::Carry(Ready ready) {
  if (!ready.damage.empty()) return Fatal(absl::DataLossError(base::ToAbsl(ready.damage)));
  if (core_.term() != seen_term_ || core_.role() != seen_role_) {
    tracker_.ForgetRounds();
    seen_term_ = core_.term();
    seen_role_ = core_.role();
    LOG_INFO("{} at term {}, leader {:x}", RoleName(seen_role_), seen_term_.value,
             core_.leader().value);
  }
  if (ready.round_started) tracker_.OnRoundStarted(*ready.round_started, now_);
  if (!ready.append.snapshot_dir.empty()) InstallSnapshot(ready.append);
  if (dead_) return;
  // What needs no disk leaves first: the others write while this member does.
  SendMessages(std::move(ready.messages));
  if (!ready.append.empty()) log_worker_.Append(std::move(ready.append));
  if (!ready.apply.empty()) apply_worker_.Apply(std::move(ready.apply));
  if (ready.round_confirmed) {
    tracker_.OnRoundConfirmed(ready.round_confirmed->round, ready.round_confirmed->index,
                              core_.applied());
  }
  for (const Message& m : ready.confirms) {
    tracker_.OnConfirm(m.nonce, m.boot, m.read_index, core_.applied());
  }
  for (const ReadGrant& grant : ready.reads) reads_.Grant(grant.read_id, grant.index);
  for (const uint64_t id : ready.reads_dropped) reads_.AskAgain(id);
  for (const uint64_t id : ready.proposals_refused) proposals_.Refused(id);
  for (const FetchRequest& request : ready.fetches) Fetch(request);
  for (const NodeId peer : ready.snapshots_wanted) SendSnapshotTo(peer);
  if (ready.membership_changed || core_.membership_settled() != settled_) TellTransport();
  // A received snapshot that the core had no use for: its directory goes.
  for (auto& [dir, in] : std::exchange(snapshots_in_, {})) {
    std::filesystem::remove_all(dir);
    std::move(in.done)(absl::OkStatus());
  }
}

void RaftNodeImpl::InstallSnapshot(AppendBatch& append) {
  // It waits for the apply thread, which may be the one that borrowed.
  CHECK(!borrowed_);
  const auto in = snapshots_in_.extract(append.snapshot_dir);
  CHECK(!in.empty());
  LOG_INFO("installing a snapshot at index {}", append.log.reset->index.value);
  // C7: the data first, in one atomic step, then the log; a crash between is finished at start.
  const absl::Status installed =
      apply_worker_.InstallAndWait(append.snapshot_dir, *append.log.reset);
  if (!installed.ok()) {
    Fatal(installed);
    return std::move(in.mapped().done)(installed);
  }
  flushed_ = append.log.reset->index;
  std::move(in.mapped().done)(absl::OkStatus());
}

void RaftNodeImpl::TellTransport() {
  settled_ = core_.membership_settled();
  membership_ = std::make_shared<Membership>(core_.membership());
  transport_->SetMembership(core_.Reachable());
}

void RaftNodeImpl::SendMessages(std::vector<Message> messages) {
  if (messages.empty() || dead_) return;
  std::vector<Message> out;
  out.reserve(messages.size() + 1);
  for (Message& m : messages) {
    if (m.to == options_.core.id) {
      core_.Step(std::move(m));
      continue;
    }
    // F1: probes ride along with what we answer to the leader's rounds, one a heartbeat.
    const bool probe_due =
        m.type == MessageType::kHeartbeatReply &&
        now_.boot_ns - last_probe_ns_ >= tick_ns_ * options_.core.heartbeat_ticks;
    if (probe_due) {
      last_probe_ns_ = now_.boot_ns;
      out.push_back(MakeProbe(m.to, m.term, /*urgent=*/false));
    }
    out.push_back(std::move(m));
  }
  if (!out.empty()) transport_->Send(std::move(out));
}

void RaftNodeImpl::Fetch(const FetchRequest& request) {
  const bool queued = fetcher_.Run([this, request] {
    auto read = log_->Read(request.first, request.last, request.max_bytes);
    if (!read.ok() && !absl::IsOutOfRange(read.status())) return Fatal(read.status());
    Post([this, id = request.id,
          entries = read.ok() ? *std::move(read) : std::vector<EntryRef>()]() mutable {
      core_.OnFetched(id, std::move(entries));
    });
  });
  CHECK(queued);  // at most one fetch a peer and one for apply are ever out
}

void RaftNodeImpl::SendSnapshotTo(NodeId peer) {
  snapshots_out_[{peer, core_.term()}] = core_.applied();
  // The term that asks: a snapshot sent under a later one would speak for another leader.
  const bool queued = maintenance_.Run([this, peer, term = core_.term()] {
    auto taken = machine_->TakeCheckpoint();
    // The data has rotted: no member may begin with it, and this one must not go on with it.
    if (absl::IsDataLoss(taken.status())) return Fatal(taken.status());
    Post([this, peer, term, taken = std::move(taken)]() mutable {
      const bool still_leading = core_.role() == Role::kLeader && core_.term() == term;
      if (!taken.ok() || !still_leading) {
        if (taken.ok()) std::filesystem::remove_all(taken->dir);
        LOG_WARN("no snapshot for member {:x}: {}", peer.value,
                 taken.ok() ? "leadership was lost" : taken.status().ToString());
        snapshots_out_.erase({peer, term});
        if (still_leading) core_.OnSnapshotSent(peer, Index(0), false);
        return;
      }
      LOG_INFO("sending member {:x} a snapshot at index {}", peer.value, taken->index.value);
      Transport::SnapshotToSend snapshot;
      snapshot.to = peer;
      snapshot.term = term;
      snapshot.mark = {taken->index, taken->term, core_.MembershipAt(taken->index).Encode()};
      snapshot.dir = taken->dir;
      transport_->SendSnapshot(std::move(snapshot),
                               [this, peer, term, ckpt = *taken](absl::Status sent) {
                                 std::filesystem::remove_all(ckpt.dir);
                                 if (!sent.ok())
                                   LOG_WARN("snapshot to {:x}: {}", peer.value, sent.ToString());
                                 Post([this, peer, term, index = ckpt.index, ok = sent.ok()] {
                                   snapshots_out_.erase({peer, term});
                                   // One of an earlier term says nothing about what this term sent.
                                   if (core_.term() == term) core_.OnSnapshotSent(peer, index, ok);
                                 });
                               });
    });
  });
  CHECK(queued);  // at most one snapshot a peer is ever out
}

void RaftNodeImpl::MaybeFlush() {
  // A flush may have covered more than we have heard of being applied.
  if (flushing_ || core_.applied() <= flushed_) return;
  const uint64_t behind = core_.applied().value - flushed_.value;
  const uint64_t log_bytes = log_->disk_bytes();
  log_bytes_at_flush_ = std::min(log_bytes_at_flush_, log_bytes);  // the log was cut since
  const bool by_count = behind >= options_.snapshot_count;
  const bool by_bytes = log_bytes >= log_bytes_at_flush_ + options_.snapshot_log_bytes;
  if (!by_count && !by_bytes) return;
  flushing_ = true;
  const bool queued = maintenance_.Run([this] {
    auto flushed = machine_->Flush();
    if (!flushed.ok()) return Fatal(flushed.status());
    Post([this, index = *flushed] { CompactLog(index); });
  });
  CHECK(queued);
}

void RaftNodeImpl::CompactLog(Index flushed) {
  flushing_ = false;
  log_bytes_at_flush_ = log_->disk_bytes();
  flushed_ = std::max(flushed_, flushed);
  Index to = std::min(flushed_, core_.applied());
  to = to.value > options_.catch_up_entries ? to - options_.catch_up_entries : Index(0);
  for (const auto& [sending, index] : snapshots_out_) to = std::min(to, index);
  if (to > core_.log().mark_index()) log_worker_.Compact(core_.CompactTo(to));
}

void RaftNodeImpl::MaybeWriteRecord() {
  if (options_.freshness_record == nullptr || !tracker_.claim()) return;
  if (now_.boot_ns - last_record_ns_ < absl::ToInt64Nanoseconds(kRecordEvery)) return;
  last_record_ns_ = now_.boot_ns;
  if (record_pending_.exchange(true)) return;  // behind a slow flush: one in the queue is enough
  // F4: the claim is about applied entries, which are durable in the log (C4).
  const bool queued = maintenance_.Run([this, claim = *tracker_.claim()] {
    const absl::Status written = options_.freshness_record->Write(claim);
    if (!written.ok()) LOG_WARN("freshness record: {}", written.ToString());
    record_pending_ = false;
  });
  if (!queued) record_pending_ = false;
}

void RaftNodeImpl::Publish() {
  if (core_.leader()) {
    leaderless_since_ns_.reset();
  } else if (!leaderless_since_ns_) {
    leaderless_since_ns_ = now_.boot_ns;
  }
  if (ticked_ || core_.role() != published_role_) PublishPeers();
  published_role_ = core_.role();
  absl::MutexLock lock(&published_mutex_);
  published_.role = core_.role();
  published_.id = options_.core.id;
  published_.leader = core_.leader();
  published_.term = core_.term();
  published_.commit = core_.commit();
  published_.applied = core_.applied();
  published_.last = core_.log().last();
  published_.is_learner = core_.membership().learners.contains(options_.core.id);
  published_.membership = membership_;
  published_.membership_settled = settled_;
  published_leaderless_since_ns_ = leaderless_since_ns_;
  published_claim_ = tracker_.claim();
  if (published_pairs_taken_ != tracker_.taken()) {
    published_pairs_taken_ = tracker_.taken();
    published_pairs_ = tracker_.pairs();
  }
}

void RaftNodeImpl::PublishPeers() {
  std::vector<PeerStatus> peers;
  for (const auto& [peer, p] : core_.progress()) {
    peers.push_back({peer, p.match_index, p.state, p.silent_ticks < options_.core.election_ticks,
                     core_.KeepsUp(peer)});
  }
  absl::MutexLock lock(&published_mutex_);
  published_peers_ = std::move(peers);
}

void RaftNodeImpl::RefuseAll() {
  // Inputs that came after the last turn still hold callers: run them, then refuse everybody.
  for (Input& input : inbox_.DrainAll()) input();
  const absl::Status stopping = absl::UnavailableError("the node is stopping");
  proposals_.RefuseWaiting(stopping);
  reads_.RefuseAll(stopping);
  members_.RefuseAll();
  for (FreshWaiter& waiter : fresh_waiters_) std::move(waiter.done)();
  fresh_waiters_.clear();
  for (auto& [dir, in] : snapshots_in_) std::move(in.done)(stopping);
  snapshots_in_.clear();
}

void StopTheProcess(const absl::Status& status) {
  LOG_ERROR("fatal, this member stops so that it can not lose or invent data: {}",
            status.ToString());
  base::FlushLog();
  _exit(1);
}

absl::StatusOr<std::unique_ptr<RaftNodeImpl>> Make(NodeOptions options, const Membership& bootstrap,
                                                   storage::LogStore* log, StateMachine* machine,
                                                   Transport* transport) {
  const absl::Status valid = options.core.Validate();
  if (!valid.ok()) return valid;
  if (!options.on_fatal) options.on_fatal = StopTheProcess;
  auto recovered = Recover(bootstrap, log, *machine);
  if (!recovered.ok()) return recovered.status();
  return std::make_unique<RaftNodeImpl>(std::move(options), *recovered, log, machine, transport);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RaftNode>> RaftNode::Start(NodeOptions options,
                                                          const Membership& bootstrap,
                                                          storage::LogStore* log,
                                                          StateMachine* machine,
                                                          Transport* transport) {
  auto node = Make(std::move(options), bootstrap, log, machine, transport);
  if (!node.ok()) return node.status();
  (*node)->StartThreads();
  return *std::move(node);
}

absl::StatusOr<std::unique_ptr<SteppedNode>> SteppedNode::Start(NodeOptions options,
                                                                const Membership& bootstrap,
                                                                storage::LogStore* log,
                                                                StateMachine* machine,
                                                                Transport* transport) {
  auto node = Make(std::move(options), bootstrap, log, machine, transport);
  if (!node.ok()) return node.status();
  return *std::move(node);
}

}  // namespace holdfast::raft
