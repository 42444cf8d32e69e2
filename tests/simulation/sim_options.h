// How one run is to be: everything that its seed draws.
//
// A swarm: in a given run most kinds of trouble are off, and the others are strong.
#pragma once

#include <cstdint>
#include <string>

#include "replication/raft_node.h"

namespace holdfast::sim {

// Chances are in thousandths. `..._every_ms` is a mean distance in virtual time; 0: never.
struct SimOptions {
  uint64_t seed = 0;
  uint64_t voters = 3;
  uint64_t learners = 0;
  int64_t safety_ms = 20'000;

  // The node.
  int64_t tick_ms = 10;
  raft::CoreOptions core;  // id is set for each member
  size_t max_queued_bytes = size_t{64} << 20;
  uint64_t snapshot_count = 100'000;
  uint64_t snapshot_log_bytes = uint64_t{256} << 20;
  uint64_t catch_up_entries = 5000;

  // Clients.
  uint64_t clients = 4;
  int64_t think_ms = 100;
  uint64_t keys = 6;
  uint64_t padding_max = 60;
  int64_t deadline_ms = 3000;
  uint64_t write = 500, linearizable = 250, serializable = 150;  // the rest: fresh reads

  // Network. A packet is what one turn sends to one peer.
  int64_t delay_us_max = 800;
  bool split_packets = false;
  uint64_t loss = 0, duplicate = 0, reorder = 0, slow = 0;
  int64_t slow_ms_max = 100;
  int64_t cut_every_ms = 0, cut_ms_max = 2000;
  uint64_t flap = 0;
  int64_t slow_link_every_ms = 0;
  uint64_t break_hint = 500;  // of a cut or a crash: that the peers' connections notice
  int64_t spurious_hint_every_ms = 0;

  // Processes and machines.
  int64_t crash_every_ms = 0, down_ms_max = 2000;
  uint64_t power = 300, graceful = 100;  // of a crash: it takes the machine; it is no crash at all
  int64_t pause_every_ms = 0, pause_ms_max = 2000;
  uint64_t suspend = 500;
  uint64_t slow_ticker = 0;
  uint64_t crash_at_install = 0;
  int64_t drift_every_ms = 0;

  // How long each part of a node may be held back.
  uint64_t turn_hold = 0, apply_hold = 0, fetch_hold = 0, maintenance_hold = 0;
  int64_t turn_hold_ms_max = 30, hold_ms_max = 200;

  // Disks.
  int64_t fsync_us_max = 600;
  uint64_t slow_fsync = 0;
  int64_t slow_fsync_ms_max = 50;
  int64_t stall_every_ms = 0, stall_ms_max = 2500;
  int64_t disk_error_every_ms = 0;
  int64_t rot_every_ms = 0;
  uint64_t segment_entries = 1;  // compaction frees entries in steps of so many

  // Snapshots on their way.
  int64_t snapshot_ms_max = 300;
  uint64_t snapshot_fail = 0, snapshot_late = 0;

  // Operators.
  int64_t change_every_ms = 0;
  int64_t transfer_every_ms = 0;
  uint64_t voters_max = 7;

  int64_t heartbeat_ms() const { return tick_ms * core.heartbeat_ticks; }
  int64_t election_ms() const { return tick_ms * core.election_ticks; }

  static SimOptions FromSeed(uint64_t seed);
  std::string ToString() const;
};

}  // namespace holdfast::sim
