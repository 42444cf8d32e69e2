#include "cluster.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

namespace holdfast::raft::test {
namespace {

std::atomic<uint64_t> g_seed{0};

extern "C" void PrintSeedAndAbort(int) {
  // Only async-signal-safe calls here.
  char text[64] = "seed of the run that aborted: ";
  size_t length = 30;
  char digits[24];
  size_t count = 0;
  uint64_t seed = g_seed.load();
  do {
    digits[count++] = static_cast<char>('0' + seed % 10);
    seed /= 10;
  } while (seed != 0);
  while (count > 0) text[length++] = digits[--count];
  text[length++] = '\n';
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text, length);
  signal(SIGABRT, SIG_DFL);
}

Membership MakeMembership(const SimOptions& options) {
  Membership m;
  for (uint64_t i = 1; i <= options.voters + options.learners; ++i) {
    (i <= options.voters ? m.voters : m.learners).insert(NodeId(i));
    m.peer_urls[NodeId(i)] = {fmt::format("http://node{}", i)};
  }
  return m;
}

}  // namespace

void NameSeedOnAbort(uint64_t seed) {
  g_seed = seed;
  signal(SIGABRT, PrintSeedAndAbort);
}

Cluster::Cluster(const SimOptions& options)
    : options_(options),
      membership_(MakeMembership(options)),
      rng_(options.seed),
      trace_(std::getenv("HOLDFAST_SIM_TRACE") != nullptr),
      witness_(membership_) {
  for (const NodeId id : membership_.All()) {
    Node& node = nodes_[id];
    node.id = id;
    node.disk = std::make_unique<FakeDisk>(membership_);
    disks_[id] = node.disk.get();
    Start(node);
  }
}

bool Cluster::RunSteps() {
  ++figures_.runs;
  for (size_t i = 0; i < options_.steps && witness_.ok(); ++i) Step();
  figures_.elections = witness_.elections();
  figures_.commits = witness_.commits();
  return witness_.ok();
}

void Cluster::Step() {
  ++figures_.steps;
  now_ns_ += 200'000 + static_cast<int64_t>(rng_.Below(3'600'000));
  if (faults_) InjectFaults();
  Clients();
  Deliver();
  DeliverSnapshots();
  for (auto& [id, node] : nodes_) {
    if (node.up && !node.paused) Work(node);
  }
  for (auto& [id, node] : nodes_) {
    if (node.up) CheckClaim(node);
  }
}

void Cluster::Work(Node& node) {
  TickIfDue(node);
  if (Chance(options_.probe)) Probe(node);
  if (Chance(options_.disk)) RunDisk(node, /*crashing=*/false);
  if (Chance(700)) TellDurable(node);
  if (Chance(options_.apply)) RunApply(node);
  if (Chance(options_.fetch)) RunFetches(node);
  FlushAndCompact(node);
  if (Chance(options_.turn) && node.core->HasReady()) TakeReady(node);
  node.core->CheckInvariants();
  Observe(node);
  if (node.crash_soon) Crash(node);
}

void Cluster::TickIfDue(Node& node) {
  // A ticker that fell behind does not catch up, as in production.
  if (now_ns_ < node.next_tick_ns) return;
  node.next_tick_ns = now_ns_ + node.tick_ns;
  node.core->Tick();
  Observe(node);
}

void Cluster::Deliver() {
  while (!network_.empty() && network_.begin()->first <= now_ns_) {
    Message message = std::move(network_.begin()->second);
    network_.erase(network_.begin());
    Node& to = At(message.to);
    if (!to.up) continue;
    if (to.paused) {
      to.inbox.push_back(std::move(message));
    } else {
      StepCore(to, std::move(message));
    }
  }
}

void Cluster::StepCore(Node& node, Message message) {
  if (trace_) {
    Trace(node,
          fmt::format("<- {} type {} term {} prev ({},{}) commit {} n {} match {} {} round {}",
                      message.from.value, static_cast<int>(message.type), message.term.value,
                      message.prev_index.value, message.prev_term.value, message.commit.value,
                      message.entries.size(), message.match_index.value,
                      message.reject ? "reject" : "", message.round));
  }
  node.core->Step(std::move(message));
  Observe(node);
}

