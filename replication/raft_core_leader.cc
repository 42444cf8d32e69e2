// The leader's half of the core: replication, commit, rounds.
#include <algorithm>

#include "base/check.h"
#include "replication/raft_core.h"

namespace holdfast::raft {

void RaftCore::SyncProgressWithMembership() {
  std::erase_if(progress_, [this](const auto& p) { return !membership_.Contains(p.first); });
  for (const NodeId peer : membership_.All()) {
    if (peer == options_.id || progress_.contains(peer)) continue;
    progress_[peer].next_index = log_.last() + 1;
  }
}

bool RaftCore::QuorumActive() const {
  std::map<NodeId, bool> active{{options_.id, true}};
  for (const auto& [peer, progress] : progress_) active[peer] = progress.recent_active;
  return CountVotes(membership_, active) == VoteOutcome::kWon;
}

void RaftCore::TickLeader() {
  for (auto& [peer, progress] : progress_) {
    if (progress.snapshot_pause_ticks > 0) --progress.snapshot_pause_ticks;
    ++progress.silent_ticks;
  }
  TickTransfer();
  // Thesis 6.2: without a quorum for an election timeout, we must not go on as if we led.
  if (++quorum_check_elapsed_ >= options_.election_ticks) {
    quorum_check_elapsed_ = 0;
    if (!QuorumActive()) return BecomeFollower(hard_state_.term, NodeId(0));
    for (auto& [peer, progress] : progress_) progress.recent_active = false;
  }
  // Freshness L5: a leader that cannot write its own disk holds everybody up.
  disk_stall_elapsed_ = log_.writing() ? disk_stall_elapsed_ + 1 : 0;
  if (disk_stall_elapsed_ >= options_.election_ticks) {
    BecomeFollower(hard_state_.term, NodeId(0));
  }
}

void RaftCore::AppendAsLeader(std::vector<EntryRef> entries) {
  size_t bytes = 0;
  for (const EntryRef& entry : entries) bytes += entry->bytes();
  uncommitted_bytes_ += bytes;
  uncommitted_sizes_.emplace_back(entries.back()->index, bytes);
  AppendToLog(std::move(entries));
}

void RaftCore::MaybeCommit() {
  const Index reached(QuorumValue(membership_, [this](NodeId id) {
    // C2: we count ourselves only once our own disk has it.
    return id == options_.id ? log_.durable().value : progress_.at(id).match_index.value;
  }));
  if (reached <= commit_) return;
  // C5, thesis 3.6.2: only entries of the leader's own term commit by counting.
  if (log_.TermAt(reached) != hard_state_.term) return;
  AdvanceCommit(reached);
  commit_to_spread_ = true;
  while (!uncommitted_sizes_.empty() && uncommitted_sizes_.front().first <= commit_) {
    uncommitted_bytes_ -= uncommitted_sizes_.front().second;
    uncommitted_sizes_.pop_front();
  }
  AdvanceMembership();
}

// ---------------------------------------------------------------- replies

void RaftCore::StepAppendReply(const Message& m) {
  const auto it = progress_.find(m.from);
  if (it == progress_.end()) return;
  Progress& p = it->second;
  p.recent_active = true;
  p.silent_ticks = 0;
  sends_due_ = true;
  if (m.reject) {
    if (p.state == ProgressState::kReplicate) {
      if (m.prev_index > p.match_index) p.BecomeProbe(p.match_index + 1);
      return;
    }
    if (p.state != ProgressState::kProbe || m.prev_index != p.next_index - 1) return;  // stale
    // Both sides skip whole terms, so that one probe a term is enough (paper 5.3, end).
    const Index agree = log_.FindConflictByTerm(m.hint_index, m.hint_term).first;
    p.BecomeProbe(std::min(m.prev_index, agree + 1));
    return;
  }
  CHECK_MSG(m.match_index <= log_.last(), "a follower acknowledged what this leader never had");
  p.heard_ack = true;
  p.match_index = std::max(p.match_index, m.match_index);
  p.next_index = std::max(p.next_index, p.match_index + 1);
  p.FreeInflight(m.match_index);
  if (p.state == ProgressState::kProbe ||
      (p.state == ProgressState::kSnapshot && p.match_index >= log_.mark_index())) {
    p.BecomeReplicate();
  }
  MaybeCommit();  // `p` may be gone after this
  if (role_ == Role::kLeader) MaybeSendTimeoutNow();
}

void RaftCore::StepHeartbeatReply(const Message& m) {
  const auto it = progress_.find(m.from);
  if (it == progress_.end()) return;
  Progress& p = it->second;
  p.recent_active = true;
  p.silent_ticks = 0;
  sends_due_ = true;
  // A round that left with or before the probe says nothing about its loss.
  if (m.round > p.probe_round) p.probe_sent = false;
  // Freshness L2: the term is ours, or StepTerm would have stopped the message.
  if (m.round > round_) return;
  p.acked_round = std::max(p.acked_round, m.round);
  ConfirmRounds();
}

// An append can be lost without its stream breaking (a full queue). If something is outstanding
// and a whole heartbeat interval brought no answer, ask where the peer stands.
void RaftCore::CheckForLostAppends() {
  for (auto& [peer, p] : progress_) {
    const bool outstanding = p.next_index > p.match_index + 1;
    if (p.state == ProgressState::kReplicate && outstanding && !p.heard_ack) p.check_due = true;
    p.heard_ack = false;
  }
}

// ---------------------------------------------------------------- appends

void RaftCore::SendAppends(NodeId peer, Progress& p) {
  switch (p.state) {
    case ProgressState::kSnapshot:
      return;
    case ProgressState::kProbe:
      if (!p.probe_sent && !p.fetch_pending) SendOneAppend(peer, p);
      return;
    case ProgressState::kReplicate:
      while (p.next_index <= log_.last() && !p.fetch_pending &&
             p.inflight.size() < options_.max_inflight_messages &&
             p.inflight_bytes < options_.max_inflight_bytes) {
        if (!SendOneAppend(peer, p)) return;
      }
      if (!std::exchange(p.check_due, false) || p.state != ProgressState::kReplicate) return;
      if (log_.TermAt(p.next_index - 1)) return EmitAppend(peer, p, {});
      // The log was cut behind what this peer was sent and never answered: where it stands must be
      // found anew, or only a snapshot helps.
      p.BecomeProbe(p.match_index + 1);
      SendOneAppend(peer, p);
      return;
  }
}

// False: nothing was sent (the entries must be fetched, or only a snapshot helps).
bool RaftCore::SendOneAppend(NodeId peer, Progress& p) {
  if (!log_.TermAt(p.next_index - 1)) {
    WantSnapshot(peer, p);
    return false;
  }
  auto entries = log_.Cached(p.next_index, log_.last(), options_.max_append_bytes);
  if (entries.empty() && p.next_index <= log_.last()) {
    const uint64_t id = next_fetch_id_++;
    fetches_[id] = peer;
    p.fetch_pending = true;
    ready_.fetches.push_back({id, p.next_index, log_.last(), options_.max_append_bytes});
    return false;
  }
  EmitAppend(peer, p, std::move(entries));
  return true;
}

void RaftCore::SendFetched(NodeId peer, std::vector<EntryRef> entries) {
  const auto it = progress_.find(peer);
  if (role_ != Role::kLeader || it == progress_.end() || !it->second.fetch_pending) return;
  Progress& p = it->second;
  p.fetch_pending = false;
  if (p.state == ProgressState::kSnapshot) return;
  if (entries.empty()) return WantSnapshot(peer, p);
  if (entries.front()->index != p.next_index || !log_.TermAt(p.next_index - 1)) return;
  EmitAppend(peer, p, std::move(entries));
}

void RaftCore::EmitAppend(NodeId peer, Progress& p, std::vector<EntryRef> entries) {
  const auto prev_term = log_.TermAt(p.next_index - 1);
  CHECK(prev_term.has_value());
  Message m = Make(MessageType::kAppend, peer);
  m.prev_index = p.next_index - 1;
  m.prev_term = *prev_term;
  m.commit = commit_;
  size_t bytes = 0;
  for (const EntryRef& entry : entries) bytes += entry->bytes();
  if (p.state == ProgressState::kProbe) {
    p.probe_sent = true;
    p.probe_round = round_;
  } else if (!entries.empty()) {
    p.next_index = entries.back()->index + 1;
    p.inflight.emplace_back(entries.back()->index, bytes);
    p.inflight_bytes += bytes;
  }
  const Index shown = m.prev_index + entries.size();
  p.commit_sent = std::max(p.commit_sent, std::min(commit_, shown));
  m.entries = std::move(entries);
  Send(std::move(m));
}

void RaftCore::WantSnapshot(NodeId peer, Progress& p) {
  // Nobody there to take it, or the last try failed just now: a heartbeat reply brings us back.
  if (!p.recent_active || p.snapshot_pause_ticks > 0) return;
  p.BecomeSnapshot();
  ready_.snapshots_wanted.push_back(peer);
}

void RaftCore::OnSnapshotSent(NodeId peer, Index index, bool ok) {
  const auto it = progress_.find(peer);
  if (role_ != Role::kLeader || it == progress_.end()) return;
  Progress& p = it->second;
  if (p.state != ProgressState::kSnapshot) return;
  sends_due_ = true;
  p.snapshot_index = index;
  p.BecomeProbe(std::min(ok ? index + 1 : p.match_index + 1, log_.last() + 1));
  // A checkpoint costs a flush: after a failure the next one waits for an election timeout.
  p.probe_sent = !ok;
  p.snapshot_pause_ticks = ok ? 0 : options_.election_ticks;
}

// Followers apply, and forwarded callers are answered, as soon as they know: the commit index does
// not wait for the next append or tick.
void RaftCore::SpreadCommit() {
  commit_to_spread_ = false;
  for (auto& [peer, p] : progress_) {
    const Index known = std::min(commit_, p.match_index);
    if (p.state != ProgressState::kReplicate || p.commit_sent >= known) continue;
    Message m = Make(MessageType::kHeartbeat, peer);
    m.commit = p.commit_sent = known;
    Send(std::move(m));
  }
}

// ---------------------------------------------------------------- rounds: reads and freshness

void RaftCore::StepReadIndex(const Message& m) {
  // A question that is dropped is asked again by the follower's driver.
  if (pending_reads_.size() >= options_.max_pending_reads) return;
  pending_reads_.push_back({m.from, m.read_id});
}

void RaftCore::StepProbe(const Message& m) {
  // Freshness L1: held until an entry of our term is committed, then attached to the NEXT round.
  if (pending_probes_.size() >= options_.max_pending_probes) {
    pending_probes_.erase(pending_probes_.begin());
  }
  pending_probes_.push_back({m.from, m.nonce, m.boot, m.urgent});
}

bool RaftCore::RoundDue() const {
  if (role_ != Role::kLeader) return false;
  if (heartbeat_due_) return true;
  if (!own_term_committed()) return false;
  // Reads share rounds: while one is out on demand, later reads gather for the next.
  if (std::any_of(rounds_.begin(), rounds_.end(),
                  [](const Round& round) { return round.on_demand; })) {
    return false;
  }
  return !pending_reads_.empty() || AnyUrgent(pending_probes_);
}

bool RaftCore::AnyUrgent(const std::vector<PendingProbe>& probes) {
  return std::any_of(probes.begin(), probes.end(), [](const auto& p) { return p.urgent; });
}

void RaftCore::StartRound() {
  heartbeat_due_ = false;
  Round round;
  round.n = ++round_;
  round.commit_at_send = commit_;
  round.gate_held = own_term_committed();
  if (round.gate_held) {
    round.reads = std::exchange(pending_reads_, {});
    round.probes = std::exchange(pending_probes_, {});
    round.on_demand =
        !round.reads.empty() || std::any_of(round.probes.begin(), round.probes.end(),
                                            [](const PendingProbe& p) { return p.urgent; });
  }
  rounds_.push_back(std::move(round));
  ready_.round_started = round_;
  for (auto& [peer, p] : progress_) {
    Message m = Make(MessageType::kHeartbeat, peer);
    m.round = round_;
    m.commit = std::min(commit_, p.match_index);
    p.commit_sent = std::max(p.commit_sent, m.commit);
    Send(std::move(m));
  }
  ConfirmRounds();  // a single voter is its own quorum
}

void RaftCore::GrantRead(const PendingRead& read, Index index) {
  if (read.from == options_.id) {
    ready_.reads.push_back({read.id, index});
    return;
  }
  Message m = Make(MessageType::kReadIndexReply, read.from);
  m.read_id = read.id;
  m.read_index = index;
  Send(std::move(m));
}

void RaftCore::ConfirmRounds() {
  const uint64_t confirmed = QuorumValue(membership_, [this](NodeId id) {
    return id == options_.id ? round_ : progress_.at(id).acked_round;
  });
  while (!rounds_.empty() && rounds_.front().n <= confirmed) {
    const Round round = std::move(rounds_.front());
    rounds_.pop_front();
    // C6: what was committed when the round left; one quorum answer confirms all that wait on it.
    for (const PendingRead& read : round.reads) GrantRead(read, round.commit_at_send);
    for (const PendingProbe& probe : round.probes) {
      Message m = Make(MessageType::kConfirm, probe.from);  // Freshness L3
      m.nonce = probe.nonce;
      m.boot = probe.boot;
      m.read_index = commit_;
      Send(std::move(m));
    }
    if (round.gate_held) ready_.round_confirmed = {round.n, round.commit_at_send};  // L4
  }
}

}  // namespace holdfast::raft
