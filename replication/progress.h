// What a leader knows of one peer (thesis 10.2.1; the field's probe / replicate / snapshot).
#pragma once

#include <cstdint>
#include <deque>

#include "base/ids.h"

namespace holdfast::raft {

enum class ProgressState : uint8_t {
  kProbe,      // we do not know where the logs agree: one append in flight a heartbeat
  kReplicate,  // pipelined appends, optimistic next_index
  kSnapshot,   // too far behind for the log; nothing is appended until it is installed
};

struct Progress {
  ProgressState state = ProgressState::kProbe;
  // Invariant: match_index < next_index.
  Index match_index;  // known durable there and equal to our log
  Index next_index{1};
  Index commit_sent;  // the commit index this peer was last told
  // Append messages in flight: {last index, bytes}. Bounded by CoreOptions::max_inflight_*.
  std::deque<std::pair<Index, size_t>> inflight;
  size_t inflight_bytes = 0;
  bool heard_ack = false;             // since the last heartbeat tick
  bool check_due = false;             // kReplicate: appends may be lost, ask with an empty one
  uint32_t snapshot_pause_ticks = 0;  // after a failed snapshot, before the next is made
  bool probe_sent = false;            // kProbe: wait for its answer, or for that of a later round
  uint64_t probe_round = 0;           // the newest round when it was sent
  bool fetch_pending = false;
  Index snapshot_index;        // kSnapshot: what was sent, 0 while it is being made
  uint64_t acked_round = 0;    // Freshness L2
  bool recent_active = false;  // since the last quorum check
  uint32_t silent_ticks = 0;   // since the last answer of any kind
  // A learner's rounds (thesis 4.2.1): each ends when it has what was the log's end at its start.
  Index catch_up_target;  // 0: no round yet
  uint32_t catch_up_ticks = 0;
  bool keeps_up = false;  // the last round took less than an election timeout

  void BecomeProbe(Index next) {
    state = ProgressState::kProbe;
    next_index = next > match_index ? next : match_index + 1;
    ClearInflight();
    probe_sent = false;
    fetch_pending = false;
  }
  void BecomeReplicate() {
    state = ProgressState::kReplicate;
    next_index = match_index + 1;
    ClearInflight();
    probe_sent = false;
  }
  void BecomeSnapshot() {
    state = ProgressState::kSnapshot;
    ClearInflight();
    snapshot_index = Index(0);
  }
  void ClearInflight() {
    inflight.clear();
    inflight_bytes = 0;
  }
  void FreeInflight(Index up_to) {
    while (!inflight.empty() && inflight.front().first <= up_to) {
      inflight_bytes -= inflight.front().second;
      inflight.pop_front();
    }
  }
};

}  // namespace holdfast::raft
