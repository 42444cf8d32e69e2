#include "network.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "world.h"

namespace holdfast::sim {

using raft::Message;
using raft::MessageType;

// ---------------------------------------------------------------- messages

// Members are connected as soon as one of them knows the other: streams carry both directions.
bool Network::Connected(const Member& from, NodeId to) const {
  if (!world_.Exists(to)) return false;
  return from.known().Contains(to) || world_.member(to).known().Contains(from.id());
}

void Network::Send(Member& from, std::vector<Message> messages) {
  for (const Message& message : messages) CheckMessage(from, message);
  if (!world_.witness.ok()) return;
  // One packet for each peer, in the order of the messages.
  while (!messages.empty()) {
    const NodeId to = messages.front().to;
    std::vector<Message> rest, packet;
    const bool alone = world_.options.split_packets;
    for (Message& message : messages) {
      const bool goes = message.to == to && (!alone || packet.empty());
      (goes ? packet : rest).push_back(std::move(message));
    }
    SendPacket(from, to, std::move(packet));
    messages = std::move(rest);
  }
}

void Network::SendPacket(Member& from, NodeId to, std::vector<Message> messages) {
  Figures& figures = world_.figures;
  ++figures.packets;
  figures.messages += messages.size();
  const SimOptions& o = world_.options;
  Link& way = link(from.id(), to);
  if (!Connected(from, to)) return;
  if (way.cuts > 0 || world_.Chance(o.loss)) {
    ++figures.lost;
    return;
  }
  int64_t at_ns = world_.now_ns + Delay(way);
  if (world_.Chance(o.reorder)) {
    ++figures.reordered;
  } else {
    at_ns = std::max(at_ns, way.last_arrival_ns + 1);
    way.last_arrival_ns = at_ns;
  }
  const bool may_repeat = std::none_of(messages.begin(), messages.end(), [](const Message& m) {
    return m.type == MessageType::kPropose;
  });
  if (may_repeat && world_.Chance(o.duplicate)) {
    ++figures.duplicated;
    Schedule(way, {from.id(), to, messages}, at_ns + Delay(way));
  }
  Schedule(way, {from.id(), to, std::move(messages)}, at_ns);
}

int64_t Network::Delay(const Link& link) {
  const SimOptions& o = world_.options;
  int64_t delay = 30 * kMicrosecond + world_.Uniform(o.delay_us_max * kMicrosecond);
  if (world_.Chance(o.slow)) delay += world_.Uniform(o.slow_ms_max * kMillisecond);
  return delay + link.extra_ns;
}

void Network::Schedule(const Link&, Packet packet, int64_t at_ns) {
  uint32_t slot = static_cast<uint32_t>(packets_.size());
  const NodeId to = packet.to;
  if (free_packets_.empty()) {
    packets_.push_back(std::move(packet));
  } else {
    slot = free_packets_.back();
    free_packets_.pop_back();
    packets_[slot] = std::move(packet);
  }
  // Of no life: a packet may reach whoever has come up again meanwhile.
  world_.AtHost(at_ns, EventKind::kDeliver, to, slot);
}

void Network::Deliver(uint32_t slot) {
  Packet packet = std::move(packets_[slot]);
  free_packets_.push_back(slot);
  Member& to = world_.member(packet.to);
  if (to.up()) to.Receive(std::move(packet.messages));
}

void Network::CheckMessage(Member& from, const Message& message) {
  if (message.from != from.id() || message.to == from.id() || !message.to) {
    return world_.witness.Fail(fmt::format("member {} sends a message from {} to {}",
                                           from.id().value, message.from.value, message.to.value));
  }
  if (message.type == MessageType::kSnapshot) {
    return world_.witness.Fail("the driver's own word about a snapshot was sent to a peer");
  }
  if (message.type == MessageType::kAppend && !message.entries.empty()) {
    if (message.entries.front()->index != message.prev_index + 1) {
      world_.witness.Fail("an append does not begin after its previous entry");
    }
    world_.witness.SawEntries(message.prev_term, message.entries);
  }
  CheckMayLeave(from, message);
}

// C1: what a message reveals must be on the disk of its sender.
void Network::CheckMayLeave(Member& from, const Message& m) {
  const storage::HardState& disk = from.disk().hard_state();
  const auto broken = [&](const char* what) {
    world_.witness.Fail(fmt::format(
        "C1: member {} sent {} of term {} with term {} vote {} last {} on disk", from.id().value,
        what, m.term.value, disk.term.value, disk.vote.value, from.disk().last().value));
  };
  const auto voted = [&](NodeId candidate) {
    return disk.term > m.term || (disk.term == m.term && disk.vote == candidate);
  };
  switch (m.type) {
    case MessageType::kVote:
      if (!m.pre_vote && !voted(from.id())) broken("a vote request");
      break;
    case MessageType::kVoteReply:
      if (m.pre_vote || m.reject) break;
      if (!voted(m.to)) return broken("a vote");
      // A later term on disk keeps the vote as well as the vote itself would.
      world_.witness.SawDurableVote(from.id(), m.term, m.to);
      break;
    case MessageType::kAppend:
    case MessageType::kHeartbeat:
    case MessageType::kTimeoutNow:
      if (disk.term < m.term) broken("a leader's word");
      break;
    case MessageType::kAppendReply:
      if (m.reject || disk.term > m.term) break;
      if (disk.term < m.term || from.disk().last() < m.match_index) {
        return broken("an append reply");
      }
      CheckAppendReply(from, m);
      break;
    default:
      break;
  }
}

// The leader it goes to has the entry that is acknowledged, if it still leads.
void Network::CheckAppendReply(Member& from, const Message& m) {
  if (!world_.Exists(m.to)) return;
  const Member& leader = world_.member(m.to);
  if (!leader.leads() || leader.core().term() != m.term) return;
  const auto term = leader.core().log().TermAt(m.match_index);
  if (!term || from.disk().Holds(m.match_index, *term)) return;
  world_.witness.Fail(
      fmt::format("C1: member {} acknowledges ({}, term {}), which it does not have",
                  from.id().value, m.match_index.value, term->value));
}

// ---------------------------------------------------------------- snapshots

void Network::SendSnapshot(Member& from, raft::Transport::SnapshotToSend snapshot,
                           SnapshotDone done) {
  const SimOptions& o = world_.options;
  const auto slot = static_cast<uint32_t>(flights_.size());
  flights_.push_back({from.id(), snapshot.to, snapshot.term, snapshot.mark,
                      world_.checkpoints.Copy(snapshot.dir), std::move(done), true,
                      absl::OkStatus()});
  const int64_t way_ns = kMillisecond + world_.Uniform(o.snapshot_ms_max * kMillisecond);
  int64_t deadline_ns = 2 * kSecond + o.snapshot_ms_max * kMillisecond;
  const bool fails = !world_.Exists(snapshot.to) || IsCut(from.id(), snapshot.to) ||
                     world_.Chance(o.snapshot_fail);
  if (fails) {
    deadline_ns = world_.Uniform(way_ns);
  } else {
    world_.AtHost(world_.now_ns + way_ns, EventKind::kSnapshotHere, snapshot.to, slot);
    if (world_.Chance(o.snapshot_late)) {
      ++world_.figures.snapshots_late;
      deadline_ns = world_.Uniform(way_ns);  // it arrives, and the sender does not know
    }
  }
  world_.At(world_.now_ns + deadline_ns, EventKind::kSnapshotLost, slot);
}

void Network::SnapshotHere(uint32_t slot) {
  Flight& flight = flights_[slot];
  Member& to = world_.member(flight.to);
  if (!to.up() || IsCut(flight.from, flight.to)) return;
  world_.Trace(&to, fmt::format("a snapshot at {} from {} is here", flight.mark.index.value,
                                flight.from.value));
  to.node().OnSnapshotReceived(
      flight.from, flight.term, flight.mark, world_.checkpoints.Copy(flight.dir),
      [this, slot](absl::Status status) { Finish(slot, std::move(status)); });
  to.NeedTurn();
}

void Network::SnapshotLost(uint32_t slot) {
  if (!flights_[slot].open) return;
  ++world_.figures.snapshots_failed;
  Finish(slot, absl::DeadlineExceededError("simulated: the snapshot did not get through"));
}

// The receiver, or the deadline, has spoken; its answer takes a while.
void Network::Finish(uint32_t slot, absl::Status result) {
  Flight& flight = flights_[slot];
  if (!flight.open) return;
  flight.open = false;
  flight.result = std::move(result);
  if (!flight.done) return;
  const Member& from = world_.member(flight.from);
  world_.AtMember(world_.now_ns + 1 + world_.Uniform(5 * kMillisecond), EventKind::kSnapshotDone,
                  from, slot);
}

void Network::SnapshotDoneAt(uint32_t slot) {
  Flight& flight = flights_[slot];
  if (!flight.done) return;
  auto done = std::exchange(flight.done, nullptr);
  std::move(done)(flight.result);
  world_.member(flight.from).NeedTurn();
}

void Network::ForgetSender(NodeId from) {
  for (Flight& flight : flights_) {
    if (flight.from == from) flight.done = nullptr;
  }
}

// ---------------------------------------------------------------- cuts

std::vector<std::pair<NodeId, NodeId>> Network::DrawLinks() {
  std::vector<std::pair<NodeId, NodeId>> links;
  const auto& all = world_.members();
  const auto any = [&] { return all[world_.rng.Below(all.size())]->id(); };
  const Member* leader = world_.Leader();
  const NodeId one = leader != nullptr && world_.rng.OneIn(2) ? leader->id() : any();
  const auto separate = [&](auto together) {
    for (const Member* a : all) {
      for (const Member* b : all) {
        if (together(a->id()) != together(b->id())) links.emplace_back(a->id(), b->id());
      }
    }
  };
  switch (world_.rng.Below(6)) {
    case 0:  // alone
      separate([&](NodeId id) { return id == one; });
      break;
    case 1:  // it hears, but is not heard
      for (const Member* other : all) links.emplace_back(one, other->id());
      break;
    case 2:  // it is heard, but does not hear
      for (const Member* other : all) links.emplace_back(other->id(), one);
      break;
    case 3: {  // two halves
      const uint64_t sides = world_.rng.Next();
      separate([&](NodeId id) { return (sides >> id.value & 1) != 0; });
      break;
    }
    case 4: {  // one, mostly a leader, with a single friend: it is heard, but by no majority
      const NodeId companion = any();
      separate([&](NodeId id) { return id == one || id == companion; });
      break;
    }
    default: {  // one direction, or both, of one link
      const NodeId other = any();
      links.emplace_back(one, other);
      if (world_.rng.OneIn(2)) links.emplace_back(other, one);
    }
  }
  std::erase_if(links, [](const auto& way) { return way.first == way.second; });
  return links;
}

void Network::CutSomething() {
  Cut cut;
  cut.links = DrawLinks();
  ++world_.figures.cuts;
  const auto opposite = [&](const std::pair<NodeId, NodeId>& way) {
    return std::count(cut.links.begin(), cut.links.end(), std::pair(way.second, way.first)) > 0;
  };
  if (!cut.links.empty() && !opposite(cut.links.front())) ++world_.figures.one_way_cuts;
  int64_t lasts_ns = world_.Uniform(world_.options.cut_ms_max * kMillisecond);
  if (world_.Chance(world_.options.flap)) {
    ++world_.figures.flaps;
    cut.flaps_left = 2 * static_cast<uint32_t>(2 + world_.rng.Below(10));
    lasts_ns = world_.Uniform(200 * kMillisecond);
  }
  SetActive(cut, true);
  cuts_.push_back(std::move(cut));
  world_.At(world_.now_ns + 1 + lasts_ns, EventKind::kHeal,
            static_cast<uint32_t>(cuts_.size() - 1));
}

void Network::SlowSomething() {
  Cut cut;
  cut.links = DrawLinks();
  cut.slow_ns = kMillisecond + world_.Uniform(world_.options.slow_ms_max * kMillisecond);
  ++world_.figures.slow_links;
  SetActive(cut, true);
  cuts_.push_back(std::move(cut));
  world_.At(world_.now_ns + world_.Uniform(8 * kSecond), EventKind::kHeal,
            static_cast<uint32_t>(cuts_.size() - 1));
}

void Network::SetActive(Cut& cut, bool active) {
  cut.active = active;
  for (const auto& [from, to] : cut.links) {
    Link& way = link(from, to);
    if (cut.slow_ns > 0) {
      way.extra_ns += active ? cut.slow_ns : -cut.slow_ns;
      continue;
    }
    way.cuts += active ? 1u : UINT32_MAX;  // wraps: one less
    if (!world_.Chance(world_.options.break_hint)) continue;
    Hint(from, to, active, 200 * kMillisecond);
    Hint(to, from, active, 200 * kMillisecond);
  }
}

void Network::EndCut(uint32_t number) {
  Cut& cut = cuts_[number];
  if (!world_.faulty()) return;  // HealEverything has seen to it
  SetActive(cut, !cut.active);
  if (cut.flaps_left == 0) return;
  --cut.flaps_left;
  world_.At(world_.now_ns + 1 + world_.Uniform(400 * kMillisecond), EventKind::kHeal, number);
}

void Network::HealEverything() {
  for (Cut& cut : cuts_) {
    if (cut.active) SetActive(cut, false);
  }
}

void Network::Hint(NodeId member, NodeId peer, bool lost, int64_t within_ns) {
  if (!world_.Exists(member)) return;
  const Member& told = world_.member(member);
  if (!told.up() || !told.known().Contains(peer)) return;
  world_.AtMember(world_.now_ns + 1 + world_.Uniform(within_ns),
                  lost ? EventKind::kPeerLost : EventKind::kPeerUp, told,
                  static_cast<uint32_t>(peer.value));
}

void Network::BreakConnections(NodeId member) {
  for (const Member* other : world_.members()) {
    if (other->id() == member || !world_.Chance(world_.options.break_hint)) continue;
    Hint(other->id(), member, /*lost=*/true, 5 * kMillisecond);
  }
}

void Network::RestoreConnections(NodeId member) {
  for (const Member* other : world_.members()) {
    if (other->id() == member) continue;
    Hint(other->id(), member, /*lost=*/false, 100 * kMillisecond);
    Hint(member, other->id(), /*lost=*/false, 100 * kMillisecond);
  }
}

}  // namespace holdfast::sim
