// The world around the cores: faults, clients, healing.
#include <fmt/format.h>

#include <algorithm>

#include "cluster.h"

namespace holdfast::raft::test {

void Cluster::InjectFaults() {
  if (Chance(options_.cut)) CutLinks();
  if (Chance(options_.heal)) cut_.clear();
  for (auto& [id, node] : nodes_) {
    if (!node.up) {
      if (Chance(options_.restart)) Start(node);
    } else if (Chance(options_.crash)) {
      Crash(node);
    } else if (node.paused) {
      if (Chance(options_.resume)) Resume(node);
    } else if (Chance(options_.pause)) {
      Pause(node);
    } else if (Chance(options_.campaign)) {
      node.core->Campaign();
      Observe(node);
    } else if (Chance(options_.peer_lost)) {
      const auto all = membership_.All();
      const NodeId peer = all[rng_.Below(all.size())];
      if (peer != id) node.core->OnPeerUnreachable(peer);
      Observe(node);
    } else if (Chance(options_.transfer) && node.core->role() == Role::kLeader) {
      const auto all = membership_.All();
      if (node.core->TransferLeadership(all[rng_.Below(all.size())]).ok()) ++figures_.transfers;
      Observe(node);
    }
  }
}

void Cluster::CutLinks() {
  ++figures_.cuts;
  const auto all = membership_.All();
  const NodeId one = rng_.OneIn(2) ? SomeLeader() : all[rng_.Below(all.size())];
  switch (rng_.Below(5)) {
    case 0:  // isolate one
      for (const NodeId other : all) cut_[{one, other}] = cut_[{other, one}] = true;
      break;
    case 1:  // it hears, but is not heard
      for (const NodeId other : all) cut_[{one, other}] = true;
      break;
    case 2: {  // two halves
      std::map<NodeId, bool> side;
      for (const NodeId id : all) side[id] = rng_.OneIn(2);
      for (const NodeId a : all) {
        for (const NodeId b : all) {
          if (side[a] != side[b]) cut_[{a, b}] = true;
        }
      }
      break;
    }
    case 3: {  // one, mostly a leader, with a single friend: it is heard, but by no majority
      const NodeId friend_id = all[rng_.Below(all.size())];
      for (const NodeId a : {one, friend_id}) {
        for (const NodeId b : all) {
          if (b != one && b != friend_id) cut_[{a, b}] = cut_[{b, a}] = true;
        }
      }
      break;
    }
    default:  // one direction of one link
      cut_[{one, all[rng_.Below(all.size())]}] = true;
  }
}

// Trouble for a leader tells more than trouble for anybody.
NodeId Cluster::SomeLeader() {
  const auto all = membership_.All();
  for (const auto& [id, node] : nodes_) {
    if (node.up && node.core->role() == Role::kLeader) return id;
  }
  return all[rng_.Below(all.size())];
}

void Cluster::Crash(Node& node) {
  ++figures_.crashes;
  Trace(node, "crash");
  // The disk may have got further than anybody was told.
  if (rng_.OneIn(2)) RunDisk(node, /*crashing=*/true);
  if (rng_.OneIn(2)) node.disk->LoseUnsynced();
  // Half of the crashes take the whole machine: then the clock begins anew.
  if (rng_.OneIn(2)) {
    node.clock.reset();
    node.record.reset();
  }
  node.up = node.paused = node.crash_soon = false;
  node.core.reset();
  node.tracker.reset();
  node.inbox.clear();
  node.disk_queue.clear();
  node.written.clear();
  node.apply_queue.clear();
  node.fetches.clear();
  std::erase_if(snapshots_in_flight_, [&](const auto& f) { return f.from == node.id; });
  std::erase_if(snapshot_results_, [&](const auto& r) { return r.second.first.from == node.id; });
  // A client of this node never hears of what it asked.
  std::erase_if(reads_, [&](const auto& r) { return r.second.node == node.id; });
}

// C7, the other half: the state machine has the snapshot, the log was not reset.
void Cluster::FinishHalfInstall(Node& node) {
  if (node.disk->TermAt(node.flushed.applied) == node.flushed.term) return;
  ++figures_.half_installed;
  storage::LogBatch batch;
  batch.reset = {node.flushed.applied, node.flushed.term, membership_.Encode()};
  storage::HardState state = node.disk->hard_state();
  // A term without a vote gives nothing away, and the log's last term is never above it.
  if (state.term < node.flushed.term) state = {node.flushed.term, NodeId(0), state.commit};
  batch.hard_state = state;
  const std::string broken = node.disk->Write(batch);
  if (!broken.empty()) witness_.Fail("half an install: " + broken);
}

void Cluster::Start(Node& node) {
  if (!node.clock) {
    const bool slew = rng_.OneIn(3);
    const int64_t slewed_ppm = slew ? -50'000 : static_cast<int64_t>(rng_.Below(4)) * 7000 - 1900;
    const int64_t raw_ppm = slew ? -1900 : static_cast<int64_t>(rng_.Below(3)) * 30'000 - 30'000;
    node.clock = std::make_unique<VirtualClock>(static_cast<int64_t>(rng_.Below(1u << 30)) * 1000,
                                                slewed_ppm, raw_ppm, now_ns_);
  }
  FinishHalfInstall(node);
  node.up = true;
  node.machine = node.flushed;
  node.handed_to_apply = node.machine.applied;
  node.installed_seq = 0;
  node.last_seq = 0;
  // Random, so that an answer to a former life names no question of this one.
  node.next_id = rng_.Next() >> 8;
  node.tick_ns = kTickNs - 300'000 + static_cast<int64_t>(rng_.Below(600'000));
  if (faults_ && Chance(options_.slow_ticker)) node.tick_ns *= 4;
  node.next_tick_ns = now_ns_ + node.tick_ns;
  CoreOptions core = options_.core;
  core.id = node.id;
  const storage::HardState hard_state = node.disk->hard_state();
  node.core =
      std::make_unique<RaftCore>(core, node.disk->Recover(node.machine.applied), rng_.Next());
  node.tracker = std::make_unique<FreshnessTracker>(rng_.Next(), rng_.Next());
  if (node.core->term() != hard_state.term || node.core->vote() != hard_state.vote) {
    witness_.Fail(fmt::format("node {} forgot its term or vote over a restart", node.id.value));
  }
  if (node.core->role() != Role::kFollower) witness_.Fail("a node did not start as a follower");
  node.seen_term = node.core->term();
  node.seen_vote = node.core->vote();
  node.seen_commit = Index(0);
  node.seen_applied = node.machine.applied;
  node.seen_role = Role::kFollower;
  node.seen_claim.reset();
  node.ready_term = node.core->term();
  node.ready_role = Role::kFollower;
  if (node.record) {
    node.tracker->Restore(*node.record, node.machine.applied);
    ++figures_.claims_restored;
  }
  Trace(node, fmt::format("start: term {} last {} applied {} mark {}", hard_state.term.value,
                          node.disk->last().value, node.machine.applied.value,
                          node.disk->mark().index.value));
  Observe(node);
}

