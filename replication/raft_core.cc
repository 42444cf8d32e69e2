// Roles, elections, inputs and the making of a Ready. The leader's half is raft_core_leader.cc.
#include "replication/raft_core.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace holdfast::raft {

std::string_view RoleName(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "unknown";
}

absl::Status CoreOptions::Validate() const {
  if (!id) return absl::InvalidArgumentError("a member id must not be 0");
  if (heartbeat_ticks == 0) return absl::InvalidArgumentError("heartbeat_ticks must be positive");
  if (election_ticks < 3 * heartbeat_ticks) {
    return absl::InvalidArgumentError("election_ticks must be at least 3 heartbeats");
  }
  if (max_append_bytes == 0 || max_inflight_messages == 0 || max_inflight_bytes == 0 ||
      max_uncommitted_bytes == 0 || max_apply_bytes == 0 || max_unapplied_bytes == 0 ||
      max_unapplied_entries == 0 || max_pending_reads == 0 || max_pending_probes == 0) {
    return absl::InvalidArgumentError("the core's limits must be positive");
  }
  return absl::OkStatus();
}

RaftCore::RaftCore(const CoreOptions& options, const Recovered& recovered, uint64_t seed)
    : options_(options),
      rng_(seed),
      hard_state_(recovered.hard_state),
      hard_state_given_(recovered.hard_state),
      log_(recovered.mark.index, recovered.mark.term, recovered.last, recovered.term_runs) {
  CHECK_OK(options.Validate());
  auto membership = Membership::Decode(recovered.mark.membership);
  CHECK_OK(membership.status());
  mark_membership_ = *std::move(membership);
  for (const EntryRef& entry : recovered.config_entries) {
    auto decoded = Membership::Decode(entry->payload);
    CHECK_OK(decoded.status());
    config_entries_[entry->index] = *std::move(decoded);
  }
  CHECK(recovered.mark.index <= recovered.applied);
  CHECK(recovered.applied <= recovered.last);
  // The hint may name entries whose write never finished: those were not acknowledged by us.
  commit_ = std::max(recovered.applied, std::min(recovered.hard_state.commit, recovered.last));
  applied_ = applying_ = recovered.applied;
  DeriveMembership();
  ResetElectionTimer();
}

// ---------------------------------------------------------------- roles

uint32_t RaftCore::RandomElectionTimeout() {
  if (election_attempts_ > 0) return RetryTimeout();
  const uint32_t spread = options_.election_spread_ticks > 0
                              ? options_.election_spread_ticks
                              : std::max<uint32_t>(1, options_.election_ticks / 4);
  return options_.election_ticks + static_cast<uint32_t>(rng_.Below(spread));
}

// Once the leader is given up, waiting a whole timeout between attempts helps nobody: pre-vote
// keeps a member that cannot win from doing harm. The first waits are short; they double, so that
// answers of a slow network are waited for too.
uint32_t RaftCore::RetryTimeout() {
  constexpr uint32_t kFirst = 10;  // parts of an election timeout
  const uint32_t doublings = std::min<uint32_t>(election_attempts_ - 1, 3);
  const uint32_t first = std::max<uint32_t>(1, options_.election_ticks / kFirst);
  const uint32_t least =
      std::min(first << doublings, std::max<uint32_t>(1, options_.election_ticks / 2));
  return least + static_cast<uint32_t>(rng_.Below(2 * least));
}

void RaftCore::ResetElectionTimer() {
  election_elapsed_ = 0;
  randomized_timeout_ = RandomElectionTimeout();
}

// Thesis 4.2.2: a server outside its newest configuration may still have to be elected, without
// counting itself, for as long as that configuration is not committed: it may be the only one that
// has it, and then nobody else can win.
bool RaftCore::Promotable() const {
  return membership_.IsVoter(options_.id) ||
         (newest_config() > commit_ && MembershipAt(commit_).IsVoter(options_.id));
}

