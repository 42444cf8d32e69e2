// How many members serve a crowd of clients that watch (mirrors), and how long all of them need to
// be back after an outage. docs/scaling.md explains it.
//
// Left out: clients' own machines, TLS (there is none yet), and events that share a message, which
// makes their cost an upper bound.
// Pure and deterministic. Threads: functions without state.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/load_admission.h"

namespace holdfast::bench {

// CPU of a member, and what a client costs it. How each was measured: docs/scaling.md.
struct CrowdCosts {
  double event_us = 15;          // one change delivered to one client
  double mark_us = 95;           // one mark answered: each prefix's age, each second
  double connect_us = 500;       // a connection accepted, HTTP/2 settled
  double request_us = 300;       // a Load asked for and its watch created
  double copy_byte_us = 0.001;   // of a whole copy
  double client_bytes = 68'000;  // memory of one connected client
  double mark_bytes = 120;       // both directions
  double event_overhead_bytes = 80;
};

struct CrowdModel {
  double clients = 100'000;
  double prefixes = 1;           // of each client, a watch and a mark each
  double marks_a_second = 1;     // of each prefix: the library's default
  double changes_a_second = 10;  // delivered to each client
  double change_bytes = 280;
};

struct ReplicaModel {
  double cores = 8;
  double busy = 0.5;  // of them, so that a member's loss and bursts find room
  double memory_bytes = 8e9;
  double link_mb_s = 1250;
};

struct FanOut {
  double by_cpu = 0, by_network = 0, by_memory = 0;  // clients of one member
  double a_member = 0;                               // the least of them
  std::string limit = {};                            // "cores", "network", "memory"
  double members = 0;                                // for all clients, rounded up
  double cores_used = 0, mb_s = 0, memory_mb = 0;    // of each, with the clients shared evenly
};
FanOut FanOutOf(const CrowdCosts& costs, const CrowdModel& crowd, const ReplicaModel& replica);

// One class of clients in a storm.
struct StormClass {
  double share = 1;       // of all clients
  double copy_bytes = 0;  // what each has to load; 0: it goes on where it was (RESUME)
};

struct StormModel {
  uint32_t clients = 100'000;
  uint32_t members = 10;
  double cores = 8;
  double link_mb_s = 1250;
  absl::Duration longest_back_off = absl::Seconds(30);        // full jitter up to there
  std::array<StormClass, server::kLoadClasses> classes = {};  // auth, config, bulk
  server::LoadLimits limits = {};                             // the server's own defaults
};

struct StormResult {
  uint64_t live = 0;
  uint64_t asked = 0;        // requests in all
  double peak_a_second = 0;  // of them, at all members together
  // Seconds from the members' return until half, 95 % and all are live; by class, and together.
  struct Times {
    double half = 0, most = 0, all = 0;
  };
  std::array<Times, server::kLoadClasses> of_class = {};
  Times together = {};
  std::vector<double> live_at = {};  // by second from the return on: clients that are live
};
// The members' real admission (server/load_admission.h) in virtual time.
// REQUIRES: clients, members > 0, the shares' sum 1.
StormResult Storm(const CrowdCosts& costs, const StormModel& storm, uint64_t seed);

}  // namespace holdfast::bench