void Cluster::Probe(Node& node) {
  const NodeId leader = node.core->leader();
  if (!leader || leader == node.id) return;
  Message m;
  m.type = MessageType::kProbe;
  m.from = node.id;
  m.to = leader;
  m.term = node.core->term();
  m.nonce = node.tracker->NewProbe(Sample(node));
  m.boot = node.tracker->boot();
  m.urgent = rng_.OneIn(2);
  Send(node, std::move(m));
}

void Cluster::RunDisk(Node& node, bool crashing) {
  size_t jobs = node.disk_queue.empty() ? 0 : 1 + rng_.Below(node.disk_queue.size());
  for (; jobs > 0; --jobs) {
    DiskJob& job = node.disk_queue.front();
    // C7: the state machine first, then the log.
    if (job.batch.log.reset && node.installed_seq < job.batch.seq) return;
    const std::string broken =
        job.compact ? node.disk->Compact(*job.compact) : node.disk->Write(job.batch.log);
    if (!broken.empty()) {
      return witness_.Fail(fmt::format("node {}: disk: {}", node.id.value, broken));
    }
    if (!job.compact) {
      if (!job.batch.log.entries.empty()) {
        const Index first = job.batch.log.entries.front()->index;
        witness_.SawEntries(*node.disk->TermAt(first - 1), job.batch.log.entries);
      }
      const storage::HardState& state = node.disk->hard_state();
      if (state.vote) witness_.SawDurableVote(node.id, state.term, state.vote);
      if (job.batch.log.hard_state && job.batch.log.entries.empty()) ++figures_.commit_hints;
      if (!crashing) node.written.push_back(std::move(job.batch));
    }
    node.disk_queue.pop_front();
  }
}

void Cluster::TellDurable(Node& node) {
  if (node.written.empty()) return;
  std::deque<AppendBatch> done;
  const size_t count = 1 + rng_.Below(node.written.size());
  for (size_t i = 0; i < count; ++i) {
    done.push_back(std::move(node.written.front()));
    node.written.pop_front();
  }
  // The log thread's order: all that waited leaves, then the core is told once.
  for (AppendBatch& batch : done) {
    for (Message& message : batch.after_durable) {
      CheckMayLeave(node, message);
      if (message.to == node.id) {
        StepCore(node, std::move(message));
      } else {
        Send(node, std::move(message));
      }
    }
  }
  node.core->OnDurable(done.back().seq);
  // The mark of a snapshot still on its way to the log counts by itself: it was committed.
  if (const Index d = node.core->durable(); d > node.core->log().mark_index()) {
    if (!node.disk->Holds(d, *node.core->log().TermAt(d))) {
      witness_.Fail(fmt::format("C3: node {} counts entry {} as durable, the disk has another",
                                node.id.value, d.value));
    }
  }
  Observe(node);
}

void Cluster::RunApply(Node& node) {
  size_t jobs = node.apply_queue.empty() ? 0 : 1 + rng_.Below(node.apply_queue.size());
  for (; jobs > 0; --jobs) {
    ApplyJob job = std::move(node.apply_queue.front());
    node.apply_queue.pop_front();
    if (job.install_seq != 0) {
      const Snapshot& snapshot = snapshots_.at(job.dir);
      node.machine = node.flushed = snapshot.state;
      node.installed_seq = job.install_seq;
      ++figures_.snapshots_installed;
      node.crash_soon = faults_ && options_.crash > 0 && rng_.OneIn(4);
    } else {
      for (const EntryRef& entry : job.entries) witness_.SawApplied(node.machine, *entry);
    }
    node.core->OnApplied(node.machine.applied);
    node.tracker->OnApplied(node.machine.applied);
    Observe(node);
  }
}