void RaftCore::ResetForTerm(Term term) {
  CHECK(term >= hard_state_.term);
  if (term > hard_state_.term) {
    hard_state_.term = term;
    hard_state_.vote = NodeId(0);
  }
  DropReads();
  leader_ = NodeId(0);
  votes_.clear();
  progress_.clear();
  rounds_.clear();
  round_ = 0;
  ready_.round_started.reset();
  ready_.round_confirmed.reset();
  pending_probes_.clear();
  heartbeat_due_ = commit_to_spread_ = false;
  transfer_to_ = NodeId(0);
  uncommitted_bytes_ = 0;
  uncommitted_sizes_.clear();
  quorum_check_elapsed_ = disk_stall_elapsed_ = heartbeat_elapsed_ = 0;
  // Fetches for peers are void; one for apply is still good.
  std::erase_if(fetches_, [](const auto& fetch) { return bool(fetch.second); });
  ResetElectionTimer();
}

void RaftCore::DropReads() {
  const auto drop = [this](const PendingRead& read) {
    if (read.from == options_.id) ready_.reads_dropped.push_back(read.id);
  };
  for (const Round& round : rounds_) std::for_each(round.reads.begin(), round.reads.end(), drop);
  std::for_each(pending_reads_.begin(), pending_reads_.end(), drop);
  pending_reads_.clear();
  ready_.reads_dropped.insert(ready_.reads_dropped.end(), forwarded_reads_.begin(),
                              forwarded_reads_.end());
  forwarded_reads_.clear();
}

void RaftCore::BecomeFollower(Term term, NodeId leader) {
  ResetForTerm(term);
  role_ = Role::kFollower;
  leader_ = leader;
}

void RaftCore::BecomePreCandidate() {
  CHECK(role_ != Role::kLeader);
  DropReads();
  role_ = Role::kPreCandidate;
  leader_ = NodeId(0);
  ++election_attempts_;
  ResetElectionTimer();
  votes_ = {{options_.id, true}};
  // Thesis 9.6: ask first, at no cost to anybody's term.
  for (const NodeId peer : membership_.All()) {
    if (peer == options_.id || !membership_.IsVoter(peer)) continue;
    Message m = Make(MessageType::kVote, peer);
    m.pre_vote = true;
    m.term = hard_state_.term + 1;
    m.prev_index = log_.last();
    m.prev_term = log_.last_term();
    Send(std::move(m));
  }
  if (CountVotes(membership_, votes_) == VoteOutcome::kWon) BecomeCandidate();
}

void RaftCore::BecomeCandidate(bool forced) {
  CHECK(role_ != Role::kLeader);
  ResetForTerm(hard_state_.term + 1);
  role_ = Role::kCandidate;
  hard_state_.vote = options_.id;
  // Our own vote counts, and the request leaves, only once term and vote are on disk (C1): a vote
  // forgotten in a crash could be given twice.
  for (const NodeId peer : membership_.All()) {
    if (!membership_.IsVoter(peer)) continue;
    if (peer == options_.id) {
      SendAfterDurable(Make(MessageType::kVoteReply, peer));
      continue;
    }
    Message m = Make(MessageType::kVote, peer);
    m.prev_index = log_.last();
    m.prev_term = log_.last_term();
    m.forced = forced;
    SendAfterDurable(std::move(m));
  }
}

void RaftCore::BecomeLeader() {
  CHECK(role_ == Role::kCandidate);
  election_attempts_ = 0;
  ResetForTerm(hard_state_.term);
  role_ = Role::kLeader;
  leader_ = options_.id;
  SyncProgressWithMembership();
  term_start_ = log_.last() + 1;
  auto entry = std::make_shared<storage::Entry>();
  entry->term = hard_state_.term;
  entry->index = term_start_;
  entry->type = EntryType::kEmpty;
  AppendAsLeader({std::move(entry)});
  heartbeat_due_ = true;
}

void RaftCore::Campaign() {
  if (role_ == Role::kLeader || !Promotable()) return;
  BecomePreCandidate();
}

// ---------------------------------------------------------------- inputs

void RaftCore::Tick() {
  if (++heartbeat_elapsed_ >= options_.heartbeat_ticks) {
    heartbeat_elapsed_ = 0;
    if (hard_state_given_.commit < commit_) commit_hint_due_ = true;
    if (role_ == Role::kLeader) {
      heartbeat_due_ = true;
      CheckForLostAppends();
      TickLearners();
    }
  }
  if (role_ == Role::kLeader) {
    TickLeader();
    return;
  }
  if (++election_elapsed_ < randomized_timeout_) return;
  if (Promotable()) return BecomePreCandidate();
  // A learner waits for whoever comes; what it asked the silent leader must be asked again.
  if (leader_) {
    DropReads();
    leader_ = NodeId(0);
  }
}