void Cluster::Pause(Node& node) {
  ++figures_.pauses;
  node.paused = true;
  node.paused_at_ns = now_ns_;
  Trace(node, "pause");
}

void Cluster::Resume(Node& node) {
  node.paused = false;
  // Half of the pauses are suspends: BOOTTIME alone counted them.
  if (rng_.OneIn(2)) node.clock->Suspended(now_ns_ - node.paused_at_ns);
  Trace(node, "resume");
  // What it missed comes in bit by bit: for a while it may believe what it believed before.
  for (Message& message : std::exchange(node.inbox, {})) {
    network_.emplace(now_ns_ + static_cast<int64_t>(rng_.Below(30'000'000)), std::move(message));
  }
}

Cluster::Node* Cluster::RandomUp() {
  const auto all = membership_.All();
  Node& node = At(all[rng_.Below(all.size())]);
  return node.up && !node.paused ? &node : nullptr;
}

void Cluster::Clients() {
  if (Chance(options_.propose)) {
    std::vector<std::string> payloads(1 + rng_.Below(3));
    for (std::string& payload : payloads) payload = NewPayload();
    if (Node* node = RandomUp()) Propose(*node, payloads);
  }
  if (Chance(options_.read)) {
    if (Node* node = RandomUp()) Read(*node);
  }
}