void Cluster::RunFetches(Node& node) {
  while (!node.fetches.empty()) {
    FetchJob job = std::move(node.fetches.front());
    node.fetches.pop_front();
    node.core->OnFetched(job.id, std::move(job.entries));
    ++figures_.fetches;
    Observe(node);
  }
}

void Cluster::FlushAndCompact(Node& node) {
  if (Chance(options_.flush)) {
    node.flushed = node.machine;
    if (node.tracker->claim() && node.disk->last() >= node.tracker->claim()->index) {
      node.record = node.tracker->claim();
    }
  }
  const Index mark = node.core->log().mark_index();
  const Index up_to = std::min(node.flushed.applied, node.core->applied());
  if (!Chance(options_.compact) || up_to <= mark) return;
  // Half of the time everything, else some entries stay behind for slow members.
  const Index target = rng_.OneIn(2) ? up_to : mark + 1 + rng_.Below(up_to.value - mark.value);
  DiskJob job;
  job.compact = node.core->CompactTo(target);
  if (job.compact->index != target) witness_.Fail("CompactTo returned another mark");
  node.disk_queue.push_back(std::move(job));
  ++figures_.compactions;
}

void Cluster::TakeReady(Node& node) {
  const base::ClockSample sample = Sample(node);
  Ready ready = node.core->TakeReady();
  CheckReady(node, ready);
  if (witness_.ok()) HandleReady(node, std::move(ready), sample);
}

void Cluster::HandleReady(Node& node, Ready ready, const base::ClockSample& sample) {
  if (node.ready_term != node.core->term() || node.ready_role != node.core->role()) {
    node.tracker->ForgetRounds();
    node.ready_term = node.core->term();
    node.ready_role = node.core->role();
  }
  if (ready.round_started) node.tracker->OnRoundStarted(*ready.round_started, sample);
  if (ready.round_confirmed) {
    node.tracker->OnRoundConfirmed(ready.round_confirmed->round, ready.round_confirmed->index,
                                   node.machine.applied);
    ++figures_.leader_claims;
  }
  for (const Message& m : ready.confirms) {
    node.tracker->OnConfirm(m.nonce, m.boot, m.read_index, node.machine.applied);
  }
  for (Message& message : ready.messages) {
    CheckMayLeave(node, message);
    Send(node, std::move(message));
  }
  if (!ready.apply.empty()) node.apply_queue.push_back({std::move(ready.apply), 0, ""});
  if (!ready.append.empty()) {
    if (ready.append.log.reset) {
      node.apply_queue.push_back({{}, ready.append.seq, ready.append.snapshot_dir});
    }
    DiskJob job;
    job.batch = std::move(ready.append);
    node.disk_queue.push_back(std::move(job));
  }
  for (const FetchRequest& fetch : ready.fetches) {
    node.fetches.push_back({fetch.id, node.disk->Read(fetch.first, fetch.last, fetch.max_bytes)});
  }
  for (const NodeId peer : ready.snapshots_wanted) SendSnapshot(node, peer);
  for (const ReadGrant& grant : ready.reads) {
    const auto it = reads_.find(grant.read_id);
    if (it == reads_.end() || it->second.node != node.id) {
      return witness_.Fail("a read was answered twice, or at another node");
    }
    if (grant.index < it->second.acked_at_start) {
      witness_.Fail(
          fmt::format("linearizability: a read at node {} got index {}, {} was acked "
                      "before it began",
                      node.id.value, grant.index.value, it->second.acked_at_start.value));
    }
    reads_.erase(it);
    ++figures_.reads_granted;
    if (node.core->role() != Role::kLeader) ++figures_.follower_reads;
  }
  for (const uint64_t id : ready.reads_dropped) {
    if (reads_.erase(id) == 0) witness_.Fail("a read was dropped after it was answered");
    ++figures_.reads_dropped;
  }
  for (const uint64_t id : ready.proposals_refused) {
    const auto it = proposals_.find(id);
    if (it == proposals_.end()) return witness_.Fail("an unknown proposal was refused");
    witness_.SawRefusal(it->second);  // may come twice: the network repeats messages
    ++figures_.refused;
  }
}