bool RaftCore::IgnoreVoteByStickiness(const Message& m) const {
  // Thesis 4.2.3: while a leader is heard, nobody may be talked into replacing it.
  if (m.forced) return false;
  if (role_ == Role::kLeader) return true;
  return leader_ && election_elapsed_ < options_.election_ticks;
}

// Paper 5.1. False: nothing more to do with this message.
bool RaftCore::StepTerm(const Message& m) {
  if (m.type == MessageType::kVote && m.term > hard_state_.term && IgnoreVoteByStickiness(m)) {
    return false;
  }
  if (m.term > hard_state_.term) {
    // A pre-vote names a term that nobody has taken yet.
    if (m.type == MessageType::kVote && m.pre_vote) return true;
    if (m.type == MessageType::kVoteReply && m.pre_vote && !m.reject) return true;
    const bool from_leader = m.type == MessageType::kAppend || m.type == MessageType::kHeartbeat ||
                             m.type == MessageType::kSnapshot;
    BecomeFollower(m.term, from_leader ? m.from : NodeId(0));
    return true;
  }
  if (m.term < hard_state_.term) {
    // An old leader or candidate learns our term from a refusal, so that it is not stuck; a round
    // refused like this never counts (Freshness L2).
    if (m.type == MessageType::kAppend || m.type == MessageType::kHeartbeat) {
      Message reply = Make(MessageType::kAppendReply, m.from);
      reply.reject = true;
      reply.prev_index = m.prev_index;
      Send(std::move(reply));
    } else if (m.type == MessageType::kVote) {
      Message reply = Make(MessageType::kVoteReply, m.from);
      reply.reject = true;
      reply.pre_vote = m.pre_vote;
      Send(std::move(reply));
    } else if (m.type == MessageType::kPropose) {
      RefuseProposal(m);
    } else if (m.type == MessageType::kProposeReply) {
      // A refusal is about the id, whatever term it was said in.
      ready_.proposals_refused.push_back(m.propose_id);
    }
    return false;
  }
  return true;
}

void RaftCore::Step(Message m) {
  if (!StepTerm(m)) return;
  switch (m.type) {
    case MessageType::kVote:
      return StepVoteRequest(m);
    case MessageType::kVoteReply:
      return StepVoteReply(m);
    case MessageType::kAppend:
      return StepAppend(std::move(m));
    case MessageType::kHeartbeat:
      return StepHeartbeat(m);
    case MessageType::kSnapshot:
      return StepSnapshot(m);
    case MessageType::kReadIndexReply:
      return StepReadIndexReply(m);
    case MessageType::kProposeReply:
      ready_.proposals_refused.push_back(m.propose_id);
      return;
    case MessageType::kConfirm:
      ready_.confirms.push_back(std::move(m));
      return;
    case MessageType::kPropose:
      return StepPropose(std::move(m));
    case MessageType::kAppendReply:
      if (role_ == Role::kLeader) StepAppendReply(m);
      return;
    case MessageType::kHeartbeatReply:
      if (role_ == Role::kLeader) StepHeartbeatReply(m);
      return;
    case MessageType::kReadIndex:
      if (role_ == Role::kLeader) StepReadIndex(m);
      return;
    case MessageType::kProbe:
      if (role_ == Role::kLeader) StepProbe(m);
      return;
    case MessageType::kTimeoutNow:
      return StepTimeoutNow(m);
  }
}

void RaftCore::StepVoteRequest(const Message& m) {
  if (m.pre_vote && IgnoreVoteByStickiness(m)) return;
  const bool free_to_vote = hard_state_.vote == m.from || (!hard_state_.vote && !leader_) ||
                            (m.pre_vote && m.term > hard_state_.term);
  // Paper 5.4.1, first come first served.
  const bool grant = free_to_vote && log_.IsUpToDate(m.prev_index, m.prev_term);
  Message reply = Make(MessageType::kVoteReply, m.from);
  reply.pre_vote = m.pre_vote;
  reply.reject = !grant;
  if (!grant) return Send(std::move(reply));
  if (m.pre_vote) {
    reply.term = m.term;
    return Send(std::move(reply));
  }
  hard_state_.vote = m.from;
  election_attempts_ = 0;  // it gets a whole timeout to win and to be heard
  ResetElectionTimer();
  SendAfterDurable(std::move(reply));
}