std::string Cluster::NewPayload() {
  std::string payload = fmt::format("w{}-", next_payload_++);
  payload.append(rng_.Below(options_.payload_bytes_max + 1), 'x');
  return payload;
}

void Cluster::Propose(Node& node, const std::vector<std::string>& payloads) {
  const uint64_t id = node.next_id++;
  figures_.proposed += payloads.size();
  const ProposeOutcome outcome = node.core->Propose(id, payloads);
  if (outcome == ProposeOutcome::kNoLeader || outcome == ProposeOutcome::kFull) {
    for (const std::string& payload : payloads) witness_.SawRefusal(payload);
    ++figures_.refused;
  } else if (outcome == ProposeOutcome::kForwarded) {
    // One name is enough: all payloads of a proposal share its fate.
    proposals_[id] = payloads.front();
  } else if (node.core->role() != Role::kLeader) {
    witness_.Fail("a node that does not lead appended a proposal");
  }
  Observe(node);
}

void Cluster::Read(Node& node) {
  const uint64_t id = node.next_id++;
  reads_[id] = {node.id, witness_.acked()};
  node.core->StartRead(id);
  Observe(node);
}

void Cluster::HealEverything() {
  faults_ = false;
  // From here on everybody works at full speed, and the clients wait for the outcome.
  options_.turn = options_.disk = options_.apply = options_.fetch = 1000;
  options_.probe = 200;
  options_.propose = options_.read = options_.compact = 0;
  cut_.clear();
  for (auto& [id, node] : nodes_) {
    if (!node.up) Start(node);
    if (node.paused) Resume(node);
    node.tick_ns = kTickNs;
    node.next_tick_ns = std::min(node.next_tick_ns, now_ns_ + kTickNs);
  }
}

bool Cluster::Recovered(const std::string& payload) const {
  if (!witness_.Applied(payload)) return false;
  const AppliedState& first = nodes_.begin()->second.machine;
  return std::all_of(nodes_.begin(), nodes_.end(), [&](const auto& n) {
    return n.second.machine.applied == first.applied && n.second.machine.digest == first.digest;
  });
}

// With one entry a message, a fetch for each and a window of one, an entry may take two ticks.
uint64_t Cluster::RecoveryTicks() const {
  Index last, applied(UINT64_MAX);
  for (const auto& [id, node] : nodes_) {
    last = std::max(last, node.core->log().last());
    applied = std::min(applied, node.machine.applied);
  }
  return kRecoveryTicks + 2 * (last.value - applied.value);
}

bool Cluster::Recover() {
  HealEverything();
  const int64_t healed_ns = now_ns_;
  std::string payload;
  std::map<NodeId, uint64_t> reads;
  int64_t next_try_ns = 0;
  bool done = false;
  const int64_t deadline_ns = healed_ns + static_cast<int64_t>(RecoveryTicks()) * kTickNs;
  while (witness_.ok() && !done && now_ns_ < deadline_ns) {
    if (now_ns_ >= next_try_ns) {
      next_try_ns = now_ns_ + 20 * kTickNs;
      if (!witness_.Applied(payload)) {
        payload = NewPayload();
        Propose(*RandomUp(), {payload});
      }
      for (auto& [id, node] : nodes_) {
        if (reads.contains(id) && !reads_.contains(reads[id])) continue;
        reads[id] = node.next_id;
        Read(node);
      }
    }
    Step();
    done = Recovered(payload);
    for (auto& [id, node] : nodes_) {
      const auto& claim = node.tracker->claim();
      done = done && claim && node.clock->TrueTime(claim->at) > healed_ns;
      done = done && !reads_.contains(reads[id]);
    }
  }
  if (!done) witness_.Fail("liveness: no progress after everything had healed");
  const auto ticks = static_cast<uint64_t>((now_ns_ - healed_ns) / kTickNs);
  figures_.recovery_ticks_max = std::max(figures_.recovery_ticks_max, ticks);
  for (const auto& [id, node] : nodes_) figures_.truncations += node.disk->truncations();
  figures_.elections = witness_.elections();
  figures_.commits = witness_.commits();
  return witness_.ok();
}

}  // namespace holdfast::raft::test