void Cluster::SendSnapshot(Node& node, NodeId to) {
  SnapshotInFlight flight;
  flight.from = node.id;
  flight.to = to;
  flight.term = node.core->term();
  flight.dir = fmt::format("snap-{}", next_snapshot_++);
  flight.arrives_ns = now_ns_ + 1'000'000 + static_cast<int64_t>(rng_.Below(40'000'000));
  flight.lost = cut_[{node.id, to}] || (faults_ && rng_.OneIn(5));
  snapshots_[flight.dir] = {{node.machine.applied, node.machine.term, membership_.Encode()},
                            node.machine};
  snapshots_in_flight_.push_back(flight);
  ++figures_.snapshots_sent;
}

void Cluster::DeliverSnapshots() {
  for (size_t i = 0; i < snapshots_in_flight_.size();) {
    const SnapshotInFlight flight = snapshots_in_flight_[i];
    if (flight.arrives_ns > now_ns_) {
      ++i;
      continue;
    }
    snapshots_in_flight_.erase(snapshots_in_flight_.begin() + static_cast<ptrdiff_t>(i));
    Node& to = At(flight.to);
    const bool ok = !flight.lost && to.up && !to.paused;
    if (ok) {
      const Snapshot& snapshot = snapshots_.at(flight.dir);
      witness_.SawSnapshot(snapshot.state);
      Message m;
      m.type = MessageType::kSnapshot;
      m.from = flight.from;
      m.to = flight.to;
      m.term = flight.term;
      m.prev_index = snapshot.mark.index;
      m.prev_term = snapshot.mark.term;
      m.payloads = {snapshot.mark.membership, flight.dir};
      StepCore(to, std::move(m));
    }
    const int64_t told = now_ns_ + static_cast<int64_t>(rng_.Below(30'000'000));
    snapshot_results_.push_back({told, {flight, ok}});
  }
  for (size_t i = 0; i < snapshot_results_.size();) {
    const auto [told, result] = snapshot_results_[i];
    const auto& [flight, ok] = result;
    Node& from = At(flight.from);
    if (told > now_ns_ || from.paused) {
      ++i;
      continue;
    }
    snapshot_results_.erase(snapshot_results_.begin() + static_cast<ptrdiff_t>(i));
    if (!from.up) continue;
    from.core->OnSnapshotSent(flight.to, snapshots_.at(flight.dir).mark.index, ok);
    Observe(from);
  }
}

void Cluster::Send(Node& node, Message message) {
  ++figures_.messages;
  if (message.from != node.id || message.to == node.id || !membership_.Contains(message.to)) {
    return witness_.Fail("a message with a wrong sender or receiver");
  }
  if (message.type == MessageType::kAppend) {
    witness_.SawEntries(message.prev_term, message.entries);
  }
  if (cut_[{node.id, message.to}] || (faults_ && Chance(options_.loss))) {
    ++figures_.lost;
    return;
  }
  // Streams between members never repeat a message; a proposal is the one that must not be.
  int copies = 1;
  if (faults_ && Chance(options_.duplicate) && message.type != MessageType::kPropose) {
    ++figures_.duplicated;
    copies = 2;
  }
  for (; copies > 0; --copies) {
    int64_t delay = 50'000 + static_cast<int64_t>(rng_.Below(2'000'000));
    if (faults_ && Chance(options_.slow)) {
      delay +=
          static_cast<int64_t>(rng_.Below(static_cast<uint64_t>(options_.slow_ms_max))) * 1'000'000;
    }
    network_.emplace(now_ns_ + delay, message);
  }
}

uint64_t Cluster::Digest() {
  uint64_t digest = rng_.Next();
  for (const auto& [id, node] : nodes_) {
    digest = digest * 31 + node.machine.digest;
    digest = digest * 31 + node.disk->hard_state().term.value;
  }
  return digest * 31 + static_cast<uint64_t>(now_ns_) + figures_.messages;
}

}  // namespace holdfast::raft::test