void RaftCore::StepVoteReply(const Message& m) {
  const bool pre = role_ == Role::kPreCandidate && m.pre_vote;
  const bool real = role_ == Role::kCandidate && !m.pre_vote;
  if (!pre && !real) return;
  if (pre && !m.reject && m.term != hard_state_.term + 1) return;  // of an older round of asking
  votes_[m.from] = !m.reject;
  switch (CountVotes(membership_, votes_)) {
    case VoteOutcome::kPending:
      return;
    case VoteOutcome::kLost:
      return BecomeFollower(hard_state_.term, NodeId(0));
    case VoteOutcome::kWon:
      return pre ? BecomeCandidate() : BecomeLeader();
  }
}

// Paper 5.2: whoever leads this term, we follow.
void RaftCore::HearLeader(const Message& m) {
  CHECK(role_ != Role::kLeader);  // two leaders of one term: election safety is broken
  const bool retrying = std::exchange(election_attempts_, 0) > 0;
  if (role_ != Role::kFollower || leader_ != m.from || retrying) BecomeFollower(m.term, m.from);
  election_elapsed_ = 0;
}

void RaftCore::AppendToLog(std::vector<EntryRef> entries) {
  if (entries.empty()) return;
  const Index first = entries.front()->index;
  CHECK(first > commit_);  // a committed entry never changes
  bool changed = config_entries_.lower_bound(first) != config_entries_.end();
  config_entries_.erase(config_entries_.lower_bound(first), config_entries_.end());
  for (const EntryRef& entry : entries) {
    if (entry->type != EntryType::kConfig) continue;
    auto decoded = Membership::Decode(entry->payload);
    CHECK_OK(decoded.status());
    config_entries_[entry->index] = *std::move(decoded);
    changed = true;
  }
  log_.Append(std::move(entries));
  if (changed) DeriveMembership();
}

void RaftCore::StepAppend(Message m) {
  HearLeader(m);
  Message reply = Make(MessageType::kAppendReply, m.from);
  size_t known = 0;
  if (m.prev_index < commit_) {
    // Late or repeated: what is committed is known to match.
    known = std::min<size_t>(m.entries.size(), commit_.value - m.prev_index.value);
  } else if (!log_.Matches(m.prev_index, m.prev_term)) {
    const auto [hint, hint_term] =
        log_.FindConflictByTerm(std::min(m.prev_index, log_.last()), m.prev_term);
    reply.reject = true;
    reply.prev_index = m.prev_index;
    reply.hint_index = hint;
    reply.hint_term = hint_term;
    return Send(std::move(reply));
  }
  // Paper 5.3: what is already here is not rewritten; from the first conflict on, all is replaced.
  while (known < m.entries.size() &&
         log_.Matches(m.entries[known]->index, m.entries[known]->term)) {
    ++known;
  }
  const Index last_new = std::max(commit_, m.prev_index + m.entries.size());
  m.entries.erase(m.entries.begin(), m.entries.begin() + static_cast<ptrdiff_t>(known));
  AppendToLog(std::move(m.entries));
  AdvanceCommit(std::min(m.commit, last_new));
  reply.match_index = last_new;
  // Even when nothing is new: the same entries may still be on their way to the disk (C1).
  SendAfterDurable(std::move(reply));
}

void RaftCore::StepHeartbeat(const Message& m) {
  HearLeader(m);
  // The leader caps this by our match index, so we must have it.
  if (m.commit > log_.last()) {
    ready_.damage = "the leader counts on entries that this member's disk no longer has";
    return;
  }
  AdvanceCommit(m.commit);
  if (m.round == 0) return;
  Message reply = Make(MessageType::kHeartbeatReply, m.from);
  reply.round = m.round;
  Send(std::move(reply));
}

void RaftCore::StepSnapshot(const Message& m) {
  HearLeader(m);
  CHECK(m.payloads.size() == 2);
  Message reply = Make(MessageType::kAppendReply, m.from);
  if (m.prev_index <= commit_ || log_.Matches(m.prev_index, m.prev_term)) {
    AdvanceCommit(m.prev_index);
    reply.match_index = commit_;
    return SendAfterDurable(std::move(reply));
  }
  auto membership = Membership::Decode(m.payloads[0]);
  CHECK_OK(membership.status());
  log_.Reset(m.prev_index, m.prev_term);
  mark_membership_ = *std::move(membership);
  config_entries_.clear();
  DeriveMembership();
  commit_ = applying_ = applied_ = m.prev_index;
  applying_bytes_ = 0;
  apply_sizes_.clear();
  fetched_apply_.clear();
  fetches_.clear();
  apply_fetch_pending_ = false;
  reset_ = storage::LogMark{m.prev_index, m.prev_term, m.payloads[0]};
  snapshot_dir_ = m.payloads[1];
  reply.match_index = m.prev_index;
  SendAfterDurable(std::move(reply));
}

void RaftCore::StepReadIndexReply(const Message& m) {
  // Only an answer to a question of this life counts: a restarted member must not take one that
  // was meant for its former self.
  const auto asked = std::find(forwarded_reads_.begin(), forwarded_reads_.end(), m.read_id);
  if (asked == forwarded_reads_.end()) return;
  // Ids rise and the leader's index does not fall: the answer confirms every older question too.
  for (auto it = forwarded_reads_.begin(); it != asked + 1; ++it) {
    ready_.reads.push_back({*it, m.read_index});
  }
  forwarded_reads_.erase(forwarded_reads_.begin(), asked + 1);
}

ProposeOutcome RaftCore::Propose(uint64_t propose_id, std::vector<std::string> payloads) {
  if (!leader_ || transfer_to_) return ProposeOutcome::kNoLeader;
  if (role_ != Role::kLeader) {
    Message m = Make(MessageType::kPropose, leader_);
    m.propose_id = propose_id;
    m.payloads = std::move(payloads);
    Send(std::move(m));
    return ProposeOutcome::kForwarded;
  }
  return ProposeAsLeader(absl::MakeSpan(payloads));
}

ProposeOutcome RaftCore::ProposeAsLeader(absl::Span<std::string> payloads) {
  CHECK(role_ == Role::kLeader);
  if (transfer_to_) return ProposeOutcome::kNoLeader;
  if (uncommitted_bytes_ >= options_.max_uncommitted_bytes ||
      log_.last().value - applied_.value >= options_.max_unapplied_entries) {
    return ProposeOutcome::kFull;
  }
  if (payloads.empty()) return ProposeOutcome::kAppended;
  std::vector<EntryRef> entries;
  entries.reserve(payloads.size());
  Index next = log_.last() + 1;
  for (std::string& payload : payloads) {
    auto entry = std::make_shared<storage::Entry>();
    entry->term = hard_state_.term;
    entry->index = next;
    entry->payload = std::move(payload);
    ++next;
    entries.push_back(std::move(entry));
  }
  AppendAsLeader(std::move(entries));
  return ProposeOutcome::kAppended;
}

void RaftCore::StepPropose(Message m) {
  if (role_ == Role::kLeader &&
      Propose(m.propose_id, std::move(m.payloads)) == ProposeOutcome::kAppended) {
    return;
  }
  RefuseProposal(m);
}

// Never passed on a second time: a refusal is certain, a chain of forwards is not.
void RaftCore::RefuseProposal(const Message& m) {
  Message reply = Make(MessageType::kProposeReply, m.from);
  reply.reject = true;
  reply.propose_id = m.propose_id;
  Send(std::move(reply));
}

void RaftCore::StartRead(uint64_t read_id) {
  if (role_ == Role::kLeader) {
    pending_reads_.push_back({options_.id, read_id});
    return;
  }
  if (!leader_) {
    ready_.reads_dropped.push_back(read_id);
    return;
  }
  // The oldest has waited longest for an answer that was probably lost.
  if (forwarded_reads_.size() >= options_.max_pending_reads) {
    ready_.reads_dropped.push_back(forwarded_reads_.front());
    forwarded_reads_.erase(forwarded_reads_.begin());
  }
  CHECK(forwarded_reads_.empty() || forwarded_reads_.back() < read_id);
  forwarded_reads_.push_back(read_id);
  Message m = Make(MessageType::kReadIndex, leader_);
  m.read_id = read_id;
  Send(std::move(m));
}

void RaftCore::OnDurable(uint64_t seq) {
  log_.OnDurable(seq);
  disk_stall_elapsed_ = 0;
  if (role_ == Role::kLeader) MaybeCommit();
}

void RaftCore::OnApplied(Index index) {
  if (index <= applied_) return;  // of before a snapshot was installed
  CHECK(index <= applying_);
  applied_ = index;
  while (!apply_sizes_.empty() && apply_sizes_.front().first <= index) {
    applying_bytes_ -= apply_sizes_.front().second;
    apply_sizes_.pop_front();
  }
}

void RaftCore::OnFetched(uint64_t fetch_id, std::vector<EntryRef> entries) {
  const auto it = fetches_.find(fetch_id);
  if (it == fetches_.end()) return;
  const NodeId peer = it->second;
  fetches_.erase(it);
  if (peer) return SendFetched(peer, std::move(entries));
  apply_fetch_pending_ = false;
  // Committed, not yet applied entries are never compacted away.
  CHECK(!entries.empty());
  fetched_apply_ = std::move(entries);
}

void RaftCore::OnPeerUnreachable(NodeId peer) {
  if (role_ == Role::kLeader) {
    const auto it = progress_.find(peer);
    if (it != progress_.end() && it->second.state == ProgressState::kReplicate) {
      it->second.BecomeProbe(it->second.match_index + 1);
      sends_due_ = true;
    }
    return;
  }
  if (peer != leader_) return;
  // A broken connection is only a hint: forget the leader and ask early. Pre-vote and the others'
  // stickiness still decide whether it is gone.
  DropReads();
  leader_ = NodeId(0);
  election_elapsed_ = 0;
  randomized_timeout_ =
      1 + static_cast<uint32_t>(rng_.Below(std::max<uint32_t>(1, options_.election_ticks / 5)));
}

storage::LogMark RaftCore::CompactTo(Index index) {
  CHECK(index <= applied_);
  CHECK(index <= log_.durable());
  mark_membership_ = Membership(MembershipAt(index));
  config_entries_.erase(config_entries_.begin(), config_entries_.upper_bound(index));
  log_.CompactTo(index);
  return {index, *log_.TermAt(index), mark_membership_.Encode()};
}

const Membership& RaftCore::MembershipAt(Index index) const {
  const auto after = config_entries_.upper_bound(index);
  return after == config_entries_.begin() ? mark_membership_ : std::prev(after)->second;
}

void RaftCore::DeriveMembership() {
  membership_ = config_entries_.empty() ? mark_membership_ : config_entries_.rbegin()->second;
  ready_.membership_changed = true;
  if (role_ == Role::kLeader) SyncProgressWithMembership();
}

void RaftCore::AdvanceCommit(Index index) {
  if (index <= commit_) return;
  CHECK(index <= log_.last());
  commit_ = index;
}

bool RaftCore::own_term_committed() const {
  return role_ == Role::kLeader && commit_ >= term_start_;
}

// ---------------------------------------------------------------- output

Message RaftCore::Make(MessageType type, NodeId to) const {
  Message m;
  m.type = type;
  m.from = options_.id;
  m.to = to;
  m.term = hard_state_.term;
  return m;
}

void RaftCore::BuildAppendBatch() {
  const bool vote_changed =
      hard_state_.term != hard_state_given_.term || hard_state_.vote != hard_state_given_.vote;
  const bool writes = vote_changed || log_.has_unwritten() || reset_.has_value();
  if (!writes && !commit_hint_due_) {
    if (after_durable_.empty()) return;
    if (!log_.writing()) {
      for (Message& m : after_durable_) Send(std::move(m));
      after_durable_.clear();
      return;
    }
  }
  AppendBatch& batch = ready_.append;
  batch.seq = next_seq_++;
  batch.log.reset = std::exchange(reset_, std::nullopt);
  batch.snapshot_dir = std::exchange(snapshot_dir_, {});
  batch.log.entries = log_.TakeUnwritten();
  // A hint that comes alone is synced too: a member restarted without its peers serves up to it,
  // and at most one comes a heartbeat, after the writes have ended.
  batch.log.must_sync = true;
  if (writes || commit_hint_due_) {
    hard_state_.commit = commit_;
    batch.log.hard_state = hard_state_given_ = hard_state_;
  }
  batch.after_durable = std::exchange(after_durable_, {});
  commit_hint_due_ = false;
  log_.NoteBatch(batch.seq);
}

std::vector<EntryRef> RaftCore::NextToApply(Index limit, size_t max_bytes) {
  const Index first = applying_ + 1;
  std::vector<EntryRef> entries = log_.Cached(first, limit, max_bytes);
  if (!entries.empty()) return entries;
  if (!fetched_apply_.empty() && fetched_apply_.front()->index == first) {
    entries = std::exchange(fetched_apply_, {});
    while (entries.back()->index > limit) entries.pop_back();
    return entries;
  }
  fetched_apply_.clear();
  if (!apply_fetch_pending_) {
    apply_fetch_pending_ = true;
    const uint64_t id = next_fetch_id_++;
    fetches_[id] = NodeId(0);
    ready_.fetches.push_back({id, first, limit, max_bytes});
  }
  return {};
}

void RaftCore::BuildApply() {
  // C4: committed and locally durable.
  const Index limit = std::min(commit_, log_.durable());
  while (applying_ < limit && applying_bytes_ < options_.max_apply_bytes) {
    const auto entries = NextToApply(limit, options_.max_apply_bytes - applying_bytes_);
    if (entries.empty()) break;
    size_t bytes = 0;
    for (const EntryRef& entry : entries) bytes += entry->bytes();
    applying_ = entries.back()->index;
    applying_bytes_ += bytes;
    apply_sizes_.emplace_back(applying_, bytes);
    ready_.apply.insert(ready_.apply.end(), entries.begin(), entries.end());
  }
}

bool RaftCore::HasReady() const {
  const Ready& r = ready_;
  const bool output = !r.messages.empty() || !r.reads.empty() || !r.reads_dropped.empty() ||
                      !r.proposals_refused.empty() || !r.confirms.empty() || !r.fetches.empty() ||
                      !r.snapshots_wanted.empty() || r.round_started || r.round_confirmed ||
                      r.membership_changed || !r.damage.empty();
  const bool disk = log_.has_unwritten() || reset_ || !after_durable_.empty() || commit_hint_due_ ||
                    hard_state_.term != hard_state_given_.term ||
                    hard_state_.vote != hard_state_given_.vote;
  const bool apply = applying_ < std::min(commit_, log_.durable()) &&
                     applying_bytes_ < options_.max_apply_bytes && !apply_fetch_pending_;
  return output || disk || apply || sends_due_ || commit_to_spread_ || RoundDue();
}

Ready RaftCore::TakeReady() {
  if (role_ == Role::kLeader) {
    if (RoundDue()) StartRound();
    for (auto& [peer, progress] : progress_) SendAppends(peer, progress);
    SpreadCommit();
  }
  sends_due_ = false;
  BuildAppendBatch();
  BuildApply();
  log_.EvictTo(std::min(applied_, log_.durable()), options_.cached_entry_bytes);
  // When apply falls far behind, what waits for it is fetched back from the disk in its turn.
  log_.EvictTo(std::min(commit_, log_.durable()), options_.max_unapplied_bytes);
  return std::exchange(ready_, {});
}

void RaftCore::CheckInvariants() const {
  CHECK(log_.mark_index() <= applied_);
  CHECK(applied_ <= applying_);
  CHECK(applying_ <= commit_);
  CHECK(commit_ <= log_.last());
  CHECK(log_.durable() <= log_.last());
  CHECK(role_ == Role::kLeader || progress_.empty());
  CHECK((role_ == Role::kLeader) == (leader_ == options_.id));
  CHECK(hard_state_.term >= log_.last_term());
  CHECK(role_ == Role::kLeader || !transfer_to_);
  CHECK(!membership_.voters.empty());
  for (const auto& [peer, p] : progress_) {
    CHECK(peer != options_.id);
    CHECK(p.match_index < p.next_index);
    CHECK(p.match_index <= log_.last());
    CHECK(p.next_index <= log_.last() + 1);
    CHECK(p.acked_round <= round_);
    CHECK(p.inflight.size() <= options_.max_inflight_messages);
  }
}

}  // namespace holdfast::raft
